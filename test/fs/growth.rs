//! Open handles follow a blob that only grew, and nothing else.

use std::{sync::Arc, time::Duration};

use azblob_csi::fs::{Access, HandleId, InodeNumber, Invalidation, Settings};
use blob_emulator::{FaultKind, FaultRule, Operation};

use crate::support::{
    random::Random,
    service::Service,
    volume::{CREATE, READ, Volume},
};

const APPEND: Access = Access { append: true, ..CREATE };

/// A volume that asks the service whenever a program asks for attributes.
async fn follower(service: &Service) -> Arc<Volume> {
    service.volume_with(Settings { metadata_ttl: Duration::ZERO, ..Settings::default() }).await
}

/// What `tail -f` does: looks at the size, then reads what is new.
async fn poll(volume: &Volume, number: InodeNumber, handle: HandleId, seen: &mut Vec<u8>) {
    let size = volume.fs.getattr(&volume.caller, number).await.unwrap().0.size as usize;
    assert!(size >= seen.len(), "it never shrinks");
    let more = volume.read(handle, seen.len() as u64, size - seen.len()).await;
    seen.extend(more);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_follows_a_log_that_another_client_appends_to_under_fsync() {
    let service = Service::start();
    let (writer, reader) = (service.volume().await, follower(&service).await);
    let mut random = Random::new(9);
    let (_, appender) = writer.create("log", APPEND).await.unwrap();
    let mut log = Vec::new();
    let mut line = async |log: &mut Vec<u8>, bytes: usize| {
        let line = random.bytes(bytes);
        writer.write(appender, 0, &line).await;
        writer.fs.sync_file(appender).await.unwrap();
        log.extend(line);
    };
    line(&mut log, 100).await;
    let handle = reader.open("log", READ).await.unwrap();
    let number = reader.lookup("log").await.unwrap().attr.number;
    let mut seen = Vec::new();
    for round in 0..400usize {
        // Small appends, at times a few at once, at times large ones: tail blocks are written again, and blocks merged.
        for _ in 0..=round % 4 {
            line(&mut log, if round % 50 == 49 { 700_000 } else { 1 + round * 7 }).await;
        }
        poll(&reader, number, handle, &mut seen).await;
        assert!(seen == log, "round {round}");
        assert_eq!(reader.lookup("log").await.unwrap().attr.number, number, "the name stays with the inode");
    }
    assert!(service.count(Operation::PutBlockFromURL) > 0, "blocks were merged meanwhile");
    // What was read stays: readers in the middle fetch nothing again.
    let gets = service.count(Operation::GetBlob);
    assert!(reader.read(handle, 0, 65_536).await == log[..65_536]);
    line(&mut log, 10).await;
    poll(&reader, number, handle, &mut seen).await;
    let after = service.count(Operation::GetBlob);
    assert!(reader.read(handle, 0, 65_536).await == log[..65_536]);
    assert_eq!(service.count(Operation::GetBlob), after);
    assert!(after - gets <= 3, "the new bytes, and what the last block's successor has of the old: {}", after - gets);
}

#[tokio::test(flavor = "multi_thread")]
async fn growth_that_comes_while_the_end_of_the_old_version_is_looked_at_is_followed() {
    let service = Service::start();
    let (writer, reader) = (service.volume().await, follower(&service).await);
    let (_, appender) = writer.create("log", APPEND).await.unwrap();
    // In two commits, so that the version has blocks and no MD5: its reader asks for its list at the end.
    let mut log = Random::new(2).bytes(5 << 20);
    for part in log.chunks(4 << 20) {
        writer.write(appender, 0, part).await;
        writer.fs.sync_file(appender).await.unwrap();
    }
    let handle = reader.open("log", READ).await.unwrap();
    let number = reader.lookup("log").await.unwrap().attr.number;
    // The list of the old version comes when the new one is known, and before it is proved to be growth.
    let late = |millis| FaultKind::Stall { duration: Duration::from_millis(millis), after_bytes: None };
    service.emulator().fault(FaultRule::new(late(200)).on(Operation::GetBlockList).times(1));
    let mut seen = Vec::new();
    poll(&reader, number, handle, &mut seen).await;
    service.emulator().fault(FaultRule::new(late(600)).on(Operation::GetBlob).times(1));
    writer.write(appender, 0, b"three").await;
    writer.fs.sync_file(appender).await.unwrap();
    poll(&reader, number, handle, &mut seen).await;
    log.extend(b"three");
    assert!(seen == log);
    assert_eq!(reader.lookup("log").await.unwrap().attr.number, number, "the name stays with the inode");
}

/// A page at the end of a file ends in zeros. A kernel that learns of a new length first would hand them out as bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_drops_the_old_end_before_it_learns_of_the_new_length() {
    let service = Service::start();
    service.append("log", &[b"one"]);
    let reader = follower(&service).await;
    let (told, kernel) = (reader.caller.view.invalidations(), reader.second_view());
    let handle = reader.open("log", READ).await.unwrap();
    let number = reader.lookup("log").await.unwrap().attr.number;
    let size = async || reader.fs.getattr(&reader.caller, number).await.unwrap().0.size;
    // Somebody tells this view's kernel; nobody tells the other one, which has none.
    let mut telling = Box::pin(told.take());
    assert!(futures::poll!(&mut telling).is_pending());
    service.append("log", &[b"two"]);
    assert_eq!(size().await, 3);
    assert_eq!(reader.read(handle, 0, 10).await, b"onetwo", "what is read is the new version all the same");
    assert_eq!(telling.await, [Invalidation::Data(number)]);
    assert_eq!(size().await, 3, "it is being told");
    service.append("log", &[b"three"]);
    assert_eq!(size().await, 3);
    assert_eq!(kernel.fs.getattr(&kernel.caller, number).await.unwrap().0.size, 11);
    assert_eq!(told.take().await, [Invalidation::Data(number)]);
    assert_eq!(size().await, 3, "not all of it was told");
    let mut telling = Box::pin(told.take());
    assert!(futures::poll!(&mut telling).is_pending());
    assert_eq!(size().await, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_follows_an_append_blob() {
    let service = Service::start();
    service.append("log", &[b"first "]);
    let reader = follower(&service).await;
    let handle = reader.open("log", READ).await.unwrap();
    let number = reader.lookup("log").await.unwrap().attr.number;
    let mut seen = Vec::new();
    poll(&reader, number, handle, &mut seen).await;
    for _ in 0..5 {
        service.append("log", &[b"more "]);
        poll(&reader, number, handle, &mut seen).await;
    }
    assert_eq!(seen, b"first more more more more more ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_no_growth_is_never_followed() {
    // The same length and more behind it, but one byte in the old part differs.
    for (length, changed) in [(1000u64, 500u64), (300_000, 299_000), (3_000_000, 10), (3_000_000, 2_999_999)] {
        let service = Service::start();
        let (writer, reader) = (service.volume().await, follower(&service).await);
        let bytes = Random::new(length).bytes(length as usize);
        let (_, writing) = writer.create("f", CREATE).await.unwrap();
        // In two commits, so that it has blocks.
        writer.write(writing, 0, &bytes[..bytes.len() / 2]).await;
        writer.fs.sync_file(writing).await.unwrap();
        writer.write(writing, length / 2, &bytes[bytes.len() / 2..]).await;
        writer.fs.sync_file(writing).await.unwrap();
        let handle = reader.open("f", READ).await.unwrap();
        let number = reader.lookup("f").await.unwrap().attr.number;
        assert!(reader.read(handle, 0, bytes.len()).await == bytes);
        writer.write(writing, changed, &[!bytes[changed as usize]]).await;
        writer.write(writing, length, b"and more").await;
        writer.fs.sync_file(writing).await.unwrap();
        let size = reader.fs.getattr(&reader.caller, number).await.unwrap().0.size;
        assert_eq!(size, length, "the old version stays what it was");
        for offset in (0..length).step_by(1 << 20) {
            match reader.fs.read(handle, offset, 1 << 20).await {
                Ok(data) => data.with(|part| assert!(part == &bytes[offset as usize..offset as usize + part.len()])),
                Err(error) => assert_eq!(error.errno, libc::ESTALE),
            }
        }
        assert_ne!(reader.lookup("f").await.unwrap().attr.number, number, "the name leads to another inode");
    }
}
