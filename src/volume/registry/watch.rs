//! What people should hear of without looking: a service that is away or throttles, changes that were refused, a full volume.
//! One task looks at the counters of all volumes and tells what grew, each kind of news of a volume at most every few
//! minutes; nobody else waits for that. Nothing is asked of the service.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{Registry, Volume};
use crate::{
    finding::{Diagnosis, Finding},
    fs::FileSystem,
};

/// Between two looks. News are for people; looking costs some loads of counters a volume.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Between two events of one kind about one volume: Kubernetes keeps events for an hour.
const SAY_EVERY: Duration = Duration::from_secs(300);

/// The counters that news come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    throttled: u64,
    conflicts: u64,
    failures: u64,
    refusals: u64,
}

impl Counts {
    fn of(fs: &FileSystem) -> Self {
        let totals = fs.meter().totals();
        Self {
            throttled: fs.traffic().map_or(0, |traffic| traffic.totals().throttled),
            conflicts: totals.conflicts,
            // Counted one after the other, and read in between: the next look has both.
            failures: totals.commit_failures.saturating_sub(totals.conflicts),
            refusals: fs.quota_refusals(),
        }
    }

    /// What became of `before`, in words.
    fn news(self, before: Self, capacity: u64) -> Vec<Diagnosis> {
        let grown = [
            (Finding::Throttled, self.throttled, before.throttled),
            (Finding::Conflict, self.conflicts, before.conflicts),
            (Finding::NotSaved, self.failures, before.failures),
            (Finding::QuotaReached, self.refusals, before.refusals),
        ];
        let capacity = capacity.to_string();
        let say = |(finding, now, then): (Finding, u64, u64)| {
            (now > then).then(|| finding.with(&[("count", &(now - then).to_string()), ("capacity", &capacity)]))
        };
        grown.into_iter().filter_map(say).collect()
    }
}

/// What one volume was when it was looked at last.
#[derive(Debug, Default)]
struct Seen {
    /// Counters up to which everything was said, by kind of news.
    said: HashMap<Finding, (Instant, Counts)>,
}

impl Seen {
    /// News that were not said for a while.
    fn due(&mut self, now: Counts, outage: Option<Diagnosis>, capacity: u64) -> Vec<Diagnosis> {
        let mut due = Vec::new();
        for finding in [Finding::Throttled, Finding::Conflict, Finding::NotSaved, Finding::QuotaReached] {
            let before = self.said.get(&finding);
            if before.is_some_and(|(when, _)| when.elapsed() < SAY_EVERY) {
                continue;
            }
            let since = before.map_or_else(Counts::default, |(_, counts)| *counts);
            let news = now.news(since, capacity).into_iter().find(|known| known.finding == finding);
            if let Some(known) = news {
                self.said.insert(finding, (Instant::now(), now));
                due.push(known);
            }
        }
        let known = outage.filter(|known| {
            known.finding != Finding::Throttled
                && self.said.get(&known.finding).is_none_or(|(when, _)| when.elapsed() >= SAY_EVERY)
        });
        if let Some(known) = known {
            self.said.insert(known.finding, (Instant::now(), now));
            due.push(known);
        }
        due
    }
}

impl Registry {
    /// Tells what happens to volumes to whom their specs name, until the registry is gone.
    pub fn watch(self: &Arc<Self>) {
        let registry = Arc::downgrade(self);
        drop(tokio::spawn(watch(registry)));
    }

    fn told_volumes(&self) -> Vec<(String, Volume)> {
        let volumes = self.volumes.lock();
        volumes
            .iter()
            .filter(|(_, volume)| volume.spec.notices.is_some())
            .map(|(id, it)| (id.clone(), it.clone()))
            .collect()
    }
}

async fn watch(registry: Weak<Registry>) {
    let mut seen: HashMap<String, Seen> = HashMap::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(registry) = registry.upgrade() else { return };
        let volumes = registry.told_volumes();
        drop(registry);
        seen.retain(|id, _| volumes.iter().any(|(known, _)| known == id));
        for (id, volume) in volumes {
            let fs = volume.core.file_system();
            let news = seen.entry(id).or_default().due(Counts::of(fs), volume.core.outage(), fs.usage().capacity);
            let users: Vec<_> = volume.targets.values().map(|target| target.user.clone()).collect();
            for known in news {
                tracing::warn!(container = %volume.core.location(), "{known}");
                if let Some(notices) = &volume.spec.notices {
                    notices.warn(&known, &users).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grew_is_said_once_with_its_sentence() {
        let mut seen = Seen::default();
        assert!(seen.due(Counts::default(), None, 1).is_empty());
        let now = Counts { throttled: 3, conflicts: 1, failures: 2, refusals: 5 };
        let said = seen.due(now, None, 1000);
        let findings: Vec<_> = said.iter().map(|known| known.finding).collect();
        assert_eq!(findings, [Finding::Throttled, Finding::Conflict, Finding::NotSaved, Finding::QuotaReached]);
        assert!(said[3].to_string().contains("5 writes") && said[3].to_string().contains("1000 bytes"), "{}", said[3]);
        let later = Counts { refusals: 9, ..now };
        assert!(seen.due(later, None, 1000).is_empty(), "not again within minutes");
        seen.said.remove(&Finding::QuotaReached);
        assert_eq!(seen.due(later, None, 1000).len(), 1, "and what came meanwhile is not forgotten");
        let away = Finding::Unreachable.with(&[]);
        assert_eq!(seen.due(later, Some(away.clone()), 1000), std::slice::from_ref(&away));
        assert!(seen.due(later, Some(away), 1000).is_empty());
    }
}
