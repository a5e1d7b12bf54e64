//! Parameters of a StorageClass and attributes of a volume: one table of keys, and what each does here.
//!
//! The keys are those of the Azure Blob CSI driver, so its StorageClasses and PersistentVolumes work unchanged, plus a
//! few of our own. Keys compare without case. In a StorageClass an unknown key is refused; in volume attributes it is
//! ignored, because the kubelet and the provisioner add their own. Knows nothing of secrets' values.

use std::collections::BTreeMap;

use super::{
    error::{Error, Result},
    pod_token,
};
use crate::credential::{AuthMode, Cloud, IdentityId, IdentityOptions};

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// It is used by the driver.
    Used,
    /// It shapes an account that would be created. Accounts are given here, so it changes nothing; that is logged.
    AccountOnly,
    /// It says which identity signs in, in one way to sign in; without that way it is refused, since it would do nothing.
    IdentityOf(AuthMode),
    /// It only concerns NFS, which is refused by `protocol`.
    NfsOnly,
}

/// Where a key may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Both,
    VolumeOnly,
}

/// Every key, in lower case.
const KEYS: [(&str, Place, Effect); 68] = [
    ("storageaccount", Place::Both, Effect::Used),
    ("storageaccountname", Place::Both, Effect::Used),
    ("containername", Place::Both, Effect::Used),
    ("containernameprefix", Place::Both, Effect::Used),
    ("createcontainer", Place::Both, Effect::Used),
    ("prefix", Place::Both, Effect::Used),
    ("server", Place::Both, Effect::Used),
    ("storageendpointsuffix", Place::Both, Effect::Used),
    ("cloud", Place::Both, Effect::Used),
    ("protocol", Place::Both, Effect::Used),
    ("resourcegroup", Place::Both, Effect::Used),
    ("subscriptionid", Place::Both, Effect::Used),
    ("secretname", Place::Both, Effect::Used),
    ("secretnamespace", Place::Both, Effect::Used),
    ("mountoptions", Place::Both, Effect::Used),
    ("consistency", Place::Both, Effect::Used),
    ("metadata-ttl", Place::Both, Effect::Used),
    ("durability", Place::Both, Effect::Used),
    ("warmup", Place::Both, Effect::Used),
    ("azurestorageauthtype", Place::Both, Effect::Used),
    ("csi.storage.k8s.io/pvc/name", Place::Both, Effect::Used),
    ("csi.storage.k8s.io/pvc/namespace", Place::Both, Effect::Used),
    ("csi.storage.k8s.io/pv/name", Place::Both, Effect::Used),
    ("csi.storage.k8s.io/ephemeral", Place::VolumeOnly, Effect::Used),
    ("skuname", Place::Both, Effect::AccountOnly),
    ("storageaccounttype", Place::Both, Effect::AccountOnly),
    ("location", Place::Both, Effect::AccountOnly),
    ("networkendpointtype", Place::Both, Effect::AccountOnly),
    ("privatednszoneresourcegroup", Place::Both, Effect::AccountOnly),
    ("vnetresourcegroup", Place::Both, Effect::AccountOnly),
    ("vnetname", Place::Both, Effect::AccountOnly),
    ("subnetname", Place::Both, Effect::AccountOnly),
    ("vnetlinkname", Place::Both, Effect::AccountOnly),
    ("publicnetworkaccess", Place::Both, Effect::AccountOnly),
    ("accesstier", Place::Both, Effect::AccountOnly),
    ("allowblobpublicaccess", Place::Both, Effect::AccountOnly),
    ("allowsharedkeyaccess", Place::Both, Effect::AccountOnly),
    ("requireinfraencryption", Place::Both, Effect::AccountOnly),
    ("tags", Place::Both, Effect::AccountOnly),
    ("tagvaluedelimiter", Place::Both, Effect::AccountOnly),
    ("matchtags", Place::Both, Effect::AccountOnly),
    ("usedataplaneapi", Place::Both, Effect::AccountOnly),
    ("softdeleteblobs", Place::Both, Effect::AccountOnly),
    ("softdeletecontainers", Place::Both, Effect::AccountOnly),
    ("enableblobversioning", Place::Both, Effect::AccountOnly),
    ("ishnsenabled", Place::Both, Effect::AccountOnly),
    ("storeaccountkey", Place::Both, Effect::AccountOnly),
    ("getlatestaccountkey", Place::Both, Effect::AccountOnly),
    ("blobstorageaccounttype", Place::Both, Effect::AccountOnly),
    ("getaccountkeyfromsecret", Place::VolumeOnly, Effect::Used),
    ("azurestorageaadendpoint", Place::Both, Effect::Used),
    ("tenantid", Place::Both, Effect::Used),
    ("azurestorageidentityclientid", Place::Both, Effect::IdentityOf(AuthMode::ManagedIdentity)),
    ("azurestorageidentityobjectid", Place::Both, Effect::IdentityOf(AuthMode::ManagedIdentity)),
    ("azurestorageidentityresourceid", Place::Both, Effect::IdentityOf(AuthMode::ManagedIdentity)),
    ("msiendpoint", Place::Both, Effect::IdentityOf(AuthMode::ManagedIdentity)),
    ("clientid", Place::Both, Effect::IdentityOf(AuthMode::WorkloadIdentity)),
    ("mountwithworkloadidentitytoken", Place::Both, Effect::Used),
    ("azure.workload.identity/client-id", Place::VolumeOnly, Effect::IdentityOf(AuthMode::WorkloadIdentity)),
    ("azure.workload.identity/tenant-id", Place::VolumeOnly, Effect::Used),
    ("azurestoragespnclientid", Place::VolumeOnly, Effect::IdentityOf(AuthMode::ServicePrincipal)),
    ("azurestoragespntenantid", Place::VolumeOnly, Effect::IdentityOf(AuthMode::ServicePrincipal)),
    ("keyvaulturl", Place::VolumeOnly, Effect::Used),
    ("keyvaultsecretname", Place::VolumeOnly, Effect::Used),
    ("keyvaultsecretversion", Place::VolumeOnly, Effect::Used),
    ("mountpermissions", Place::Both, Effect::NfsOnly),
    ("fsgroupchangepolicy", Place::Both, Effect::NfsOnly),
    ("storage.kubernetes.io/csiprovisioneridentity", Place::VolumeOnly, Effect::Used),
];

