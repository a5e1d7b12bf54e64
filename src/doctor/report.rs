//! What an examination has found, check by check, in words and as JSON. Asks nothing.

use std::fmt;

use serde_json::{Value, json};

use super::{
    cors::shown,
    examine::{Evidence, Step, is_advice, is_private},
};
use crate::{
    blob::Location,
    credential::Credential,
    finding::{Check, Diagnosis},
};

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is well; with what was seen.
    Passed(String),
    /// Something is not.
    Found(Diagnosis),
    /// It was not asked, or does not matter here, for this reason.
    Skipped(String),
}

impl Verdict {
    /// One word for reports: `ok`, `found`, `advice` or `skipped`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed(_) => "ok",
            Self::Found(known) if is_advice(known.finding) => "advice",
            Self::Found(_) => "found",
            Self::Skipped(_) => "skipped",
        }
    }
}

/// All checks, in order. [`fmt::Display`] is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What was examined, without its query.
    pub place: String,
    /// Each check with its verdict; a check with several findings stands there several times.
    pub checks: Vec<(Check, Verdict)>,
}

impl Report {
    /// Whether mounting would work, as far as was asked. Advice is no obstacle.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.checks.iter().all(|(_, verdict)| verdict.word() != "found")
    }

    /// The findings, advice included.
    pub fn findings(&self) -> impl Iterator<Item = &Diagnosis> {
        self.checks.iter().filter_map(|(_, verdict)| match verdict {
            Verdict::Found(known) => Some(known),
            Verdict::Passed(_) | Verdict::Skipped(_) => None,
        })
    }

    /// For machines: `place`, `healthy`, and `checks` with `check`, `result`, `text`, and, where something was found,
    /// `finding` and `fix`. Names stay; texts do not.
    #[must_use]
    pub fn json(&self) -> Value {
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|(check, verdict)| {
                let (check, result) = (check.name(), verdict.word());
                match verdict {
                    Verdict::Passed(text) | Verdict::Skipped(text) => {
                        json!({ "check": check, "result": result, "text": text })
                    }
                    Verdict::Found(Diagnosis { finding, cause, fix }) => {
                        let finding = finding.name();
                        json!({ "check": check, "result": result, "text": cause, "finding": finding, "fix": fix })
                    }
                }
            })
            .collect();
        json!({ "place": self.place, "healthy": self.is_healthy(), "checks": checks })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.place)?;
        for (check, verdict) in &self.checks {
            let (word, name) = (verdict.word(), check.name());
            match verdict {
                Verdict::Passed(text) | Verdict::Skipped(text) => writeln!(f, "{word:8} {name:17} {text}")?,
                Verdict::Found(Diagnosis { finding, cause, fix }) => {
                    writeln!(f, "{word:8} {name:17} {cause} [{}]", finding.name())?;
                    writeln!(f, "{:26} fix: {fix}", "")?;
                }
            }
        }
        let found = self.checks.iter().filter(|(_, verdict)| verdict.word() == "found").count();
        match found {
            0 => writeln!(f, "nothing keeps this from being mounted"),
            1 => writeln!(f, "1 finding keeps this from being mounted"),
            found => writeln!(f, "{found} findings keep this from being mounted"),
        }
    }
}

/// The report of an examination.
pub(super) fn of(location: &Location, credential: &Credential, evidence: &Evidence) -> Report {
    let findings = evidence.findings();
    let mut checks = Vec::new();
    for check in Check::ALL {
        let found = findings.iter().filter(|known| known.finding.row().check == *check);
        let before = checks.len();
        checks.extend(found.map(|known| (*check, Verdict::Found((*known).clone()))));
        if checks.len() == before {
            checks.push((*check, unfound(*check, location, credential, evidence)));
        }
    }
    Report { place: location.to_string(), checks }
}

/// The report about a place that cannot be.
pub(super) fn of_place(place: &str, known: Diagnosis) -> Report {
    let place = place.split(['?', '#']).next().unwrap_or_default().to_owned();
    let (own, reason) = (known.finding.row().check, format!("see {}", known.finding.name()));
    let mut checks: Vec<_> = Check::ALL.iter().map(|check| (*check, Verdict::Skipped(reason.clone()))).collect();
    if let Some((_, verdict)) = checks.iter_mut().find(|(check, _)| *check == own) {
        *verdict = Verdict::Found(known);
    }
    Report { place, checks }
}

/// A step's own verdict; its finding, if it has one, belongs to another check.
fn verdict<T>(step: &Step<T>, said: impl FnOnce(&T) -> String) -> Verdict {
    match step {
        Step::Done(answer) => Verdict::Passed(said(answer)),
        Step::Failed(known) => Verdict::Skipped(format!("see {}", known.finding.name())),
        Step::Skipped(reason) => Verdict::Skipped(reason.clone()),
    }
}

