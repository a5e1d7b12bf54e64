//! From a request to a [`VolumeSpec`]: which account and container, signed for how, mounted how.
//!
//! Precedence, in one place:
//! - account: Secret, then attributes, then volume handle, then connection string;
//! - container and prefix: attributes, then volume handle;
//! - endpoint: `server`, then the Secret's `blobendpoint`, then the connection string's; else made of the account and
//!   `storageEndpointSuffix`, `cloud`, the connection string's suffix, or the driver's cloud, in this order;
//! - credential: the pod's own identity where the volume asks for it ([`Parameters::is_for_pod`]); else what
//!   `AzureStorageAuthType` picks; else a secret of the key vault that `keyVaultURL` names; else account key, SAS, connection
//!   string of the Secret that was handed in, or that the driver reads itself (`named_secret`); else the account's keys, listed in the name of the cluster's identity (`lookup`). An identity has
//!   to be picked: a node's own is never found by itself, and never lent to an inline volume or to a pod's own.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    capability::Access,
    error::{Error, Result},
    lookup::Asked,
    named_secret::NamedSecret,
    parameters::{Parameters, is_own_host, is_suffix},
    secrets::Secrets,
    volume_id::VolumeId,
};
use crate::{
    blob::{Location, LocationHints},
    credential::{
        AuthMode, Cloud, CloudHints, Credential, CredentialSource, IdentityOptions, IdentitySettings, Lookups,
        PodToken, Trust,
    },
    fuse::SessionOptions,
    kube::Api,
    volume::{self, VolumeSpec, options::MountOptions},
};

/// What the driver is told on its command line and every volume inherits.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Name of the driver; containers that it makes carry it.
    pub driver_name: String,
    /// The cloud whose endpoints are meant where a volume says nothing.
    pub cloud: Cloud,
    /// Who is trusted when tokens are asked for.
    pub trust: Trust,
    /// The cluster's cloud config: the first of these files that is there.
    pub cloud_config: Vec<PathBuf>,
    /// Inline volumes, which any pod may write, may be signed for in the name of the node or the cluster.
    pub lends_to_inline: bool,
    /// The kernel is not asked to send again what another process had read and not answered. For tests of older kernels' behaviour.
    pub no_resend: bool,
    /// What was looked up in key vaults and at the resource manager.
    pub lookups: Arc<Lookups>,
    /// The API server, where the driver may ask it.
    pub api: Option<Api>,
}

impl Defaults {
    /// Without a cloud config, and lending nothing.
    #[must_use]
    pub fn new(driver_name: impl Into<String>, cloud: Cloud, trust: Trust) -> Self {
        let driver_name = driver_name.into();
        let (cloud_config, lookups) = (Vec::new(), Arc::default());
        let (lends_to_inline, no_resend) = (false, false);
        Self { driver_name, cloud, trust, cloud_config, lends_to_inline, no_resend, lookups, api: None }
    }
}

/// An account, found: where it is and how to sign for it.
#[derive(Clone, Debug)]
pub struct Account {
    hints: LocationHints,
    /// How to sign.
    pub credential: Credential,
    /// Where that was looked up, if it was.
    pub source: Option<Arc<dyn CredentialSource>>,
    /// In whose name it was looked up, where not in the volume's.
    asker: Option<String>,
}

impl Account {
    /// Finds the account of a request, and looks its credential up where the volume says so. Cancel-safe.
    ///
    /// # Errors
    /// `Invalid` for secrets or values that cannot be; `NoCredential` when there is none; `Denied` and `Unavailable` where it
    /// cannot be looked up.
    pub async fn find(
        defaults: &Defaults,
        parameters: &Parameters,
        id: Option<&VolumeId>,
        secrets: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let own = Secrets::read(secrets)?;
        let named = NamedSecret::of(defaults, parameters, id, &own)?;
        let Some(named) = named else { return Self::signed(defaults, parameters, id, &own, None).await };
        let Some(entries) = named.entries().await? else {
            return Self::signed(defaults, parameters, id, &own, None).await;
        };
        let mut found = Self::signed(defaults, parameters, id, &Secrets::read(&entries)?, None).await?;
        if found.source.is_none() {
            let (defaults, parameters) = (defaults.clone(), parameters.clone());
            found.source = Some(Arc::new(named.source(defaults, parameters, id.cloned())));
        }
        Ok(found)
    }

