//! What the fake Entra ID knows: tenants, their applications with their credentials, and who may do what with the storage
//! accounts. Plain data and lookups; must not know HTTP.

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::identity::{
    IdentityError,
    cloud::Cloud,
    key_vault::Secrets,
    machine::ManagedIdentity,
    token::{Jwt, SigningKey, VerifyingKey, uuid_of},
};

/// Life of a token unless a test says otherwise: what Entra ID gives to applications, near enough.
pub(crate) const TOKEN_LIFE: Duration = Duration::from_secs(3599);

/// The audience that federated credentials expect unless they say otherwise.
pub(crate) const EXCHANGE_AUDIENCE: &str = "api://AzureADTokenExchange";

/// A role of the data plane, as assigned to a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Storage Blob Data Reader.
    BlobDataReader,
    /// Storage Blob Data Contributor.
    BlobDataContributor,
    /// Storage Blob Data Owner: also access control.
    BlobDataOwner,
    /// Storage Blob Delegator: keys for user-delegation SAS, nothing else.
    BlobDelegator,
    /// Storage Account Key Operator Service Role: listing the account's keys at Resource Manager.
    AccountKeyOperator,
    /// Storage Account Contributor: the account itself at Resource Manager, with its keys, but not what is in it.
    AccountContributor,
    /// Key Vault Secrets User.
    KeyVaultSecretsUser,
}

/// Everything, behind a mutex that is held for lookups and never across an await.
pub(crate) struct Directory {
    /// The key of all tenants.
    pub(crate) key: SigningKey,
    /// Where keys for user-delegation SAS come from.
    pub(crate) delegation_secret: [u8; 32],
    /// The key of all clusters, made when the first one is.
    cluster_key: OnceLock<SigningKey>,
    inner: Mutex<Inner>,
}

/// What the directory holds.
pub(crate) struct Inner {
    pub(crate) tenants: BTreeMap<String, Tenant>,
    pub(crate) grants: Vec<Grant>,
    pub(crate) token_life: Duration,
    /// Tenant of the storage accounts; without it tokens of every tenant of the right cloud are theirs.
    pub(crate) storage_tenant: Option<String>,
    /// Vaults by name.
    pub(crate) vaults: BTreeMap<String, Secrets>,
    /// Identities assigned to the machine.
    pub(crate) machine: Vec<ManagedIdentity>,
    /// Clusters whose keys can be fetched.
    pub(crate) clusters: Vec<String>,
    /// Keys of clusters that are not of this process, by issuer.
    pub(crate) foreign: Vec<(String, VerifyingKey)>,
    /// What Resource Manager was told of accounts and of their Blob services, by name.
    pub(crate) accounts: BTreeMap<String, Resource>,
}

/// An account that Resource Manager has made.
#[derive(Clone, Default)]
pub(crate) struct Resource {
    /// Kind, sku, location, tags and properties.
    pub(crate) account: Value,
    /// Properties of its Blob service.
    pub(crate) blob_service: Value,
    /// It has not been looked at yet: making one takes a while.
    pub(crate) is_new: bool,
}

/// A tenant.
#[derive(Default)]
pub(crate) struct Tenant {
    pub(crate) cloud: Cloud,
    pub(crate) applications: BTreeMap<String, Application>,
}

/// An application, or a user-assigned identity: both are a service principal with a client id.
#[derive(Clone, Default)]
pub(crate) struct Application {
    /// Secrets, each with its end.
    pub(crate) secrets: Vec<(String, Option<OffsetDateTime>)>,
    pub(crate) federated: Vec<Federated>,
    /// Certificates, in DER.
    pub(crate) certificates: Vec<Vec<u8>>,
}

/// A federated identity credential.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Federated {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) audience: String,
}

/// A role assignment.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Object id or client id.
    pub(crate) principal: String,
    pub(crate) role: Role,
    /// Only this container.
    pub(crate) container: Option<String>,
}

impl Directory {
    /// One without tenants.
    ///
    /// # Errors
    /// [`IdentityError::Key`].
    pub(crate) fn new() -> Result<Self, IdentityError> {
        Ok(Self {
            key: SigningKey::generate()?,
            delegation_secret: Sha256::digest(uuid::Uuid::new_v4()).into(),
            cluster_key: OnceLock::new(),
            inner: Mutex::new(Inner {
                tenants: BTreeMap::new(),
                grants: Vec::new(),
                token_life: TOKEN_LIFE,
                storage_tenant: None,
                vaults: BTreeMap::new(),
                machine: Vec::new(),
                clusters: Vec::new(),
                foreign: Vec::new(),
                accounts: BTreeMap::new(),
            }),
        })
    }

