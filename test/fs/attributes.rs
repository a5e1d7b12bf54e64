//! Attributes without FUSE: what is counted, dropped and kept.

use std::time::{Duration, Instant};

use azblob_csi::fs::{Caller, ROOT, RenameMode, SetAttr, Settings};

use crate::support::{service::Service, volume::CREATE};

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_counts_its_directories_where_all_its_names_are_known_and_says_1_elsewhere() {
    let service = Service::start();
    for name in ["known/a/x", "known/b/x", "known/file", "unseen/a/x"] {
        service.put(name, b"");
    }
    let volume = service.volume().await;
    let links = async |name: &str| volume.lookup(name).await.unwrap().attr.links;
    let known = volume.lookup("known").await.unwrap().attr.number;
    volume.names_in(known).await;
    assert_eq!(links("known").await, 4);
    assert_eq!(links("unseen").await, 1);
    let made = volume.make_directory(known, "c").await;
    assert_eq!((links("known").await, volume.lookup_in(known, "c").await.unwrap().attr.links), (5, 2));
    volume.write_in(made, "file", b"").await;
    assert_eq!(volume.lookup_in(known, "c").await.unwrap().attr.links, 2, "files do not count");
    let (from, to) = ((known, "a".as_ref()), (made, "a".as_ref()));
    volume.fs.rename(&volume.caller, from, to, RenameMode::Replace).await.unwrap();
    assert_eq!((links("known").await, volume.lookup_in(known, "c").await.unwrap().attr.links), (4, 3));
    volume.fs.unlink(&volume.caller, made, "file".as_ref()).await.unwrap();
    let inner = volume.lookup_in(made, "a").await.unwrap().attr.number;
    volume.fs.unlink(&volume.caller, inner, "x".as_ref()).await.unwrap();
    volume.fs.remove_directory(&volume.caller, made, "a".as_ref()).await.unwrap();
    assert_eq!(volume.lookup_in(known, "c").await.unwrap().attr.links, 2);
    let number = volume.lookup_in(known, "c").await.unwrap().attr.number;
    volume.fs.remove_directory(&volume.caller, known, "c".as_ref()).await.unwrap();
    assert_eq!(volume.fs.getattr(&volume.caller, number).await.unwrap().0.links, 0, "removed while it is in use");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_owner_and_a_strangers_write_take_setuid_and_setgid_away() {
    let service = Service::start();
    let volume = service.volume().await;
    let (number, handle) = volume.create("tool", CREATE).await.unwrap();
    let set = async |caller: &Caller, change: SetAttr| {
        volume.fs.setattr(caller, number, Some(handle), change).await.unwrap().0.mode
    };
    let mode = |mode| SetAttr { mode: Some(mode), ..SetAttr::default() };
    let stranger = Caller { uid: 1000, ..volume.caller.clone() };
    let size = SetAttr { size: Some(3), ..SetAttr::default() };
    let owner = SetAttr { uid: Some(7), ..SetAttr::default() };
    assert_eq!(set(&volume.caller, mode(0o6755)).await, 0o6755);
    assert_eq!(set(&volume.caller, owner).await, 0o755);
    set(&volume.caller, mode(0o6745)).await;
    assert_eq!(set(&volume.caller, owner).await, 0o2745, "setgid without group execution is mandatory locking");
    set(&volume.caller, mode(0o6755)).await;
    assert_eq!(set(&volume.caller, size).await, 0o6755, "root keeps them");
    assert_eq!(set(&stranger, size).await, 0o755);
    set(&volume.caller, mode(0o6755)).await;
    volume.fs.drop_set_ids(handle).unwrap();
    volume.close(handle).await.unwrap();
    assert_eq!(service.volume().await.lookup("tool").await.unwrap().attr.mode, 0o755);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_may_believe_ends_with_the_metadata_ttl() {
    const METADATA_TTL: Duration = Duration::from_secs(1000);
    let service = Service::start();
    service.put("asked", b"");
    service.put("d/listed", b"");
    let began = Instant::now();
    let volume = service.volume_with(Settings { metadata_ttl: METADATA_TTL, ..Settings::default() }).await;
    let d = volume.lookup("d").await.unwrap().attr.number;
    volume.names_in(d).await;
    for (parent, name) in [(ROOT, "asked"), (d, "listed"), (ROOT, "asked")] {
        let entry = volume.lookup_in(parent, name).await.unwrap();
        let (_, ttl) = volume.fs.getattr(&volume.caller, entry.attr.number).await.unwrap();
        for ttl in [entry.ttl, ttl] {
            // The service was asked after `began`.
            assert!(ttl < METADATA_TTL && ttl + began.elapsed() >= METADATA_TTL, "{name}: {ttl:?}");
        }
    }
    let never = service.volume_with(Settings { metadata_ttl: Duration::ZERO, ..Settings::default() }).await;
    assert_eq!(never.lookup("asked").await.unwrap().ttl, Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directorys_times_live_in_memory_and_are_written_with_its_marker() {
    let service = Service::start();
    let volume = service.volume().await;
    let d = volume.make_directory(ROOT, "d").await;
    let time = async || volume.fs.getattr(&volume.caller, d).await.unwrap().0.mtime;
    let written = || service.metadata("d").get("modtime").cloned().unwrap();
    let (made, first) = (time().await, written());
    volume.write_in(d, "file", b"").await;
    let changed = time().await;
    assert!(changed > made);
    assert_eq!(written(), first, "no request of its own");
    let change = SetAttr { mode: Some(0o700), ..SetAttr::default() };
    volume.fs.setattr(&volume.caller, d, None, change).await.unwrap();
    assert_ne!(written(), first);
    assert_eq!(service.volume().await.lookup("d").await.unwrap().attr.mtime, changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_longer_than_programs_can_make_is_too_long_unless_another_client_made_it() {
    let service = Service::start();
    let (absent, theirs) = ("x".repeat(256), "y".repeat(256));
    service.put(&theirs, b"");
    let volume = service.volume().await;
    assert_eq!(volume.lookup(&absent).await.unwrap_err().errno, libc::ENAMETOOLONG);
    assert_eq!(volume.lookup(&theirs).await.unwrap().attr.size, 0);
    assert_eq!(volume.lookup(&"x".repeat(255)).await.unwrap_err().errno, libc::ENOENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reserved_folder_is_no_name_for_a_rename_either() {
    let service = Service::start();
    service.put("a", b"");
    let volume = service.volume().await;
    let (from, to) = ((ROOT, "a".as_ref()), (ROOT, ".azblob".as_ref()));
    let refused = volume.fs.rename(&volume.caller, from, to, RenameMode::Replace).await.unwrap_err();
    assert_eq!(refused.errno, libc::EPERM);
    assert_eq!(service.names(), ["a"]);
}
