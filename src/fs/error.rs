//! Why an operation failed, and what the kernel is told. The only file that maps service errors to errno values.

use std::fmt;

use libc::c_int;
use tracing::Level;

use crate::blob::{self, ErrorKind};

/// Result of a file system operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What to do about a blob in the Archive tier.
pub const REHYDRATE: &str = "the blob is in the Archive tier; rehydrate it first (az storage blob set-tier --tier Hot)";

/// A failed operation: the errno for the kernel, the sentence for the log, and how loud to say it.
#[derive(Debug)]
pub struct Error {
    /// The errno that the system call returns.
    pub errno: c_int,
    /// What was attempted and on what. Does not repeat the source.
    pub message: String,
    /// Level to log it at: what programs provoke all day (ENOENT, EEXIST) is DEBUG, lost access is WARN.
    pub level: Level,
    /// The cause below, where the service answered (or failed to).
    pub source: Option<Box<blob::Error>>,
    /// Without a source: whether trying again later can help.
    pub(super) passes: bool,
}

impl Error {
    /// An error of our own making, in answer to what the program asked for.
    pub fn new(errno: c_int, message: impl Into<String>) -> Self {
        Self { errno, message: message.into(), level: Level::DEBUG, source: None, passes: errno != libc::ESTALE }
    }

    /// A failure of which an earlier process has told, or was about to.
    pub(super) fn told_before(errno: c_int, message: String, may_pass: bool) -> Self {
        Self { errno, message, level: Level::WARN, source: None, passes: may_pass }
    }

    /// A wait of our own that took as long as a request may take.
    pub fn timed_out(message: impl Into<String>) -> Self {
        Self { level: Level::WARN, ..Self::new(libc::ETIMEDOUT, message) }
    }

    /// An error that the service caused while we did `what`.
    pub fn from_store(what: impl Into<String>, source: blob::Error) -> Self {
        let (errno, level) = judge(source.kind);
        let message = match source.kind {
            ErrorKind::Archived => format!("{}: {REHYDRATE}", what.into()),
            _ => what.into(),
        };
        Self { errno, message, level, source: Some(Box::new(source)), passes: false }
    }

    /// The same error under another errno, where the operation gives the kind another meaning.
    #[must_use]
    pub fn with_errno(mut self, errno: c_int) -> Self {
        self.errno = errno;
        self
    }

    /// Kind of the service error below, if there is one.
    #[must_use]
    pub fn kind(&self) -> Option<ErrorKind> {
        self.source.as_ref().map(|source| source.kind)
    }

    /// Whether trying again later can help. What the service refused for good (credential, container, another client's
    /// version) stays refused for this data, also where somebody mends the cause later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self.kind() {
            Some(kind) => matches!(
                kind,
                ErrorKind::Throttled
                    | ErrorKind::TimedOut
                    | ErrorKind::Unreachable
                    | ErrorKind::Server
                    | ErrorKind::Corrupt
                    | ErrorKind::Blocked
            ),
            None => self.passes,
        }
    }

    /// A copy for another handle that must hear of the same failure; the source is kept as text.
    #[must_use]
    pub fn repeat(&self) -> Self {
        Self { errno: self.errno, message: self.to_chain(), level: self.level, source: None, passes: self.may_pass() }
    }

    /// The message and its causes in one line, each said once.
    #[must_use]
    pub fn to_chain(&self) -> String {
        crate::telemetry::chain(self)
    }
}

/// What a kind of service error means to a program, and how loud it is.
fn judge(kind: ErrorKind) -> (c_int, Level) {
    match kind {
        ErrorKind::NotFound => (libc::ENOENT, Level::DEBUG),
        ErrorKind::Precondition => (libc::ESTALE, Level::WARN),
        ErrorKind::NotEmpty => (libc::ENOTEMPTY, Level::DEBUG),
        ErrorKind::Denied | ErrorKind::Archived => (libc::EACCES, Level::WARN),
        ErrorKind::Blocked => (libc::EBUSY, Level::WARN),
        ErrorKind::Protected => (libc::EPERM, Level::WARN),
        ErrorKind::TooLarge => (libc::EFBIG, Level::WARN),
        ErrorKind::Unsupported => (libc::EOPNOTSUPP, Level::WARN),
        // The store has retried until its deadline: to a program that is a disk that does not answer in time.
        ErrorKind::Throttled | ErrorKind::TimedOut | ErrorKind::Unreachable => (libc::ETIMEDOUT, Level::ERROR),
        ErrorKind::ContainerNotFound | ErrorKind::Server | ErrorKind::Corrupt => (libc::EIO, Level::ERROR),
        ErrorKind::Invalid | ErrorKind::BlockIdLength | ErrorKind::NotModified => (libc::EIO, Level::ERROR),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}
