//! Calls for one volume: one at a time, and a repeated call joins the running one.
//!
//! The specification expects at most one call in flight per volume, but callers repeat a call whose answer they lost, and
//! a kubelet gives up after two minutes and asks again. Answering `Aborted` then (as drivers usually do) makes a storm of
//! retries that never finds the gap. Here:
//! 1. An equal call (same volume, same request) joins the running one and gets its result.
//! 2. A different call for the same volume waits for its turn.
//! 3. A caller that gives up (deadline, lost connection) does not cancel the operation: it runs on in a task of its
//!    own, and the repeated call joins it. Operations are bounded by their own deadlines, not by the caller's.

use std::{
    collections::{HashMap, hash_map::RandomState},
    future::Future,
    hash::BuildHasher,
    sync::{Arc, Weak},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;

use super::error::{Error, ErrorKind, Result};

/// A running operation that can be awaited by several callers.
type Running<T> = Shared<BoxFuture<'static, Result<T>>>;

/// Running operations by (volume, fingerprint of the request).
type RunningTable<T> = Arc<Mutex<HashMap<(String, u64), Running<T>>>>;

/// Turns of volumes: one lane a volume id, shared by all kinds of calls.
#[derive(Clone, Default)]
pub struct Lanes {
    /// Lanes in use. Guards the map only; a lane itself is awaited outside. Dead entries go when a lane is taken.
    lanes: Arc<Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>>,
}

impl Lanes {
    fn lane(&self, volume: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut lanes = self.lanes.lock();
        if let Some(lane) = lanes.get(volume).and_then(Weak::upgrade) {
            return lane;
        }
        lanes.retain(|_, lane| lane.strong_count() > 0);
        let lane = Arc::default();
        lanes.insert(volume.to_owned(), Arc::downgrade(&lane));
        lane
    }
}

/// The running calls of one kind, whose answer is a `T`.
pub struct InFlight<T> {
    lanes: Lanes,
    /// Guards the map only; nothing awaits inside.
    running: RunningTable<T>,
    /// Seeded once a process: a fingerprint is no digest of the secrets in a request that could be tried out elsewhere.
    fingerprints: RandomState,
}

impl<T: Clone + Send + Sync + 'static> InFlight<T> {
    /// No calls yet; turns are taken in `lanes`.
    #[must_use]
    pub fn new(lanes: Lanes) -> Self {
        Self { lanes, running: Arc::default(), fingerprints: RandomState::new() }
    }

    /// Runs `operation` for `volume` in its turn, or joins the running one with an equal `request`.
    ///
    /// Cancel-safe: dropping the returned future leaves the operation running.
    ///
    /// # Errors
    /// Those of the operation; `Internal` when it panicked.
    pub async fn run<F>(&self, volume: &str, request: &impl prost::Message, operation: F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let key = (volume.to_owned(), self.fingerprints.hash_one(request.encode_to_vec()));
        let joined = {
            let mut running = self.running.lock();
            match running.get(&key) {
                Some(operation) => operation.clone(),
                None => {
                    let started = self.start(key.clone(), operation);
                    running.insert(key, started.clone());
                    started
                }
            }
        };
        joined.await
    }

    fn start<F>(&self, key: (String, u64), operation: F) -> Running<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let lane = self.lanes.lane(&key.0);
        let running = Arc::clone(&self.running);
        let task = tokio::spawn(async move {
            // Removed also when the operation panics: an entry that never ends would answer all later calls.
            let _entry = RemoveOnDrop { running, key };
            let _turn = lane.lock().await;
            operation.await
        });
        async move {
            task.await.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Internal, "The operation ended by a defect of the driver; see its log"))
            })
        }
        .boxed()
        .shared()
    }
}

struct RemoveOnDrop<T> {
    running: RunningTable<T>,
    key: (String, u64),
}

impl<T> Drop for RemoveOnDrop<T> {
    fn drop(&mut self) {
        self.running.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;

    use super::*;
    use crate::csi::proto::v1::NodeStageVolumeRequest;

    fn request(volume: &str, path: &str) -> NodeStageVolumeRequest {
        NodeStageVolumeRequest {
            volume_id: volume.into(),
            staging_target_path: path.into(),
            ..NodeStageVolumeRequest::default()
        }
    }

    /// An operation that counts its start and waits for `gate`.
    fn gated(starts: &Arc<AtomicU32>, gate: &Arc<Notify>) -> impl Future<Output = Result<u32>> + Send + 'static {
        let (starts, gate) = (Arc::clone(starts), Arc::clone(gate));
        async move {
            let nth = starts.fetch_add(1, Ordering::SeqCst) + 1;
            gate.notified().await;
            Ok(nth)
        }
    }

    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn an_equal_call_joins_the_running_one() {
        let calls = Arc::new(InFlight::new(Lanes::default()));
        let (starts, gate) = (Arc::<AtomicU32>::default(), Arc::<Notify>::default());
        let first = {
            let (calls, operation) = (Arc::clone(&calls), gated(&starts, &gate));
            tokio::spawn(async move { calls.run("v", &request("v", "/a"), operation).await })
        };
        until(|| starts.load(Ordering::SeqCst) == 1).await;
        let again = request("v", "/a");
        let second = calls.run("v", &again, gated(&starts, &gate));
        let (second, ()) = tokio::join!(second, async { gate.notify_one() });
        assert_eq!((first.await.unwrap().unwrap(), second.unwrap()), (1, 1));
        assert!(calls.running.lock().is_empty());
    }

    #[tokio::test]
    async fn a_different_call_for_the_volume_waits_and_one_for_another_volume_does_not() {
        let calls = Arc::new(InFlight::new(Lanes::default()));
        let (starts, gate) = (Arc::<AtomicU32>::default(), Arc::<Notify>::default());
        let spawn = |volume: &'static str, path: &'static str| {
            let (calls, operation) = (Arc::clone(&calls), gated(&starts, &gate));
            tokio::spawn(async move { calls.run(volume, &request(volume, path), operation).await })
        };
        let first = spawn("v", "/a");
        until(|| starts.load(Ordering::SeqCst) == 1).await;
        let second = spawn("v", "/b");
        let other = spawn("w", "/a");
        until(|| starts.load(Ordering::SeqCst) == 2).await;
        assert_eq!(calls.running.lock().len(), 3);
        gate.notify_waiters();
        assert_eq!((first.await.unwrap().unwrap(), other.await.unwrap().unwrap()), (1, 2));
        until(|| starts.load(Ordering::SeqCst) == 3).await;
        gate.notify_one();
        assert_eq!(second.await.unwrap().unwrap(), 3);
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_does_not_cancel_and_its_retry_joins() {
        let calls = InFlight::new(Lanes::default());
        let (starts, gate) = (Arc::<AtomicU32>::default(), Arc::<Notify>::default());
        let same = request("v", "/a");
        let first = calls.run("v", &same, gated(&starts, &gate));
        let gave_up = tokio::select! {
            _ = first => false,
            () = until(|| starts.load(Ordering::SeqCst) == 1) => true,
        };
        assert!(gave_up);
        gate.notify_one();
        assert_eq!(calls.run("v", &request("v", "/a"), gated(&starts, &gate)).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_volume_stays_usable() {
        let calls: InFlight<u32> = InFlight::new(Lanes::default());
        let failed = calls.run("v", &request("v", "/a"), async { panic!("on purpose") }).await;
        assert_eq!(failed.unwrap_err().kind, ErrorKind::Internal);
        assert_eq!(calls.run("v", &request("v", "/a"), async { Ok(7) }).await.unwrap(), 7);
    }
}
