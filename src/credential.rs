//! Who we are to the Blob service: account key, SAS or nobody, and how each signs a request.
//!
//! A [`CredentialSlot`] holds what is in use and can be refilled at run time; [`CredentialPolicy`] puts its contents on
//! every try of every request, so a retry after a rotation already carries the new secret. Sources of credentials
//! (connection string, environment) end in [`AccountSettings`]. Nothing here knows containers' contents or blobs.

mod cloud;
mod connection_string;
mod environment;
mod policy;
mod sas;
mod secret;
mod service_sas;
mod shared_key;
mod slot;

pub use cloud::{Cloud, UnknownCloud};
pub use connection_string::parse_connection_string;
pub use environment::{AuthMode, account_settings_from};
pub use policy::CredentialPolicy;
pub use sas::SasToken;
pub use secret::trimmed;
pub use service_sas::{READ_PERMISSION, blob_sas};
pub use shared_key::AccountKey;
pub use slot::CredentialSlot;

/// What the service is shown with a request.
///
/// Sources that need a round trip for a token (workload identity, managed identity, service principal) fit in as a
/// further variant: [`CredentialPolicy`] is asynchronous and asks the slot again for every try.
#[derive(Clone, Debug)]
pub enum Credential {
    /// The account's own key: signs each request (SharedKey).
    SharedKey(AccountKey),
    /// A shared access signature: query parameters that carry their own signature.
    Sas(SasToken),
    /// Nothing: containers with public access.
    Anonymous,
}

impl Credential {
    /// The kind in words, for messages ("account key"). Never the secret.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match self {
            Self::SharedKey(_) => "account key",
            Self::Sas(_) => "SAS",
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
}
