//! A credential that cannot be used, found before any request. Its sentences are those of the table of findings; they name
//! the secret, never its value.

use std::fmt;

use crate::finding::{Diagnosis, Finding};

/// What is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// An account key that is no base64.
    KeyNotBase64 {
        /// Which secret ("AZURE_STORAGE_KEY", "secret key accountkey").
        source_name: String,
    },
    /// An empty secret.
    Empty {
        /// Which secret.
        source_name: String,
    },
    /// A file that holds a secret and cannot be read.
    SecretFile {
        /// Which variable names it.
        variable: String,
        /// The file.
        file: String,
        /// Why not.
        reason: String,
    },
    /// A SAS without its signature.
    SasWithoutSignature {
        /// Which secret.
        source_name: String,
    },
    /// A key without the account that it belongs to.
    KeyWithoutAccount {
        /// Which secret.
        source_name: String,
    },
    /// A connection string that is no list of Key=Value;.
    NotAConnectionString {
        /// Which secret.
        source_name: String,
    },
    /// A connection string that lacks what is needed.
    ConnectionStringWithoutAccount {
        /// Which secret.
        source_name: String,
    },
    /// A way to sign in that this version does not know, or that lacks its secret.
    AuthMode {
        /// Which variable.
        source_name: String,
        /// Its value.
        mode: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A way to sign in that lacks something.
    Missing {
        /// The way.
        mode: &'static str,
        /// Variables and options, one of which has to be set.
        what: &'static str,
    },
    /// A host of Entra ID that cannot be one.
    Authority {
        /// As written.
        authority: String,
    },
    /// A tenant that cannot be one.
    Tenant {
        /// As written.
        tenant: String,
    },
    /// A managed identity that is named twice.
    SeveralIdentities,
    /// An identity that this platform does not let choose.
    IdentityNotHere {
        /// Why, and what to do.
        reason: &'static str,
    },
    /// An endpoint for managed identities that is no URL.
    IdentityEndpoint {
        /// Which variable or option.
        source_name: &'static str,
        /// Its value.
        value: String,
    },
    /// A bundle of CA certificates that cannot be used.
    Certificates {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No HTTPS without roots.
    Tls {
        /// What the library says.
        reason: String,
    },
}

impl Error {
    /// Which finding it is, filled in.
    #[must_use]
    pub fn diagnosis(&self) -> Diagnosis {
        let of = |finding: Finding, source_name: &str| finding.with(&[("source", source_name)]);
        match self {
            Self::KeyNotBase64 { source_name } => of(Finding::KeyNotBase64, source_name),
            Self::Empty { source_name } => of(Finding::SecretEmpty, source_name),
            Self::SecretFile { variable, file, reason } => {
                Finding::SecretFileUnreadable.with(&[("variable", variable), ("file", file), ("reason", reason)])
            }
            Self::SasWithoutSignature { source_name } => of(Finding::SasUnsigned, source_name),
            Self::KeyWithoutAccount { source_name } => of(Finding::KeyWithoutAccount, source_name),
            Self::NotAConnectionString { source_name } => of(Finding::ConnectionStringMalformed, source_name),
            Self::ConnectionStringWithoutAccount { source_name } => {
                of(Finding::ConnectionStringWithoutAccount, source_name)
            }
            Self::AuthMode { source_name, mode, reason } => {
                Finding::AuthMode.with(&[("source", source_name), ("mode", mode), ("reason", reason)])
            }
            Self::Missing { mode, what } => Finding::AuthIncomplete.with(&[("mode", mode), ("what", what)]),
            Self::Authority { authority } => Finding::AuthorityMalformed.with(&[("authority", authority)]),
            Self::Tenant { tenant } => Finding::TenantMalformed.with(&[("tenant", tenant)]),
            Self::SeveralIdentities => Finding::IdentityNamedTwice.with(&[]),
            Self::IdentityNotHere { reason } => Finding::IdentityNotSelectable.with(&[("reason", reason)]),
            Self::IdentityEndpoint { source_name, value } => {
                Finding::IdentityEndpointMalformed.with(&[("source", source_name), ("value", value)])
            }
            Self::Certificates { file, reason } => Finding::CaFile.with(&[("file", file), ("reason", reason)]),
            Self::Tls { reason } => Finding::NoCaCertificates.with(&[("reason", &format!(" ({reason})"))]),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.diagnosis(), f)
    }
}

impl std::error::Error for Error {}
