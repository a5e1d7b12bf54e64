//! Why a volume cannot be mounted, published or taken down: a kind to act on, and a sentence with the fix.
//!
//! What the service says at mount time becomes what a person can do about it in `doctor`, for the command line as well.

use std::{error, fmt, io, path::Path};

use crate::{
    blob::{self, Location},
    credential::Credential,
    doctor,
    finding::{Diagnosis, Finding},
    fs,
};

/// Result of an operation on a volume.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a failure means to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// What was asked for makes no sense to the service.
    Invalid,
    /// The container does not exist.
    ContainerMissing,
    /// The service refuses the credential.
    Denied,
    /// No connection, throttled, or no answer in time.
    Unavailable,
    /// The volume or path is not in the state that the operation needs.
    NotReady,
    /// Something else is there: another volume at that path, or a volume of that id that differs.
    Occupied,
    /// mount(2), umount(2), mkdir(2) or the FUSE session failed.
    Mount,
    /// Data could not be saved; it is kept and the operation can be tried again.
    Unsaved,
}

/// A failed operation. The text holds its own facts; the cause is in `source()`.
#[derive(Debug)]
pub struct Error {
    /// What it means.
    pub kind: ErrorKind,
    /// One sentence, with the fix where there is one. No secret.
    pub message: String,
    /// The cause below.
    pub source: Option<Box<dyn error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(mut self, source: impl error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// A system call about `path` failed.
    pub(super) fn system(what: &str, path: &Path, source: io::Error) -> Self {
        Self::new(ErrorKind::Mount, format!("Cannot {what} {}", path.display())).because(source)
    }

    /// The service failed while we did `what` ("mount", "create", ...) to the container at `location`.
    pub(crate) fn service(what: &str, location: &Location, credential: &Credential, source: blob::Error) -> Self {
        let known = doctor::diagnose(&source, location, credential);
        Self::known(what, location, &known, source)
    }

    /// The same, after a look from this node at where the endpoint is.
    pub(super) async fn service_here(
        what: &str,
        location: &Location,
        credential: &Credential,
        source: blob::Error,
    ) -> Self {
        let known = doctor::diagnose(&source, location, credential);
        let known = doctor::seen_from_here(known, location).await;
        Self::known(what, location, &known, source)
    }

    fn known(what: &str, location: &Location, known: &Diagnosis, source: blob::Error) -> Self {
        // 409 PublicAccessNotPermitted is no conflict that ends by itself.
        let kind = if known.finding == Finding::NotPublic { ErrorKind::Denied } else { judge(&source) };
        let message = format!(
            "Cannot {what} container {:?} of account {:?} at {}: {known}",
            location.container(),
            location.account(),
            location.host()
        );
        Self::new(kind, message).because(source)
    }

    /// The same for an error of the file system, which may have one of the service inside.
    pub(super) fn file_system(what: &str, location: &Location, credential: &Credential, source: fs::Error) -> Self {
        match source.source {
            Some(inner) => Self::service(what, location, credential, *inner),
            None => Self::new(ErrorKind::Mount, format!("Cannot {what} container {:?}", location.container()))
                .because(source),
        }
    }
}

/// What the service's answer means to the caller.
fn judge(source: &blob::Error) -> ErrorKind {
    match source.kind {
        blob::ErrorKind::Denied => ErrorKind::Denied,
        blob::ErrorKind::ContainerNotFound => ErrorKind::ContainerMissing,
        blob::ErrorKind::Unreachable
        | blob::ErrorKind::TimedOut
        | blob::ErrorKind::Throttled
        | blob::ErrorKind::Server => ErrorKind::Unavailable,
        blob::ErrorKind::Precondition | blob::ErrorKind::Blocked => ErrorKind::NotReady,
        _ => ErrorKind::Invalid,
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
