//! How identity services are asked: two HTTP clients, one through the proxy and one that never uses it, and what they
//! trust. Knows nothing of tokens' formats.

use std::{
    fmt, fs,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};

use super::{Error, TokenError, TokenErrorKind};
use crate::{
    finding::{self, Diagnosis, Finding},
    telemetry::chain,
};

/// Time to make a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The same on the way to a service of this machine or its host: where there is none (a laptop), the address swallows
/// packets, and everybody would wait.
const CONNECT_TIMEOUT_NEAR: Duration = Duration::from_secs(2);
/// Time for a whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest answer that is read, in bytes: a token with many groups has some 10 KiB.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Which certificate authorities are trusted: the machine's (SSL_CERT_FILE and SSL_CERT_DIR stand in for them), and those
/// of a file beside them. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    extra: Vec<reqwest::Certificate>,
    /// How identity services are asked under it, by everybody who has a clone: a client reads all certificates of the machine.
    http: Arc<OnceLock<IdentityHttp>>,
}

impl Trust {
    /// Adds the certificates of a PEM file.
    ///
    /// # Errors
    /// [`Error::Certificates`] when it cannot be read or holds none.
    pub fn with_file(file: &Path) -> Result<Self, Error> {
        let bad = |reason: String| Error::Certificates { file: file.display().to_string(), reason };
        let text = fs::read(file).map_err(|error| bad(error.to_string()))?;
        let extra = reqwest::Certificate::from_pem_bundle(&text).map_err(|error| bad(error.to_string()))?;
        if extra.is_empty() {
            return Err(bad("it has no certificate; expected -----BEGIN CERTIFICATE----- sections (PEM)".to_owned()));
        }
        Ok(Self { extra, http: Arc::default() })
    }

    /// The clients for identity services, made once. Settings of the proxy are those of the first call.
    ///
    /// # Errors
    /// As [`IdentityHttp::new`].
    pub fn identity_http(&self) -> Result<IdentityHttp, Error> {
        if let Some(http) = self.http.get() {
            return Ok(http.clone());
        }
        let http = IdentityHttp::new(self)?;
        Ok(self.http.get_or_init(|| http).clone())
    }

    /// Makes `builder` trust them.
    pub fn apply(&self, builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
        if self.extra.is_empty() { builder } else { builder.tls_certs_merge(self.extra.iter().cloned()) }
    }
}

/// An answer with any status.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: reqwest::header::HeaderMap,
    /// The body; text that is not UTF-8 is made so.
    pub(super) text: String,
}

impl Answer {
    /// How long the service asks to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get("retry-after")?.to_str().ok()?;
        text.trim().parse().ok().map(Duration::from_secs)
    }

    /// What the status says about another try.
    pub(super) fn kind(&self) -> TokenErrorKind {
        match self.status {
            408 | 429 | 500.. => TokenErrorKind::Busy,
            _ => TokenErrorKind::Refused,
        }
    }
}

/// The clients. Cloning shares them.
#[derive(Clone)]
pub struct IdentityHttp {
    clients: Arc<Clients>,
}

struct Clients {
    far: reqwest::Client,
    near: reqwest::Client,
}

impl IdentityHttp {
    /// Clients that trust `trust`. `https_proxy` and `no_proxy` of the environment hold for services on the network.
    ///
    /// # Errors
    /// [`Error::Tls`] when this machine has no CA certificates.
    pub fn new(trust: &Trust) -> Result<Self, Error> {
        let builder = || {
            reqwest::Client::builder()
                .http1_only()
                .timeout(ANSWER_TIMEOUT)
                // A token request is followed nowhere: its body is a secret.
                .redirect(reqwest::redirect::Policy::none())
        };
        let tls = |error: reqwest::Error| Error::Tls { reason: chain(&error) };
        let far = trust.apply(builder()).connect_timeout(CONNECT_TIMEOUT).build().map_err(tls)?;
        let near = builder().connect_timeout(CONNECT_TIMEOUT_NEAR).no_proxy().build().map_err(tls)?;
        Ok(Self { clients: Arc::new(Clients { far, near }) })
    }

