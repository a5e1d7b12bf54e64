//! Workload identity: a token of another issuer (a Kubernetes service account's) is exchanged for one of Entra ID. Where
//! that token comes from is an [`Assertion`]: the projected file, or a token that was handed in.

use std::{fmt, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::{
    AccessToken, TokenError, TokenSource,
    entra::{Application, Proof, found},
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
}
