//! A REST service of Azure that takes bearer tokens: asked with another token after a 401, and again when it is busy. Knows
//! nothing of what is asked.

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::LookupError;
use crate::credential::{IdentityHttp, TokenCredential, TokenErrorKind};

/// How often one question is asked at most.
const TRIES_MAX: u32 = 3;
/// First pause before a busy service is asked again. Doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// A service that asks to be left alone for longer is not waited for: a mount is, by the kubelet.
const PATIENCE: Duration = Duration::from_secs(5);

/// The service's refusal in its own words.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Refusal {
    #[serde(default)]
    pub(super) code: String,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default, rename = "innererror")]
    inner: Option<Inner>,
    #[serde(skip)]
    pub(super) status: u16,
}

#[derive(Debug, Default, Deserialize)]
struct Inner {
    #[serde(default)]
    code: String,
}

#[derive(Deserialize)]
struct Envelope {
    error: Refusal,
}

impl Refusal {
    pub(super) fn read(status: u16, text: &str) -> Self {
        let said = serde_json::from_str::<Envelope>(text).map(|envelope| envelope.error).unwrap_or_default();
        Self { status, ..said }
    }

    /// The code behind the code, which tells more where there is one.
    pub(super) fn inner_code(&self) -> &str {
        self.inner.as_ref().map_or("", |inner| &inner.code)
    }

    /// Status, code and the first line of the message.
    pub(super) fn in_words(&self) -> String {
        let said = self.message.lines().next().unwrap_or_default().trim();
        format!("HTTP {} {}: {said}", self.status, self.code).trim_end_matches([':', ' ']).to_owned()
    }
}

/// An answer that is not the one wanted.
pub(super) enum Failed {
    /// The service said no, or was busy to the end.
    Refused(Refusal, LookupError),
    /// There was no token, or nobody answered.
    NotAsked(LookupError),
}

/// Asks `method url` in the name of `tokens`. `name` is the service's, for messages. Cancel-safe.
pub(super) async fn ask(
    http: &IdentityHttp,
    tokens: &TokenCredential,
    name: &str,
    (method, url): (Method, &Url),
) -> Result<Value, Failed> {
    tell(http, tokens, name, (method, url), None).await
}

/// The same with a JSON document in the body. An answer without a body counts as `null`.
pub(super) async fn tell(
    http: &IdentityHttp,
    tokens: &TokenCredential,
    name: &str,
    (method, url): (Method, &Url),
    body: Option<&Value>,
) -> Result<Value, Failed> {
    let mut pause = PAUSE;
    let mut renewed = false;
    for left in (0..TRIES_MAX).rev() {
        let authorization = tokens.authorization().await.map_err(|error| Failed::NotAsked(error.into()))?;
        let serial = tokens.serial();
        let answer = http.ask(name, method.clone(), url, &authorization, body.map(Value::to_string)).await;
        let answer = answer.map_err(|error| Failed::NotAsked(error.into()))?;
        if (200..300).contains(&answer.status) {
            if answer.text.trim().is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_str(&answer.text)
                .map_err(|_| Failed::NotAsked(LookupError::garbled(name, url, "its answer is no JSON")));
        }
        let refusal = Refusal::read(answer.status, &answer.text);
        if answer.status == 401 && !renewed && tokens.renew(serial).await {
            renewed = true;
            continue;
        }
        let busy = answer.kind() == TokenErrorKind::Busy;
        let wait = answer.retry_after().unwrap_or(pause);
        if !busy || left == 0 || wait > PATIENCE {
            let words = refusal.in_words();
            let error =
                LookupError { retry_after: answer.retry_after(), ..LookupError::said(name, answer.kind(), &words) };
            return Err(Failed::Refused(refusal, error));
        }
        tokio::time::sleep(wait).await;
        pause *= 2;
    }
    // The last round returns above.
    Err(Failed::NotAsked(LookupError::said(name, TokenErrorKind::Busy, "it is busy")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_in_the_words_of_both_services() {
        let vault =
            r#"{"error":{"code":"Forbidden","message":"no\r\nCaller: x","innererror":{"code":"SecretDisabled"}}}"#;
        let refusal = Refusal::read(403, vault);
        assert_eq!((refusal.inner_code(), &*refusal.in_words()), ("SecretDisabled", "HTTP 403 Forbidden: no"));
        assert_eq!(Refusal::read(502, "<html>").in_words(), "HTTP 502");
    }
}
