//! What is owed, and when it is tried. A bounded number of tasks takes what is due, earliest first; none runs while
//! nothing waits. Knows nothing of journals and commits.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{super::inode::Inode, removals::Removal};
use crate::sync::{Mutex, tokio::sync::Notify};

/// Uploads of one volume under way at once; the store bounds what the node sends in all. At 10 ms a round trip it is
/// 3200 small files a second.
const WORKERS_MAX: usize = 32;
/// First pause after a failure that may pass; doubles up to [`RETRY_PAUSE_MAX`], for all that is owed together.
const RETRY_PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Longest of these pauses. Each try has its own deadline and its own backoff: more would only add load.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// What the service must still get.
#[derive(Clone, Debug)]
pub(super) enum Debt {
    /// A file or a directory.
    File(Arc<Inode>),
    /// That a name is gone.
    Removal(Arc<Removal>),
}

#[derive(Debug, Default)]
struct Waiting {
    /// By when it is due, and in the order of coming; with its chain.
    due: BTreeMap<(Instant, u64), (u64, Debt)>,
    /// Where each chain stands in `due`.
    places: HashMap<u64, (Instant, u64)>,
    next: u64,
    workers: usize,
    /// Whether one of them waits for the first to be due.
    is_watched: bool,
    /// Failures in a row.
    failures: u32,
}

/// What a worker does next.
pub(super) enum Task {
    /// Send this one. `true`: more is due, and another worker may come.
    Send(Debt, bool),
    /// Wait so long, or until something is put in, and ask again.
    Wait(Duration),
    /// End: nothing waits, or another worker waits already.
    End,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
    linger: Duration,
}

impl Queue {
    /// An empty one; what is put in is due after `linger`.
    pub(super) fn new(linger: Duration) -> Self {
        Self { waiting: Mutex::default(), filled: Notify::new(), linger }
    }

    /// Puts in what was closed. `true`: the caller starts a worker.
    #[must_use]
    pub(super) fn put(&self, chain: u64, debt: Debt) -> bool {
        self.put_after(chain, debt, self.linger)
    }

    /// Puts in what nothing is gained by waiting for. `true`: the caller starts a worker.
    #[must_use]
    pub(super) fn put_now(&self, chain: u64, debt: Debt) -> bool {
        self.put_after(chain, debt, Duration::ZERO)
    }

    /// Puts back what failed and may be taken later. `true`: the caller starts a worker.
    #[must_use]
    pub(super) fn put_back(&self, chain: u64, debt: Debt) -> bool {
        let pause = {
            let mut waiting = self.waiting.lock();
            waiting.failures = waiting.failures.saturating_add(1);
            RETRY_PAUSE_FIRST.saturating_mul(1 << (waiting.failures - 1).min(10)).min(RETRY_PAUSE_MAX)
        };
        self.put_after(chain, debt, pause)
    }

    fn put_after(&self, chain: u64, debt: Debt, pause: Duration) -> bool {
        let mut waiting = self.waiting.lock();
        if !waiting.places.contains_key(&chain) {
            let place = (Instant::now() + pause, waiting.next);
            waiting.next += 1;
            waiting.places.insert(chain, place);
            waiting.due.insert(place, (chain, debt));
        }
        self.filled.notify_one();
        waiting.take_worker()
    }

    /// The service took something: what failed before is worth a try at once.
    pub(super) fn note_success(&self) {
        let mut waiting = self.waiting.lock();
        if waiting.failures > 0 {
            waiting.failures = 0;
            let all = std::mem::take(&mut waiting.due);
            for ((_, count), (chain, debt)) in all {
                let place = (Instant::now(), count);
                waiting.places.insert(chain, place);
                waiting.due.insert(place, (chain, debt));
            }
            self.filled.notify_one();
        }
    }

    /// Takes out what needs no try any more.
    pub(super) fn remove(&self, chain: u64) {
        let mut waiting = self.waiting.lock();
        if let Some(place) = waiting.places.remove(&chain) {
            waiting.due.remove(&place);
            self.filled.notify_one();
        }
    }

    /// What a worker does next; a worker that is told to end is counted out.
    pub(super) fn next(&self) -> Task {
        let mut waiting = self.waiting.lock();
        let now = Instant::now();
        let Some(first) = waiting.due.first_entry() else {
            waiting.workers -= 1;
            return Task::End;
        };
        let due = first.key().0;
        if due <= now {
            let (chain, debt) = first.remove();
            waiting.places.remove(&chain);
            let more = waiting.take_worker();
            return Task::Send(debt, more);
        }
        if std::mem::replace(&mut waiting.is_watched, true) {
            waiting.workers -= 1;
            return Task::End;
        }
        Task::Wait(due - now)
    }

    /// Waits as [`Task::Wait`] says.
    pub(super) async fn wait(&self, pause: Duration) {
        let _ = crate::sync::tokio::time::timeout(pause, self.filled.notified()).await;
        self.waiting.lock().is_watched = false;
    }
}

impl Waiting {
    /// Counts in one more worker, where there is something to do for it.
    fn take_worker(&mut self) -> bool {
        let wanted = !self.due.is_empty() && !self.is_watched && self.workers < WORKERS_MAX;
        self.workers += usize::from(wanted);
        wanted
    }
}
