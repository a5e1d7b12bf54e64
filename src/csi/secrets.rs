//! The secrets of a request, read into account settings. One table of spellings; no value is ever shown.
//!
//! Keys compare without case, `-` and `_`, so that the CSI driver's Secret (`azurestorageaccountkey`), the FlexVolume's
//! (`accountkey`) and a Secret made from environment variables (`AZURE_STORAGE_CONNECTION_STRING`,
//! `connection-string`) are all understood. Keys that are not in the table are ignored: a Secret may serve others too.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

use super::error::{Error, ErrorKind, Result};
use crate::{
    credential::{
        self, AccountKey, AccountSettings, AuthMode, Credential, IdentityOptions, IdentitySettings, SasToken,
        parse_connection_string, trimmed,
    },
    finding::Finding,
};

/// What an entry of a Secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    Account,
    Key,
    /// The account's other key.
    SpareKey,
    Sas,
    Endpoint,
    ConnectionString,
    /// The secret of a service principal.
    PrincipalSecret,
    PrincipalClient,
    PrincipalTenant,
    /// What an identity service asks for (App Service).
    MsiSecret,
}

/// Every entry: what it is called, without case, `-` and `_`, and what it is, for people.
const ENTRIES: [(Entry, &[&str], &str); 10] = [
    (
        Entry::Account,
        &["azurestorageaccountname", "accountname", "azurestorageaccount"],
        "Name of the account. Goes before the volume's own.",
    ),
    (
        Entry::Key,
        &["azurestorageaccountkey", "accountkey", "azurestoragekey", "azurestorageaccesskey", "key1"],
        "A key of the account.",
    ),
    (
        Entry::SpareKey,
        &["azurestorageaccountkey2", "accountkey2", "azurestoragekey2", "key2"],
        "Its other key, for the time of a rotation.",
    ),
    (
        Entry::Sas,
        &["azurestorageaccountsastoken", "accountsastoken", "azurestoragesastoken"],
        "A SAS, with or without its `?`.",
    ),
    (Entry::ConnectionString, &["azurestorageconnectionstring", "connectionstring"], "A connection string."),
    (Entry::Endpoint, &["azurestorageblobendpoint", "blobendpoint"], "Host or URL of the Blob endpoint."),
    (Entry::MsiSecret, &["msisecret"], "What the identity service at MSIEndpoint asks for."),
    (Entry::PrincipalSecret, &["azurestoragespnclientsecret"], "Secret of the service principal."),
    (
        Entry::PrincipalClient,
        &["azurestoragespnclientid"],
        "Client ID of the service principal, where AzureStorageSPNClientID is not set.",
    ),
    (Entry::PrincipalTenant, &["azurestoragespntenantid"], "Its tenant, where AzureStorageSPNTenantID is not set."),
];

/// All spellings of each entry, and what it is: for docs/CONFIGURATION.md.
pub(super) fn spellings() -> impl Iterator<Item = (&'static [&'static str], &'static str)> {
    ENTRIES.iter().map(|(_, spellings, doc)| (*spellings, *doc))
}

fn entry_of(name: &str) -> Option<Entry> {
    let plain: String = name.chars().filter(|c| !matches!(c, '-' | '_')).collect::<String>().to_lowercase();
    ENTRIES.iter().find(|(_, spellings, _)| spellings.contains(&plain.as_str())).map(|(entry, ..)| *entry)
}

/// The entries of a Secret that say something about an account.
#[derive(Debug, Default)]
pub struct Secrets {
    /// The name under which each was found, and its value. Empty values count as absent.
    entries: BTreeMap<Entry, (String, SecretString)>,
}

impl Secrets {
    /// Picks the known entries.
    ///
    /// # Errors
    /// `Invalid` when two spellings of one entry have different values.
    pub fn read(secrets: &BTreeMap<String, String>) -> Result<Self> {
        let mut entries: BTreeMap<Entry, (String, SecretString)> = BTreeMap::new();
        for (name, value) in secrets.iter().filter(|(_, value)| !value.trim().is_empty()) {
            let Some(entry) = entry_of(name) else { continue };
            let value = trimmed(&shown(name), value).map_err(|error| Error::invalid(error.to_string()))?;
            match entries.get(&entry) {
                Some((other, known)) if known.expose_secret() != value.expose_secret() => {
                    let known = Finding::SecretContradicts.with(&[("one", other), ("other", name)]);
                    return Err(Error::invalid(known.to_string()));
                }
                _ => entries.insert(entry, (name.clone(), value)),
            };
        }
        Ok(Self { entries })
    }

