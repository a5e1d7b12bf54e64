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
mod error;
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
pub use error::Error;
pub use http::{IdentityHttp, Trust};
pub use identity::{IdentityOptions, IdentitySettings};
pub use managed_identity::{IdentityEndpoints, IdentityId};
pub use policy::CredentialPolicy;
pub use sas::SasToken;
pub use secret::trimmed;
pub use service_sas::{READ_PERMISSION, blob_sas};
pub use shared_key::{AZURE_KEY_BYTES, AccountKey};
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
