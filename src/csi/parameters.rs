//! Parameters of a StorageClass and attributes of a volume: one table of keys, and what each does here.
//!
//! [`TABLE`] has a row for every key of the Azure Blob CSI driver, so its StorageClasses and PersistentVolumes work unchanged, plus a
//! few of our own; parsing, checks and docs/CONFIGURATION.md follow from it. Keys compare without case. In a StorageClass an
//! unknown key is refused; in volume attributes it is left out, because the kubelet and the provisioner add their own. Of
//! inline volumes, which any pod may write, only what is listed for them passes. Knows nothing of secrets' values.

mod document;
mod inline;
mod placeholder;
mod table;

use std::collections::BTreeMap;

pub use document::markdown;
pub use inline::{is_own_host, is_suffix};
pub use table::{Effect, Places, Row, TABLE, Takes};

use super::{
    error::{Error, Result},
    pod_token,
};
use crate::credential::{AuthMode, Cloud, IdentityId, IdentityOptions};

/// Protocols that mean our file system; the NFS ones are refused with a sentence.
const FUSE_PROTOCOLS: [&str; 3] = ["", "fuse", "fuse2"];
const NFS_PROTOCOLS: [&str; 3] = ["nfs", "aznfs", "nfsv3"];

/// Attribute by which the kubelet says that a volume is an inline one.
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Class,
    Volume,
    Inline,
}

/// Parameters or attributes under their usual names in lower case. Empty values count as absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    values: BTreeMap<String, String>,
}

impl Parameters {
    /// Reads the parameters of a StorageClass.
    ///
    /// # Errors
    /// `Invalid` naming an unknown or refused key, a key that is there twice, or a value that cannot be.
    pub fn of_storage_class(parameters: &BTreeMap<String, String>) -> Result<Self> {
        for (key, value) in parameters {
            let row = table::find(key).filter(|row| row.places.class).ok_or_else(|| {
                Error::invalid(format!("invalid parameter {key:?} in storage class: this driver does not know it"))
            })?;
            if let Effect::Refused(fix) = row.effect
                && !value.trim().is_empty()
            {
                return Err(Error::invalid(format!("parameter {key} is not supported: {fix}")));
            }
        }
        Self::read(parameters, Kind::Class)
    }

    /// Reads the attributes of a volume (`csi.volumeAttributes`, or those of an inline volume).
    ///
    /// # Errors
    /// `Invalid` naming a key that is there twice with different values, or a value that cannot be.
    pub fn of_volume(attributes: &BTreeMap<String, String>) -> Result<Self> {
        let inline = attributes.get(EPHEMERAL).is_some_and(|value| value == "true");
        Self::read(attributes, if inline { Kind::Inline } else { Kind::Volume })
    }

    fn read(given: &BTreeMap<String, String>, kind: Kind) -> Result<Self> {
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in given {
            if key == pod_token::TOKENS || value.trim().is_empty() {
                continue; // Secrets, which do not belong among what is logged and shown.
            }
            let Some(row) = table::find(key) else { continue };
            if kind == Kind::Inline && !inline::admits(row)? {
                tracing::info!(key, "{key} is not for inline volumes and is left out");
                continue;
            }
            let (name, value) = (row.key.to_lowercase(), value.trim().to_owned());
            match values.get(&name) {
                Some(other) if *other != value => {
                    return Err(Error::invalid(format!(
                        "{name} is given twice (in different case, or under its other name) with different values"
                    )));
                }
                _ => values.insert(name, value),
            };
        }
        let parameters = Self { values };
        parameters.check(kind)?;
        Ok(parameters)
    }

    fn check(&self, kind: Kind) -> Result<()> {
        let protocol = self.get("protocol").unwrap_or_default();
        if NFS_PROTOCOLS.contains(&protocol) {
            return Err(Error::invalid(format!(
                "protocol {protocol:?} is not offered by this driver: use fuse (NFS volumes need the Azure Blob CSI driver)"
            )));
        }
        if !FUSE_PROTOCOLS.contains(&protocol) {
            return Err(Error::invalid(format!("invalid protocol {protocol:?}: expected fuse or fuse2")));
        }
        let mode = match (self.auth_mode()?, self.is_for_pod()?) {
            (Some(mode), true) if !matches!(mode, AuthMode::WorkloadIdentity | AuthMode::Key) => {
                return Err(Error::invalid(format!(
                    "mountWithWorkloadIdentityToken asks for the pod's identity, AzureStorageAuthType for {}: remove one of them",
                    mode.name()
                )));
            }
            (_, true) => Some(AuthMode::WorkloadIdentity),
            (mode, false) => mode,
        };
        for row in TABLE {
            let Some(value) = self.get(&row.key.to_lowercase()) else { continue };
            row.check(value, mode, kind)?;
        }
        if kind == Kind::Inline {
            inline::check(self)?;
        }
        self.cloud()?;
        self.keeps()?;
        Ok(())
    }

