//! Credentials that a service of Azure keeps for us: a secret of a key vault, or the keys that the resource manager lists.
//!
//! What was found is kept for a while per question and identity, so that the kubelet's repetitions and many volumes of one
//! account cost one request: the resource manager throttles whole subscriptions. A refusal is kept too, for a shorter
//! time, and for as long as the service asks to be left alone.

mod accounts;
mod key_vault;
mod resource_manager;
mod rest;

use std::{
    fmt,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::Mutex as TurnOf;
use url::Url;

pub use self::{
    accounts::{AccountWanted, Accounts},
    key_vault::VaultSecret,
    resource_manager::AccountKeys,
};
use super::{Cloud, Credential, CredentialSource, IdentityHttp, TokenCredential, TokenError, TokenErrorKind};
use crate::finding::{Diagnosis, Finding};

/// How long an answer is taken for a new volume without asking again. A mount that is refused asks before.
const FRESH_FOR: Duration = Duration::from_secs(10 * 60);
/// The least time between two questions that are alike: a volume whose key was refused waits for that long. It must be short,
/// since what such a volume saves meanwhile is refused for good; the slot's growing pause keeps it from asking for ever.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long a refusal is taken without asking again: what an operator waits for at most after the repair.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Answers that are kept. A node has some hundred volumes at most. (Unwrapped by the compiler, as the next one is.)
const ANSWERS_MAX: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Identities whose tokens are kept.
const IDENTITIES_MAX: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// Why there is no credential. One sentence with the fix; holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupError {
    /// Whether another try may do better.
    pub kind: TokenErrorKind,
    /// What is wrong.
    pub known: Diagnosis,
    retry_after: Option<Duration>,
}

impl LookupError {
    fn of(kind: TokenErrorKind, known: Diagnosis) -> Self {
        Self { kind, known, retry_after: None }
    }

    /// In the words of the service.
    fn said(service: &str, kind: TokenErrorKind, words: &str) -> Self {
        Self::of(kind, Finding::LookupRefused.with(&[("service", service), ("reason", words)]))
    }

    /// Something else answers at `url`.
    fn garbled(service: &str, url: &Url, reason: &str) -> Self {
        let host = url.host_str().unwrap_or_default();
        Self::said(service, TokenErrorKind::Refused, &format!("{reason} ({host})"))
    }
}

impl From<TokenError> for LookupError {
    fn from(error: TokenError) -> Self {
        Self { kind: error.kind, known: error.diagnosis(), retry_after: error.retry_after }
    }
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.known, f)
    }
}

impl std::error::Error for LookupError {}

/// What is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// A secret of a key vault.
    Vault(VaultSecret),
    /// The keys of an account.
    Keys(AccountKeys),
}

impl Question {
    /// The resource that tokens for the service are made for.
    #[must_use]
    pub fn audience(&self) -> String {
        match self {
            Self::Vault(secret) => secret.audience(),
            Self::Keys(keys) => keys.audience(),
        }
    }

    /// What it is, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Vault(secret) => secret.describe(),
            Self::Keys(keys) => keys.describe(),
        }
    }

    /// The cloud that answers.
    #[must_use]
    pub fn cloud(&self) -> Cloud {
        match self {
            Self::Vault(secret) => secret.cloud(),
            Self::Keys(keys) => keys.cloud,
        }
    }

    async fn read(&self, http: &IdentityHttp, tokens: &TokenCredential) -> Result<Credential, LookupError> {
        match self {
            Self::Vault(secret) => secret.read(http, tokens).await,
            Self::Keys(keys) => keys.read(http, tokens).await,
        }
    }
}

/// An answer.
struct Held {
    answer: Result<Credential, LookupError>,
    /// When it was asked for.
    asked: Instant,
    /// Until when a refusal is taken without asking again.
    until: Instant,
}

/// One question's answer. Who asks holds the lock meanwhile, and the others wait for the same answer.
type Answer = Arc<TurnOf<Option<Held>>>;

