//! What a call asks for: operation, URL, headers, body. Plain data; sending it is `call.rs`.

use azure_core::http::{Method, headers::HeaderName};
use base64::{Engine, engine::general_purpose::STANDARD};
use url::Url;

use super::source::Source;
use crate::blob::{BlockId, Body, Condition, ContentHeaders, ETag, Metadata, endpoint, limit::Urgency};

/// The service version that we speak. Old enough for every cloud, new enough for 4000 MiB blocks (2019-12-12), for
/// percent-encoded names in listings (2021-02-12) and for copies with authorisation of their own (2020-10-02).
pub(super) const SERVICE_VERSION: &str = "2023-11-03";

/// Which deadline applies (see `RequestLimits`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    /// Reads and names.
    Names,
    /// Data, commits, copies.
    Commits,
}

/// One operation of the REST interface, ready to be tried as often as needed.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// Name of the operation in the REST reference.
    pub(super) operation: &'static str,
    /// `container` or `container/blob`, for messages.
    pub(super) resource: String,
    /// Whether the request is about the container (or the account), not about a blob.
    pub(super) about_container: bool,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(HeaderName, String)>,
    /// What the service reads for it.
    pub(super) source: Option<Source>,
    pub(super) body: Body,
    pub(super) deadline: Deadline,
    /// Read the answer's body as a part of the try, so that one that breaks off is tried again.
    pub(super) buffered: bool,
    /// Its answers say how the link is: a GET of bytes, where the service has little to do beside.
    pub(super) measured: bool,
    /// Who waits for it.
    pub(super) urgency: Urgency,
}

impl Call {
    /// Adds a query parameter; the value is escaped.
    pub(super) fn query(mut self, name: &str, value: &str) -> Self {
        let mut query = self.url.query().map(|query| format!("{query}&")).unwrap_or_default();
        query.push_str(name);
        query.push('=');
        query.push_str(&endpoint::escape(value));
        self.url.set_query(Some(&query));
        self
    }

    /// Adds a header.
    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((HeaderName::from_static(name), value.into()));
        self
    }

    /// Names what the service is to read.
    pub(super) fn source(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    /// Adds a condition on the blob that is read or written.
    pub(super) fn condition(self, condition: &Condition) -> Self {
        match condition {
            Condition::None => self,
            Condition::Match(ETag(etag)) => self.header("if-match", etag.as_ref()),
            Condition::Absent => self.header("if-none-match", "*"),
            Condition::NotMatch(ETag(etag)) => self.header("if-none-match", etag.as_ref()),
        }
    }

    /// Adds user metadata.
    pub(super) fn metadata(mut self, metadata: &Metadata) -> Self {
        for (name, value) in metadata {
            let name = HeaderName::from(format!("x-ms-meta-{}", name.to_ascii_lowercase()));
            self.headers.push((name, value.clone()));
        }
        self
    }

    /// Adds the content headers that are stored with the blob.
    pub(super) fn content_headers(mut self, headers: &ContentHeaders) -> Self {
        for (name, value) in [
            ("x-ms-blob-content-type", &headers.content_type),
            ("x-ms-blob-content-encoding", &headers.content_encoding),
            ("x-ms-blob-content-language", &headers.content_language),
            ("x-ms-blob-content-disposition", &headers.content_disposition),
            ("x-ms-blob-cache-control", &headers.cache_control),
        ] {
            if let Some(value) = value {
                self = self.header(name, value.clone());
            }
        }
        self
    }

    /// Adds the index tags.
    pub(super) fn tags(self, headers: &ContentHeaders) -> Self {
        match &headers.tags {
            Some(tags) => self.header("x-ms-tags", tags.as_ref()),
            None => self,
        }
    }

    /// Adds the access tier, where the blob has one of its own.
    pub(super) fn access_tier(self, tier: Option<&str>) -> Self {
        match tier {
            Some(tier) => self.header("x-ms-access-tier", tier),
            None => self,
        }
    }

    /// Takes the body to send.
    pub(super) fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// Lets the longer deadline apply.
    pub(super) fn commits(mut self) -> Self {
        self.deadline = Deadline::Commits;
        self
    }

    /// Lets the time to its answer be measured.
    pub(super) fn measured(mut self) -> Self {
        self.measured = true;
        self
    }

    /// Reads the answer's body within the try.
    pub(super) fn buffered(mut self) -> Self {
        self.buffered = true;
        self
    }
}

/// A block id as it goes over the wire.
pub(super) fn encode_block_id(id: &BlockId) -> String {
    STANDARD.encode(&id.0)
}
