//! TLS and HTTP: whether a Blob service answers, in our protocol's version, and what time it has.

use std::time::{Duration, SystemTime};

use super::{diagnose, examine::Step};
use crate::{
    blob::{Connections, Greeting, Location},
    credential::Credential,
    finding::Finding,
};

/// Time for an answer, handshakes included.
const WITHIN: Duration = Duration::from_secs(8);

/// The service refuses signatures that are further from its own time (REST: "Authorize with Shared Key", 15 minutes).
const SKEW_MAX: Duration = Duration::from_secs(15 * 60);

pub(super) async fn ask(connections: &Connections, location: &Location) -> Step<Greeting> {
    let greeting = match Greeting::hear(connections, location, WITHIN).await {
        Ok(greeting) => greeting,
        Err(error) => return Step::Failed(diagnose(&error, location, &Credential::Anonymous)),
    };
    match (greeting.code.as_deref(), &greeting.request_id) {
        (Some("InvalidHeaderValue" | "UnsupportedHeader"), _) => Step::Failed(Finding::ServiceTooOld.with(&[])),
        (Some("AccountRequiresHttps"), _) => Step::Failed(Finding::HttpsRequired.with(&[])),
        (_, None) => {
            let reason = format!("HTTP {}, without x-ms-request-id", greeting.status);
            Step::Failed(Finding::NotABlobService.with(&[("host", location.host()), ("reason", &reason)]))
        }
        _ => Step::Done(greeting),
    }
}

/// How far our clock, `now`, is from the service's.
pub(super) fn clock(greeting: &Greeting, now: SystemTime) -> Step<Duration> {
    let Some(theirs) = greeting.date else { return Step::Skipped("the service does not say its time".to_owned()) };
    let (skew, word) = match now.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead"),
        Err(behind) => (behind.duration(), "behind"),
    };
    if skew <= SKEW_MAX {
        return Step::Done(skew);
    }
    let skew = format!("{} minutes (it is {word})", skew.as_secs() / 60);
    Step::Failed(Finding::ClockSkew.with(&[("skew", &skew)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_may_be_a_quarter_of_an_hour_off() {
        let now = SystemTime::now();
        let at = |date| clock(&Greeting { date: Some(date), ..Greeting::default() }, now);
        assert!(at(now + SKEW_MAX).done().is_some() && at(now - SKEW_MAX).done().is_some());
        let behind = at(now + SKEW_MAX + Duration::from_secs(60));
        assert!(behind.failed().unwrap().cause.contains("16 minutes (it is behind)"), "{behind:?}");
        assert!(matches!(clock(&Greeting::default(), now), Step::Skipped(_)));
    }
}
