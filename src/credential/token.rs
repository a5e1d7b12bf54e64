//! A token in use: fetched when first needed, refreshed ahead of its end, asked for once more when it is refused.
//!
//! The rules (DESIGN 10.16). A token that has lived two thirds of its life is refreshed behind the requests that use it,
//! by one task; they keep using the old one. Only a request starts a fetch, so a mount that nobody uses asks nobody.
//! While the source fails it is asked with growing pauses, and the old token serves until its end. A token that the
//! service refused (401) is replaced at once, once. Knows nothing of where tokens come from ([`TokenSource`]).

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};

use crate::finding::{Diagnosis, Finding};

/// No source takes longer for a token, in any weather; the Azure CLI needs seconds where Python starts slowly.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// First pause after a source failed. Doubles with every further failure.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause after a source failed: what an operator waits for at most after the repair.
const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(60);
/// A token is not shown any more when this share of its life is left (at most [`MARGIN_MAX`]): the service judges a
/// request when it arrives, by its own clock.
const MARGIN_SHARE: u32 = 10;
/// Largest margin before a token's end. A guess at clocks: hosts with NTP differ by far less.
const MARGIN_MAX: Duration = Duration::from_secs(30);
/// A token that was asked for because its forerunner was refused, and is refused itself, is not replaced again within
/// this time: it is the account that refuses, not the token that is stale.
const SECOND_REFUSAL_PAUSE: Duration = Duration::from_secs(30);

/// What a source answers: a bearer token and how long it is good for from now on.
#[derive(Clone)]
pub struct AccessToken {
    /// The token itself.
    pub text: SecretString,
    /// Time until its end.
    pub life: Duration,
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken").field("life", &self.life).finish_non_exhaustive()
    }
}

/// What a failure to get a token means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenErrorKind {
    /// The source said no, or something it needs is missing: the same request will not do better.
    Refused,
    /// Nobody answered.
    Unreachable,
    /// The source is busy or broken (429, 5xx): later may be better.
    Busy,
}

/// Why there is no token. One sentence with the fix; holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no token from {source_name}: {reason}")]
pub struct TokenError {
    /// What it means.
    pub kind: TokenErrorKind,
    /// Which source, as [`TokenSource::describe`] has it.
    pub source_name: String,
    /// What went wrong, and what to do.
    pub reason: String,
    /// The same as a finding, where it is a known one.
    pub known: Option<Box<Diagnosis>>,
    /// The source asked to be left alone for so long.
    pub retry_after: Option<Duration>,
}

impl TokenError {
    /// An error of `kind` without a wish for time.
    #[must_use]
    pub fn new(kind: TokenErrorKind, source_name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { kind, source_name: source_name.into(), reason: reason.into(), known: None, retry_after: None }
    }

    /// An error of `kind` whose reason is a known one.
    #[must_use]
    pub fn found(kind: TokenErrorKind, source_name: impl Into<String>, known: Diagnosis) -> Self {
        let reason = known.to_string();
        Self { known: Some(Box::new(known)), ..Self::new(kind, source_name, reason) }
    }

    /// Which finding it is. Its sentence is this error's text, with a fix where the source gave none.
    #[must_use]
    pub fn diagnosis(&self) -> Diagnosis {
        match &self.known {
            Some(known) => {
                let cause = format!("no token from {}: {}", self.source_name, known.cause);
                Diagnosis { cause, ..Diagnosis::clone(known) }
            }
            None => Finding::TokenRefused.with(&[("reason", &self.to_string())]),
        }
    }
}

/// Somebody who makes tokens. One file each.
#[async_trait]
pub trait TokenSource: fmt::Debug + Send + Sync {
    /// Asks for a new token for `audience` (`https://storage.azure.com`, no slash at the end). Keeps none. May be
    /// cancelled at any await.
    ///
    /// # Errors
    /// [`TokenError`] with the reason and the fix.
    async fn fetch(&self, audience: &str) -> Result<AccessToken, TokenError>;

    /// Which identity this is, for messages: "managed identity (client id ...)". No secret.
    fn describe(&self) -> String;

    /// A digest of the secret that it signs in with, where there is one: two sources of one description that differ in it
    /// are not the same.
    fn secret_digest(&self) -> Option<[u8; 32]> {
        None
    }

    /// What was handed in for it to sign in with and will be handed in anew before it ends: a pod's token.
    fn handed(&self) -> Option<SecretString> {
        None
    }

    /// Signs in with this from now on. Tells whether that is anything new.
    fn hand(&self, _newer: SecretString) -> bool {
        false
    }
}

/// A token with its times.
#[derive(Clone)]
struct Held {
    authorization: SecretString,
    /// When it was asked for: its life counts from there, so that the way of the answer is on the safe side.
    since: Instant,
    life: Duration,
    serial: u64,
    /// It was asked for because its forerunner was refused.
    forced: bool,
}

impl Held {
    /// Whether it may still be shown.
    fn is_good(&self, now: Instant) -> bool {
        let margin = (self.life / MARGIN_SHARE).min(MARGIN_MAX);
        now.saturating_duration_since(self.since) < self.life.saturating_sub(margin)
    }

    /// Whether the next one should be asked for.
    fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= self.life * 2 / 3
    }
}

type Fetch = Shared<BoxFuture<'static, Result<Held, TokenError>>>;

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// The one fetch under way.
    fetching: Option<Fetch>,
    /// The last failure, and when the source may be asked again.
    failure: Option<(TokenError, Instant)>,
    failures: u32,
    serial: u64,
}

struct Inner {
    source: Arc<dyn TokenSource>,
    audience: String,
    /// Never held across an await.
    state: Mutex<State>,
}

