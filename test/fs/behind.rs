//! Write-behind: what a close leaves to the journal, who sees it, what waits for the service, and what a process that
//! was killed has left. A kill is a core that is never asked to end: its journal is copied as it stands, and another
//! core starts on the copy.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use azblob_csi::fs::{Access, Debts, Durability, FileSystem, HandleId, ROOT, RenameMode, Settings};
use blob_emulator::{FaultKind, FaultRule, Operation};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    service::Service,
    volume::{CREATE, READ, Volume, resources},
};

/// No background upload takes longer on any machine that can run these tests.
const PATIENCE: Duration = Duration::from_secs(60);
pub const MEMORY_BYTES: u64 = 64 << 20;

pub fn behind() -> Settings {
    Settings { durability: Durability::Fsync, ..Settings::default() }
}

pub async fn volume(service: &Service, spool: &Path) -> Arc<Volume> {
    service.volume_within(behind(), MEMORY_BYTES, Some(spool.to_owned())).await
}

/// A volume that sends nothing before it is asked to.
pub async fn lingering(service: &Service, spool: &Path) -> Arc<Volume> {
    let settings = Settings { linger: Duration::from_secs(3600), ..behind() };
    service.volume_within(settings, MEMORY_BYTES, Some(spool.to_owned())).await
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn until_settled(fs: &FileSystem) {
    until("all that is owed is settled", || fs.debts().count() == 0).await;
}

/// The spool as a kill would leave it at this moment.
pub fn as_killed_now(spool: &Path) -> TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        let permissions = std::fs::metadata(from).unwrap().permissions();
        std::fs::set_permissions(to, permissions).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let (path, target) = (entry.path(), to.join(entry.file_name()));
            if path.is_dir() {
                copy(&path, &target);
            } else {
                std::fs::copy(&path, &target).unwrap();
            }
        }
    }
    let copied = tempfile::tempdir().unwrap();
    if spool.join("journal").exists() {
        copy(&spool.join("journal"), &copied.path().join("journal"));
    }
    copied
}

pub fn segments(spool: &Path) -> Vec<PathBuf> {
    let mut waiting = vec![spool.join("journal")];
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.file_name().is_some_and(|name| name != "lock") && path.exists() {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The records in lost+found, with the bytes beside them.
pub fn lost_and_found(spool: &Path) -> Vec<(Value, Vec<u8>)> {
    let mut waiting = vec![spool.join("lost+found")];
    let mut records = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "json") {
            let record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let content = path.parent().unwrap().join(record["content"].as_str().unwrap());
            records.push((record, std::fs::read(content).unwrap()));
        }
    }
    records
}

pub async fn rename(volume: &Volume, from: &str, to: &str) {
    let (from, to) = ((ROOT, from.as_ref()), (ROOT, to.as_ref()));
    volume.fs.rename(&volume.caller, from, to, RenameMode::Replace).await.unwrap();
}

pub async fn unlink(volume: &Volume, name: &str) {
    volume.fs.unlink(&volume.caller, ROOT, name.as_ref()).await.unwrap();
}

