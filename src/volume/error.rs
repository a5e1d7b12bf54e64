//! Why a volume cannot be mounted, published or taken down: a kind to act on, and a sentence with the fix.
//!
//! The one place that turns what the service says at mount time into what a person can do about it.

use std::{error, fmt, io, path::Path, time::SystemTime};

use crate::{
    blob::{self, Location},
    credential::{Credential, TokenError, TokenErrorKind},
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
        let (kind, advice) = judge(&source, location, credential);
        let message = format!(
            "Cannot {what} container {:?} of account {:?} at {}: {advice}",
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

/// Kind and advice for what the service answered.
fn judge(source: &blob::Error, location: &Location, credential: &Credential) -> (ErrorKind, String) {
    let account = location.account();
    let token = source.source.as_deref().and_then(|below| below.downcast_ref::<TokenError>());
    if let Some(token) = token {
        let kind = if token.kind == TokenErrorKind::Refused { ErrorKind::Denied } else { ErrorKind::Unavailable };
        return (kind, token.to_string());
    }
    match source.kind {
        blob::ErrorKind::Denied => (ErrorKind::Denied, denied(source, account, credential)),
        blob::ErrorKind::ContainerNotFound => (
            ErrorKind::ContainerMissing,
            "it does not exist; create it, correct its name, or set createContainer: \"true\"".to_owned(),
        ),
        blob::ErrorKind::Unreachable => (
            ErrorKind::Unavailable,
            "the endpoint cannot be reached; check account name, endpoint suffix, DNS, firewall and private endpoint"
                .to_owned(),
        ),
        blob::ErrorKind::TimedOut => {
            (ErrorKind::Unavailable, "the endpoint does not answer in time; check network and firewall".to_owned())
        }
        blob::ErrorKind::Throttled | blob::ErrorKind::Server => {
            (ErrorKind::Unavailable, "the service is busy; this is tried again".to_owned())
        }
        blob::ErrorKind::Precondition | blob::ErrorKind::Blocked => {
            (ErrorKind::NotReady, "a lease, policy or concurrent change is in the way".to_owned())
        }
        _ => (ErrorKind::Invalid, "the service does not take the request; check endpoint and names".to_owned()),
    }
}

fn denied(source: &blob::Error, account: &str, credential: &Credential) -> String {
    let code = source.code.as_deref().unwrap_or_default();
    match (credential, code) {
        (_, "AuthorizationFailure") => {
            "the account's network rules refuse this node; allow its subnet or use a private endpoint".to_owned()
        }
        (_, "KeyBasedAuthenticationNotPermitted") => {
            format!("account {account:?} does not permit shared keys; use a SAS of an Entra identity, or permit them")
        }
        (Credential::SharedKey(_), _) => {
            format!("the account key is refused; check that the Secret holds a current key of account {account:?}")
        }
        (Credential::Token(token), _) => format!(
            "{} may not do this; assign it the role Storage Blob Data Contributor (or Reader) on the account or container",
            token.describe()
        ),
        (Credential::Sas(token), _) if token.problem(SystemTime::now()).is_some() => {
            token.problem(SystemTime::now()).unwrap_or_default()
        }
        (Credential::Sas(token), _) => format!(
            "the SAS is refused ({}); it must be valid now and allow to read and list this container",
            token.describe()
        ),
        (Credential::Anonymous, _) => {
            "it does not permit anonymous access; reference a Secret with an account key, a SAS or a connection string"
                .to_owned()
        }
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
