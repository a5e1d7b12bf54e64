//! What goes wrong with identity services on purpose. Must not know how a fault is carried out.

use std::time::Duration;

use parking_lot::Mutex;

use crate::identity::cloud::IdentityService;

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityFaultKind {
    /// This status, with a body as the service sends it along with such a status.
    Status {
        /// HTTP status, such as 429.
        status: u16,
        /// Retry-After, in whole seconds.
        retry_after: Option<Duration>,
    },
    /// The authority refuses with this AADSTS code and the facts of the request.
    Refuse(u32),
    /// The request is answered this much later.
    Slow(Duration),
    /// The connection ends without an answer.
    Drop,
}

/// A rule. Of several the first that applies is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFault {
    service: IdentityService,
    kind: IdentityFaultKind,
    left: Option<u64>,
}

impl IdentityFault {
    /// A fault of every request to a service other than [`IdentityService::Storage`], which has rules of its own.
    #[must_use]
    pub fn new(service: IdentityService, kind: IdentityFaultKind) -> Self {
        Self { service, kind, left: None }
    }

    /// Only so often.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.left = Some(count);
        self
    }
}

/// The rules.
#[derive(Default)]
pub(crate) struct IdentityFaults(Mutex<Vec<IdentityFault>>);

impl IdentityFaults {
    /// Adds a rule.
    pub(crate) fn add(&self, fault: IdentityFault) {
        self.0.lock().push(fault);
    }

    /// Removes all rules.
    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }

    /// The fault that strikes a request to a service, if any.
    pub(crate) fn strike(&self, service: IdentityService) -> Option<IdentityFaultKind> {
        let mut rules = self.0.lock();
        let rule = rules.iter_mut().find(|rule| rule.service == service && rule.left != Some(0))?;
        rule.left = rule.left.map(|left| left - 1);
        Some(rule.kind.clone())
    }
}
