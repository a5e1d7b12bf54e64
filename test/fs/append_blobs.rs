//! Append blobs, and leases where block ids are too short to be ours alone.

use std::time::Duration;

use azblob_csi::{
    blob::{BlobName, BlockId, Body, ErrorKind, LEASE_DURATION},
    fs::{Access, Allocation, SetAttr},
};
use blob_emulator::{FaultKind, FaultRule, Operation};
use bytes::Bytes;

use crate::support::{random::Random, service::Service, volume::CREATE};

const APPEND: Access = Access { append: true, ..CREATE };

#[tokio::test(flavor = "multi_thread")]
async fn an_append_blob_is_read_and_grows_at_its_end_under_fsync() {
    let service = Service::start();
    service.append("log", &[b"one ", b"two "]);
    let volume = service.volume().await;
    assert_eq!(volume.read_file("log").await, b"one two ");
    let handle = volume.open("log", APPEND).await.unwrap();
    let mut expected = b"one two ".to_vec();
    for round in 0..50u8 {
        let line = vec![b'a' + round % 26; 1 + usize::from(round) * 300];
        volume.write(handle, 0, &line).await;
        expected.extend(&line);
        if round % 3 == 0 {
            volume.fs.sync_file(handle).await.unwrap();
            assert!(service.blob("log") == expected, "after fsync in round {round}");
        }
        assert!(volume.read(handle, 0, expected.len()).await == expected, "round {round}");
    }
    volume.close(handle).await.unwrap();
    assert!(service.blob("log") == expected);
    assert_eq!(service.count(Operation::PutBlob) + service.count(Operation::PutBlockList), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_appends_go_in_pieces_and_a_lost_reply_appends_nothing_twice() {
    let service = Service::start();
    service.append("log", &[b"head"]);
    let volume = service.volume().await;
    let handle = volume.open("log", APPEND).await.unwrap();
    let bytes = Random::new(5).bytes(11 << 20);
    volume.write(handle, 4, &bytes).await;
    service.fault(FaultRule::new(FaultKind::ReplyLost).on(Operation::AppendBlock).times(2));
    volume.close(handle).await.unwrap();
    assert!(service.blob("log") == [b"head".as_slice(), &bytes].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_of_several_clients_all_stay_each_whole() {
    let service = Service::start();
    service.append("log", &[]);
    let mut writers = Vec::new();
    for writer in 0..3u8 {
        let volume = service.volume().await;
        writers.push(tokio::spawn(async move {
            let handle = volume.open("log", APPEND).await.unwrap();
            for number in 0..40 {
                let line = format!("{writer} {number:06}\n");
                volume.write(handle, 0, line.as_bytes()).await;
                volume.fs.sync_file(handle).await.unwrap();
            }
            volume.close(handle).await.unwrap();
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let log = String::from_utf8(service.blob("log")).unwrap();
    for writer in 0..3u8 {
        let own: Vec<&str> = log.lines().filter(|line| line.starts_with(&format!("{writer} "))).collect();
        let expected: Vec<String> = (0..40).map(|number| format!("{writer} {number:06}")).collect();
        assert_eq!(own, expected, "each line once and in order");
    }
    assert_eq!(log.lines().count(), 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn anything_but_an_append_to_an_append_blob_is_eperm() {
    let service = Service::start();
    service.append("log", &[b"kept"]);
    let volume = service.volume().await;
    let truncating = Access { truncate: true, ..CREATE };
    assert_eq!(volume.open("log", truncating).await.unwrap_err().errno, libc::EPERM);
    let handle = volume.open("log", CREATE).await.unwrap();
    assert_eq!(volume.fs.write(&volume.caller, handle, 1, b"x").await.unwrap_err().errno, libc::EPERM);
    assert_eq!(volume.fs.write(&volume.caller, handle, 9, b"x").await.unwrap_err().errno, libc::EPERM);
    let number = volume.lookup("log").await.unwrap().attr.number;
    for size in [0, 3, 100] {
        let change = SetAttr { size: Some(size), ..SetAttr::default() };
        let refused = volume.fs.setattr(&volume.caller, number, Some(handle), change).await;
        assert_eq!(refused.unwrap_err().errno, libc::EPERM, "size {size}");
    }
    let punched = volume.fs.allocate(&volume.caller, handle, 0..2, Allocation::Zero).await;
    assert_eq!(punched.unwrap_err().errno, libc::EPERM);
    volume.write(handle, 4, b" and more").await;
    volume.close(handle).await.unwrap();
    let change = SetAttr { mode: Some(0o640), ..SetAttr::default() };
    volume.fs.setattr(&volume.caller, number, None, change).await.unwrap();
    assert_eq!(service.blob("log"), b"kept and more");
    assert_eq!(service.volume().await.lookup("log").await.unwrap().attr.mode, 0o640);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_append_blob_says_efbig() {
    let service = Service::start();
    service.append("log", &vec![b"x".as_slice(); 50_000]);
    let volume = service.volume().await;
    let handle = volume.open("log", APPEND).await.unwrap();
    volume.write(handle, 0, b"one too many").await;
    assert_eq!(volume.fs.sync_file(handle).await.unwrap_err().errno, libc::EFBIG);
    assert_eq!(service.length("log"), 50_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn short_block_ids_are_staged_under_a_lease_that_is_given_back() {
    let service = Service::start();
    let parts: Vec<Vec<u8>> = (1..5u8).map(|fill| vec![fill; 300_000]).collect();
    service.put_blocks_with("short", &parts, |index| format!("{index:04}").into_bytes()).await;
    service.put_blocks_with("long", &parts, |index| format!("{index:012}").into_bytes()).await;
    let volume = service.volume().await;
    let handle = volume.open("short", CREATE).await.unwrap();
    volume.write(handle, 100_000, b"changed").await;
    volume.fs.sync_file(handle).await.unwrap();
    assert!(service.count(Operation::LeaseBlob) >= 1, "the blocks were staged under a lease");
    let mut expected = parts.concat();
    expected[100_000..100_007].copy_from_slice(b"changed");
    assert!(service.blob("short") == expected);
    assert!(!service.is_leased("short"), "it is given back");
    // Ids with room for a nonce need none.
    let before = service.count(Operation::LeaseBlob);
    let long = volume.open("long", CREATE).await.unwrap();
    volume.write(long, 100_000, b"changed").await;
    volume.close(long).await.unwrap();
    assert_eq!(service.count(Operation::LeaseBlob), before);
    // Somebody else's lease is respected.
    let store = service.store();
    let leases = store.leases().unwrap();
    let name = BlobName::new("short").unwrap();
    let theirs = leases.acquire(&name).await.unwrap();
    volume.write(handle, 0, b"refused").await;
    assert_eq!(volume.fs.sync_file(handle).await.unwrap_err().errno, libc::EBUSY);
    assert!(service.blob("short") == expected);
    leases.release(&name, &theirs).await.unwrap();
    volume.close(handle).await.unwrap();
    expected[..7].copy_from_slice(b"refused");
    assert!(service.blob("short") == expected, "what was refused is saved once the lease is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_a_lease_is_refused_as_after_a_change() {
    let service = Service::start();
    service.put("f", b"old");
    let (store, name) = (service.store(), BlobName::new("f").unwrap());
    let leases = store.leases().unwrap();
    let lost = leases.acquire(&name).await.unwrap();
    let held = leases.acquire(&name).await.unwrap_err();
    assert_eq!(held.kind, ErrorKind::Blocked);
    leases.renew(&name, &lost).await.unwrap();
    service.set_clock_ahead(LEASE_DURATION + Duration::from_secs(1));
    let theirs = leases.acquire(&name).await.unwrap();
    let (id, body) = (BlockId(Bytes::from_static(b"id")), Body::from(Bytes::from_static(b"x")));
    let refused = leases.under(&lost).put_block(&name, &id, body.clone()).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Precondition);
    assert_eq!(leases.renew(&name, &lost).await.unwrap_err().kind, ErrorKind::Blocked);
    assert_eq!(store.put_block(&name, &id, body.clone()).await.unwrap_err().kind, ErrorKind::Blocked);
    leases.under(&theirs).put_block(&name, &id, body).await.unwrap();
    leases.release(&name, &theirs).await.unwrap();
}