/// Protocols that mean our file system; the NFS ones are refused with a sentence.
const FUSE_PROTOCOLS: [&str; 3] = ["", "fuse", "fuse2"];
const NFS_PROTOCOLS: [&str; 3] = ["nfs", "aznfs", "nfsv3"];

/// Placeholders in containerName, and the attribute that each stands for.
const PLACEHOLDERS: [(&str, &str); 3] = [
    ("${pvc.metadata.name}", "csi.storage.k8s.io/pvc/name"),
    ("${pvc.metadata.namespace}", "csi.storage.k8s.io/pvc/namespace"),
    ("${pv.metadata.name}", "csi.storage.k8s.io/pv/name"),
];

/// Parameters or attributes with their keys in lower case. Empty values count as absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    values: BTreeMap<String, String>,
}

impl Parameters {
    /// Reads the parameters of a StorageClass.
    ///
    /// # Errors
    /// `Invalid` naming an unknown key, a key that is there twice, or a value that cannot be.
    pub fn of_storage_class(parameters: &BTreeMap<String, String>) -> Result<Self> {
        for key in parameters.keys() {
            let known = known(key).is_some_and(|(_, place, _)| place == Place::Both);
            if !known {
                return Err(Error::invalid(format!(
                    "invalid parameter {key:?} in storage class: this driver does not know it"
                )));
            }
        }
        Self::read(parameters)
    }

    /// Reads the attributes of a volume (`csi.volumeAttributes`, or those of an inline volume).
    ///
    /// # Errors
    /// `Invalid` naming a key that is there twice with different values, or a value that cannot be.
    pub fn of_volume(attributes: &BTreeMap<String, String>) -> Result<Self> {
        Self::read(attributes)
    }

    fn read(given: &BTreeMap<String, String>) -> Result<Self> {
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in given {
            if key == pod_token::TOKENS {
                continue; // Secrets, which do not belong among what is logged and shown.
            }
            let (key, value) = (key.to_lowercase(), value.trim().to_owned());
            match values.get(&key) {
                Some(other) if *other != value => {
                    return Err(Error::invalid(format!(
                        "{key} is given twice (in different case) with different values"
                    )));
                }
                _ => values.insert(key, value),
            };
        }
        values.retain(|_, value| !value.is_empty());
        let parameters = Self { values };
        parameters.check()?;
        Ok(parameters)
    }

