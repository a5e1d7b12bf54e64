//! The cache as a whole, against a store in memory whose answers the tests hold back, cut and refuse.

mod disk;
mod fake;
mod streams;

use md5::{Digest, Md5};

use crate::{
    blob::{BlobName, BlobStore, ETag, ErrorKind},
    sync::{Arc, Ordering},
};

use super::*;
use fake::{Container, FakeStore, Fault};

const MIB: u64 = 1 << 20;

struct Harness {
    store: Arc<FakeStore>,
    container: Arc<dyn BlobStore>,
    cache: Cache,
}

fn etag(text: &str) -> ETag {
    ETag(text.into())
}

fn name(text: &str) -> BlobName {
    BlobName::new(text).unwrap()
}

impl Harness {
    fn new(memory_bytes: u64) -> Self {
        let store = FakeStore::new();
        let options = CacheOptions { memory_bytes, ..CacheOptions::default() };
        let cache = Cache::new(options, Handle::current());
        Self { container: Arc::new(Container(Arc::clone(&store))), store, cache }
    }

    /// A blob of its own bytes, opened.
    fn blob(&self, text: &str, length: u64, seed: u64) -> Arc<Content> {
        self.store.put(text, "\"1\"", length, seed);
        self.cache.open(&self.container, "key", name(text), etag("\"1\""), length)
    }

    async fn read(&self, content: &Arc<Content>, range: Range<u64>) -> Result<Vec<u8>> {
        let stream = self.cache.stream();
        self.cache.read(content, range, &stream).await.map(|bytes| bytes.to_vec())
    }

    /// Nothing is held when nobody reads, but for clean blocks.
    fn assert_at_rest(&self) {
        let gauges = self.cache.gauges();
        assert_eq!((gauges.budget.dirty_bytes, gauges.budget.waiting, gauges.windows), (0, 0, 0), "{gauges:?}");
        assert!(gauges.budget.demand_bytes + gauges.budget.prefetch_bytes <= gauges.budget.pool_bytes, "{gauges:?}");
        assert_eq!(gauges.budget.overdrafts, 0);
    }
}

/// Until `condition` holds; the test's own time limit is what ends a wait in vain.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        crate::sync::tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_the_same_piece_share_one_request() {
    let harness = Harness::new(32 * MIB);
    let content = harness.blob("a", 10 * MIB, 1);
    harness.store.hold();
    let readers: Vec<_> = (0..8_u64)
        .map(|at| {
            let (cache, content) = (harness.cache.clone(), Arc::clone(&content));
            crate::sync::tokio::spawn(async move {
                let stream = cache.stream();
                let range = 5 * MIB + at * 100..5 * MIB + at * 100 + 100;
                cache.read(&content, range, &stream).await.unwrap().to_vec()
            })
        })
        .collect();
    until(|| harness.cache.gauges().misses == 8).await;
    harness.store.release(100);
    for (at, reader) in readers.into_iter().enumerate() {
        let start = 5 * MIB + at as u64 * 100;
        assert_eq!(reader.await.unwrap(), harness.store.bytes(1, start..start + 100));
    }
    assert_eq!(*harness.store.requests.lock(), vec![5 * MIB..5 * MIB + PIECE_BYTES]);
    assert_eq!(harness.cache.gauges().joins, 7);
    harness.assert_at_rest();
}

#[tokio::test]
async fn a_random_read_fetches_the_pieces_it_touches_and_no_more() {
    let harness = Harness::new(32 * MIB);
    let content = harness.blob("a", 10 * MIB + 5, 1);
    let across = 3 * MIB - 2..3 * MIB + 2;
    assert_eq!(harness.read(&content, across.clone()).await.unwrap(), harness.store.bytes(1, across));
    assert_eq!(*harness.store.requests.lock(), vec![3 * MIB - PIECE_BYTES..3 * MIB + PIECE_BYTES]);
    // The tail, cut at the end; and behind it.
    assert_eq!(
        harness.read(&content, 10 * MIB..11 * MIB).await.unwrap(),
        harness.store.bytes(1, 10 * MIB..10 * MIB + 5)
    );
    assert!(harness.read(&content, 10 * MIB + 5..11 * MIB).await.unwrap().is_empty());
    assert_eq!(harness.store.request_count(), 2);
    harness.assert_at_rest();
}

