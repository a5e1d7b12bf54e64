//! What opening a file costs, and what it brings along.

use std::{sync::Arc, time::Duration};

use azblob_csi::{
    blob::{BlobName, Body, Condition, ContentHeaders, Metadata, WriteOptions},
    fs::{HandleId, Result, Settings},
};
use blob_emulator::{FaultKind, FaultRule, Operation};
use bytes::Bytes;

use crate::support::{
    service::Service,
    volume::{CREATE, READ, Volume},
};

/// Requests so far: HEADs, GETs and all.
fn requests(service: &Service) -> (u64, u64, u64) {
    (service.count(Operation::GetBlobProperties), service.count(Operation::GetBlob), service.requests())
}

/// A volume that has listed its root, so that lookups cost nothing.
async fn listed(service: &Service) -> Arc<Volume> {
    let volume = service.volume_with(Settings { metadata_ttl: Duration::from_secs(600), ..Settings::default() }).await;
    volume.names_in(azblob_csi::fs::ROOT).await;
    volume
}

async fn opened(volume: &Volume, name: &str) -> Result<HandleId> {
    let number = volume.lookup(name).await?.attr.number;
    volume.fs.open_file(&volume.caller, number, READ).await
}

#[tokio::test(flavor = "multi_thread")]
async fn open_read_and_close_of_a_small_file_is_one_request() {
    let service = Service::start();
    for (name, size) in [("empty", 0), ("one", 1), ("small", 4096), ("odd", 70_001), ("block", 1 << 20)] {
        service.put(name, &vec![7; size]);
        let volume = listed(&service).await;
        let before = requests(&service).2;
        assert_eq!(volume.read_file(name).await, vec![7; size]);
        assert_eq!(requests(&service).2 - before, 1, "cold, {name}");
        let bytes = service.bytes_out();
        assert_eq!(volume.read_file(name).await, vec![7; size]);
        assert_eq!(requests(&service).2 - before, 2, "again, {name}");
        assert_eq!(service.bytes_out(), bytes, "what is in memory is not sent again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_of_a_large_file_brings_little_and_waits_for_none_of_it() {
    let service = Service::start();
    let bytes: Vec<u8> = (0..5 << 20).map(|position: u32| (position % 251) as u8).collect();
    service.put("large", &bytes);
    let volume = listed(&service).await;
    // Nothing of the body arrives as long as this test lasts.
    let late = FaultKind::Stall { duration: Duration::from_secs(600), after_bytes: Some(0) };
    service.fault(FaultRule::new(late).on(Operation::GetBlob).times(1));
    let (_, before, _) = requests(&service);
    let handle = opened(&volume, "large").await.unwrap();
    service.relent();
    let sent = service.bytes_out();
    assert_eq!(volume.read(handle, (5 << 20) - 10, 10).await, &bytes[(5 << 20) - 10..]);
    assert!(service.bytes_out() - sent <= 64 << 10, "a reader at the end does not pay for the beginning");
    assert_eq!(requests(&service).1 - before, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_at_open_is_fetched_by_the_reader() {
    let service = Service::start();
    service.put("broken", &vec![3; 300_000]);
    let volume = listed(&service).await;
    service.fault(FaultRule::new(FaultKind::CutBodyAfter { bytes: 100_000 }).on(Operation::GetBlob).times(1));
    assert_eq!(volume.read_file("broken").await, vec![3; 300_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_version_comes_with_the_request_that_finds_it() {
    let service = Service::start();
    service.put("config", b"old");
    let volume = listed(&service).await;
    let number = volume.lookup("config").await.unwrap().attr.number;
    service.put("config", b"newer");
    let before = requests(&service);
    // The kernel looks the name up again and opens what it finds.
    let error = volume.fs.open_file(&volume.caller, number, READ).await.unwrap_err();
    assert_eq!(error.errno, libc::ESTALE);
    let handle = opened(&volume, "config").await.unwrap();
    assert_eq!(volume.read(handle, 0, 100).await, b"newer");
    assert_eq!(requests(&service).2 - before.2, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tier_of_a_version_met_by_a_get_survives_its_rewrite() {
    let service = Service::start();
    service.put("tiered", b"old");
    let volume = listed(&service).await;
    volume.lookup("tiered").await.unwrap();
    let (store, name) = (service.store(), BlobName::new("tiered").unwrap());
    let options = WriteOptions {
        condition: Condition::None,
        metadata: Metadata::default(),
        headers: ContentHeaders::default(),
        access_tier: Some("Cool".to_owned()),
    };
    store.put_blob(&name, Body::from(Bytes::from_static(b"cool")), &options).await.unwrap();
    assert_eq!(volume.read_file("tiered").await, b"cool");
    let handle = volume.open("tiered", CREATE).await.unwrap();
    volume.write(handle, 0, b"p").await;
    volume.close(handle).await.unwrap();
    assert_eq!(service.blob("tiered"), b"pool");
    assert_eq!(store.head(&name, &Condition::None).await.unwrap().access_tier.as_deref(), Some("Cool"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_kernel_has_is_checked_and_not_fetched() {
    let service = Service::start();
    service.put("known", &vec![1; 3 << 20]);
    service.put("other", &vec![2; 32 << 20]);
    let volume = service.volume_within(Settings::default(), 16 << 20, None).await;
    let handle = volume.open("known", READ).await.unwrap();
    volume.read(handle, 0, 1 << 20).await;
    volume.close(handle).await.unwrap();
    volume.read_file("other").await;
    let (heads, gets, _) = requests(&service);
    let handle = volume.open("known", READ).await.unwrap();
    assert_eq!(requests(&service).1, gets, "no byte is fetched again");
    assert_eq!(requests(&service).0 - heads, 1);
    volume.read(handle, 0, 4096).await;
    assert!(requests(&service).1 > gets, "it had left our memory");
    volume.close(handle).await.unwrap();
}
