//! Credentials that a volume does not bring along but says where to find: in a key vault (keyVaultURL), or, where it says nothing
//! and the cluster has an identity, among the keys that the resource manager lists. Decides what is asked, and in whose
//! name; the asking is the credential room's.

use super::{
    error::{Error, ErrorKind, Result},
    parameters::Parameters,
    request::{Defaults, LEND_FLAG},
    volume_id::VolumeId,
};
use crate::{
    credential::{
        AccountKeys, AccountWanted, AuthMode, Cloud, CloudConfig, IdentityHttp, IdentityOptions, IdentitySettings,
        Lookup, LookupError, PodToken, Question, TokenCredential, TokenErrorKind, VaultSecret,
    },
    finding::{Diagnosis, Finding},
};

/// What is known of a volume before its credential is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) defaults: &'a Defaults,
    pub(super) parameters: &'a Parameters,
    pub(super) id: Option<&'a VolumeId>,
    /// The account, where it is known.
    pub(super) account: Option<&'a str>,
    /// A Secret brought a credential along.
    pub(super) has_credential: bool,
}

impl Asked<'_> {
    /// What has to be looked up for this volume, if anything. `for_pod`: in the name of its pod's identity.
    ///
    /// # Errors
    /// `Invalid` for attributes that cannot be.
    pub(super) fn question(&self, for_pod: bool) -> Result<Option<Question>> {
        let mode = self.parameters.auth_mode()?;
        if let Some(url) = self.parameters.get("keyvaulturl") {
            self.check_lent(for_pod)?;
            return self.vault(url).map(Question::Vault).map(Some);
        }
        let by_key = mode == Some(AuthMode::Key) || mode.is_none() && !for_pod;
        let wanted = by_key && !self.has_credential && !self.parameters.flag("getaccountkeyfromsecret")?;
        // What an inline volume does not bring along it does not get.
        if !wanted || !for_pod && !self.is_lent() {
            return Ok(None);
        }
        let config = self.config()?;
        if !for_pod && cluster_identity(config.as_ref()).is_none() {
            return Ok(None);
        }
        // Without an account there is nothing to look for: that is told with the Secret.
        let Some(account) = self.account else { return Ok(None) };
        self.keys(account, config.as_ref()).map(Question::Keys).map(Some)
    }

    /// Whether the cluster's identity speaks for this volume.
    fn is_lent(&self) -> bool {
        !self.parameters.is_ephemeral() || self.defaults.lends_to_inline
    }

    /// The node's identity may read what it may; a pod must not choose it.
    fn check_lent(&self, for_pod: bool) -> Result<()> {
        if for_pod || self.is_lent() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "keyVaultURL is asked in the name of the node's identity, which is not lent to inline volumes, which any pod may write: \
             use a PersistentVolume, or the pod's own identity (clientID), or let the driver lend it ({LEND_FLAG})"
        )))
    }

    fn vault(&self, url: &str) -> Result<VaultSecret> {
        let name = self.parameters.get("keyvaultsecretname").ok_or_else(|| {
            Error::invalid(
                "keyVaultURL is set, but not keyVaultSecretName: it names the secret that holds the key or SAS",
            )
        })?;
        let version = self.parameters.get("keyvaultsecretversion");
        VaultSecret::new(url, name, version, self.account).map_err(|known| invalid(&known))
    }

    fn keys(&self, account: &str, config: Option<&CloudConfig>) -> Result<AccountKeys> {
        let (subscription, group) = self.subscription_and_group(account, config)?;
        let cloud = self.cloud(config)?;
        Ok(AccountKeys {
            cloud,
            subscription,
            group,
            account: account.to_owned(),
            latest: self.parameters.flag("getlatestaccountkey")?,
        })
    }

    /// Where the account is, or is to be.
    fn subscription_and_group(&self, account: &str, config: Option<&CloudConfig>) -> Result<(String, String)> {
        let unplaced = |what: &str, attribute: &str| {
            let facts = [("what", what), ("attribute", attribute), ("account", account)];
            invalid(&Finding::AccountUnplaced.with(&facts))
        };
        let given = |key: &str| self.parameters.get(key).map(str::to_owned);
        let subscription = given("subscriptionid")
            .or_else(|| self.id.and_then(|id| id.subscription.clone()))
            .or_else(|| config.and_then(CloudConfig::subscription))
            .ok_or_else(|| unplaced("subscription", "subscriptionID"))?;
        let group = given("resourcegroup")
            .or_else(|| self.id.and_then(|id| id.resource_group.clone()))
            .or_else(|| config.and_then(CloudConfig::resource_group))
            .ok_or_else(|| unplaced("resource group", "resourceGroup"))?;
        Ok((subscription, group))
    }

    /// Where an account is looked for and made, and the cluster's region; `None` where nobody could ask.
    pub(super) fn place(&self) -> Result<Option<(AccountWanted, Option<String>)>> {
        let config = self.config()?;
        if cluster_identity(config.as_ref()).is_none() {
            return Ok(None);
        }
        let (subscription, group) = self.subscription_and_group("of this class", config.as_ref())?;
        let cloud = self.cloud(config.as_ref())?;
        let location = config.as_ref().and_then(CloudConfig::location);
        Ok(Some((AccountWanted { cloud, subscription, group, ..AccountWanted::default() }, location)))
    }

    /// Tokens of the cluster's identity.
    pub(super) fn cluster_tokens(&self, cloud: Cloud, audience: &str) -> Result<(IdentityHttp, TokenCredential)> {
        let refused = |error: crate::credential::Error| Error::invalid(error.to_string());
        let trust = &self.defaults.trust;
        let nobody = || {
            let known = Finding::ClusterIdentityMissing.with(&[("what", "an account for the volume")]);
            Error::new(ErrorKind::NoCredential, known.to_string())
        };
        let (settings, mode) = cluster_identity(self.config()?.as_ref()).ok_or_else(nobody)?;
        let tokens = settings.tokens(mode, cloud, trust, audience).map_err(refused)?.ok_or_else(nobody)?;
        Ok((trust.identity_http().map_err(refused)?, tokens))
    }

    fn cloud(&self, config: Option<&CloudConfig>) -> Result<Cloud> {
        let by_host = |key: &str| self.parameters.get(key).and_then(Cloud::of_storage_host);
        let said = self.parameters.cloud()?.or_else(|| by_host("server")).or_else(|| by_host("storageendpointsuffix"));
        Ok(said.or_else(|| config.and_then(CloudConfig::cloud)).unwrap_or(self.defaults.cloud))
    }

    fn config(&self) -> Result<Option<CloudConfig>> {
        CloudConfig::find(&self.defaults.cloud_config).map_err(|known| invalid(&known))
    }

    /// Asks `question` in the name of the pod whose `token` it is, or else of the cluster.
    ///
    /// # Errors
    /// `NoCredential` where nobody could ask; `Invalid` for an identity that cannot be.
    pub(super) fn lookup(&self, question: Question, token: Option<PodToken>) -> Result<Lookup> {
        let refused = |error: crate::credential::Error| Error::invalid(error.to_string());
        let trust = &self.defaults.trust;
        let (cloud, audience) = (question.cloud(), question.audience());
        let tokens = match token {
            Some(token) => {
                let settings = IdentitySettings::new(variable, self.parameters.identity());
                settings.pod_tokens(token, cloud, trust, &audience).map_err(refused)?
            }
            None => {
                let found = cluster_identity(self.config()?.as_ref());
                let (settings, mode) = found.ok_or_else(|| nobody(&question))?;
                let tokens = settings.tokens(mode, cloud, trust, &audience).map_err(refused)?;
                tokens.ok_or_else(|| nobody(&question))?
            }
        };
        let http = trust.identity_http().map_err(refused)?;
        Ok(self.defaults.lookups.source(http, tokens, question))
    }
}

