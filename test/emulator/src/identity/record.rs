//! What identity services were asked: for tests to look at. Secrets are in a record, but not in what is printed of it.

use std::collections::VecDeque;

use hyper::HeaderMap;
use parking_lot::Mutex;

use crate::{
    identity::{cloud::IdentityService, message::Message, token::Jwt},
    query::Query,
};

/// Requests that are remembered.
const RECORDS_MAX: usize = 10_000;

/// Fields whose value nobody prints.
const SECRET: [&str; 6] = ["client_secret", "client_assertion", "authorization", "x-identity-header", "secret", "sig"];

/// Headers that a record keeps.
const HEADERS: [&str; 6] =
    ["authorization", "metadata", "x-identity-header", "secret", "user-agent", "x-ms-client-request-id"];

/// One request to one of the services.
#[derive(Clone)]
pub struct IdentityRequest {
    /// Which service.
    pub service: IdentityService,
    /// Whether it came through the proxy.
    pub proxied: bool,
    /// The name of the TLS handshake. `None`: no TLS, or no name.
    pub sni: Option<String>,
    /// Host header without port, in lower case.
    pub host: String,
    /// Verb.
    pub method: String,
    /// Path.
    pub path: String,
    /// Status of the answer; 0 for none.
    pub status: u16,
    pub(crate) fields: Vec<(String, String)>,
}

impl IdentityRequest {
    /// Reads what there is to tell of a message. Claims of an assertion are fields such as `assertion.sub`.
    pub(crate) fn of(service: IdentityService, message: &Message, status: u16) -> Self {
        let mut fields = Self::fields_of(&message.headers, &message.query);
        fields.extend(message.form.pairs().iter().cloned());
        if let Some(assertion) = message.form.get("client_assertion").and_then(Jwt::parse) {
            for name in ["iss", "sub", "aud"] {
                fields.push((format!("assertion.{name}"), assertion.claim(name).to_owned()));
            }
        }
        Self {
            service,
            proxied: message.proxied,
            sni: message.sni.clone(),
            host: message.host.clone(),
            method: message.method.clone(),
            path: message.path.clone(),
            status,
            fields,
        }
    }

    /// The fields of a request's head.
    pub(crate) fn fields_of(headers: &HeaderMap, query: &Query) -> Vec<(String, String)> {
        let header = |name: &str| Some((name.to_owned(), headers.get(name)?.to_str().ok()?.to_owned()));
        query.pairs().iter().cloned().chain(HEADERS.into_iter().filter_map(header)).collect()
    }

    /// A parameter of the query or the form, a header (lower case), or a claim of the assertion.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(candidate, _)| candidate == name).map(|(_, value)| value.as_str())
    }
}

impl std::fmt::Debug for IdentityRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |(name, value): &(String, String)| {
            let secret = SECRET.contains(&name.as_str());
            format!("{name}={}", if secret { "(hidden)" } else { value })
        };
        f.debug_struct("IdentityRequest")
            .field("service", &self.service)
            .field("sni", &self.sni)
            .field("host", &self.host)
            .field("method", &self.method)
            .field("path", &self.path)
            .field("status", &self.status)
            .field("fields", &self.fields.iter().map(shown).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// The last requests, oldest first.
#[derive(Default)]
pub(crate) struct Records(Mutex<VecDeque<IdentityRequest>>);

impl Records {
    /// Adds one.
    pub(crate) fn add(&self, request: IdentityRequest) {
        let mut records = self.0.lock();
        if records.len() == RECORDS_MAX {
            records.pop_front();
        }
        records.push_back(request);
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<IdentityRequest> {
        self.0.lock().iter().cloned().collect()
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }
}
