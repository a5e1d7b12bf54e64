//! What is to be mounted and as whom: the URL, the flags and the environment put together. Sends no request.

use crate::{
    blob::{Location, LocationHints},
    credential::{self, CloudHints, Credential, IdentitySettings, SecretFiles, Trust, account_settings_from},
    finding::{Diagnosis, Finding},
    volume::options::MountOptions,
};

/// A container and the credential for it.
pub(super) struct Place {
    pub(super) location: Location,
    pub(super) credential: Credential,
    /// The files that the credential is in, where it is in files.
    pub(super) files: Option<SecretFiles>,
}

/// What the command line says, beside mount options.
#[derive(Clone, Copy, Default)]
pub(super) struct Said<'a> {
    /// The container's URL, or its name.
    pub(super) url: Option<&'a str>,
    /// The storage account.
    pub(super) account: Option<&'a str>,
}

impl Place {
    /// Puts `said` (or what the options or the environment name instead) and the environment together.
    ///
    /// # Errors
    /// The finding.
    pub(super) fn find(said: Said<'_>, options: &MountOptions, trust: &Trust) -> Result<Self, Diagnosis> {
        Self::find_in(|name| std::env::var(name).ok(), said, options, trust)
    }

    fn find_in(
        variable: impl Fn(&str) -> Option<String>,
        Said { url, account }: Said<'_>,
        options: &MountOptions,
        trust: &Trust,
    ) -> Result<Self, Diagnosis> {
        let failed = |error: &credential::Error| error.diagnosis();
        let settings = match account_settings_from(&variable, account, options.auth) {
            // The key is there, its account may be in the URL.
            Err(error @ credential::Error::KeyWithoutAccount { .. }) => {
                let Some(url) = url.filter(|url| url.contains("://")) else { return Err(failed(&error)) };
                let (location, _) =
                    Location::parse(url, &LocationHints::default()).map_err(|error| error.diagnosis())?;
                account_settings_from(&variable, Some(location.account()), options.auth)
            }
            settings => settings,
        };
        let mut settings = settings.map_err(|error| failed(&error))?;
        let text = url.or(options.container.as_deref()).or(settings.container.as_deref());
        let text = text.ok_or_else(|| Finding::ContainerUnnamed.with(&[]))?;
        let identity = IdentitySettings::new(&variable, options.identity.clone());
        let environment = variable("AZURE_ENVIRONMENT");
        let cloud_of = |host: Option<&str>| match options.cloud {
            Some(cloud) => Ok(cloud),
            None => {
                let authority = identity.authority();
                let hints =
                    CloudHints { name: None, storage_host: host, authority, environment: environment.as_deref() };
                hints.cloud().map_err(|error| error.diagnosis())
            }
        };
        let cloud = cloud_of(settings.endpoint_suffix.as_deref())?;
        let hints = LocationHints { cloud, ..LocationHints::from(&settings) };
        let (location, sas) = Location::parse(text, &hints).map_err(|error| error.diagnosis())?;
        if sas.is_some() {
            tracing::warn!("other users can see a SAS on the command line: AZURE_STORAGE_SAS_TOKEN keeps it private");
        }
        // The SAS of the URL is meant for this container; after it what the environment has; then an identity.
        let from_url = sas.is_some();
        let asked = settings.mode.filter(|mode| mode.is_identity());
        let found = sas.map(Credential::Sas).or(settings.credential.take()).filter(|_| asked.is_none());
        let mode = asked.or_else(|| identity.found()).filter(|_| found.is_none());
        let token = match mode {
            Some(mode) => {
                identity.credential(mode, cloud_of(Some(location.host()))?, trust).map_err(|error| failed(&error))?
            }
            None => None,
        };
        let in_environment = found.is_some() && !from_url;
        let files = match in_environment {
            true => SecretFiles::find(&variable, location.account(), options.auth),
            false => None,
        };
        Ok(Self { credential: found.or(token).unwrap_or(Credential::Anonymous), location, files })
    }

