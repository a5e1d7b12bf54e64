//! When to try again and when to stop: deadlines and backoff. Knows nothing of requests.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// First wait. The service's own guidance for 503 starts at hundreds of milliseconds; a broken connection wants less.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest wait that we choose ourselves. Longer ones only at the service's request (Retry-After).
const BACKOFF_MAX: Duration = Duration::from_secs(8);

/// How long a call may take, all tries together. Afterwards it fails with `TimedOut`, or with the last refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Reads, listings, and everything about names. For a body: the time without any progress.
    pub names: Duration,
    /// Writes of data, commits and copies.
    pub commits: Duration,
    /// One try, from sending to the answer's first byte, beside the time that its body takes to send.
    pub one_try: Duration,
}

impl RequestLimits {
    /// DESIGN 10.14: a process that is killed waits for our answer, so none may take longer.
    pub const STANDARD: Self = Self {
        names: Duration::from_secs(60),
        commits: Duration::from_secs(300),
        // The service itself gives up on an operation after 30 s (REST: "Set time-outs for Blob service operations").
        one_try: Duration::from_secs(32),
    };

    /// While mounting: a wrong endpoint must be an error within 10 s, before the caller's own deadline.
    #[must_use]
    pub const fn mounting() -> Self {
        Self { names: Duration::from_secs(8), commits: Duration::from_secs(8), one_try: Duration::from_secs(5) }
    }
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self::STANDARD
    }
}

/// The waits between tries: doubling, with jitter, so that many clients that failed together do not return together.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next wait: between half and the whole of the step. `retry_after` is the least the service asks for.
    pub(super) fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let step = BACKOFF_FIRST.saturating_mul(1 << self.tries.min(16)).min(BACKOFF_MAX);
        self.tries += 1;
        let wait = step / 2 + step.mul_f64(random_fraction() / 2.0);
        retry_after.map_or(wait, |asked| asked + wait / 4)
    }

    /// How often it was asked.
    pub(super) fn tries(&self) -> u32 {
        self.tries
    }
}

/// A number from 0 to 1. `RandomState` is seeded by the system and differs in every call: good enough for jitter.
fn random_fraction() -> f64 {
    f64::from(RandomState::new().hash_one(0_u8) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_with_jitter_up_to_the_longest() {
        let mut backoff = Backoff::default();
        for step in [100, 200, 400, 800, 1600, 3200, 6400, 8000, 8000] {
            let wait = backoff.next(None).as_millis();
            assert!((step / 2..=step).contains(&wait), "{wait} of {step}");
        }
        for _ in 0..100 {
            assert!(backoff.next(None) <= BACKOFF_MAX);
        }
    }

    #[test]
    fn retry_after_is_honoured_and_still_jittered() {
        let asked = Duration::from_secs(20);
        let wait = Backoff::default().next(Some(asked));
        assert!(wait >= asked && wait <= asked + BACKOFF_FIRST, "{wait:?}");
    }

    #[test]
    fn mounting_gives_up_within_ten_seconds() {
        assert!(RequestLimits::mounting().names < Duration::from_secs(10));
    }
}
