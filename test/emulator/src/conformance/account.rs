//! Cases of containers, the account, and of who may do what.

use super::{
    Case, case,
    step::{Auth, delete, get, head, put, put_blob},
};

pub(super) fn cases() -> Vec<Case> {
    [containers(), keys(), blob_signatures(), wider_signatures(), public()].into_iter().flatten().collect()
}

fn containers() -> Vec<Case> {
    vec![
        case("a container that exists is not created again", [put("?restype=container", 409).has("x-ms-error-code", "ContainerAlreadyExists")]),
        case("a container tells its properties", [head("?restype=container", 200).some("etag").some("last-modified").has("x-ms-lease-state", "available").none("x-ms-blob-public-access")]),
        case("metadata of a container", [
            put("?restype=container&comp=metadata", 200).header("x-ms-meta-k", "v"),
            get("?restype=container", 200).has("x-ms-meta-k", "v"),
        ]),
        case("a missing container is told", [delete("?restype=container", 202), head("?restype=container", 404).has("x-ms-error-code", "ContainerNotFound"), delete("?restype=container", 404)]),
        case("a deleted container takes its blobs along", [put_blob("/a", "x"), delete("?restype=container", 202), get("/a", 404).has("x-ms-error-code", "ContainerNotFound")]),
        case("a container's name has no capitals", [put("^/Upper?restype=container", 400).has("x-ms-error-code", "InvalidResourceName")]),
        case("a container's name has three characters", [put("^/ab?restype=container", 400).has("x-ms-error-code", "OutOfRangeInput")]),
        case("containers are listed", [get("^/?comp=list&prefix={container}", 200).contains(&["<Container><Name>{container}</Name>"])]),
        case("the account tells what it is", [get("^/?restype=account&comp=properties", 200).some("x-ms-sku-name").some("x-ms-account-kind")]),
        case("the service tells its properties", [get("^/?restype=service&comp=properties", 200).contains(&["<StorageServiceProperties>"])]),
        case("stored policies are kept", [
            put("?restype=container&comp=acl", 200).body("<SignedIdentifiers><SignedIdentifier><Id>p1</Id><AccessPolicy><Expiry>2040-01-01T00:00:00.0000000Z</Expiry><Permission>r</Permission></AccessPolicy></SignedIdentifier></SignedIdentifiers>"),
            get("?restype=container&comp=acl", 200).contains(&["<Id>p1</Id>", "<Permission>r</Permission>"]),
        ]),
    ]
}

fn keys() -> Vec<Case> {
    vec![
        case(
            "another key is refused",
            [get("/a", 403).auth(Auth::WrongKey).has("x-ms-error-code", "AuthenticationFailed")],
        )
        .differs("Azurite says AuthorizationFailure to every credential that it refuses"),
        case(
            "a request of an hour ago is refused",
            [get("/a", 403).auth(Auth::Skewed(-60)).has("x-ms-error-code", "AuthenticationFailed")],
        )
        .differs("Azurite says AuthorizationFailure to every credential that it refuses"),
        case("a request of ten minutes ago is accepted", [get("/a", 404).auth(Auth::Skewed(-10))]),
        case(
            "the lite form is accepted",
            [put_blob("/a", "x").auth(Auth::Lite), get("/a?comp=metadata", 200).auth(Auth::Lite)],
        )
        .differs("Azurite knows the full form of SharedKey only"),
        case(
            "a signature of nonsense is refused",
            [get("/a", 403)
                .anonymous()
                .header("authorization", "SharedKey devstoreaccount1:bm9uc2Vuc2U=")
                .header("x-ms-date", "{tomorrow}")
                .some("x-ms-error-code")],
        ),
        case(
            "a token that comes without TLS is refused",
            [get("/a", 403)
                .anonymous()
                .header("authorization", "Bearer nonsense")
                .has("x-ms-error-code", "AuthenticationFailed")],
        )
        .differs("Azurite says AuthorizationFailure to every credential that it refuses"),
        case(
            "names and queries are signed as sent",
            [
                put_blob("/%C3%BC%20a%2Bb//c", "x"),
                get("/%C3%BC%20a%2Bb//c", 200).answers("x"),
                get("?restype=container&comp=list&prefix=%C3%BC%20&delimiter=%2F&include=metadata", 200),
            ],
        ),
    ]
}

