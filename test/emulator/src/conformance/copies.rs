//! Cases of copies inside the service.

use super::{
    Case, case,
    step::{get, head, put, put_blob, put_block, put_list},
};

pub(super) fn cases() -> Vec<Case> {
    [copies_of_blobs(), blocks_from_urls(), more_from_urls()].into_iter().flatten().collect()
}

fn copies_of_blobs() -> Vec<Case> {
    let source = || {
        put_blob("/s", "0123456789")
            .header("x-ms-meta-k", "v")
            .header("x-ms-blob-content-type", "text/x-s")
            .save("etag", "e")
    };
    let copy = |status| put("/t", status).header("x-ms-copy-source", "{url}/s");
    vec![
        case(
            "copy blob copies bytes, metadata and headers",
            [
                source(),
                copy(202).some("x-ms-copy-id").has("x-ms-copy-status", "success").differs("etag", "e"),
                get("/t", 200)
                    .answers("0123456789")
                    .has("x-ms-meta-k", "v")
                    .has("content-type", "text/x-s")
                    .has("x-ms-copy-status", "success")
                    .some("x-ms-copy-id"),
            ],
        ),
        case(
            "copy blob with metadata of its own",
            [
                source(),
                copy(202).header("x-ms-meta-n", "w"),
                head("/t", 200).has("x-ms-meta-n", "w").none("x-ms-meta-k"),
            ],
        ),
        case("copy blob of a missing source", [copy(404).some("x-ms-error-code")]),
        case(
            "copy blob under a wrong source condition",
            [source(), copy(412).header("x-ms-source-if-match", "\"0x1\"").some("x-ms-error-code"), get("/t", 404)],
        ),
        case("copy blob under the right source condition", [source(), copy(202).header("x-ms-source-if-match", "{e}")]),
        case(
            "copy blob if absent onto an existing blob",
            [
                source(),
                put_blob("/t", "old"),
                copy(409).header("if-none-match", "*").has("x-ms-error-code", "BlobAlreadyExists"),
                get("/t", 200).answers("old"),
            ],
        ),
        case(
            "copy blob keeps the block list",
            [
                put_block("/s", "QUFB", "one"),
                put_list("/s", &["QUFB"]),
                copy(202),
                get("/t?comp=blocklist", 200).contains(&["QUFB"]),
            ],
        ),
    ]
}

fn blocks_from_urls() -> Vec<Case> {
    let source = || {
        put_blob("/s", "0123456789")
            .header("x-ms-meta-k", "v")
            .header("x-ms-blob-content-type", "text/x-s")
            .save("etag", "e")
    };
    let copy = |status| put("/t", status).header("x-ms-copy-source", "{url}/s");
    let block = |status, url: &str| put("/t?comp=block&blockid=QUFB", status).header("x-ms-copy-source", url);
    let no_from_url = "Azurite has no Put Block From URL";
    vec![
        case(
            "abort of a copy that is done",
            [
                source(),
                copy(202).save("x-ms-copy-id", "id"),
                put("/t?comp=copy&copyid={id}", 409)
                    .header("x-ms-copy-action", "abort")
                    .has("x-ms-error-code", "NoPendingCopyOperation"),
            ],
        ),
        case(
            "copy from url with a sas copies at once",
            [
                source(),
                put("/t", 202)
                    .header("x-ms-copy-source", "{url}/s?{sas b r /s}")
                    .header("x-ms-requires-sync", "true")
                    .has("x-ms-copy-status", "success"),
                get("/t", 200).answers("0123456789"),
            ],
        ),
        case(
            "put block from url with a sas",
            [
                source(),
                block(201, "{url}/s?{sas b r /s}").header("x-ms-source-range", "bytes=2-4"),
                put_list("/t", &["QUFB"]),
                get("/t", 200).answers("234"),
            ],
        )
        .differs(no_from_url),
        case(
            "put block from url without authorisation of the source",
            [source(), block(401, "{url}/s").has("x-ms-error-code", "CannotVerifyCopySource")],
        )
        .differs(no_from_url),
    ]
}

fn more_from_urls() -> Vec<Case> {
    let source = || {
        put_blob("/s", "0123456789")
            .header("x-ms-meta-k", "v")
            .header("x-ms-blob-content-type", "text/x-s")
            .save("etag", "e")
    };
    let block = |status, url: &str| put("/t?comp=block&blockid=QUFB", status).header("x-ms-copy-source", url);
    let no_from_url = "Azurite has no Put Block From URL";
    vec![
        case(
            "put block from url with a sas of another blob",
            [source(), block(403, "{url}/s?{sas b r /other}").has("x-ms-error-code", "CannotVerifyCopySource")],
        )
        .differs(no_from_url),
        case(
            "put block from url with a sas that may not read",
            [source(), block(403, "{url}/s?{sas b w /s}").has("x-ms-error-code", "CannotVerifyCopySource")],
        )
        .differs(no_from_url),
        case(
            "put block from url of a missing source",
            [block(404, "{url}/s?{sas b r /s}").has("x-ms-error-code", "CannotVerifyCopySource")],
        )
        .differs(no_from_url),
        case(
            "put block from url under a wrong source condition",
            [
                source(),
                block(412, "{url}/s?{sas b r /s}")
                    .header("x-ms-source-if-match", "\"0x1\"")
                    .has("x-ms-error-code", "SourceConditionNotMet"),
            ],
        )
        .differs(no_from_url),
        case(
            "put block from url of a public source",
            [
                put("?restype=container&comp=acl", 200).header("x-ms-blob-public-access", "blob"),
                source(),
                block(201, "{url}/s").header("x-ms-source-if-match", "{e}"),
            ],
        )
        .differs(no_from_url),
        case(
            "put blob from url takes bytes and type of the source",
            [
                source(),
                put("/t", 201).header("x-ms-blob-type", "BlockBlob").header("x-ms-copy-source", "{url}/s?{sas b r /s}"),
                get("/t", 200).answers("0123456789").has("content-type", "text/x-s"),
            ],
        )
        .differs("Azurite has no Put Blob From URL"),
    ]
}
