//! How many requests this process keeps in flight: one gate for all stores. Knows nothing of what the requests are.
//!
//! - The limit follows the link (AIMD): while requests queue it is raised step by step, and a step that brought nothing is
//!   taken back; a service that says 503 or 429 halves it.
//! - Whoever somebody waits for goes first ([`Urgency`]); the others get a part in [`EAGER_TURNS`] even then.
//! - Of equally urgent ones the volumes take turns, so that no volume's queue is another's wait.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Requests in flight to begin with, unless told otherwise: two streams with all their connections.
pub const REQUESTS_IN_FLIGHT_DEFAULT: usize = 64;

/// The limit never leaves these times of what it began with: below an eighth a single reader starves, and beyond four
/// times, sockets and buffers cost more than they bring.
const LIMIT_SHRINK_MAX: usize = 8;
/// See [`LIMIT_SHRINK_MAX`].
pub(super) const REQUESTS_IN_FLIGHT_GROWTH: usize = 4;

/// One step up, in parts of the limit.
const STEP_PARTS: usize = 8;

/// A step stays when it raised the throughput by more than this part: half of what a link with room would give.
const GAIN_MIN: f64 = 1.0 / 16.0;

/// How long one setting is measured: many times a round trip, and a few bodies of a slow connection.
const MEASURE_TIME: Duration = Duration::from_millis(500);

/// Measurements between two tries of a larger limit, once one has brought nothing.
const REST_MEASUREMENTS: u32 = 20;

/// Refusals within this time are one: they answer requests that were under way together.
const REFUSALS_TIME: Duration = Duration::from_secs(1);

/// What a request counts beside its bytes: small ones are work too.
const REQUEST_WORK_BYTES: u64 = 64 << 10;

/// Of so many places that become free while both queue, one goes to requests that nobody waits for.
const EAGER_TURNS: u32 = 8;

/// Who waits for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Urgency {
    /// A system call.
    #[default]
    Awaited,
    /// Nobody yet: fetched ahead of a reader.
    Ahead,
}

/// Whose requests take turns with others': one a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VolumeId(u64);

impl VolumeId {
    pub(super) fn next() -> Self {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        Self(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }
}

/// Admits a bounded number of requests at a time. Cloning shares it.
#[derive(Clone, Debug)]
pub struct RequestGate {
    /// Short sections, nothing awaits inside.
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    limit: Limit,
    in_flight: usize,
    awaited: Queue,
    ahead: Queue,
    /// Places given to awaited requests since one of the others had its turn.
    turns: u32,
}

/// Waiters of one urgency, by volume: the first volume has the next turn.
#[derive(Debug, Default)]
struct Queue {
    volumes: VecDeque<(VolumeId, VecDeque<oneshot::Sender<Pass>>)>,
}

impl Queue {
    fn push(&mut self, volume: VolumeId, waiter: oneshot::Sender<Pass>) {
        match self.volumes.iter_mut().find(|(id, _)| *id == volume) {
            Some((_, waiters)) => waiters.push_back(waiter),
            None => self.volumes.push_back((volume, VecDeque::from([waiter]))),
        }
    }

