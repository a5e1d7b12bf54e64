//! Renames of directories: whole, undone, or to be gone on with; and nothing of anybody's is lost.

use std::{sync::Arc, time::Duration};

use azblob_csi::fs::{ROOT, RenameMode};
use blob_emulator::{FaultKind, FaultRule, Operation};

use crate::support::{
    service::{CONTAINER, Service},
    volume::{CREATE, Volume},
};

/// Long enough for another client to do something while one request waits.
const STALL: Duration = Duration::from_secs(3);

/// A directory `a` of six blobs, without a marker.
fn fill(service: &Service) {
    for index in 0..6 {
        service.put(&format!("a/{index}"), format!("bytes {index}").as_bytes());
    }
}

async fn rename(volume: &Volume, from: &str, to: &str) -> Result<(), i32> {
    let (from, to) = ((ROOT, from.as_ref()), (ROOT, to.as_ref()));
    volume.fs.rename(&volume.caller, from, to, RenameMode::Replace).await.map_err(|error| error.errno)
}

/// All six are at the new name, and nothing is anywhere else.
fn assert_moved(service: &Service) {
    let expected: Vec<String> = (0..6).map(|index| format!("z/{index}")).collect();
    assert_eq!(service.names(), expected);
    for index in 0..6 {
        assert_eq!(service.blob(&format!("z/{index}")), format!("bytes {index}").as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_of_which_a_copy_fails_is_undone() {
    let service = Service::start();
    fill(&service);
    let volume = service.volume().await;
    let refused = FaultKind::Status { status: 403, code: Some("AuthorizationFailure".to_owned()), retry_after: None };
    service.emulator().fault(FaultRule::new(refused).on(Operation::CopyBlob).blob("*/4"));
    let before = service.names();
    assert_eq!(rename(&volume, "a", "z").await, Err(libc::EACCES));
    assert_eq!(service.names(), before, "the old name has everything, and the new one nothing");
    service.relent();
    rename(&volume, "a", "z").await.unwrap();
    assert_moved(&service);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_that_broke_off_is_completed_by_doing_it_again_from_any_node() {
    let service = Service::start();
    fill(&service);
    let volume = service.volume().await;
    let refused = FaultKind::Status { status: 403, code: Some("AuthorizationFailure".to_owned()), retry_after: None };
    service.emulator().fault(FaultRule::new(refused).on(Operation::DeleteBlob).blob("a/3"));
    assert_eq!(rename(&volume, "a", "z").await, Err(libc::EACCES));
    service.relent();
    let names = service.names();
    assert!(names.contains(&"a/3".to_owned()) && names.contains(&"z/5".to_owned()), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with(".azblob/rename/")), "it is written down: {names:?}");
    // What is in the way of another rename is no leftover of it.
    service.put("b/0", b"");
    let other = service.volume().await;
    assert_eq!(rename(&other, "b", "z").await, Err(libc::ENOTEMPTY));
    assert!(service.emulator().delete(CONTAINER, "b/0"));
    rename(&other, "a", "z").await.unwrap();
    assert_moved(&service);
    let z = other.lookup("z").await.unwrap().attr.number;
    assert_eq!(other.names_in(z).await.len(), 6, "what the first attempt moved is seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_somebody_else_made_under_the_new_name_is_never_replaced() {
    let service = Service::start();
    fill(&service);
    let volume = service.volume().await;
    volume.names_in(ROOT).await; // From here on the volume believes that there is no `z`.
    service.put("z/2", b"theirs");
    assert_eq!(rename(&volume, "a", "z").await, Err(libc::ENOTEMPTY));
    assert_eq!(service.blob("z/2"), b"theirs");
    assert_eq!(service.names().iter().filter(|name| name.starts_with("a/")).count(), 6);
    assert_eq!(service.names().len(), 7, "{:?}", service.names());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_under_the_old_name_meanwhile_moves_too() {
    let service = Service::start();
    fill(&service);
    let volume = service.volume().await;
    volume.lookup("a").await.unwrap();
    let held = FaultKind::Stall { duration: STALL, after_bytes: None };
    service.emulator().fault(FaultRule::new(held).on(Operation::CopyBlob).blob("*/5").times(1));
    let moving = {
        let volume = Arc::clone(&volume);
        tokio::spawn(async move { rename(&volume, "a", "z").await })
    };
    while service.find("z/0").is_none() {
        tokio::task::yield_now().await;
    }
    service.put("a/0", b"newer");
    service.put("a/late", b"new");
    moving.await.unwrap().unwrap();
    assert_eq!(service.blob("z/0"), b"newer");
    assert_eq!(service.blob("z/late"), b"new");
    assert!(service.names().iter().all(|name| name.starts_with("z/")), "{:?}", service.names());
}

#[tokio::test(flavor = "multi_thread")]
async fn open_and_unsaved_files_below_move_along_and_names_stay_known() {
    let service = Service::start();
    let volume = service.volume().await;
    let a = volume.make_directory(ROOT, "a").await;
    volume.write_in(a, "saved", b"saved").await;
    let (_, handle) = volume.create("outside", CREATE).await.unwrap();
    volume.write(handle, 0, b"unsaved").await;
    let into = (a, "inside".as_ref());
    volume.fs.rename(&volume.caller, (ROOT, "outside".as_ref()), into, RenameMode::Replace).await.unwrap();
    volume.write(handle, 7, b" more").await;
    rename(&volume, "a", "z").await.unwrap();
    volume.write(handle, 12, b" and more").await;
    volume.close(handle).await.unwrap();
    assert_eq!(service.names(), ["z", "z/inside", "z/saved"]);
    assert_eq!(service.blob("z/inside"), b"unsaved more and more");
    let before = service.requests();
    let z = volume.lookup("z").await.unwrap().attr;
    assert_eq!(volume.lookup_in(z.number, "saved").await.unwrap().attr.size, 5);
    assert_eq!(volume.lookup_in(z.number, "absent").await.unwrap_err().errno, libc::ENOENT);
    assert_eq!((service.requests(), z.links), (before, 2), "what was known of the directory still is");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_of_a_rename_has_its_errno() {
    let service = Service::start();
    for name in ["file", "dir/inner/x", "full/x"] {
        service.put(name, name.as_bytes());
    }
    let volume = service.volume().await;
    let dir = volume.lookup("dir").await.unwrap().attr.number;
    volume.make_directory(ROOT, "empty").await;
    assert_eq!(rename(&volume, "dir", "file").await, Err(libc::ENOTDIR));
    assert_eq!(rename(&volume, "file", "dir").await, Err(libc::EISDIR));
    assert_eq!(rename(&volume, "dir", "full").await, Err(libc::ENOTEMPTY));
    assert_eq!(rename(&volume, "none", "dir").await, Err(libc::ENOENT));
    let inner = volume.lookup_in(dir, "inner").await.unwrap().attr.number;
    let into_itself =
        volume.fs.rename(&volume.caller, (ROOT, "dir".as_ref()), (inner, "below".as_ref()), RenameMode::Replace);
    assert_eq!(into_itself.await.unwrap_err().errno, libc::EINVAL);
    let (from, to) = ((ROOT, "file".as_ref()), (ROOT, "empty".as_ref()));
    let kept = volume.fs.rename(&volume.caller, from, to, RenameMode::NoReplace).await;
    assert_eq!(kept.unwrap_err().errno, libc::EEXIST);
    assert_eq!(volume.fs.refuse_rename_flags("RENAME_EXCHANGE").errno, libc::EINVAL);
    rename(&volume, "full", "empty").await.unwrap();
    assert_eq!(service.names(), ["dir/inner/x", "empty/x", "file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_into_which_another_client_wrote_is_not_removed() {
    let service = Service::start();
    let volume = service.volume().await;
    volume.make_directory(ROOT, "d").await;
    service.put("d/theirs", b"");
    let removed = volume.fs.remove_directory(&volume.caller, ROOT, "d".as_ref()).await;
    assert_eq!(removed.unwrap_err().errno, libc::ENOTEMPTY);
    assert_eq!(service.names(), ["d", "d/theirs"]);
}
