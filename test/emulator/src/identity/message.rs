//! One request to an identity service, read in full, and its answer. Knows HTTP; must not know any service.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Incoming,
    header::{HeaderName, HeaderValue},
};
use serde_json::Value;

use crate::query::Query;

/// Largest body of a request: an assertion with a certificate chain is a tenth of it.
const BODY_BYTES_MAX: usize = 256 << 10;

/// A request.
pub(crate) struct Message {
    /// The name of the TLS handshake; without it the connection has no TLS or named none.
    pub(crate) sni: Option<String>,
    /// Whether it came through the proxy.
    pub(crate) proxied: bool,
    /// Host header, without its port.
    pub(crate) host: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    /// The fields of a form in the body.
    pub(crate) form: Query,
    /// The body as it is.
    pub(crate) body: Bytes,
}

impl Message {
    /// Reads a request to its end.
    ///
    /// # Errors
    /// A sentence for a body that breaks off or is too long.
    pub(crate) async fn read(request: Request<Incoming>, sni: Option<String>, proxied: bool) -> Result<Self, String> {
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("cannot read the body: {error}"))?.to_bytes();
        let host = parts.headers.get("host").and_then(|host| host.to_str().ok()).or_else(|| parts.uri.host());
        let form = String::from_utf8_lossy(&body).replace('+', " ");
        Ok(Self {
            sni,
            proxied,
            host: without_port(host.unwrap_or_default()).to_ascii_lowercase(),
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: Query::parse(parts.uri.query().unwrap_or_default()),
            headers: parts.headers,
            form: Query::parse(&form),
            body,
        })
    }

    /// A header's text, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A host without the port behind it.
pub(crate) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// An answer.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Reply {
    /// A JSON document.
    pub(crate) fn json(status: StatusCode, document: &Value) -> Self {
        let reply = Self { status, headers: Vec::new(), body: Bytes::from(document.to_string()) };
        reply.header("content-type", "application/json; charset=utf-8")
    }

    /// Plain text.
    pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Self {
        let reply = Self { status, headers: Vec::new(), body: Bytes::from(text.into()) };
        reply.header("content-type", "text/plain; charset=utf-8")
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// As an HTTP response.
    pub(crate) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::<Bytes>::from(self.body));
        *response.status_mut() = self.status;
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().append(HeaderName::from_static(name), value);
            }
        }
        response
    }
}
