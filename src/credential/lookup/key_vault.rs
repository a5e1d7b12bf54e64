//! Azure Key Vault: one secret, which is an account key or a SAS. REST page "Get Secret".

use reqwest::Method;
use secrecy::SecretString;
use serde_json::Value;
use url::Url;

use super::{
    LookupError,
    rest::{self, Failed, Refusal},
};
use crate::{
    credential::{AccountKey, Cloud, Credential, IdentityHttp, SasToken, TokenCredential, TokenErrorKind},
    finding::{Diagnosis, Finding},
};

/// The version of the protocol: the one that all clouds have.
const API_VERSION: &str = "7.4";

/// A secret of a vault, and the account that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultSecret {
    url: Url,
    vault: String,
    name: String,
    cloud: Cloud,
    account: Option<String>,
}

impl VaultSecret {
    /// The secret `name` of the vault at `vault_url`, in its newest version or in `version`. `account` is needed where the secret
    /// is a key.
    ///
    /// # Errors
    /// The finding, for a URL that is no vault's: a token goes there, so a host that is not the cloud's gets none.
    pub fn new(vault_url: &str, name: &str, version: Option<&str>, account: Option<&str>) -> Result<Self, Diagnosis> {
        let bad = |reason: &str| Finding::VaultUrlMalformed.with(&[("text", vault_url), ("reason", reason)]);
        let written = vault_url.trim();
        let written = if written.contains("://") { written.to_owned() } else { format!("https://{written}") };
        let mut url = Url::parse(&written).map_err(|error| bad(&error.to_string()))?;
        if url.scheme() != "https" || !url.username().is_empty() || url.password().is_some() {
            return Err(bad("only https is spoken with vaults"));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(bad("it is a vault's URL, without the secret's name"));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let (vault, cloud) = Cloud::of_vault_host(&host).ok_or_else(|| bad("no cloud has vaults there"))?;
        let segments = ["secrets", name].into_iter().chain(version);
        url.path_segments_mut().map_err(|()| bad("it cannot be a base"))?.clear().extend(segments);
        url.query_pairs_mut().append_pair("api-version", API_VERSION);
        let (vault, name) = (vault.to_owned(), name.to_owned());
        Ok(Self { url, vault, name, cloud, account: account.map(str::to_owned) })
    }

    /// The resource that tokens for it are made for.
    pub(super) fn audience(&self) -> String {
        format!("https://{}", self.cloud.key_vault_suffix())
    }

    /// The cloud that the vault is in.
    #[must_use]
    pub fn cloud(&self) -> Cloud {
        self.cloud
    }

    /// Which it is, for messages.
    pub(super) fn describe(&self) -> String {
        format!("secret {} of key vault {}", self.name, self.vault)
    }

    pub(super) async fn read(&self, http: &IdentityHttp, tokens: &TokenCredential) -> Result<Credential, LookupError> {
        let name = format!("key vault {}", self.vault);
        match rest::ask(http, tokens, &name, (Method::GET, &self.url)).await {
            Ok(answer) => self.credential(&answer),
            Err(Failed::NotAsked(error)) => Err(error),
            Err(Failed::Refused(refusal, error)) => Err(match self.known(&refusal, &tokens.describe()) {
                Some(known) => LookupError { known, ..error },
                None => error,
            }),
        }
    }

    fn credential(&self, answer: &Value) -> Result<Credential, LookupError> {
        let none = || LookupError::of(TokenErrorKind::Refused, Finding::VaultSecretUnfit.with(&self.facts()));
        let source = self.describe();
        let value = answer["value"].as_str().ok_or_else(none)?;
        let value = crate::credential::trimmed(&source, value).map_err(|_| none())?;
        credential_of(&source, &value, self.account.as_deref()).map_err(|known| match known {
            Some(known) => LookupError::of(TokenErrorKind::Refused, known),
            None => none(),
        })
    }

    fn facts(&self) -> [(&'static str, &str); 2] {
        [("vault", &self.vault), ("secret", &self.name)]
    }

    /// The finding of a refusal. Codes: "Authentication, requests and responses", and what vaults answer.
    fn known(&self, refusal: &Refusal, principal: &str) -> Option<Diagnosis> {
        let mut facts = vec![("principal", principal)];
        facts.extend(self.facts());
        let finding = match (refusal.status, &*refusal.code, refusal.inner_code()) {
            (404, ..) => Finding::VaultSecretMissing,
            (403, _, "SecretDisabled") => Finding::VaultSecretDisabled,
            (403, _, "ForbiddenByFirewall" | "ForbiddenByConnection" | "ForbiddenByTrustedService") => {
                Finding::VaultFirewall
            }
            (401 | 403, ..) => Finding::VaultForbidden,
            _ => return None,
        };
        Some(finding.with(&facts))
    }
}

/// A SAS has parameters; a key is base64, which has neither `?` nor `&`. `Err(None)`: neither.
fn credential_of(source: &str, value: &SecretString, account: Option<&str>) -> Result<Credential, Option<Diagnosis>> {
    use secrecy::ExposeSecret as _;
    let text = value.expose_secret();
    if text.starts_with('?') || text.contains('&') {
        return SasToken::parse(source, text).map(Credential::Sas).map_err(|_| None);
    }
    let account = account.ok_or_else(|| Some(Finding::SecretWithoutAccount.with(&[("source", source)])))?;
    AccountKey::parse(source, account, text).map(Credential::SharedKey).map_err(|_| None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vault_is_asked_at_its_clouds_host_alone() {
        let secret = VaultSecret::new("https://acme.vault.azure.cn/", "key", Some("v1"), Some("acme")).unwrap();
        assert_eq!(secret.url.as_str(), "https://acme.vault.azure.cn/secrets/key/v1?api-version=7.4");
        assert_eq!((secret.audience(), secret.cloud()), ("https://vault.azure.cn".to_owned(), Cloud::China));
        let secret = VaultSecret::new("acme.vault.azure.net", "../x", None, None).unwrap();
        assert_eq!(secret.url.path(), "/secrets/..%2Fx");
        for bad in [
            "http://acme.vault.azure.net",
            "https://acme.example.com",
            "https://evilvault.azure.net",
            "https://vault.azure.net",
            "https://a.b.vault.azure.net",
            "https://user@acme.vault.azure.net",
            "https://acme.vault.azure.net/secrets/key",
            "not a url",
        ] {
            assert!(VaultSecret::new(bad, "key", None, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn network_rules_are_told_from_a_missing_role() {
        let secret = VaultSecret::new("acme.vault.azure.net", "key", None, None).unwrap();
        for (inner, wanted) in [
            ("ForbiddenByFirewall", Finding::VaultFirewall),
            ("ForbiddenByConnection", Finding::VaultFirewall),
            ("ForbiddenByRbac", Finding::VaultForbidden),
            ("SecretDisabled", Finding::VaultSecretDisabled),
        ] {
            let body =
                format!(r#"{{"error":{{"code":"Forbidden","message":"no","innererror":{{"code":"{inner}"}}}}}}"#);
            let known = secret.known(&Refusal::read(403, &body), "managed identity").unwrap();
            assert_eq!(known.finding, wanted, "{inner}");
        }
    }

    #[test]
    fn a_sas_is_told_from_a_key_by_its_parameters_with_or_without_its_mark() {
        let read = |text: &str, account| credential_of("a secret", &text.to_owned().into(), account);
        assert!(matches!(read("?sv=1&sig=x", None), Ok(Credential::Sas(_))));
        assert!(matches!(read("sv=1&sig=x", None), Ok(Credential::Sas(_))));
        assert!(matches!(read("c2VjcmV0sig=", Some("acme")), Ok(Credential::SharedKey(_))));
        assert!(matches!(read("c2VjcmV0", None), Err(Some(known)) if known.finding == Finding::SecretWithoutAccount));
        assert!(matches!(read("hunter2!", Some("acme")), Err(None)));
    }
}