/// A source and the token that it gave last. Cloning shares both.
#[derive(Clone)]
pub struct TokenCredential {
    inner: Arc<Inner>,
}

impl TokenCredential {
    /// Tokens for `audience` from `source`. Asks nobody yet.
    #[must_use]
    pub fn new(source: Arc<dyn TokenSource>, audience: impl Into<String>) -> Self {
        let audience = audience.into().trim_end_matches('/').to_owned();
        Self { inner: Arc::new(Inner { source, audience, state: Mutex::default() }) }
    }

    /// Which identity this is. No secret.
    #[must_use]
    pub fn describe(&self) -> String {
        self.inner.source.describe()
    }

    /// Whether two are the same identity with the same secret, for the same resource.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.describe() == other.describe()
            && self.inner.audience == other.inner.audience
            && self.inner.source.secret_digest() == other.inner.source.secret_digest()
    }

    /// Signs in with what `other` was handed, from the next token on. A source that failed for want of it may be asked at once.
    pub fn take_over(&self, other: &Self) {
        let Some(newer) = other.inner.source.handed() else { return };
        if self.inner.source.hand(newer) {
            let mut state = self.inner.state.lock();
            (state.failure, state.failures) = (None, 0);
        }
    }

    /// The value of an Authorization header that is good now. Waits for the source only where there is no token that may
    /// be shown. Cancel-safe: the fetch goes on for those who ask next.
    ///
    /// # Errors
    /// What the source said last.
    pub async fn authorization(&self) -> Result<SecretString, TokenError> {
        self.authorization_at(Instant::now()).await
    }

    async fn authorization_at(&self, now: Instant) -> Result<SecretString, TokenError> {
        let fetch = {
            let mut state = self.inner.state.lock();
            if let Some(held) = state.held.clone().filter(|held| held.is_good(now)) {
                if held.is_due(now) && state.fetching.is_none() && state.asks_allowed(now).is_ok() {
                    // Runs by itself; nobody here waits for it.
                    drop(self.begin(&mut state, now, false));
                }
                return Ok(held.authorization);
            }
            match &state.fetching {
                Some(fetch) => fetch.clone(),
                None => {
                    state.asks_allowed(now)?;
                    self.begin(&mut state, now, false)
                }
            }
        };
        fetch.await.map(|held| held.authorization)
    }

    /// Number of the token in use: 0 before the first.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.inner.state.lock().serial
    }

    /// The service refused token number `refused`: asks for another at once. Tells whether there is one now.
    pub async fn renew(&self, refused: u64) -> bool {
        self.renew_at(refused, Instant::now()).await
    }

    async fn renew_at(&self, refused: u64, now: Instant) -> bool {
        let fetch = {
            let mut state = self.inner.state.lock();
            match &state.held {
                Some(held) if held.serial != refused => return true,
                Some(held) if held.forced && now.saturating_duration_since(held.since) < SECOND_REFUSAL_PAUSE => {
                    return false;
                }
                _ => {}
            }
            match &state.fetching {
                Some(fetch) => fetch.clone(),
                None if state.asks_allowed(now).is_err() => return false,
                None => self.begin(&mut state, now, true),
            }
        };
        fetch.await.is_ok()
    }

    /// Starts the one fetch. It runs on its own, so that a request that gives up does not end it for the others.
    fn begin(&self, state: &mut State, now: Instant, forced: bool) -> Fetch {
        let inner = Arc::clone(&self.inner);
        let name = inner.source.describe();
        let task = tokio::spawn(async move {
            let asked = tokio::time::timeout(FETCH_TIMEOUT, inner.source.fetch(&inner.audience)).await;
            let outcome = asked.unwrap_or_else(|_| {
                let reason = format!("it did not answer within {} seconds", FETCH_TIMEOUT.as_secs());
                Err(TokenError::new(TokenErrorKind::Unreachable, inner.source.describe(), reason))
            });
            inner.settle(outcome, now, forced)
        });
        let fetch = task
            .map(move |ended| {
                let lost = |_| Err(TokenError::new(TokenErrorKind::Busy, name, "this process is ending"));
                ended.unwrap_or_else(lost)
            })
            .boxed()
            .shared();
        state.fetching = Some(fetch.clone());
        fetch
    }
}

impl State {
    /// Whether the source may be asked, or is still left alone after a failure.
    fn asks_allowed(&self, now: Instant) -> Result<(), TokenError> {
        match &self.failure {
            Some((error, again)) if now < *again => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

impl Inner {
    fn settle(
        &self,
        outcome: Result<AccessToken, TokenError>,
        asked: Instant,
        forced: bool,
    ) -> Result<Held, TokenError> {
        let mut state = self.state.lock();
        state.fetching = None;
        match outcome {
            Ok(token) => {
                tracing::debug!(life = ?token.life, "a token from {}", self.source.describe());
                state.serial += 1;
                (state.failure, state.failures) = (None, 0);
                let authorization = SecretString::from(format!("Bearer {}", token.text.expose_secret()));
                let held = Held { authorization, since: asked, life: token.life, serial: state.serial, forced };
                state.held = Some(held.clone());
                Ok(held)
            }
            Err(error) => {
                let doubled = FAILURE_PAUSE * 2_u32.saturating_pow(state.failures).min(64);
                let pause = doubled.min(FAILURE_PAUSE_MAX).max(error.retry_after.unwrap_or_default());
                tracing::warn!(?pause, "{error}");
                state.failures += 1;
                state.failure = Some((error.clone(), asked + pause));
                Err(error)
            }
        }
    }
}

impl fmt::Debug for TokenCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCredential")
            .field("identity", &self.describe())
            .field("audience", &self.inner.audience)
            .field("serial", &self.serial())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