    /// What `entries` of a Secret sign for, without a look anywhere else. Cancel-safe.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(super) async fn of_entries(
        defaults: &Defaults,
        parameters: &Parameters,
        id: Option<&VolumeId>,
        entries: &BTreeMap<String, String>,
    ) -> Result<Self> {
        Self::signed(defaults, parameters, id, &Secrets::read(entries)?, None).await
    }

    /// Finds the account of a request, for a pod that signs in with its own token.
    ///
    /// # Errors
    /// `Invalid` for secrets or values that cannot be, or where clientID or tenantID is missing.
    pub async fn of_pod(
        defaults: &Defaults,
        parameters: &Parameters,
        id: Option<&VolumeId>,
        secrets: &BTreeMap<String, String>,
        token: PodToken,
    ) -> Result<Self> {
        Self::signed(defaults, parameters, id, &Secrets::read(secrets)?, Some(token)).await
    }

    async fn signed(
        defaults: &Defaults,
        parameters: &Parameters,
        id: Option<&VolumeId>,
        secrets: &Secrets,
        token: Option<PodToken>,
    ) -> Result<Self> {
        let account = parameters.account().or_else(|| id.and_then(|id| id.account.as_deref()));
        let mode = match &token {
            Some(_) => Some(AuthMode::WorkloadIdentity),
            None => parameters.auth_mode()?,
        };
        let known = secrets.account(account)?;
        let account = known.account.as_deref();
        let asked = Asked { defaults, parameters, id, account, has_credential: secrets.has_credential() };
        let question = asked.question(token.is_some())?;
        let settings = if question.is_some() { known.clone() } else { secrets.settings(account, mode)? };
        let written_suffix = match parameters.get("storageendpointsuffix") {
            Some(suffix) => Some(suffix.to_owned()),
            None => parameters.cloud()?.map(|cloud| cloud.storage_suffix().to_owned()),
        };
        let by_identity = question.is_some() || mode.is_some_and(AuthMode::is_identity);
        if token.is_none() && parameters.is_ephemeral() && by_identity {
            check_host(parameters, settings.account.as_deref())?;
        }
        let hints = LocationHints {
            account: settings.account.clone(),
            endpoint: parameters.get("server").map(str::to_owned).or(settings.endpoint),
            endpoint_suffix: written_suffix.or(settings.endpoint_suffix),
            cloud: defaults.cloud,
            insecure: settings.insecure,
        };
        if let Some(question) = question {
            let lookup = asked.lookup(question, token)?;
            let (credential, asker) = (lookup.find().await?, Some(lookup.asker()));
            return Ok(Self { hints, credential, source: Some(Arc::new(lookup)), asker });
        }
        let credential = match settings.credential {
            Some(credential) => Some(credential),
            None => identity(defaults, parameters, secrets, mode, token, &hints)?,
        };
        let credential = credential.unwrap_or(Credential::Anonymous);
        Ok(Self { hints, credential, source: None, asker: None })
    }

    /// In whose name its credential was looked up, where not in the volume's.
    #[must_use]
    pub fn asker(&self) -> Option<&str> {
        self.asker.as_deref()
    }

    /// The container `path` (`CONTAINER[/PREFIX]`) of this account.
    ///
    /// # Errors
    /// `Invalid` for names that the service does not allow, or when the account is not known.
    pub fn location(&self, path: &str) -> Result<Location> {
        Location::from_names(path, &self.hints).map_err(|error| Error::invalid(error.to_string()))
    }
}

/// Where the node's or the cluster's identity signs in for an inline volume, its token goes to the account's own endpoints alone.
fn check_host(parameters: &Parameters, account: Option<&str>) -> Result<()> {
    let account = account.unwrap_or_default();
    if let Some(server) = parameters.get("server").filter(|server| !is_own_host(account, server)) {
        return Err(Error::invalid(format!(
            "server {server:?} is no endpoint of account {account:?} in a known cloud, and an inline volume may not send the token of \
             the node's identity elsewhere: use ACCOUNT.blob.SUFFIX, or a PersistentVolume"
        )));
    }
    match parameters.get("storageendpointsuffix").filter(|suffix| !is_suffix(suffix)) {
        Some(suffix) => Err(Error::invalid(format!(
            "storageEndpointSuffix {suffix:?} is that of no known cloud, and an inline volume may not send the token of the node's \
             identity elsewhere: use core.windows.net or another cloud's, or a PersistentVolume"
        ))),
        None => Ok(()),
    }
}

