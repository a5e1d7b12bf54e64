//! Asks in order: what the machine has, how far the endpoint can be reached, who we are, what we may do. Each question has its
//! own deadline, so an examination ends whatever the network does: within two minutes, in the worst of weathers.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use super::{
    access, cache_directory, cors, credential, dns, kernel, probes,
    report::{self, Report},
    service,
    tcp::{self, Way},
};
use crate::{
    blob::{AccountInfo, AzureStore, Connections, CorsRule, Greeting, Location, RequestLimits},
    credential::{Credential, CredentialSlot},
    finding::{Diagnosis, Finding},
};

/// What is examined: a volume, before it is mounted.
#[derive(Clone, Debug)]
pub struct Patient {
    /// Container and prefix.
    pub location: Location,
    /// What it signs with.
    pub credential: Credential,
    /// Sockets, and who is trusted behind them.
    pub connections: Connections,
}

/// What is asked beside what is always asked.
#[derive(Clone, Debug, Default)]
pub struct Questions {
    /// A missing container is no mistake: the mount makes it.
    pub creates_container: bool,
    /// Write a probe, and remove it.
    pub write: bool,
    /// Pages of this origin are to read the container.
    pub origin: Option<String>,
    /// Where the mount is to keep what it read.
    pub cache: Option<CacheDirectory>,
}

/// A cache directory.
#[derive(Clone, Debug)]
pub struct CacheDirectory {
    /// Where.
    pub path: PathBuf,
    /// Part of its file system that stays free, in percent.
    pub free_percent_min: u8,
}

/// The answer to one question.
#[derive(Clone, Debug)]
pub(super) enum Step<T> {
    /// It was answered well.
    Done(T),
    /// It was answered badly.
    Failed(Diagnosis),
    /// It was not asked, for this reason.
    Skipped(String),
}

impl<T> Step<T> {
    pub(super) fn done(&self) -> Option<&T> {
        match self {
            Self::Done(answer) => Some(answer),
            Self::Failed(_) | Self::Skipped(_) => None,
        }
    }

    pub(super) fn failed(&self) -> Option<&Diagnosis> {
        match self {
            Self::Failed(known) => Some(known),
            Self::Done(_) | Self::Skipped(_) => None,
        }
    }

    /// Why what builds on this was not asked; `None` where it can be.
    fn bars(&self) -> Option<String> {
        match self {
            Self::Done(_) => None,
            Self::Failed(known) => Some(format!("see {}", known.finding.name())),
            Self::Skipped(reason) => Some(reason.clone()),
        }
    }
}

/// All that was answered.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    pub(super) way: Way,
    pub(super) addresses: Step<Vec<SocketAddr>>,
    pub(super) connected: Step<SocketAddr>,
    pub(super) greeting: Step<Greeting>,
    pub(super) clock: Step<Duration>,
    /// What a credential says against itself.
    pub(super) credential: Step<String>,
    /// Who signs in, for tokens.
    pub(super) token: Step<String>,
    pub(super) account: Step<AccountInfo>,
    pub(super) list: Step<String>,
    pub(super) read: Step<String>,
    pub(super) write: Step<String>,
    pub(super) delete: Step<String>,
    pub(super) cors: Step<Vec<CorsRule>>,
    pub(super) kernel: Step<String>,
    pub(super) cache: Step<String>,
}

impl Evidence {
    /// Everything that was answered badly.
    pub(super) fn findings(&self) -> Vec<&Diagnosis> {
        let all = [
            self.addresses.failed(),
            self.connected.failed(),
            self.greeting.failed(),
            self.clock.failed(),
            self.credential.failed(),
            self.token.failed(),
            self.account.failed(),
            self.list.failed(),
            self.read.failed(),
            self.write.failed(),
            self.delete.failed(),
            self.cors.failed(),
            self.kernel.failed(),
            self.cache.failed(),
        ];
        let mut found: Vec<&Diagnosis> = Vec::new();
        for known in all.into_iter().flatten() {
            // A wrong endpoint is heard of by several questions.
            if !found.iter().any(|other| other.finding == known.finding) {
                found.push(known);
            }
        }
        found
    }
}

/// Examines `patient`. Changes nothing but what [`Questions::write`] asks for. Cancel-safe, but for a probe blob that may stay.
pub async fn examine(patient: &Patient, questions: &Questions) -> Report {
    let Patient { location, credential, connections } = patient;
    let way = Way::to(location);
    let addresses = dns::ask(&way).await;
    let connected = match addresses.bars() {
        Some(reason) => Step::Skipped(reason),
        None => tcp::ask(&way, addresses.done().map(Vec::as_slice).unwrap_or_default()).await,
    };
    let greeting = match connected.bars() {
        Some(reason) => Step::Skipped(reason),
        None => service::ask(connections, location).await,
    };
    let clock = match greeting.done() {
        Some(greeting) => service::clock(greeting, SystemTime::now()),
        None => Step::Skipped(greeting.bars().unwrap_or_default()),
    };
    let token = credential::token(credential, location).await;
    let store = AzureStore::with_connections(
        location.clone(),
        CredentialSlot::new(credential.clone()),
        RequestLimits::mounting(),
        connections,
    );
    // A token that is not there is heard of once, from its source.
    let barred = greeting.bars().or_else(|| token.failed().map(|known| format!("see {}", known.finding.name())));
    let access = match barred {
        Some(reason) => access::Access::skipped(&reason),
        None => access::ask(&store, credential, questions.creates_container).await,
    };
    let access = access.knowing(greeting.done(), location);
    let probes = match access.list.bars().or_else(|| access.made_by_mount.then(|| "no container yet".to_owned())) {
        Some(reason) => probes::Probes::skipped(&reason),
        None => probes::ask(&store, credential, questions.write).await,
    };
    let cors = match (&questions.origin, access.list.bars()) {
        (None, _) => Step::Skipped("no --origin was given".to_owned()),
        (Some(_), Some(reason)) => Step::Skipped(reason),
        (Some(origin), None) => cors::ask(&store, origin).await,
    };
    let evidence = Evidence {
        way,
        addresses,
        connected,
        greeting,
        clock,
        credential: credential::shape(credential, access.list.done().is_some()),
        token,
        account: access.account,
        list: access.list,
        read: probes.read,
        write: probes.write,
        delete: probes.delete,
        cors,
        kernel: kernel::ask(),
        cache: cache_directory::ask(questions.cache.as_ref()),
    };
    report::of(location, credential, &evidence)
}

/// The finding of a place that cannot be: nothing else can be asked.
#[must_use]
pub fn refused(place: &str, known: Diagnosis) -> Report {
    report::of_place(place, known)
}

/// Whether only the local network leads to an address.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        // 100.64.0.0/10 is shared address space (RFC 6598): what providers and overlays use.
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || a == 100 && (64..128).contains(&b)
        }
        // fc00::/7, fe80::/10 (RFC 4193, RFC 4291).
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            v6.is_loopback() || first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80
        }
    }
}

/// A finding that keeps no volume from being mounted.
pub(super) fn is_advice(finding: Finding) -> bool {
    matches!(
        finding,
        Finding::FileLimit
            | Finding::CacheDirectoryUnusable
            | Finding::CacheDirectoryFull
            | Finding::CorsMissing
            | Finding::CorsUnknown
    )
}
