//! Fakes of the services that hand out and check identities, beside an [`Emulator`] that accepts their tokens: Entra ID,
//! Resource Manager and Key Vault of all clouds, reached over real TLS through a proxy under Azure's own host names, and the
//! endpoints of managed identities. Must not know the driver.
//!
//! ```text
//! IdentityServices (description; tenant: Tenant, Application, Cluster)     what tests describe and look at
//!   proxy, door                                               CONNECT, TLS, routing by name
//!   certificates                                              the test's own certificate authority
//!     services (message, faults, record)                      one request and its answer
//!       entra (assertion, refusal), discovery                 tokens for applications
//!       managed, machine                                      tokens for managed identities
//!       arm, key_vault (bearer)                               what else takes the tokens
//!         directory, token, cloud                             what is known, what is signed, what is called how
//! ```

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tempfile::NamedTempFile;
use thiserror::Error;
use tokio::net::TcpListener;

use crate::{
    emulator::{Emulator, EmulatorError, listen},
    running::Running,
    state::DEVELOPMENT_ACCOUNT,
};

mod arm;
mod assertion;
mod bearer;
mod certificates;
mod cloud;
mod description;
mod directory;
mod discovery;
mod door;
mod entra;
mod faults;
mod key_vault;
mod kubernetes;
mod machine;
mod managed;
mod message;
mod proxy;
mod record;
mod refusal;
mod services;
mod tenant;
mod token;

pub use certificates::{ClientCertificate, Leaf};
pub use cloud::{Cloud, IdentityService};
pub use description::IdentityDescription;
pub use directory::Role;
pub use faults::{IdentityFault, IdentityFaultKind};
pub use key_vault::Vault;
pub use kubernetes::KubernetesApi;
pub use machine::{Machine, ManagedIdentity};
pub use record::IdentityRequest;
pub use tenant::{Application, Cluster, Tenant, subject_of};

pub(crate) use cloud::{account_of, service_of};
pub(crate) use directory::Directory;
pub(crate) use door::Door;

use certificates::TestAuthority;
use directory::Grant;
use faults::IdentityFaults;
use record::Records;
use services::{Destination, Services};

