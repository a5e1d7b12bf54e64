//! Workload identity: a token of another issuer (a Kubernetes service account's) is exchanged for one of Entra ID. Where
//! that token comes from is an [`Assertion`]: the projected file, or a token that was handed in.

use std::{fmt, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use parking_lot::RwLock;
use secrecy::{ExposeSecret, SecretString};

use super::{
    AccessToken, TokenError, TokenSource,
    entra::{Application, Claims, Proof, found},
};
use crate::finding::{Diagnosis, Finding};

/// Where the issuer's token comes from. Asked for every exchange, so that a renewed one is used.
#[async_trait]
pub trait Assertion: fmt::Debug + Send + Sync {
    /// The token as it is now.
    ///
    /// # Errors
    /// The finding.
    async fn read(&self) -> Result<SecretString, Diagnosis>;

    /// What it is, for messages: "token file /var/run/...".
    fn describe(&self) -> String;

    /// The token, where it was handed in.
    fn handed(&self) -> Option<SecretString> {
        None
    }

    /// Another token in its place. Tells whether it is another one.
    fn hand(&self, _newer: SecretString) -> bool {
        false
    }
}

/// The projected token of a pod. The kubelet replaces the file long before its token ends; it is read anew for every
/// exchange, so nothing watches it.
#[derive(Clone, Debug)]
pub struct TokenFile(pub PathBuf);

#[async_trait]
impl Assertion for TokenFile {
    async fn read(&self) -> Result<SecretString, Diagnosis> {
        let file = self.0.display().to_string();
        let text = tokio::fs::read_to_string(&self.0).await.map(SecretString::from);
        let text = text
            .map_err(|error| Finding::TokenFileUnreadable.with(&[("file", &file), ("reason", &error.to_string())]))?;
        match text.expose_secret().trim() {
            "" => Err(Finding::TokenFileEmpty.with(&[("file", &file)])),
            token => Ok(SecretString::from(token.to_owned())),
        }
    }

    fn describe(&self) -> String {
        format!("token file {}", self.0.display())
    }
}

/// The token of a pod's service account, as the kubelet hands it to a driver with a publish, and again before it ends.
pub struct PodToken {
    token: RwLock<SecretString>,
    /// Its subject, `system:serviceaccount:NAMESPACE:NAME`: another one is another identity.
    subject: String,
}

impl PodToken {
    /// Takes a token.
    ///
    /// # Errors
    /// The finding for text that is no token.
    pub fn new(token: SecretString) -> Result<Self, Diagnosis> {
        let claims = Claims::read(&token).ok_or_else(|| Finding::PodTokenMalformed.with(&[]))?;
        Ok(Self { token: RwLock::new(token), subject: claims.sub })
    }

    /// Its subject, `system:serviceaccount:NAMESPACE:NAME`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

impl fmt::Debug for PodToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodToken").field("subject", &self.subject).finish_non_exhaustive()
    }
}

#[async_trait]
impl Assertion for PodToken {
    async fn read(&self) -> Result<SecretString, Diagnosis> {
        Ok(self.token.read().clone())
    }

    fn describe(&self) -> String {
        format!("the pod's token, {}", self.subject)
    }

    fn handed(&self) -> Option<SecretString> {
        Some(self.token.read().clone())
    }

    fn hand(&self, newer: SecretString) -> bool {
        let mut token = self.token.write();
        let differs = token.expose_secret() != newer.expose_secret();
        *token = newer;
        differs
    }
}

/// Exchanges assertions.
#[derive(Debug)]
pub(super) struct WorkloadIdentity {
    application: Application,
    assertion: Arc<dyn Assertion>,
}

impl WorkloadIdentity {
    pub(super) fn new(application: Application, assertion: Arc<dyn Assertion>) -> Self {
        Self { application, assertion }
    }
}

#[async_trait]
impl TokenSource for WorkloadIdentity {
    async fn fetch(&self, audience: &str) -> Result<AccessToken, TokenError> {
        let name = self.describe();
        let assertion = self.assertion.read().await.map_err(|known| found(&name, known))?;
        self.application.token(&name, &Proof::Assertion(assertion), audience).await
    }

    fn describe(&self) -> String {
        let Application { client_id, tenant, .. } = &self.application;
        format!("workload identity {client_id} of tenant {tenant} ({})", self.assertion.describe())
    }

    fn handed(&self) -> Option<SecretString> {
        self.assertion.handed()
    }

    fn hand(&self, newer: SecretString) -> bool {
        self.assertion.hand(newer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_token_file_is_read_anew_each_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let source = TokenFile(file.path().to_owned());
        assert!(source.read().await.unwrap_err().cause.contains("is empty"));
        for token in ["one", "two"] {
            std::fs::write(file.path(), format!("{token}\n")).unwrap();
            assert_eq!(source.read().await.unwrap().expose_secret(), token);
        }
        let missing = TokenFile("/no/such/token".into()).read().await.unwrap_err().to_string();
        assert!(missing.contains("/no/such/token") && missing.contains("azure.workload.identity/use"), "{missing}");
    }

    /// A JWT of this subject; the fourth of its letters tells it from others.
    fn jwt(subject: &str, mark: &str) -> SecretString {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        let payload = URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"{subject}"}}"#));
        format!("e30.{payload}.{mark}").into()
    }

    #[tokio::test]
    async fn a_pods_token_is_replaced_by_a_newer_one_and_never_shown() {
        let token = PodToken::new(jwt("system:serviceaccount:a:b", "hunter1")).unwrap();
        assert_eq!(token.subject(), "system:serviceaccount:a:b");
        assert!(!token.hand(jwt("system:serviceaccount:a:b", "hunter1")));
        assert!(token.hand(jwt("system:serviceaccount:a:b", "hunter2")));
        assert!(token.read().await.unwrap().expose_secret().ends_with("hunter2"));
        assert!(!format!("{token:?} {}", token.describe()).contains("hunter"));
        let known = PodToken::new("no token".to_owned().into()).unwrap_err();
        assert_eq!(known.finding, Finding::PodTokenMalformed);
    }
}