    /// The value of a key (in lower case), if it is there and not empty.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// The storage account.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        self.get("storageaccount")
    }

    /// The same with this account.
    #[must_use]
    pub fn with_account(mut self, name: &str) -> Self {
        self.values.insert("storageaccount".to_owned(), name.to_owned());
        self
    }

    /// The container, with placeholders replaced.
    ///
    /// # Errors
    /// `Invalid` when a placeholder stands for something that is not known here.
    pub fn container(&self) -> Result<Option<String>> {
        self.get("containername").map(|written| placeholder::replaced(self, "containerName", written)).transpose()
    }

    /// The directory of the container that is the volume, with placeholders replaced.
    ///
    /// # Errors
    /// As [`Self::container`].
    pub fn sub_directory(&self) -> Result<Option<String>> {
        let replaced = |written: &str| placeholder::replaced(self, "subDir", written);
        let directory = self.get("subdir").map(replaced).transpose()?;
        Ok(directory.map(|directory| directory.trim_matches('/').to_owned()))
    }

    /// Whether the data stays when the volume is deleted.
    ///
    /// # Errors
    /// `Invalid` for anything but `delete` and `retain`.
    pub fn keeps(&self) -> Result<bool> {
        match self.get("ondelete").map(str::to_lowercase).as_deref() {
            None | Some("delete") => Ok(false),
            Some("retain") => Ok(true),
            Some(other) => Err(Error::invalid(format!("onDelete is {other:?}: expected delete or retain"))),
        }
    }

    /// The cloud whose endpoints are meant.
    ///
    /// # Errors
    /// `Invalid` naming an unknown cloud.
    pub fn cloud(&self) -> Result<Option<Cloud>> {
        self.get("cloud").map(Cloud::from_name).transpose().map_err(|error| Error::invalid(error.to_string()))
    }

    /// The kind of credential to take.
    ///
    /// # Errors
    /// `Invalid` for kinds that nobody knows, or that only people's machines have.
    pub fn auth_mode(&self) -> Result<Option<AuthMode>> {
        let mode = self
            .get("azurestorageauthtype")
            .map(|text| AuthMode::parse("AzureStorageAuthType", text))
            .transpose()
            .map_err(|error| Error::invalid(error.to_string()))?;
        match mode {
            Some(AuthMode::AzureCli) => Err(Error::invalid(
                "AzureStorageAuthType is azcli, but nobody is signed in with the Azure CLI on a node: use workload_identity, msi or spn",
            )),
            mode => Ok(mode),
        }
    }

    /// Which identity of Entra ID signs in, where the kind of credential is one.
    #[must_use]
    pub fn identity(&self) -> IdentityOptions {
        let own = |key: &str| self.get(key).map(str::to_owned);
        let any = |keys: &[&str]| keys.iter().find_map(|key| own(key));
        IdentityOptions {
            id: IdentityId {
                client_id: any(&["azurestorageidentityclientid", "azurestoragespnclientid", "clientid"]),
                object_id: own("azurestorageidentityobjectid"),
                resource_id: own("azurestorageidentityresourceid"),
            },
            tenant_id: any(&["azurestoragespntenantid", "tenantid"]),
            authority: own("azurestorageaadendpoint"),
            msi_endpoint: own("msiendpoint"),
            ..IdentityOptions::default()
        }
    }

    /// A key that is `true` or `false`; absent is false.
    ///
    /// # Errors
    /// `Invalid` for other values.
    pub fn flag(&self, key: &str) -> Result<bool> {
        Ok(self.get(key).map(|value| flag_of(key, value)).transpose()?.unwrap_or_default())
    }

    /// Whether each pod signs in with its own identity: mountWithWorkloadIdentityToken says so, as does a clientID without
    /// AzureStorageAuthType. Workload identity of an inline volume can be no other than its pod's.
    ///
    /// # Errors
    /// `Invalid` for values that cannot be.
    pub fn is_for_pod(&self) -> Result<bool> {
        let named = self.get("clientid").is_some();
        Ok(self.flag("mountwithworkloadidentitytoken")?
            || match self.auth_mode()? {
                None => named,
                // The pod's identity lists the keys.
                Some(AuthMode::Key) => named,
                Some(mode) => mode == AuthMode::WorkloadIdentity && self.is_ephemeral(),
            })
    }

    /// Whether the kubelet says that this is an inline volume of a pod.
    #[must_use]
    pub fn is_ephemeral(&self) -> bool {
        self.get(EPHEMERAL) == Some("true")
    }
}

impl Row {
    /// Whether `value` can be, where `mode` says how the volume signs in; logs what has no effect.
    fn check(&self, value: &str, mode: Option<AuthMode>, kind: Kind) -> Result<()> {
        let key = self.key;
        // What only shapes new accounts is of no concern to volumes that exist.
        if kind == Kind::Class || self.effect == Effect::Used {
            match self.takes {
                Takes::Flag => drop(flag_of(key, value)?),
                Takes::Days => drop(days_of(key, value)?),
                Takes::Text => {}
            }
        }
        match self.effect {
            Effect::IdentityOf(needed) if mode != Some(needed) && mode != Some(AuthMode::Default) => {
                return Err(Error::invalid(format!(
                    "{key} says which identity signs in by {}, but AzureStorageAuthType does not say so: set it to {}, or remove {key}",
                    needed.name(),
                    needed.name()
                )));
            }
            Effect::None(reason) => tracing::info!(key, value, "{key} has no effect: {reason}"),
            Effect::Refused(reason) => {
                tracing::info!(key, value, "{key} has no effect on a volume that exists: {reason}");
            }
            _ => {}
        }
        Ok(())
    }
}

/// `true` or `false`, as Go's ParseBool reads them.
fn flag_of(key: &str, value: &str) -> Result<bool> {
    match value.to_lowercase().as_str() {
        "true" | "t" | "1" => Ok(true),
        "false" | "f" | "0" => Ok(false),
        other => Err(Error::invalid(format!("{key} is {other:?}: expected true or false"))),
    }
}

fn days_of(key: &str, value: &str) -> Result<u16> {
    let days = value.parse().ok().filter(|days| (1..=365).contains(days));
    days.ok_or_else(|| Error::invalid(format!("{key} is {value:?}: expected a number of days from 1 to 365")))
}

#[cfg(test)]
mod tests;