/// The node plugin's flag for [`Defaults::lends_to_inline`].
pub(super) const LEND_FLAG: &str = "--allow-inline-volume-key-access-with-identity";

/// The identity that signs in, where `mode` is one's.
fn identity(
    defaults: &Defaults,
    parameters: &Parameters,
    secrets: &Secrets,
    mode: Option<AuthMode>,
    token: Option<PodToken>,
    hints: &LocationHints,
) -> Result<Option<Credential>> {
    let Some(mode) = mode else { return Ok(None) };
    if token.is_none() && parameters.is_ephemeral() && !defaults.lends_to_inline && mode.is_identity() {
        return Err(Error::invalid(format!(
            "AzureStorageAuthType is {}, but the node's identity is not lent to inline volumes, which any pod may write: use a \
             PersistentVolume, or reference a Secret (nodePublishSecretRef), or let the driver lend it ({LEND_FLAG})",
            mode.name()
        )));
    }
    let options = match mode {
        AuthMode::ServicePrincipal => secrets.principal(parameters.identity()),
        _ => parameters.identity(),
    };
    let settings = secrets.identity(IdentitySettings::new(|name| std::env::var(name).ok(), options));
    let cloud = CloudHints {
        name: parameters.get("cloud"),
        storage_host: hints.endpoint.as_deref().or(hints.endpoint_suffix.as_deref()),
        authority: settings.authority(),
        environment: None,
    };
    // Where nothing tells, the driver's own cloud is meant.
    let told = parameters.get("cloud").is_some()
        || cloud.storage_host.and_then(Cloud::of_storage_host).is_some()
        || cloud.authority.and_then(Cloud::of_authority).is_some();
    let invalid = |error: &dyn std::error::Error| Error::invalid(error.to_string());
    let cloud = if told { cloud.cloud().map_err(|error| invalid(&error))? } else { defaults.cloud };
    match token {
        Some(token) => settings.pod_credential(token, cloud, &defaults.trust).map(Some),
        None => settings.credential(mode, cloud, &defaults.trust),
    }
    .map_err(|error| invalid(&error))
}

/// A request to mount a volume.
#[derive(Clone, Debug)]
pub struct MountRequest<'a> {
    /// The volumeHandle.
    pub volume_id: &'a str,
    /// The volume's attributes.
    pub attributes: &'a Parameters,
    /// The secrets that came along.
    pub secrets: &'a BTreeMap<String, String>,
    /// How it is to be used.
    pub access: &'a Access,
}

