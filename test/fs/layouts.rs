//! Commits over any layout of blocks, and what they cost: appends under fsync, foreign blobs, huge and sparse ones.

use azblob_csi::{
    blob::{BlobName, BlockId, Body, ErrorKind},
    fs::SetAttr,
};
use blob_emulator::Operation;
use bytes::Bytes;

use crate::support::{
    random::Random,
    service::Service,
    volume::{CREATE, Volume},
};

const MIB: u64 = 1 << 20;

/// Appends `count` times 200 bytes, each followed by fsync; returns the bytes sent for each on average.
async fn append_and_sync(service: &Service, volume: &Volume, count: u64) -> u64 {
    let (_, handle) = volume.create("log", CREATE).await.unwrap();
    let before = service.bytes_in();
    for number in 0..count {
        let line = format!("{number:0199}\n");
        volume.write(handle, number * 200, line.as_bytes()).await;
        volume.fs.sync_file(handle).await.unwrap();
    }
    let sent = (service.bytes_in() - before) / count;
    volume.close(handle).await.unwrap();
    sent
}

fn check_log(log: &[u8], count: u64) {
    assert_eq!(log.len() as u64, count * 200);
    for (number, line) in log.chunks(200).enumerate() {
        assert!(line == format!("{number:0199}\n").as_bytes(), "line {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_thousand_appends_of_200_bytes_under_fsync_send_a_few_kib_each() {
    let service = Service::start();
    let volume = service.volume().await;
    let sent = append_and_sync(&service, &volume, 60_000).await;
    println!("60,000 appends of 200 bytes, each under fsync: {sent} bytes sent for each");
    // What is asked for is 128 KiB.
    assert!(sent < 8 << 10, "{sent} bytes an append");
    check_log(&service.blob("log"), 60_000);
    let blocks = service.blocks("log").len();
    assert!(blocks <= 64, "{blocks} blocks");
    let fetched = service.count(Operation::GetBlob);
    assert!(fetched < 60, "what is sent again is at hand: {fetched} reads");
}

/// Azurite has no Put Block From URL.
#[tokio::test(flavor = "multi_thread")]
async fn appends_stay_cheap_where_the_service_cannot_copy() {
    let service = Service::start();
    service.refuse_copies();
    let volume = service.volume().await;
    let sent = append_and_sync(&service, &volume, 6_000).await;
    // Most of it for the first 650: up to 128 KiB a file is one Put Blob.
    assert!(sent < 16 << 10, "{sent} bytes an append");
    check_log(&service.blob("log"), 6_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_4_kib_in_10_gib_transfers_little_whatever_the_blocks() {
    let gib = 1u64 << 30;
    for (name, length, block) in [
        ("blocks", 10 * gib, Some(100 * MIB)),
        ("many", 10 * gib, Some(4 * MIB)),
        ("one", 4608 * MIB, None),
        ("full", 10 * gib, Some(10 * gib / 50_000 + 1)),
    ] {
        let service = Service::start();
        service.put_zeros(name, length, block);
        let volume = service.volume().await;
        let handle = volume.open(name, CREATE).await.unwrap();
        let at = length / 2 + 12_345;
        volume.write(handle, at, &[7; 4096]).await;
        volume.close(handle).await.unwrap();
        let moved = service.bytes_in() + service.bytes_out();
        assert!(moved < 16 * MIB, "{name}: {moved} bytes");
        assert_eq!(service.length(name), length);
        let around = service.read(name, at - 3..at + 4099);
        assert!(around[..3] == [0; 3] && around[3..4099] == [7; 4096] && around[4099..] == [0; 3], "{name}");
        assert!(service.blocks(name).len() <= 50_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_any_length_are_taken_over() {
    for length in [1usize, 2, 6, 11, 12, 13, 16, 33, 64] {
        let service = Service::start();
        let parts: Vec<Vec<u8>> = (1..9u8).map(|fill| vec![fill; 300_000]).collect();
        service.put_blocks_with("foreign", &parts, |index| format!("{:0length$}", index % 10).into_bytes()).await;
        let volume = service.volume().await;
        let handle = volume.open("foreign", CREATE).await.unwrap();
        let mut expected = parts.concat();
        let mut random = Random::new(length as u64);
        for _ in 0..6 {
            let at = random.below(2_500_000);
            let length = 1 + random.below(50_000) as usize;
            let data = random.bytes(length);
            volume.write(handle, at, &data).await;
            expected.resize(expected.len().max(at as usize + data.len()), 0);
            expected[at as usize..at as usize + data.len()].copy_from_slice(&data);
            volume.fs.sync_file(handle).await.unwrap();
            assert!(service.blob("foreign") == expected, "ids of {length} bytes");
        }
        volume.close(handle).await.unwrap();
    }
}

/// An upload that was broken off leaves blocks whose ids have another length: the service refuses ours until a commit
/// discards them.
#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_a_broken_upload_do_not_stand_in_the_way() {
    for exists in [false, true] {
        let service = Service::start();
        let mut expected = vec![1u8; 3_000_000];
        if exists {
            service.put("f", &expected);
        }
        let (store, name) = (service.store(), BlobName::new("f").unwrap());
        let foreign = BlockId(Bytes::from_static(b"a foreign id of some length"));
        store.put_block(&name, &foreign, Body::from(Bytes::from_static(b"theirs"))).await.unwrap();
        let ours = BlockId(Bytes::from_static(b"another length"));
        let refused = store.put_block(&name, &ours, Body::from(Bytes::from_static(b"x"))).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::BlockIdLength);
        let volume = service.volume().await;
        let (_, handle) = volume.create("f", CREATE).await.unwrap();
        let data = Random::new(3).bytes(30 << 20);
        volume.write(handle, 1_000_000, &data).await;
        volume.close(handle).await.unwrap();
        if !exists {
            expected.fill(0);
        }
        expected.truncate(1_000_000);
        expected.extend(&data);
        assert!(service.blob("f") == expected, "exists: {exists}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_gib_of_holes_are_sent_as_a_few_blocks() {
    let service = Service::start();
    let volume = service.volume().await;
    let (number, handle) = volume.create("sparse", CREATE).await.unwrap();
    volume.write(handle, 0, b"head").await;
    let size = 100u64 << 30;
    let change = SetAttr { size: Some(size), ..SetAttr::default() };
    volume.fs.setattr(&volume.caller, number, Some(handle), change).await.unwrap();
    volume.write(handle, size - 4, b"tail").await;
    volume.fs.sync_file(handle).await.unwrap();
    assert!(service.bytes_in() < 100 * MIB, "{} bytes", service.bytes_in());
    assert_eq!(service.length("sparse"), size);
    assert_eq!(service.read("sparse", 0..6), b"head\0\0");
    assert_eq!(service.read("sparse", size - 6..size), b"\0\0tail");
    // What was made of one block named again and again is changed like any other.
    volume.write(handle, size / 2, b"middle").await;
    volume.close(handle).await.unwrap();
    assert_eq!(service.read("sparse", size / 2 - 1..size / 2 + 7), b"\0middle\0");
    assert_eq!(service.length("sparse"), size);
}
