//! How a test describes tenants and applications. Must not know how they sign in.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, pem::PemObject};
use time::{Duration, OffsetDateTime};

use crate::identity::{
    IdentityError,
    cloud::Cloud,
    directory::{self, Directory, EXCHANGE_AUDIENCE, Federated, object_id_of},
    machine::Machine,
};

/// A tenant of the fake Entra ID.
#[derive(Clone)]
pub struct Tenant {
    directory: Arc<Directory>,
    id: String,
}

impl Tenant {
    /// Adds it, if it is not there yet.
    pub(crate) fn open(directory: &Arc<Directory>, id: &str, cloud: Cloud) -> Self {
        directory.lock().tenants.entry(id.to_owned()).or_default().cloud = cloud;
        Self { directory: Arc::clone(directory), id: id.to_owned() }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Adds an application, or finds it. It has no credential at first.
    #[must_use]
    pub fn application(&self, client_id: &str) -> Application {
        let application = Application { tenant: self.clone(), client_id: client_id.to_owned() };
        application.change(|_| {});
        application
    }

    /// The machine that the driver runs on, to assign identities of this tenant to.
    #[must_use]
    pub fn machine(&self) -> Machine {
        Machine::of(self.clone(), Arc::clone(&self.directory))
    }

    /// Removes an application: tokens it has stay good until they end, as in the service.
    pub fn remove(&self, client_id: &str) {
        if let Some(tenant) = self.directory.lock().tenants.get_mut(&self.id) {
            tenant.applications.remove(client_id);
        }
    }
}

/// An application, or a user-assigned identity with federated credentials.
#[derive(Clone)]
pub struct Application {
    tenant: Tenant,
    client_id: String,
}

impl Application {
    fn change(&self, change: impl FnOnce(&mut directory::Application)) {
        let mut directory = self.tenant.directory.lock();
        let tenant = directory.tenants.entry(self.tenant.id.clone()).or_default();
        change(tenant.applications.entry(self.client_id.clone()).or_default());
    }

    /// Its client id.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The object id of its service principal, which roles are assigned to. Always the same for one client id.
    #[must_use]
    pub fn object_id(&self) -> String {
        object_id_of(&self.client_id)
    }

    /// Adds a client secret.
    #[must_use = "an application is described in one go"]
    pub fn secret(self, secret: &str) -> Self {
        self.change(|application| application.secrets.push((secret.to_owned(), None)));
        self
    }

    /// Adds a client secret that ended yesterday.
    #[must_use = "an application is described in one go"]
    pub fn expired_secret(self, secret: &str) -> Self {
        let ended = Some(OffsetDateTime::now_utc() - Duration::days(1));
        self.change(|application| application.secrets.push((secret.to_owned(), ended)));
        self
    }

    /// Removes all credentials, as a rotation does.
    #[must_use = "an application is described in one go"]
    pub fn without_credentials(self) -> Self {
        self.change(|application| *application = directory::Application::default());
        self
    }

    /// Trusts tokens of this issuer for this subject, with the usual audience.
    #[must_use = "an application is described in one go"]
    pub fn federated(self, issuer: &str, subject: &str) -> Self {
        self.federated_for(issuer, subject, EXCHANGE_AUDIENCE)
    }

    /// Trusts tokens of this issuer for this subject and audience.
    #[must_use = "an application is described in one go"]
    pub fn federated_for(self, issuer: &str, subject: &str, audience: &str) -> Self {
        let [issuer, subject, audience] = [issuer, subject, audience].map(str::to_owned);
        self.change(|application| application.federated.push(Federated { issuer, subject, audience }));
        self
    }

    /// Registers a certificate (PEM; a key beside it is passed over).
    ///
    /// # Errors
    /// [`IdentityError::Pem`].
    pub fn certificate(self, pem: &str) -> Result<Self, IdentityError> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| IdentityError::Pem)?;
        self.change(|application| application.certificates.push(certificate.to_vec()));
        Ok(self)
    }
}

/// A Kubernetes cluster that issues tokens for service accounts.
#[derive(Clone)]
pub struct Cluster {
    directory: Arc<Directory>,
    issuer: String,
}

impl Cluster {
    /// Adds it, if it is not there yet.
    pub(crate) fn open(directory: &Arc<Directory>, issuer: &str) -> Result<Self, IdentityError> {
        directory.cluster_key()?;
        let mut inner = directory.lock();
        if !inner.clusters.iter().any(|known| known == issuer) {
            inner.clusters.push(issuer.to_owned());
        }
        drop(inner);
        Ok(Self { directory: Arc::clone(directory), issuer: issuer.to_owned() })
    }

    /// The issuer of its tokens.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A token of a service account, as the kubelet projects it: for one audience, valid for this long (a negative life has
    /// ended already). Empty for a cluster that has no key, which no cluster here is.
    #[must_use]
    pub fn token(&self, namespace: &str, account: &str, audience: &str, life: Duration) -> String {
        let now = OffsetDateTime::now_utc();
        let issued = now.min(now + life) - Duration::seconds(1);
        let claims = serde_json::json!({
            "iss": self.issuer, "sub": subject_of(namespace, account), "aud": [audience],
            "iat": issued.unix_timestamp(), "nbf": issued.unix_timestamp(), "exp": (now + life).unix_timestamp(),
            "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": account } },
        });
        self.directory.cluster_key().map(|key| key.sign(&claims)).unwrap_or_default()
    }
}

/// The subject of a service account's tokens.
#[must_use]
pub fn subject_of(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}
