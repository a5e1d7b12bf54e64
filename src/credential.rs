//! Who we are to the Blob service: account key, SAS, an identity of Entra ID or nobody, and how each signs a request.
//!
//! A [`CredentialSlot`] holds what is in use and can be refilled at run time; [`CredentialPolicy`] puts its contents on
//! every try of every request, so a retry after a rotation already carries the new secret. Sources of secrets
//! (connection string, environment) end in [`AccountSettings`], sources of tokens ([`TokenSource`], one file each) in a
//! [`TokenCredential`]. Nothing here knows containers' contents or blobs.

mod aadsts;
mod azure_cli;
mod certificate;
mod chain;
mod cloud;
mod connection_string;
mod entra;
mod environment;
mod http;
mod identity;
mod managed_identity;
mod policy;
mod sas;
mod secret;
mod service_principal;
mod service_sas;
mod shared_key;
mod slot;
mod token;
mod token_answer;
mod workload_identity;

pub use cloud::{Cloud, CloudHints, STORAGE_AUDIENCE, UnknownCloud};
pub use connection_string::parse_connection_string;
pub use environment::{AuthMode, account_settings_from};
pub use http::{IdentityHttp, Trust};
pub use identity::{IdentityOptions, IdentitySettings};
pub use managed_identity::{IdentityEndpoints, IdentityId};
pub use policy::CredentialPolicy;
pub use sas::SasToken;
pub use secret::trimmed;
pub use service_sas::{READ_PERMISSION, blob_sas};
pub use shared_key::AccountKey;
pub use slot::CredentialSlot;
pub use token::{AccessToken, TokenCredential, TokenError, TokenErrorKind, TokenSource};
pub use workload_identity::{Assertion, TokenFile};

/// What the service is shown with a request.
#[derive(Clone, Debug)]
pub enum Credential {
    /// The account's own key: signs each request (SharedKey).
    SharedKey(AccountKey),
    /// A shared access signature: query parameters that carry their own signature.
    Sas(SasToken),
    /// A bearer token of Entra ID, fetched and refreshed as needed. Goes over https alone.
    Token(TokenCredential),
    /// Nothing: containers with public access.
    Anonymous,
}

impl Credential {
    /// Number of the token in use: 0 before the first, and for what is no token.
    #[must_use]
    pub fn token_serial(&self) -> u64 {
        match self {
            Self::Token(token) => token.serial(),
            _ => 0,
        }
    }

    /// The service refused it (401), token number `refused` where it is one: asks the source for another. Tells whether
    /// there is one now.
    pub async fn renew(&self, refused: u64) -> bool {
        match self {
            Self::Token(token) => token.renew(refused).await,
            _ => false,
        }
    }

    /// The kind in words, for messages ("account key"). Never the secret.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match self {
            Self::SharedKey(_) => "account key",
            Self::Sas(_) => "SAS",
            Self::Token(_) => "Entra ID token",
            Self::Anonymous => "no credential (anonymous)",
        }
    }
}

/// What a connection string or the environment says about an account. Everything is optional: the caller puts
/// command line and volume attributes on top and the blob room's `Location` checks the sum.
#[derive(Clone, Debug, Default)]
pub struct AccountSettings {
    /// Name of the storage account.
    pub account: Option<String>,
    /// Blob endpoint with scheme (`https://acme.blob.core.windows.net`, `http://127.0.0.1:10000/devstoreaccount1`).
    pub endpoint: Option<String>,
    /// DNS suffix of the cloud (`core.windows.net`), where no endpoint is given.
    pub endpoint_suffix: Option<String>,
    /// Whether `http` was asked for by DefaultEndpointsProtocol.
    pub insecure: bool,
    /// Container, optionally with `/prefix`.
    pub container: Option<String>,
    /// How to sign in, where that was said.
    pub mode: Option<AuthMode>,
    /// The credential, if one was found.
    pub credential: Option<Credential>,
}

/// A credential that cannot be used. The texts name the secret and the fix, never its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An account key that is no base64.
    #[error(
        "{source_name} is not a storage account key: keys are base64 text (88 characters for Azure accounts); copy it again from the account's \"Access keys\" page"
    )]
    KeyNotBase64 {
        /// Which secret ("AZURE_STORAGE_KEY", "secret key accountkey").
        source_name: String,
    },
    /// An empty secret.
    #[error("{source_name} is empty: remove it or give it a value")]
    Empty {
        /// Which secret.
        source_name: String,
    },
    /// A SAS without its signature.
    #[error(
        "{source_name} is not a SAS token: it has no sig= parameter; expected text of the form sv=...&sp=...&sig=... (with or without a leading ?)"
    )]
    SasWithoutSignature {
        /// Which secret.
        source_name: String,
    },
    /// A key without the account that it belongs to.
    #[error(
        "{source_name} is set, but not the storage account that it belongs to: set AZURE_STORAGE_ACCOUNT or give the account in the URL"
    )]
    KeyWithoutAccount {
        /// Which secret.
        source_name: String,
    },
    /// A connection string that is no list of Key=Value;.
    #[error(
        "{source_name} is not a connection string: expected Key=Value pairs separated by semicolons, such as DefaultEndpointsProtocol=https;AccountName=...;AccountKey=...;EndpointSuffix=core.windows.net"
    )]
    NotAConnectionString {
        /// Which secret.
        source_name: String,
    },
    /// A connection string that lacks what is needed.
    #[error("{source_name} names neither an account nor a blob endpoint: add AccountName=... or BlobEndpoint=...")]
    ConnectionStringWithoutAccount {
        /// Which secret.
        source_name: String,
    },
    /// A way to sign in that this version does not know, or that lacks its secret.
    #[error("{source_name} is \"{mode}\": {reason}")]
    AuthMode {
        /// Which variable.
        source_name: String,
        /// Its value.
        mode: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A way to sign in that lacks something.
    #[error("{mode} cannot sign in without {what}: set it")]
    Missing {
        /// The way.
        mode: &'static str,
        /// Variables and options, one of which has to be set.
        what: &'static str,
    },
    /// A host of Entra ID that cannot be one.
    #[error("\"{authority}\" is no host of Entra ID: expected https://HOST, such as https://login.microsoftonline.com")]
    Authority {
        /// As written.
        authority: String,
    },
    /// A tenant that cannot be one.
    #[error("\"{tenant}\" is no tenant: expected its ID, or a domain of it, such as contoso.onmicrosoft.com")]
    Tenant {
        /// As written.
        tenant: String,
    },
    /// A managed identity that is named twice.
    #[error("a managed identity is named by one of client ID, object ID and resource ID: remove the others")]
    SeveralIdentities,
    /// An identity that this platform does not let choose.
    #[error("this managed identity cannot be asked for here: {reason}")]
    IdentityNotHere {
        /// Why, and what to do.
        reason: &'static str,
    },
    /// An endpoint for managed identities that is no URL.
    #[error("{source_name} is \"{value}\", which is no URL: expected http://HOST[:PORT][/PATH]")]
    IdentityEndpoint {
        /// Which variable or option.
        source_name: &'static str,
        /// Its value.
        value: String,
    },
    /// A bundle of CA certificates that cannot be used.
    #[error("CA certificates {file}: {reason}")]
    Certificates {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No HTTPS without roots.
    #[error(
        "TLS cannot be set up ({reason}): install this machine's CA certificates (package ca-certificates), or set SSL_CERT_FILE"
    )]
    Tls {
        /// What the library says.
        reason: String,
    },
}