impl MountRequest<'_> {
    /// The handle's parts; a handle in another form is no error while the attributes name the container.
    fn id(&self) -> Option<VolumeId> {
        VolumeId::parse(self.volume_id).ok()
    }

    /// Who signs.
    ///
    /// # Errors
    /// As [`Account::find`].
    pub async fn account(&self, defaults: &Defaults) -> Result<Account> {
        Account::find(defaults, self.attributes, self.id().as_ref(), self.secrets).await
    }

    /// The whole volume.
    ///
    /// # Errors
    /// `Invalid` naming the attribute, option or name that is wrong; `NoCredential`.
    pub async fn spec(&self, defaults: &Defaults) -> Result<VolumeSpec> {
        self.described(defaults, |_| self.volume_id.to_owned(), self.account(defaults).await?)
    }

    /// The whole volume for one pod, published at `target`, that signs in with its own token. It shares nothing with other
    /// pods that have a volume of this id; what is kept on the node's disk is shared by pods of one service account.
    ///
    /// # Errors
    /// As [`Self::spec`], or where clientID or tenantID is missing.
    pub async fn spec_of_pod(&self, defaults: &Defaults, token: PodToken, target: &Path) -> Result<VolumeSpec> {
        let account = Account::of_pod(defaults, self.attributes, self.id().as_ref(), self.secrets, token).await?;
        let scope = |account: &Account| match (&account.asker, &account.credential) {
            (Some(asker), _) => format!("{} as {asker}", self.volume_id),
            (None, Credential::Token(token)) => format!("{} as {}", self.volume_id, token.describe()),
            (None, other) => format!("{} as {}", self.volume_id, other.describe()),
        };
        let spec = self.described(defaults, scope, account)?;
        Ok(VolumeSpec { id: volume::id_of_pod(self.volume_id, target), ..spec })
    }

    fn described(
        &self,
        defaults: &Defaults,
        scope: impl Fn(&Account) -> String,
        account: Account,
    ) -> Result<VolumeSpec> {
        let container = match self.attributes.container()? {
            Some(container) => container,
            None => self.id().and_then(|id| id.container).ok_or_else(|| {
                Error::invalid(format!(
                    "The container is not known: set containerName in volumeAttributes, or a volumeHandle of the form \
                     resourceGroup#account#container (it is {:?})",
                    self.volume_id
                ))
            })?,
        };
        let options = self.options()?;
        let directory = self.attributes.sub_directory()?;
        let prefix = options.prefix.as_deref().or(directory.as_deref()).or(self.attributes.get("prefix"));
        let prefix = prefix.unwrap_or_default();
        let location = account.location(&format!("{container}/{prefix}"))?;
        let create = self.attributes.flag("createcontainer")? || options.create_container;
        let session = SessionOptions { no_resend: defaults.no_resend, ..options.session_options(location.to_string()) };
        let mut view = options.view_settings();
        view.read_only |= self.access.read_only;
        Ok(VolumeSpec {
            labels: super::labels::of_claim(self.attributes),
            id: self.volume_id.to_owned(),
            origin: None,
            scope: scope(&account),
            location,
            credential: account.credential,
            source: account.source,
            notices: None,
            create_container: create.then(|| defaults.driver_name.clone()),
            settings: options.settings(),
            view,
            session,
            fixed_group: options.gid.is_some(),
        })
    }

    /// Attributes first, then the volume's own mount options, so that the latter win.
    fn options(&self) -> Result<MountOptions> {
        let mut written: Vec<String> = self.attributes.get("mountoptions").into_iter().map(str::to_owned).collect();
        for key in ["consistency", "metadata-ttl", "durability", "quota", "warmup"] {
            if let Some(value) = self.attributes.get(key) {
                written.push(format!("{key}={value}"));
            }
        }
        if let Some(value) = self.attributes.get("statsfile") {
            written.push(format!("stats_file={value}"));
        }
        written.extend(self.access.mount_flags.iter().cloned());
        let (mut options, warnings) =
            MountOptions::parse(&written).map_err(|error| Error::invalid(error.to_string()))?;
        for warning in warnings {
            tracing::info!(volume = self.volume_id, "{warning}");
        }
        if options.auth.is_some() || options.cloud.is_some() || options.identity != IdentityOptions::default() {
            return Err(Error::invalid(
                "how to sign in, and the cloud, are attributes of a volume, not mount options: set AzureStorageAuthType, \
                 AzureStorageIdentityClientID, ... and cloud in volumeAttributes",
            ));
        }
        // Pods run under any user id; whom a volume is for, the pod's spec says. With it come blobfuse's modes, 0777.
        options.allow_other = true;
        Ok(options)
    }
}

