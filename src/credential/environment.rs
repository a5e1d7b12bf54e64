//! Credentials from environment variables: one table of names, one documented order.
//!
//! Where several are set, the first of this list wins, unless the option `auth` or AZURE_STORAGE_AUTH_MODE (or _AUTH_TYPE)
//! picks one: AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY / _ACCESS_KEY, AZURE_STORAGE_SAS_TOKEN; then an identity
//! (`identity.rs`), then none (anonymous). AZURE_STORAGE_KEY2 is the account's other key, tried where the first is refused.
//! Each of these secrets may be in a file, which NAME_FILE names where NAME is not set; such a file is read again when it
//! changes and when what it held is refused (`secret_files.rs`).
//!
//! Account, endpoint and container variables overrule what the connection string says about them.

use std::path::PathBuf;

use super::{AccountKey, AccountSettings, Credential, Error, SasToken, parse_connection_string};

const CONNECTION_STRING: &str = "AZURE_STORAGE_CONNECTION_STRING";
const ACCOUNT: &str = "AZURE_STORAGE_ACCOUNT";
/// The CLI's name first, then blobfuse's.
const KEYS: [&str; 2] = ["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCESS_KEY"];
/// The account's other key.
const SPARE_KEYS: [&str; 2] = ["AZURE_STORAGE_KEY2", "AZURE_STORAGE_ACCESS_KEY2"];
const SAS: &str = "AZURE_STORAGE_SAS_TOKEN";
/// Every secret, whose file NAME_FILE may name.
const SECRETS: [&str; 6] = [CONNECTION_STRING, KEYS[0], KEYS[1], SPARE_KEYS[0], SPARE_KEYS[1], SAS];
const ENDPOINTS: [&str; 3] = ["AZURE_STORAGE_BLOB_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "AZURE_STORAGE_ACCOUNT_URL"];
/// Ours first, then blobfuse's.
const CONTAINERS: [&str; 2] = ["AZURE_STORAGE_CONTAINER", "AZURE_STORAGE_ACCOUNT_CONTAINER"];
const AUTH_MODES: [&str; 2] = ["AZURE_STORAGE_AUTH_MODE", "AZURE_STORAGE_AUTH_TYPE"];

/// How to sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// The account key.
    Key,
    /// The SAS.
    Sas,
    /// Whatever the connection string holds.
    ConnectionString,
    /// A federated token, exchanged for one of Entra ID.
    WorkloadIdentity,
    /// An identity that the platform signs in.
    ManagedIdentity,
    /// An application with its secret or certificate.
    ServicePrincipal,
    /// Whoever is signed in with the Azure CLI.
    AzureCli,
    /// The first of environment, workload identity, managed identity and Azure CLI that gives a token.
    Default,
    /// None at all.
    Anonymous,
}

/// Every way, the name that messages use, and its other spellings (without `-` and `_`), as the CLI, blobfuse and the
/// Azure Blob CSI driver write them.
const MODES: [(AuthMode, &str, &[&str]); 9] = [
    (AuthMode::Key, "key", &["sharedkey", "accountkey"]),
    (AuthMode::Sas, "sas", &["sastoken"]),
    (AuthMode::ConnectionString, "connection_string", &["connectionstring"]),
    (AuthMode::WorkloadIdentity, "workload_identity", &["workloadidentity", "wi"]),
    (AuthMode::ManagedIdentity, "msi", &["managedidentity", "identity"]),
    (AuthMode::ServicePrincipal, "spn", &["serviceprincipal", "clientsecret", "clientcertificate"]),
    (AuthMode::AzureCli, "azcli", &["azurecli", "cli"]),
    (AuthMode::Default, "default", &["login", "defaultazurecredential"]),
    (AuthMode::Anonymous, "anonymous", &["public", "none"]),
];

impl AuthMode {
    /// Reads a mode as the CLI and blobfuse write it. `source_name` says in messages where it came from.
    ///
    /// # Errors
    /// [`Error::AuthMode`] for modes that nobody knows.
    pub fn parse(source_name: &str, text: &str) -> Result<Self, Error> {
        Self::find(text).ok_or_else(|| Error::AuthMode {
            source_name: source_name.to_owned(),
            mode: text.to_owned(),
            reason: "expected key, sas, connection_string, workload_identity, msi, spn, azcli, default or anonymous",
        })
    }

    /// The mode of a name, in any of its spellings.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let plain = |text: &str| text.trim().to_ascii_lowercase().replace(['-', '_'], "");
        let wanted = plain(text);
        MODES
            .iter()
            .find(|(_, name, also)| plain(name) == wanted || also.contains(&wanted.as_str()))
            .map(|(mode, ..)| *mode)
    }

    /// Its name, `workload_identity`.
    #[must_use]
    pub fn name(self) -> &'static str {
        MODES.iter().find(|(mode, ..)| *mode == self).map_or("", |(_, name, _)| *name)
    }

    /// Whether it signs in to Entra ID, for tokens.
    #[must_use]
    pub fn is_identity(self) -> bool {
        use AuthMode as Mode;
        matches!(
            self,
            Mode::WorkloadIdentity | Mode::ManagedIdentity | Mode::ServicePrincipal | Mode::AzureCli | Mode::Default
        )
    }
}

