//! A Secret that nobody hands over, but that a volume names (secretName), or that is called after its account as the Azure Blob CSI
//! driver calls those that it writes. The driver reads it in its own name, where it has the right to; without one that is
//! named this is no failure, for then others are asked.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

use super::{
    error::{Error, ErrorKind, Result},
    parameters::Parameters,
    request::{Account, Defaults},
    secrets::Secrets,
    volume_id::VolumeId,
};
use crate::{
    credential::{AuthMode, Credential, CredentialSource},
    kube::{self, Api},
};

/// Where an account's Secret is looked for when nothing says so; part of the volume handle.
pub(super) const SECRET_NAMESPACE_DEFAULT: &str = "default";

/// Name of the Secret that holds the keys of `account`.
pub(super) fn secret_of(account: &str) -> String {
    format!("azure-storage-account-{account}-secret")
}

/// A Secret at the API server.
#[derive(Clone, Debug)]
pub(super) struct NamedSecret {
    api: Api,
    namespace: String,
    name: String,
    /// The volume names it: then it has to be there.
    is_named: bool,
}

impl NamedSecret {
    /// That of a volume to which a Secret with `own` entries was handed; `None` where nothing has to be read.
    ///
    /// # Errors
    /// `Invalid` for attributes that cannot be.
    pub(super) fn of(
        defaults: &Defaults,
        parameters: &Parameters,
        id: Option<&VolumeId>,
        own: &Secrets,
    ) -> Result<Option<Self>> {
        let mode = parameters.auth_mode()?;
        let by_identity = mode.is_some_and(|mode| mode.is_identity() || mode == AuthMode::Anonymous);
        if own.has_credential() || by_identity || parameters.get("keyvaulturl").is_some() || parameters.is_for_pod()? {
            return Ok(None);
        }
        let Some(api) = defaults.api.clone() else { return Ok(None) };
        let account = parameters.account().or_else(|| id.and_then(|id| id.account.as_deref()));
        let name = match (parameters.get("secretname"), account) {
            (Some(name), _) => name.to_owned(),
            (None, Some(account)) => secret_of(account),
            (None, None) => return Ok(None),
        };
        let namespace = match parameters.get("csi.storage.k8s.io/pod.namespace") {
            // Any pod may write the attributes of an inline volume: it gets what it could read itself.
            Some(pod) if parameters.is_ephemeral() => Some(pod),
            None if parameters.is_ephemeral() => return Ok(None),
            _ => parameters
                .get("secretnamespace")
                .or_else(|| id.and_then(|id| id.secret_namespace.as_deref()))
                .or_else(|| parameters.get("csi.storage.k8s.io/pvc/namespace")),
        };
        let namespace = namespace.unwrap_or(SECRET_NAMESPACE_DEFAULT).to_owned();
        Ok(Some(Self { api, namespace, name, is_named: parameters.get("secretname").is_some() }))
    }

    /// What it holds; `None` where it need not be there, and cannot be read.
    ///
    /// # Errors
    /// `NoCredential` or `Unavailable` for one that the volume names.
    pub(super) async fn entries(&self) -> Result<Option<BTreeMap<String, String>>> {
        match self.api.secret(&self.namespace, &self.name).await {
            Ok(entries) => Ok(Some(entries)),
            Err(error) if !self.is_named => {
                tracing::debug!(secret = self.name, namespace = self.namespace, "not used: {error}");
                Ok(None)
            }
            Err(error) => {
                let kind = match &error {
                    kube::Error::Unreachable(_) => ErrorKind::Unavailable,
                    _ => ErrorKind::NoCredential,
                };
                let text = format!("{} cannot be read, which secretName names", self.shown());
                Err(Error::new(kind, text).because(error))
            }
        }
    }

    fn shown(&self) -> String {
        format!("Secret {}/{}", self.namespace, self.name)
    }

    /// The same, to be read again when what it held is refused.
    pub(super) fn source(self, defaults: Defaults, parameters: Parameters, id: Option<VolumeId>) -> NamedSource {
        NamedSource { secret: self, defaults: Arc::new(defaults), parameters, id }
    }
}

/// A Secret and the volume that uses it.
#[derive(Debug)]
pub(super) struct NamedSource {
    secret: NamedSecret,
    defaults: Arc<Defaults>,
    parameters: Parameters,
    id: Option<VolumeId>,
}

#[async_trait]
impl CredentialSource for NamedSource {
    async fn read(&self) -> Result<Credential, String> {
        let secret = &self.secret;
        let entries = secret.api.secret(&secret.namespace, &secret.name).await.map_err(|error| error.to_string())?;
        let found = Account::of_entries(&self.defaults, &self.parameters, self.id.as_ref(), &entries).await;
        found.map(|account| account.credential).map_err(|error| error.full_text())
    }

    fn describe(&self) -> String {
        self.secret.shown()
    }
}
