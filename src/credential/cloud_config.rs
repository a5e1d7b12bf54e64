//! The cluster's cloud config: `azure.json` of a node, or `cloud-config` of the Secret azure-cloud-provider, which is the same
//! text. Says which identity the cluster itself has, and where its resources are. Read anew for each use: clusters rotate it.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

use super::{AuthMode, Cloud, IdentityId, IdentityOptions, IdentitySettings};
use crate::finding::{Diagnosis, Finding};

/// Client "id" of clusters whose nodes have a managed identity.
const MSI: &str = "msi";

/// The keys of the file that we know, in its own spelling; all others are let be.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Keys {
    #[serde(deserialize_with = "text")]
    cloud: String,
    #[serde(deserialize_with = "text")]
    tenant_id: String,
    #[serde(deserialize_with = "text")]
    subscription_id: String,
    #[serde(deserialize_with = "text")]
    resource_group: String,
    #[serde(deserialize_with = "text")]
    location: String,
    #[serde(deserialize_with = "text")]
    aad_client_id: String,
    #[serde(deserialize_with = "secret")]
    aad_client_secret: Option<SecretString>,
    #[serde(deserialize_with = "text")]
    aad_client_cert_path: String,
    use_managed_identity_extension: bool,
    #[serde(deserialize_with = "text", rename = "userAssignedIdentityID")]
    user_assigned_identity: String,
    use_federated_workload_identity_extension: bool,
    #[serde(deserialize_with = "text")]
    aad_federated_token_file: String,
}

/// Text, where some tools write null.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default().trim().to_owned())
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty());
    Ok(text.map(SecretString::from))
}

/// What the cluster says about itself.
pub struct CloudConfig {
    keys: Keys,
    file: PathBuf,
}

impl fmt::Debug for CloudConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudConfig").field("file", &self.file).finish_non_exhaustive()
    }
}

impl CloudConfig {
    /// Reads the first of `files` that is there and holds anything.
    ///
    /// # Errors
    /// The finding, for a file that cannot be read or is no cloud config.
    pub fn find(files: &[PathBuf]) -> Result<Option<Self>, Diagnosis> {
        for file in files {
            match fs::read_to_string(file) {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => return Self::parse(file, &text).map(Some),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(unfit(file, &error.to_string())),
            }
        }
        Ok(None)
    }

    fn parse(file: &Path, text: &str) -> Result<Self, Diagnosis> {
        // What the parser says of a wrong value would show it: only where it stands is told.
        let keys = serde_json::from_str(text).map_err(|error| {
            unfit(file, &format!("it is no JSON of the right form, line {} column {}", error.line(), error.column()))
        })?;
        Ok(Self { keys, file: file.to_owned() })
    }

    /// The cloud, where the file says one that is known.
    #[must_use]
    pub fn cloud(&self) -> Option<Cloud> {
        said(&self.keys.cloud).and_then(|name| Cloud::from_name(&name).ok())
    }

    /// The cluster's subscription.
    #[must_use]
    pub fn subscription(&self) -> Option<String> {
        said(&self.keys.subscription_id)
    }

    /// The cluster's resource group.
    #[must_use]
    pub fn resource_group(&self) -> Option<String> {
        said(&self.keys.resource_group)
    }

    /// The cluster's region.
    #[must_use]
    pub fn location(&self) -> Option<String> {
        said(&self.keys.location)
    }