fn blob_signatures() -> Vec<Case> {
    vec![
        case("a sas of a blob reads it", [put_blob("/a", "x"), get("/a?{sas b r /a}", 200).anonymous().answers("x")]),
        case(
            "a sas of a blob with a name to encode",
            [put_blob("/%C3%BC/a%20b", "x"), get("/%C3%BC/a%20b?{sas b r /%C3%BC/a%20b}", 200).anonymous()],
        ),
        case(
            "a sas of a blob reads no other",
            [
                put_blob("/b", "x"),
                get("/b?{sas b r /a}", 403).anonymous().has("x-ms-error-code", "AuthenticationFailed"),
            ],
        )
        .differs("Azurite says AuthorizationFailure to every credential that it refuses"),
        case(
            "a sas that reads does not write",
            [put_blob("/a?{sas b r /a}", "x").anonymous().refused(403, "AuthorizationPermissionMismatch")],
        ),
        case("a sas that writes writes", [put_blob("/a?{sas b w /a}", "x").anonymous(), get("/a", 200).answers("x")]),
        case(
            "a sas that creates does not replace",
            [
                put_blob("/a?{sas b c /a}", "x").anonymous(),
                put_blob("/a?{sas b c /a}", "y").anonymous().refused(403, "AuthorizationPermissionMismatch"),
                get("/a", 200).answers("x"),
            ],
        ),
        case(
            "an expired sas is refused",
            [
                put_blob("/a", "x"),
                get("/a?{expired b r /a}", 403).anonymous().has("x-ms-error-code", "AuthenticationFailed"),
            ],
        )
        .differs("Azurite says AuthorizationFailure to every credential that it refuses"),
        case(
            "a sas of the container reads and lists",
            [
                put_blob("/a", "x"),
                get("/a?{sas c rl /}", 200).anonymous(),
                get("?restype=container&comp=list&{sas c rl /}", 200).anonymous().contains(&["<Name>a</Name>"]),
            ],
        ),
    ]
}

fn wider_signatures() -> Vec<Case> {
    vec![
        case(
            "a sas without l does not list",
            [get("?restype=container&comp=list&{sas c r /}", 403)
                .anonymous()
                .has("x-ms-error-code", "AuthorizationPermissionMismatch")],
        ),
        case(
            "a sas of the container deletes with d",
            [put_blob("/a", "x"), delete("/a?{sas c r /}", 403).anonymous(), delete("/a?{sas c d /}", 202).anonymous()],
        ),
        case(
            "a sas of the account reads, writes and lists",
            [
                put_blob("/a?{account-sas b co rwl}", "x").anonymous(),
                get("/a?{account-sas b co rwl}", 200).anonymous(),
                get("?restype=container&comp=list&{account-sas b co rwl}", 200).anonymous(),
            ],
        ),
        case(
            "a sas of the account for objects does not list",
            [get("?restype=container&comp=list&{account-sas b o rwl}", 403)
                .anonymous()
                .has("x-ms-error-code", "AuthorizationResourceTypeMismatch")],
        ),
        case(
            "a sas of the account for files does not read",
            [
                put_blob("/a", "x"),
                get("/a?{account-sas f co rwl}", 403)
                    .anonymous()
                    .has("x-ms-error-code", "AuthorizationServiceMismatch"),
            ],
        ),
        case(
            "a tampered sas is refused",
            [
                put_blob("/a", "x"),
                get("/a?{sas b r /a}x", 403).anonymous(),
                get("/a?sp=rw&{sas b r /a}", 403).anonymous(),
            ],
        ),
    ]
}

fn public() -> Vec<Case> {
    let acl = |access: &str| put("?restype=container&comp=acl", 200).header("x-ms-blob-public-access", access);
    vec![
        case(
            "anonymous reading of a private container is refused with a challenge",
            [
                put_blob("/a", "x"),
                get("/a", 401)
                    .anonymous()
                    .has("x-ms-error-code", "NoAuthenticationInformation")
                    .some("www-authenticate"),
            ],
        )
        .differs("Azurite says AuthorizationFailure to every credential that it refuses"),
        case(
            "anonymous reading of a private container by an old version is 404",
            [
                put_blob("/a", "x"),
                get("/a", 404)
                    .anonymous()
                    .header("x-ms-version", "2017-04-17")
                    .has("x-ms-error-code", "ResourceNotFound"),
            ],
        )
        .differs("Azurite says AuthorizationFailure to every credential that it refuses"),
        case(
            "anybody reads blobs of a public container and does not list",
            [
                acl("blob"),
                put_blob("/a", "x"),
                get("/a", 200).anonymous().answers("x"),
                head("/a", 200).anonymous(),
                get("?restype=container&comp=list", 401).anonymous(),
                put_blob("/a", "y").anonymous().status(401),
            ],
        )
        .differs("Azurite says AuthorizationFailure to every credential that it refuses"),
        case(
            "anybody lists a container that is public as a whole",
            [
                acl("container"),
                put_blob("/a", "x"),
                get("?restype=container&comp=list", 200).anonymous().contains(&["<Name>a</Name>"]),
                head("?restype=container", 200).has("x-ms-blob-public-access", "container"),
            ],
        ),
    ]
}