/// Why identity services cannot be started or described.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A socket that cannot listen.
    #[error(transparent)]
    Listen(#[from] EmulatorError),
    /// No thread, no runtime, or no file for the authority's certificate.
    #[error("cannot start the identity services")]
    Start(#[from] io::Error),
    /// A certificate that cannot be made.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// A certificate that TLS does not take.
    #[error("cannot use a certificate")]
    Tls(#[from] rustls::Error),
    /// A key that cannot be made.
    #[error("cannot make a signing key")]
    Key,
    /// A text that is no certificate.
    #[error("the text holds no certificate in PEM")]
    Pem,
}

/// The running services. They end with their drop; the emulator stays.
pub struct IdentityServices {
    services: Arc<Services>,
    proxy: SocketAddr,
    tls: SocketAddr,
    local: SocketAddr,
    ca_file: NamedTempFile,
    _running: Running,
}

impl std::fmt::Debug for IdentityServices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdentityServices").field("proxy", &self.proxy).field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl IdentityServices {
    /// Starts them on free ports of the loopback interface. From now on the emulator accepts their tokens, over TLS.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn start(emulator: &Emulator) -> Result<Self, IdentityError> {
        Self::start_at(IpAddr::V4(Ipv4Addr::LOCALHOST), emulator)
    }

    /// Starts them on free ports of another address, for clients on other hosts or in pods.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn start_at(address: IpAddr, emulator: &Emulator) -> Result<Self, IdentityError> {
        let directory = Arc::new(Directory::new()?);
        let authority = TestAuthority::generate()?;
        let ca_file = tempfile::Builder::new().prefix("test-ca-").suffix(".pem").tempfile()?;
        std::fs::write(ca_file.path(), authority.pem())?;
        let arc_key = uuid::Uuid::new_v4().to_string();
        let arc_key_file = parking_lot::Mutex::new(arc_key_file(&std::env::temp_dir(), &arc_key)?);
        let services = Arc::new(Services {
            directory: Arc::clone(&directory),
            authority,
            records: Arc::new(Records::default()),
            faults: IdentityFaults::default(),
            header: uuid::Uuid::new_v4().to_string(),
            arc_key: arc_key.clone(),
            arc_key_file,
            storage: Arc::clone(&emulator.service),
            names: parking_lot::Mutex::default(),
        });
        let (proxy_socket, proxy) = listen(SocketAddr::from((address, 0)))?;
        let (tls_socket, tls) = listen(SocketAddr::from((address, 0)))?;
        let (local_socket, local) = listen(SocketAddr::from((address, 0)))?;
        let shared = Arc::clone(&services);
        let running = Running::on_threads("identity", move || async move {
            let sockets = [proxy_socket, tls_socket, local_socket].map(TcpListener::from_std);
            match sockets {
                [Ok(proxied), Ok(tls), Ok(local)] => {
                    tokio::join!(
                        proxy::serve_proxy(proxied, Arc::clone(&shared)),
                        proxy::serve_tls(tls, Arc::clone(&shared)),
                        proxy::serve_local(local, shared)
                    );
                }
                _ => tracing::error!("cannot use the listening sockets"),
            }
        })?;
        emulator.service.state.lock().directory = Some(directory);
        Ok(Self { services, proxy, tls, local, ca_file, _running: running })
    }

    /// The proxy, as `https_proxy` takes it: `http://127.0.0.1:PORT`. Behind it all host names of Azure are these services.
    #[must_use]
    pub fn proxy_url(&self) -> String {
        format!("http://{}", self.proxy)
    }

    /// The certificate of the authority that signs for all hosts, in PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.services.authority.pem()
    }

    /// A file with [`Self::ca_pem`], gone with these services.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        self.ca_file.path()
    }

    /// The default account over TLS without the proxy: `https://localhost:PORT/devstoreaccount1`.
    #[must_use]
    pub fn https_endpoint(&self) -> String {
        format!("https://localhost:{}/{DEVELOPMENT_ACCOUNT}", self.tls.port())
    }

    /// Address of the TLS port, for clients that resolve Azure's names themselves.
    #[must_use]
    pub fn tls_address(&self) -> SocketAddr {
        self.tls
    }

    /// The instance metadata service: stands for `http://169.254.169.254`.
    #[must_use]
    pub fn imds_url(&self) -> String {
        format!("http://{}", self.local)
    }

    /// App Service's endpoint and its secret, for IDENTITY_ENDPOINT and IDENTITY_HEADER, or in the older form for MSI_ENDPOINT
    /// and MSI_SECRET.
    #[must_use]
    pub fn app_service(&self) -> (String, String) {
        (format!("http://{}{}", self.local, managed::APP_SERVICE_PATH), self.services.header.clone())
    }

    /// Azure Arc's endpoint, for IDENTITY_ENDPOINT (IMDS_ENDPOINT must be set beside it).
    #[must_use]
    pub fn arc_endpoint(&self) -> String {
        format!("http://{}{}", self.local, managed::ARC_PATH)
    }

    /// Puts Arc's key into a directory: clients read it in `/var/opt/azcmagent/tokens` alone. It is gone with these services.
    ///
    /// # Errors
    /// [`IdentityError::Start`] where no file can be written.
    pub fn place_arc_key(&self, directory: &Path) -> Result<(), IdentityError> {
        *self.services.arc_key_file.lock() = arc_key_file(directory, &self.services.arc_key)?;
        Ok(())
    }

    /// Adds a tenant of the public cloud.
    #[must_use]
    pub fn tenant(&self, id: &str) -> Tenant {
        self.tenant_in(Cloud::Public, id)
    }

    /// Adds a tenant of a cloud, or moves it there.
    #[must_use]
    pub fn tenant_in(&self, cloud: Cloud, id: &str) -> Tenant {
        Tenant::open(&self.services.directory, id, cloud)
    }

    /// Adds a cluster whose tokens the tenants can verify.
    ///
    /// # Errors
    /// [`IdentityError::Key`].
    pub fn cluster(&self, issuer: &str) -> Result<Cluster, IdentityError> {
        Cluster::open(&self.services.directory, issuer)
    }

    /// Adds a cluster that is not of this process: its tokens are verified with the keys that its API server publishes, a JSON Web
    /// Key Set (`/openid/v1/jwks`).
    ///
    /// # Errors
    /// [`IdentityError::Key`] for a text without a key of RSA.
    pub fn trust_cluster(&self, issuer: &str, key_set: &str) -> Result<(), IdentityError> {
        self.services.directory.trust_cluster(issuer, key_set)
    }

    /// Adds a vault, in every cloud.
    #[must_use]
    pub fn vault(&self, name: &str) -> Vault {
        Vault::open(&self.services.directory, name)
    }

    /// Assigns a role to a principal (object id or client id) for everything.
    pub fn grant(&self, principal: &str, role: Role) {
        self.add_grant(principal, role, None);
    }

    /// Assigns a role to a principal for one container.
    pub fn grant_on(&self, principal: &str, role: Role, container: &str) {
        self.add_grant(principal, role, Some(container.to_owned()));
    }

    fn add_grant(&self, principal: &str, role: Role, container: Option<String>) {
        let grant = Grant { principal: principal.to_owned(), role, container };
        self.services.directory.lock().grants.push(grant);
    }

    /// Takes all roles from a principal.
    pub fn revoke(&self, principal: &str) {
        self.services.directory.lock().grants.retain(|grant| grant.principal != principal);
    }

    /// How long tokens live that are issued from now on, in whole seconds.
    pub fn token_life(&self, life: Duration) {
        self.services.directory.lock().token_life = life;
    }

    /// From now on the storage accounts belong to this tenant and refuse tokens of any other.
    pub fn storage_tenant(&self, tenant: &str) {
        self.services.directory.lock().storage_tenant = Some(tenant.to_owned());
    }

    /// Serves something under another name as well: a custom domain, an Azure Stack. A storage account is named by the first
    /// label, as in `ACCOUNT.blob.local.azurestack.external`.
    pub fn name(&self, host: &str, service: IdentityService, cloud: Cloud) {
        self.services.names.lock().insert(host.to_ascii_lowercase(), Destination { service, cloud });
    }

    /// From now on a host shows this certificate to new connections.
    pub fn certify(&self, host: &str, leaf: Leaf) {
        self.services.authority.show(host, leaf);
    }

    /// Adds a fault. The first rule that applies to a request is used.
    pub fn fault(&self, fault: IdentityFault) {
        self.services.faults.add(fault);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.services.faults.clear();
    }

    /// The requests so far, oldest first: those to identity services, and those to the emulator through the proxy or TLS.
    #[must_use]
    pub fn requests(&self) -> Vec<IdentityRequest> {
        self.services.records.all()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.services.records.clear();
    }
}

/// A file with Arc's key.
fn arc_key_file(directory: &Path, key: &str) -> Result<NamedTempFile, IdentityError> {
    let file = tempfile::Builder::new().prefix("arc-").suffix(".key").tempfile_in(directory)?;
    std::fs::write(file.path(), key)?;
    Ok(file)
}
