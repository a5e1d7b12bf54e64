//! The clouds: one table of their names and of where their services are. Custom clouds (Azure Stack, air-gapped) are not
//! in it: they give suffix and authority themselves. Knows nothing of containers or of how tokens are made.
//!
//! Which cloud is meant, the first that says it ([`CloudHints::cloud`]):
//! 1. its name (`cloud`);
//! 2. the endpoint's own suffix, or `storageEndpointSuffix`, where the table has it;
//! 3. the authority: `AzureStorageAADEndpoint`, then AZURE_AUTHORITY_HOST, where the table has it;
//! 4. AZURE_ENVIRONMENT;
//! 5. the public cloud.
//!
//! The authority that tokens come from is the one of 3 where it is said, whichever cloud is found: that is how a custom
//! cloud signs in.

use std::fmt;

use crate::finding::{Diagnosis, Finding};

/// An Azure cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cloud {
    /// The public cloud.
    #[default]
    Public,
    /// US Government.
    UsGovernment,
    /// China, operated by 21Vianet.
    China,
    /// Germany (the former sovereign cloud; its names are still met in configurations).
    Germany,
}

/// A cloud name that is not in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownCloud(pub String);

impl UnknownCloud {
    /// Which finding it is, filled in.
    #[must_use]
    pub fn diagnosis(&self) -> Diagnosis {
        Finding::CloudUnknown.with(&[("text", &self.0)])
    }
}

impl fmt::Display for UnknownCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.diagnosis(), f)
    }
}

impl std::error::Error for UnknownCloud {}

/// Resource that tokens for the Blob service are made for. The same in every cloud of the table (REST reference,
/// "Authorize with Microsoft Entra ID"); custom clouds may have another.
pub const STORAGE_AUDIENCE: &str = "https://storage.azure.com";

/// One cloud: its names, and where its services are.
struct Row {
    cloud: Cloud,
    /// go-autorest's `AZURE...CLOUD` and the CLI's, in lower case.
    names: &'static [&'static str],
    storage_suffix: &'static str,
    /// Hosts of Microsoft Entra ID. The first is used; the others are its former names.
    authorities: &'static [&'static str],
    resource_manager: &'static str,
    key_vault_suffix: &'static str,
}

const CLOUDS: [Row; 4] = [
    Row {
        cloud: Cloud::Public,
        names: &["azurepubliccloud", "azurecloud", "public", ""],
        storage_suffix: "core.windows.net",
        authorities: &["login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"],
        resource_manager: "management.azure.com",
        key_vault_suffix: "vault.azure.net",
    },
    Row {
        cloud: Cloud::UsGovernment,
        names: &["azureusgovernmentcloud", "azureusgovernment", "usgov"],
        storage_suffix: "core.usgovcloudapi.net",
        authorities: &["login.microsoftonline.us", "login.usgovcloudapi.net", "login-us.microsoftonline.com"],
        resource_manager: "management.usgovcloudapi.net",
        key_vault_suffix: "vault.usgovcloudapi.net",
    },
    Row {
        cloud: Cloud::China,
        names: &["azurechinacloud", "china"],
        storage_suffix: "core.chinacloudapi.cn",
        authorities: &["login.partner.microsoftonline.cn", "login.chinacloudapi.cn"],
        resource_manager: "management.chinacloudapi.cn",
        key_vault_suffix: "vault.azure.cn",
    },
    Row {
        cloud: Cloud::Germany,
        names: &["azuregermancloud", "germany"],
        storage_suffix: "core.cloudapi.de",
        authorities: &["login.microsoftonline.de"],
        resource_manager: "management.microsoftazure.de",
        key_vault_suffix: "vault.microsoftazure.de",
    },
];

impl Cloud {
    fn row(self) -> &'static Row {
        // Every cloud has its row; the first stands in for the compiler.
        CLOUDS.iter().find(|row| row.cloud == self).unwrap_or(&CLOUDS[0])
    }

    /// Finds a cloud by one of its names; case does not matter and the empty name is the public cloud.
    ///
    /// # Errors
    /// [`UnknownCloud`] with the names that are known.
    pub fn from_name(name: &str) -> Result<Self, UnknownCloud> {
        let wanted = name.trim().to_ascii_lowercase();
        CLOUDS
            .iter()
            .find(|row| row.names.contains(&wanted.as_str()))
            .map(|row| row.cloud)
            .ok_or_else(|| UnknownCloud(name.to_owned()))
    }

    /// The cloud of a storage host (`acme.blob.core.windows.net`, with `privatelink.` or `-secondary` or not) or of a
    /// storage suffix; `None` for custom domains and custom clouds.
    #[must_use]
    pub fn of_storage_host(host: &str) -> Option<Self> {
        let host = host.trim().trim_end_matches('.').to_ascii_lowercase();
        let host = host.split(':').next().unwrap_or_default();
        let ends = |suffix: &str| host.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        // Accounts with DNS zones exist in the public cloud alone.
        let zoned = ends("storage.azure.net").then_some(Self::Public);
        CLOUDS.iter().find(|row| ends(row.storage_suffix)).map(|row| row.cloud).or(zoned)
    }

    /// The vault's name and its cloud, of `VAULT.vault.azure.net`; `None` for other hosts.
    #[must_use]
    pub fn of_vault_host(host: &str) -> Option<(&str, Self)> {
        let host = host.trim_end_matches('.');
        CLOUDS.iter().find_map(|row| {
            let vault = host.strip_suffix(row.key_vault_suffix)?.strip_suffix('.')?;
            (!vault.is_empty() && !vault.contains('.')).then_some((vault, row.cloud))
        })
    }

    /// The cloud whose Entra ID `authority` is, with or without scheme and slash; `None` for others.
    #[must_use]
    pub fn of_authority(authority: &str) -> Option<Self> {
        let host = authority.trim().to_ascii_lowercase();
        let host = host.trim_start_matches("https://").split('/').next().unwrap_or_default();
        CLOUDS.iter().find(|row| row.authorities.contains(&host)).map(|row| row.cloud)
    }

    /// The DNS suffix of its storage services, `core.windows.net`.
    #[must_use]
    pub fn storage_suffix(self) -> &'static str {
        self.row().storage_suffix
    }

    /// Where its tokens come from, `https://login.microsoftonline.com`.
    #[must_use]
    pub fn authority(self) -> String {
        format!("https://{}", self.row().authorities[0])
    }

    /// Its resource manager, which is also the resource that tokens for it are made for: `https://management.azure.com`.
    #[must_use]
    pub fn resource_manager(self) -> String {
        format!("https://{}", self.row().resource_manager)
    }

    /// The DNS suffix of its key vaults, `vault.azure.net`: `https://` and this is the resource of their tokens.
    #[must_use]
    pub fn key_vault_suffix(self) -> &'static str {
        self.row().key_vault_suffix
    }
}

