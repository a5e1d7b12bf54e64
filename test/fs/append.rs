//! Appending: every record lands whole at the end that the file has at that moment, however many write at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use azblob_csi::fs::{Access, HandleId, Settings, WriteMode};

use crate::support::{
    service::Service,
    volume::{CREATE, Volume},
};

const APPEND: Access = Access { append: true, ..CREATE };
const RECORD_BYTES: usize = 100;
const RECORDS: usize = 300;

fn record(writer: usize, number: usize) -> Vec<u8> {
    let mut record = format!("{writer:03} {number:06} ").into_bytes();
    record.resize(RECORD_BYTES - 1, b'a' + (writer % 26) as u8);
    record.push(b'\n');
    record
}

/// Appends records as a kernel does that believes the end to be at `believed`.
fn append(volume: Arc<Volume>, handle: HandleId, writer: usize, believed: u64) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        for number in 0..RECORDS {
            let bytes = record(writer, number);
            let written = volume.fs.write(&volume.caller, handle, believed, &bytes).await.unwrap();
            assert_eq!(written as usize, RECORD_BYTES);
        }
    })
}

fn assert_all_records(blob: &[u8], writers: usize) {
    assert_eq!(blob.len(), writers * RECORDS * RECORD_BYTES);
    let mut next = vec![0; writers];
    for found in blob.chunks(RECORD_BYTES) {
        let writer: usize = std::str::from_utf8(&found[..3]).unwrap().parse().unwrap();
        assert!(
            found == record(writer, next[writer]),
            "record {} of writer {writer} is torn or out of order",
            next[writer]
        );
        next[writer] += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_of_many_handles_and_two_views_at_once_lose_and_tear_no_record() {
    let service = Service::start();
    let volume = service.volume().await;
    let other = Arc::new(volume.second_view());
    let (_, first) = volume.create("log", APPEND).await.unwrap();
    let mut handles = vec![(Arc::clone(&volume), first)];
    for at in 1..8 {
        let through = Arc::clone(if at % 2 == 0 { &volume } else { &other });
        let handle = through.open("log", APPEND).await.unwrap();
        handles.push((through, handle));
    }
    let writers = handles.iter().enumerate();
    let writers: Vec<_> = writers.map(|(at, (volume, handle))| append(Arc::clone(volume), *handle, at, 0)).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    for (volume, handle) in &handles {
        volume.close(*handle).await.unwrap();
    }
    assert_all_records(&service.blob("log"), handles.len());
}

/// The kernel has put the bytes where it believed the end to be: those pages must go.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_whose_append_landed_elsewhere_is_told() {
    let service = Service::start();
    let volume = service.volume().await;
    let (_, handle) = volume.create("log", APPEND).await.unwrap();
    volume.write(handle, 0, b"here").await;
    let told = volume.caller.view.invalidations();
    assert!(tokio::time::timeout(std::time::Duration::ZERO, told.take()).await.is_err(), "it landed where it was put");
    volume.write(handle, 0, b"elsewhere").await;
    assert!(format!("{:?}", told.take().await).contains("Data"));
    assert_eq!(volume.read(handle, 0, 100).await, b"hereelsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_written_back_goes_to_its_place_and_never_grows_the_file() {
    let service = Service::start();
    let volume = service.volume().await;
    let (_, handle) = volume.create("mapped", APPEND).await.unwrap();
    volume.write(handle, 0, &[1; 100]).await;
    let page = WriteMode { page: true, ..WriteMode::default() };
    for (offset, length) in [(10, 10), (90, 20), (100, 5), (500, 5)] {
        let written = volume.fs.write_as(&volume.caller, handle, offset, &vec![2; length], page).await.unwrap();
        assert_eq!(written as usize, length, "the kernel takes a short count for a failure");
    }
    let mut expected = vec![1; 100];
    expected[10..20].fill(2);
    expected[90..].fill(2);
    assert_eq!(volume.read(handle, 0, 1000).await, expected);
    volume.close(handle).await.unwrap();
    assert_eq!(service.blob("mapped"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_ends_at_4_tib_for_writes_and_appends() {
    let service = Service::start();
    let volume = service.volume().await;
    let (_, handle) = volume.create("large", CREATE).await.unwrap();
    let end: u64 = 4 << 40;
    let error = volume.fs.write(&volume.caller, handle, end - 1, b"ab").await.unwrap_err();
    assert_eq!(error.errno, libc::EFBIG);
    assert_eq!(volume.fs.write(&volume.caller, handle, u64::MAX - 1, b"ab").await.unwrap_err().errno, libc::EFBIG);
    volume.fs.write(&volume.caller, handle, end - 2, b"ab").await.unwrap();
    let append = WriteMode { append: true, ..WriteMode::default() };
    assert_eq!(volume.fs.write_as(&volume.caller, handle, 0, b"c", append).await.unwrap_err().errno, libc::EFBIG);
    assert_eq!(volume.read(handle, end - 4, 10).await, b"\0\0ab");
    assert_eq!(volume.fs.write(&volume.caller, handle, u64::MAX, b"").await.unwrap(), 0, "nothing is written anywhere");
    // Not closed: nobody wants 4 TiB of zeros sent.
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_appended_is_seen_by_others_without_an_fsync_and_half_a_file_is_not() {
    let service = Service::start();
    let settings = Settings { append_age: Duration::from_millis(50), ..Settings::default() };
    let volume = service.volume_with(settings).await;
    let (_, whole) = volume.create("whole", CREATE).await.unwrap();
    volume.write(whole, 0, b"half of it").await;
    let (_, log) = volume.create("log", Access { append: true, ..CREATE }).await.unwrap();
    let mut expected = Vec::new();
    for line in [b"one\n", b"two\n"] {
        volume.write(log, 0, line.as_slice()).await;
        expected.extend_from_slice(line);
        let began = Instant::now();
        while service.find("log").as_ref() != Some(&expected) {
            assert!(began.elapsed() < Duration::from_secs(60), "nobody saves what was appended");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert_eq!(service.find("whole"), None);
    let idle = service.requests();
    volume.close(log).await.unwrap();
    assert_eq!(service.requests(), idle, "nothing was left to send");
    volume.close(whole).await.unwrap();
    assert_eq!(service.blob("whole"), b"half of it");
}
