//! Cases of block lists. Ids in base64: QUFB = AAA, QkJC = BBB, Q0ND = CCC; QUE= = AA.

use super::{
    Case, case,
    step::{get, head, put, put_blob, put_block, put_list},
};

pub(super) fn cases() -> Vec<Case> {
    [staging(), staging_limits(), committing(), keeping_blocks(), listing()].into_iter().flatten().collect()
}

fn staging() -> Vec<Case> {
    vec![
        case(
            "a staged block is not yet a blob",
            [put_block("/a", "QUFB", "one"), get("/a", 404).has("x-ms-error-code", "BlobNotFound"), head("/a", 404)],
        ),
        case(
            "a staged name is not listed",
            [put_block("/a", "QUFB", "one"), get("?restype=container&comp=list", 200).omits("<Name>a</Name>")],
        ),
        case(
            "a staged name is listed when asked for",
            [
                put_block("/a", "QUFB", "one"),
                get("?restype=container&comp=list&include=uncommittedblobs", 200).contains(&["<Name>a</Name>"]),
            ],
        ),
        case("put block answers no etag", [put_block("/a", "QUFB", "one").none("etag")]),
        case(
            "ids of one blob have one length",
            [put_block("/a", "QUFB", "one"), put_block("/a", "QUE=", "two").refused(400, "InvalidBlobOrBlock")],
        ),
        case(
            "ids have the length of the committed ones",
            [
                put_block("/a", "QUFB", "one"),
                put_list("/a", &["QUFB"]),
                put_block("/a", "QUE=", "two").refused(400, "InvalidBlobOrBlock"),
            ],
        )
        .differs("Azurite compares the id with uncommitted blocks only"),
        case("a put blob leaves the id length free", [put_blob("/a", "x"), put_block("/a", "QUE=", "two")]),
        case(
            "an id that is no base64 is refused",
            [put_block("/a", "!!!!", "one").refused(400, "InvalidQueryParameterValue")],
        ),
        case(
            "an id of 65 bytes is refused",
            [put_block("/a", &format!("{}QUE=", "QUFB".repeat(21)), "one").refused(400, "InvalidQueryParameterValue")],
        )
        .differs("Azurite answers another code for a long id"),
    ]
}

fn staging_limits() -> Vec<Case> {
    vec![
        case(
            "put block without an id is refused",
            [put("/a?comp=block", 400).body("x").has("x-ms-error-code", "MissingRequiredQueryParameter")],
        )
        .differs("Azurite refuses malformed parameters without a code and a request id"),
        case(
            "put block needs no condition and takes none",
            [put_blob("/a", "x"), put_block("/a", "QUFB", "one").header("if-match", "\"0x1\"")],
        ),
        case(
            "a wrong md5 of a block is refused",
            [put_block("/a", "QUFB", "one")
                .header("content-md5", "XUFAKrxLKna5cZ2REBfFkg==")
                .refused(400, "Md5Mismatch")],
        )
        .differs("Azurite answers the code InvalidOperation"),
        case(
            "the last of two blocks with one id wins, whoever staged it",
            [
                put_block("/a", "QUFB", "mine"),
                put_block("/a", "QUFB", "theirs"),
                put_list("/a", &["QUFB"]),
                get("/a", 200).answers("theirs"),
            ],
        ),
        case(
            "blocks of an append blob are refused",
            [
                put("/a", 201).header("x-ms-blob-type", "AppendBlob"),
                put_block("/a", "QUFB", "one").refused(409, "InvalidBlobType"),
            ],
        ),
        case(
            "put block into a missing container is refused",
            [
                super::step::delete("?restype=container", 202),
                put_block("/a", "QUFB", "one").refused(404, "ContainerNotFound"),
            ],
        ),
    ]
}

fn committing() -> Vec<Case> {
    let staged = || [put_block("/a", "QUFB", "one"), put_block("/a", "QkJC", "two")];
    let with = |more: Vec<super::Step>| staged().into_iter().chain(more).collect::<Vec<_>>();
    vec![
        case(
            "a committed list is the blob, in its order",
            with(vec![
                put_list("/a", &["QkJC", "QUFB"]).some("etag").some("last-modified"),
                get("/a", 200).answers("twoone"),
            ]),
        ),
        case(
            "a block may be committed twice",
            with(vec![put_list("/a", &["QUFB", "QUFB"]), get("/a", 200).answers("oneone")]),
        ),
        case(
            "an unknown block is refused",
            with(vec![put_list("/a", &["QUFB", "Q0ND"]).refused(400, "InvalidBlockList"), get("/a", 404)]),
        ),
        case(
            "uncommitted blocks that a list leaves out are discarded",
            with(vec![put_list("/a", &["QUFB"]), put_list("/a", &["QUFB", "QkJC"]).refused(400, "InvalidBlockList")]),
        ),
        case(
            "put blob discards uncommitted blocks",
            with(vec![put_blob("/a", "x"), put_list("/a", &["QUFB"]).refused(400, "InvalidBlockList")]),
        )
        .differs("Azurite keeps uncommitted blocks at Put Blob"),
        case(
            "committed blocks are kept by id",
            with(vec![
                put_list("/a", &["QUFB", "QkJC"]),
                put_block("/a", "Q0ND", "three"),
                put_list("/a", &["QkJC", "Q0ND"]),
                get("/a", 200).answers("twothree"),
            ]),
        ),
        case(
            "latest prefers the uncommitted block",
            with(vec![
                put_list("/a", &["QUFB", "QkJC"]),
                put_block("/a", "QUFB", "new"),
                put_list("/a", &["QUFB", "QkJC"]),
                get("/a", 200).answers("newtwo"),
            ]),
        ),
    ]
}

