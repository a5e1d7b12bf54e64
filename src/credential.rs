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
mod cloud_config;
mod connection_string;
mod entra;
mod environment;
mod error;
mod expiry;
mod http;
mod identity;
mod lookup;
mod managed_identity;
mod policy;
mod sas;
mod secret;
mod secret_files;
mod service_principal;
mod service_sas;
mod shared_key;
mod slot;
mod source;
mod token;
mod token_answer;
mod workload_identity;

use std::time::SystemTime;

pub use cloud::{Cloud, CloudHints, STORAGE_AUDIENCE, UnknownCloud};
pub use cloud_config::CloudConfig;
pub use connection_string::parse_connection_string;
pub use environment::{AuthMode, account_settings_from};
pub use error::Error;
pub use expiry::watch_expiry;
pub use http::{IdentityHttp, Trust};
pub use identity::{IdentityOptions, IdentitySettings};
pub use lookup::{AccountKeys, AccountWanted, Accounts, Lookup, LookupError, Lookups, Question, VaultSecret};
pub use managed_identity::{IdentityEndpoints, IdentityId};
pub use policy::CredentialPolicy;
pub use sas::SasToken;
pub use secret::trimmed;
pub use secret_files::SecretFiles;
pub use service_sas::{READ_PERMISSION, blob_sas};
pub use shared_key::{AZURE_KEY_BYTES, AccountKey};
pub use slot::CredentialSlot;
pub use source::{CredentialSource, watch};
pub use token::{AccessToken, TokenCredential, TokenError, TokenErrorKind, TokenSource};
pub use workload_identity::{Assertion, PodToken, TokenFile};

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

    /// Whether two sign alike: both keys of an account in either order, one SAS, one identity. Compares what they produce: the
    /// secrets themselves stay where they are.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self.spare(), other.spare()) {
            (None, None) => self.signs_like(other),
            (Some(own), Some(others)) => {
                self.signs_like(other) && own.signs_like(&others) || self.signs_like(&others) && own.signs_like(other)
            }
            _ => false,
        }
    }

    /// Whether two sign alike as they are, whatever they have to spare.
    #[must_use]
    pub fn signs_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::SharedKey(a), Self::SharedKey(b)) => a.account() == b.account() && a.sign("") == b.sign(""),
            (Self::Sas(a), Self::Sas(b)) => a.is_same(b),
            (Self::Token(a), Self::Token(b)) => a.is_same(b),
            (Self::Anonymous, Self::Anonymous) => true,
            _ => false,
        }
    }

    /// The second key of the account, where two were given, with the first to spare.
    #[must_use]
    pub fn spare(&self) -> Option<Self> {
        match self {
            Self::SharedKey(key) => key.spare().map(Self::SharedKey),
            _ => None,
        }
    }

    /// When it ends, where it says so itself: a SAS does; a token is renewed before.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        match self {
            Self::Sas(token) => token.expires(),
            _ => None,
        }
    }

    /// Takes what `other`, which is the same identity, was handed since: a newer token of the pod to sign in with.
    pub fn take_over(&self, other: &Self) {
        if let (Self::Token(own), Self::Token(other)) = (self, other) {
            own.take_over(other);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_the_same_when_they_sign_alike() {
        let key = |account, key| AccountKey::parse("test", account, key).unwrap();
        let one = |account, text| Credential::SharedKey(key(account, text));
        let two = |first, second| Credential::SharedKey(key("a", first).with_spare(&key("a", second)));
        let sas = |text| Credential::Sas(SasToken::parse("test", text).unwrap());
        assert!(one("a", "c2VjcmV0").is_same(&one("a", "c2VjcmV0")));
        assert!(!one("a", "c2VjcmV0").is_same(&one("a", "b3RoZXI=")));
        assert!(!one("a", "c2VjcmV0").is_same(&one("b", "c2VjcmV0")));
        assert!(two("c2VjcmV0", "b3RoZXI=").is_same(&two("b3RoZXI=", "c2VjcmV0")));
        assert!(!two("c2VjcmV0", "b3RoZXI=").is_same(&one("a", "c2VjcmV0")));
        assert!(!two("c2VjcmV0", "b3RoZXI=").is_same(&two("c2VjcmV0", "dGhpcmQ=")));
        assert!(sas("?sv=1&sig=x").is_same(&sas("sv=1&sig=x")));
        assert!(!sas("sv=1&sig=x").is_same(&sas("sv=1&sig=y")));
        assert!(Credential::Anonymous.is_same(&Credential::Anonymous));
        assert!(!Credential::Anonymous.is_same(&sas("sv=1&sig=x")));
    }
}
