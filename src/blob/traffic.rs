//! What a store asked of the service, and how that went: read by metrics, and by whoever wants to know whether the service is
//! there at all. Knows nothing of what the requests were for.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{Error, ErrorKind};
use crate::telemetry::metrics::{Counter, DATA_PATH_BOUNDS, Distribution, Histogram};

/// The requests of one store. Counters only grow.
#[derive(Debug, Default)]
pub struct Traffic {
    /// By the REST reference's name. A request takes far longer than this lock; nothing awaits inside.
    requests: Mutex<BTreeMap<&'static str, Requests>>,
    fetched_bytes: Counter,
    sent_bytes: Counter,
    retries: Counter,
    throttled: Counter,
    outage: Mutex<Option<Outage>>,
}

#[derive(Debug)]
struct Requests {
    /// By HTTP status, or what stands for one.
    ends: BTreeMap<End, u64>,
    duration: Histogram,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// With an answer of this HTTP status.
    Status(u16),
    /// Without an answer: no connection, or one that broke off.
    NoAnswer,
    /// Without an answer in time.
    TimedOut,
}

impl End {
    /// As metrics call it.
    #[must_use]
    pub fn label(self) -> String {
        match self {
            Self::Status(status) => status.to_string(),
            Self::NoAnswer => "none".to_owned(),
            Self::TimedOut => "timeout".to_owned(),
        }
    }
}

/// One operation's requests so far.
#[derive(Clone, Debug)]
pub struct RequestCounts {
    /// The REST reference's name.
    pub operation: &'static str,
    /// How many ended how.
    pub ends: Vec<(End, u64)>,
    /// How long they took to the head of their answer.
    pub duration: Distribution,
}

/// The service has not done anything for us for a while.
#[derive(Debug)]
pub struct Outage {
    /// When the first of the failures in a row was.
    pub began: Instant,
    /// How many requests in a row failed.
    pub failures: u64,
    /// The last of them.
    pub last: Error,
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficTotals {
    /// Bytes of blobs that arrived.
    pub fetched_bytes: u64,
    /// Bytes of bodies that were sent.
    pub sent_bytes: u64,
    /// Requests that were made again.
    pub retries: u64,
    /// Requests that were refused since the service is too busy.
    pub throttled: u64,
}

impl Traffic {
    /// A request ended, or the head of its answer is there.
    pub(super) fn note(&self, operation: &'static str, end: End, duration: Duration) {
        let mut requests = self.requests.lock();
        let known = requests
            .entry(operation)
            .or_insert_with(|| Requests { ends: BTreeMap::new(), duration: Histogram::new(DATA_PATH_BOUNDS) });
        *known.ends.entry(end).or_default() += 1;
        known.duration.observe(duration);
        if matches!(end, End::Status(429 | 503)) {
            self.throttled.add(1);
        }
    }

    /// Bytes of a blob arrived.
    pub(super) fn fetched(&self, bytes: u64) {
        self.fetched_bytes.add(bytes);
    }

    /// A body was sent.
    pub(super) fn sent(&self, bytes: u64) {
        self.sent_bytes.add(bytes);
    }

    /// A request is made again.
    pub(super) fn retried(&self) {
        self.retries.add(1);
    }

    /// The service did what it was asked for.
    pub(super) fn succeeded(&self) {
        let mut outage = self.outage.lock();
        if outage.is_some() {
            *outage = None;
        }
    }

    /// A try failed. What is an answer about one blob says that the service is there.
    pub(super) fn failed(&self, error: &Error) {
        if !is_of_service(error.kind) {
            return self.succeeded();
        }
        let (mut outage, last) = (self.outage.lock(), error.without_cause());
        *outage = Some(match outage.take() {
            Some(known) => Outage { failures: known.failures + 1, last, ..known },
            None => Outage { began: Instant::now(), failures: 1, last },
        });
    }

    /// What `look` sees of an outage under way, if there is one.
    pub fn outage<R>(&self, look: impl FnOnce(&Outage) -> R) -> Option<R> {
        self.outage.lock().as_ref().map(look)
    }

    /// Requests by operation.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestCounts> {
        let counts = |(operation, requests): (&&'static str, &Requests)| RequestCounts {
            operation,
            ends: requests.ends.iter().map(|(end, count)| (*end, *count)).collect(),
            duration: requests.duration.snapshot(),
        };
        self.requests.lock().iter().map(counts).collect()
    }

    /// Everything else.
    #[must_use]
    pub fn totals(&self) -> TrafficTotals {
        TrafficTotals {
            fetched_bytes: self.fetched_bytes.get(),
            sent_bytes: self.sent_bytes.get(),
            retries: self.retries.get(),
            throttled: self.throttled.get(),
        }
    }
}

/// Whether an error is about the service, the credential or the container, and so about everything in the volume.
fn is_of_service(kind: ErrorKind) -> bool {
    use ErrorKind as Kind;
    matches!(
        kind,
        Kind::ContainerNotFound | Kind::Denied | Kind::Throttled | Kind::Unreachable | Kind::TimedOut | Kind::Server
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind, status: Option<u16>) -> Error {
        Error {
            kind,
            operation: "Get Blob",
            resource: "c/b".to_owned(),
            host: "h".to_owned(),
            status,
            code: None,
            request_id: None,
            source: Some("the cause".into()),
        }
    }

    #[test]
    fn an_outage_begins_with_its_first_failure_and_ends_with_any_answer_about_a_blob() {
        let traffic = Traffic::default();
        assert!(traffic.outage(|_| ()).is_none());
        traffic.failed(&error(ErrorKind::Unreachable, None));
        let began = traffic.outage(|outage| outage.began).unwrap();
        traffic.failed(&error(ErrorKind::Server, Some(500)));
        let (began_then, failures, last) =
            traffic.outage(|outage| (outage.began, outage.failures, outage.last.to_string())).unwrap();
        assert_eq!((began_then, failures), (began, 2));
        assert!(last.contains("HTTP 500"), "{last}");
        traffic.failed(&error(ErrorKind::NotFound, Some(404)));
        assert!(traffic.outage(|_| ()).is_none(), "a blob that is missing is an answer");
    }

    #[test]
    fn requests_are_counted_by_operation_and_end() {
        let traffic = Traffic::default();
        for end in [End::Status(200), End::Status(503), End::Status(200), End::TimedOut] {
            traffic.note("Get Blob", end, Duration::from_millis(3));
        }
        let [counts] = &traffic.requests()[..] else { panic!() };
        assert_eq!(counts.ends, [(End::Status(200), 2), (End::Status(503), 1), (End::TimedOut, 1)]);
        assert_eq!((counts.duration.count(), traffic.totals().throttled), (4, 1));
    }
}
