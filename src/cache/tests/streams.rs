//! What is fetched ahead of readers that go up, down or in steps, by requests and bytes.

use super::*;

const READ: u64 = 256 << 10;

/// Bytes that the store has delivered.
fn delivered(harness: &Harness) -> u64 {
    harness.store.delivered.load(Ordering::Relaxed)
}

impl Harness {
    async fn expect(&self, content: &Arc<Content>, seed: u64, range: Range<u64>, stream: &ReadStream) {
        let bytes = match self.cache.try_read(content, range.clone(), stream) {
            Some(bytes) => bytes,
            None => self.cache.read(content, range.clone(), stream).await.unwrap(),
        };
        assert_eq!(bytes.to_vec(), self.store.bytes(seed, range));
    }
}

#[tokio::test]
async fn a_first_read_brings_its_block_and_a_bulk_reader_its_window_at_once() {
    let harness = Harness::new(64 * MIB);
    let (small, bulk) = (harness.blob("small", 40 * MIB, 1), harness.blob("bulk", 40 * MIB, 2));
    let stream = harness.cache.stream();
    harness.expect(&small, 1, 0..PIECE_BYTES, &stream).await;
    assert_eq!(harness.store.requests.lock().as_slice(), std::slice::from_ref(&(0..MIB)));
    let stream = harness.cache.stream();
    harness.expect(&bulk, 2, 0..MIB, &stream).await;
    assert_eq!((harness.cache.gauges().fetches, harness.cache.gauges().prefetches), (2, 4));
}

#[tokio::test]
async fn a_window_grows_with_what_was_read_and_fetches_no_byte_twice() {
    let harness = Harness::new(512 * MIB);
    let content = harness.blob("a", 200 * MIB, 1);
    let stream = harness.cache.stream();
    let mut furthest = 0;
    for at in (0..200 * MIB).step_by(READ as usize) {
        harness.expect(&content, 1, at..at + READ, &stream).await;
        let read = at + READ;
        furthest = harness.store.requests.lock().iter().map(|range| range.end).fold(furthest, u64::max);
        assert!(furthest <= (read + 4 * MIB + 3 * read).next_multiple_of(MIB), "{furthest} after {read}");
    }
    assert_eq!(delivered(&harness), 200 * MIB);
    assert!(harness.cache.gauges().fetches <= 2, "{:?}", harness.cache.gauges());
}

#[tokio::test]
async fn a_reader_that_goes_backwards_finds_what_lies_before_it() {
    let harness = Harness::new(128 * MIB);
    let content = harness.blob("a", 60 * MIB + 1000, 1);
    let stream = harness.cache.stream();
    let mut end = 60 * MIB + 1000;
    while end > 0 {
        let start = end.saturating_sub(READ);
        harness.expect(&content, 1, start..end, &stream).await;
        end = start;
    }
    let gauges = harness.cache.gauges();
    // Not all of it twice: a piece that two reads share came with the first.
    assert_eq!(delivered(&harness), 60 * MIB + 1000);
    assert!(gauges.fetches <= 2 && gauges.prefetches >= 50, "{gauges:?}");
    drop(stream);
    harness.assert_at_rest();
}

#[tokio::test]
async fn a_reader_that_turns_round_is_followed_both_ways() {
    let harness = Harness::new(256 * MIB);
    let content = harness.blob("a", 100 * MIB, 1);
    let stream = harness.cache.stream();
    for at in (50 * MIB..80 * MIB).step_by(READ as usize) {
        harness.expect(&content, 1, at..at + READ, &stream).await;
    }
    // Somebody else of the same handle goes down from the middle.
    for start in (0..50 * MIB / READ).rev().map(|number| number * READ) {
        harness.expect(&content, 1, start..start + READ, &stream).await;
    }
    assert!(harness.cache.gauges().fetches <= 4, "{:?}", harness.cache.gauges());
    assert!(delivered(&harness) <= 100 * MIB);
}

#[tokio::test]
async fn reads_in_equal_steps_have_their_pieces_fetched_and_nothing_between_them() {
    for step in [3 * MIB + 5000, 200_000] {
        let harness = Harness::new(128 * MIB);
        let content = harness.blob("a", 300 * MIB, 1);
        let stream = harness.cache.stream();
        for at in (0..90).map(|number| MIB + number * step) {
            harness.expect(&content, 1, at..at + 4096, &stream).await;
        }
        let gauges = harness.cache.gauges();
        assert_eq!(gauges.fetches, 4, "{gauges:?}");
        // The read ones, and those ahead of the last.
        assert!(delivered(&harness) <= (90 + 32) * 2 * PIECE_BYTES, "{gauges:?}");
        drop(stream);
        harness.assert_at_rest();
    }
}

#[tokio::test]
async fn a_random_reader_has_nothing_fetched_ahead() {
    let harness = Harness::new(256 * MIB);
    let content = harness.blob("a", 300 * MIB, 1);
    let stream = harness.cache.stream();
    let mut random = 11_u64;
    for _ in 0..200 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = MIB + (random >> 33) % (298 * MIB) / 4096 * 4096;
        harness.expect(&content, 1, at..at + 4096, &stream).await;
    }
    assert_eq!(harness.cache.gauges().prefetches, 0);
    assert!(delivered(&harness) <= 200 * PIECE_BYTES);
}

#[tokio::test]
async fn four_readers_of_one_handle_each_have_their_window() {
    let harness = Harness::new(512 * MIB);
    let content = harness.blob("a", 160 * MIB, 1);
    let stream = harness.cache.stream();
    for at in (0..40 * MIB).step_by(READ as usize) {
        for reader in 0..4 {
            let start = reader * 40 * MIB + at;
            harness.expect(&content, 1, start..start + READ, &stream).await;
        }
    }
    let gauges = harness.cache.gauges();
    assert!(gauges.fetches <= 4 * 3, "{gauges:?}");
    assert_eq!(delivered(&harness), 160 * MIB);
}
