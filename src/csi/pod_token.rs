//! Tokens of pods' service accounts, as the kubelet hands them over (CSIDriver.spec.tokenRequests): in the volume context, or
//! among the secrets (serviceAccountTokenInSecrets). They are secrets wherever they stand, and belong to one pod.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::Deserialize;

use super::error::{Error, ErrorKind, Result};
use crate::{credential::PodToken, finding::Finding};

/// Where the kubelet puts them: a map from audience to token, in JSON.
pub const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// The audience of tokens that Entra ID exchanges.
const AUDIENCE: &str = "api://AzureADTokenExchange";

/// One token of the map. When it ends stands in it as well.
#[derive(Deserialize)]
struct Entry {
    token: String,
}

/// The token for Entra ID that came with a publish.
///
/// # Errors
/// `NoCredential` where none came, or none for this audience; `Invalid` for what is no token.
pub fn find(context: &BTreeMap<String, String>, secrets: &BTreeMap<String, String>) -> Result<PodToken> {
    let invalid = || Error::invalid(Finding::PodTokenMalformed.with(&[]).to_string());
    let missing = || Error::new(ErrorKind::NoCredential, Finding::PodTokenMissing.with(&[]).to_string());
    let text = [context, secrets].iter().find_map(|map| map.get(TOKENS)).ok_or_else(missing)?;
    let mut tokens: BTreeMap<String, Entry> = serde_json::from_str(text).map_err(|_| invalid())?;
    // Sovereign clouds have audiences of their own (api://AzureADTokenExchangeUSGov, ...).
    let name = tokens.keys().find(|name| name.starts_with(AUDIENCE)).cloned().ok_or_else(missing)?;
    let token = tokens.remove(&name).map(|entry| SecretString::from(entry.token)).ok_or_else(missing)?;
    PodToken::new(token).map_err(|known| Error::invalid(known.to_string()))
}

/// Whether `secrets` hold nothing beside such tokens, which every publish of a driver with serviceAccountTokenInSecrets brings.
#[must_use]
pub fn are_alone(secrets: &BTreeMap<String, String>) -> bool {
    secrets.keys().all(|key| key == TOKENS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{"sub":"system:serviceaccount:apps:reader"}`.
    const JWT: &str = "e30.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6YXBwczpyZWFkZXIifQ.hunter2";

    fn with(text: &str) -> BTreeMap<String, String> {
        [(TOKENS.to_owned(), text.to_owned())].into()
    }

    #[test]
    fn the_token_is_found_in_the_context_and_among_the_secrets() {
        let map = with(&format!(
            r#"{{"other":{{"token":"x"}},"api://AzureADTokenExchange":{{"token":"{JWT}","expirationTimestamp":"2026-01-01T00:00:00Z"}}}}"#
        ));
        for (context, secrets) in [(&map, &BTreeMap::new()), (&BTreeMap::new(), &map)] {
            let token = find(context, secrets).unwrap();
            assert_eq!(token.subject(), "system:serviceaccount:apps:reader");
            assert!(!format!("{token:?}").contains("hunter2"));
        }
    }

    #[test]
    fn tokens_alone_are_no_secret_of_the_volume() {
        assert!(are_alone(&BTreeMap::new()) && are_alone(&with("{}")));
        let mut both = with("{}");
        both.insert("accountkey".to_owned(), "a2V5".to_owned());
        assert!(!are_alone(&both));
    }

    #[test]
    fn a_volume_for_its_pods_identity_needs_the_pods_token() {
        let none = BTreeMap::new();
        for context in [none.clone(), with("{}"), with(r#"{"other":{"token":"e30.e30.x"}}"#)] {
            let error = find(&context, &none).unwrap_err();
            assert_eq!(error.kind, ErrorKind::NoCredential);
            assert_eq!(error.message, Finding::PodTokenMissing.with(&[]).to_string());
        }
        for text in ["hunter2", r#"{"api://AzureADTokenExchange":{"token":"hunter2"}}"#] {
            let error = find(&with(text), &none).unwrap_err();
            assert!(error.kind == ErrorKind::Invalid && !error.full_text().contains("hunter2"), "{error}");
        }
    }
}
