//! Why a call of the interface fails: a kind to act on and one sentence for people. The gRPC side is in `status`.

use std::{error, fmt, sync::Arc};

use crate::telemetry::chain;

/// Result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a failure means to the caller (the interface prescribes the codes: `status` has the table).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong and will stay so: a missing field, an unknown parameter, a bad option.
    Invalid,
    /// There is no such volume, container or path.
    NotFound,
    /// There is one of that name already, and it is different.
    AlreadyExists,
    /// The size asked for cannot be had.
    OutOfRange,
    /// The node or volume is not in the state that the call needs (not staged, mount gone).
    NotReady,
    /// The service refuses the credential.
    Denied,
    /// There is no usable credential.
    NoCredential,
    /// Network, throttling or a container that is being deleted: the same call may succeed later.
    Unavailable,
    /// The work goes on; the same call asks for it again.
    InProgress,
    /// The call did not end within its deadline.
    TimedOut,
    /// Not something that this driver does.
    Unsupported,
    /// Everything else: a mount(2) that failed, a defect.
    Internal,
}

/// A failed call. Cheap to clone: all callers that joined one operation get the same.
#[derive(Clone, Debug)]
pub struct Error {
    /// What it means.
    pub kind: ErrorKind,
    /// One sentence: what could not be done, why, and the fix where there is one. No secret.
    pub message: String,
    /// The cause below; its text is not repeated in `message`.
    pub source: Option<Arc<dyn error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(mut self, source: impl error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The sentence and the causes below it, each once.
    #[must_use]
    pub fn full_text(&self) -> String {
        chain(self)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_text_says_each_cause_once() {
        let inner = Error::new(ErrorKind::Denied, "HTTP 403 AuthenticationFailed");
        let outer = Error::new(ErrorKind::Denied, "Cannot mount container logs").because(inner.clone().because(inner));
        assert_eq!(outer.full_text(), "Cannot mount container logs: HTTP 403 AuthenticationFailed");
    }
}
