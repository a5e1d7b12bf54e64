//! A blob that the service itself reads for a request: its URL goes in a header, signed anew for each try, since the
//! credential may have been replaced between two tries.

use std::{sync::Arc, time::Duration};

use azure_core::http::headers::HeaderName;
use url::Url;

use crate::credential::{Credential, CredentialSlot, READ_PERMISSION, blob_sas};

/// How long a source stays readable by the SAS that we make: the longest deadline, and 15 minutes for a clock that is
/// behind (the service refuses requests of clocks that are further off anyway).
const SOURCE_SAS_LIFETIME: Duration = Duration::from_secs(20 * 60);

/// The source of a request.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Of Copy Blob: the account's key opens the source too; a SAS must be said twice.
    Copied(Url),
    /// Of Put Block From URL: the service reads it as whoever the URL says. An anonymous source is public, and a token goes in a
    /// header of its own (`CredentialPolicy`).
    Read { url: Url, container: String, blob: String },
    /// Of Copy Blob from another container, which has a credential of its own: the account's key opens it within the account.
    Foreign { url: Url, slot: Arc<CredentialSlot>, container: String, blob: String, needs_sas: bool },
    /// Of a rename: container and path, escaped, and the SAS once more where that is the credential.
    Renamed { path: String, url: Option<Url> },
}

impl Source {
    /// Name and value of the header for `credential`.
    pub(super) fn header(&self, credential: &Credential) -> (HeaderName, String) {
        let copied = |url: &Url| (HeaderName::from_static("x-ms-copy-source"), url.as_str().to_owned());
        match (self, credential) {
            (Self::Copied(url) | Self::Read { url, .. }, Credential::Sas(token)) => {
                let mut url = url.clone();
                token.apply(&mut url);
                copied(&url)
            }
            (Self::Read { url, container, blob }, Credential::SharedKey(key)) => {
                let mut url = url.clone();
                // A SAS that cannot be made leaves the URL as it is, and the service refuses it.
                if let Ok(token) = blob_sas(key, container, blob, READ_PERMISSION, SOURCE_SAS_LIFETIME) {
                    token.apply(&mut url);
                }
                copied(&url)
            }
            (Self::Copied(url) | Self::Read { url, .. }, _) => copied(url),
            (Self::Foreign { url, slot, container, blob, needs_sas }, _) => match &*slot.current() {
                own @ Credential::SharedKey(_) if *needs_sas => {
                    Self::Read { url: url.clone(), container: container.clone(), blob: blob.clone() }.header(own)
                }
                own => Self::Copied(url.clone()).header(own),
            },
            (Self::Renamed { path, url }, credential) => {
                let query = match (credential, url) {
                    (Credential::Sas(token), Some(url)) => {
                        let mut url = url.clone();
                        token.apply(&mut url);
                        url.query().map(|query| format!("?{query}")).unwrap_or_default()
                    }
                    _ => String::new(),
                };
                (HeaderName::from_static("x-ms-rename-source"), format!("{path}{query}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{AccountKey, SasToken};

    #[test]
    fn each_try_opens_the_source_with_the_credential_of_the_moment() {
        let url: Url = "https://acme.blob.core.windows.net/c/b".parse().unwrap();
        let sas = |text| Credential::Sas(SasToken::parse("test", text).unwrap());
        let copied = Source::Copied(url.clone());
        assert!(copied.header(&sas("sv=1&sig=one")).1.ends_with("/c/b?sv=1&sig=one"));
        assert!(copied.header(&sas("sv=1&sig=two")).1.ends_with("/c/b?sv=1&sig=two"));
        let key = |text| Credential::SharedKey(AccountKey::parse("test", "acme", text).unwrap());
        assert_eq!(copied.header(&key("c2VjcmV0")).1, url.as_str());
        let read = Source::Read { url: url.clone(), container: "c".into(), blob: "b".into() };
        let (one, two) = (read.header(&key("c2VjcmV0")).1, read.header(&key("b3RoZXI=")).1);
        assert!(one.contains("sp=r") && two.contains("sp=r") && one != two);
        let renamed = Source::Renamed { path: "/c/b".into(), url: Some(url) };
        assert_eq!(renamed.header(&sas("sv=1&sig=x")).1, "/c/b?sv=1&sig=x");
        assert_eq!(renamed.header(&key("c2VjcmV0")).1, "/c/b");
    }
}
