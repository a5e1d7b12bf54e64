//! How many requests this process keeps in flight: one gate for all stores. Knows nothing of what the requests are.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests in flight at most, unless told otherwise. Enough for 8 streams with windows of 8; a guess until the
/// adaptive limit measures it.
pub const REQUESTS_IN_FLIGHT_DEFAULT: usize = 64;

/// Admits a bounded number of requests at a time, first come first served. Cloning shares it.
#[derive(Clone, Debug)]
pub struct RequestGate {
    permits: Arc<Semaphore>,
}

impl RequestGate {
    /// A gate for `requests` at a time.
    #[must_use]
    pub fn new(requests: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(requests.max(1))) }
    }

    /// Waits for a place; dropping the pass gives it back. The body of a download keeps its pass until it was read to
    /// the end or dropped. A wait that is cancelled takes no place.
    pub(super) async fn enter(&self) -> Option<Pass> {
        // Fails only for a closed semaphore, and nobody closes this one.
        Arc::clone(&self.permits).acquire_owned().await.ok().map(|permit| Pass { _permit: permit })
    }

    /// Places that are free now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.permits.available_permits()
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
    _permit: OwnedSemaphorePermit,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dropped_pass_gives_its_place_back() {
        let gate = RequestGate::new(1);
        let pass = gate.enter().await;
        assert_eq!(gate.free(), 0);
        drop(pass);
        assert_eq!(gate.free(), 1);
    }
}