/// Reads the account settings from variables, where `variable` answers for one name (`std::env::var(..).ok()`).
/// Empty variables count as absent. `account` is the account that is known already (from the URL or an option): a key
/// needs one. `asked` is how to sign in, where an option says so; the variables are asked otherwise. Ways with an identity
/// are only named in the answer ([`AccountSettings::mode`]).
///
/// # Errors
/// Those of key, SAS and connection string; [`Error::KeyWithoutAccount`]; [`Error::AuthMode`] for a mode that is
/// unknown or whose secret is missing.
pub fn account_settings_from(
    variable: impl Fn(&str) -> Option<String>,
    account: Option<&str>,
    asked: Option<AuthMode>,
) -> Result<AccountSettings, Error> {
    let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    let first = |names: &[&'static str]| names.iter().find_map(|name| variable(name).map(|value| (*name, value)));
    let mode = match asked {
        Some(mode) => Some(("auth", mode.name().to_owned(), mode)),
        None => first(&AUTH_MODES)
            .map(|(name, text)| Ok((name, text.clone(), AuthMode::parse(name, &text)?)))
            .transpose()?,
    };

    let mut settings = match secret(&variable, &[CONNECTION_STRING])? {
        Some((name, text)) => parse_connection_string(&name, &text)?,
        None => AccountSettings::default(),
    };
    if let Some(name) = account.map(str::to_owned).or_else(|| variable(ACCOUNT).map(|name| name.trim().to_owned())) {
        settings.account = Some(name);
    }
    if let Some((_, endpoint)) = first(&ENDPOINTS) {
        settings.endpoint = Some(endpoint.trim().to_owned());
    }
    settings.container = first(&CONTAINERS).map(|(_, container)| container.trim().to_owned());

    let wanted = mode.as_ref().map(|(_, _, mode)| *mode);
    settings.mode = wanted;
    if wanted.is_some_and(AuthMode::is_identity) {
        settings.credential = None;
        return Ok(settings);
    }
    let written = Written {
        key: secret(&variable, &KEYS)?,
        spare: secret(&variable, &SPARE_KEYS)?,
        sas: secret(&variable, &[SAS])?,
    };
    settings.credential = choose(wanted, settings.credential.take(), &settings, written)?;
    match (&settings.credential, mode) {
        (None, Some((name, text, _))) => Err(Error::AuthMode {
            source_name: name.to_owned(),
            mode: text,
            reason: "but no such credential is set; set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING",
        }),
        _ => Ok(settings),
    }
}

/// The files that secrets are read from.
pub(super) fn secret_files(variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    let file = |name: &&str| set(&file_of(name)).filter(|_| set(name).is_none());
    SECRETS.iter().filter_map(file).map(|file| PathBuf::from(file.trim())).collect()
}

/// Every variable that [`account_settings_from`] asks for.
pub(super) fn all_variables() -> impl Iterator<Item = String> {
    let plain = [ACCOUNT].into_iter().chain(ENDPOINTS).chain(CONTAINERS).chain(AUTH_MODES).chain(SECRETS);
    plain.map(str::to_owned).chain(SECRETS.into_iter().map(file_of))
}

fn file_of(name: &str) -> String {
    format!("{name}_FILE")
}

/// A secret and where it stands: the first of `names` that is set, or whose file is.
fn secret(variable: &impl Fn(&str) -> Option<String>, names: &[&str]) -> Result<Option<(String, String)>, Error> {
    for name in names {
        if let Some(value) = variable(name) {
            return Ok(Some(((*name).to_owned(), value)));
        }
        if let Some(file) = variable(&file_of(name)) {
            let file = file.trim();
            let text = std::fs::read_to_string(file);
            let text = text.map_err(|error| Error::SecretFile {
                variable: file_of(name),
                file: file.to_owned(),
                reason: error.to_string(),
            })?;
            return Ok(Some((format!("file {file}"), text.trim().to_owned())));
        }
    }
    Ok(None)
}

/// Secrets, each with its source.
struct Written {
    key: Option<(String, String)>,
    spare: Option<(String, String)>,
    sas: Option<(String, String)>,
}

/// The order of the module doc, narrowed by `mode`.
fn choose(
    mode: Option<AuthMode>,
    from_connection_string: Option<Credential>,
    settings: &AccountSettings,
    written: Written,
) -> Result<Option<Credential>, Error> {
    if mode == Some(AuthMode::Anonymous) {
        return Ok(Some(Credential::Anonymous));
    }
    let allowed = |credential: &Credential| match mode {
        Some(AuthMode::Key) => matches!(credential, Credential::SharedKey(_)),
        Some(AuthMode::Sas) => matches!(credential, Credential::Sas(_)),
        _ => true,
    };
    let found = from_connection_string.filter(allowed);
    if found.is_some() || mode == Some(AuthMode::ConnectionString) {
        return Ok(found);
    }
    if let Some((name, key)) = written.key.filter(|_| mode != Some(AuthMode::Sas)) {
        let account =
            settings.account.as_deref().ok_or_else(|| Error::KeyWithoutAccount { source_name: name.clone() })?;
        let key = AccountKey::parse(&name, account, &key)?;
        let key = match written.spare {
            Some((name, spare)) => key.with_spare(&AccountKey::parse(&name, account, &spare)?),
            None => key,
        };
        return Ok(Some(Credential::SharedKey(key)));
    }
    if let Some((name, sas)) = written.sas.filter(|_| mode != Some(AuthMode::Key)) {
        return SasToken::parse(&name, &sas).map(|token| Some(Credential::Sas(token)));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<AccountSettings, Error> {
        account_settings_from(
            |name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
            None,
            None,
        )
    }

    #[test]
    fn the_connection_string_goes_before_the_key_and_the_key_before_the_sas() {
        let string = ("AZURE_STORAGE_CONNECTION_STRING", "AccountName=one;AccountKey=c2VjcmV0");
        let account = ("AZURE_STORAGE_ACCOUNT", "two");
        let key = ("AZURE_STORAGE_ACCESS_KEY", "c2VjcmV0");
        let sas = ("AZURE_STORAGE_SAS_TOKEN", "?sv=1&sig=x");
        let all = settings(&[string, key, sas]).unwrap();
        assert!(matches!(all.credential, Some(Credential::SharedKey(key)) if key.account() == "one"));
        let two = settings(&[account, key, sas]).unwrap();
        assert!(matches!(two.credential, Some(Credential::SharedKey(key)) if key.account() == "two"));
        assert!(matches!(settings(&[account, sas]).unwrap().credential, Some(Credential::Sas(_))));
        assert!(settings(&[account]).unwrap().credential.is_none());
    }

    #[test]
    fn the_auth_mode_picks_among_several() {
        let all = [
            ("AZURE_STORAGE_ACCOUNT", "a"),
            ("AZURE_STORAGE_KEY", "c2VjcmV0"),
            ("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=x"),
        ];
        let with = |mode| settings(&[all[0], all[1], all[2], ("AZURE_STORAGE_AUTH_MODE", mode)]);
        assert!(matches!(with("SAS").unwrap().credential, Some(Credential::Sas(_))));
        assert!(matches!(with("key").unwrap().credential, Some(Credential::SharedKey(_))));
        assert!(matches!(with("anonymous").unwrap().credential, Some(Credential::Anonymous)));
        assert!(with("kerberos").unwrap_err().to_string().contains("kerberos"));
        let without_string = with("connection_string").unwrap_err().to_string();
        assert!(without_string.contains("AZURE_STORAGE_CONNECTION_STRING"), "{without_string}");
        for (name, mode) in [("MSI", AuthMode::ManagedIdentity), ("workload-identity", AuthMode::WorkloadIdentity)] {
            let found = with(name).unwrap();
            assert!(found.credential.is_none() && found.mode == Some(mode), "{name}");
        }
        let error = settings(&[all[0], ("AZURE_STORAGE_AUTH_TYPE", "sas")]).unwrap_err().to_string();
        assert!(error.contains("AZURE_STORAGE_SAS_TOKEN"), "{error}");
    }

    #[test]
    fn every_mode_is_found_under_all_its_names() {
        for (mode, name, also) in MODES {
            assert_eq!(mode.name(), name);
            for spelling in also.iter().chain([&name]) {
                assert_eq!(AuthMode::find(&spelling.to_ascii_uppercase()), Some(mode), "{spelling}");
            }
        }
    }

    #[test]
    fn an_option_goes_before_the_variable() {
        let key = |name: &str| match name {
            "AZURE_STORAGE_AUTH_MODE" => Some("sas".to_owned()),
            "AZURE_STORAGE_KEY" => Some("c2VjcmV0".to_owned()),
            _ => None,
        };
        let found = account_settings_from(key, Some("a"), Some(AuthMode::Key)).unwrap();
        assert!(matches!(found.credential, Some(Credential::SharedKey(_))));
    }

    #[test]
    fn endpoint_and_container_are_read_and_empty_variables_are_absent() {
        let found = settings(&[
            ("AZURE_STORAGE_BLOB_ENDPOINT", ""),
            ("AZURE_STORAGE_ACCOUNT_URL", "http://127.0.0.1:10000/acct\n"),
            ("AZURE_STORAGE_CONTAINER", "logs"),
        ])
        .unwrap();
        assert_eq!(found.endpoint.as_deref(), Some("http://127.0.0.1:10000/acct"));
        assert_eq!(found.container.as_deref(), Some("logs"));
    }

    #[test]
    fn a_key_without_an_account_says_so() {
        let error = settings(&[("AZURE_STORAGE_KEY", "c2VjcmV0")]).unwrap_err().to_string();
        assert!(error.contains("AZURE_STORAGE_KEY") && error.contains("AZURE_STORAGE_ACCOUNT"), "{error}");
    }
}
