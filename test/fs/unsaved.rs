//! What the service does not take: who hears of it, and where the bytes are.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use azblob_csi::fs::{Access, ROOT, RenameMode, SetAttr, Settings};
use blob_emulator::Operation;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    random::Random,
    service::{CONTAINER, Service},
    volume::{CREATE, READ, Volume},
};

/// No background retry takes longer on any machine that can run these tests.
const PATIENCE: Duration = Duration::from_secs(60);
const MEMORY_BYTES: u64 = 64 << 20;

async fn volume_with_spool(service: &Service, spool: &TempDir) -> Arc<Volume> {
    service.volume_within(Settings::default(), MEMORY_BYTES, Some(spool.path().to_owned())).await
}

/// The records in lost+found, each with its path and its text.
fn lost_and_found(spool: &Path) -> Vec<(PathBuf, Value)> {
    let mut waiting = vec![spool.join("lost+found")];
    let mut records = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "json") {
            let record = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            records.push((path, record));
        }
    }
    records
}

/// The one record, and the bytes beside it.
#[track_caller]
fn the_lost_file(spool: &Path) -> (Value, Vec<u8>) {
    let records = lost_and_found(spool);
    let [(path, record)] = records.as_slice() else { panic!("not one record: {records:?}") };
    let content = path.parent().unwrap().join(record["content"].as_str().unwrap());
    (record.clone(), std::fs::read(content).unwrap())
}

