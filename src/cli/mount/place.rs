//! What is to be mounted and as whom: the URL, the flags and the environment put together. Sends no request.

use crate::{
    blob::{Location, LocationHints},
    cli::Failure,
    credential::{self, AccountSettings, Credential, account_settings_from},
    volume::options::MountOptions,
};

/// A container and the credential for it.
pub(super) struct Place {
    pub(super) location: Location,
    pub(super) credential: Credential,
}

impl Place {
    /// Puts `url` (or what the options or the environment name instead), `account` and the environment together.
    pub(super) fn find(url: Option<&str>, account: Option<&str>, options: &MountOptions) -> Result<Self, Failure> {
        Self::find_in(|name| std::env::var(name).ok(), url, account, options)
    }

    fn find_in(
        variable: impl Fn(&str) -> Option<String>,
        url: Option<&str>,
        account: Option<&str>,
        options: &MountOptions,
    ) -> Result<Self, Failure> {
        let settings = match account_settings_from(&variable, account) {
            // The key is there, its account may be in the URL.
            Err(error @ credential::Error::KeyWithoutAccount { .. }) => {
                let Some(url) = url.filter(|url| url.contains("://")) else { return Err(Failure::from_chain(&error)) };
                let (location, _) =
                    Location::parse(url, &LocationHints::default()).map_err(|error| Failure::from_chain(&error))?;
                account_settings_from(&variable, Some(location.account()))
            }
            settings => settings,
        };
        let settings = settings.map_err(|error| Failure::from_chain(&error))?;
        let text = url.or(options.container.as_deref()).or(settings.container.as_deref());
        let text = text.ok_or_else(|| {
            Failure::new("no container given: write its URL before the mount point, or set AZURE_STORAGE_CONTAINER")
        })?;
        let (location, sas) =
            Location::parse(text, &LocationHints::from(&settings)).map_err(|error| Failure::from_chain(&error))?;
        if sas.is_some() {
            tracing::warn!("other users can see a SAS on the command line: AZURE_STORAGE_SAS_TOKEN keeps it private");
        }
        Ok(Self { credential: choose(sas.map(Credential::Sas), settings), location })
    }

    /// Names the identity for the cache, without its secret: one process mounts once, so the kind tells all.
    pub(super) fn scope(&self) -> String {
        self.credential.describe().to_owned()
    }
}

/// The SAS of the URL is meant for this container; after it what the environment has; then nobody.
fn choose(of_url: Option<Credential>, settings: AccountSettings) -> Credential {
    of_url.or(settings.credential).unwrap_or(Credential::Anonymous)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (&str, &str) = ("AZURE_STORAGE_KEY", "c2VjcmV0");

    fn find(variables: &[(&str, &str)], url: Option<&str>, account: Option<&str>) -> Result<Place, String> {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Place::find_in(variable, url, account, &MountOptions::default()).map_err(|failure| failure.message)
    }

    #[test]
    fn the_key_belongs_to_the_account_of_the_url() {
        let place = find(&[KEY], Some("https://acme.blob.core.windows.net/logs/2026"), None).unwrap();
        assert!(matches!(&place.credential, Credential::SharedKey(key) if key.account() == "acme"));
        assert_eq!(place.location.prefix(), "2026/");
    }

    #[test]
    fn a_bare_container_takes_the_account_from_flag_or_environment() {
        let place = find(&[KEY], Some("logs"), Some("acme")).unwrap();
        assert_eq!(place.location.to_string(), "https://acme.blob.core.windows.net/logs");
        let variables = [KEY, ("AZURE_STORAGE_ACCOUNT", "acme"), ("AZURE_STORAGE_CONTAINER", "data")];
        assert_eq!(find(&variables, None, None).unwrap().location.container(), "data");
    }

    #[test]
    fn the_sas_of_the_url_goes_before_the_environment() {
        let place = find(&[KEY], Some("https://acme.blob.core.windows.net/logs?sv=1&sig=abc"), None).unwrap();
        assert!(matches!(place.credential, Credential::Sas(_)));
        assert!(!place.location.to_string().contains("abc"));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(find(&[], None, None).err().unwrap().contains("AZURE_STORAGE_CONTAINER"));
        assert!(find(&[KEY], Some("logs"), None).err().unwrap().contains("AZURE_STORAGE_ACCOUNT"));
        assert!(find(&[], Some("logs"), None).err().unwrap().contains("--account"));
        assert!(find(&[], Some("https://acme.blob.core.windows.net/"), None).err().unwrap().contains("container"));
    }
}
