//! Cases of List Blobs.

use super::{
    Case, Step, case,
    step::{delete, get, put_blob},
};

const LIST: &str = "?restype=container&comp=list";

fn blobs(names: &[&str], more: impl IntoIterator<Item = Step>) -> Vec<Step> {
    names.iter().map(|name| put_blob(&format!("/{name}"), "x")).chain(more).collect()
}

pub(super) fn cases() -> Vec<Case> {
    [order_and_prefixes(), folding_and_pages(), entries()].into_iter().flatten().collect()
}

fn order_and_prefixes() -> Vec<Case> {
    let list = |query: &str| get(&format!("{LIST}{query}"), 200);
    vec![
        case(
            "blobs are listed in order of their bytes",
            blobs(
                &["b", "a", "B", "a-", "a/x"],
                [list("").contains(&[
                    "<Name>B</Name>",
                    "<Name>a</Name>",
                    "<Name>a-</Name>",
                    "<Name>a/x</Name>",
                    "<Name>b</Name>",
                ])],
            ),
        ),
        case("an empty container lists nothing", [list("").omits("<Name>").omits("<BlobPrefix>")]),
        case(
            "a prefix limits the names",
            blobs(&["a/1", "a/2", "b"], [list("&prefix=a%2F").contains(&["a/1", "a/2"]).omits("<Name>b</Name>")]),
        ),
        case(
            "a delimiter folds names into prefixes",
            blobs(
                &["a", "d/1", "d/2", "e"],
                [list("&delimiter=%2F")
                    .contains(&["<BlobPrefix><Name>d/</Name></BlobPrefix>"])
                    .omits("d/1")
                    .contains(&["<Name>a</Name>"])
                    .contains(&["<Name>e</Name>"])],
            ),
        ),
        case(
            "prefixes stand among the blobs in order",
            blobs(
                &["a", "d/1", "e"],
                [list("&delimiter=%2F").contains(&["<Name>a</Name>", "<Name>d/</Name>", "<Name>e</Name>"])],
            ),
        )
        .differs("Azurite lists the prefixes behind the blobs"),
    ]
}

fn folding_and_pages() -> Vec<Case> {
    let list = |query: &str| get(&format!("{LIST}{query}"), 200);
    vec![
        case(
            "a marker and a prefix of the same name are both there",
            blobs(
                &["d", "d/1", "d-"],
                [list("&delimiter=%2F")
                    .contains(&["<Name>d</Name>"])
                    .contains(&["<BlobPrefix><Name>d/</Name>"])
                    .contains(&["<Name>d-</Name>"])],
            ),
        ),
        case(
            "a delimiter counts behind the prefix",
            blobs(
                &["d/", "d/1", "d/e/2"],
                [list("&delimiter=%2F&prefix=d%2F")
                    .contains(&["<Name>d/</Name>"])
                    .contains(&["<Name>d/1</Name>"])
                    .contains(&["<BlobPrefix><Name>d/e/</Name></BlobPrefix>"])],
            ),
        ),
        case(
            "pages continue where they ended",
            blobs(
                &["a", "b", "c"],
                [
                    list("&maxresults=2")
                        .contains(&["<Name>a</Name>", "<Name>b</Name>"])
                        .omits("<Name>c</Name>")
                        .save_between("<NextMarker>", "</NextMarker>", "m"),
                    list("&maxresults=2&marker={m}").contains(&["<Name>c</Name>"]).omits("<Name>b</Name>"),
                ],
            ),
        ),
        case(
            "pages of prefixes continue behind the prefix",
            blobs(
                &["a/1", "a/2", "b/1"],
                [
                    list("&delimiter=%2F&maxresults=1").contains(&["<Name>a/</Name>"]).omits("b/").save_between(
                        "<NextMarker>",
                        "</NextMarker>",
                        "m",
                    ),
                    list("&delimiter=%2F&maxresults=1&marker={m}")
                        .contains(&["<Name>b/</Name>"])
                        .omits("<Name>a/</Name>"),
                ],
            ),
        ),
    ]
}

fn entries() -> Vec<Case> {
    let list = |query: &str| get(&format!("{LIST}{query}"), 200);
    vec![
        case(
            "maxresults of zero is refused",
            [get(&format!("{LIST}&maxresults=0"), 400).has("x-ms-error-code", "OutOfRangeQueryParameterValue")],
        )
        .differs("Azurite refuses malformed parameters without a code and a request id"),
        case(
            "metadata is listed when asked for",
            [
                put_blob("/a", "x").header("x-ms-meta-k", "v"),
                list("").omits("<k>"),
                list("&include=metadata").contains(&["<Metadata>", "<k>v</k>"]),
            ],
        ),
        case(
            "an entry tells what head tells",
            [
                put_blob("/a", "hello").header("x-ms-blob-content-type", "text/plain"),
                list("")
                    .contains(&["<Last-Modified>"])
                    .contains(&["<Etag>"])
                    .contains(&["<Content-Length>5</Content-Length>"])
                    .contains(&["<Content-Type>text/plain</Content-Type>"])
                    .contains(&["<Content-MD5>XUFAKrxLKna5cZ2REBfFkg==</Content-MD5>"])
                    .contains(&["<BlobType>BlockBlob</BlobType>"])
                    .contains(&["<LeaseState>available</LeaseState>"]),
            ],
        ),
        case(
            "a missing container is told",
            [delete("?restype=container", 202), get(LIST, 404).has("x-ms-error-code", "ContainerNotFound")],
        ),
        case(
            "names that xml cannot carry are encoded",
            [put_blob("/a%EF%BF%BEb", "x"), list("").contains(&["Encoded=\"true\"", "a%EF%BF%BEb"])],
        )
        .differs("Azurite writes the character into the XML"),
    ]
}