async fn errno_of_sync(volume: &Volume, handle: azblob_csi::fs::HandleId) -> i32 {
    volume.fs.sync_file(handle).await.err().map_or(0, |error| error.errno)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_commit_is_told_once_to_every_handle_that_was_open() {
    let service = Service::start();
    let volume = service.volume().await;
    volume.write_file("f", b"first").await;
    let (one, two) = (volume.open("f", CREATE).await.unwrap(), volume.open("f", CREATE).await.unwrap());
    let reader = volume.open("f", READ).await.unwrap();
    service.refuse(Operation::PutBlob, 403, "AuthorizationFailure", Some(1));
    volume.write(one, 0, b"other").await;
    assert_eq!(errno_of_sync(&volume, one).await, libc::EACCES);
    let late = volume.open("f", CREATE).await.unwrap();
    assert_eq!(errno_of_sync(&volume, late).await, 0, "opened after somebody had heard");
    assert_eq!(service.blob("f"), b"other", "the data stayed dirty and was sent again");
    assert_eq!(errno_of_sync(&volume, one).await, 0, "told once");
    assert_eq!(volume.fs.flush(two).await.unwrap_err().errno, libc::EACCES, "close tells as fsync does");
    assert_eq!(errno_of_sync(&volume, two).await, 0);
    assert_eq!(errno_of_sync(&volume, reader).await, libc::EACCES);
    assert_eq!(errno_of_sync(&volume, reader).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_no_call_returned_is_told_to_open_handles_and_to_the_next_one() {
    let service = Service::start();
    let volume = service.volume().await;
    volume.write_file("f", b"first").await;
    let (gone, open) = (volume.open("f", CREATE).await.unwrap(), volume.open("f", CREATE).await.unwrap());
    volume.write(gone, 0, b"other").await;
    service.refuse(Operation::PutBlob, 403, "AuthorizationFailure", Some(1));
    volume.fs.release(gone).await.unwrap_err();
    let next = volume.open("f", CREATE).await.unwrap();
    assert_eq!(errno_of_sync(&volume, next).await, libc::EACCES, "nobody had heard of it yet");
    assert_eq!(service.blob("f"), b"other");
    assert_eq!(errno_of_sync(&volume, open).await, libc::EACCES);
    assert_eq!(errno_of_sync(&volume, open).await, 0);
    let last = volume.open("f", CREATE).await.unwrap();
    assert_eq!(errno_of_sync(&volume, last).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_losers_bytes_are_whole_in_lost_and_found_after_its_last_close() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    for size in [100_usize, 5 << 20] {
        let name = format!("dir%/lost {size}");
        service.put(&name, &vec![b'o'; size]);
        let volume = volume_with_spool(&service, &spool).await;
        let directory = volume.lookup("dir%").await.unwrap().attr.number;
        let number = volume.lookup_in(directory, &format!("lost {size}")).await.unwrap().attr.number;
        let handle = volume.fs.open_file(&volume.caller, number, CREATE).await.unwrap();
        // Read once, so that all of the old version is in memory: it will be gone from the service.
        assert_eq!(volume.read(handle, 0, size).await.len(), size);
        volume.write(handle, 10, b"mine").await;
        service.put(&name, b"theirs");
        assert_eq!(errno_of_sync(&volume, handle).await, libc::ESTALE);
        assert_eq!(lost_and_found(spool.path()).len(), 0, "the program may still read it and save it elsewhere");
        assert_eq!(volume.read(handle, 9, 6).await, b"omineo");
        volume.close(handle).await.unwrap_err();
        assert_eq!(service.blob(&name), b"theirs", "nothing is overwritten");
        let (record, found) = the_lost_file(spool.path());
        let mut expected = vec![b'o'; size];
        expected[10..14].copy_from_slice(b"mine");
        assert!(found == expected, "the whole file as the program saw it");
        assert_eq!(record["blob"], name.as_str());
        assert_eq!(record["complete"], true);
        assert_eq!(record["changed"], serde_json::json!([[10, 14]]));
        assert_eq!(record["errno"], libc::ESTALE);
        assert!(record["error"].as_str().unwrap().contains("another client"), "{record}");
        assert!(record["based_on_etag"].is_string() && record["saved_at"].is_string(), "{record}");
        assert_eq!(volume.fs.files_set_aside(), 1);
        std::fs::remove_dir_all(spool.path().join("lost+found")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_whose_name_was_taken_goes_to_lost_and_found() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = volume_with_spool(&service, &spool).await;
    let (_, handle) = volume.create("new", CREATE).await.unwrap();
    volume.write(handle, 0, b"mine").await;
    service.put("new", b"theirs");
    assert_eq!(volume.close(handle).await.unwrap_err().errno, libc::ESTALE);
    let (record, found) = the_lost_file(spool.path());
    assert_eq!((found.as_slice(), &record["based_on_etag"]), (&b"mine"[..], &Value::Null));
    assert_eq!(volume.read_file("new").await, b"theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_revoked_key_leaves_unsaved_is_in_lost_and_found_with_what_is_missing_of_it() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let old = vec![7u8; 3 << 20];
    service.put("f", &old);
    let volume = volume_with_spool(&service, &spool).await;
    let handle = volume.open("f", CREATE).await.unwrap();
    volume.write(handle, 1 << 20, b"changed").await;
    volume.write(handle, 4 << 20, b"behind the end").await;
    let _new_key = service.emulator().rotate_key();
    assert_eq!(errno_of_sync(&volume, handle).await, libc::EACCES);
    assert_eq!(lost_and_found(spool.path()).len(), 0);
    volume.close(handle).await.unwrap_err();
    let (record, found) = the_lost_file(spool.path());
    let end = (4 << 20) + 14;
    assert_eq!((found.len(), &record["size"]), (end, &Value::from(end)));
    assert_eq!(&found[1 << 20..][..7], b"changed");
    assert_eq!(&found[4 << 20..], b"behind the end");
    assert!(found[3 << 20..4 << 20].iter().all(|byte| *byte == 0), "a hole reads as zeros");
    assert_eq!(record["complete"], false, "the unchanged bytes cannot be read without a key");
    assert_eq!(record["missing"], serde_json::json!([[0, 1 << 20], [(1 << 20) + 7, 3 << 20]]));
    assert_eq!(record["changed"], serde_json::json!([[1 << 20, (1 << 20) + 7], [4 << 20, end]]));
    assert_eq!(service.blob("f"), old);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_losers_of_one_spool_are_both_in_lost_and_found() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    service.put("f", b"first");
    let mut losers = Vec::new();
    for bytes in [b"one", b"two"] {
        let volume = volume_with_spool(&service, &spool).await;
        let handle = volume.open("f", CREATE).await.unwrap();
        volume.write(handle, 0, bytes.as_slice()).await;
        losers.push((volume, handle));
    }
    service.put("f", b"theirs");
    // Equal paths, inode numbers and, but for bad luck, seconds.
    for (volume, handle) in losers {
        assert_eq!(volume.close(handle).await.unwrap_err().errno, libc::ESTALE);
    }
    assert_eq!(lost_and_found(spool.path()).len(), 2);
}

/// A new file that is only written is sent ahead, stretch by stretch. What was sent and not committed is not lost to
/// the node yet.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_ahead_is_in_lost_and_found_when_its_commit_is_refused() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = volume_with_spool(&service, &spool).await;
    let (_, handle) = volume.create("f", Access { read: false, ..CREATE }).await.unwrap();
    let bytes = Random::new(3).bytes(28 << 20);
    volume.write(handle, 0, &bytes).await;
    let began = Instant::now();
    while service.emulator().uncommitted_blocks(CONTAINER, "f") < 3 {
        assert!(began.elapsed() < PATIENCE, "nothing was sent ahead");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let _new_key = service.emulator().rotate_key();
    volume.close(handle).await.unwrap_err();
    let (record, found) = the_lost_file(spool.path());
    assert_eq!(record["complete"], true, "{record}");
    assert!(found == bytes, "the file is not as it was written");
    assert!(record["uncommitted"].as_array().unwrap().len() >= 3, "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_last_close_could_not_save_is_tried_again_until_it_is() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = volume_with_spool(&service, &spool).await;
    let (number, handle) = volume.create("leased", CREATE).await.unwrap();
    volume.write(handle, 0, b"late").await;
    // A lease of somebody else: refused at once, and it may end.
    service.refuse(Operation::PutBlob, 412, "LeaseIdMissing", Some(3));
    assert_eq!(volume.close(handle).await.unwrap_err().errno, libc::EBUSY);
    volume.fs.forget(&volume.caller.view, number, 1);
    assert_eq!(volume.lookup("leased").await.unwrap().attr.size, 4, "the name and its bytes stay meanwhile");
    let began = Instant::now();
    while service.find("leased").is_none() {
        assert!(began.elapsed() < PATIENCE, "nobody tries again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(service.blob("leased"), b"late");
    assert_eq!(volume.fs.files_set_aside(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_volume_saves_everything_and_sets_aside_what_is_refused() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = volume_with_spool(&service, &spool).await;
    let mut handles = Vec::new();
    for index in 0..40 {
        let (_, handle) = volume.create(&format!("file{index}"), CREATE).await.unwrap();
        volume.write(handle, 0, format!("bytes {index}").as_bytes()).await;
        handles.push(handle);
    }
    let kind = blob_emulator::FaultKind::Status { status: 403, code: None, retry_after: None };
    service.emulator().fault(blob_emulator::FaultRule::new(kind).blob("file7"));
    assert_eq!(volume.fs.flush_all().await.unwrap_err().errno, libc::EACCES);
    assert_eq!(service.names().len(), 39, "one refusal stops no other");
    let left = volume.fs.set_aside_all().await;
    assert_eq!((left.files, left.kept), (1, 0));
    let (record, found) = the_lost_file(spool.path());
    assert_eq!((found.as_slice(), &record["blob"]), (&b"bytes 7"[..], &Value::from("file7")));
    assert_eq!(volume.fs.set_aside_all().await.files, 0, "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_spool_or_with_a_full_one_unsaved_changes_stay_in_memory() {
    let service = Service::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    // No directory can be made below a file: as good as a disk that takes nothing.
    for spool in [None, Some(file.path().to_owned())] {
        let volume = service.volume_within(Settings::default(), MEMORY_BYTES, spool).await;
        let (_, handle) = volume.create("kept", CREATE).await.unwrap();
        volume.write(handle, 0, b"kept").await;
        service.refuse(Operation::PutBlob, 403, "AuthorizationFailure", None);
        assert_eq!(volume.close(handle).await.unwrap_err().errno, libc::EACCES);
        let left = volume.fs.set_aside_all().await;
        assert_eq!((left.files, left.kept), (0, 1));
        service.relent();
        let handle = volume.open("kept", CREATE).await.unwrap();
        assert_eq!(volume.read(handle, 0, 10).await, b"kept");
        volume.fs.flush(handle).await.ok();
        volume.close(handle).await.unwrap();
        assert_eq!(service.blob("kept"), b"kept");
        volume.fs.unlink(&volume.caller, ROOT, "kept".as_ref()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_name_that_fails_is_undone() {
    let service = Service::start();
    service.put("f", b"12345678");
    let volume = service.volume().await;
    let number = volume.lookup("f").await.unwrap().attr.number;
    service.refuse(Operation::SetBlobMetadata, 403, "AuthorizationFailure", None);
    service.refuse(Operation::PutBlob, 403, "AuthorizationFailure", None);
    for change in [SetAttr { mode: Some(0o600), ..SetAttr::default() }, SetAttr { size: Some(3), ..SetAttr::default() }]
    {
        let error = volume.fs.setattr(&volume.caller, number, None, change).await.unwrap_err();
        assert_eq!(error.errno, libc::EACCES);
        let attr = volume.lookup("f").await.unwrap().attr;
        assert_eq!((attr.size, attr.mode), (8, 0o644));
    }
    let handle = volume.open("f", CREATE).await.unwrap();
    assert_eq!(errno_of_sync(&volume, handle).await, 0, "the calls themselves have told it");
}

/// The last close may come while the copy is being made: then nobody is left who would delete it later.
#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_copy_goes_also_when_its_file_is_closed_while_it_is_made() {
    for (start, replaced) in [
        (Service::start as fn() -> Service, false),
        (Service::start, true),
        (Service::start_hierarchical, false),
        (Service::start_hierarchical, true),
    ] {
        let service = start();
        service.put("large", &vec![3; 5 << 20]);
        service.put("other", b"takes the name");
        let volume = service.volume().await;
        let handle = volume.open("large", READ).await.unwrap();
        volume.read(handle, 0, 10).await;
        volume.lookup("other").await.unwrap();
        service.delay(Duration::from_millis(50));
        let removing = Arc::clone(&volume);
        let removal = tokio::spawn(async move {
            let (fs, caller, large) = (&removing.fs, &removing.caller, "large".as_ref());
            match replaced {
                false => fs.unlink(caller, ROOT, large).await,
                true => fs.rename(caller, (ROOT, "other".as_ref()), (ROOT, large), RenameMode::Replace).await,
            }
        });
        // The copy is on its way.
        tokio::time::sleep(Duration::from_millis(70)).await;
        volume.fs.release(handle).await.unwrap();
        removal.await.unwrap().unwrap();
        service.delay(Duration::ZERO);
        let hidden = || -> Vec<String> {
            let is_hidden = |name: &String| name.contains("orphan/") && service.length(name) > 0;
            service.names().into_iter().filter(is_hidden).collect()
        };
        let end = Instant::now() + PATIENCE;
        while !hidden().is_empty() {
            assert!(Instant::now() < end, "{:?}", hidden());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_copies_are_swept_by_owner_and_age_and_those_in_use_are_kept() {
    let service = Service::start();
    let bytes = vec![3u8; 5 << 20];
    service.put("large", &bytes);
    service.put(".azblob/orphan/gone-machine/1", b"left by a process that is gone");
    let volume = service.volume().await;
    let handle = volume.open("large", READ).await.unwrap();
    volume.fs.unlink(&volume.caller, ROOT, "large".as_ref()).await.unwrap();
    // A hierarchical account lists the directories of hidden blobs as well.
    let blobs = || -> Vec<String> {
        service.names().into_iter().filter(|name| !service.emulator().is_directory(CONTAINER, name)).collect()
    };
    let hidden = blobs();
    assert_eq!(hidden.len(), 2, "{hidden:?}");
    assert!(hidden.iter().all(|name| name.starts_with(".azblob/orphan/")), "{hidden:?}");
    assert_eq!(volume.names_in(ROOT).await, Vec::<String>::new(), "never listed");
    let day = Duration::from_secs(24 * 3600);
    let now = SystemTime::now();
    assert_eq!(volume.fs.sweep_orphans(now + 6 * day).await.unwrap(), 0, "its owner may live");
    assert_eq!(service.volume().await.fs.sweep_orphans(now + 6 * day).await.unwrap(), 0);
    assert_eq!(volume.fs.sweep_orphans(now + 8 * day).await.unwrap(), 1);
    assert_eq!(blobs().len(), 1, "what is open stays, however old");
    let mut read = Vec::new();
    while read.len() < bytes.len() {
        read.extend(volume.read(handle, read.len() as u64, 1 << 20).await);
    }
    assert!(read == bytes, "read after it was touched under a new ETag");
    volume.close(handle).await.unwrap();
    assert_eq!(blobs(), Vec::<String>::new(), "our own goes with the last close");
}