fn keeping_blocks() -> Vec<Case> {
    let staged = || [put_block("/a", "QUFB", "one"), put_block("/a", "QkJC", "two")];
    let list = |body: &str| put("/a?comp=blocklist", 201).body(body);
    let with = |more: Vec<super::Step>| staged().into_iter().chain(more).collect::<Vec<_>>();
    vec![
        case(
            "committed means the committed block",
            with(vec![
                put_list("/a", &["QUFB"]),
                put_block("/a", "QUFB", "new"),
                list("<BlockList><Committed>QUFB</Committed></BlockList>"),
                get("/a", 200).answers("one"),
            ]),
        ),
        case(
            "uncommitted means the uncommitted block",
            with(vec![
                put_list("/a", &["QUFB"]),
                list("<BlockList><Uncommitted>QUFB</Uncommitted></BlockList>").refused(400, "InvalidBlockList"),
            ]),
        ),
        case(
            "a list resets metadata and content type",
            [
                put_blob("/a", "x").header("x-ms-meta-k", "v").header("x-ms-blob-content-type", "text/plain"),
                put_block("/a", "QUFB", "one"),
                put_list("/a", &["QUFB"]).header("x-ms-meta-n", "w"),
                head("/a", 200)
                    .none("x-ms-meta-k")
                    .has("x-ms-meta-n", "w")
                    .has("content-type", "application/octet-stream"),
            ],
        ),
        case("an empty list makes an empty blob", [list("<BlockList />"), get("/a", 200).answers("")]),
        case("a list that is no xml is refused", [list("<BlockList><Latest>QUFB").refused(400, "InvalidXmlDocument")])
            .differs("Azurite answers another status for broken XML"),
        case(
            "a list if absent on an existing blob is 409",
            with(vec![
                put_list("/a", &["QUFB"]),
                put_block("/a", "QkJC", "two"),
                put_list("/a", &["QkJC"]).header("if-none-match", "*").refused(409, "BlobAlreadyExists"),
                get("/a", 200).answers("one"),
            ]),
        ),
        case(
            "a list may name a block several times",
            with(vec![
                put_list("/a", &["QUFB", "QkJC", "QUFB"]),
                get("/a", 200).answers("onetwoone"),
                put_list("/a", &["QUFB", "QUFB"]),
                get("/a", 200).answers("oneone"),
            ]),
        ),
        case(
            "a list under a wrong if-match is 412 and keeps the staged blocks",
            with(vec![
                put_list("/a", &["QUFB"]).save("etag", "e"),
                put_block("/a", "QkJC", "two"),
                put_list("/a", &["QkJC"]).header("if-match", "\"0x1\"").refused(412, "ConditionNotMet"),
                put_list("/a", &["QkJC"]).header("if-match", "{e}"),
                get("/a", 200).answers("two"),
            ]),
        ),
    ]
}

fn listing() -> Vec<Case> {
    vec![
        case(
            "both lists of blocks are told",
            [
                put_block("/a", "QUFB", "one"),
                put_list("/a", &["QUFB"]),
                put_block("/a", "QkJC", "zwei"),
                get("/a?comp=blocklist&blocklisttype=all", 200)
                    .contains(&[
                        "<CommittedBlocks>",
                        "<Name>QUFB</Name><Size>3</Size>",
                        "<UncommittedBlocks>",
                        "<Name>QkJC</Name><Size>4</Size>",
                    ])
                    .some("etag")
                    .has("x-ms-blob-content-length", "3"),
                get("/a?comp=blocklist&blocklisttype=uncommitted", 200).contains(&["QkJC"]).omits("QUFB"),
                get("/a?comp=blocklist", 200).contains(&["QUFB"]).omits("QkJC"),
            ],
        ),
        case(
            "a put blob has no blocks",
            [put_blob("/a", "x"), get("/a?comp=blocklist&blocklisttype=all", 200).omits("<Block>")],
        ),
        case(
            "a staged name has a block list",
            [put_block("/a", "QUFB", "one"), get("/a?comp=blocklist&blocklisttype=all", 200).contains(&["QUFB"])],
        ),
        case(
            "a missing blob has no block list",
            [get("/a?comp=blocklist", 404).has("x-ms-error-code", "BlobNotFound")],
        ),
    ]
}
