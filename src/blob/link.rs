//! What a store has measured of its link: time to the first byte of a GET, and speed of a connection. From these follow
//! how much is fetched ahead, and when a GET is slow enough to be worth a second one. Knows nothing of requests.

use std::time::Duration;

use parking_lot::Mutex;

/// Times to the first byte that are remembered: enough for a 99th percentile, few enough that it follows the link.
const FIRST_BYTES: usize = 128;

/// Answers before which nothing is said of the link, and before which no GET is called slow.
const ESTIMATE_SAMPLES_MIN: u64 = 4;
const HEDGE_SAMPLES_MIN: u64 = 64;

/// New samples between two looks at all of them.
const SAMPLES_A_LOOK: u64 = 8;

/// A GET that is not yet so late is never sent again: below it, our own threads are the reason.
const HEDGE_AFTER_MIN: Duration = Duration::from_millis(20);

/// Second GETs in parts of all: what a few percent of slow answers take, and no more when all are slow.
const HEDGES_OF_GETS: f64 = 1.0 / 50.0;

/// Second GETs that may come at once after a quiet time.
const HEDGES_SAVED_MAX: f64 = 8.0;

/// Bodies that are shorter say more of the round trip than of the connection's speed.
const BODY_BYTES_MIN: u64 = 512 << 10;

/// A new body's part in the mean speed.
const BODY_WEIGHT: f64 = 1.0 / 8.0;

/// What is known of a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkEstimate {
    /// From a GET to the first byte of its answer: the median.
    pub first_byte: Duration,
    /// Of one connection while a body arrives, in bytes a second.
    pub bytes_per_second: u64,
}

/// Measures; one a store.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Short sections, nothing awaits inside.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last ones, in no order.
    first_bytes: Vec<Duration>,
    samples: u64,
    median: Duration,
    slow: Duration,
    seconds_per_byte: Option<f64>,
    hedges_saved: f64,
}

impl Link {
    /// Notes how long a GET took to its first byte.
    pub(super) fn note_first_byte(&self, took: Duration) {
        let mut state = self.state.lock();
        let at = (state.samples % FIRST_BYTES as u64) as usize;
        match state.first_bytes.get_mut(at) {
            Some(oldest) => *oldest = took,
            None => state.first_bytes.push(took),
        }
        state.samples += 1;
        state.hedges_saved = (state.hedges_saved + HEDGES_OF_GETS).min(HEDGES_SAVED_MAX);
        if state.samples <= ESTIMATE_SAMPLES_MIN || state.samples.is_multiple_of(SAMPLES_A_LOOK) {
            let mut sorted = state.first_bytes.clone();
            sorted.sort_unstable();
            state.median = sorted[sorted.len() / 2];
            state.slow = sorted[sorted.len() * 99 / 100];
        }
    }

    /// Notes a body that arrived without a break.
    pub(super) fn note_body(&self, bytes: u64, took: Duration) {
        if bytes < BODY_BYTES_MIN {
            return;
        }
        let sample = took.as_secs_f64().max(1e-9) / bytes as f64;
        let mean = &mut self.state.lock().seconds_per_byte;
        *mean = Some(mean.map_or(sample, |mean| mean + (sample - mean) * BODY_WEIGHT));
    }

    /// What is known; `None` before there was enough to measure.
    pub(super) fn estimate(&self) -> Option<LinkEstimate> {
        let state = self.state.lock();
        let seconds_per_byte = state.seconds_per_byte.filter(|_| state.samples >= ESTIMATE_SAMPLES_MIN)?;
        Some(LinkEstimate { first_byte: state.median, bytes_per_second: (1.0 / seconds_per_byte) as u64 })
    }

    /// How late a GET is when a second one is worth sending; `None` while too little is known.
    pub(super) fn hedge_after(&self) -> Option<Duration> {
        let state = self.state.lock();
        (state.samples >= HEDGE_SAMPLES_MIN).then(|| state.slow.max(state.median * 2).max(HEDGE_AFTER_MIN))
    }

    /// Takes the right to send a GET a second time.
    pub(super) fn take_hedge(&self) -> bool {
        let saved = &mut self.state.lock().hedges_saved;
        let has = *saved >= 1.0;
        *saved -= f64::from(u8::from(has));
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_estimate_is_the_median_answer_and_the_speed_of_large_bodies() {
        let link = Link::default();
        for ms in [10, 11, 500, 9] {
            assert_eq!(link.estimate(), None);
            link.note_first_byte(ms * MS);
            link.note_body(6 << 20, 100 * MS);
            link.note_body(4096, 100 * MS);
        }
        let found = link.estimate().unwrap();
        assert_eq!(found.first_byte, 11 * MS);
        assert!((59 << 20..61 << 20).contains(&found.bytes_per_second), "{found:?}");
    }

    #[test]
    fn a_get_is_slow_beyond_the_99th_percentile_and_only_when_that_is_known() {
        let link = Link::default();
        for at in 0..HEDGE_SAMPLES_MIN {
            assert_eq!(link.hedge_after(), None);
            link.note_first_byte(if at % 50 == 7 { 70 * MS } else { 10 * MS });
        }
        assert_eq!(link.hedge_after(), Some(70 * MS));
        for _ in 0..FIRST_BYTES {
            link.note_first_byte(2 * MS);
        }
        assert_eq!(link.hedge_after(), Some(HEDGE_AFTER_MIN));
    }

    #[test]
    fn second_gets_are_at_most_one_in_fifty() {
        let link = Link::default();
        let mut taken = 0;
        for _ in 0..10_000 {
            link.note_first_byte(MS);
            taken += u32::from(link.take_hedge());
        }
        assert!((195..=200).contains(&taken), "{taken}");
    }
}