/// Whether the driver has an identity of its own, that of the cluster.
pub(super) fn has_identity(defaults: &Defaults) -> bool {
    let config = CloudConfig::find(&defaults.cloud_config).unwrap_or_default();
    cluster_identity(config.as_ref()).is_some()
}

/// The identity of the cluster: what its cloud config says, else what the driver's environment says.
fn cluster_identity(config: Option<&CloudConfig>) -> Option<(IdentitySettings, AuthMode)> {
    config.and_then(|config| config.identity(variable)).or_else(|| {
        let settings = IdentitySettings::new(variable, IdentityOptions::default());
        let mode = settings.found()?;
        Some((settings, mode))
    })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn nobody(question: &Question) -> Error {
    let known = Finding::ClusterIdentityMissing.with(&[("what", &question.describe())]);
    Error::new(ErrorKind::NoCredential, known.to_string())
}

fn invalid(known: &Diagnosis) -> Error {
    Error::invalid(known.to_string())
}

impl From<LookupError> for Error {
    fn from(error: LookupError) -> Self {
        let kind = match error.kind {
            TokenErrorKind::Refused => ErrorKind::Denied,
            TokenErrorKind::Unreachable | TokenErrorKind::Busy => ErrorKind::Unavailable,
        };
        Self::new(kind, error.to_string())
    }
}
