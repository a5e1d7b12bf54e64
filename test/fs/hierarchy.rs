//! What holds on a hierarchical account beside everything that holds anywhere: directories, renames and modes are the
//! service's own.

use std::sync::Arc;

use azblob_csi::fs::{InodeNumber, ROOT, RenameMode, SetAttr, SetXattr, Settings};
use blob_emulator::Operation;

use super::support::{
    service::Service,
    volume::{CREATE, EXCLUSIVE, READ, Volume},
};

/// Larger than what an unlinked open file keeps in memory.
const LARGE_BYTES: usize = 3 << 20;

/// A volume that believes nothing for longer than a request takes.
async fn doubting(service: &Service) -> Arc<Volume> {
    let settings = Settings { metadata_ttl: std::time::Duration::ZERO, ..Settings::default() };
    service.volume_with(settings).await
}

async fn rename(volume: &Volume, from: &str, to: &str, mode: RenameMode) -> Result<(), i32> {
    let renamed = volume.fs.rename(&volume.caller, (ROOT, from.as_ref()), (ROOT, to.as_ref()), mode).await;
    renamed.map_err(|error| error.errno)
}

async fn remove_directory(volume: &Volume, parent: InodeNumber, name: &str) -> Result<(), i32> {
    volume.fs.remove_directory(&volume.caller, parent, name.as_ref()).await.map_err(|error| error.errno)
}

async fn chmod(volume: &Volume, name: &str, mode: u32) {
    let number = volume.lookup(name).await.unwrap().attr.number;
    let change = SetAttr { mode: Some(mode), ..SetAttr::default() };
    volume.fs.setattr(&volume.caller, number, None, change).await.unwrap();
}

