//! The file system core against the emulator, without FUSE: what it promises about bytes, versions, names and requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use azblob_csi::fs::{ROOT, RenameMode, SetAttr, SetTime, SetXattr, Settings};
use blob_emulator::{FaultKind, FaultRule, Operation};

use crate::support::{
    random::Random,
    service::Service,
    volume::{CREATE, EXCLUSIVE, READ},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_closed_is_a_plain_blob_with_exactly_these_bytes() {
    let service = Service::start();
    let volume = service.volume().await;
    let bytes: Vec<u8> = (0..3_000_000u32).map(|position| (position % 253) as u8).collect();
    volume.write_file("a.bin", &bytes).await;
    assert_eq!(service.blob("a.bin"), bytes);
    assert_eq!(volume.read_file("a.bin").await, bytes);
    assert_eq!(service.volume().await.read_file("a.bin").await, bytes, "another client reads the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_new_file_costs_one_request() {
    let service = Service::start();
    let volume = service.volume().await;
    volume.lookup("none").await.unwrap_err();
    let before = service.requests();
    volume.write_file("small", b"hello").await;
    assert_eq!(service.requests() - before, 1, "one Put Blob at close");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_writes_and_cuts_read_back_before_and_after_each_commit() {
    let service = Service::start();
    let volume = service.volume().await;
    let (number, handle) = volume.create("random", CREATE).await.unwrap();
    let mut model: Vec<u8> = Vec::new();
    let mut random = Random::new(7);
    for round in 0..120u32 {
        match random.below(10) {
            0 => {
                let size = random.below(20 << 20);
                let change = SetAttr { size: Some(size), ..SetAttr::default() };
                volume.fs.setattr(&volume.caller, number, Some(handle), change).await.unwrap();
                model.resize(size as usize, 0);
            }
            1 => volume.fs.sync_file(handle).await.unwrap(),
            2 => {
                volume.fs.sync_file(handle).await.unwrap();
                assert_eq!(service.blob("random"), model, "after fsync in round {round}");
            }
            _ => {
                let offset = random.below(16 << 20);
                let length = 1 + random.below(400_000) as usize;
                let data = random.bytes(length);
                volume.write(handle, offset, &data).await;
                let end = offset as usize + data.len();
                model.resize(model.len().max(end), 0);
                model[offset as usize..end].copy_from_slice(&data);
            }
        }
        let offset = random.below(16 << 20);
        let read = volume.read(handle, offset, 300_000).await;
        let expected = &model[(offset as usize).min(model.len())..(offset as usize + 300_000).min(model.len())];
        assert!(read == expected, "a read differs in round {round}");
    }
    volume.close(handle).await.unwrap();
    assert_eq!(service.blob("random"), model);
    assert_eq!(service.volume().await.read_file("random").await, model);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_version_is_a_new_inode_and_the_old_handle_never_mixes() {
    let service = Service::start();
    let old = vec![1u8; 6 << 20];
    service.put("shared", &old);
    let volume = service.volume().await;
    let number = volume.lookup("shared").await.unwrap().attr.number;
    let handle = volume.fs.open_file(&volume.caller, number, READ).await.unwrap();
    assert_eq!(volume.read(handle, 0, 1 << 20).await, &old[..1 << 20]);
    service.put("shared", &vec![2u8; 3 << 20]);
    // The old handle: old bytes or ESTALE, at its old size.
    for offset in (0..6u64 << 20).step_by(1 << 20) {
        match volume.fs.read(handle, offset, 1 << 20).await {
            Ok(data) => data.with(|bytes| assert!(bytes.iter().all(|byte| *byte == 1), "mixed at {offset}")),
            Err(error) => assert_eq!(error.errno, libc::ESTALE),
        }
    }
    // open(2) of the old inode sends the kernel back to the name, which leads to the new version, at no further request.
    let error = volume.fs.open_file(&volume.caller, number, READ).await.unwrap_err();
    assert_eq!(error.errno, libc::ESTALE);
    // Counted by operation: what was fetched ahead for the old handle may still be ending.
    let asked = || (service.count(Operation::GetBlobProperties), service.count(Operation::ListBlobs));
    let before = asked();
    let entry = volume.lookup("shared").await.unwrap();
    assert_ne!(entry.attr.number, number);
    assert_eq!(entry.attr.size, 3 << 20);
    let again = volume.fs.open_file(&volume.caller, entry.attr.number, READ).await.unwrap();
    assert_eq!(asked(), before, "the same revalidation answers both");
    assert_eq!(volume.read(again, 0, 1 << 20).await, vec![2u8; 1 << 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_the_second_gets_estale_and_the_first_version_stays() {
    let service = Service::start();
    service.put("contested", b"original");
    let (one, two) = (service.volume().await, service.volume().await);
    let first = one.open("contested", CREATE).await.unwrap();
    let second = two.open("contested", CREATE).await.unwrap();
    one.write(first, 0, b"first").await;
    two.write(second, 0, b"second").await;
    one.close(first).await.unwrap();
    assert_eq!(two.fs.flush(second).await.unwrap_err().errno, libc::ESTALE);
    two.fs.release(second).await.ok();
    assert_eq!(service.blob("contested"), b"firstnal");
    assert_eq!(two.read_file("contested").await, b"firstnal", "the loser sees the winner's version at its next open");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_fsync_beside_a_writer_who_never_stops_ends() {
    let service = Service::start();
    let volume = std::sync::Arc::new(service.volume().await);
    let (_, handle) = volume.create("busy", CREATE).await.unwrap();
    volume.write(handle, 0, b"before").await;
    let writer = {
        let volume = std::sync::Arc::clone(&volume);
        tokio::spawn(async move {
            loop {
                volume.write(handle, 100, b"again").await;
                tokio::task::yield_now().await;
            }
        })
    };
    // The bound stands for "for ever": an fsync is one request here.
    let synced = tokio::time::timeout(std::time::Duration::from_secs(60), volume.fs.sync_file(handle)).await;
    writer.abort();
    synced.expect("fsync chases the writer").unwrap();
    assert!(service.blob("busy").starts_with(b"before"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_exclusive_creators_cannot_both_win() {
    let service = Service::start();
    let (one, two) = (service.volume().await, service.volume().await);
    let (_, winner) = one.create("lock", EXCLUSIVE).await.unwrap();
    assert_eq!(two.create("lock", EXCLUSIVE).await.unwrap_err().errno, libc::EEXIST);
    one.close(winner).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn chmod_and_touch_keep_every_cached_byte_and_open_handle() {
    let service = Service::start();
    service.put("kept", &vec![9u8; 2 << 20]);
    let volume = service.volume().await;
    let handle = volume.open("kept", READ).await.unwrap();
    let number = volume.lookup("kept").await.unwrap().attr.number;
    volume.read(handle, 0, 1 << 20).await;
    volume.read(handle, 1 << 20, 1 << 20).await;
    let change = SetAttr { mode: Some(0o600), uid: Some(7), ..SetAttr::default() };
    volume.fs.setattr(&volume.caller, number, None, change).await.unwrap();
    let gets = service.count(Operation::GetBlob);
    assert_eq!(volume.read(handle, 0, 1 << 20).await.len(), 1 << 20);
    assert_eq!(service.count(Operation::GetBlob), gets, "no byte is fetched again");
    let seen = service.volume().await.lookup("kept").await.unwrap().attr;
    assert_eq!((seen.mode, seen.uid), (0o600, 7), "another client sees the new attributes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_renames_with_everything_below_it() {
    let service = Service::start();
    let volume = service.volume().await;
    let a = volume.make_directory(ROOT, "a").await;
    let b = volume.make_directory(a, "b").await;
    for index in 0..40 {
        volume.write_in(b, &format!("file{index}"), format!("bytes {index}").as_bytes()).await;
    }
    let (from, to) = ((ROOT, "a".as_ref()), (ROOT, "z".as_ref()));
    volume.fs.rename(&volume.caller, from, to, RenameMode::Replace).await.unwrap();
    let names = service.names();
    assert_eq!(names.len(), 42, "two markers and forty files: {names:?}");
    assert!(names.iter().all(|name| name == "z" || name.starts_with("z/")), "{names:?}");
    assert_eq!(volume.lookup("a").await.unwrap_err().errno, libc::ENOENT);
    assert_eq!(service.blob("z/b/file7"), b"bytes 7");
    let z = volume.lookup("z").await.unwrap().attr.number;
    let b = volume.lookup_in(z, "b").await.unwrap().attr.number;
    assert_eq!(volume.names_in(b).await.len(), 40);
    let number = volume.lookup_in(b, "file9").await.unwrap().attr.number;
    let handle = volume.fs.open_file(&volume.caller, number, READ).await.unwrap();
    assert_eq!(volume.read(handle, 0, 100).await, b"bytes 9");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unlinked_open_file_is_readable_until_its_last_close() {
    let service = Service::start();
    for (name, size) in [("small", 10_000), ("large", 5 << 20)] {
        let bytes = vec![3u8; size];
        service.put(name, &bytes);
        let volume = service.volume().await;
        let handle = volume.open(name, CREATE).await.unwrap();
        volume.fs.unlink(&volume.caller, ROOT, name.as_ref()).await.unwrap();
        assert_eq!(volume.lookup(name).await.unwrap_err().errno, libc::ENOENT);
        volume.write(handle, 5, b"own").await;
        let mut expected = bytes.clone();
        expected[5..8].copy_from_slice(b"own");
        let mut read = Vec::new();
        while read.len() < size {
            read.extend(volume.read(handle, read.len() as u64, 1 << 20).await);
        }
        assert!(read == expected, "{name} is read after its name went");
        volume.close(handle).await.unwrap();
        assert_eq!(service.names(), Vec::<String>::new(), "nothing of {name} is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_many_pages_lists_every_name_once() {
    let service = Service::start();
    for index in 0..12_000 {
        service.put(&format!("many/{index:05}"), b"");
    }
    let volume = service.volume().await;
    let many = volume.lookup("many").await.unwrap().attr.number;
    let mut names = volume.names_in(many).await;
    assert_eq!(names.len(), 12_000);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 12_000);
    let before = service.requests();
    assert_eq!(volume.lookup_in(many, "11999").await.unwrap().attr.size, 0);
    assert_eq!(volume.lookup_in(many, "absent").await.unwrap_err().errno, libc::ENOENT);
    assert_eq!(service.requests(), before, "a complete listing answers names without a request");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_a_path_cannot_have_are_hidden_counted_and_survive() {
    let service = Service::start();
    for name in ["ünï", "sp ace", "100%25", "..a", "d/plain", "d//b", "d/", "d/../x", "e", "e/below"] {
        service.put(name, name.as_bytes());
    }
    let volume = service.volume().await;
    let mut names = volume.names_in(ROOT).await;
    names.sort();
    assert_eq!(names, ["..a", "100%25", "d", "e", "sp ace", "ünï"]);
    assert_eq!(volume.read_file("100%25").await, b"100%25");
    let d = volume.lookup("d").await.unwrap().attr.number;
    assert_eq!(volume.names_in(d).await, ["plain"]);
    assert_eq!(volume.fs.hidden_names(), 4, "d//, d/, d/../ and the blob e");
    volume.fs.unlink(&volume.caller, d, "plain".as_ref()).await.unwrap();
    let error = volume.fs.remove_directory(&volume.caller, ROOT, "d".as_ref()).await.unwrap_err();
    assert_eq!(error.errno, libc::ENOTEMPTY);
    assert_eq!(service.blob("d//b"), b"d//b", "what is hidden survives");

    let escaping = service.volume_with(Settings { escape_names: true, ..Settings::default() }).await;
    assert_eq!(escaping.read_file("e%FF").await, b"e");
    let d = escaping.lookup("d").await.unwrap().attr.number;
    let mut names = escaping.names_in(d).await;
    names.sort();
    // The blob `d/` and the directory of `d//b` both have the empty component; the directory takes the plain escape.
    assert_eq!(names, ["%00", "%00%FF", "%2E%2E"]);
    let empty = escaping.lookup_in(d, "%00").await.unwrap().attr.number;
    assert_eq!(escaping.names_in(empty).await, ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_hears_of_what_another_view_changed() {
    let service = Service::start();
    service.put("seen", b"1");
    let volume = service.volume().await;
    let other = volume.second_view();
    other.lookup("seen").await.unwrap();
    volume.write_file("new", b"x").await;
    let heard = other.caller.view.invalidations().take().await;
    assert!(format!("{heard:?}").contains("new"), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_another_view_makes_while_the_service_is_asked_for_it_is_that_file() {
    let service = Service::start();
    let volume = service.volume_with(Settings { metadata_ttl: Duration::ZERO, ..Settings::default() }).await;
    let other = volume.second_view();
    // "Not there", which was said long ago when it is heard.
    let late = FaultKind::Stall { duration: Duration::from_secs(1), after_bytes: None };
    service.fault(FaultRule::new(late).on(Operation::GetBlobProperties).times(1));
    let slow = Arc::clone(&volume);
    let slow = tokio::spawn(async move { slow.create("new", CREATE).await.unwrap() });
    tokio::time::sleep(Duration::from_millis(200)).await;
    other.write_file("new", b"other").await;
    assert!(!slow.is_finished(), "the answer was not late");
    let (_, handle) = slow.await.unwrap();
    volume.write(handle, 0, b"a").await;
    volume.close(handle).await.unwrap();
    assert_eq!(service.blob("new"), b"ather");
}

#[tokio::test(flavor = "multi_thread")]
async fn user_metadata_and_content_type_survive_a_rewrite() {
    let service = Service::start();
    service.put_with("kept", b"one", &[("team", "blue")]);
    let volume = service.volume().await;
    let handle = volume.open("kept", CREATE).await.unwrap();
    volume.write(handle, 0, b"two").await;
    volume.close(handle).await.unwrap();
    assert_eq!(service.blob("kept"), b"two");
    assert_eq!(service.metadata("kept").get("team").map(String::as_str), Some("blue"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overwritten_block_blob_of_another_client_keeps_its_other_blocks() {
    let service = Service::start();
    let blocks: Vec<Vec<u8>> = (0..12u8).map(|fill| vec![fill; 1 << 20]).collect();
    service.put_blocks("foreign", &blocks).await;
    let volume = service.volume().await;
    let handle = volume.open("foreign", CREATE).await.unwrap();
    volume.write(handle, (5 << 20) + 100, b"changed").await;
    let sent = service.bytes_in();
    volume.close(handle).await.unwrap();
    assert!(service.bytes_in() - sent < 2 << 20, "the cost is what changed: {} bytes", service.bytes_in() - sent);
    let mut expected = blocks.concat();
    expected[(5 << 20) + 100..(5 << 20) + 107].copy_from_slice(b"changed");
    assert!(service.blob("foreign") == expected);
}

/// A child process that closes its copy of a descriptor makes the kernel flush in the middle of a write: the commit must
/// neither lose what is sent ahead meanwhile nor be in its way.
#[tokio::test(flavor = "multi_thread")]
async fn commits_in_the_middle_of_a_long_write_lose_nothing_of_it() {
    let service = Service::start();
    service.delay(Duration::from_millis(3));
    let volume = service.volume().await;
    let (_, handle) = volume.create("long", CREATE).await.unwrap();
    let writing = Arc::new(AtomicBool::new(true));
    let flushes = tokio::spawn({
        let (volume, writing) = (Arc::clone(&volume), Arc::clone(&writing));
        async move {
            let mut count = 0;
            while writing.load(Ordering::Relaxed) {
                volume.fs.flush(handle).await.unwrap();
                count += 1;
            }
            count
        }
    });
    let bytes = Random::new(11).bytes(160 << 20);
    for (index, part) in bytes.chunks(1 << 20).enumerate() {
        volume.write(handle, (index as u64) << 20, part).await;
    }
    writing.store(false, Ordering::Relaxed);
    assert!(flushes.await.unwrap() > 2, "some flushes fell into the write");
    volume.close(handle).await.unwrap();
    assert!(service.blob("long") == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_of_a_blob_that_another_client_removed_are_a_conflict() {
    let service = Service::start();
    service.put("a", b"theirs");
    let volume = service.volume().await;
    let handle = volume.open("a", CREATE).await.unwrap();
    let number = volume.lookup("a").await.unwrap().attr.number;
    let change = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    volume.fs.setattr(&volume.caller, number, None, change).await.unwrap();
    service.remove("a");
    assert_eq!(volume.fs.sync_file(handle).await.unwrap_err().errno, libc::ESTALE);
    assert!(service.names().is_empty(), "nothing was made in its place");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_another_client_removed_stays_while_it_holds_something_uncommitted() {
    let service = Service::start();
    let settings = Settings { metadata_ttl: Duration::ZERO, ..Settings::default() };
    let volume = service.volume_with(settings).await;
    let directory = volume.make_directory(ROOT, "d").await;
    let (_, handle) = volume.fs.create_file(&volume.caller, directory, "x".as_ref(), 0o644, CREATE).await.unwrap();
    volume.write(handle, 0, b"ours").await;
    service.remove("d");
    assert_eq!(volume.lookup("d").await.unwrap().attr.number, directory);
    volume.close(handle).await.unwrap();
    assert_eq!(service.blob("d/x"), b"ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_file_whose_blob_another_client_removed_can_be_unlinked() {
    let service = Service::start();
    service.put("a", b"theirs");
    let volume = service.volume().await;
    let handle = volume.open("a", CREATE).await.unwrap();
    service.remove("a");
    volume.fs.unlink(&volume.caller, ROOT, "a".as_ref()).await.unwrap();
    assert_eq!(volume.lookup("a").await.unwrap_err().errno, libc::ENOENT);
    assert_eq!(volume.fs.read(handle, 0, 6).await.unwrap_err().errno, libc::ESTALE, "nobody kept its bytes");
    volume.close(handle).await.unwrap();
}

/// On the other mount's side of the story, see `chmod_and_touch_keep_every_cached_byte_and_open_handle`: here every sort of
/// attribute changes again and again while readers are in the middle of their files.
#[tokio::test(flavor = "multi_thread")]
async fn attributes_that_change_under_readers_cost_them_no_error_and_no_byte() {
    const FILES: usize = 8;
    let service = Service::start();
    for index in 0..FILES {
        service.put(&format!("file{index}"), &vec![index as u8; 2 << 20]);
    }
    let volume = service.volume().await;
    let mut handles = Vec::new();
    for index in 0..FILES {
        let handle = volume.open(&format!("file{index}"), READ).await.unwrap();
        assert_eq!(volume.read(handle, 0, 2 << 20).await.len(), 2 << 20);
        handles.push(handle);
    }
    let gets = service.count(Operation::GetBlob);
    let changing = Arc::new(AtomicBool::new(true));
    let readers: Vec<_> = handles
        .iter()
        .enumerate()
        .map(|(index, handle)| {
            let (volume, changing, handle) = (Arc::clone(&volume), Arc::clone(&changing), *handle);
            tokio::spawn(async move {
                while changing.load(Ordering::Relaxed) {
                    let bytes = volume.read(handle, 0, 2 << 20).await;
                    assert!(bytes.iter().all(|byte| *byte == index as u8));
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for round in 0..5u32 {
        for index in 0..FILES {
            let number = volume.lookup(&format!("file{index}")).await.unwrap().attr.number;
            let mode = SetAttr { mode: Some(0o600 + round), ..SetAttr::default() };
            volume.fs.setattr(&volume.caller, number, None, mode).await.unwrap();
            let touch = SetAttr { mtime: Some(SetTime::Now), atime: Some(SetTime::Now), ..SetAttr::default() };
            volume.fs.setattr(&volume.caller, number, None, touch).await.unwrap();
            let value = round.to_string();
            volume.fs.set_xattr(&volume.caller, number, b"user.round", value.as_bytes(), SetXattr::Any).await.unwrap();
        }
    }
    changing.store(false, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    assert_eq!(service.count(Operation::GetBlob), gets, "no byte was fetched again");
    assert_eq!(service.count(Operation::SetBlobMetadata), 5 * 3 * FILES as u64);
}
