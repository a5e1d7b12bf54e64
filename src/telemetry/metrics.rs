//! Numbers that a running process tells of itself: counters that cost an atomic addition, the table of what they are called,
//! and the page that Prometheus scrapes.
//!
//! | file | what it is for |
//! |---|---|
//! | [`table`] | every metric: name, type, labels, meaning. The page, docs/METRICS.md and alert rules go by it |
//! | [`page`] | one answer to a scraper, in Prometheus' text format |
//! | [`document`] | the table for people |
//! | [`process`] | what the kernel knows of the process |
//! | [`scraped`] | a page as its reader sees it |
//!
//! Rooms own their counters and are read when somebody asks: nothing is registered, so a volume's series end with the
//! volume. Knows nothing of what is counted. No secret and no name of a blob may become a label.

pub mod document;
pub mod page;
pub mod process;
pub mod scraped;
pub mod table;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

pub use page::{Labels, Page};
pub use table::Family;

/// A number that only grows. Relaxed: a scraper wants no order between numbers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper ends of a histogram's buckets in nanoseconds, ascending. What is above the last is in the one without an end.
pub type Bounds = &'static [u64];

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000 * MICROSECOND;
const SECOND: u64 = 1_000 * MILLISECOND;

/// From an answer out of memory (tens of microseconds) to a commit that was tried for minutes.
pub const DATA_PATH_BOUNDS: Bounds = &[
    50 * MICROSECOND,
    100 * MICROSECOND,
    500 * MICROSECOND,
    MILLISECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
    5 * SECOND,
    30 * SECOND,
    60 * SECOND,
];

/// The buckets of the Azure Blob CSI driver: dashboards that exist are drawn by them.
pub const CALL_BOUNDS: Bounds = &[
    SECOND / 10,
    SECOND / 5,
    SECOND / 2,
    SECOND,
    5 * SECOND,
    10 * SECOND,
    15 * SECOND,
    20 * SECOND,
    30 * SECOND,
    40 * SECOND,
    50 * SECOND,
    60 * SECOND,
    100 * SECOND,
    200 * SECOND,
    300 * SECOND,
];

/// How long things took.
#[derive(Debug)]
pub struct Histogram {
    bounds: Bounds,
    /// One a bucket, and one for what is above all.
    counts: Box<[AtomicU64]>,
    sum_nanoseconds: AtomicU64,
}

impl Histogram {
    /// An empty one.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let counts = std::iter::repeat_with(AtomicU64::default).take(bounds.len() + 1).collect();
        Self { bounds, counts, sum_nanoseconds: AtomicU64::new(0) }
    }

    /// Counts one thing that took `duration`: two relaxed additions.
    pub fn observe(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.bounds.iter().position(|bound| nanoseconds <= *bound).unwrap_or(self.bounds.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// What was counted so far. Counts that arrive meanwhile are in or not.
    #[must_use]
    pub fn snapshot(&self) -> Distribution {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let sum = Duration::from_nanos(self.sum_nanoseconds.load(Ordering::Relaxed));
        Distribution { bounds: self.bounds, counts, sum }
    }
}

/// What a [`Histogram`] held at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    bounds: Bounds,
    counts: Vec<u64>,
    /// All durations together.
    pub sum: Duration,
}

impl Distribution {
    /// How many things were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Upper ends in seconds (the last is infinite) with the number of things up to there.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let ends = self.bounds.iter().map(|bound| *bound as f64 / SECOND as f64).chain([f64::INFINITY]);
        let mut so_far = 0;
        ends.zip(&self.counts).map(move |(end, count)| {
            so_far += count;
            (end, so_far)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_that_it_fits_into() {
        let histogram = Histogram::new(CALL_BOUNDS);
        for seconds in [0.1, 0.11, 299.0, 301.0] {
            histogram.observe(Duration::from_secs_f64(seconds));
        }
        let seen = histogram.snapshot();
        let cumulative: Vec<_> = seen.cumulative().collect();
        assert_eq!(cumulative[..2], [(0.1, 1), (0.2, 2)]);
        assert_eq!(cumulative[14..], [(300.0, 3), (f64::INFINITY, 4)]);
        assert_eq!((seen.count(), seen.sum), (4, Duration::from_secs_f64(600.21)));
    }
}
