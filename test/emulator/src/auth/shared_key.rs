//! SharedKey and SharedKeyLite: the string to sign and its check. Must not know what a request does. Rules: REST page "Authorize with Shared Key".

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use hyper::{HeaderMap, Method, header::HeaderName};
use sha2::Sha256;
use time::Duration;

use crate::{auth::failed, call::Call, date, error::ServiceError, query::Query};

/// Largest difference between the request's date and the service's clock.
const SKEW_MAX: Duration = Duration::minutes(15);

/// The parts of a request that are signed.
pub(crate) struct Signed<'a> {
    /// Verb.
    pub(crate) method: &'a Method,
    /// Headers as sent.
    pub(crate) headers: &'a HeaderMap,
    /// Path as sent.
    pub(crate) path: &'a str,
    /// Query, decoded.
    pub(crate) query: &'a Query,
    /// Account that signs.
    pub(crate) account: &'a str,
}

impl Signed<'_> {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn date(&self) -> &str {
        if self.headers.contains_key("x-ms-date") { "" } else { self.header("date") }
    }

    /// The string to sign of the full form.
    pub(crate) fn full(&self) -> String {
        // Since version 2015-02-21 a length of zero is signed as nothing; before, as "0".
        let length = self.header("content-length");
        let old = !self.header("x-ms-version").is_empty() && self.header("x-ms-version") < "2015-02-21";
        let length = if length == "0" && !old { "" } else { length };
        let mut text = format!("{}\n", self.method);
        for value in [
            self.header("content-encoding"),
            self.header("content-language"),
            length,
            self.header("content-md5"),
            self.header("content-type"),
            self.date(),
            self.header("if-modified-since"),
            self.header("if-match"),
            self.header("if-none-match"),
            self.header("if-unmodified-since"),
            self.header("range"),
        ] {
            text.push_str(value);
            text.push('\n');
        }
        text + &self.canonical_headers() + &self.canonical_resource()
    }

    /// The string to sign of the lite form.
    pub(crate) fn lite(&self) -> String {
        let mut text = format!(
            "{}\n{}\n{}\n{}\n{}/{}{}",
            self.method,
            self.header("content-md5"),
            self.header("content-type"),
            self.date(),
            self.canonical_headers(),
            self.account,
            self.path
        );
        if let Some(comp) = self.query.get("comp") {
            text.push_str("?comp=");
            text.push_str(comp);
        }
        text
    }

    fn canonical_headers(&self) -> String {
        let mut names: Vec<_> = self.headers.keys().filter(|name| name.as_str().starts_with("x-ms-")).collect();
        // By name alone: "x-ms-range" goes before "x-ms-range-get-content-md5", though ':' sorts behind '-'.
        names.sort_unstable_by_key(|name| name.as_str());
        let line = |name: &HeaderName| {
            let values = self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
            format!("{name}:{}\n", values.collect::<Vec<_>>().join(",").trim())
        };
        names.into_iter().map(line).collect()
    }

    fn canonical_resource(&self) -> String {
        let mut names: Vec<_> = self.query.pairs().iter().map(|(name, _)| name.to_lowercase()).collect();
        names.sort_unstable();
        names.dedup();
        let mut text = format!("/{}{}", self.account, self.path);
        for name in names {
            let mut values: Vec<_> = self
                .query
                .pairs()
                .iter()
                .filter(|(candidate, _)| candidate.eq_ignore_ascii_case(&name))
                .map(|(_, value)| value.as_str())
                .collect();
            values.sort_unstable();
            text.push_str(&format!("\n{name}:{}", values.join(",")));
        }
        text
    }
}

/// Whether a signature is that of the text under one of the keys, compared in constant time.
pub(crate) fn matches(keys: &[String], text: &str, signature: &str) -> bool {
    let Ok(signature) = STANDARD.decode(signature) else { return false };
    keys.iter().any(|key| {
        let key = STANDARD.decode(key).ok();
        let mac = key.and_then(|key| Hmac::<Sha256>::new_from_slice(&key).ok());
        mac.is_some_and(|mut mac| {
            mac.update(text.as_bytes());
            mac.verify_slice(&signature).is_ok()
        })
    })
}

/// Verifies `account:signature` of an Authorization header.
///
/// # Errors
/// `AuthenticationFailed` with the string that the service signed, as the service itself tells it.
pub(crate) fn verify(call: &Call, credential: &str, keys: &[String], lite: bool) -> Result<(), ServiceError> {
    let Some((account, signature)) = credential.split_once(':') else {
        return Err(failed("The Authorization header has no account:signature."));
    };
    if account != call.resource.account {
        return Err(failed("The account of the signature is not the account of the request."));
    }
    let text = call.header("x-ms-date")?.or(call.header("date")?);
    let Some(at) = text.and_then(date::parse_http) else {
        return Err(failed("The request has neither a valid x-ms-date nor a valid Date header."));
    };
    if (call.now - at).abs() > SKEW_MAX {
        // The service's own words: clients tell a clock that is off from a wrong key by them.
        return Err(failed(format!("Request date header too old: '{}'.", date::http(at))));
    }
    let signed = Signed {
        method: &call.method,
        headers: &call.headers,
        path: &call.raw_path,
        query: &call.query,
        account: &call.resource.account,
    };
    let text = if lite { signed.lite() } else { signed.full() };
    if matches(keys, &text, signature) {
        return Ok(());
    }
    Err(failed(format!("The signature is not that of this string to sign: '{text}'.")))
}
