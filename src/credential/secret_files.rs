//! Secrets in files that variables name (`AZURE_STORAGE_KEY_FILE`, ...): read again when they change, as a Secret that is mounted
//! into a pod does, and when what they held is refused.

use std::{collections::HashMap, fmt, os::unix::fs::MetadataExt, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::{
    AuthMode, Credential, CredentialSource, account_settings_from,
    environment::{all_variables, secret_files},
};

/// The files, and what else the environment says about the account.
pub struct SecretFiles {
    files: Vec<PathBuf>,
    variables: Arc<HashMap<String, SecretString>>,
    account: String,
    asked: Option<AuthMode>,
}

impl SecretFiles {
    /// The files that the environment names (`variable` answers for one name), for `account`; `asked` is how to sign in, where
    /// an option says so. `None` where no secret is in a file.
    pub fn find(variable: impl Fn(&str) -> Option<String>, account: &str, asked: Option<AuthMode>) -> Option<Self> {
        let files = secret_files(&variable);
        let variables = all_variables().filter_map(|name| Some((name.clone(), SecretString::from(variable(&name)?))));
        let variables = Arc::new(variables.collect());
        (!files.is_empty()).then(|| Self { files, variables, account: account.to_owned(), asked })
    }
}

impl fmt::Debug for SecretFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretFiles").field("files", &self.files).finish_non_exhaustive()
    }
}

#[async_trait]
impl CredentialSource for SecretFiles {
    async fn read(&self) -> Result<Credential, String> {
        let (variables, account, asked) = (Arc::clone(&self.variables), self.account.clone(), self.asked);
        let read = move || {
            let variable = |name: &str| variables.get(name).map(|value| value.expose_secret().to_owned());
            account_settings_from(variable, Some(&account), asked)
        };
        let settings = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?;
        let credential = settings.map_err(|error| error.to_string())?.credential;
        credential.ok_or_else(|| "no credential is in it".to_owned())
    }

    fn describe(&self) -> String {
        let names: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        format!("file {}", names.join(", "))
    }

    /// Device, number, time and size of what the names lead to: Kubernetes swaps a symbolic link on the way.
    async fn mark(&self) -> Option<String> {
        let mut mark = String::new();
        for file in &self.files {
            let seen = match tokio::fs::metadata(file).await {
                Ok(seen) => {
                    format!("{}:{}:{}.{}:{};", seen.dev(), seen.ino(), seen.mtime(), seen.mtime_nsec(), seen.size())
                }
                Err(error) => format!("{:?};", error.kind()),
            };
            mark.push_str(&seen);
        }
        Some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{credential::AccountKey, finding::Finding};

    fn key(text: &str) -> Credential {
        Credential::SharedKey(AccountKey::parse("test", "acme", text).unwrap())
    }

    #[tokio::test]
    async fn a_secret_that_is_swapped_by_its_link_is_read_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let swap = |version: &str, text: &str| {
            std::fs::create_dir(path(version)).unwrap();
            std::fs::write(path(version).join("key"), format!("{text}\n")).unwrap();
            std::os::unix::fs::symlink(version, path("new")).unwrap();
            std::fs::rename(path("new"), path("..data")).unwrap();
        };
        swap("v1", "b25l");
        std::os::unix::fs::symlink("..data/key", path("key")).unwrap();
        let file = path("key").display().to_string();
        let variable = |name: &str| (name == "AZURE_STORAGE_KEY_FILE").then(|| file.clone());
        let source = SecretFiles::find(variable, "acme", None).unwrap();
        assert!(source.read().await.unwrap().is_same(&key("b25l")));
        let before = source.mark().await;
        assert_eq!(before, source.mark().await);
        swap("v2", "dHdv");
        assert_ne!(before, source.mark().await);
        assert!(source.read().await.unwrap().is_same(&key("dHdv")));
    }

    #[tokio::test]
    async fn two_keys_may_be_in_two_files_and_what_is_set_goes_before_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(directory.path().join(name), text).unwrap();
            directory.path().join(name).display().to_string()
        };
        let set = [
            ("AZURE_STORAGE_KEY_FILE", file("1", "b25l")),
            ("AZURE_STORAGE_KEY2_FILE", file("2", "dHdv\n")),
            ("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=x".to_owned()),
            ("AZURE_STORAGE_SAS_TOKEN_FILE", "/no/such/file".to_owned()),
        ];
        let variable = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        let source = SecretFiles::find(variable, "acme", None).unwrap();
        let found = source.read().await.unwrap();
        assert!(found.signs_like(&key("b25l")) && found.spare().unwrap().signs_like(&key("dHdv")));
        assert!(!source.describe().contains("/no/such/file"), "{}", source.describe());
        let sas = SecretFiles::find(variable, "acme", Some(AuthMode::Sas)).unwrap().read().await.unwrap();
        assert!(matches!(sas, Credential::Sas(_)));
        assert!(!format!("{source:?}").contains("sig=x"));
        assert!(SecretFiles::find(|_| None, "acme", None).is_none());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_its_variable() {
        let variable = |name: &str| (name == "AZURE_STORAGE_KEY_FILE").then(|| "/no/such/key".to_owned());
        let known = account_settings_from(variable, Some("acme"), None).unwrap_err().diagnosis();
        assert_eq!(known.finding, Finding::SecretFileUnreadable);
        assert!(known.cause.contains("/no/such/key") && known.cause.contains("AZURE_STORAGE_KEY_FILE"), "{known}");
    }
}
