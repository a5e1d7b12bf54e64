//! copy_file_range(2) on the core: large ranges of what is committed never pass through us, and every copy is exact.

use azblob_csi::fs::{Access, HandleId, ROOT};
use blob_emulator::Operation;

use crate::support::{
    random::Random,
    service::Service,
    volume::{CREATE, READ, Volume},
};

const MIB: u64 = 1 << 20;

/// Copies all of `length`, in as many calls as it takes.
async fn copy(volume: &Volume, from: (HandleId, u64), to: (HandleId, u64), length: u64) {
    let mut copied = 0;
    while copied < length {
        let (from, to) = ((from.0, from.1 + copied), (to.0, to.1 + copied));
        let count = volume.fs.copy_range(&volume.caller, from, to, length - copied).await.unwrap();
        assert!(count > 0, "the source ends at {copied} of {length}");
        copied += count;
    }
}

/// Writes into a model, growing it.
fn put(model: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let (start, end) = (at as usize, at as usize + bytes.len());
    model.resize(model.len().max(end), 0);
    model[start..end].copy_from_slice(bytes);
}

fn moved(service: &Service) -> u64 {
    service.bytes_in() + service.bytes_out()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_copy_passes_inside_the_service_and_reads_right_before_and_after_its_commit() {
    let service = Service::start();
    let bytes = Random::new(5).bytes(230 << 20);
    service.put("source", &bytes);
    let volume = service.volume().await;
    let source = volume.open("source", READ).await.unwrap();
    let (_, target) = volume.create("target", CREATE).await.unwrap();
    let before = moved(&service);
    copy(&volume, (source, 0), (target, 0), bytes.len() as u64).await;
    assert_eq!(service.count(Operation::PutBlockFromURL), 3, "100 MiB is the most that each service version copies");
    volume.fs.flush(target).await.unwrap();
    assert!(moved(&service) - before < 64 << 10, "{} bytes moved", moved(&service) - before);
    assert!(service.blob("target") == bytes);
    copy(&volume, (source, 0), (target, bytes.len() as u64), bytes.len() as u64).await;
    assert!(volume.read(target, 200 << 20, 100 << 20).await == [&bytes[200 << 20..], &bytes[..70 << 20]].concat());
    volume.close(target).await.unwrap();
    assert!(service.blob("target") == [&bytes[..], &bytes[..]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_at_odd_places_of_a_written_file_are_exact() {
    let service = Service::start();
    let bytes = Random::new(6).bytes(40 << 20);
    service.put("source", &bytes);
    let volume = service.volume().await;
    let source = volume.open("source", READ).await.unwrap();
    let (_, target) = volume.create("target", CREATE).await.unwrap();
    let mut model = Random::new(7).bytes(30 << 20);
    volume.write(target, 0, &model).await;
    for (from, to, length) in
        [(3, 12_345_678, 20 * MIB + 1), (17 * MIB + 9, 5, 9 * MIB), (1, 100, 5000), (5, 60 * MIB, 10 * MIB)]
    {
        copy(&volume, (source, from), (target, to), length).await;
        put(&mut model, to, &bytes[from as usize..(from + length) as usize]);
        // Cuts what was just placed: a few bytes inside a block that only the service has.
        volume.write(target, to + length / 2, b"in between").await;
        put(&mut model, to + length / 2, b"in between");
    }
    assert!(volume.read(target, 0, 80 << 20).await == model);
    volume.close(target).await.unwrap();
    assert!(service.blob("target") == model);
    assert!(service.count(Operation::PutBlockFromURL) >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_unsaved_changes_is_copied_as_it_is_now() {
    let service = Service::start();
    let mut bytes = Random::new(8).bytes(20 << 20);
    service.put("source", &bytes);
    let volume = service.volume().await;
    let source = volume.open("source", CREATE).await.unwrap();
    volume.write(source, MIB, b"changed").await;
    bytes[MIB as usize..][..7].copy_from_slice(b"changed");
    let (_, target) = volume.create("target", CREATE).await.unwrap();
    copy(&volume, (source, 0), (target, 0), bytes.len() as u64).await;
    volume.close(target).await.unwrap();
    assert!(service.blob("target") == bytes);
    // Within one file.
    copy(&volume, (source, 0), (source, 20 * MIB), 20 * MIB).await;
    volume.close(source).await.unwrap();
    assert!(service.blob("source") == [&bytes[..], &bytes[..]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_copy_in_the_service_the_bytes_pass_through_memory() {
    let service = Service::start();
    let bytes = Random::new(9).bytes(50 << 20);
    service.put("source", &bytes);
    service.refuse_copies();
    let volume = service.volume().await;
    let source = volume.open("source", READ).await.unwrap();
    let (_, target) = volume.create("target", CREATE).await.unwrap();
    copy(&volume, (source, 0), (target, 0), bytes.len() as u64).await;
    volume.close(target).await.unwrap();
    assert!(service.blob("target") == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_a_name_are_copied_from_and_to() {
    let service = Service::start();
    let bytes = Random::new(10).bytes(20 << 20);
    service.put("source", &bytes);
    let volume = service.volume().await;
    let source = volume.open("source", READ).await.unwrap();
    let (_, nameless) = volume.create("nameless", CREATE).await.unwrap();
    for name in ["source", "nameless"] {
        volume.fs.unlink(&volume.caller, ROOT, name.as_ref()).await.unwrap();
    }
    copy(&volume, (source, 0), (nameless, 0), bytes.len() as u64).await;
    assert!(volume.read(nameless, 0, 21 << 20).await == bytes);
    let (_, target) = volume.create("target", CREATE).await.unwrap();
    copy(&volume, (source, 0), (target, 0), bytes.len() as u64).await;
    volume.close(target).await.unwrap();
    assert!(service.blob("target") == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_another_client_replaced_is_estale_and_the_target_keeps_its_bytes() {
    let service = Service::start();
    service.put("source", &vec![1; 20 << 20]);
    let volume = service.volume().await;
    let source = volume.open("source", READ).await.unwrap();
    let (_, target) = volume.create("target", CREATE).await.unwrap();
    volume.write(target, 0, b"kept").await;
    service.put("source", &vec![2; 20 << 20]);
    let error = volume.fs.copy_range(&volume.caller, (source, 0), (target, 0), 20 * MIB).await.unwrap_err();
    assert_eq!(error.errno, libc::ESTALE);
    volume.close(target).await.unwrap();
    assert_eq!(service.blob("target"), b"kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_copy_is_refused() {
    let service = Service::start();
    service.put("f", &[1; 1000]);
    let volume = service.volume().await;
    let both = volume.open("f", CREATE).await.unwrap();
    let reader = volume.open("f", READ).await.unwrap();
    let write_only = volume.open("f", Access { read: false, ..CREATE }).await.unwrap();
    let copied = |from, to, length| volume.fs.copy_range(&volume.caller, from, to, length);
    let errno = |result: azblob_csi::fs::Result<u64>| result.unwrap_err().errno;
    assert_eq!(errno(copied((both, 0), (both, 999), 1000).await), libc::EINVAL, "overlapping");
    assert_eq!(errno(copied((both, 10), (both, 5), 10).await), libc::EINVAL, "overlapping");
    assert_eq!(errno(copied((both, 0), (reader, 0), 10).await), libc::EBADF);
    assert_eq!(errno(copied((write_only, 0), (both, 2000), 10).await), libc::EBADF);
    assert_eq!(errno(copied((reader, 0), (both, 4 << 40), 10).await), libc::EFBIG);
    assert_eq!(copied((reader, 1000), (both, 5000), 10).await.unwrap(), 0, "at the end of the source");
    assert_eq!(copied((both, 500), (both, 1000), 5000).await.unwrap(), 500, "cut at the end of the source");
    assert_eq!(volume.read(both, 0, 5000).await, [1; 1500]);
}

/// Copies, writes, cuts and commits in any order over three files, against plain arrays.
#[tokio::test(flavor = "multi_thread")]
async fn copies_among_writes_cuts_and_commits_are_exact() {
    let service = Service::start();
    let mut random = Random::new(2026);
    let mut models: Vec<Vec<u8>> = (0..3).map(|at| random.bytes((10 + at * 9) << 20)).collect();
    models.iter().enumerate().for_each(|(at, model)| service.put(&at.to_string(), model));
    let volume = service.volume().await;
    let mut handles = Vec::new();
    for at in 0..models.len() {
        handles.push(volume.open(&at.to_string(), CREATE).await.unwrap());
    }
    for round in 0..60 {
        let (from, to) = (random.below(3) as usize, random.below(3) as usize);
        match random.below(6) {
            0 => volume.fs.sync_file(handles[to]).await.unwrap(),
            1 => {
                let (at, length) = (random.below(40 << 20), 1 + random.below(200_000) as usize);
                let bytes = random.bytes(length);
                volume.write(handles[to], at, &bytes).await;
                put(&mut models[to], at, &bytes);
            }
            _ => {
                let (start, at) = (random.below(models[from].len() as u64), random.below(30 << 20));
                let length = (1 + random.below(24 << 20)).min(models[from].len() as u64 - start);
                if from == to && start < at + length && at < start + length {
                    continue;
                }
                copy(&volume, (handles[from], start), (handles[to], at), length).await;
                let bytes = models[from][start as usize..(start + length) as usize].to_vec();
                put(&mut models[to], at, &bytes);
            }
        }
        let at = random.below(models[to].len() as u64) as usize;
        let read = volume.read(handles[to], at as u64, 100_000).await;
        assert!(read == models[to][at..(at + 100_000).min(models[to].len())], "a read differs in round {round}");
    }
    for (at, model) in models.iter().enumerate() {
        volume.close(handles[at]).await.unwrap();
        assert!(service.blob(&at.to_string()) == *model, "file {at}");
    }
    assert!(service.count(Operation::PutBlockFromURL) > 10);
}

/// Counters of metrics: one that became less would be taken for one that began again at 0.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_a_copy_reads_change_nothing_of_what_readers_found_in_memory() {
    let service = Service::start();
    let bytes = Random::new(11).bytes(3 << 20);
    service.put("warm", &bytes);
    service.put("cold", &bytes);
    service.refuse_copies();
    let volume = service.volume().await;
    let warm = volume.open("warm", READ).await.unwrap();
    for _ in 0..2 {
        assert!(volume.read(warm, 0, bytes.len()).await == bytes);
    }
    let before = volume.fs.meter().totals();
    assert_eq!(before.hit_bytes + before.missed_bytes, 2 * bytes.len() as u64);
    assert!(before.hit_bytes >= bytes.len() as u64, "{before:?}");
    let source = volume.open("cold", READ).await.unwrap();
    let (_, target) = volume.create("target", CREATE).await.unwrap();
    copy(&volume, (source, 0), (target, 0), bytes.len() as u64).await;
    let after = volume.fs.meter().totals();
    assert_eq!((after.hit_bytes, after.missed_bytes), (before.hit_bytes, before.missed_bytes));
    volume.close(target).await.unwrap();
}
