//! What was asked and answered: counts by operation and status, bytes, requests in flight, and the last requests.
//! Must not know how a request is handled.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::operation::Operation;

/// Counts of one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationCounters {
    /// Requests.
    pub requests: u64,
    /// Requests by status of the answer. 0: the connection ended without one.
    pub by_status: BTreeMap<u16, u64>,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of answer bodies as planned; a cut body counts in full here.
    pub bytes_out: u64,
}

/// A look at the counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersView {
    /// By name of the operation; `Unknown` for what was none.
    pub operations: BTreeMap<String, OperationCounters>,
    /// Bytes of answer bodies that were handed to connections.
    pub bytes_sent: u64,
    /// Requests that were being handled at once, at most.
    pub in_flight_max: u64,
    /// TCP connections accepted.
    pub connections: u64,
}

impl CountersView {
    /// Requests of one operation.
    #[must_use]
    pub fn of(&self, operation: Operation) -> u64 {
        self.operations.get(operation.name()).map_or(0, |counters| counters.requests)
    }

    /// Requests of every operation.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.operations.values().map(|counters| counters.requests).sum()
    }

    /// Requests that change something.
    #[must_use]
    pub fn writes(&self) -> u64 {
        Operation::ALL.iter().filter(|operation| operation.writes()).map(|&operation| self.of(operation)).sum()
    }
}

/// One request of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// Running number from the start of the emulator.
    pub number: u64,
    /// Operation, or `Unknown`.
    pub operation: String,
    /// Container, or empty.
    pub container: String,
    /// Blob, or empty.
    pub blob: String,
    /// Range asked for, or empty.
    pub range: String,
    /// Status; 0 for no answer.
    pub status: u16,
    /// Error code, or empty.
    pub code: String,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
}

#[derive(Default)]
struct Inner {
    operations: BTreeMap<String, OperationCounters>,
    in_flight: u64,
    in_flight_max: u64,
    connections: u64,
    log: VecDeque<RequestRecord>,
    number: u64,
}

/// The counters. The mutex is held for a few map operations and never across an await.
#[derive(Default)]
pub(crate) struct Counters {
    inner: Mutex<Inner>,
    sent: AtomicU64,
}

/// A request that is being handled; ends with its drop.
pub(crate) struct InFlight(Arc<Counters>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.inner.lock().in_flight -= 1;
    }
}

impl Counters {
    /// Notes the start of a request.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        let mut inner = self.inner.lock();
        inner.in_flight += 1;
        inner.in_flight_max = inner.in_flight_max.max(inner.in_flight);
        InFlight(Arc::clone(self))
    }

    /// Notes a connection.
    pub(crate) fn connected(&self) {
        self.inner.lock().connections += 1;
    }

    /// Notes bytes of a body that were handed to a connection.
    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes a request with its outcome, and keeps it if the log has room for `keep`.
    pub(crate) fn record(&self, mut record: RequestRecord, keep: usize) {
        let mut inner = self.inner.lock();
        let counters = inner.operations.entry(record.operation.clone()).or_default();
        counters.requests += 1;
        *counters.by_status.entry(record.status).or_default() += 1;
        counters.bytes_in += record.bytes_in;
        counters.bytes_out += record.bytes_out;
        inner.number += 1;
        record.number = inner.number;
        if keep > 0 {
            inner.log.push_back(record);
        }
        while inner.log.len() > keep {
            inner.log.pop_front();
        }
    }

    /// A look at them.
    pub(crate) fn view(&self) -> CountersView {
        let inner = self.inner.lock();
        CountersView {
            operations: inner.operations.clone(),
            bytes_sent: self.sent.load(Ordering::Relaxed),
            in_flight_max: inner.in_flight_max,
            connections: inner.connections,
        }
    }

    /// The remembered requests, oldest first.
    pub(crate) fn log(&self) -> Vec<RequestRecord> {
        self.inner.lock().log.iter().cloned().collect()
    }

    /// Back to zero; requests under way still count as in flight.
    pub(crate) fn reset(&self) {
        let mut inner = self.inner.lock();
        let in_flight = inner.in_flight;
        let number = inner.number;
        *inner = Inner { in_flight, in_flight_max: in_flight, number, ..Inner::default() };
        self.sent.store(0, Ordering::Relaxed);
    }
}
