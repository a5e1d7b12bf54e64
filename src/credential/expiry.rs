//! What ends is said ahead: a day and an hour before a SAS does, while there is time for another one. Tokens are no matter of
//! people: they are renewed by themselves.

use std::{
    sync::Weak,
    time::{Duration, SystemTime},
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::CredentialSlot;
use crate::finding::{Diagnosis, Finding};

/// How long before the end it is said, the longest first, and how that is put.
const AHEAD: [(Duration, &str); 2] =
    [(Duration::from_secs(24 * 3600), "a day"), (Duration::from_secs(3600), "an hour")];
/// How often the clock is looked at. Nothing is sent for it.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// What was said of an end.
#[derive(Debug, Default)]
struct Told {
    end: Option<SystemTime>,
    /// How many of [`AHEAD`] were said of it.
    steps: usize,
}

impl Told {
    /// What is to be said at `now` of a credential that ends at `end`, if that was not said yet.
    fn due(&mut self, end: Option<SystemTime>, now: SystemTime) -> Option<Diagnosis> {
        if end != self.end {
            *self = Self { end, steps: 0 };
        }
        // One that has ended is told of by the requests that fail.
        let left = end?.duration_since(now).ok()?;
        let steps = AHEAD.iter().take_while(|(ahead, _)| left <= *ahead).count();
        if steps <= self.steps {
            return None;
        }
        self.steps = steps;
        let when = OffsetDateTime::from(end?).format(&Rfc3339).unwrap_or_default();
        Some(Finding::SasEnds.with(&[("when", &when), ("ahead", AHEAD[steps - 1].1)]))
    }
}

/// Says ahead that the credential in use ends, each time one does, until the slot is gone. To be spawned.
pub async fn watch_expiry<F: Future<Output = ()>>(slot: Weak<CredentialSlot>, say: impl Fn(Diagnosis) -> F) {
    let mut told = Told::default();
    loop {
        let Some(end) = slot.upgrade().map(|slot| slot.current().expires()) else { return };
        if let Some(known) = told.due(end, SystemTime::now()) {
            say(known).await;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sas_is_said_to_end_a_day_and_an_hour_ahead_once_each() {
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let before = |hours: f64| end - Duration::from_secs_f64(hours * 3600.0);
        let mut told = Told::default();
        let mut said = |end, now| told.due(end, now).map(|known| known.cause);
        assert_eq!(said(Some(end), before(25.0)), None);
        let day = said(Some(end), before(24.0)).unwrap();
        assert!(day.contains("2027-01-15T08:00:00Z") && day.contains("a day"), "{day}");
        assert_eq!(said(Some(end), before(2.0)), None);
        assert!(said(Some(end), before(0.5)).unwrap().contains("an hour"));
        assert_eq!(said(Some(end), before(0.1)), None);
        assert_eq!(said(Some(end), end + LOOK_INTERVAL), None);
        // A new one, which a node sees for the first time when its last hour has begun.
        let next = end + Duration::from_secs(600);
        assert!(said(Some(next), before(0.0)).unwrap().contains("an hour"));
        assert_eq!(said(None, before(0.0)), None);
        assert_eq!(Finding::SasEnds.name(), "sas-ends");
    }
}
