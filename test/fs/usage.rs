//! How full a volume is: what df shows, and what a hard quota refuses.

use std::sync::Arc;

use azblob_csi::fs::{Allocation, Quota, SetAttr, Settings};
use blob_emulator::Operation;

use crate::support::{
    service::Service,
    volume::{CREATE, Volume},
};

const KIB: u64 = 1 << 10;

fn settings(quota: Quota, capacity: u64) -> Settings {
    Settings { capacity: Some(capacity), quota, ..Settings::default() }
}

/// Bytes in use, as df would show them.
async fn used(volume: &Volume) -> u64 {
    let usage = volume.fs.statfs().await;
    assert_eq!(usage.free, usage.capacity.saturating_sub(usage.used.unwrap_or(0)));
    usage.used.unwrap()
}

/// The errno of a write of `length` bytes at `offset` of a new or existing file, 0 where it is taken.
async fn write(volume: &Arc<Volume>, name: &str, offset: u64, length: usize) -> i32 {
    let (_, handle) = volume.create(name, CREATE).await.unwrap();
    let bytes = vec![7; length];
    let written = volume.fs.write(&volume.caller, handle, offset, &bytes).await;
    volume.close(handle).await.unwrap();
    written.map_or_else(|error| error.errno, |_| 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn df_counts_what_was_there_and_what_is_written_cut_and_removed_since() {
    let service = Service::start();
    service.put("a", &[1; 1000]);
    service.put("d/b", &[1; 500]);
    let volume = service.volume_with(settings(Quota::Soft, 1 << 20)).await;
    assert_eq!(used(&volume).await, 1500);
    let listed = service.count(Operation::ListBlobs);
    let (number, handle) = volume.create("c", CREATE).await.unwrap();
    volume.write(handle, 0, &[2; 300]).await;
    assert_eq!(used(&volume).await, 1800, "also what is not saved yet");
    volume.write(handle, 100, &[3; 300]).await;
    assert_eq!(used(&volume).await, 1900, "an overwrite counts for what it adds");
    let cut = SetAttr { size: Some(50), ..SetAttr::default() };
    volume.fs.setattr(&volume.caller, number, Some(handle), cut).await.unwrap();
    volume.close(handle).await.unwrap();
    assert_eq!(used(&volume).await, 1550);
    volume.fs.unlink(&volume.caller, azblob_csi::fs::ROOT, "a".as_ref()).await.unwrap();
    volume.fs.unlink(&volume.caller, azblob_csi::fs::ROOT, "c".as_ref()).await.unwrap();
    assert_eq!(used(&volume).await, 500);
    assert_eq!(service.count(Operation::ListBlobs), listed, "own changes are counted, not listed");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_counted_before_somebody_asks_and_never_without_a_capacity_or_with_quota_off() {
    let service = Service::start();
    service.put("a", &[1; 1000]);
    for settings in [Settings::default(), settings(Quota::Off, 1 << 20), settings(Quota::Soft, 1 << 20)] {
        let is_counted = settings.capacity.is_some() && settings.quota != Quota::Off;
        let volume = service.volume_with(settings).await;
        let listed = service.count(Operation::ListBlobs);
        assert_eq!(volume.fs.usage().used, None);
        assert_eq!(service.count(Operation::ListBlobs), listed);
        assert_eq!(volume.fs.statfs().await.used, is_counted.then_some(1000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_quota_refuses_at_write_what_does_not_fit_and_takes_what_does() {
    let service = Service::start();
    service.put("there", &vec![1; 60 * KIB as usize]);
    let volume = service.volume_with(settings(Quota::Hard, 100 * KIB)).await;
    assert_eq!(write(&volume, "a", 0, 50 << 10).await, libc::EDQUOT, "what was there before counts");
    assert_eq!(write(&volume, "a", 0, 40 << 10).await, 0);
    assert_eq!(write(&volume, "a", 10 << 10, 30 << 10).await, 0, "an overwrite needs no room");
    assert_eq!(write(&volume, "a", 40 << 10, 1).await, libc::EDQUOT);
    assert_eq!(write(&volume, "b", 0, 1).await, libc::EDQUOT);
    let (number, handle) = volume.create("b", CREATE).await.unwrap();
    let grow = SetAttr { size: Some(1), ..SetAttr::default() };
    let refused = volume.fs.setattr(&volume.caller, number, Some(handle), grow).await.unwrap_err();
    assert_eq!(refused.errno, libc::EDQUOT);
    let refused = volume.fs.allocate(&volume.caller, handle, 0..10, Allocation::Grow).await.unwrap_err();
    assert_eq!(refused.errno, libc::EDQUOT);
    volume.close(handle).await.unwrap();
    assert_eq!(service.blob("a").len(), 40 << 10);
    assert_eq!((volume.fs.statfs().await.free, volume.fs.quota_refusals()), (0, 5));
    volume.fs.unlink(&volume.caller, azblob_csi::fs::ROOT, "there".as_ref()).await.unwrap();
    assert_eq!(write(&volume, "b", 0, 60 << 10).await, 0, "what was removed makes room");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_expanded_takes_more_at_once() {
    let service = Service::start();
    let volume = service.volume_with(settings(Quota::Hard, KIB)).await;
    assert_eq!(write(&volume, "a", 0, 2000).await, libc::EDQUOT);
    volume.fs.set_capacity(4 * KIB);
    assert_eq!(volume.fs.usage().capacity, 4 * KIB);
    assert_eq!(write(&volume, "a", 0, 2000).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_quota_shows_a_full_volume_and_refuses_nothing() {
    let service = Service::start();
    let volume = service.volume_with(settings(Quota::Soft, KIB)).await;
    assert_eq!(write(&volume, "a", 0, 2000).await, 0);
    let usage = volume.fs.statfs().await;
    assert_eq!((usage.capacity, usage.free, usage.used), (KIB, 0, Some(2000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_goes_on_without_its_name_takes_no_room() {
    let service = Service::start();
    let volume = service.volume_with(settings(Quota::Hard, 10 * KIB)).await;
    let (_, handle) = volume.create("a", CREATE).await.unwrap();
    volume.write(handle, 0, &[1; 4000]).await;
    volume.fs.unlink(&volume.caller, azblob_csi::fs::ROOT, "a".as_ref()).await.unwrap();
    volume.write(handle, 4000, &[1; 4000]).await;
    assert_eq!(used(&volume).await, 0);
    volume.close(handle).await.unwrap();
    assert_eq!(used(&volume).await, 0);
}
