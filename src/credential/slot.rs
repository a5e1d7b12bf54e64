//! The place that holds the credential in use. Refilled at run time, without a remount and without a pause.
//!
//! What becomes of a refusal ([`CredentialSlot::renew`]): the source is read again, and what has not been refused yet is put
//! in use, the first that there is of: what the source says now; what was offered last; the second key of each; what was in
//! use before. So a rotation needs no order: the Secret may change before the service does, or after it. When all are
//! refused, nothing is tried for a growing pause, so that a wave of refused requests costs one reading, and a refused mount
//! no storm of them. A request that succeeds ends all that.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use tokio::sync::Mutex;

use super::{Credential, CredentialSource};

/// First pause after everything was refused. Doubles each time.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause: what an operator waits for at most after the repair.
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A source that takes longer is not waited for: requests are.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Holds one credential and hands it out per try. A request in flight keeps what it was signed with; the next try
/// uses the new one. Shared by every store that was made with it.
pub struct CredentialSlot {
    /// Guards the pointers only: taken for the time of one clone, nothing awaits inside.
    held: RwLock<Held>,
    /// Counts replacements, so that a refused try can tell whether another credential has arrived since.
    generation: AtomicU64,
    /// The last generation that the service took, plus one.
    worked: AtomicU64,
    source: Option<Arc<dyn CredentialSource>>,
    /// One renewal at a time: those that were refused together wait for it and find another credential in use.
    renewal: Mutex<Renewal>,
    /// What the source failed with last: that is said once.
    said: parking_lot::Mutex<String>,
}

struct Held {
    current: Arc<Credential>,
    /// In use before: a Secret may be ahead of the service.
    previous: Option<Arc<Credential>>,
    /// Brought along and not taken by the service yet.
    offered: Option<Arc<Credential>>,
}

/// What is known of the refusals since the service took a credential last.
#[derive(Default)]
struct Renewal {
    refused: Vec<Arc<Credential>>,
    /// How often everything was refused.
    failures: u32,
    /// Nothing is tried before.
    rest_until: Option<Instant>,
}

impl CredentialSlot {
    /// A slot that holds `credential`, which nobody can read again.
    #[must_use]
    pub fn new(credential: Credential) -> Arc<Self> {
        Self::build(credential, None)
    }

    /// A slot that holds `credential`, and knows where it came from.
    #[must_use]
    pub fn with_source(credential: Credential, source: Arc<dyn CredentialSource>) -> Arc<Self> {
        Self::build(credential, Some(source))
    }

    fn build(credential: Credential, source: Option<Arc<dyn CredentialSource>>) -> Arc<Self> {
        let held = Held { current: Arc::new(credential), previous: None, offered: None };
        Arc::new(Self {
            held: RwLock::new(held),
            generation: AtomicU64::new(0),
            worked: AtomicU64::new(0),
            source,
            renewal: Mutex::default(),
            said: parking_lot::Mutex::default(),
        })
    }

    /// The credential to use now.
    #[must_use]
    pub fn current(&self) -> Arc<Credential> {
        Arc::clone(&self.held.read().current)
    }

    /// Where it comes from, if that can be read again.
    #[must_use]
    pub fn source(&self) -> Option<&Arc<dyn CredentialSource>> {
        self.source.as_ref()
    }

    /// Puts another credential in. Takes effect with the next try of every request.
    pub fn replace(&self, credential: Credential) {
        self.put(Arc::new(credential));
    }

    /// Keeps a credential for the time when the one in use is refused: the service does not take it yet.
    pub fn offer(&self, credential: Credential) {
        self.held.write().offered = Some(Arc::new(credential));
    }

    fn put(&self, credential: Arc<Credential>) {
        {
            let mut held = self.held.write();
            held.previous = Some(std::mem::replace(&mut held.current, credential));
        }
        // Release pairs with the Acquire in `generation`: who sees the new number finds the new credential.
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// How often the credential was replaced.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The service took the credential of this generation.
    pub fn note_success(&self, generation: u64) {
        // Read first: every request comes by here, and a cache line that nobody writes is free.
        if self.worked.load(Ordering::Relaxed) != generation + 1 {
            self.worked.store(generation + 1, Ordering::Relaxed);
        }
    }

    /// The service refused the credential of `generation`, token number `token` where it is one. Tells whether there is
    /// another one in use now. Cancel-safe.
    pub async fn renew(&self, generation: u64, token: u64) -> bool {
        let credential = self.current();
        if self.generation() != generation {
            return true;
        }
        if credential.renew(token).await {
            return true;
        }
        let mut renewal = self.renewal.lock().await;
        if self.generation() != generation {
            return true;
        }
        self.next(&mut renewal, credential, generation, Instant::now()).await
    }

    /// Puts the next credential in use that was not refused yet.
    async fn next(&self, renewal: &mut Renewal, refused: Arc<Credential>, generation: u64, now: Instant) -> bool {
        if self.worked.load(Ordering::Relaxed) == generation + 1 {
            // It worked until now: this is the first refusal of a new wave.
            *renewal = Renewal::default();
            self.worked.store(0, Ordering::Relaxed);
        }
        if renewal.rest_until.is_some_and(|until| now < until) {
            return false;
        }
        renewal.refused.push(refused);
        let candidates = self.candidates().await;
        let is_new = |candidate: &&Arc<Credential>| !renewal.refused.iter().any(|known| known.signs_like(candidate));
        if let Some(next) = candidates.iter().find(is_new) {
            tracing::info!("the credential is refused: another one is tried ({})", next.describe());
            self.put(Arc::clone(next));
            return true;
        }
        let pause = REFUSED_PAUSE.saturating_mul(2_u32.saturating_pow(renewal.failures)).min(REFUSED_PAUSE_MAX);
        *renewal = Renewal { refused: Vec::new(), failures: renewal.failures + 1, rest_until: Some(now + pause) };
        // The one that is meant is the one to stay with.
        if let Some(first) = candidates.first().filter(|first| !first.signs_like(&self.current())) {
            self.put(Arc::clone(first));
        }
        false
    }

    fn say(&self, what: String) {
        let mut said = self.said.lock();
        if *said != what {
            tracing::warn!("{what}");
            *said = what;
        }
    }

    /// What could be tried, in the order of the module's doc.
    async fn candidates(&self) -> Vec<Arc<Credential>> {
        let mut first = Vec::new();
        if let Some(source) = &self.source {
            match tokio::time::timeout(READ_TIMEOUT, source.read()).await {
                Ok(Ok(credential)) => {
                    self.said.lock().clear();
                    first.push(Arc::new(credential));
                }
                Ok(Err(error)) => self.say(format!("{} cannot be used: {error}", source.describe())),
                Err(_) => self.say(format!("{} does not answer", source.describe())),
            }
        }
        let previous = {
            let held = self.held.read();
            first.extend(held.offered.clone());
            first.push(Arc::clone(&held.current));
            held.previous.clone()
        };
        let spares: Vec<_> = first.iter().chain(&previous).filter_map(|known| known.spare().map(Arc::new)).collect();
        first.into_iter().chain(spares).chain(previous).collect()
    }
}

impl fmt::Debug for CredentialSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialSlot")
            .field("kind", &self.current().describe())
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
