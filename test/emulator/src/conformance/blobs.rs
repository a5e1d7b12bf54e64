//! Cases of whole blobs: Put Blob, Get Blob, HEAD, ranges, conditions, metadata, properties, deletion, names, kinds.

use super::{
    Case, case,
    step::{delete, get, head, put, put_blob},
};

/// MD5 of "hello", CRC64 of "hello".
const HELLO_MD5: &str = "XUFAKrxLKna5cZ2REBfFkg==";
const HELLO_CRC64: &str = "V0JSBnCFdzM=";

pub(super) fn cases() -> Vec<Case> {
    [
        writing(),
        reading(),
        ranges(),
        read_conditions(),
        write_conditions(),
        metadata_and_headers(),
        tiers_tags_and_deletion(),
        names(),
        append_blobs(),
        page_blobs(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn writing() -> Vec<Case> {
    vec![
        case(
            "a put blob is read back",
            [put_blob("/a", "hello").some("etag").some("last-modified"), get("/a", 200).answers("hello")],
        ),
        case("put blob answers the md5 of the body", [put_blob("/a", "hello").has("content-md5", HELLO_MD5)]),
        case(
            "put blob stores the md5 of the body",
            [put_blob("/a", "hello"), head("/a", 200).has("content-md5", HELLO_MD5)],
        ),
        case("a right content-md5 is accepted", [put_blob("/a", "hello").header("content-md5", HELLO_MD5)]),
        case(
            "a wrong content-md5 is refused",
            [put_blob("/a", "hullo").header("content-md5", HELLO_MD5).refused(400, "Md5Mismatch"), get("/a", 404)],
        )
        .differs("Azurite answers the code InvalidOperation"),
        case("a right crc64 is accepted", [put_blob("/a", "hello").header("x-ms-content-crc64", HELLO_CRC64)])
            .differs("Azurite refuses x-ms-content-crc64 in its strict mode"),
        case(
            "a wrong crc64 is refused",
            [put_blob("/a", "hullo").header("x-ms-content-crc64", HELLO_CRC64).refused(400, "Crc64Mismatch")],
        )
        .differs("Azurite refuses x-ms-content-crc64 in its strict mode"),
        case(
            "put blob replaces bytes, metadata and content type",
            [
                put_blob("/a", "one")
                    .header("x-ms-meta-k", "v")
                    .header("x-ms-blob-content-type", "text/x-one")
                    .save("etag", "e"),
                put_blob("/a", "two").differs("etag", "e"),
                get("/a", 200).answers("two").none("x-ms-meta-k").has("content-type", "application/octet-stream"),
            ],
        ),
        case("an empty blob is a blob", [put_blob("/a", ""), get("/a", 200).answers("").has("content-length", "0")]),
        case(
            "put blob without a type is refused",
            [put("/a", 400).body("x").has("x-ms-error-code", "MissingRequiredHeader")],
        )
        .differs("Azurite refuses malformed parameters without a code and a request id"),
        case(
            "put blob of an unknown type is refused",
            [put("/a", 400).header("x-ms-blob-type", "RoundBlob").has("x-ms-error-code", "InvalidHeaderValue")],
        )
        .differs("Azurite refuses malformed parameters without a code and a request id"),
        case(
            "put blob without a length is refused",
            [put_blob("/a", "").without_length().refused(411, "MissingContentLengthHeader")],
        )
        .differs("Azurite takes a missing Content-Length as zero"),
        case(
            "put blob into a missing container is refused",
            [delete("?restype=container", 202), put_blob("/a", "x").refused(404, "ContainerNotFound")],
        ),
    ]
}

fn reading() -> Vec<Case> {
    vec![
        case("a missing blob is 404 with its code", [get("/a", 404).has("x-ms-error-code", "BlobNotFound")]),
        case(
            "a refused head has the code in its header and no body",
            [head("/a", 404).has("x-ms-error-code", "BlobNotFound").answers("")],
        ),
        case(
            "a range is 206 with content-range",
            [
                put_blob("/a", "0123456789"),
                get("/a", 206)
                    .header("range", "bytes=2-5")
                    .answers("2345")
                    .has("content-range", "bytes 2-5/10")
                    .has("content-length", "4"),
            ],
        ),
        case(
            "x-ms-range goes before range",
            [
                put_blob("/a", "0123456789"),
                get("/a", 206).header("range", "bytes=0-1").header("x-ms-range", "bytes=7-8").answers("78"),
            ],
        ),
        case(
            "an open range reads to the end",
            [
                put_blob("/a", "0123456789"),
                get("/a", 206).header("x-ms-range", "bytes=8-").answers("89").has("content-range", "bytes 8-9/10"),
            ],
        ),
        case(
            "a range over the end is cut there",
            [
                put_blob("/a", "0123456789"),
                get("/a", 206).header("range", "bytes=8-99").answers("89").has("content-range", "bytes 8-9/10"),
            ],
        ),
        case(
            "a range behind the end is 416",
            [
                put_blob("/a", "0123456789"),
                get("/a", 416).header("range", "bytes=10-11").has("x-ms-error-code", "InvalidRange"),
            ],
        )
        .differs("Azurite answers 206 with nothing for a range that begins exactly at the end"),
        case(
            "a range of an empty blob is 416",
            [put_blob("/a", ""), get("/a", 416).header("range", "bytes=0-0").has("x-ms-error-code", "InvalidRange")],
        )
        .differs("Azurite answers 206 with nothing for a range that begins exactly at the end"),
    ]
}

fn ranges() -> Vec<Case> {
    vec![
        case(
            "the md5 of a range is given when asked for",
            [
                put_blob("/a", "xxhelloxx"),
                get("/a", 206)
                    .header("x-ms-range", "bytes=2-6")
                    .header("x-ms-range-get-content-md5", "true")
                    .has("content-md5", HELLO_MD5)
                    .some("x-ms-blob-content-md5"),
            ],
        ),
        case(
            "the crc64 of a range is given when asked for",
            [
                put_blob("/a", "xxhelloxx"),
                get("/a", 206)
                    .header("x-ms-range", "bytes=2-6")
                    .header("x-ms-range-get-content-crc64", "true")
                    .has("x-ms-content-crc64", HELLO_CRC64),
            ],
        )
        .differs("Azurite does not compute the CRC64 of a range"),
        case(
            "head tells length, type, lease and kind",
            [
                put_blob("/a", "hello").header("x-ms-blob-content-type", "text/plain"),
                head("/a", 200)
                    .has("content-length", "5")
                    .has("content-type", "text/plain")
                    .has("x-ms-blob-type", "BlockBlob")
                    .has("x-ms-lease-status", "unlocked")
                    .has("x-ms-lease-state", "available")
                    .has("accept-ranges", "bytes")
                    .some("x-ms-creation-time")
                    .has("x-ms-server-encrypted", "true")
                    .answers(""),
            ],
        ),
        case(
            "the version asked for is answered",
            [
                put_blob("/a", "hello"),
                get("/a", 200).header("x-ms-version", "2020-10-02").has("x-ms-version", "2020-10-02"),
            ],
        )
        .differs("Azurite always answers its own version"),
        case(
            "the client's request id is repeated",
            [
                put_blob("/a", "hello"),
                get("/a", 200).header("x-ms-client-request-id", "my-id-1").has("x-ms-client-request-id", "my-id-1"),
            ],
        ),
    ]
}

fn read_conditions() -> Vec<Case> {
    let blob = || put_blob("/a", "hello").save("etag", "e");
    vec![
        case("get under the right if-match", [blob(), get("/a", 200).header("if-match", "{e}").answers("hello")]),
        case(
            "get under a wrong if-match is 412",
            [blob(), get("/a", 412).header("if-match", "\"0x1\"").has("x-ms-error-code", "ConditionNotMet")],
        ),
        case(
            "a ranged get under a wrong if-match is 412",
            [blob(), get("/a", 412).header("if-match", "\"0x1\"").header("range", "bytes=0-1")],
        ),
        case(
            "an unchanged blob is 304 without body",
            [blob(), get("/a", 304).header("if-none-match", "{e}").answers("")],
        ),
        case("head of an unchanged blob is 304", [blob(), head("/a", 304).header("if-none-match", "{e}").answers("")]),
        case("a changed blob is read under if-none-match", [blob(), get("/a", 200).header("if-none-match", "\"0x1\"")]),
        case(
            "get under if-none-match of any version is refused",
            [blob(), get("/a", 400).header("if-none-match", "*").has("x-ms-error-code", "UnsatisfiableCondition")],
        ),
        case("not modified since tomorrow is 304", [blob(), get("/a", 304).header("if-modified-since", "{tomorrow}")]),
        case("modified since yesterday is read", [blob(), get("/a", 200).header("if-modified-since", "{yesterday}")]),
        case(
            "unmodified since yesterday is 412",
            [blob(), get("/a", 412).header("if-unmodified-since", "{yesterday}")],
        ),
        case(
            "a condition on a missing blob is 404",
            [get("/a", 404).header("if-match", "\"0x1\"").has("x-ms-error-code", "BlobNotFound")],
        )
        .differs("Azurite judges conditions before it looks for the blob"),
    ]
}

fn write_conditions() -> Vec<Case> {
    let blob = || put_blob("/a", "hello").save("etag", "e");
    vec![
        case("put blob if absent creates", [put_blob("/a", "x").header("if-none-match", "*")]),
        case(
            "put blob if absent on an existing one is 409",
            [
                blob(),
                put_blob("/a", "x").header("if-none-match", "*").refused(409, "BlobAlreadyExists"),
                get("/a", 200).answers("hello"),
            ],
        ),
        case(
            "put blob under the right if-match replaces",
            [blob(), put_blob("/a", "x").header("if-match", "{e}").differs("etag", "e")],
        ),
        case(
            "put blob under a wrong if-match is 412",
            [blob(), put_blob("/a", "x").header("if-match", "\"0x1\"").refused(412, "ConditionNotMet")],
        ),
        case(
            "put blob under if-match of a missing blob is 412",
            [put_blob("/a", "x").header("if-match", "\"0x1\"").refused(412, "ConditionNotMet")],
        ),
        case(
            "put blob under if-none-match of this version is 412",
            [blob(), put_blob("/a", "x").header("if-none-match", "{e}").refused(412, "ConditionNotMet")],
        ),
        case(
            "put blob unmodified since yesterday is 412",
            [blob(), put_blob("/a", "x").header("if-unmodified-since", "{yesterday}").refused(412, "ConditionNotMet")],
        ),
        case(
            "put blob modified since tomorrow is 412",
            [blob(), put_blob("/a", "x").header("if-modified-since", "{tomorrow}").refused(412, "ConditionNotMet")],
        ),
        case(
            "delete under a wrong if-match is 412",
            [
                blob(),
                delete("/a", 412).header("if-match", "\"0x1\"").has("x-ms-error-code", "ConditionNotMet"),
                head("/a", 200),
            ],
        ),
        case(
            "delete under the right if-match deletes",
            [blob(), delete("/a", 202).header("if-match", "{e}"), head("/a", 404)],
        ),
        case(
            "set metadata under a wrong if-match is 412",
            [blob(), put("/a?comp=metadata", 412).header("if-match", "\"0x1\"")],
        ),
    ]
}

fn metadata_and_headers() -> Vec<Case> {
    vec![
        case(
            "metadata is kept and answered",
            [
                put_blob("/a", "x").header("x-ms-meta-one", "1").header("x-ms-meta-two", "zwei drei"),
                head("/a", 200).has("x-ms-meta-one", "1").has("x-ms-meta-two", "zwei drei"),
                get("/a?comp=metadata", 200).has("x-ms-meta-one", "1"),
            ],
        ),
        case(
            "set metadata replaces all of it and changes the etag",
            [
                put_blob("/a", "x").header("x-ms-meta-one", "1").save("etag", "e"),
                put("/a?comp=metadata", 200).header("x-ms-meta-two", "2").differs("etag", "e").some("last-modified"),
                get("/a", 200).none("x-ms-meta-one").has("x-ms-meta-two", "2").differs("etag", "e").answers("x"),
            ],
        ),
        case(
            "a metadata name that is no identifier is refused",
            [put_blob("/a", "x").header("x-ms-meta-a-b", "1").refused(400, "InvalidMetadata")],
        ),
        case(
            "set metadata of a missing blob is 404",
            [put("/a?comp=metadata", 404).has("x-ms-error-code", "BlobNotFound")],
        ),
        case(
            "set properties replaces the content headers and changes the etag",
            [
                put_blob("/a", "x")
                    .header("x-ms-blob-content-type", "text/a")
                    .header("x-ms-blob-content-encoding", "gzip")
                    .save("etag", "e"),
                put("/a?comp=properties", 200)
                    .header("x-ms-blob-content-type", "text/b")
                    .header("x-ms-blob-cache-control", "no-store")
                    .differs("etag", "e"),
                head("/a", 200).has("content-type", "text/b").has("cache-control", "no-store").none("content-encoding"),
            ],
        ),
        case(
            "content headers are kept",
            [
                put_blob("/a", "x")
                    .header("x-ms-blob-content-language", "de")
                    .header("x-ms-blob-content-disposition", "inline"),
                head("/a", 200).has("content-language", "de").has("content-disposition", "inline"),
            ],
        ),
    ]
}

fn tiers_tags_and_deletion() -> Vec<Case> {
    vec![
        case(
            "a tier of its own is answered",
            [
                put_blob("/a", "x").header("x-ms-access-tier", "Cool"),
                head("/a", 200).has("x-ms-access-tier", "Cool").none("x-ms-access-tier-inferred"),
            ],
        )
        .differs("Azurite says inferred for an explicit tier"),
        case(
            "an archived blob is not read until it comes back",
            [
                put_blob("/a", "x"),
                put("/a?comp=tier", 200).header("x-ms-access-tier", "Archive"),
                get("/a", 409).has("x-ms-error-code", "BlobArchived"),
                head("/a", 200).has("x-ms-access-tier", "Archive"),
            ],
        ),
        case(
            "an unknown tier is refused",
            [put_blob("/a", "x"), put("/a?comp=tier", 400).header("x-ms-access-tier", "Tepid").some("x-ms-error-code")],
        ),
        case(
            "tags are counted and leave the etag alone",
            [
                put_blob("/a", "x").save("etag", "e"),
                put("/a?comp=tags", 204).body("<Tags><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tags>"),
                head("/a", 200).has("x-ms-tag-count", "1").has("etag", "{e}"),
                get("/a?comp=tags", 200).contains(&["<Key>k</Key><Value>v</Value>"]),
            ],
        ),
        case(
            "a deleted blob is gone",
            [
                put_blob("/a", "x"),
                delete("/a", 202),
                get("/a", 404),
                delete("/a", 404).has("x-ms-error-code", "BlobNotFound"),
            ],
        ),
        case(
            "delete takes the snapshots header",
            [put_blob("/a", "x"), delete("/a", 202).header("x-ms-delete-snapshots", "include")],
        ),
    ]
}

fn names() -> Vec<Case> {
    let reads = |path: &str, name: &str| {
        [
            put_blob(path, "x"),
            get(path, 200).answers("x"),
            get("?restype=container&comp=list", 200).contains(&[&format!("<Name>{name}</Name>")]),
        ]
    };
    let long = "n".repeat(1024);
    vec![
        case("names with spaces and unicode", reads("/sp%20ace-%C3%BC", "sp ace-ü")),
        case("names with percent signs", reads("/100%2525", "100%25")),
        case("names with empty segments", reads("/a//b", "a//b")),
        case("names that end with a slash", reads("/d/", "d/")),
        case("an escaped slash is a slash", [put_blob("/a%2Fb", "x"), get("/a/b", 200).answers("x")]),
        case("names that xml must escape", reads("/a%26b%3Cc", "a&amp;b&lt;c")),
        case("names of dots", reads("/..a/...", "..a/...")),
        case("names differ by case", [put_blob("/A", "1"), put_blob("/a", "2"), get("/A", 200).answers("1")]),
        case("1024 characters are a name", [put_blob(&format!("/{long}"), "x"), get(&format!("/{long}"), 200)]),
        case("1025 characters are no name", [put_blob(&format!("/{long}n"), "x").status(400)])
            .differs("Azurite does not limit the length of names"),
    ]
}

fn append_blobs() -> Vec<Case> {
    let append = || put("/a", 201).header("x-ms-blob-type", "AppendBlob");
    vec![
        case(
            "append blocks grow an append blob",
            [
                append(),
                put("/a?comp=appendblock", 201)
                    .body("one")
                    .has("x-ms-blob-append-offset", "0")
                    .has("x-ms-blob-committed-block-count", "1"),
                put("/a?comp=appendblock", 201).body("two").has("x-ms-blob-append-offset", "3"),
                get("/a", 200)
                    .answers("onetwo")
                    .has("x-ms-blob-type", "AppendBlob")
                    .has("x-ms-blob-committed-block-count", "2"),
            ],
        ),
        case(
            "append at the wrong position is 412",
            [
                append(),
                put("/a?comp=appendblock", 201).body("one").header("x-ms-blob-condition-appendpos", "0"),
                put("/a?comp=appendblock", 412)
                    .body("two")
                    .header("x-ms-blob-condition-appendpos", "0")
                    .has("x-ms-error-code", "AppendPositionConditionNotMet"),
            ],
        ),
    ]
}

fn page_blobs() -> Vec<Case> {
    let append = || put("/a", 201).header("x-ms-blob-type", "AppendBlob");
    let page = || put("/p", 201).header("x-ms-blob-type", "PageBlob").header("x-ms-blob-content-length", "2048");
    let sector = "s".repeat(512);
    let write = |status| {
        put("/p?comp=page", status)
            .header("x-ms-page-write", "update")
            .header("x-ms-range", "bytes=512-1023")
            .body(&sector)
    };
    vec![
        case(
            "append beyond the wanted size is 412",
            [
                append(),
                put("/a?comp=appendblock", 412)
                    .body("two")
                    .header("x-ms-blob-condition-maxsize", "2")
                    .has("x-ms-error-code", "MaxBlobSizeConditionNotMet"),
            ],
        ),
        case(
            "append to a missing blob is 404",
            [put("/a?comp=appendblock", 404).body("x").has("x-ms-error-code", "BlobNotFound")],
        ),
        case(
            "append to a block blob is refused",
            [put_blob("/a", "x"), put("/a?comp=appendblock", 409).body("x").has("x-ms-error-code", "InvalidBlobType")],
        ),
        case(
            "pages are written in place and listed",
            [
                page(),
                write(201),
                get("/p", 206).header("x-ms-range", "bytes=510-513").answers("\0\0ss"),
                get("/p?comp=pagelist", 200).contains(&["<Start>512</Start>", "<End>1023</End>"]),
                head("/p", 200).has("content-length", "2048").has("x-ms-blob-type", "PageBlob"),
            ],
        ),
        case(
            "a page blob's size is a multiple of 512",
            [page(), put("/q", 400).header("x-ms-blob-type", "PageBlob").header("x-ms-blob-content-length", "100")],
        ),
        case(
            "pages of a block blob are refused",
            [put_blob("/p", "x"), write(409).has("x-ms-error-code", "InvalidBlobType")],
        ),
    ]
}
