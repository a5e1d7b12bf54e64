//! Cases of leases on blobs and containers.

use super::{
    Case, Step, case,
    step::{delete, get, head, put, put_blob, put_block, put_list},
};

const ID: &str = "11111111-2222-3333-4444-555555555555";
const OTHER: &str = "99999999-2222-3333-4444-555555555555";

fn act(path: &str, action: &str, status: u16) -> Step {
    put(&format!("{path}?comp=lease"), status).header("x-ms-lease-action", action)
}

fn acquire(status: u16) -> Step {
    act("/a", "acquire", status).header("x-ms-lease-duration", "-1").header("x-ms-proposed-lease-id", ID)
}

fn leased(more: impl IntoIterator<Item = Step>) -> Vec<Step> {
    [put_blob("/a", "x").save("etag", "e"), acquire(201).has("x-ms-lease-id", ID)].into_iter().chain(more).collect()
}

pub(super) fn cases() -> Vec<Case> {
    [writes_under_a_lease(), life_of_a_lease(), ends_of_a_lease()].into_iter().flatten().collect()
}

fn writes_under_a_lease() -> Vec<Case> {
    let with = |step: Step, id: &str| step.header("x-ms-lease-id", id);
    vec![
        case(
            "a lease is seen and leaves the etag alone",
            leased([head("/a", 200)
                .has("x-ms-lease-state", "leased")
                .has("x-ms-lease-status", "locked")
                .has("x-ms-lease-duration", "infinite")
                .has("etag", "{e}")]),
        ),
        case(
            "put blob on a leased blob needs the id",
            leased([
                put_blob("/a", "y").refused(412, "LeaseIdMissing"),
                with(put_blob("/a", "y"), ID),
                head("/a", 200).has("x-ms-lease-state", "leased"),
            ]),
        ),
        case(
            "put blob under another id is refused",
            leased([with(put_blob("/a", "y"), OTHER).refused(412, "LeaseIdMismatchWithBlobOperation")]),
        ),
        case(
            "put blob under an id without a lease is refused",
            [put_blob("/a", "x"), with(put_blob("/a", "y"), ID).refused(412, "LeaseNotPresentWithBlobOperation")],
        ),
        case(
            "put block on a leased blob needs the id",
            leased([
                put_block("/a", "QUFB", "y").refused(412, "LeaseIdMissing"),
                with(put_block("/a", "QUFB", "y"), ID),
            ]),
        ),
        case(
            "put block list on a leased blob needs the id",
            leased([
                with(put_block("/a", "QUFB", "y"), ID),
                put_list("/a", &["QUFB"]).refused(412, "LeaseIdMissing"),
                with(put_list("/a", &["QUFB"]), ID),
            ]),
        ),
        case(
            "delete of a leased blob needs the id",
            leased([delete("/a", 412).has("x-ms-error-code", "LeaseIdMissing"), with(delete("/a", 202), ID)]),
        ),
    ]
}

fn life_of_a_lease() -> Vec<Case> {
    let with = |step: Step, id: &str| step.header("x-ms-lease-id", id);
    vec![
        case(
            "set metadata on a leased blob needs the id",
            leased([put("/a?comp=metadata", 412).has("x-ms-error-code", "LeaseIdMissing")]),
        ),
        case(
            "a leased blob is read without the id",
            leased([get("/a", 200).answers("x"), with(get("/a", 200), ID), with(get("/a", 412), OTHER)]),
        ),
        case(
            "a second acquire is 409",
            leased([act("/a", "acquire", 409)
                .header("x-ms-lease-duration", "15")
                .has("x-ms-error-code", "LeaseAlreadyPresent")]),
        ),
        case(
            "release frees the blob",
            leased([
                with(act("/a", "release", 200), ID),
                put_blob("/a", "y"),
                head("/a", 200).has("x-ms-lease-state", "available"),
            ]),
        ),
        case(
            "release under another id is 409",
            leased(
                [with(act("/a", "release", 409), OTHER).has("x-ms-error-code", "LeaseIdMismatchWithLeaseOperation")],
            ),
        ),
        case("renew keeps the lease", leased([with(act("/a", "renew", 200), ID).has("x-ms-lease-id", ID)])),
        case(
            "renew without a lease is 409",
            [
                put_blob("/a", "x"),
                with(act("/a", "renew", 409), ID).has("x-ms-error-code", "LeaseIdMismatchWithLeaseOperation"),
            ],
        ),
        case(
            "change gives the lease another id",
            leased([
                with(act("/a", "change", 200), ID).header("x-ms-proposed-lease-id", OTHER).has("x-ms-lease-id", OTHER),
                with(put_blob("/a", "y"), OTHER),
            ]),
        ),
    ]
}

fn ends_of_a_lease() -> Vec<Case> {
    let with = |step: Step, id: &str| step.header("x-ms-lease-id", id);
    vec![
        case(
            "break of an infinite lease is at once",
            leased([
                act("/a", "break", 202).has("x-ms-lease-time", "0"),
                head("/a", 200).has("x-ms-lease-state", "broken").has("x-ms-lease-status", "unlocked"),
                put_blob("/a", "y"),
            ]),
        ),
        case(
            "break over a period is breaking",
            leased([
                act("/a", "break", 202).header("x-ms-lease-break-period", "30").some("x-ms-lease-time"),
                head("/a", 200).has("x-ms-lease-state", "breaking"),
                put_blob("/a", "y").refused(412, "LeaseIdMissing"),
            ]),
        ),
        case(
            "a broken lease is not renewed",
            leased([
                act("/a", "break", 202),
                with(act("/a", "renew", 409), ID).has("x-ms-error-code", "LeaseIsBrokenAndCannotBeRenewed"),
            ]),
        ),
        case(
            "a lease of 10 seconds is refused",
            [
                put_blob("/a", "x"),
                act("/a", "acquire", 400)
                    .header("x-ms-lease-duration", "10")
                    .has("x-ms-error-code", "InvalidHeaderValue"),
            ],
        ),
        case("a lease of a missing blob is 404", [acquire(404).has("x-ms-error-code", "BlobNotFound")]),
        case(
            "a leased container is deleted under its id only",
            [
                put("?restype=container&comp=lease", 201)
                    .header("x-ms-lease-action", "acquire")
                    .header("x-ms-lease-duration", "-1")
                    .header("x-ms-proposed-lease-id", ID),
                delete("?restype=container", 412).has("x-ms-error-code", "LeaseIdMissing"),
                with(delete("?restype=container", 202), ID),
            ],
        ),
    ]
}