#[test]
fn everything_that_a_volume_promises_holds_on_a_hierarchical_account() {
    harness::run_hierarchical(
        &["core::", "model::", "reading::", "unsaved::"],
        &[
            // Names are normalised there: such blobs cannot be.
            "names_that_a_path_cannot_have_are_hidden_counted_and_survive",
            // Two: Put Blob takes no mode.
            "a_small_new_file_costs_one_request",
            // The directory of hidden blobs stays; below is a claim of its own.
            "an_unlinked_open_file_is_readable_until_its_last_close",
            // Another client's file has the mode that the service gives it.
            "a_change_by_name_that_fails_is_undone",
            // A rename has no moment between its copies and its deletes there.
            "a_read_below_a_directory_goes_on_while_the_directory_is_renamed",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_made_in_one_request_by_exactly_one_of_two_nodes() {
    let service = Service::start_hierarchical();
    let (one, two) = (service.volume().await, service.volume().await);
    assert_eq!(two.lookup("d").await.unwrap_err().errno, libc::ENOENT);
    let before = service.requests();
    one.fs.make_directory(&one.caller, ROOT, "d".as_ref(), 0o2751).await.unwrap();
    assert_eq!(service.count(Operation::CreatePath), 1);
    assert_eq!(service.requests() - before, 1, "that there is no such name is known from the listing");
    let late = two.fs.make_directory(&two.caller, ROOT, "d".as_ref(), 0o755).await.unwrap_err();
    assert_eq!(late.errno, libc::EEXIST);
    assert!(service.emulator().is_directory("volume", "d"));
    assert_eq!(service.emulator().access("volume", "d").unwrap().0, "rwxr-x--x");
    let seen = service.volume().await.lookup("d").await.unwrap().attr;
    assert_eq!(seen.mode, 0o2751, "setgid is kept in metadata, which the service does not know");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_removed_exactly_when_nothing_is_in_it() {
    let service = Service::start_hierarchical();
    let volume = service.volume().await;
    let directory = volume.make_directory(ROOT, "d").await;
    assert!(volume.names_in(directory).await.is_empty());
    service.put("d/theirs", b"x");
    assert_eq!(remove_directory(&volume, ROOT, "d").await, Err(libc::ENOTEMPTY));
    service.emulator().delete("volume", "d/theirs");
    let (_, handle) = volume.create_in(directory, "ours", CREATE).await.unwrap();
    assert_eq!(remove_directory(&volume, ROOT, "d").await, Err(libc::ENOTEMPTY), "ours is not committed yet");
    volume.close(handle).await.unwrap();
    volume.fs.unlink(&volume.caller, directory, "ours".as_ref()).await.unwrap();
    remove_directory(&volume, ROOT, "d").await.unwrap();
    assert_eq!(service.names(), Vec::<String>::new());
    assert_eq!(volume.lookup("d").await.unwrap_err().errno, libc::ENOENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_is_one_request_and_open_files_follow_it() {
    for changes_etag in [false, true] {
        let service = Service::start_hierarchical();
        service.emulator().settings(|settings| settings.rename_changes_etag = changes_etag);
        let volume = service.volume().await;
        let from = volume.make_directory(ROOT, "from").await;
        for index in 0..50 {
            volume.write_in(from, &format!("file{index}"), b"bytes").await;
        }
        volume.write_in(from, "large", &vec![7; LARGE_BYTES]).await;
        let large = volume.lookup_in(from, "large").await.unwrap().attr.number;
        let reading = volume.fs.open_file(&volume.caller, large, READ).await.unwrap();
        let (_, writing) = volume.create_in(from, "dirty", CREATE).await.unwrap();
        volume.write(writing, 0, b"written before").await;

        rename(&volume, "from", "to", RenameMode::NoReplace).await.unwrap();
        assert_eq!(service.count(Operation::RenamePath), 1);
        assert_eq!(service.count(Operation::CopyBlob), 0);
        volume.write(writing, 14, b" and behind").await;
        volume.close(writing).await.unwrap();
        assert_eq!(service.blob("to/dirty"), b"written before and behind");
        assert_eq!(volume.read(reading, 0, LARGE_BYTES).await, vec![7; LARGE_BYTES], "changes: {changes_etag}");
        volume.close(reading).await.unwrap();
        let to = volume.lookup("to").await.unwrap().attr.number;
        assert_eq!(volume.names_in(to).await.len(), 52);
        let number = volume.lookup_in(to, "file9").await.unwrap().attr.number;
        let handle = volume.fs.open_file(&volume.caller, number, READ).await.unwrap();
        assert_eq!(volume.read(handle, 0, 99).await, b"bytes");
        assert_eq!(volume.lookup("from").await.unwrap_err().errno, libc::ENOENT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_replaces_what_rename_may_replace_and_nothing_else() {
    let service = Service::start_hierarchical();
    let volume = service.volume().await;
    volume.write_file("a", b"one").await;
    volume.write_file("b", b"two").await;
    rename(&volume, "a", "b", RenameMode::Replace).await.unwrap();
    assert_eq!(volume.read_file("b").await, b"one");
    assert_eq!(volume.lookup("c").await.unwrap_err().errno, libc::ENOENT);
    service.put("c", b"theirs");
    assert_eq!(rename(&volume, "b", "c", RenameMode::NoReplace).await, Err(libc::EEXIST));
    assert_eq!(service.blob("c"), b"theirs");

    let full = volume.make_directory(ROOT, "full").await;
    volume.write_in(full, "f", b"x").await;
    volume.make_directory(ROOT, "empty").await;
    assert_eq!(rename(&volume, "empty", "full", RenameMode::Replace).await, Err(libc::ENOTEMPTY));
    assert_eq!(rename(&volume, "b", "full", RenameMode::Replace).await, Err(libc::EISDIR));
    assert_eq!(rename(&volume, "full", "b", RenameMode::Replace).await, Err(libc::ENOTDIR));
    rename(&volume, "full", "empty", RenameMode::Replace).await.unwrap();
    assert_eq!(service.names(), ["b", "c", "empty", "empty/f"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_open_file_is_unlinked_without_a_copy_and_read_until_its_last_close() {
    let service = Service::start_hierarchical();
    service.put("large", &vec![3; LARGE_BYTES]);
    let volume = service.volume().await;
    let handle = volume.open("large", CREATE).await.unwrap();
    volume.fs.unlink(&volume.caller, ROOT, "large".as_ref()).await.unwrap();
    assert_eq!(volume.lookup("large").await.unwrap_err().errno, libc::ENOENT);
    assert_eq!((service.count(Operation::CopyBlob), service.count(Operation::DeleteBlob)), (0, 0));
    volume.write(handle, 1, b"own").await;
    let mut expected = vec![3; LARGE_BYTES];
    expected[1..4].copy_from_slice(b"own");
    assert!(volume.read(handle, 0, LARGE_BYTES).await == expected);
    assert!(volume.names_in(ROOT).await.is_empty());
    volume.close(handle).await.unwrap();
    let left = service.names();
    assert!(left.iter().all(|name| service.emulator().is_directory("volume", name)), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_are_the_services_own_in_both_directions() {
    let service = Service::start_hierarchical();
    let volume = doubting(&service).await;
    volume.write_file("f", b"x").await;
    let of_service = || service.emulator().access("volume", "f").unwrap().0;
    assert_eq!(of_service(), "rw-r--r--", "the mode of open(2)");
    chmod(&volume, "f", 0o4751).await;
    assert_eq!(of_service(), "rwxr-x--x");
    assert_eq!(volume.lookup("f").await.unwrap().attr.mode, 0o4751);
    let before = service.count(Operation::SetPathAccessControl);
    volume.write_file("f", b"another version").await;
    assert_eq!(service.count(Operation::SetPathAccessControl), before, "the mode stays with the path");

    // Another client, by the Data Lake endpoint.
    let store = service.store();
    let path = azblob_csi::blob::BlobName::new("f").unwrap();
    let condition = azblob_csi::blob::Condition::None;
    store.hierarchy().unwrap().set_mode(&path, 0o640, &condition).await.unwrap();
    assert_eq!(volume.lookup("f").await.unwrap().attr.mode, 0o4640);
    let (_, handle) = volume.create("g", EXCLUSIVE).await.unwrap();
    volume.close(handle).await.unwrap();
    assert_eq!(service.emulator().access("volume", "g").unwrap().0, "rw-r--r--");
    let list = service.volume().await;
    list.names_in(ROOT).await;
    assert_eq!(list.lookup("f").await.unwrap().attr.mode, 0o4640, "the listing tells it too");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_list_is_a_fact_that_can_be_read() {
    let service = Service::start_hierarchical();
    let volume = service.volume().await;
    volume.write_file("f", b"x").await;
    let number = volume.lookup("f").await.unwrap().attr.number;
    let list = volume.fs.get_xattr(number, b"user.azblob.acl").await.unwrap();
    let text = "owner=$superuser,group=$superuser,user::rw-,group::r--,other::r--";
    assert_eq!(String::from_utf8(list).unwrap(), text);
    assert!(volume.fs.list_xattrs(number).await.unwrap().is_empty());
    let set = volume.fs.set_xattr(&volume.caller, number, b"user.azblob.acl", b"x", SetXattr::Any).await.unwrap_err();
    assert_eq!(set.errno, libc::EPERM);
    let flat = Service::start();
    flat.put("f", b"x");
    let volume = flat.volume().await;
    let number = volume.lookup("f").await.unwrap().attr.number;
    assert_eq!(volume.fs.get_xattr(number, b"user.azblob.acl").await.unwrap_err().errno, libc::ENODATA);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_may_not_set_modes_keeps_them_in_metadata() {
    let service = Service::start_hierarchical();
    service.refuse(Operation::SetPathAccessControl, 403, "AuthorizationPermissionMismatch", None);
    let volume = service.volume().await;
    volume.write_file("f", b"x").await;
    chmod(&volume, "f", 0o751).await;
    assert_eq!(volume.lookup("f").await.unwrap().attr.mode, 0o751);
    assert_eq!(service.count(Operation::SetPathAccessControl), 1, "it is asked once");
    assert_eq!(service.metadata("f")["permissions"], (0o100_751).to_string());
    let other = service.volume().await;
    other.write_file("g", b"y").await;
    assert_eq!(other.lookup("f").await.unwrap().attr.mode, 0o751);
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_without_an_entry_show_rename_and_can_be_removed() {
    let service = Service::start_hierarchical();
    service.put("old/deep/f", b"x");
    service.put("gone/f", b"y");
    for entry in ["old/deep", "old", "gone"] {
        assert!(service.emulator().delete("volume", entry));
    }
    assert_eq!(service.names(), ["gone/f", "old/deep/f"]);
    let volume = doubting(&service).await;
    assert_eq!(volume.names_in(ROOT).await, ["gone", "old"]);
    let old = volume.lookup("old").await.unwrap().attr.number;
    assert_eq!(volume.names_in(old).await, ["deep"]);
    rename(&volume, "old", "new", RenameMode::Replace).await.unwrap();
    assert_eq!(service.blob("new/deep/f"), b"x");
    let gone = volume.lookup("gone").await.unwrap().attr.number;
    assert_eq!(remove_directory(&volume, ROOT, "gone").await, Err(libc::ENOTEMPTY));
    volume.fs.unlink(&volume.caller, gone, "f".as_ref()).await.unwrap();
    // With its last name it went; a program that removes it must not be told that it failed.
    let removed = remove_directory(&volume, ROOT, "gone").await;
    assert!(matches!(removed, Ok(()) | Err(libc::ENOENT)), "{removed:?}");
    assert!(!service.names().iter().any(|name| name.starts_with("gone")));
}