    /// The next whose call is still there.
    fn pop(&mut self) -> Option<oneshot::Sender<Pass>> {
        while let Some((volume, mut waiters)) = self.volumes.pop_front() {
            let next = std::iter::from_fn(|| waiters.pop_front()).find(|waiter| !waiter.is_closed());
            if !waiters.is_empty() {
                self.volumes.push_back((volume, waiters));
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }
}

impl RequestGate {
    /// A gate for `requests` at a time to begin with.
    #[must_use]
    pub fn new(requests: usize) -> Self {
        let limit = Limit::new(requests.max(1), Instant::now());
        let (awaited, ahead) = (Queue::default(), Queue::default());
        Self { state: Arc::new(Mutex::new(State { limit, in_flight: 0, awaited, ahead, turns: 0 })) }
    }

    /// Waits for a place; dropping the pass gives it back. The body of a download keeps its pass until it was read to
    /// the end or dropped. A wait that is cancelled takes no place.
    pub(super) async fn enter(&self, volume: VolumeId, urgency: Urgency) -> Option<Pass> {
        let granted = {
            let mut state = self.state.lock();
            if state.in_flight < state.limit.requests {
                state.in_flight += 1;
                return Some(self.pass());
            }
            state.limit.full = true;
            let (waiter, granted) = oneshot::channel();
            match urgency {
                Urgency::Awaited => state.awaited.push(volume, waiter),
                Urgency::Ahead => state.ahead.push(volume, waiter),
            }
            granted
        };
        granted.await.ok()
    }

    /// A place, if one is free at once.
    pub(super) fn try_enter(&self) -> Option<Pass> {
        let mut state = self.state.lock();
        (state.in_flight < state.limit.requests).then(|| {
            state.in_flight += 1;
            self.pass()
        })
    }

    /// The service said that it is asked too much.
    pub(super) fn refused(&self) {
        self.state.lock().limit.refused(Instant::now());
    }

    fn pass(&self) -> Pass {
        Pass { gate: self.clone(), bytes: 0 }
    }

    /// A request ended that moved so many bytes: its place goes to the next.
    fn leave(&self, bytes: u64) {
        self.state.lock().limit.moved(bytes, Instant::now());
        self.serve();
    }

    /// Gives up a place, and gives free ones to those who wait.
    fn serve(&self) {
        let mut first = true;
        loop {
            let waiter = {
                let mut state = self.state.lock();
                state.in_flight -= usize::from(std::mem::take(&mut first));
                if state.in_flight >= state.limit.requests {
                    return;
                }
                let Some(waiter) = state.next() else { return };
                state.in_flight += 1;
                waiter
            };
            // To one that went away in this moment: the pass comes back, and dropping it gives the place on.
            drop(waiter.send(self.pass()));
        }
    }

    /// Places that are free now.
    #[must_use]
    pub fn free(&self) -> usize {
        let state = self.state.lock();
        state.limit.requests.saturating_sub(state.in_flight)
    }

    /// Requests that may be in flight now.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.state.lock().limit.requests
    }
}

impl State {
    fn next(&mut self) -> Option<oneshot::Sender<Pass>> {
        if self.turns >= EAGER_TURNS - 1
            && let Some(waiter) = self.ahead.pop()
        {
            self.turns = 0;
            return Some(waiter);
        }
        if let Some(waiter) = self.awaited.pop() {
            self.turns += 1;
            return Some(waiter);
        }
        self.turns = 0;
        self.ahead.pop()
    }
}

impl Default for RequestGate {
    fn default() -> Self {
        Self::new(REQUESTS_IN_FLIGHT_DEFAULT)
    }
}

/// The right to have one request in flight.
#[derive(Debug)]
pub(super) struct Pass {
    gate: RequestGate,
    bytes: u64,
}

impl Pass {
    /// Notes bytes that the request moved.
    pub(super) fn moved(&mut self, bytes: u64) {
        self.bytes += bytes;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.leave(self.bytes);
    }
}

/// How many requests are good for the link: an increase that is measured, a decrease that is told. Pure.
#[derive(Debug)]
struct Limit {
    requests: usize,
    bounds: (usize, usize),
    began: Instant,
    /// Bytes, and [`REQUEST_WORK_BYTES`] a request, since then.
    work: u64,
    /// Somebody waited meanwhile: what was measured is what the limit gives.
    full: bool,
    /// Work a second, and the limit that gave it, before the step that is being tried.
    trial: Option<(f64, usize)>,
    rest: u32,
    last_refusal: Option<Instant>,
}

impl Limit {
    fn new(requests: usize, now: Instant) -> Self {
        let bounds = ((requests / LIMIT_SHRINK_MAX).max(1), requests * REQUESTS_IN_FLIGHT_GROWTH);
        Self { requests, bounds, began: now, work: 0, full: false, trial: None, rest: 0, last_refusal: None }
    }

    fn moved(&mut self, bytes: u64, now: Instant) {
        self.work += bytes + REQUEST_WORK_BYTES;
        let elapsed = now.saturating_duration_since(self.began);
        if elapsed < MEASURE_TIME {
            return;
        }
        let rate = self.work as f64 / elapsed.as_secs_f64();
        // A rest in between, when next to nothing ended, would make any step after it look like a gain.
        let full = std::mem::take(&mut self.full) && elapsed < 2 * MEASURE_TIME;
        self.began = now;
        self.work = 0;
        if !full {
            // What was asked for was done: nothing can be learnt about more, and a trial proves nothing.
            self.requests = self.trial.take().map_or(self.requests, |(_, before)| before);
            return;
        }
        match self.trial.take() {
            Some((before, requests)) if rate < before * (1.0 + GAIN_MIN) => {
                self.requests = requests;
                self.rest = REST_MEASUREMENTS;
            }
            _ if self.rest > 0 => self.rest -= 1,
            _ => {
                self.trial = Some((rate, self.requests));
                self.requests = (self.requests + self.requests.div_ceil(STEP_PARTS)).min(self.bounds.1);
            }
        }
    }

    fn refused(&mut self, now: Instant) {
        if self.last_refusal.is_none_or(|last| now.saturating_duration_since(last) >= REFUSALS_TIME) {
            self.last_refusal = Some(now);
            self.requests = (self.requests / 2).max(self.bounds.0);
            // What is measured from here on is the smaller limit's.
            (self.trial, self.rest, self.work, self.began) = (None, 0, 0, now);
        }
    }
}

#[cfg(test)]
mod tests;
