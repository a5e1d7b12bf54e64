//! The clouds as their host names tell them: whose authority, whose storage, whose Resource Manager, whose vault. One
//! table; must not know what is served there. Sources: the endpoint lists of the documentation of each cloud, and the
//! metadata that instance discovery answers.

use serde::Deserialize;

/// One of the clouds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cloud {
    /// Azure.
    #[default]
    Public,
    /// Azure US Government.
    UsGovernment,
    /// Azure operated by 21Vianet in China.
    China,
    /// Azure Germany, closed in 2021; its names live on in configurations.
    Germany,
}

/// Names of one cloud. Of several the first is the one in use.
pub(crate) struct Names {
    pub(crate) cloud: Cloud,
    /// Hosts of its authority.
    pub(crate) authorities: &'static [&'static str],
    /// What follows `blob.` and `dfs.`.
    pub(crate) storage: &'static str,
    /// Hosts of Azure Resource Manager.
    pub(crate) arm: &'static [&'static str],
    /// Audiences of Azure Resource Manager beside its hosts.
    pub(crate) management: &'static str,
    /// What follows the name of a vault.
    pub(crate) vault: &'static str,
    /// Who the tokens say they are from, in front of the tenant.
    pub(crate) token_issuer: &'static str,
}

const TABLE: [Names; 4] = [
    Names {
        cloud: Cloud::Public,
        authorities: &["login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"],
        storage: "core.windows.net",
        arm: &["management.azure.com"],
        management: "management.core.windows.net",
        vault: "vault.azure.net",
        token_issuer: "https://sts.windows.net",
    },
    Names {
        cloud: Cloud::UsGovernment,
        authorities: &["login.microsoftonline.us", "login.usgovcloudapi.net"],
        storage: "core.usgovcloudapi.net",
        arm: &["management.usgovcloudapi.net"],
        management: "management.core.usgovcloudapi.net",
        vault: "vault.usgovcloudapi.net",
        token_issuer: "https://sts.windows.net",
    },
    Names {
        cloud: Cloud::China,
        authorities: &["login.partner.microsoftonline.cn", "login.chinacloudapi.cn"],
        storage: "core.chinacloudapi.cn",
        arm: &["management.chinacloudapi.cn"],
        management: "management.core.chinacloudapi.cn",
        vault: "vault.azure.cn",
        token_issuer: "https://sts.chinacloudapi.cn",
    },
    Names {
        cloud: Cloud::Germany,
        authorities: &["login.microsoftonline.de"],
        storage: "core.cloudapi.de",
        arm: &["management.microsoftazure.de"],
        management: "management.core.cloudapi.de",
        vault: "vault.microsoftazure.de",
        token_issuer: "https://sts.microsoftonline.de",
    },
];

impl Cloud {
    /// Its names.
    pub(crate) fn names(self) -> &'static Names {
        match self {
            Self::Public => &TABLE[0],
            Self::UsGovernment => &TABLE[1],
            Self::China => &TABLE[2],
            Self::Germany => &TABLE[3],
        }
    }

    /// Host of its authority, such as `login.microsoftonline.com`.
    #[must_use]
    pub fn authority_host(self) -> &'static str {
        self.names().authorities[0]
    }

    /// Host of a storage account's Blob endpoint.
    #[must_use]
    pub fn blob_host(self, account: &str) -> String {
        format!("{account}.blob.{}", self.names().storage)
    }

    /// Host of its Resource Manager.
    #[must_use]
    pub fn arm_host(self) -> &'static str {
        self.names().arm[0]
    }
}

/// What answers under a host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IdentityService {
    /// Entra ID: tokens and discovery.
    Authority,
    /// The emulator's accounts, through their Blob or Data Lake endpoint.
    Storage,
    /// Azure Resource Manager.
    Arm,
    /// Azure Key Vault.
    KeyVault,
    /// The endpoints of managed identities: IMDS, App Service, Azure Arc.
    ManagedIdentity,
}

/// Service and cloud of a host, if it is one of Azure's.
pub(crate) fn service_of(host: &str) -> Option<(IdentityService, Cloud)> {
    let host = host.to_ascii_lowercase();
    TABLE.iter().find_map(|names| {
        let service = if names.authorities.contains(&host.as_str()) {
            IdentityService::Authority
        } else if names.arm.contains(&host.as_str()) {
            IdentityService::Arm
        } else if host.strip_suffix(names.vault).is_some_and(|vault| vault.ends_with('.')) {
            IdentityService::KeyVault
        } else if is_storage(&host, names.storage) {
            IdentityService::Storage
        } else {
            return None;
        };
        Some((service, names.cloud))
    })
}

/// `ACCOUNT.blob.SUFFIX`, `ACCOUNT-secondary.dfs.SUFFIX`, `ACCOUNT.z1.blob.SUFFIX`, `ACCOUNT.privatelink.blob.SUFFIX`.
fn is_storage(host: &str, suffix: &str) -> bool {
    let labels: Vec<&str> = host.strip_suffix(suffix).unwrap_or_default().split('.').collect();
    matches!(labels.as_slice(), [account, .., "blob" | "dfs", ""] if !account.is_empty())
}

/// The account that a storage host names.
pub(crate) fn account_of(host: &str) -> &str {
    let first = host.split('.').next().unwrap_or_default();
    first.strip_suffix("-secondary").unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_tell_service_and_cloud() {
        for (host, expected) in [
            ("login.microsoftonline.com", Some((IdentityService::Authority, Cloud::Public))),
            ("login.partner.microsoftonline.cn", Some((IdentityService::Authority, Cloud::China))),
            ("acct.blob.core.usgovcloudapi.net", Some((IdentityService::Storage, Cloud::UsGovernment))),
            ("acct-secondary.dfs.core.windows.net", Some((IdentityService::Storage, Cloud::Public))),
            ("acct.privatelink.blob.core.cloudapi.de", Some((IdentityService::Storage, Cloud::Germany))),
            ("management.chinacloudapi.cn", Some((IdentityService::Arm, Cloud::China))),
            ("v.vault.azure.cn", Some((IdentityService::KeyVault, Cloud::China))),
            ("acct.file.core.windows.net", None),
            ("core.windows.net", None),
            ("example.com", None),
        ] {
            assert_eq!(service_of(host), expected, "{host}");
        }
        assert_eq!(account_of("acct-secondary.dfs.core.windows.net"), "acct");
    }
}
