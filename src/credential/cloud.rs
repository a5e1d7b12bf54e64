//! The clouds and their DNS suffixes: one table. Custom clouds (Azure Stack, air-gapped) give their suffix themselves.

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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown cloud \"{0}\": expected AzurePublicCloud, AzureUSGovernment, AzureChinaCloud or AzureGermanCloud, or give storageEndpointSuffix"
)]
pub struct UnknownCloud(pub String);

/// Cloud, storage suffix, and the names it goes by (go-autorest's `AZURE...CLOUD` and the CLI's), in lower case.
const CLOUDS: [(Cloud, &str, &[&str]); 4] = [
    (Cloud::Public, "core.windows.net", &["azurepubliccloud", "azurecloud", "public", ""]),
    (Cloud::UsGovernment, "core.usgovcloudapi.net", &["azureusgovernmentcloud", "azureusgovernment", "usgov"]),
    (Cloud::China, "core.chinacloudapi.cn", &["azurechinacloud", "china"]),
    (Cloud::Germany, "core.cloudapi.de", &["azuregermancloud", "germany"]),
];

impl Cloud {
    /// Finds a cloud by one of its names; case does not matter and the empty name is the public cloud.
    ///
    /// # Errors
    /// [`UnknownCloud`] with the names that are known.
    pub fn from_name(name: &str) -> Result<Self, UnknownCloud> {
        let wanted = name.trim().to_ascii_lowercase();
        CLOUDS
            .iter()
            .find(|(_, _, names)| names.contains(&wanted.as_str()))
            .map(|(cloud, _, _)| *cloud)
            .ok_or_else(|| UnknownCloud(name.to_owned()))
    }

    /// The DNS suffix of its storage services, `core.windows.net`.
    #[must_use]
    pub fn storage_suffix(self) -> &'static str {
        CLOUDS.iter().find(|(cloud, _, _)| *cloud == self).map_or("core.windows.net", |(_, suffix, _)| suffix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cloud_is_found_by_each_of_its_names_and_has_its_own_suffix() {
        let mut suffixes = Vec::new();
        for (cloud, suffix, names) in CLOUDS {
            for name in names {
                assert_eq!(Cloud::from_name(&name.to_ascii_uppercase()).unwrap(), cloud);
            }
            assert_eq!(cloud.storage_suffix(), suffix);
            assert!(!suffixes.contains(&suffix));
            suffixes.push(suffix);
        }
    }

    #[test]
    fn an_unknown_cloud_is_named_in_the_error() {
        assert!(Cloud::from_name("AzureMars").unwrap_err().to_string().contains("AzureMars"));
    }
}