/// The verdict of a check without findings.
fn unfound(check: Check, location: &Location, credential: &Credential, evidence: &Evidence) -> Verdict {
    let Evidence { way, greeting, list, .. } = evidence;
    let key = matches!(credential, Credential::SharedKey(_));
    let sas = matches!(credential, Credential::Sas(_));
    let token = matches!(credential, Credential::Token(_));
    // The service answers these with the first listing: refused for one reason, it says nothing of the others.
    let by_list = |applies: bool, said: &str| match applies {
        true => verdict(list, |_| said.to_owned()),
        false => Verdict::Skipped(format!("signs with {}", credential.describe())),
    };
    match check {
        Check::Location => {
            Verdict::Passed(format!("container {} of account {}", location.container(), location.account()))
        }
        Check::Dns => verdict(&evidence.addresses, |addresses| match &way.proxy {
            Some(proxy) => format!("the proxy {proxy} looks {} up", way.host),
            None => named(addresses.iter().map(std::net::SocketAddr::ip)),
        }),
        Check::Tcp => verdict(&evidence.connected, |address| match &way.proxy {
            Some(proxy) => format!("the proxy {proxy} listens"),
            None => format!("{address} listens"),
        }),
        Check::Tls if !location.is_https() => Verdict::Skipped("the endpoint is http".to_owned()),
        Check::Tls => verdict(greeting, |_| "the certificate is good".to_owned()),
        Check::Http => verdict(greeting, |greeting| {
            let server = greeting.server.as_deref().unwrap_or("a Blob service");
            let version = greeting.version.as_deref().unwrap_or("2023-11-03");
            format!("{server} answers, in version {version}")
        }),
        Check::Clock => verdict(&evidence.clock, |skew| format!("{} s from the service's", skew.as_secs())),
        Check::Account => verdict(&evidence.account, |info| {
            (if info.hierarchical { "hierarchical namespace" } else { "flat namespace" }).to_owned()
        }),
        Check::Firewall => by_list(true, "the network rules let this machine in"),
        Check::Credential => verdict(&evidence.credential, String::clone),
        Check::Key => by_list(key || sas, "the account takes it"),
        Check::PublicAccess => by_list(!key && !sas && !token, "the container is public"),
        Check::SharedKey => by_list(key, "the account allows keys"),
        Check::Role => by_list(token, "the identity may list"),
        Check::WorkloadIdentity => source(credential, &evidence.token, "workload identity"),
        Check::ServicePrincipal => source(credential, &evidence.token, "service principal"),
        Check::ManagedIdentity => source(credential, &evidence.token, "managed identity"),
        Check::Token => verdict(&evidence.token, |who| format!("there is one, for {who}")),
        Check::Container => by_list(true, "the container is there"),
        Check::List => verdict(list, String::clone),
        Check::Read => verdict(&evidence.read, String::clone),
        Check::Write => verdict(&evidence.write, String::clone),
        Check::Delete => verdict(&evidence.delete, String::clone),
        Check::Cors => verdict(&evidence.cors, |rules| shown(rules)),
        Check::Kernel => verdict(&evidence.kernel, String::clone),
        Check::CacheDirectory => verdict(&evidence.cache, String::clone),
    }
}

/// The check of one way to sign in: it matters where that way was taken.
fn source(credential: &Credential, token: &Step<String>, way: &str) -> Verdict {
    let who = match credential {
        Credential::Token(token) => token.describe(),
        other => other.describe().to_owned(),
    };
    match who.starts_with(way) {
        true => verdict(token, |who| format!("{who} signs in")),
        false => Verdict::Skipped(format!("signs with {who}")),
    }
}

/// Addresses, and whether they are private.
fn named(addresses: impl Iterator<Item = std::net::IpAddr>) -> String {
    let kind = |address| if is_private(address) { "private" } else { "public" };
    addresses.map(|address| format!("{address} ({})", kind(address))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Finding;

    #[test]
    fn a_report_of_a_place_that_cannot_be_has_one_finding_and_no_query() {
        let known = Finding::UrlMalformed.with(&[("text", "x"), ("reason", "y")]);
        let report = of_place("https://x/?sig=s3cret", known);
        assert!(!report.is_healthy() && report.findings().count() == 1);
        assert_eq!(report.checks.len(), Check::ALL.len());
        let (text, json) = (report.to_string(), report.json().to_string());
        assert!(text.contains("[url-malformed]") && json.contains("\"finding\":\"url-malformed\""), "{text}{json}");
        assert!(!text.contains("s3cret") && !json.contains("s3cret"));
    }

    #[test]
    fn advice_is_no_obstacle() {
        let advice = Verdict::Found(Finding::CacheDirectoryFull.with(&[]));
        let report = Report { place: String::new(), checks: vec![(Check::CacheDirectory, advice)] };
        assert!(report.is_healthy() && report.to_string().contains("advice"), "{report}");
    }

    #[test]
    fn an_address_is_private_or_public() {
        let shown = |text: &str| named(std::iter::once(text.parse().unwrap()));
        for private in
            ["10.1.2.3", "127.0.0.1", "192.168.0.1", "100.64.0.1", "169.254.1.1", "::1", "fd00::1", "fe80::1"]
        {
            assert!(shown(private).ends_with("(private)"), "{private}");
        }
        for public in ["20.60.1.1", "100.128.0.1", "2603:1030::1"] {
            assert!(shown(public).ends_with("(public)"), "{public}");
        }
    }
}
