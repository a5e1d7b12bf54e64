//! The last policy of the pipeline: hands a request to reqwest and sorts its failures.
//!
//! Why not the SDK's own adapter: it copies a body of several pieces into fresh 64 KiB buffers, drops response headers
//! that are not ASCII, and reports a failure as text only. Here the pieces of a [`Body`] (found in the context) go to
//! the socket as they are, and a failure says whether the request can have reached the service.

use std::{fmt, io, sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_core::http::{
    AsyncRawResponse, Context, Method, Request,
    headers::Headers,
    policies::{Policy, PolicyResult},
};
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};

use crate::{
    blob::{Body, Error, ErrorKind, METADATA_ENTRIES_MAX},
    credential::Trust,
    telemetry::chain,
};

/// Time to make a connection: TCP and TLS. Short, because a retry helps more than patience here.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections are kept this long; Azure's front ends close theirs after about two minutes.
const POOL_IDLE: Duration = Duration::from_secs(60);
/// TCP keepalive, so that a vanished peer is noticed on idle pooled connections.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Headers of an answer: the metadata of a blob, each a header, and what else there may be. A client takes 100 by default, and
/// calls an answer with more broken.
const HEADERS_MAX: usize = METADATA_ENTRIES_MAX + 256;

/// The HTTP client that stores share: HTTP/1.1 (one request a connection: no shared flow-control window), no
/// redirects (a redirected signature is void), no decompression (ranges and lengths must be those of the blob). Proxies are
/// those of the environment: `https_proxy`, `no_proxy`.
pub(super) fn new_client(connections: usize, trust: &Trust) -> Result<reqwest::Client, Error> {
    trust
        .apply(reqwest::Client::builder())
        .http1_only()
        .http1_max_headers(HEADERS_MAX)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(connections)
        .tcp_nodelay(true)
        .tcp_keepalive(KEEPALIVE)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| Error {
            kind: ErrorKind::Unreachable,
            operation: "Set up HTTP",
            resource: String::new(),
            host: String::new(),
            status: None,
            code: None,
            request_id: None,
            source: Some(Box::new(error)),
        })
}

/// Why there was no answer, or only a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The host's name has no address.
    Dns,
    /// Nobody listens there.
    Refused,
    /// A proxy of the environment cannot be reached, or does not let us through.
    Proxy,
    /// TLS: certificate or handshake.
    Tls,
    /// No connection for another reason, or not in time.
    Connect,
    /// The connection broke after the request had begun.
    Broken,
    /// The request cannot be put on the wire (a header with a character that HTTP refuses).
    Malformed,
}

/// A failure below HTTP. The text has no URL, hence no SAS.
#[derive(Debug)]
pub(in crate::blob) struct TransportError {
    pub(in crate::blob) cause: Cause,
    text: String,
}

impl TransportError {
    pub(super) fn new(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let text = chain(&error);
        let cause = if error.is_builder() {
            Cause::Malformed
        } else if !error.is_connect() {
            Cause::Broken
        } else if ["proxy", "tunnel"].iter().any(|word| text.contains(word)) {
            Cause::Proxy
        } else if io_kind(&error) == Some(io::ErrorKind::ConnectionRefused) {
            Cause::Refused
        } else if text.contains("dns error") {
            Cause::Dns
        } else if ["certificate", "tls", "TLS", "handshake", "corrupt message"].iter().any(|word| text.contains(word)) {
            Cause::Tls
        } else {
            Cause::Connect
        };
        Self { cause, text }
    }
}

#[cfg(test)]
impl TransportError {
    /// One of this cause, for tests.
    pub(in crate::blob) fn of(cause: Cause) -> Self {
        Self { cause, text: "it is a test".to_owned() }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for TransportError {}

fn io_kind(error: &dyn std::error::Error) -> Option<io::ErrorKind> {
    let mut below = error.source();
    while let Some(cause) = below {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        below = cause.source();
    }
    None
}

/// Sends with reqwest.
#[derive(Debug)]
pub(super) struct HttpTransport {
    client: reqwest::Client,
}

impl HttpTransport {
    pub(super) fn new(client: reqwest::Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl Policy for HttpTransport {
    async fn send(&self, context: &Context, request: &mut Request, _next: &[Arc<dyn Policy>]) -> PolicyResult {
        let method = request.method();
        let method = reqwest::Method::from_bytes(method.as_ref().as_bytes()).map_err(|error| malformed(&error))?;
        let mut builder = self.client.request(method, request.url().clone());
        let mut headers = HeaderMap::with_capacity(16);
        for (name, value) in request.headers().iter() {
            let name = HeaderName::from_bytes(name.as_str().as_bytes()).map_err(|error| malformed(&error))?;
            let value = HeaderValue::from_str(value.as_str()).map_err(|error| malformed(&error))?;
            headers.insert(name, value);
        }
        let body = context.value::<Body>().cloned().unwrap_or_default();
        if body.is_empty() && !matches!(request.method(), Method::Put | Method::Patch) {
            headers.remove(CONTENT_LENGTH);
        } else {
            // With the length known, hyper sends the pieces as they are instead of chunked.
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        builder = builder.headers(headers);
        if !body.is_empty() {
            builder = builder.body(match body.pieces() {
                [one] => reqwest::Body::from(one.clone()),
                pieces => reqwest::Body::wrap_stream(stream::iter(pieces.to_vec()).map(Ok::<_, io::Error>)),
            });
        }
        let response = builder.send().await.map_err(failed)?;
        let status = response.status().as_u16().into();
        let mut headers = Headers::new();
        for (name, value) in response.headers() {
            headers.insert(name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned());
        }
        Ok(AsyncRawResponse::new(status, headers, Box::pin(response.bytes_stream().map_err(failed))))
    }
}

fn failed(error: reqwest::Error) -> azure_core::Error {
    azure_core::Error::new(azure_core::error::ErrorKind::Io, TransportError::new(error))
}

fn malformed(error: &dyn std::error::Error) -> azure_core::Error {
    let error = TransportError { cause: Cause::Malformed, text: error.to_string() };
    azure_core::Error::new(azure_core::error::ErrorKind::DataConversion, error)
}