    fn check(&self) -> Result<()> {
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
        for (key, _, effect) in KEYS {
            let Some(value) = self.get(key) else { continue };
            match effect {
                Effect::IdentityOf(needed) if mode != Some(needed) && mode != Some(AuthMode::Default) => {
                    return Err(Error::invalid(format!(
                        "{key} says which identity signs in by {}, but AzureStorageAuthType does not say so: set it to {}, or remove {key}",
                        needed.name(),
                        needed.name()
                    )));
                }
                Effect::AccountOnly => {
                    tracing::info!(key, value, "{key} shapes new accounts only; the account of this volume is given");
                }
                _ => {}
            }
        }
        self.cloud()?;
        self.flag("createcontainer")?;
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
        self.get("storageaccount").or_else(|| self.get("storageaccountname"))
    }

    /// The container, with placeholders replaced.
    ///
    /// # Errors
    /// `Invalid` when a placeholder stands for something that is not known here.
    pub fn container(&self) -> Result<Option<String>> {
        let Some(written) = self.get("containername") else { return Ok(None) };
        let mut name = written.to_owned();
        for (placeholder, key) in PLACEHOLDERS {
            if !name.contains(placeholder) {
                continue;
            }
            let value = self.get(key).ok_or_else(|| {
                Error::invalid(format!(
                    "containerName {written:?} needs {key}, which was not passed: run external-provisioner with \
                     --extra-create-metadata=true"
                ))
            })?;
            name = name.replace(placeholder, value);
        }
        Ok(Some(name))
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
                client_id: any(&[
                    "azurestorageidentityclientid",
                    "azurestoragespnclientid",
                    "clientid",
                    "azure.workload.identity/client-id",
                ]),
                object_id: own("azurestorageidentityobjectid"),
                resource_id: own("azurestorageidentityresourceid"),
            },
            tenant_id: any(&["azurestoragespntenantid", "tenantid", "azure.workload.identity/tenant-id"]),
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
        match self.get(key).map(str::to_lowercase).as_deref() {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(Error::invalid(format!("{key} is {other:?}: expected true or false"))),
        }
    }

    /// Whether each pod signs in with its own identity: mountWithWorkloadIdentityToken says so, as does a clientID without
    /// AzureStorageAuthType. Workload identity of an inline volume can be no other than its pod's.
    ///
    /// # Errors
    /// `Invalid` for values that cannot be.
    pub fn is_for_pod(&self) -> Result<bool> {
        let named = ["clientid", "azure.workload.identity/client-id"].iter().any(|key| self.get(key).is_some());
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
        self.get("csi.storage.k8s.io/ephemeral") == Some("true")
    }

    /// All keys and values, for the attributes of a provisioned volume.
    #[must_use]
    pub fn values(&self) -> &BTreeMap<String, String> {
        &self.values
    }
}