/// The answers of a process.
pub struct Lookups {
    /// By identity and question.
    answers: Mutex<LruCache<String, Answer>>,
    /// Those that asked before, with their tokens.
    identities: Mutex<LruCache<String, TokenCredential>>,
    /// Accounts for new volumes.
    pub accounts: Accounts,
}

impl Default for Lookups {
    fn default() -> Self {
        Self {
            answers: Mutex::new(LruCache::new(ANSWERS_MAX)),
            identities: Mutex::new(LruCache::new(IDENTITIES_MAX)),
            accounts: Accounts::default(),
        }
    }
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups").finish_non_exhaustive()
    }
}

impl Lookups {
    /// A source that asks `question` in the name of `tokens`, which are for its audience.
    #[must_use]
    pub fn source(self: &Arc<Self>, http: IdentityHttp, tokens: TokenCredential, question: Question) -> Lookup {
        let mut identities = self.identities.lock();
        let name = format!("{} for {}", tokens.describe(), question.audience());
        let tokens = match identities.get(&name) {
            Some(known) if known.is_same(&tokens) => {
                known.take_over(&tokens);
                known.clone()
            }
            _ => {
                identities.put(name, tokens.clone());
                tokens
            }
        };
        Lookup { lookups: Arc::clone(self), http, tokens, question, seen: Mutex::default() }
    }

    fn answer(&self, key: String) -> Answer {
        Arc::clone(self.answers.lock().get_or_insert(key, Answer::default))
    }
}

/// Where one volume's credential is looked up.
pub struct Lookup {
    lookups: Arc<Lookups>,
    http: IdentityHttp,
    tokens: TokenCredential,
    question: Question,
    /// When the answer was asked for that this volume got last.
    seen: Mutex<Option<Instant>>,
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").field("question", &self.question).field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Lookup {
    /// The credential, for a new volume: an answer of the last minutes will do. Cancel-safe.
    ///
    /// # Errors
    /// The finding.
    pub async fn find(&self) -> Result<Credential, LookupError> {
        self.ask(|held, now| now.saturating_duration_since(held.asked) < FRESH_FOR).await
    }

    /// The credential, after the last one was refused: an answer that another volume got since will do. Cancel-safe.
    async fn find_newer(&self) -> Result<Credential, LookupError> {
        let seen = *self.seen.lock();
        self.ask(|held, _| seen.is_none_or(|seen| held.asked > seen)).await
    }

    /// In whose name it asks.
    #[must_use]
    pub fn asker(&self) -> String {
        self.tokens.describe()
    }

    /// The answer that is held, if it will do, or a new one.
    async fn ask(&self, will_do: impl Fn(&Held, Instant) -> bool) -> Result<Credential, LookupError> {
        let answer = self.lookups.answer(format!("{} asks for {:?}", self.tokens.describe(), self.question));
        let mut held = answer.lock().await;
        let now = Instant::now();
        let good = |held: &&Held| if held.answer.is_ok() { will_do(held, now) } else { now < held.until };
        if let Some(held) = held.as_ref().filter(good) {
            *self.seen.lock() = Some(held.asked);
            return held.answer.clone();
        }
        if let Some(held) = held.as_ref() {
            tokio::time::sleep_until((held.asked + ASKED_AGAIN_AFTER).into()).await;
        }
        let asked = Instant::now();
        let found = self.question.read(&self.http, &self.tokens).await;
        let lasts = match &found {
            Ok(credential) => {
                tracing::info!("found the {}: {}", self.question.describe(), credential.describe());
                Duration::ZERO
            }
            Err(error) => {
                tracing::warn!("{} cannot be had: {error}", self.question.describe());
                error.retry_after.unwrap_or_default().max(REFUSED_FOR)
            }
        };
        *self.seen.lock() = Some(asked);
        *held = Some(Held { answer: found.clone(), asked, until: asked + lasts });
        found
    }
}

#[async_trait]
impl CredentialSource for Lookup {
    async fn read(&self) -> Result<Credential, String> {
        self.find_newer().await.map_err(|error| error.to_string())
    }

    fn describe(&self) -> String {
        self.question.describe()
    }
}
