//! The one list of requests and expected answers that keeps the emulator honest: it runs against the emulator and against
//! Azurite, with a client and a signature of its own. Must not use the emulator's code, or it would share its mistakes.
//!
//! A case whose `differs` names a reason is known to come out otherwise on Azurite; the run then demands that it fails
//! there, so that the reason does not outlive the difference.

mod account;
mod blobs;
mod blocks;
mod client;
mod copies;
mod hierarchy;
mod leases;
mod lists;
mod step;

use std::net::SocketAddr;

use client::Session;
use step::Step;

/// The server that is asked.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it listens (plain HTTP, path style).
    pub address: SocketAddr,
    /// An account of it.
    pub account: String,
    /// The account's key, in base64.
    pub key: String,
    /// Whether it is Azurite, whose known differences then apply.
    pub azurite: bool,
    /// Whether the account has a hierarchical namespace: then the cases of such accounts run, and no others.
    pub hierarchical: bool,
}

/// One claim about the service: requests in order, each with what must come back.
pub struct Case {
    /// The claim.
    pub name: &'static str,
    /// Why Azurite answers otherwise, if it does.
    pub differs: Option<&'static str>,
    /// Reads like the name of a container, so that every case has one of its own.
    steps: Vec<Step>,
}

impl Case {
    /// Marks a case that Azurite is known to answer otherwise.
    fn differs(mut self, reason: &'static str) -> Self {
        self.differs = Some(reason);
        self
    }
}

fn case(name: &'static str, steps: impl IntoIterator<Item = Step>) -> Case {
    Case { name, differs: None, steps: steps.into_iter().collect() }
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Claims that held.
    pub held: Vec<&'static str>,
    /// Claims that differ as marked, with the reason.
    pub known: Vec<(&'static str, &'static str)>,
    /// Claims that failed, with what was expected and what came.
    pub failed: Vec<(&'static str, String)>,
}

/// Every case of a flat account.
#[must_use]
pub fn cases() -> Vec<Case> {
    [blobs::cases(), blocks::cases(), lists::cases(), copies::cases(), leases::cases(), account::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// Every case of a hierarchical account.
#[must_use]
pub fn hierarchical_cases() -> Vec<Case> {
    hierarchy::cases()
}

/// Runs every case against a server, each in a container of its own, which is deleted afterwards.
#[must_use]
pub fn run(target: &Target) -> Report {
    let mut report = Report::default();
    let cases = if target.hierarchical { hierarchical_cases() } else { cases() };
    for (number, case) in cases.into_iter().enumerate() {
        let mut session = Session::new(target, &format!("case-{number}-{}", std::process::id()));
        let outcome = session.create_container().and_then(|()| session.run(&case.steps));
        session.delete_container();
        match (outcome, case.differs.filter(|_| target.azurite)) {
            (Ok(()), None) => report.held.push(case.name),
            (Err(_), Some(reason)) => report.known.push((case.name, reason)),
            (Err(why), None) => report.failed.push((case.name, why)),
            (Ok(()), Some(reason)) => {
                let why = format!("Azurite is marked as different (\"{reason}\") but answers as expected: unmark it");
                report.failed.push((case.name, why));
            }
        }
    }
    report
}