    /// One line that says who signs in, and why.
    pub(super) fn announce(&self) {
        match &self.credential {
            Credential::Token(token) => tracing::info!("signing in with {}", token.describe()),
            Credential::Sas(sas) => tracing::info!("signing with a SAS ({})", sas.describe()),
            other => tracing::info!("signing with {}", other.describe()),
        }
    }

    /// Names the identity for the cache, without its secret: one process mounts once, so the kind tells all.
    pub(super) fn scope(&self) -> String {
        match &self.credential {
            Credential::Token(token) => token.describe(),
            other => other.describe().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (&str, &str) = ("AZURE_STORAGE_KEY", "c2VjcmV0");

    fn find(variables: &[(&str, &str)], url: Option<&str>, account: Option<&str>) -> Result<Place, String> {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        find_with(&MountOptions::default(), variable, Said { url, account })
    }

    fn find_with(
        options: &MountOptions,
        variable: impl Fn(&str) -> Option<String>,
        said: Said<'_>,
    ) -> Result<Place, String> {
        Place::find_in(variable, said, options, &Trust::default()).map_err(|known| known.to_string())
    }

    const WORKLOAD: [(&str, &str); 3] =
        [("AZURE_CLIENT_ID", "c1"), ("AZURE_TENANT_ID", "t1"), ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token")];
    const URL: Option<&str> = Some("https://acme.blob.core.windows.net/logs");

    #[test]
    fn an_identity_that_is_set_is_found_after_key_and_sas() {
        let place = find(&WORKLOAD, URL, None).unwrap();
        assert!(
            matches!(&place.credential, Credential::Token(token) if token.describe().starts_with("workload identity c1"))
        );
        let with_key: Vec<_> = WORKLOAD.into_iter().chain([KEY]).collect();
        assert!(matches!(find(&with_key, URL, None).unwrap().credential, Credential::SharedKey(_)));
        assert!(matches!(find(&[], URL, None).unwrap().credential, Credential::Anonymous));
    }

    #[test]
    fn the_option_auth_picks_and_names_what_is_missing() {
        let (options, _) = MountOptions::parse(["auth=msi,client-id=c9"]).unwrap();
        let variables: Vec<_> = WORKLOAD.into_iter().chain([KEY]).collect();
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let place = find_with(&options, variable, Said { url: URL, account: None }).unwrap();
        assert_eq!(place.scope(), "managed identity (client id c9)");
        let (options, _) = MountOptions::parse(["auth=spn"]).unwrap();
        let error = find_with(&options, |_| None, Said { url: URL, account: None }).err().unwrap();
        assert!(error.contains("AZURE_STORAGE_SPN_CLIENT_ID"), "{error}");
        assert!(MountOptions::parse(["auth=kerberos"]).unwrap_err().to_string().contains("workload_identity"));
        assert!(MountOptions::parse(["clientsecret=x"]).unwrap_err().to_string().contains("everybody"));
    }

    #[test]
    fn a_bare_container_is_in_the_cloud_that_is_named_or_signed_in_to() {
        let host = |options: &str, variables: &[(&str, &str)]| {
            let (options, _) = MountOptions::parse([options]).unwrap();
            let variable =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            find_with(&options, variable, Said { url: Some("logs"), account: Some("acme") })
                .unwrap()
                .location
                .host()
                .to_owned()
        };
        assert_eq!(host("cloud=AzureChinaCloud", &[]), "acme.blob.core.chinacloudapi.cn");
        let authority = ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/");
        assert_eq!(host("", &[authority]), "acme.blob.core.usgovcloudapi.net");
        assert_eq!(host("", &[("AZURE_ENVIRONMENT", "AzureGermanCloud")]), "acme.blob.core.cloudapi.de");
        assert_eq!(host("cloud=AzurePublicCloud", &[authority]), "acme.blob.core.windows.net");
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
