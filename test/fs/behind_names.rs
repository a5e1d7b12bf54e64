//! Write-behind of names: renames and removals that are in the journal, and who waits until the service has heard of them.

use std::time::Duration;

use azblob_csi::fs::{Debts, ROOT, RenameMode, Settings};
use blob_emulator::Operation;

use crate::{
    behind::{
        MEMORY_BYTES, as_killed_now, behind, lingering, lost_and_found, rename, segments, unlink, until, volume,
        volume_after_kill,
    },
    support::{service::Service, volume::READ},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_renamed_soon_after_its_close_is_sent_under_its_new_name_alone() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = lingering(&service, spool.path()).await;
    let top = volume.make_directory(ROOT, "top").await;
    let below = volume.make_directory(top, "below").await;
    let before = service.requests();
    volume.write_in(below, "config.lock", b"[core]").await;
    let (from, to) = ((below, "config.lock".as_ref()), (below, "config".as_ref()));
    volume.fs.rename(&volume.caller, from, to, RenameMode::NoReplace).await.unwrap();
    // As git does it again and again.
    for count in 0..5 {
        volume.write_in(below, "config.lock", format!("[core] {count}").as_bytes()).await;
        volume.fs.rename(&volume.caller, from, to, RenameMode::Replace).await.unwrap();
    }
    assert_eq!(volume.lookup_in(below, "config.lock").await.unwrap_err().errno, libc::ENOENT);
    assert_eq!(volume.lookup_in(below, "config").await.unwrap().attr.size, 8);
    assert_eq!(volume.names_in(below).await, ["config"]);
    assert_eq!(service.requests(), before, "nothing but the journal is asked");
    assert_eq!(volume.fs.debts().count(), 2, "the directory and the file");
    let (killed, early) = (as_killed_now(spool.path()), as_killed_now(spool.path()));
    let puts = service.count(Operation::PutBlob);
    volume.fs.sync_directory(ROOT).await.unwrap();
    assert_eq!(service.names(), ["top", "top/below", "top/below/config"]);
    assert_eq!(service.blob("top/below/config"), b"[core] 4");
    assert_eq!(service.count(Operation::PutBlob), puts + 2);
    let sent = service.snapshot();
    volume_after_kill(&service, killed.path()).await;
    assert_eq!(service.snapshot(), sent, "what was sent is recognised under its new name");
    ["top/below", "top/below/config"].iter().for_each(|name| service.remove(name));
    volume_after_kill(&service, early.path()).await;
    assert_eq!(service.names(), ["top", "top/below", "top/below/config"]);
    assert_eq!(service.blob("top/below/config"), b"[core] 4");
    assert!(lost_and_found(killed.path()).is_empty() && lost_and_found(early.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_has_renamed_what_it_has_renamed() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    service.put("known", b"old");
    let volume = lingering(&service, spool.path()).await;
    assert_eq!(volume.read_file("known").await, b"old");
    volume.write_file("a", b"first").await;
    volume.write_file("b", b"replaced before it was ever sent").await;
    rename(&volume, "a", "b").await;
    volume.write_file("x", b"new").await;
    rename(&volume, "x", "known").await;
    volume.write_file("known", b"newer, in place").await;
    let killed = as_killed_now(spool.path());
    let heir = volume_after_kill(&service, killed.path()).await;
    assert_eq!(service.names(), ["b", "known"]);
    assert_eq!(service.blob("b"), b"first");
    assert_eq!(service.blob("known"), b"newer, in place");
    assert_eq!(heir.lookup("b").await.unwrap().attr.mode & 0o777, 0o644, "attributes come along");
    assert!(lost_and_found(killed.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_over_a_known_version_replaces_that_one_and_no_other() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    service.put("ours", b"old");
    service.put("theirs", b"old");
    let volume = lingering(&service, spool.path()).await;
    let other = volume.second_view();
    for name in ["ours", "theirs"] {
        assert_eq!(other.read_file(name).await, b"old");
    }
    let reader = volume.open("ours", READ).await.unwrap();
    volume.names_in(ROOT).await;
    for name in ["ours", "theirs"] {
        volume.write_file("temporary", name.as_bytes()).await;
        rename(&volume, "temporary", name).await;
        assert_eq!(other.read_file(name).await, name.as_bytes());
        assert_eq!(service.blob(name), b"old", "nothing was sent yet");
    }
    assert_eq!(volume.read(reader, 0, 3).await, b"old", "who has the old one open reads it");
    volume.close(reader).await.unwrap();
    let mut names = other.names_in(ROOT).await;
    names.sort();
    assert_eq!(names, ["ours", "theirs"]);
    service.put("theirs", b"by somebody else");
    assert_eq!(volume.fs.sync_directory(ROOT).await.unwrap_err().errno, libc::ESTALE);
    until("it is set aside", || volume.fs.files_set_aside() == 1).await;
    assert_eq!(service.blob("ours"), b"ours");
    assert_eq!(service.blob("theirs"), b"by somebody else");
    assert_eq!(lost_and_found(spool.path())[0].1, b"theirs");
    assert_eq!(service.names(), ["ours", "theirs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_renamed_over_a_version_and_is_removed_takes_that_version_along() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    service.put("known", b"old");
    service.put("other", b"old");
    let volume = lingering(&service, spool.path()).await;
    for name in ["known", "other"] {
        assert_eq!(volume.read_file(name).await, b"old");
        volume.write_file("temporary", b"new").await;
        rename(&volume, "temporary", name).await;
    }
    unlink(&volume, "known").await;
    rename(&volume, "other", "elsewhere").await;
    for name in ["known", "other"] {
        assert_eq!(volume.lookup(name).await.unwrap_err().errno, libc::ENOENT);
    }
    volume.fs.sync_directory(ROOT).await.unwrap();
    assert_eq!(service.names(), ["elsewhere"]);
    assert_eq!(service.blob("elsewhere"), b"new");
    let killed = as_killed_now(spool.path());
    volume_after_kill(&service, killed.path()).await;
    assert_eq!(service.names(), ["elsewhere"]);
    assert!(lost_and_found(killed.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_name_is_gone_here_at_once_and_at_the_service_in_the_background() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    for name in ["known", "changed", "other"] {
        service.put(name, b"old");
    }
    // What is asked of the service again and again shows nothing either.
    let settings = Settings { metadata_ttl: Duration::ZERO, linger: Duration::from_secs(3600), ..behind() };
    let volume = service.volume_within(settings, MEMORY_BYTES, Some(spool.path().to_owned())).await;
    let view = volume.second_view();
    volume.write_file("changed", b"never sent").await;
    let reader = view.open("known", READ).await.unwrap();
    service.refuse(Operation::DeleteBlob, 503, "ServerBusy", None);
    unlink(&volume, "known").await;
    unlink(&volume, "changed").await;
    for name in ["known", "changed"] {
        assert_eq!(volume.lookup(name).await.unwrap_err().errno, libc::ENOENT);
        assert_eq!(view.lookup(name).await.unwrap_err().errno, libc::ENOENT);
    }
    assert_eq!(volume.names_in(ROOT).await, ["other"]);
    assert_eq!(service.names(), ["changed", "known", "other"]);
    assert_eq!(view.read(reader, 0, 3).await, b"old");
    view.close(reader).await.unwrap();
    let killed = as_killed_now(spool.path());
    service.relent();
    volume.fs.sync_directory(ROOT).await.unwrap();
    assert_eq!(service.names(), ["other"]);
    assert_eq!(volume.fs.debts(), Debts::default());
    for name in ["known", "changed"] {
        service.put(name, b"by somebody else, later");
    }
    volume_after_kill(&service, killed.path()).await;
    assert_eq!(service.names(), ["changed", "known", "other"], "versions that were not removed stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_has_removed_what_it_has_removed() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    for name in ["known", "changed", "replaced"] {
        service.put(name, b"old");
    }
    let volume = lingering(&service, spool.path()).await;
    for name in ["known", "changed", "replaced"] {
        assert_eq!(volume.read_file(name).await, b"old");
    }
    volume.write_file("changed", b"never sent").await;
    volume.write_file("temporary", b"never sent either").await;
    rename(&volume, "temporary", "replaced").await;
    service.refuse(Operation::DeleteBlob, 503, "ServerBusy", None);
    for name in ["known", "changed", "replaced"] {
        unlink(&volume, name).await;
    }
    let killed = as_killed_now(spool.path());
    assert_eq!(service.names().len(), 3);
    service.relent();
    volume_after_kill(&service, killed.path()).await;
    assert!(service.names().is_empty());
    assert!(lost_and_found(killed.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_a_removed_name_again_waits_until_it_is_gone() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = volume(&service, spool.path()).await;
    let names = ["made", "renamed", "directory", "link"];
    for name in names {
        volume.write_file(name, b"first").await;
    }
    volume.write_file("source", b"moved").await;
    volume.fs.sync_directory(ROOT).await.unwrap();
    service.delay(Duration::from_millis(20));
    for name in names {
        unlink(&volume, name).await;
    }
    volume.write_file("made", b"second").await;
    rename(&volume, "source", "renamed").await;
    volume.make_directory(ROOT, "directory").await;
    volume.fs.make_symlink(&volume.caller, ROOT, "link".as_ref(), b"made").await.unwrap();
    unlink(&volume, "made").await;
    volume.write_file("made", b"third").await;
    volume.fs.sync_directory(ROOT).await.unwrap();
    assert_eq!(service.names(), ["directory", "link", "made", "renamed"]);
    assert_eq!(service.blob("made"), b"third");
    assert_eq!(service.blob("renamed"), b"moved");
    assert_eq!(service.metadata("directory")["hdi_isfolder"], "true");
    assert_eq!(volume.fs.files_set_aside(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_client_has_changed_is_not_removed_and_shows_itself_again() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    for name in ["theirs", "refused"] {
        service.put(name, b"old");
    }
    let volume = lingering(&service, spool.path()).await;
    for name in ["theirs", "refused"] {
        assert_eq!(volume.read_file(name).await, b"old");
    }
    service.put("theirs", b"changed");
    unlink(&volume, "theirs").await;
    until("it is back", || volume.fs.debts().count() == 0).await;
    assert_eq!(volume.fs.sync_directory(ROOT).await.unwrap_err().errno, libc::ESTALE);
    volume.fs.sync_directory(ROOT).await.unwrap();
    assert_eq!(volume.read_file("theirs").await, b"changed");
    service.refuse(Operation::DeleteBlob, 403, "AuthorizationFailure", None);
    unlink(&volume, "refused").await;
    until("it is back", || volume.fs.debts().count() == 0).await;
    assert_eq!(volume.fs.sync_directory(ROOT).await.unwrap_err().errno, libc::EACCES);
    assert_eq!(volume.read_file("refused").await, b"old");
    assert_eq!(volume.names_in(ROOT).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_whose_files_were_removed_is_removed_and_renamed_without_them() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    let volume = volume(&service, spool.path()).await;
    for directory in ["emptied", "moved"] {
        let number = volume.make_directory(ROOT, directory).await;
        for count in 0..40 {
            volume.write_in(number, &format!("f{count}"), b"bytes").await;
        }
        volume.fs.sync_directory(number).await.unwrap();
        service.delay(Duration::from_millis(5));
        for count in 0..40 {
            volume.fs.unlink(&volume.caller, number, format!("f{count}").as_ref()).await.unwrap();
        }
        assert!(volume.fs.debts().count() > 0, "nobody has waited for the service");
    }
    volume.fs.remove_directory(&volume.caller, ROOT, "emptied".as_ref()).await.unwrap();
    rename(&volume, "moved", "elsewhere").await;
    assert_eq!(service.names(), ["elsewhere"]);
    volume.fs.flush_all().await.unwrap();
    assert_eq!(volume.fs.debts(), Debts::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_volume_waits_until_what_was_removed_is_gone() {
    let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
    (0..50).for_each(|count| service.put(&format!("f{count}"), b"bytes"));
    let volume = volume(&service, spool.path()).await;
    service.delay(Duration::from_millis(5));
    for count in 0..50 {
        unlink(&volume, &format!("f{count}")).await;
    }
    volume.fs.flush_all().await.unwrap();
    assert!(service.names().is_empty());
    drop(volume);
    until("the journal is gone", || segments(spool.path()).is_empty()).await;
}