/// The first of a request's fields that must not be empty, but is.
///
/// # Errors
/// `Invalid` naming the field.
pub fn require(fields: &[(&'static str, &str)]) -> Result<()> {
    match fields.iter().find(|(_, value)| value.is_empty()) {
        Some((name, _)) => Err(Error::invalid(format!("{name} is missing"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing here is looked up, so nothing waits.
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn account(attributes: &[(&str, &str)], secrets: &[(&str, &str)]) -> Result<Account> {
        let map = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
            entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let defaults = Defaults::new("d", Cloud::Public, Trust::default());
        block_on(Account::find(&defaults, &Parameters::of_volume(&map(attributes))?, None, &map(secrets)))
    }

    fn map_of(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    const ACCOUNT: (&str, &str) = ("storageAccount", "acme");

    #[test]
    fn a_volume_signs_in_with_the_identity_that_it_picks() {
        let msi = [ACCOUNT, ("AzureStorageAuthType", "MSI"), ("AzureStorageIdentityClientID", "c1")];
        let found = account(&msi, &[]).unwrap().credential;
        assert!(matches!(&found, Credential::Token(token) if token.describe() == "managed identity (client id c1)"));
        let principal = [
            ACCOUNT,
            ("AzureStorageAuthType", "spn"),
            ("AzureStorageSPNClientID", "c1"),
            ("AzureStorageSPNTenantID", "t1"),
        ];
        let found = account(&principal, &[("azurestoragespnclientsecret", "s3cret")]).unwrap().credential;
        assert!(
            matches!(&found, Credential::Token(token) if token.describe().starts_with("service principal c1 of tenant t1"))
        );
        let error = account(&principal, &[]).unwrap_err();
        assert!(error.message.contains("AZURE_STORAGE_SPN_CLIENT_SECRET"), "{error}");
    }

    #[test]
    fn a_pod_signs_in_with_its_own_token_and_never_with_the_nodes_client() {
        // `{"sub":"system:serviceaccount:apps:reader"}`.
        let jwt = "e30.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6YXBwczpyZWFkZXIifQ.hunter2";
        let of_pod = |attributes: &[(&str, &str)]| {
            let parameters = Parameters::of_volume(&map_of(attributes))?;
            assert!(parameters.is_for_pod()?);
            let defaults = Defaults::new("d", Cloud::Public, Trust::default());
            let token = PodToken::new(jwt.to_owned().into()).unwrap();
            block_on(Account::of_pod(&defaults, &parameters, None, &BTreeMap::new(), token))
        };
        let full = [ACCOUNT, ("clientID", "c1"), ("tenantID", "t1")];
        let found = of_pod(&full).unwrap().credential;
        let Credential::Token(token) = &found else { panic!("{found:?}") };
        assert_eq!(
            token.describe(),
            "workload identity c1 of tenant t1 (the pod's token, system:serviceaccount:apps:reader)"
        );
        assert!(!format!("{found:?}").contains("hunter2"));
        assert!(found.is_same(&of_pod(&full).unwrap().credential));
        let flag = ("mountWithWorkloadIdentityToken", "true");
        let error = of_pod(&[ACCOUNT, flag, ("tenantID", "t1")]).unwrap_err();
        assert!(error.message.contains("clientID"), "{error}");
        let error = Parameters::of_volume(&map_of(&[flag, ("AzureStorageAuthType", "msi")])).unwrap_err();
        assert!(error.message.contains("remove one"), "{error}");
        let tokens = [(crate::csi::pod_token::TOKENS, "hunter2"), ("clientID", "c1")];
        assert!(!format!("{:?}", Parameters::of_volume(&map_of(&tokens)).unwrap()).contains("hunter2"));
    }

    #[test]
    fn the_nodes_identity_is_never_lent_to_an_inline_volume() {
        for mode in ["msi", "spn", "workload_identity", "default"] {
            let inline = [ACCOUNT, ("AzureStorageAuthType", mode), ("csi.storage.k8s.io/ephemeral", "true")];
            let error = account(&inline, &[]).unwrap_err();
            assert!(error.message.contains("inline volumes"), "{error}");
        }
    }

    #[test]
    fn the_nodes_identity_is_lent_where_the_operator_allowed_it() {
        let inline = [ACCOUNT, ("AzureStorageAuthType", "msi"), ("csi.storage.k8s.io/ephemeral", "true")];
        let defaults = Defaults { lends_to_inline: true, ..Defaults::new("d", Cloud::Public, Trust::default()) };
        let parameters = Parameters::of_volume(&map_of(&inline)).unwrap();
        let found = block_on(Account::find(&defaults, &parameters, None, &BTreeMap::new())).unwrap();
        assert!(matches!(found.credential, Credential::Token(_)));
    }

    #[test]
    fn without_a_secret_no_identity_is_found_by_itself() {
        let error = account(&[ACCOUNT], &[]).unwrap_err();
        assert_eq!(error.kind, crate::csi::error::ErrorKind::NoCredential);
    }
}
