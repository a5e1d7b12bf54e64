//! The one table from our errors to gRPC codes. The codes are prescribed by the CSI specification, section "Error
//! Scheme" and the tables of each call.

use tonic::{Code, Status};

use super::error::{Error, ErrorKind};

impl ErrorKind {
    /// The gRPC code of this kind.
    fn code(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::AlreadyExists => Code::AlreadyExists,
            Self::OutOfRange => Code::OutOfRange,
            Self::NotReady => Code::FailedPrecondition,
            Self::Denied => Code::PermissionDenied,
            Self::NoCredential => Code::Unauthenticated,
            Self::Unavailable => Code::Unavailable,
            // Provisioner and snapshotter ask again, and delete nothing ("ABORTED: Operation pending").
            Self::InProgress => Code::Aborted,
            Self::TimedOut => Code::DeadlineExceeded,
            Self::Unsupported => Code::Unimplemented,
            Self::Internal => Code::Internal,
        }
    }

    /// Whether the operator, not the requester, should hear of it first.
    fn is_ours(self) -> bool {
        matches!(self, Self::Internal | Self::TimedOut)
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Self::new(error.kind.code(), error.full_text())
    }
}

/// Ends a call: turns its result into an answer, and logs a failure once, here.
///
/// # Errors
/// The same error as gRPC status.
pub fn answer<T>(call: &'static str, volume: &str, result: Result<T, Error>) -> Result<tonic::Response<T>, Status> {
    match result {
        Ok(reply) => Ok(tonic::Response::new(reply)),
        Err(error) => {
            let (kind, text) = (error.kind, error.full_text());
            if kind == ErrorKind::InProgress {
                tracing::info!(call, volume, "{text}");
            } else if kind.is_ours() {
                tracing::error!(call, volume, ?kind, "{text}");
            } else {
                tracing::warn!(call, volume, ?kind, "{text}");
            }
            Err(Status::new(kind.code(), text))
        }
    }
}

/// The answer of a call that this driver does not offer.
#[must_use]
pub fn unsupported(call: &'static str) -> Status {
    Error::new(ErrorKind::Unsupported, format!("{call} is not offered by this driver (see its capabilities)")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_carries_the_sentence_and_its_cause() {
        let cause = std::io::Error::other("connection refused");
        let status = Status::from(Error::new(ErrorKind::Unavailable, "Cannot reach acme").because(cause));
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "Cannot reach acme: connection refused");
    }
}