    /// The cluster's identity, and the way that it signs in; `None` where the file names none. `variable` answers for the
    /// environment, which says where identity services are.
    #[must_use]
    pub fn identity(&self, variable: impl Fn(&str) -> Option<String>) -> Option<(IdentitySettings, AuthMode)> {
        let keys = &self.keys;
        let client_id = said(&keys.aad_client_id).filter(|id| !id.eq_ignore_ascii_case(MSI));
        let tenant_id = said(&keys.tenant_id);
        let settings = |options| IdentitySettings::new(&variable, options);
        if keys.use_federated_workload_identity_extension {
            let token_file = said(&keys.aad_federated_token_file).map(PathBuf::from);
            let id = IdentityId { client_id, ..IdentityId::default() };
            let options = IdentityOptions { id, tenant_id, token_file, ..IdentityOptions::default() };
            return Some((settings(options), AuthMode::WorkloadIdentity));
        }
        if keys.use_managed_identity_extension {
            // A client id, or a resource id.
            let named = said(&keys.user_assigned_identity);
            let (resource_id, client_id) = match named {
                Some(id) if id.starts_with('/') => (Some(id), None),
                other => (None, other),
            };
            let id = IdentityId { client_id, resource_id, object_id: None };
            return Some((settings(IdentityOptions { id, ..IdentityOptions::default() }), AuthMode::ManagedIdentity));
        }
        let certificate_file = said(&keys.aad_client_cert_path).map(PathBuf::from);
        if keys.aad_client_secret.is_none() && certificate_file.is_none() {
            return None;
        }
        let id = IdentityId { client_id, ..IdentityId::default() };
        let options = IdentityOptions { id, tenant_id, certificate_file, ..IdentityOptions::default() };
        let settings = settings(options).with_secrets(keys.aad_client_secret.clone(), None);
        Some((settings, AuthMode::ServicePrincipal))
    }
}

fn said(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

fn unfit(file: &Path, reason: &str) -> Diagnosis {
    Finding::CloudConfigUnfit.with(&[("file", &file.display().to_string()), ("reason", reason)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(text: &str) -> Option<(String, AuthMode)> {
        let config = CloudConfig::parse(Path::new("azure.json"), text).unwrap();
        let (settings, mode) = config.identity(|_| None)?;
        Some((format!("{settings:?}"), mode))
    }

    #[test]
    fn the_identity_of_a_cluster_is_read_in_each_of_its_forms() {
        let managed = r#"{"aadClientId": "msi", "aadClientSecret": "msi", "useManagedIdentityExtension": true, "userAssignedIdentityID": "one"}"#;
        let (settings, mode) = identity(managed).unwrap();
        assert!(settings.contains("client_id: Some(\"one\")"), "{settings}");
        assert_eq!(mode, AuthMode::ManagedIdentity);
        let principal =
            r#"{"tenantId": "t", "aadClientId": "c", "aadClientSecret": "hunter2", "vmType": "vmss", "x": {}}"#;
        let (settings, mode) = identity(principal).unwrap();
        assert_eq!(mode, AuthMode::ServicePrincipal);
        assert!(settings.contains("Some(\"c\")") && !settings.contains("hunter2"), "{settings}");
        let federated = r#"{"tenantId": "t", "aadClientId": "c", "useFederatedWorkloadIdentityExtension": true, "aadFederatedTokenFile": "/token"}"#;
        assert_eq!(identity(federated).unwrap().1, AuthMode::WorkloadIdentity);
        assert!(identity(r#"{"cloud": "AzureChinaCloud", "tenantId": null}"#).is_none());
    }

    #[test]
    fn the_first_file_that_is_there_counts_and_a_broken_one_is_named_without_its_text() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        std::fs::write(file("empty"), "\n").unwrap();
        std::fs::write(file("second"), r#"{"cloud": "AzureChinaCloud", "subscriptionId": "s", "resourceGroup": "g"}"#)
            .unwrap();
        std::fs::write(file("broken"), r#"{"aadClientSecret": "hunter2", "tenantId": {"#).unwrap();
        let found =
            CloudConfig::find(&[file("missing"), file("empty"), file("second"), file("broken")]).unwrap().unwrap();
        assert_eq!(found.cloud(), Some(Cloud::China));
        assert_eq!((found.subscription().as_deref(), found.resource_group().as_deref()), (Some("s"), Some("g")));
        assert!(CloudConfig::find(&[file("missing")]).unwrap().is_none());
        let error = CloudConfig::find(&[file("broken")]).unwrap_err().to_string();
        assert!(error.contains("broken") && !error.contains("hunter2"), "{error}");
    }
}
