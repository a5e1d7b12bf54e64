//! A certificate authority made for one test, and the certificates that servers and service principals need of it.
//! Must not know who serves what.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::{CertifiedKey, SingleCertAndKey},
};
use time::{Duration, OffsetDateTime};

use crate::identity::IdentityError;

/// How long certificates hold: longer than any test, short enough to be of no use elsewhere.
const LIFE: Duration = Duration::days(2);

/// What a server shows for its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leaf {
    /// A certificate for the name, of the authority that clients are told to trust.
    #[default]
    Valid,
    /// One for another name.
    WrongName,
    /// One that ended yesterday.
    Expired,
    /// One that begins tomorrow, as seen by a client whose clock is behind.
    NotYetValid,
    /// One of an authority that nobody trusts.
    UnknownAuthority,
}

/// A certificate and its key, for a service principal.
#[derive(Clone)]
pub struct ClientCertificate {
    /// The certificate alone, in PEM: what is registered with the application.
    pub certificate: String,
    /// The private key (PKCS #8), in PEM.
    pub key: String,
}

impl ClientCertificate {
    /// Makes one with a new RSA key of 2048 bits, the kind that service principals use.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`].
    pub fn generate(name: &str) -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256)?;
        let mut params = lasting(CertificateParams::new(Vec::new())?);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Certificate and key in one text, as Azure CLI writes them and as AZURE_CLIENT_CERTIFICATE_PATH expects them.
    #[must_use]
    pub fn pem(&self) -> String {
        format!("{}{}", self.key, self.certificate)
    }
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCertificate").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// The authority with the certificates that it has given out.
pub(crate) struct TestAuthority {
    pem: String,
    trusted: Issuer<'static, KeyPair>,
    untrusted: Issuer<'static, KeyPair>,
    /// The key of every server: making one for each name would only cost time.
    server_key: KeyPair,
    leaves: Mutex<Leaves>,
}

#[derive(Default)]
struct Leaves {
    /// What hosts show; one that is missing shows a valid certificate.
    shown: BTreeMap<String, Leaf>,
    made: BTreeMap<(String, Leaf), Arc<ServerConfig>>,
}

impl TestAuthority {
    /// Makes a new authority.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`].
    pub(crate) fn generate() -> Result<Self, IdentityError> {
        let (params, trusted_key) = (root_params("Test CA")?, KeyPair::generate()?);
        let pem = params.self_signed(&trusted_key)?.pem();
        Ok(Self {
            pem,
            trusted: Issuer::new(params, trusted_key),
            untrusted: Issuer::new(root_params("Unknown CA")?, KeyPair::generate()?),
            server_key: KeyPair::generate()?,
            leaves: Mutex::default(),
        })
    }

    /// The authority's own certificate, which clients must trust, in PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// From now on the host shows this certificate to new connections.
    pub(crate) fn show(&self, host: &str, leaf: Leaf) {
        self.leaves.lock().shown.insert(host.to_ascii_lowercase(), leaf);
    }

    /// What a server of this name needs to speak TLS.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] for what is neither a host name nor an address.
    pub(crate) fn server_config(&self, host: &str) -> Result<Arc<ServerConfig>, IdentityError> {
        let host = host.to_ascii_lowercase();
        let mut leaves = self.leaves.lock();
        let leaf = leaves.shown.get(&host).copied().unwrap_or_default();
        if let Some(config) = leaves.made.get(&(host.clone(), leaf)) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.make(&host, leaf)?);
        leaves.made.insert((host, leaf), Arc::clone(&config));
        Ok(config)
    }

    fn make(&self, host: &str, leaf: Leaf) -> Result<ServerConfig, IdentityError> {
        let name = if leaf == Leaf::WrongName { "another.example.com" } else { host };
        let mut params = lasting(CertificateParams::new(vec![name.to_owned()])?);
        params.distinguished_name.push(DnType::CommonName, name);
        let now = OffsetDateTime::now_utc();
        match leaf {
            Leaf::Expired => (params.not_before, params.not_after) = (now - LIFE, now - Duration::days(1)),
            Leaf::NotYetValid => (params.not_before, params.not_after) = (now + Duration::days(1), now + LIFE),
            Leaf::Valid | Leaf::WrongName | Leaf::UnknownAuthority => {}
        }
        let issuer = if leaf == Leaf::UnknownAuthority { &self.untrusted } else { &self.trusted };
        let certificate = params.signed_by(&self.server_key, issuer)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.server_key.serialize_der()));
        let key = aws_lc_rs::sign::any_supported_type(&key)?;
        let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate.der().clone()], key));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(shown));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn root_params(name: &str) -> Result<CertificateParams, IdentityError> {
    let mut params = lasting(CertificateParams::new(Vec::new())?);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn lasting(mut params: CertificateParams) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - Duration::hours(1), now + LIFE);
    params
}
