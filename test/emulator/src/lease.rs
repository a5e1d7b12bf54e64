//! Leases: the state machine, and the rule that a leased resource is changed only under its lease id.
//! Must not know whether a blob or a container is leased.
//!
//! ```text
//! available --acquire--> leased --time--> expired --acquire--> leased
//!     ^                    |  ^                |
//!     |<----release--------|  '----renew-------'
//!     |                    '--break--> breaking --time--> broken --acquire--> leased
//!     '-----------------release-----------'-----------------'
//! ```
//! Rules: REST pages "Lease Blob" and "Lease Container", tables of outcomes.

use hyper::StatusCode;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{
    answer::Answer,
    call::Call,
    error::{Code, ServiceError},
};

/// Where a lease is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Available,
    Leased,
    Expired,
    Breaking,
    Broken,
}

/// The lease of one resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lease {
    /// The id, from the first acquire to a release.
    id: Option<Uuid>,
    /// `None`: infinite.
    duration: Option<Duration>,
    /// When a lease of finite duration ends.
    until: Option<OffsetDateTime>,
    /// When a break takes effect.
    broken_at: Option<OffsetDateTime>,
    /// Whether the resource changed since the lease expired: then it cannot be renewed.
    changed: bool,
}

impl Lease {
    /// The phase at a time.
    pub(crate) fn phase(&self, now: OffsetDateTime) -> Phase {
        match (self.id, self.broken_at, self.until) {
            (None, ..) => Phase::Available,
            (_, Some(at), _) if now >= at => Phase::Broken,
            (_, Some(_), _) => Phase::Breaking,
            (_, None, Some(until)) if now >= until => Phase::Expired,
            _ => Phase::Leased,
        }
    }

    /// Whether changes need the id.
    pub(crate) fn is_active(&self, now: OffsetDateTime) -> bool {
        matches!(self.phase(now), Phase::Leased | Phase::Breaking)
    }

    /// x-ms-lease-status, x-ms-lease-state, x-ms-lease-duration.
    pub(crate) fn facts(&self, now: OffsetDateTime) -> (&'static str, &'static str, Option<&'static str>) {
        let duration = if self.duration.is_some() { "fixed" } else { "infinite" };
        match self.phase(now) {
            Phase::Available => ("unlocked", "available", None),
            Phase::Leased => ("locked", "leased", Some(duration)),
            Phase::Expired => ("unlocked", "expired", None),
            Phase::Breaking => ("locked", "breaking", None),
            Phase::Broken => ("unlocked", "broken", None),
        }
    }

    /// Checks x-ms-lease-id of a request that changes the resource (`needed`) or only reads it.
    ///
    /// # Errors
    /// 412 with the code that says what is wrong with the id.
    pub(crate) fn check(&self, call: &Call, needed: bool, on: Target) -> Result<(), ServiceError> {
        let given = call.header("x-ms-lease-id")?;
        let given = given.map(|text| parse_id("x-ms-lease-id", text)).transpose()?;
        let active = self.is_active(call.now);
        match given {
            None if active && needed => Err(Code::LeaseIdMissing.into()),
            None => Ok(()),
            Some(id) if active && self.id == Some(id) => Ok(()),
            Some(_) if active => Err(on.mismatch().into()),
            Some(id) if self.id == Some(id) => Err(Code::LeaseLost.into()),
            Some(_) => Err(on.not_present().into()),
        }
    }

    /// Notes a change of the resource: an expired lease can no longer be renewed.
    pub(crate) fn note_change(&mut self, now: OffsetDateTime) {
        if self.phase(now) == Phase::Expired {
            self.changed = true;
        }
    }

    /// Does what x-ms-lease-action says.
    ///
    /// # Errors
    /// 409 with the code for the phase, 400 for what cannot be read.
    pub(crate) fn act(&mut self, call: &Call) -> Result<Answer, ServiceError> {
        let action = call.required_header("x-ms-lease-action")?.to_ascii_lowercase();
        match action.as_str() {
            "acquire" => self.acquire(call),
            "renew" => self.renew(call),
            "change" => self.change(call),
            "release" => self.release(call),
            "break" => self.break_off(call),
            _ => Err(ServiceError::bad_header("x-ms-lease-action", &action)),
        }
    }

    fn acquire(&mut self, call: &Call) -> Result<Answer, ServiceError> {
        let text = call.required_header("x-ms-lease-duration")?;
        let duration = match text.parse::<i64>() {
            Ok(-1) => None,
            Ok(seconds @ 15..=60) => Some(Duration::seconds(seconds)),
            _ => return Err(ServiceError::bad_header("x-ms-lease-duration", text)),
        };
        let proposed = call.header("x-ms-proposed-lease-id")?;
        let proposed = proposed.map(|text| parse_id("x-ms-proposed-lease-id", text)).transpose()?;
        match self.phase(call.now) {
            Phase::Leased if proposed.is_none() || proposed != self.id => Err(Code::LeaseAlreadyPresent.into()),
            Phase::Breaking if proposed.is_some() && proposed == self.id => {
                Err(Code::LeaseIsBreakingAndCannotBeAcquired.into())
            }
            Phase::Breaking => Err(Code::LeaseAlreadyPresent.into()),
            _ => {
                let id = proposed.unwrap_or_else(Uuid::new_v4);
                *self = Self { id: Some(id), duration, ..Self::default() };
                self.restart(call.now);
                Ok(answer(StatusCode::CREATED, Some(id)))
            }
        }
    }

