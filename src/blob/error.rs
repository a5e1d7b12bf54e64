//! What can go wrong between us and the service. Callers match on [`ErrorKind`]; people read the text.

use std::fmt;

/// Result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an error means to the caller. Small on purpose: a new cause gets a new text, not a new kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The blob does not exist (404 BlobNotFound).
    NotFound,
    /// The container does not exist (404 ContainerNotFound) or is being deleted.
    ContainerNotFound,
    /// A condition failed: the blob was changed, created or deleted by somebody else (412, 409 BlobAlreadyExists).
    Precondition,
    /// If-None-Match held: the blob still has the given ETag (304).
    NotModified,
    /// The service refuses the credential (401, 403), or the credential cannot be used.
    Denied,
    /// A lease, snapshot or pending copy is in the way (409 and some 412 codes): it may end.
    Blocked,
    /// A directory of a hierarchical account has something in it (409 DirectoryNotEmpty).
    NotEmpty,
    /// A legal hold or an immutability policy forbids the change (409).
    Protected,
    /// The blob is archived and must be rehydrated before it can be read (409 BlobArchived).
    Archived,
    /// Too busy (429, 503 ServerBusy): retries were exhausted.
    Throttled,
    /// A limit of the service: body, block count or name too large (413, 409 BlockCountExceedsLimit).
    TooLarge,
    /// The service does not implement the operation (501, or a feature refused for this account).
    Unsupported,
    /// The blob's other blocks, committed or not, have ids of another length (400 InvalidBlobOrBlock).
    BlockIdLength,
    /// The request makes no sense to the service (400): a defect of ours or a wrong option.
    Invalid,
    /// No connection: DNS, TCP or TLS failed.
    Unreachable,
    /// The deadline of the call passed.
    TimedOut,
    /// The service failed (5xx) and retries were exhausted.
    Server,
    /// Bytes arrived that contradict their checksum, length or format.
    Corrupt,
}

/// One failed operation of the store. The text says what was tried, on what, and what came back; the cause is in
/// `source()` and is not repeated.
#[derive(Debug)]
pub struct Error {
    /// What it means.
    pub kind: ErrorKind,
    /// The REST operation, as the service's documentation calls it ("Get Blob").
    pub operation: &'static str,
    /// The blob or container it was about, as `container/blob`.
    pub resource: String,
    /// Host of the endpoint.
    pub host: String,
    /// HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// `x-ms-error-code`, when there was one.
    pub code: Option<String>,
    /// `x-ms-request-id`, when there was one: what Azure support asks for.
    pub request_id: Option<String>,
    /// The cause below, when there is one.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// The same, to be kept: what is below it stays as text.
    #[must_use]
    pub fn without_cause(&self) -> Self {
        Self {
            kind: self.kind,
            operation: self.operation,
            resource: self.resource.clone(),
            host: self.host.clone(),
            status: self.status,
            code: self.code.clone(),
            request_id: self.request_id.clone(),
            source: self.source.as_deref().map(|source| crate::telemetry::chain(source).into()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_str() {
            "" => write!(f, "{}: ", self.operation)?, // Before any endpoint was involved.
            host => write!(f, "{} {} at {host}: ", self.operation, self.resource)?,
        }
        match (self.status, &self.code) {
            (Some(status), Some(code)) => write!(f, "HTTP {status} {code}")?,
            (Some(status), None) => write!(f, "HTTP {status}")?,
            (None, _) => f.write_str(self.kind.without_answer())?,
        }
        match &self.request_id {
            Some(id) => write!(f, " (request id {id})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl ErrorKind {
    /// How the kind reads when the service never answered.
    fn without_answer(self) -> &'static str {
        match self {
            Self::Unreachable => "no connection",
            Self::TimedOut => "no answer within the deadline",
            Self::Corrupt => "damaged answer",
            Self::Denied => "no usable credential",
            _ => "failed",
        }
    }
}
