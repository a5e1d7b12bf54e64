//! Service principal: an application that proves itself with its secret, or with an assertion that its certificate's key
//! has signed (`certificate`).

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::{
    AccessToken, TokenError, TokenSource,
    certificate::Certificate,
    entra::{Application, Proof, found},
};
use crate::finding::{Diagnosis, Finding};

/// What it proves itself with.
#[derive(Debug)]
pub(super) enum Secret {
    /// The client secret.
    Text(SecretString),
    /// A PEM file with certificate and key, read anew for every token, so that a renewed one is used.
    CertificateFile(PathBuf),
}

/// A service principal.
#[derive(Debug)]
pub(super) struct ServicePrincipal {
    application: Application,
    secret: Arc<Secret>,
}

impl ServicePrincipal {
    pub(super) fn new(application: Application, secret: Secret) -> Self {
        Self { application, secret: Arc::new(secret) }
    }

    async fn proof(&self) -> Result<Proof, Diagnosis> {
        match &*self.secret {
            Secret::Text(secret) => Ok(Proof::Secret(secret.clone())),
            Secret::CertificateFile(file) => {
                let shown = file.display().to_string();
                let bad = |reason: &str| Finding::CertificateFile.with(&[("file", &shown), ("reason", reason)]);
                let text = tokio::fs::read_to_string(file).await.map(SecretString::from);
                let text = text.map_err(|error| bad(&format!("cannot be read ({error})")))?;
                let certificate = Certificate::parse(&text).map_err(|reason| bad(&reason))?;
                let assertion = certificate.assertion(&self.application.client_id, &self.application.endpoint());
                assertion.map(Proof::Assertion).map_err(|reason| bad(&reason))
            }
        }
    }
}

#[async_trait]
impl TokenSource for ServicePrincipal {
    async fn fetch(&self, audience: &str) -> Result<AccessToken, TokenError> {
        let name = self.describe();
        let proof = self.proof().await.map_err(|known| found(&name, known))?;
        self.application.token(&name, &proof, audience).await
    }

    fn describe(&self) -> String {
        let Application { client_id, tenant, .. } = &self.application;
        let with = match &*self.secret {
            Secret::Text(_) => "with its secret".to_owned(),
            Secret::CertificateFile(file) => format!("with certificate {}", file.display()),
        };
        format!("service principal {client_id} of tenant {tenant} {with}")
    }

    fn secret_digest(&self) -> Option<[u8; 32]> {
        match &*self.secret {
            Secret::Text(secret) => Some(Sha256::digest(secret.expose_secret()).into()),
            Secret::CertificateFile(_) => None,
        }
    }
}