    fn restart(&mut self, now: OffsetDateTime) {
        self.until = self.duration.map(|duration| now + duration);
    }

    /// The id that the request gives, if it is that of this lease.
    fn own_id(&self, call: &Call) -> Result<Uuid, ServiceError> {
        let given = parse_id("x-ms-lease-id", call.required_header("x-ms-lease-id")?)?;
        // Without any lease the code is the same: the outcome tables of renew and release say so.
        self.id.filter(|id| *id == given).ok_or_else(|| Code::LeaseIdMismatchWithLeaseOperation.into())
    }

    fn renew(&mut self, call: &Call) -> Result<Answer, ServiceError> {
        let id = self.own_id(call)?;
        match self.phase(call.now) {
            Phase::Breaking | Phase::Broken => Err(Code::LeaseIsBrokenAndCannotBeRenewed.into()),
            Phase::Expired if self.changed => Err(Code::LeaseIdMismatchWithLeaseOperation.into()),
            _ => {
                self.restart(call.now);
                Ok(answer(StatusCode::OK, Some(id)))
            }
        }
    }

    fn change(&mut self, call: &Call) -> Result<Answer, ServiceError> {
        let proposed = call.required_header("x-ms-proposed-lease-id")?;
        let proposed = parse_id("x-ms-proposed-lease-id", proposed)?;
        match self.phase(call.now) {
            Phase::Available | Phase::Expired | Phase::Broken => Err(Code::LeaseNotPresentWithLeaseOperation.into()),
            Phase::Breaking => Err(Code::LeaseIsBreakingAndCannotBeChanged.into()),
            Phase::Leased => {
                // A change that was done already is repeated without harm.
                if self.id != Some(proposed) {
                    self.own_id(call)?;
                }
                self.id = Some(proposed);
                Ok(answer(StatusCode::OK, Some(proposed)))
            }
        }
    }

    fn release(&mut self, call: &Call) -> Result<Answer, ServiceError> {
        self.own_id(call)?;
        *self = Self::default();
        Ok(answer(StatusCode::OK, None))
    }

    fn break_off(&mut self, call: &Call) -> Result<Answer, ServiceError> {
        let period = call.number_header("x-ms-lease-break-period")?;
        if period.is_some_and(|seconds| seconds > 60) {
            return Err(ServiceError::bad_header("x-ms-lease-break-period", "more than 60"));
        }
        let now = call.now;
        let left = |at: Option<OffsetDateTime>| at.map(|at| (at - now).max(Duration::ZERO));
        let asked = period.map(|seconds| Duration::seconds(seconds as i64));
        let wait = match self.phase(now) {
            Phase::Available => return Err(Code::LeaseNotPresentWithLeaseOperation.into()),
            Phase::Broken | Phase::Expired => Duration::ZERO,
            // The shorter of what is asked and what the lease has left; an infinite one ends at once if nothing is asked.
            Phase::Leased => match (asked, left(self.until)) {
                (Some(asked), Some(left)) => asked.min(left),
                (Some(asked), None) => asked,
                (None, left) => left.unwrap_or_default(),
            },
            Phase::Breaking => {
                let left = left(self.broken_at).unwrap_or_default();
                asked.map_or(left, |asked| asked.min(left))
            }
        };
        if self.phase(now) != Phase::Broken {
            self.broken_at = Some(now + wait);
        }
        Ok(Answer::new(StatusCode::ACCEPTED).header("x-ms-lease-time", wait.whole_seconds().to_string()))
    }
}

/// What is leased: the codes of a wrong id differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Blob,
    Container,
}

impl Target {
    fn mismatch(self) -> Code {
        match self {
            Self::Blob => Code::LeaseIdMismatchWithBlobOperation,
            Self::Container => Code::LeaseIdMismatchWithContainerOperation,
        }
    }

    fn not_present(self) -> Code {
        match self {
            Self::Blob => Code::LeaseNotPresentWithBlobOperation,
            Self::Container => Code::LeaseNotPresentWithContainerOperation,
        }
    }
}

fn parse_id(name: &'static str, text: &str) -> Result<Uuid, ServiceError> {
    Uuid::parse_str(text.trim()).map_err(|_| ServiceError::bad_header(name, text))
}

fn answer(status: StatusCode, id: Option<Uuid>) -> Answer {
    Answer::new(status).optional("x-ms-lease-id", id.map(|id| id.to_string()))
}