    /// Whether there is nothing in it that could sign a request.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn entry(&self, entry: Entry) -> Option<(String, &str)> {
        self.entries.get(&entry).map(|(name, value)| (shown(name), value.expose_secret()))
    }

    /// Whether it holds a key, a SAS or a connection string.
    #[must_use]
    pub fn has_credential(&self) -> bool {
        [Entry::Key, Entry::Sas, Entry::ConnectionString].iter().any(|entry| self.entries.contains_key(entry))
    }

    /// The account and endpoint that the Secret holds, `account` being the one that is known from elsewhere.
    ///
    /// # Errors
    /// `Invalid` for a connection string that is none.
    pub fn account(&self, account: Option<&str>) -> Result<AccountSettings> {
        let mut settings = match self.entry(Entry::ConnectionString) {
            Some((name, text)) => parse_connection_string(&name, text).map_err(invalid)?,
            None => AccountSettings::default(),
        };
        if let Some((_, account)) = self.entry(Entry::Account) {
            settings.account = Some(account.to_owned());
        }
        settings.account = settings.account.or_else(|| account.map(str::to_owned));
        if let Some((_, endpoint)) = self.entry(Entry::Endpoint) {
            settings.endpoint = Some(endpoint.to_owned());
        }
        Ok(settings)
    }

    /// The account, endpoint and credential that the Secret holds. `account` is the account known from elsewhere (the
    /// Secret's own goes before it), `mode` picks the credential where there are several: else the account key goes
    /// before the SAS, and both before those of a connection string. Without credential where `mode` is an identity's.
    ///
    /// # Errors
    /// `Invalid` for entries that cannot be what they are called; `NoCredential` when there is none of the kind wanted.
    pub fn settings(&self, account: Option<&str>, mode: Option<AuthMode>) -> Result<AccountSettings> {
        let mut settings = self.account(account)?;
        settings.mode = mode;
        settings.credential = match mode {
            Some(mode) if mode.is_identity() => None,
            mode => Some(self.credential(&settings, mode)?),
        };
        Ok(settings)
    }

    /// `settings` with what the Secret holds of an identity.
    #[must_use]
    pub fn identity(&self, settings: IdentitySettings) -> IdentitySettings {
        let secret = |entry| self.entries.get(&entry).map(|(_, value)| value.clone());
        settings.with_secrets(secret(Entry::PrincipalSecret), secret(Entry::MsiSecret))
    }

    /// `options` with the service principal that the Secret names, where they name none.
    #[must_use]
    pub fn principal(&self, mut options: IdentityOptions) -> IdentityOptions {
        let own = |entry| self.entry(entry).map(|(_, value)| value.to_owned());
        options.id.client_id = options.id.client_id.or_else(|| own(Entry::PrincipalClient));
        options.tenant_id = options.tenant_id.or_else(|| own(Entry::PrincipalTenant));
        options
    }

    fn credential(&self, settings: &AccountSettings, mode: Option<AuthMode>) -> Result<Credential> {
        if mode == Some(AuthMode::Anonymous) {
            return Ok(Credential::Anonymous);
        }
        if let Some((name, key)) =
            self.entry(Entry::Key).filter(|_| !matches!(mode, Some(AuthMode::Sas | AuthMode::ConnectionString)))
        {
            let account = settings
                .account
                .as_deref()
                .ok_or_else(|| Error::invalid(Finding::SecretWithoutAccount.with(&[("source", &name)]).to_string()))?;
            let key = AccountKey::parse(&name, account, key).map_err(invalid)?;
            let key = match self.entry(Entry::SpareKey) {
                Some((name, spare)) => key.with_spare(&AccountKey::parse(&name, account, spare).map_err(invalid)?),
                None => key,
            };
            return Ok(Credential::SharedKey(key));
        }
        if let Some((name, sas)) =
            self.entry(Entry::Sas).filter(|_| !matches!(mode, Some(AuthMode::Key | AuthMode::ConnectionString)))
        {
            return SasToken::parse(&name, sas).map(Credential::Sas).map_err(invalid);
        }
        match (&settings.credential, mode) {
            (Some(found @ Credential::SharedKey(_)), None | Some(AuthMode::Key | AuthMode::ConnectionString)) => {
                Ok(found.clone())
            }
            (Some(found @ Credential::Sas(_)), None | Some(AuthMode::Sas | AuthMode::ConnectionString)) => {
                Ok(found.clone())
            }
            _ => Err(self.no_credential(mode)),
        }
    }

    fn no_credential(&self, mode: Option<AuthMode>) -> Error {
        let wanted = match mode {
            Some(AuthMode::Key) => "AzureStorageAuthType is key, but there is no account key",
            Some(AuthMode::Sas) => "AzureStorageAuthType is SAS, but there is no SAS",
            Some(AuthMode::ConnectionString) => "AzureStorageAuthType is connection_string, but there is none",
            _ if self.is_empty() => "No Secret was handed in",
            _ => "The Secret holds no credential",
        };
        let known = Finding::SecretMissing.with(&[("wanted", wanted)]);
        Error::new(ErrorKind::NoCredential, known.to_string())
    }
}