    /// Posts a form to a service on the network.
    ///
    /// # Errors
    /// `Unreachable`, in the name of `source_name`.
    pub(super) async fn post_form(
        &self,
        source_name: &str,
        url: &str,
        form: &[(&str, &str)],
    ) -> Result<Answer, TokenError> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self.clients.far.post(url).header("content-type", "application/x-www-form-urlencoded").body(body);
        send(source_name, url, request).await
    }

    /// Asks a service on the network in somebody's name, with a JSON document where there is one to send.
    ///
    /// # Errors
    /// `Unreachable`, in the name of `source_name`.
    pub(super) async fn ask(
        &self,
        source_name: &str,
        method: reqwest::Method,
        url: &url::Url,
        authorization: &SecretString,
        body: Option<String>,
    ) -> Result<Answer, TokenError> {
        let mut value = reqwest::header::HeaderValue::from_str(authorization.expose_secret())
            .map_err(|_| TokenError::new(TokenErrorKind::Refused, source_name, "the token is no text for a header"))?;
        value.set_sensitive(true);
        let request = self.clients.far.request(method, url.clone()).header("authorization", value);
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(body),
            // Without a body, a POST says so (RFC 9110, 8.6).
            None => request.header("content-length", "0"),
        };
        send(source_name, url.as_str(), request).await
    }

    /// Asks a service of this machine or its host, never through a proxy.
    ///
    /// # Errors
    /// `Unreachable`, in the name of `source_name`.
    pub(super) async fn get_near(
        &self,
        source_name: &str,
        url: &url::Url,
        headers: &[(&'static str, &str)],
    ) -> Result<Answer, TokenError> {
        let mut request = self.clients.near.get(url.clone());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(source_name, url.as_str(), request).await
    }
}

impl fmt::Debug for IdentityHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityHttp").finish_non_exhaustive()
    }
}

async fn send(source_name: &str, url: &str, request: reqwest::RequestBuilder) -> Result<Answer, TokenError> {
    let host = url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let unreachable = |error: reqwest::Error| {
        let text = chain(&error.without_url());
        // A certificate does not get better within a minute; a network may.
        let certificate = text.contains("certificate");
        let kind = if certificate { TokenErrorKind::Refused } else { TokenErrorKind::Unreachable };
        let known = if certificate {
            let known = finding::of_tls(&text).with(&[("host", &host)]);
            Diagnosis { cause: format!("{} ({text})", known.cause), ..known }
        } else {
            Finding::AuthorityUnreachable.with(&[("host", &host), ("reason", &text)])
        };
        TokenError::found(kind, source_name, known)
    };
    let mut response = request.send().await.map_err(unreachable)?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(unreachable)? {
        body.extend_from_slice(&piece);
        if body.len() > ANSWER_BYTES_MAX {
            let reason = format!("{host} answered more than {} KiB, which is no token", ANSWER_BYTES_MAX >> 10);
            return Err(TokenError::new(TokenErrorKind::Refused, source_name, reason));
        }
    }
    Ok(Answer { status, headers, text: String::from_utf8_lossy(&body).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_cannot_be_used_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Trust::with_file(file.path()).unwrap_err().to_string();
        assert!(error.contains("BEGIN CERTIFICATE") && error.contains(file.path().to_str().unwrap()), "{error}");
        let error = Trust::with_file(Path::new("/no/such/bundle.pem")).unwrap_err().to_string();
        assert!(error.contains("/no/such/bundle.pem"), "{error}");
    }

    #[tokio::test]
    async fn a_service_that_nobody_serves_is_named_with_what_to_check() {
        let http = IdentityHttp::new(&Trust::default()).unwrap();
        // Port 9 (discard) of loopback: nobody listens in a test environment.
        let url = "http://127.0.0.1:9/token".parse().unwrap();
        let error = http.get_near("a source", &url, &[]).await.err().unwrap();
        assert_eq!(error.kind, TokenErrorKind::Unreachable);
        assert!(error.reason.contains("127.0.0.1") && error.reason.contains("firewall"), "{error}");
    }
}