/// What is known about the cloud of a volume. `None` and the empty text: not said.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloudHints<'a> {
    /// Its name.
    pub name: Option<&'a str>,
    /// Host or DNS suffix of its storage.
    pub storage_host: Option<&'a str>,
    /// Where tokens come from.
    pub authority: Option<&'a str>,
    /// AZURE_ENVIRONMENT.
    pub environment: Option<&'a str>,
}

impl CloudHints<'_> {
    /// The cloud that is meant, in the order of the module's doc.
    ///
    /// # Errors
    /// [`UnknownCloud`] for a name, or an AZURE_ENVIRONMENT that is asked, which is not in the table.
    pub fn cloud(&self) -> Result<Cloud, UnknownCloud> {
        let said = |text: Option<&str>| text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        if let Some(name) = said(self.name) {
            return Cloud::from_name(&name);
        }
        let by_host = self.storage_host.and_then(Cloud::of_storage_host);
        if let Some(cloud) = by_host.or_else(|| self.authority.and_then(Cloud::of_authority)) {
            return Ok(cloud);
        }
        said(self.environment).map_or(Ok(Cloud::Public), |name| Cloud::from_name(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cloud_is_found_by_each_of_its_names_and_has_its_own_services() {
        let mut seen = Vec::new();
        for row in &CLOUDS {
            for name in row.names {
                assert_eq!(Cloud::from_name(&name.to_ascii_uppercase()).unwrap(), row.cloud);
            }
            for authority in row.authorities {
                assert_eq!(Cloud::of_authority(authority), Some(row.cloud));
                assert_eq!(Cloud::of_authority(&format!("https://{authority}/")), Some(row.cloud));
            }
            for own in [
                row.cloud.storage_suffix().to_owned(),
                row.cloud.authority(),
                row.cloud.resource_manager(),
                row.cloud.key_vault_suffix().to_owned(),
            ] {
                assert!(!seen.contains(&own), "{own} belongs to two clouds");
                seen.push(own);
            }
        }
    }

    #[test]
    fn an_unknown_cloud_is_named_in_the_error() {
        assert!(Cloud::from_name("AzureMars").unwrap_err().to_string().contains("AzureMars"));
    }

    #[test]
    fn the_cloud_of_an_endpoint_is_known_by_its_suffix_in_every_form() {
        for (host, cloud) in [
            ("acme.blob.core.windows.net", Some(Cloud::Public)),
            ("acme.dfs.core.usgovcloudapi.net:443", Some(Cloud::UsGovernment)),
            ("acme-secondary.blob.core.chinacloudapi.cn", Some(Cloud::China)),
            ("acme.privatelink.blob.core.cloudapi.de", Some(Cloud::Germany)),
            ("Acme.z22.blob.storage.azure.net", Some(Cloud::Public)),
            ("core.chinacloudapi.cn", Some(Cloud::China)),
            (".blob.core.windows.net.", Some(Cloud::Public)),
            ("acme.blob.notcore.windows.net", None),
            ("evilcore.windows.net", None),
            ("data.example.com", None),
            ("127.0.0.1:10000", None),
        ] {
            assert_eq!(Cloud::of_storage_host(host), cloud, "{host}");
        }
    }

    #[test]
    fn the_name_goes_before_the_endpoint_the_endpoint_before_the_authority_and_that_before_the_environment() {
        let all = CloudHints {
            name: Some("AzureGermanCloud"),
            storage_host: Some("acme.blob.core.chinacloudapi.cn"),
            authority: Some("https://login.microsoftonline.us/"),
            environment: Some("AzurePublicCloud"),
        };
        assert_eq!(all.cloud(), Ok(Cloud::Germany));
        let all = CloudHints { name: Some(" "), ..all };
        assert_eq!(all.cloud(), Ok(Cloud::China));
        let all = CloudHints { storage_host: Some("data.example.com"), ..all };
        assert_eq!(all.cloud(), Ok(Cloud::UsGovernment));
        let all = CloudHints { authority: Some("https://adfs.local/adfs"), ..all };
        assert_eq!(all.cloud(), Ok(Cloud::Public));
        let all = CloudHints { environment: Some("AzureChinaCloud"), ..all };
        assert_eq!(all.cloud(), Ok(Cloud::China));
        assert!(CloudHints { environment: Some("AzureMars"), ..all }.cloud().is_err());
        assert_eq!(CloudHints::default().cloud(), Ok(Cloud::Public));
    }
}