/// How a secret is called in messages.
fn shown(name: &str) -> String {
    format!("secret key {name}")
}

#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
fn invalid(error: credential::Error) -> Error {
    Error::invalid(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "c2VjcmV0IGtleQ==";

    fn settings(entries: &[(&str, &str)]) -> Result<AccountSettings> {
        let map = entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Secrets::read(&map)?.settings(None, None)
    }

    #[test]
    fn every_spelling_of_account_and_key_is_understood() {
        for (account, key) in [
            ("accountname", "accountkey"),
            ("azurestorageaccountname", "azurestorageaccountkey"),
            ("AzureStorageAccountName", "AccountKey"),
            ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCESS_KEY"),
        ] {
            let found = settings(&[(account, "acme"), (key, KEY)]).unwrap();
            assert_eq!(found.account.as_deref(), Some("acme"));
            assert!(matches!(found.credential, Some(Credential::SharedKey(key)) if key.account() == "acme"));
        }
    }

    #[test]
    fn a_secret_may_hold_both_keys_of_the_account() {
        for (one, two) in
            [("azurestorageaccountkey", "azurestorageaccountkey2"), ("key1", "key2"), ("accountkey", "accountkey2")]
        {
            let found =
                settings(&[("accountname", "acme"), (one, KEY), (two, "b3RoZXI=")]).unwrap().credential.unwrap();
            let only = |key| Credential::SharedKey(AccountKey::parse("test", "acme", key).unwrap());
            assert!(found.signs_like(&only(KEY)) && found.spare().unwrap().signs_like(&only("b3RoZXI=")), "{one}");
        }
    }

    #[test]
    fn the_flexvolume_secret_with_sas_and_endpoint_is_understood() {
        let found = settings(&[
            ("accountname", "acme"),
            ("accountsastoken", "?sv=1&sig=x\n"),
            ("blobendpoint", "acme.blob.core.chinacloudapi.cn"),
        ])
        .unwrap();
        assert_eq!(found.endpoint.as_deref(), Some("acme.blob.core.chinacloudapi.cn"));
        assert!(matches!(found.credential, Some(Credential::Sas(_))));
    }

    #[test]
    fn a_connection_string_is_understood_under_all_its_names() {
        for name in
            ["connectionstring", "connection-string", "azurestorageconnectionstring", "AZURE_STORAGE_CONNECTION_STRING"]
        {
            let found = settings(&[(name, "AccountName=acme;AccountKey=c2VjcmV0;EndpointSuffix=core.x.net")]).unwrap();
            assert_eq!(found.account.as_deref(), Some("acme"), "{name}");
            assert_eq!(found.endpoint_suffix.as_deref(), Some("core.x.net"));
            assert!(found.credential.is_some());
        }
    }

    #[test]
    fn the_key_goes_before_the_sas_unless_the_auth_type_says_otherwise() {
        let map = [("accountname", "acme"), ("accountkey", KEY), ("azurestorageaccountsastoken", "sv=1&sig=x")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let secrets = Secrets::read(&map).unwrap();
        let pick = |mode| secrets.settings(None, mode).unwrap().credential.unwrap();
        assert!(matches!(pick(None), Credential::SharedKey(_)));
        assert!(matches!(pick(Some(AuthMode::Sas)), Credential::Sas(_)));
        assert!(matches!(pick(Some(AuthMode::Anonymous)), Credential::Anonymous));
    }

    #[test]
    fn the_secrets_account_goes_before_the_volumes() {
        let map = [("accountname", "secret"), ("accountkey", KEY)].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        let found = Secrets::read(&map).unwrap().settings(Some("handle"), None).unwrap();
        assert_eq!(found.account.as_deref(), Some("secret"));
        let map = [("accountkey", KEY)].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        let found = Secrets::read(&map).unwrap().settings(Some("handle"), None).unwrap();
        assert!(matches!(found.credential, Some(Credential::SharedKey(key)) if key.account() == "handle"));
    }

    #[test]
    fn missing_wrong_and_contradicting_entries_are_refused_without_their_values() {
        let none = settings(&[]).unwrap_err();
        assert_eq!(none.kind, ErrorKind::NoCredential);
        assert!(none.message.contains("nodeStageSecretRef"), "{none}");
        let bad = settings(&[("accountname", "acme"), ("accountkey", "hunter2!!")]).unwrap_err();
        assert!(bad.message.contains("accountkey") && !bad.message.contains("hunter2"), "{bad}");
        let two = settings(&[("accountkey", KEY), ("azurestorageaccountkey", "b3RoZXI=")]).unwrap_err();
        assert!(two.message.contains("azurestorageaccountkey") && !two.message.contains("b3RoZXI"), "{two}");
        let debug = format!("{:?}", Secrets::read(&[("accountkey".to_owned(), KEY.to_owned())].into()).unwrap());
        assert!(!debug.contains(KEY), "{debug}");
    }
}