    /// Its content.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// The key of the clusters.
    ///
    /// # Errors
    /// [`IdentityError::Key`].
    pub(crate) fn cluster_key(&self) -> Result<&SigningKey, IdentityError> {
        if self.cluster_key.get().is_none() {
            // Whoever comes second keeps the first one's key.
            let _ = self.cluster_key.set(SigningKey::generate()?);
        }
        self.cluster_key.get().ok_or(IdentityError::Key)
    }

    /// Adds a cluster by the keys that it publishes.
    ///
    /// # Errors
    /// [`IdentityError::Key`] for a text without a key of RSA.
    pub(crate) fn trust_cluster(&self, issuer: &str, key_set: &str) -> Result<(), IdentityError> {
        let document: Value = serde_json::from_str(key_set).map_err(|_| IdentityError::Key)?;
        let keys = document["keys"].as_array().into_iter().flatten().filter_map(VerifyingKey::from_jwk);
        let named: Vec<_> = keys.map(|key| (issuer.to_owned(), key)).collect();
        if named.is_empty() {
            return Err(IdentityError::Key);
        }
        let mut inner = self.lock();
        inner.clusters.push(issuer.to_owned());
        inner.foreign.extend(named);
        Ok(())
    }

    /// Whether one of the clusters has signed a token.
    pub(crate) fn cluster_signed(&self, token: &Jwt) -> bool {
        self.cluster_key.get().is_some_and(|key| key.signed(token))
            || self.lock().foreign.iter().any(|(issuer, key)| issuer == token.claim("iss") && key.signed(token))
    }

    /// Issues an access token, and says how long it lives.
    pub(crate) fn issue(&self, tenant: &str, cloud: Cloud, client_id: &str, audience: &str) -> (String, Duration) {
        let life = self.lock().token_life;
        let (issued, object_id) = (OffsetDateTime::now_utc().unix_timestamp(), object_id_of(client_id));
        let issuer = format!("{}/{tenant}/", cloud.names().token_issuer);
        let claims = json!({
            "aud": audience, "iss": issuer, "idp": issuer, "iat": issued, "nbf": issued,
            "exp": issued + life.as_secs() as i64, "aio": uuid_of(&issued.to_string()),
            "appid": client_id, "appidacr": "2", "idtyp": "app", "oid": object_id, "sub": object_id, "tid": tenant,
            "rh": "0.", "uti": uuid::Uuid::new_v4().simple().to_string(), "ver": "1.0",
        });
        (self.key.sign(&claims), life)
    }

    /// Verifies an access token that one of the tenants has issued.
    ///
    /// # Errors
    /// What the services say of such a token, in their words.
    pub(crate) fn verify(&self, token: &str, now: OffsetDateTime) -> Result<Value, &'static str> {
        let token = Jwt::parse(token).ok_or("IDX12741: JWT must have three segments (JWS) or five segments (JWE).")?;
        if !self.key.signed(&token) {
            return Err("Signature validation failed. Signature verification failed.");
        }
        match (token.time("nbf"), token.time("exp")) {
            (Some(begin), _) if now < begin - time::Duration::minutes(5) => {
                Err("Lifetime validation failed. The token is not yet valid.")
            }
            (_, Some(end)) if now < end => Ok(token.claims),
            _ => Err("Lifetime validation failed. The token is expired."),
        }
    }
}

impl Inner {
    /// Roles of a principal, named by the claims of its token, on a container (or on the account).
    pub(crate) fn roles(&self, claims: &Value, container: Option<&str>) -> Vec<Role> {
        let (object_id, client_id) = (claims["oid"].as_str(), claims["appid"].as_str());
        let is = |principal: &str| {
            [object_id, client_id].contains(&Some(principal)) || object_id == Some(&object_id_of(principal))
        };
        let reaches = |only: &Option<String>| only.is_none() || only.as_deref() == container;
        self.grants
            .iter()
            .filter(|grant| is(&grant.principal) && reaches(&grant.container))
            .map(|grant| grant.role)
            .collect()
    }
}

/// The object id of the service principal of a client id.
pub(crate) fn object_id_of(client_id: &str) -> String {
    uuid_of(&format!("principal of {client_id}"))
}