fn known(key: &str) -> Option<(&'static str, Place, Effect)> {
    let key = key.to_lowercase();
    KEYS.iter().find(|(name, _, _)| *name == key).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn class(entries: &[(&str, &str)]) -> Result<Parameters> {
        Parameters::of_storage_class(&map(entries))
    }

    #[test]
    fn the_table_has_each_key_once_in_lower_case() {
        for (index, (key, _, _)) in KEYS.iter().enumerate() {
            assert_eq!(*key, key.to_lowercase());
            assert!(!KEYS[..index].iter().any(|(other, _, _)| other == key), "{key}");
        }
    }

    #[test]
    fn an_unknown_parameter_is_refused_by_its_name() {
        let error = class(&[("skuName", "Premium_LRS"), ("skuNmae", "x")]).unwrap_err();
        assert!(error.message.contains("\"skuNmae\""), "{error}");
        assert!(class(&[("keyVaultURL", "https://x")]).is_err(), "an attribute of volumes only");
    }

    #[test]
    fn unknown_attributes_are_ignored_and_keys_have_no_case() {
        let attributes = map(&[("ContainerName", "logs"), ("storageAccountName", "acme"), ("x/y", "z")]);
        let parameters = Parameters::of_volume(&attributes).unwrap();
        assert_eq!(parameters.container().unwrap().as_deref(), Some("logs"));
        assert_eq!(parameters.account(), Some("acme"));
    }

    #[test]
    fn keys_that_differ_in_case_must_agree() {
        let twice = |other| Parameters::of_volume(&map(&[("containerName", "a"), ("containername", other)]));
        assert!(twice("a").is_ok());
        assert!(twice("b").unwrap_err().message.contains("containername"));
    }

    #[test]
    fn the_aks_storage_class_is_accepted() {
        assert!(class(&[("skuName", "Premium_LRS"), ("protocol", "fuse2"), ("storageAccount", "acme")]).is_ok());
    }

    #[test]
    fn nfs_and_unknown_protocols_are_told_apart() {
        assert!(class(&[("protocol", "nfs")]).unwrap_err().message.contains("NFS"));
        assert!(class(&[("protocol", "smb")]).unwrap_err().message.contains("expected fuse"));
    }

    #[test]
    fn an_identity_belongs_to_its_way_to_sign_in() {
        let msi = ("AzureStorageAuthType", "MSI");
        assert_eq!(class(&[msi]).unwrap().auth_mode().unwrap(), Some(AuthMode::ManagedIdentity));
        let named = class(&[msi, ("AzureStorageIdentityObjectID", "o1"), ("MSIEndpoint", "http://10.0.0.1")]).unwrap();
        assert_eq!(named.identity().id.object_id.as_deref(), Some("o1"));
        assert_eq!(named.identity().msi_endpoint.as_deref(), Some("http://10.0.0.1"));
        let workload = class(&[("AzureStorageAuthType", "workload_identity"), ("clientID", "c1"), ("tenantID", "t1")]);
        assert_eq!(workload.unwrap().identity().tenant_id.as_deref(), Some("t1"));
        let error = class(&[msi, ("clientID", "c9d2281e")]).unwrap_err();
        assert!(error.message.contains("clientid") && error.message.contains("workload_identity"), "{error}");
        assert!(class(&[("AzureStorageAuthType", "azcli")]).unwrap_err().message.contains("node"));
    }

    #[test]
    fn who_names_a_client_or_asks_for_the_pods_token_gets_the_pods_identity() {
        let mounts = ("mountWithWorkloadIdentityToken", "true");
        let (mode, client) = (("AzureStorageAuthType", "workload_identity"), ("clientID", "c1"));
        let inline = ("csi.storage.k8s.io/ephemeral", "true");
        let annotated = ("azure.workload.identity/client-id", "c1");
        for (attributes, wanted) in [
            (&[mounts][..], true),
            (&[client], true),
            (&[annotated], true),
            (&[mounts, mode, client], true),
            // The driver's own token; an inline volume never gets that.
            (&[mode, client], false),
            (&[mode, client, inline], true),
            (&[("mountWithWorkloadIdentityToken", "false")], false),
        ] {
            assert_eq!(
                Parameters::of_volume(&map(attributes)).unwrap().is_for_pod().unwrap(),
                wanted,
                "{attributes:?}"
            );
        }
        let msi = ("AzureStorageAuthType", "msi");
        assert!(class(&[mounts, msi]).unwrap_err().message.contains("remove one"));
        assert!(class(&[("mountWithWorkloadIdentityToken", "perhaps")]).is_err());
    }

    #[test]
    fn placeholders_of_the_container_name_are_replaced() {
        let claim = ("csi.storage.k8s.io/pvc/name", "data");
        let name = ("containerName", "x-${pvc.metadata.name}");
        assert_eq!(class(&[name, claim]).unwrap().container().unwrap().as_deref(), Some("x-data"));
        let error = class(&[name]).unwrap().container().unwrap_err();
        assert!(error.message.contains("extra-create-metadata"), "{error}");
    }

    #[test]
    fn flags_are_true_or_false() {
        assert!(class(&[("createContainer", "TRUE")]).unwrap().flag("createcontainer").unwrap());
        assert!(class(&[("createContainer", "maybe")]).is_err());
    }
}