#[tokio::test]
async fn a_small_file_comes_whole_with_its_first_read_and_takes_little_memory() {
    let harness = Harness::new(32 * MIB);
    let content = harness.blob("a", 3000, 1);
    assert_eq!(harness.read(&content, 0..10).await.unwrap(), harness.store.bytes(1, 0..10));
    assert_eq!(harness.read(&content, 2000..4000).await.unwrap(), harness.store.bytes(1, 2000..3000));
    assert_eq!(harness.store.requests.lock().as_slice(), std::slice::from_ref(&(0..3000)));
    assert_eq!(harness.cache.gauges().budget.demand_bytes, 4096);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_wake_before_the_body_ends() {
    let harness = Harness::new(32 * MIB);
    let content = harness.blob("a", MIB, 1);
    harness.store.hold_chunks();
    let (cache, reading) = (harness.cache.clone(), Arc::clone(&content));
    let reader = crate::sync::tokio::spawn(async move {
        let stream = cache.stream();
        cache.read(&reading, 0..PIECE_BYTES, &stream).await.unwrap().len()
    });
    harness.store.release_chunks(2); // 50,021 bytes and the rest of the first piece
    assert_eq!(reader.await.unwrap(), PIECE_BYTES as usize);
    assert_eq!(harness.store.delivered.load(Ordering::Relaxed), PIECE_BYTES);
    harness.store.release_chunks(1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asked_gets_the_error_and_whoever_waited_fetches_by_itself() {
    let harness = Harness::new(32 * MIB);
    let content = harness.blob("a", 10 * MIB, 1);
    harness.store.hold();
    harness.store.fault(Fault::Refuse(ErrorKind::Server));
    let spawn = || {
        let (cache, content) = (harness.cache.clone(), Arc::clone(&content));
        crate::sync::tokio::spawn(async move {
            let stream = cache.stream();
            cache
                .read(&content, 5 * MIB..5 * MIB + 1, &stream)
                .await
                .map(|bytes| bytes.len())
                .map_err(|error| error.kind)
        })
    };
    let first = spawn();
    until(|| harness.store.request_count() == 1).await;
    let second = spawn();
    until(|| harness.cache.gauges().joins == 1).await;
    harness.store.release(2);
    // The second may be quick enough to save the first one, too.
    match first.await.unwrap() {
        Ok(length) => assert_eq!(length, 1),
        Err(kind) => assert_eq!(kind, ErrorKind::Server),
    }
    assert_eq!(second.await.unwrap().unwrap(), 1);
    assert_eq!(harness.store.request_count(), 2);
}

#[tokio::test]
async fn pieces_that_arrived_before_a_body_broke_are_kept() {
    let harness = Harness::new(32 * MIB);
    let content = harness.blob("a", 10 * MIB, 1);
    for fault in [Fault::Break(200_000), Fault::CutShort(200_000)] {
        harness.cache.forget(&content);
        harness.store.requests.lock().clear();
        harness.store.fault(fault);
        let error = harness.read(&content, 5 * MIB..6 * MIB).await.unwrap_err();
        let kind = if matches!(fault, Fault::Break(_)) { ErrorKind::Server } else { ErrorKind::Corrupt };
        assert_eq!(error.kind, kind, "{error}");
        assert_eq!(harness.read(&content, 5 * MIB..6 * MIB).await.unwrap(), harness.store.bytes(1, 5 * MIB..6 * MIB));
        assert_eq!(*harness.store.requests.lock(), vec![5 * MIB..6 * MIB, 5 * MIB + 3 * PIECE_BYTES..6 * MIB]);
    }
}

#[tokio::test]
async fn a_replaced_blob_is_precondition_and_its_cached_bytes_stay_the_old_ones() {
    let harness = Harness::new(32 * MIB);
    let content = harness.blob("a", 10 * MIB, 1);
    harness.read(&content, 5 * MIB..5 * MIB + 1).await.unwrap();
    harness.store.put("a", "\"2\"", 10 * MIB, 2);
    assert_eq!(harness.read(&content, 0..1).await.unwrap_err().kind, ErrorKind::Precondition);
    let old = harness.store.bytes(1, 5 * MIB..5 * MIB + 10);
    assert_eq!(harness.read(&content, 5 * MIB..5 * MIB + 10).await.unwrap(), old);
    let new = harness.cache.open(&harness.container, "key", name("a"), etag("\"2\""), 10 * MIB);
    assert_eq!(harness.read(&new, 5 * MIB..5 * MIB + 10).await.unwrap(), harness.store.bytes(2, 5 * MIB..5 * MIB + 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_follows_its_content_to_another_name_and_etag() {
    let harness = Harness::new(32 * MIB);
    let content = harness.blob("a", 10 * MIB, 1);
    harness.read(&content, 2 * MIB..2 * MIB + 1).await.unwrap();
    harness.store.hold();
    let (cache, reading) = (harness.cache.clone(), Arc::clone(&content));
    let reader = crate::sync::tokio::spawn(async move {
        let stream = cache.stream();
        cache.read(&reading, 5 * MIB..5 * MIB + 9, &stream).await.map(|bytes| bytes.to_vec())
    });
    until(|| harness.store.request_count() == 2).await;
    harness.store.remove("a");
    harness.store.put("b", "\"7\"", 10 * MIB, 1);
    content.repoint(name("b"), etag("\"7\""));
    harness.store.release(10);
    assert_eq!(reader.await.unwrap().unwrap(), harness.store.bytes(1, 5 * MIB..5 * MIB + 9));
    // Found under its new key, with the blocks fetched under the old one; not under the old key.
    let found = harness.cache.open(&harness.container, "key", name("b"), etag("\"7\""), 10 * MIB);
    assert_eq!(found.id(), content.id());
    assert_ne!(harness.cache.open(&harness.container, "key", name("a"), etag("\"1\""), 10 * MIB).id(), content.id());
    let requests = harness.store.request_count();
    harness.read(&found, 2 * MIB..2 * MIB + 1).await.unwrap();
    assert_eq!(harness.store.request_count(), requests);
}

#[tokio::test]
async fn a_version_is_shared_within_a_scope_and_found_again_after_close_but_never_across_scopes() {
    let harness = Harness::new(32 * MIB);
    let content = harness.blob("a", 10 * MIB, 1);
    let id = content.id();
    harness.read(&content, 0..1).await.unwrap();
    drop(content);
    let again = harness.cache.open(&harness.container, "key", name("a"), etag("\"1\""), 10 * MIB);
    assert_eq!(again.id(), id);
    let foreign = harness.cache.open(&harness.container, "other identity", name("a"), etag("\"1\""), 10 * MIB);
    assert_ne!(foreign.id(), id);
    harness.cache.forget(&again);
    drop((again, foreign));
    assert_eq!(harness.cache.gauges().contents, 0);
}

#[tokio::test]
async fn a_commit_keeps_the_unchanged_pieces_and_only_those() {
    let harness = Harness::new(64 * MIB);
    let old_length = 5 * MIB + 100_000;
    let old = harness.blob("a", old_length, 1);
    for block in 0..6 {
        harness.read(&old, block * MIB..(block + 1) * MIB).await.unwrap();
    }
    // Byte 1.5 MiB changed, and the file grew.
    let length = 8 * MIB;
    harness.store.put("a", "\"2\"", length, 2);
    let new = harness.cache.derive(&old, etag("\"2\""), length, &[0..MIB + MIB / 2, MIB + MIB / 2 + 1..old_length]);
    harness.store.requests.lock().clear();
    let unchanged = [0..MIB, MIB..MIB + MIB / 2, MIB + MIB / 2 + PIECE_BYTES..5 * MIB, 5 * MIB..5 * MIB + PIECE_BYTES];
    for range in unchanged {
        assert_eq!(harness.read(&new, range.clone()).await.unwrap(), harness.store.bytes(1, range));
    }
    assert_eq!(harness.store.request_count(), 0);
    for changed in [MIB + MIB / 2..MIB + MIB / 2 + 2, old_length - 2..old_length + 2] {
        assert_eq!(harness.read(&new, changed.clone()).await.unwrap(), harness.store.bytes(2, changed));
    }
    // The old content neither serves the new bytes nor gets a piece that moved.
    assert_eq!(harness.read(&old, 0..1).await.unwrap_err().kind, ErrorKind::Precondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_of_the_old_version_never_lands_in_the_new_one() {
    let harness = Harness::new(64 * MIB);
    let old = harness.blob("a", 4 * MIB, 1);
    harness.read(&old, 2 * MIB..2 * MIB + 1).await.unwrap();
    harness.store.hold_chunks();
    let (cache, reading) = (harness.cache.clone(), Arc::clone(&old));
    let reader = crate::sync::tokio::spawn(async move {
        let stream = cache.stream();
        cache.read(&reading, 2 * MIB + PIECE_BYTES..3 * MIB, &stream).await.map(|bytes| bytes.to_vec())
    });
    until(|| harness.store.request_count() == 2).await;
    harness.store.put("a", "\"2\"", 4 * MIB, 2);
    let new = harness.cache.derive(&old, etag("\"2\""), 4 * MIB, std::slice::from_ref(&(0..2 * MIB + PIECE_BYTES)));
    harness.store.release_chunks(10_000);
    assert_eq!(reader.await.unwrap().unwrap(), harness.store.bytes(1, 2 * MIB + PIECE_BYTES..3 * MIB));
    let changed = 2 * MIB + PIECE_BYTES..3 * MIB;
    assert_eq!(harness.read(&new, changed.clone()).await.unwrap(), harness.store.bytes(2, changed));
}

#[tokio::test]
async fn written_bytes_are_read_back_without_a_request() {
    let harness = Harness::new(64 * MIB);
    let length = 2 * MIB + 70_000;
    let content = harness.blob("a", length, 1);
    let bytes = harness.store.bytes(1, 10..length);
    harness.cache.insert(&content, 10, &bytes);
    let kept = PIECE_BYTES..length;
    assert_eq!(harness.read(&content, kept.clone()).await.unwrap(), harness.store.bytes(1, kept.clone()));
    assert_eq!(harness.store.request_count(), 0);
    assert_eq!(harness.cache.cached_bytes(&content), length - PIECE_BYTES);
    harness.read(&content, 0..1).await.unwrap();
    assert_eq!(*harness.store.requests.lock(), vec![0..PIECE_BYTES]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_stream_fetches_no_further_and_gives_its_window_back() {
    let harness = Harness::new(64 * MIB);
    let content = harness.blob("a", 64 * MIB, 1);
    let stream = harness.cache.stream();
    harness.cache.read(&content, 0..MIB / 4, &stream).await.unwrap();
    harness.store.hold_chunks();
    let second = crate::sync::tokio::time::timeout(
        std::time::Duration::from_millis(20),
        harness.cache.read(&content, MIB / 4..2 * MIB, &stream),
    );
    assert!(second.await.is_err());
    assert!(harness.cache.gauges().prefetches > 0);
    assert_eq!(harness.cache.gauges().windows, 1);
    drop(stream);
    harness.store.release_chunks(16); // enough for the reader's own block, which goes on
    until(|| harness.cache.gauges().budget.prefetch_bytes == 0).await;
    harness.assert_at_rest();
    harness.store.release_chunks(10_000);
    let ahead = harness.read(&content, 3 * MIB..4 * MIB).await.unwrap();
    assert_eq!(ahead, harness.store.bytes(1, 3 * MIB..4 * MIB));
}

/// Goal: eight streams in less memory than their data, each byte fetched once, memory inside the budget at any time.
#[tokio::test(flavor = "multi_thread")]
async fn eight_streams_in_a_small_budget_fetch_no_byte_twice() {
    const LENGTH: u64 = 256 * MIB;
    let harness = Harness::new(32 * MIB);
    let readers: Vec<_> = (0..8_u64)
        .map(|seed| {
            let content = harness.blob(&format!("file {seed}"), LENGTH, seed);
            let (cache, store) = (harness.cache.clone(), Arc::clone(&harness.store));
            crate::sync::tokio::spawn(async move {
                let (mut got, mut expected) = (Md5::new(), Md5::new());
                let stream = cache.stream();
                let mut at = 0;
                while at < LENGTH {
                    let range = at..at + 128 * 1024;
                    let bytes = match cache.try_read(&content, range.clone(), &stream) {
                        Some(bytes) => bytes,
                        None => cache.read(&content, range.clone(), &stream).await.unwrap(),
                    };
                    bytes.slices().for_each(|slice| got.update(slice));
                    expected.update(store.bytes(seed, range.clone()));
                    at = range.end;
                    assert!(cache.budget().used_bytes() <= cache.budget().pool_bytes());
                }
                assert_eq!(got.finalize(), expected.finalize());
            })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap();
    }
    let gauges = harness.cache.gauges();
    assert_eq!(harness.store.delivered.load(Ordering::Relaxed), 8 * LENGTH, "{gauges:?}");
    assert_eq!(gauges.blocks.wasted, 0);
    assert!(gauges.prefetched_bytes > gauges.fetched_bytes, "{gauges:?}");
    harness.assert_at_rest();
}

#[tokio::test]
async fn blocks_read_again_survive_the_scan_of_a_larger_file() {
    let harness = Harness::new(32 * MIB);
    let (hot, huge) = (harness.blob("hot", 4 * MIB, 1), harness.blob("huge", 200 * MIB, 2));
    let stream = harness.cache.stream();
    let scan = async |from: u64, to: u64| {
        for at in from..to {
            harness.cache.read(&huge, at * MIB..(at + 1) * MIB, &stream).await.unwrap();
        }
    };
    harness.read(&hot, 0..4 * MIB).await.unwrap();
    scan(0, 8).await;
    harness.read(&hot, 0..4 * MIB).await.unwrap();
    scan(8, 200).await;
    let requests = harness.store.request_count();
    harness.read(&hot, 0..4 * MIB).await.unwrap();
    assert_eq!(harness.store.request_count(), requests);
}

#[tokio::test]
async fn a_scan_of_a_file_larger_than_memory_keeps_its_head_and_takes_little_more() {
    let harness = Harness::new(128 * MIB);
    let huge = harness.blob("huge", 400 * MIB, 1);
    let stream = harness.cache.stream();
    let head = harness.cache.gauges().budget.pool_bytes / 8;
    for at in 0..400 {
        let bytes = harness.cache.read(&huge, at * MIB..(at + 1) * MIB, &stream).await.unwrap();
        assert_eq!(bytes.to_vec(), harness.store.bytes(1, at * MIB..(at + 1) * MIB));
        drop(bytes);
        let gauges = harness.cache.gauges();
        let read = gauges.blocks.blocks as u64 * MIB - gauges.budget.prefetch_bytes;
        assert!(read <= head + 12 * MIB, "{read} after {at} MiB: {gauges:?}");
    }
    assert_eq!(harness.cache.gauges().blocks.evictions, 0);
    drop(stream);
    let requests = harness.store.request_count();
    harness.read(&huge, 0..head / MIB * MIB).await.unwrap();
    assert_eq!(harness.store.request_count(), requests);
    harness.assert_at_rest();
}

#[tokio::test]
async fn two_readers_of_a_large_file_leave_each_other_what_they_have_read() {
    let harness = Harness::new(512 * MIB);
    let huge = harness.blob("huge", 600 * MIB, 1);
    let streams = [harness.cache.stream(), harness.cache.stream()];
    // The second one comes when the first has let go of nothing yet, and falls behind.
    for at in 0..200 {
        for (stream, behind) in streams.iter().zip([0, 16 + at / 8]) {
            let Some(at) = u64::checked_sub(at, behind) else { continue };
            harness.cache.read(&huge, at * MIB..(at + 1) * MIB, stream).await.unwrap();
        }
    }
    let requests = harness.store.requests.lock();
    let furthest = requests.iter().map(|range| range.end).max();
    let delivered = harness.store.delivered.load(Ordering::Relaxed);
    assert!(Some(delivered) <= furthest, "{delivered} of {furthest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_wait_for_pinned_memory_and_go_on_when_it_is_unpinned() {
    let harness = Harness::new(16 * MIB);
    let content = harness.blob("a", 64 * MIB, 1);
    let stream = harness.cache.stream();
    let mut pinned = Vec::new();
    for at in 0..7 {
        let start = at * 4 * MIB;
        pinned.push(harness.cache.read(&content, start..start + MIB, &stream).await.unwrap());
        pinned.push(harness.cache.read(&content, start + 2 * MIB..start + 3 * MIB, &stream).await.unwrap());
    }
    let (cache, reading) = (harness.cache.clone(), Arc::clone(&content));
    let reader = crate::sync::tokio::spawn(async move {
        let stream = cache.stream();
        cache.read(&reading, 40 * MIB..41 * MIB, &stream).await.unwrap().len()
    });
    until(|| harness.cache.gauges().budget.waiting == 1).await;
    drop(pinned.split_off(1));
    assert_eq!(reader.await.unwrap(), MIB as usize);
    drop(stream);
    harness.assert_at_rest();
}

/// Goal: whatever fails, is evicted or is cut, a read gives the bytes of its version or an error.
/// Method: readers of four files in the smallest budget, in order and at random, while every tenth request meets a fault.
#[tokio::test(flavor = "multi_thread")]
async fn readers_get_the_right_bytes_or_an_error_under_faults_and_pressure() {
    const READS: u64 = 1500;
    let harness = Harness::new(MEMORY_BYTES_MIN);
    let lengths = [3000, 70_000, 9 * MIB + 77, 40 * MIB];
    let contents: Vec<_> = (0..4).map(|at| harness.blob(&format!("f{at}"), lengths[at], at as u64)).collect();
    let readers: Vec<_> = (0..6_u64)
        .map(|reader| {
            let (cache, store, contents) = (harness.cache.clone(), Arc::clone(&harness.store), contents.clone());
            crate::sync::tokio::spawn(async move {
                let (stream, mut random, mut at, mut failed) = (cache.stream(), reader + 1, 0, 0);
                for read in 0..READS {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let seed = (random >> 33) % 4;
                    let (content, length) = (&contents[seed as usize], lengths[seed as usize]);
                    at = if read % 3 == 0 { (random >> 20) % length } else { at % length };
                    let range = at..at + (random >> 40) % (MIB + 1);
                    if read % 10 == 0 {
                        let faults = [Fault::Refuse(ErrorKind::Server), Fault::Break(90_000), Fault::CutShort(1)];
                        store.fault(faults[((random >> 50) % 3) as usize]);
                    }
                    match cache.read(content, range.clone(), &stream).await {
                        Ok(bytes) => assert_eq!(bytes.to_vec(), store.bytes(seed, range.start..range.end.min(length))),
                        Err(error) => {
                            assert!(matches!(error.kind, ErrorKind::Server | ErrorKind::Corrupt), "{error}");
                            failed += 1;
                        }
                    }
                    at = range.end;
                }
                failed
            })
        })
        .collect();
    let mut failed = 0;
    for reader in readers {
        failed += reader.await.unwrap();
    }
    assert!(failed > 0, "no fault ever met a reader");
    drop(contents);
    until(|| harness.cache.gauges().windows == 0).await;
    harness.assert_at_rest();
}