pub async fn sync(volume: &Volume, handle: HandleId) -> i32 {
    volume.fs.sync_file(handle).await.err().map_or(0, |error| error.errno)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_returns_before_the_service_has_the_file_and_all_views_see_it() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = lingering(&service, spool.path()).await;
    let other = volume.second_view();
    assert_eq!(other.lookup("f").await.unwrap_err().errno, libc::ENOENT);
    volume.write_file("f", b"written").await;
    assert_eq!(volume.fs.debts().count(), 1);
    assert_eq!(service.find("f"), None, "nothing was sent");
    for view in [&*volume, &other] {
        assert_eq!(view.lookup("f").await.unwrap().attr.size, 7);
        assert_eq!(view.read_file("f").await, b"written");
        assert_eq!(view.names_in(ROOT).await, ["f"]);
    }
    volume.fs.sync_directory(ROOT).await.unwrap();
    assert_eq!(service.blob("f"), b"written");
    assert_eq!(volume.read_file("f").await, b"written");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_has_forgotten_is_still_there_while_it_is_owed() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = lingering(&service, spool.path()).await;
    let (number, handle) = volume.create("f", CREATE).await.unwrap();
    volume.write(handle, 0, b"kept").await;
    volume.close(handle).await.unwrap();
    volume.fs.forget(&volume.caller.view, number, 100);
    assert_eq!(volume.read_file("f").await, b"kept");
    volume.fs.sync_directory(ROOT).await.unwrap();
    assert_eq!(service.blob("f"), b"kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn fsync_of_a_file_and_of_its_directory_wait_for_the_service() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = volume(&service, spool.path()).await;
    let (_, handle) = volume.create("f", CREATE).await.unwrap();
    volume.write(handle, 0, b"one").await;
    assert_eq!(sync(&volume, handle).await, 0);
    assert_eq!(service.blob("f"), b"one");
    volume.close(handle).await.unwrap();
    let directory = volume.make_directory(ROOT, "d").await;
    let below = volume.make_directory(directory, "e").await;
    for name in ["x", "y"] {
        volume.write_in(below, name, name.as_bytes()).await;
    }
    volume.fs.sync_directory(directory).await.unwrap();
    assert_eq!(service.blob("d/e/x"), b"x");
    assert_eq!(service.blob("d/e/y"), b"y");
    assert_eq!(volume.fs.debts().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_volume_saves_what_is_owed_and_leaves_no_journal() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = volume(&service, spool.path()).await;
    for count in 0..50 {
        volume.write_file(&format!("f{count}"), b"bytes").await;
    }
    volume.fs.flush_all().await.unwrap();
    assert_eq!(volume.fs.set_aside_all().await.files, 0);
    assert_eq!(service.names().len(), 50);
    assert_eq!(volume.fs.debts(), Debts::default());
    drop(volume);
    until("the journal is gone", || segments(spool.path()).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_is_followed_by_one_that_sends_its_journal() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    service.put("changed", b"old");
    let volume = lingering(&service, spool.path()).await;
    assert_eq!(volume.read_file("changed").await, b"old");
    volume.write_file("new", b"new bytes").await;
    volume.write_file("new", b"newer bytes").await;
    volume.write_file("changed", b"changed bytes").await;
    volume.write_file("gone", b"removed again").await;
    unlink(&volume, "gone").await;
    let killed = as_killed_now(spool.path());
    let heir = volume_after_kill(&service, killed.path()).await;
    assert_eq!(service.blob("new"), b"newer bytes");
    assert_eq!(service.blob("changed"), b"changed bytes");
    assert_eq!(service.find("gone"), None);
    assert_eq!(heir.read_file("new").await, b"newer bytes");
    assert_eq!(heir.lookup("new").await.unwrap().attr.mode & 0o777, 0o644, "attributes come along");
    assert!(lost_and_found(killed.path()).is_empty());
    assert_eq!(segments(killed.path()).len(), 1, "the old journal is gone, the new one is empty");
}

/// Another core on the spool of one that was killed.
pub async fn volume_after_kill(service: &Service, spool: &Path) -> Arc<Volume> {
    volume(service, spool).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_sent_before_the_kill_is_not_sent_again() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = lingering(&service, spool.path()).await;
    volume.write_file("f", b"once").await;
    let killed = as_killed_now(spool.path());
    volume.fs.sync_directory(ROOT).await.unwrap();
    let (before, puts) = (service.snapshot(), service.count(Operation::PutBlob));
    // The journal of before the upload: the record of it is missing.
    volume_after_kill(&service, killed.path()).await;
    assert_eq!(service.snapshot(), before);
    assert_eq!(service.count(Operation::PutBlob), puts);
    assert!(lost_and_found(killed.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_change_after_the_kill_is_kept_and_our_bytes_are_in_lost_and_found() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    service.put("changed", b"old");
    let volume = lingering(&service, spool.path()).await;
    assert_eq!(volume.read_file("changed").await, b"old");
    volume.write_file("changed", b"ours").await;
    volume.write_file("new", b"ours as well").await;
    let killed = as_killed_now(spool.path());
    service.put("changed", b"theirs");
    service.put("new", b"theirs");
    volume_after_kill(&service, killed.path()).await;
    assert_eq!(service.blob("changed"), b"theirs");
    assert_eq!(service.blob("new"), b"theirs");
    let mut found: Vec<_> = lost_and_found(killed.path());
    found.sort_by_key(|(record, _)| record["blob"].to_string());
    let found: Vec<_> = found.iter().map(|(record, bytes)| (record["blob"].as_str().unwrap(), &bytes[..])).collect();
    assert_eq!(found, [("changed", &b"ours"[..]), ("new", b"ours as well")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_cut_anywhere_gives_whole_files_or_none() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = lingering(&service, spool.path()).await;
    let names = ["a", "b", "c"];
    for name in names {
        volume.write_file(name, name.repeat(300).as_bytes()).await;
    }
    let whole = as_killed_now(spool.path());
    volume.fs.sync_directory(ROOT).await.unwrap();
    let length = std::fs::metadata(&segments(whole.path())[0]).unwrap().len();
    for cut in (0..length).step_by(97) {
        names.iter().for_each(|name| service.remove(name));
        let killed = as_killed_now(whole.path());
        let segment = &segments(killed.path())[0];
        std::fs::OpenOptions::new().write(true).open(segment).unwrap().set_len(cut).unwrap();
        volume_after_kill(&service, killed.path()).await;
        let found = service.names();
        assert_eq!(found, names[..found.len()], "cut at {cut}");
        for name in found {
            assert_eq!(service.blob(&name), name.repeat(300).as_bytes(), "cut at {cut}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_refuses_for_good_is_told_by_fsync_and_kept_in_lost_and_found() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = volume(&service, spool.path()).await;
    let directory = volume.make_directory(ROOT, "d").await;
    service.refuse(Operation::PutBlob, 403, "AuthorizationFailure", None);
    volume.write_in(directory, "f", b"refused").await;
    until("it is set aside", || volume.fs.files_set_aside() == 1).await;
    service.relent();
    let records = lost_and_found(spool.path());
    let [(record, bytes)] = records.as_slice() else { panic!("not one record: {records:?}") };
    assert_eq!((record["blob"].as_str(), &bytes[..]), (Some("d/f"), &b"refused"[..]));
    assert_eq!(record["errno"], libc::EACCES);
    assert_eq!(volume.fs.sync_directory(directory).await.unwrap_err().errno, libc::EACCES);
    volume.fs.sync_directory(directory).await.unwrap();
    assert_eq!(volume.lookup_in(directory, "f").await.unwrap_err().errno, libc::ENOENT, "it is not at the service");
    assert_eq!(volume.fs.debts(), Debts::default());
    let killed = as_killed_now(spool.path());
    volume_after_kill(&service, killed.path()).await;
    assert_eq!(service.find("d/f"), None, "what is in lost+found is nobody's debt");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_refused_file_open_hears_of_it_at_fsync_and_can_read_it() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = lingering(&service, spool.path()).await;
    volume.write_file("f", b"refused").await;
    let reader = volume.open("f", READ).await.unwrap();
    service.refuse(Operation::PutBlob, 403, "AuthorizationFailure", None);
    assert_eq!(sync(&volume, reader).await, libc::EACCES);
    assert_eq!(volume.read(reader, 0, 7).await, b"refused");
    volume.close(reader).await.unwrap();
    until("it is set aside", || volume.fs.files_set_aside() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_change_before_the_upload_is_never_overwritten() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = lingering(&service, spool.path()).await;
    volume.write_file("f", b"ours").await;
    service.put("f", b"theirs");
    assert_eq!(volume.fs.sync_directory(ROOT).await.unwrap_err().errno, libc::ESTALE);
    until("it is set aside", || volume.fs.files_set_aside() == 1).await;
    assert_eq!(service.blob("f"), b"theirs");
    assert_eq!(lost_and_found(spool.path())[0].1, b"ours");
    assert_eq!(volume.read_file("f").await, b"theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_reply_was_lost_is_no_conflict() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = volume(&service, spool.path()).await;
    service.fault(FaultRule { count: Some(1), ..FaultRule::new(FaultKind::ReplyLost).on(Operation::PutBlob) });
    volume.write_file("f", b"sent once").await;
    until_settled(&volume.fs).await;
    assert_eq!(service.blob("f"), b"sent once");
    assert_eq!(volume.fs.files_set_aside(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_owed_is_sent_as_it_was_closed_while_it_is_written_again() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = lingering(&service, spool.path()).await;
    volume.write_file("f", b"closed").await;
    let replace = Access { truncate: true, ..CREATE };
    let writer = volume.open("f", replace).await.unwrap();
    volume.write(writer, 0, b"ha").await;
    volume.fs.sync_directory(ROOT).await.unwrap();
    assert_eq!(service.blob("f"), b"closed", "never half of what is being written");
    assert_eq!(volume.read(writer, 0, 10).await, b"ha");
    volume.write(writer, 2, b"lf and half").await;
    volume.close(writer).await.unwrap();
    volume.fs.sync_directory(ROOT).await.unwrap();
    assert_eq!(service.blob("f"), b"half and half");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_change_in_the_order_of_the_calls_also_while_files_are_owed() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = volume(&service, spool.path()).await;
    service.delay(Duration::from_millis(2));
    for count in 0..30 {
        let (a, b) = (format!("a{count}"), format!("b{count}"));
        volume.write_file(&a, b"first").await;
        volume.write_file(&b, b"replaced").await;
        rename(&volume, &a, &b).await;
        assert_eq!(volume.lookup(&a).await.unwrap_err().errno, libc::ENOENT);
        assert_eq!(volume.read_file(&b).await, b"first");
        if count % 3 == 0 {
            unlink(&volume, &b).await;
            assert_eq!(volume.lookup(&b).await.unwrap_err().errno, libc::ENOENT);
        } else if count % 3 == 1 {
            volume.write_file(&b, b"again").await;
        }
    }
    volume.fs.sync_directory(ROOT).await.unwrap();
    for count in 0..30 {
        assert_eq!(service.find(&format!("a{count}")), None);
        let expected = [None, Some(&b"again"[..]), Some(b"first")][count % 3];
        assert_eq!(service.find(&format!("b{count}")).as_deref(), expected, "b{count}");
    }
    assert_eq!(volume.fs.files_set_aside(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_removed_soon_after_its_close_is_never_sent() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = lingering(&service, spool.path()).await;
    volume.names_in(ROOT).await;
    let before = service.requests();
    for count in 0..20 {
        let name = format!("t{count}");
        volume.write_file(&name, b"temporary").await;
        unlink(&volume, &name).await;
    }
    assert_eq!(service.requests(), before);
    assert_eq!(volume.fs.debts(), Debts::default());
    assert!(service.names().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_waits_for_the_service_at_its_close() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = volume(&service, spool.path()).await;
    let bytes = vec![7; 5 << 20];
    volume.write_file("large", &bytes).await;
    assert!(service.blob("large") == bytes);
    assert_eq!(volume.fs.debts(), Debts::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_slows_closes_down_and_fails_none() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    // A quarter of the dirty memory of 16 MiB may be owed: this is far more.
    let volume = service.volume_within(behind(), 16 << 20, Some(spool.path().to_owned())).await;
    service.delay(Duration::from_millis(20));
    let bytes = vec![3; 1 << 20];
    for count in 0..24 {
        volume.write_file(&format!("f{count}"), &bytes).await;
        assert!(volume.fs.debts().bytes <= 8 << 20);
    }
    volume.fs.sync_directory(ROOT).await.unwrap();
    for count in 0..24 {
        assert!(service.blob(&format!("f{count}")) == bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_spool_a_close_waits_for_the_service() {
    let service = Service::start();
    let volume = service.volume_within(behind(), MEMORY_BYTES, None).await;
    volume.write_file("f", b"bytes").await;
    assert_eq!(service.blob("f"), b"bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_of_another_durability_sends_the_journal_too_and_a_read_only_one_leaves_it() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = lingering(&service, spool.path()).await;
    volume.write_file("f", b"bytes").await;
    let killed = as_killed_now(spool.path());
    drop(volume);
    service.relent();
    let open = async |settings: Settings| {
        let shared = resources(MEMORY_BYTES, Some(killed.path().to_owned()));
        FileSystem::open(service.store(), shared, settings).await.unwrap()
    };
    service.remove("f");
    open(Settings { read_only: true, ..Settings::default() }).await;
    assert_eq!(service.find("f"), None);
    open(Settings { prefix: "elsewhere".to_owned(), ..Settings::default() }).await;
    assert_eq!(service.find("f"), None, "another volume's");
    open(Settings::default()).await;
    assert_eq!(service.blob("f"), b"bytes");
    assert!(segments(killed.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_inside_a_new_one_cost_their_maker_no_round_trip_and_come_along_with_all() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = lingering(&service, spool.path()).await;
    let top = volume.make_directory(ROOT, "top").await;
    assert!(service.find("top").is_some(), "whether the name is free, the service must say");
    let before = service.requests();
    let below = volume.make_directory(top, "below").await;
    let empty = volume.make_directory(below, "empty").await;
    volume.write_in(below, "f", b"bytes").await;
    let again = volume.fs.make_directory(&volume.caller, top, "below".as_ref(), 0o755).await;
    assert_eq!(again.unwrap_err().errno, libc::EEXIST);
    assert_eq!(volume.names_in(top).await, ["below"]);
    let mut names = volume.names_in(below).await;
    names.sort();
    assert_eq!(names, ["empty", "f"]);
    let full = volume.fs.remove_directory(&volume.caller, top, "below".as_ref()).await;
    assert_eq!(full.unwrap_err().errno, libc::ENOTEMPTY);
    assert_eq!(service.requests(), before);
    let killed = as_killed_now(spool.path());
    // Another client makes one of them as well: that is no conflict.
    service.put_with("top/below/empty", b"", &[("hdi_isfolder", "true")]);
    volume.fs.sync_directory(ROOT).await.unwrap();
    assert_eq!(service.names(), ["top", "top/below", "top/below/empty", "top/below/f"]);
    assert_eq!(service.metadata("top/below/empty")["permissions"], "16877", "with the mode of this one");
    assert_eq!(volume.fs.files_set_aside(), 0);
    assert_eq!(volume.names_in(empty).await, [""; 0]);
    for name in ["top/below", "top/below/empty", "top/below/f"] {
        service.remove(name);
    }
    volume_after_kill(&service, killed.path()).await;
    assert_eq!(service.names(), ["top", "top/below", "top/below/empty", "top/below/f"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_all_that_is_owed_below_it_is_renamed_and_removed() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = lingering(&service, spool.path()).await;
    let top = volume.make_directory(ROOT, "top").await;
    let below = volume.make_directory(top, "below").await;
    volume.make_directory(below, "empty").await;
    volume.write_in(below, "f", b"bytes").await;
    rename(&volume, "top", "moved").await;
    assert_eq!(service.names(), ["moved", "moved/below", "moved/below/empty", "moved/below/f"]);
    let gone = volume.make_directory(below, "gone").await;
    volume.fs.remove_directory(&volume.caller, below, "gone".as_ref()).await.unwrap();
    assert_eq!(volume.lookup_in(below, "gone").await.unwrap_err().errno, libc::ENOENT);
    assert_eq!(volume.fs.debts().count(), 0, "{gone:?}");
    volume.fs.sync_directory(ROOT).await.unwrap();
    assert_eq!(service.names().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_journal_age_a_killed_process_loses_nothing_either() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let hour = Duration::from_secs(3600);
    let settings = Settings { journal_age: hour, linger: hour, ..behind() };
    let volume = service.volume_within(settings, MEMORY_BYTES, Some(spool.path().to_owned())).await;
    for count in 0..20 {
        volume.write_file(&format!("f{count}"), b"bytes").await;
    }
    let killed = as_killed_now(spool.path());
    volume_after_kill(&service, killed.path()).await;
    assert_eq!(service.names().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_counted_with_its_age() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    service.put("removed", b"old");
    let volume = lingering(&service, spool.path()).await;
    assert_eq!(volume.fs.debts(), Debts::default());
    service.refuse(Operation::DeleteBlob, 503, "ServerBusy", None);
    unlink(&volume, "removed").await;
    volume.write_file("f", b"bytes").await;
    volume.write_file("g", b"bytes").await;
    let first = volume.fs.debts();
    assert_eq!((first.files, first.removals, first.count()), (2, 1, 3));
    assert!(first.bytes > 0);
    until("it grows older", || volume.fs.debts().oldest > first.oldest).await;
    service.relent();
    volume.fs.sync_directory(ROOT).await.unwrap();
    assert_eq!(volume.fs.debts(), Debts::default());
}
