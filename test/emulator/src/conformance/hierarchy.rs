//! Cases of a hierarchical account: its Data Lake endpoint, and what the Blob endpoint says differently. They run on the
//! emulator alone: Azurite has no such accounts.

use super::{
    Case, Step, case,
    step::{delete, get, head, patch, put, put_blob, put_block},
};

pub(super) fn cases() -> Vec<Case> {
    [
        making(),
        renaming(),
        renaming_refused(),
        deleting(),
        access(),
        access_lists(),
        listing(),
        blob_endpoint(),
        signatures(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn mkdir(path: &str, status: u16) -> Step {
    put(&format!("{path}?resource=directory"), status)
}

fn rename(from: &str, to: &str, status: u16) -> Step {
    put(to, status).header("x-ms-rename-source", &format!("/{{container}}{from}"))
}

fn rmdir(path: &str, status: u16) -> Step {
    delete(&format!("{path}?recursive=false"), status)
}

fn is_directory(path: &str) -> Step {
    head(path, 200).has("x-ms-resource-type", "directory").has("x-ms-meta-hdi_isfolder", "true")
}

fn making() -> Vec<Case> {
    let only_new = |step: Step| step.header("if-none-match", "*");
    vec![
        case(
            "the account says that it is hierarchical",
            [get("^/?restype=account&comp=properties", 200).has("x-ms-is-hns-enabled", "true")],
        ),
        case(
            "a directory is made with its parents",
            [mkdir("/a/b", 201).some("etag").some("last-modified"), is_directory("/a/b"), is_directory("/a")],
        ),
        case(
            "a directory that is there is made again, unless it has to be new",
            [mkdir("/a", 201), mkdir("/a", 201), only_new(mkdir("/a", 409)).refused(409, "PathAlreadyExists")],
        ),
        case(
            "no directory is made over a file, and none below one",
            [
                put_blob("/f", "x"),
                mkdir("/f", 409).refused(409, "PathAlreadyExists"),
                mkdir("/f/d", 409).refused(409, "InvalidDestinationPath"),
            ],
        ),
        case(
            "properties come with the directory, in base64",
            [
                mkdir("/a", 201).header("x-ms-properties", "k=dg==,n=MQ=="),
                head("/a", 200).has("x-ms-meta-k", "v").has("x-ms-meta-n", "1"),
                head("/a?action=getStatus", 200).has("x-ms-resource-type", "directory").none("x-ms-properties"),
                patch("/a?action=setProperties", 200).header("x-ms-properties", "k=dw=="),
                head("/a", 200).has("x-ms-meta-k", "w").none("x-ms-meta-n"),
            ],
        ),
        case(
            "a file of the data lake endpoint takes put blob, but no blocks",
            [
                put("/f?resource=file", 201),
                head("/f", 200).has("x-ms-resource-type", "file").has("content-length", "0"),
                put_block("/f", "QUFB", "x").status(409),
                put_blob("/f", "x"),
                put_block("/f", "QUFB", "x"),
            ],
        ),
    ]
}

fn renaming() -> Vec<Case> {
    vec![
        case(
            "a file gets another name and stays what it is",
            [
                put_blob("/a", "x").header("x-ms-meta-k", "v").save("etag", "e"),
                rename("/a", "/b", 201),
                head("/a", 404),
                get("/b", 200).answers("x").has("x-ms-meta-k", "v").has("etag", "{e}"),
            ],
        ),
        case(
            "a file replaces a file",
            [put_blob("/a", "x"), put_blob("/b", "y"), rename("/a", "/b", 201), get("/b", 200).answers("x")],
        ),
        case(
            "a rename under if-none-match replaces nothing",
            [
                put_blob("/a", "x"),
                put_blob("/b", "y"),
                rename("/a", "/b", 409).header("if-none-match", "*").refused(409, "PathAlreadyExists"),
                get("/b", 200).answers("y"),
            ],
        ),
        case(
            "a rename is of the version that it names",
            [
                put_blob("/a", "x").save("etag", "old"),
                put_blob("/a", "y").save("etag", "new"),
                rename("/a", "/b", 412).header("x-ms-source-if-match", "{old}").refused(412, "SourceConditionNotMet"),
                rename("/a", "/b", 201).header("x-ms-source-if-match", "{new}"),
            ],
        ),
        case(
            "a directory moves with everything below it",
            [
                put_blob("/d/e/f", "x"),
                put_blob("/d-1", "y"),
                rename("/d", "/n", 201),
                get("/n/e/f", 200).answers("x"),
                is_directory("/n/e"),
                head("/d", 404),
                head("/d/e/f", 404),
                head("/d-1", 200),
            ],
        ),
        case(
            "a directory replaces an empty directory, and no other",
            [
                put_blob("/d/f", "x"),
                mkdir("/e", 201),
                rename("/d", "/e", 201),
                head("/e/f", 200),
                mkdir("/g", 201),
                rename("/g", "/e", 409).refused(409, "PathAlreadyExists"),
            ],
        ),
        case(
            "names are encoded in the source",
            [put_blob("/%C3%BC%20a%25", "x"), rename("/%C3%BC%20a%25", "/b", 201), get("/b", 200).answers("x")],
        ),
    ]
}

fn renaming_refused() -> Vec<Case> {
    let lease = |path: &str| {
        put(&format!("{path}?comp=lease"), 201)
            .header("x-ms-lease-action", "acquire")
            .header("x-ms-lease-duration", "-1")
    };
    vec![
        case("what is not there is not renamed", [rename("/a", "/b", 404).refused(404, "SourcePathNotFound")]),
        case(
            "a rename makes no parents",
            [put_blob("/a", "x"), rename("/a", "/d/b", 404).refused(404, "RenameDestinationParentPathNotFound")],
        ),
        case(
            "a directory does not move into itself",
            [mkdir("/d", 201), rename("/d", "/d/e", 409).refused(409, "InvalidRenameSourcePath")],
        ),
        case(
            "a file and a directory do not replace each other",
            [
                put_blob("/a", "x"),
                mkdir("/d", 201),
                rename("/a", "/d", 409).refused(409, "InvalidSourceOrDestinationResourceType"),
                rename("/d", "/a", 409).refused(409, "InvalidSourceOrDestinationResourceType"),
            ],
        ),
        case(
            "a leased source needs its lease, a leased destination loses it",
            [
                put_blob("/a", "x"),
                put_blob("/b", "y"),
                lease("/b"),
                rename("/a", "/b", 201),
                head("/b", 200).has("x-ms-lease-state", "available"),
                lease("/b").save("x-ms-lease-id", "id"),
                rename("/b", "/c", 412).refused(412, "LeaseIdMissing"),
                rename("/b", "/c", 201).header("x-ms-source-lease-id", "{id}"),
            ],
        ),
    ]
}

fn deleting() -> Vec<Case> {
    vec![
        case(
            "only an empty directory is deleted alone",
            [
                put_blob("/d/f", "x"),
                rmdir("/d", 409).refused(409, "DirectoryNotEmpty"),
                delete("/d/f", 202),
                rmdir("/d", 200),
                head("/d", 404),
                rmdir("/d", 404).refused(404, "PathNotFound"),
            ],
        ),
        case(
            "a directory is deleted with everything below it",
            [
                put_blob("/d/e/f", "x"),
                put_blob("/d-1", "y"),
                delete("/d?recursive=true", 200),
                head("/d/e/f", 404),
                head("/d/e", 404),
                head("/d", 404),
                head("/d-1", 200),
            ],
        ),
        case(
            "a delete is of the version that it names",
            [
                mkdir("/d", 201),
                delete("/d?recursive=false", 412).header("if-match", "\"0x1\"").refused(412, "ConditionNotMet"),
            ],
        ),
    ]
}

fn access() -> Vec<Case> {
    let permissions = |path: &str| head(&format!("{path}?action=getAccessControl"), 200);
    let set = |path: &str, status| patch(&format!("{path}?action=setAccessControl"), status);
    vec![
        case(
            "the root has an access list",
            [permissions("").has("x-ms-owner", "$superuser").has("x-ms-permissions", "rwxr-x---")],
        ),
        case(
            "new paths lose the umask of the service",
            [
                put_blob("/d/f", "x"),
                permissions("/d").has("x-ms-permissions", "rwxr-x---"),
                permissions("/d/f")
                    .has("x-ms-permissions", "rw-r-----")
                    .has("x-ms-acl", "user::rw-,group::r--,other::---"),
            ],
        ),
        case(
            "a directory is made with a mode",
            [
                mkdir("/d", 201).header("x-ms-permissions", "1777").header("x-ms-umask", "0000"),
                permissions("/d").has("x-ms-permissions", "rwxrwxrwt"),
            ],
        ),
        case(
            "a mode is set, and the blob endpoint shows it",
            [
                put_blob("/f", "x").save("etag", "e"),
                set("/f", 200).header("x-ms-permissions", "rwxr-xr--").some("etag").differs("etag", "e"),
                head("/f", 200).has("x-ms-permissions", "rwxr-xr--").has("x-ms-owner", "$superuser"),
                set("/f", 200).header("x-ms-permissions", "0600"),
                permissions("/f").has("x-ms-permissions", "rw-------"),
                put_blob("/f", "y"),
                permissions("/f").has("x-ms-permissions", "rw-------"),
            ],
        ),
    ]
}

fn access_lists() -> Vec<Case> {
    let permissions = |path: &str| head(&format!("{path}?action=getAccessControl"), 200);
    let set = |path: &str, status| patch(&format!("{path}?action=setAccessControl"), status);
    vec![
        case(
            "a list is set, with a mask for those that it names",
            [
                put_blob("/f", "x"),
                set("/f", 200)
                    .header("x-ms-acl", "user::rw-,user:1:r--,group::r--,other::---")
                    .header("x-ms-owner", "2"),
                permissions("/f")
                    .has("x-ms-owner", "2")
                    .has("x-ms-permissions", "rw-r-----+")
                    .has("x-ms-acl", "user::rw-,user:1:r--,group::r--,mask::r--,other::---"),
            ],
        ),
        case(
            "a mode and a list at once are refused, and so is nonsense",
            [
                put_blob("/f", "x"),
                set("/f", 400).header("x-ms-permissions", "0600").header("x-ms-acl", "user::rw-,group::r--,other::---"),
                set("/f", 400).header("x-ms-permissions", "rwxrwxrwxrwx").refused(400, "InvalidHeaderValue"),
                set("/g", 404).header("x-ms-permissions", "0600").refused(404, "PathNotFound"),
            ],
        ),
        case(
            "a default list is inherited",
            [
                mkdir("/d", 201),
                set("/d", 200).header(
                    "x-ms-acl",
                    "user::rwx,group::r-x,other::---,default:user::rwx,default:group::rwx,default:other::r-x",
                ),
                put_blob("/d/f", "x"),
                permissions("/d/f").has("x-ms-permissions", "rw-rw-r--"),
            ],
        ),
    ]
}

fn listing() -> Vec<Case> {
    let list = |query: &str| get(&format!("?resource=filesystem&{query}"), 200);
    let blobs = |query: &str| get(&format!("?restype=container&comp=list{query}"), 200);
    let tree = || [put_blob("/d/e/f", "x"), put_blob("/d-1", "y")];
    vec![
        case(
            "paths are listed in JSON",
            tree().into_iter().chain([
                list("recursive=false").contains(&["\"name\":\"d\"", "\"name\":\"d-1\""]).omits("\"name\":\"d/e\""),
                list("recursive=true").contains(&["\"name\":\"d/e/f\""]),
                list("recursive=false&directory=d")
                    .contains(&["\"isDirectory\":\"true\"", "\"name\":\"d/e\""])
                    .omits("d/e/f"),
                list("recursive=false&directory=x").refused(404, "PathNotFound"),
            ]),
        ),
        case(
            "paths are listed page by page",
            tree().into_iter().chain([
                list("recursive=true&maxResults=1").save("x-ms-continuation", "next").contains(&["\"name\":\"d\""]),
                list("recursive=true&maxResults=9&continuation={next}")
                    .contains(&["\"name\":\"d-1\"", "\"name\":\"d/e/f\""])
                    .omits("\"name\":\"d\"")
                    .none("x-ms-continuation"),
            ]),
        ),
        case(
            "the blob endpoint lists directories as blobs",
            tree().into_iter().chain([
                blobs("&include=metadata").contains(&[
                    "<Name>d</Name>",
                    "<ResourceType>directory</ResourceType>",
                    "<hdi_isfolder>true</hdi_isfolder>",
                    "<Name>d-1</Name>",
                ]),
                blobs("&include=permissions").contains(&["<Permissions>rwxr-x---</Permissions>"]),
            ]),
        ),
        case(
            "the blob endpoint folds a directory into one prefix with its properties",
            tree().into_iter().chain([
                blobs("&delimiter=%2F")
                    .contains(&[
                        "<BlobPrefix><Name>d/</Name><Properties>",
                        "<ResourceType>directory</ResourceType>",
                        "<Name>d-1</Name>",
                    ])
                    .omits("<Name>d</Name>"),
                blobs("&delimiter=%2F&prefix=d%2F").contains(&["<BlobPrefix><Name>d/e/</Name>"]).omits("d/e/f"),
            ]),
        ),
        case(
            "a prefix through a file is an error",
            [put_blob("/f", "x"), get("?restype=container&comp=list&prefix=f%2F", 400)],
        ),
    ]
}

fn blob_endpoint() -> Vec<Case> {
    vec![
        case(
            "no blob is put over a directory, and none below a file",
            [
                mkdir("/d", 201),
                put_blob("/f", "x"),
                put_blob("/d", "x").refused(409, "ResourceTypeMismatch"),
                put_blob("/f/g", "x").refused(409, "ResourceTypeMismatch"),
                put_block("/d", "QUFB", "x").refused(409, "ResourceTypeMismatch"),
            ],
        ),
        case(
            "a blob with the mark is a directory",
            [put_blob("/d", "").header("x-ms-meta-hdi_isfolder", "true"), is_directory("/d"), put_blob("/d/f", "x")],
        ),
        case(
            "a directory with something in it is not deleted as a blob",
            [
                put_blob("/d/f", "x"),
                delete("/d", 409).refused(409, "DirectoryIsNotEmpty"),
                delete("/d/f", 202),
                delete("/d", 202),
                head("/d", 404),
            ],
        ),
        case(
            "metadata of a directory are set as those of a blob",
            [
                mkdir("/d", 201),
                put("/d?comp=metadata", 200).header("x-ms-meta-k", "v").header("x-ms-meta-hdi_isfolder", "true"),
                is_directory("/d").has("x-ms-meta-k", "v"),
            ],
        ),
        case(
            "empty parts of a name are dropped",
            [put_blob("/a//b/", "x"), get("/a/b", 200).answers("x"), is_directory("/a")],
        ),
        case(
            "a hierarchical account has no tags",
            [put_blob("/a", "x")
                .header("x-ms-tags", "k=v")
                .refused(409, "FeatureNotYetSupportedForHierarchicalNamespaceAccounts")],
        ),
    ]
}

fn signatures() -> Vec<Case> {
    vec![
        case(
            "a rename with a sas needs one for its source",
            [
                put_blob("/a", "x"),
                put("/b?{sas c rwd /}", 403).anonymous().header("x-ms-rename-source", "/{container}/a").status(401),
                put("/b?{sas c rwd /}", 201).anonymous().header("x-ms-rename-source", "/{container}/a?{sas c d /}"),
            ],
        ),
        case(
            "access control has permissions of its own",
            [
                put_blob("/a", "x"),
                patch("/a?action=setAccessControl&{sas c rwd /}", 403).anonymous().header("x-ms-permissions", "0600"),
                patch("/a?action=setAccessControl&{sas c p /}", 200).anonymous().header("x-ms-permissions", "0600"),
                head("/a?action=getAccessControl&{sas c e /}", 200).anonymous().has("x-ms-permissions", "rw-------"),
            ],
        ),
    ]
}
