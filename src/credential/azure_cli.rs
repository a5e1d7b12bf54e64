//! The Azure CLI: whoever is signed in with `az login`. For people's machines, not for nodes.

use std::{ffi::OsString, path::PathBuf, process::Stdio};

use async_trait::async_trait;
use tokio::process::Command;

use super::{
    AccessToken, TokenError, TokenSource,
    entra::{found, refused},
    token_answer,
};
use crate::finding::Finding;

/// The program.
const PROGRAM: &str = "az";

/// Whoever is signed in.
#[derive(Debug)]
pub(super) struct AzureCli {
    tenant: Option<String>,
    /// The directories to look in, as PATH has them.
    path: OsString,
}

impl AzureCli {
    /// The CLI of this process' PATH, for a token of `tenant` where it is given.
    pub(super) fn new(tenant: Option<String>) -> Self {
        Self { tenant, path: std::env::var_os("PATH").unwrap_or_default() }
    }

    /// Absolute entries of PATH alone: a relative one would run what lies in the working directory.
    fn program(&self) -> Option<PathBuf> {
        std::env::split_paths(&self.path)
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(PROGRAM))
            .find(|file| file.is_file())
    }
}

#[async_trait]
impl TokenSource for AzureCli {
    async fn fetch(&self, audience: &str) -> Result<AccessToken, TokenError> {
        let name = self.describe();
        let Some(program) = self.program() else {
            return Err(found(&name, Finding::CliMissing.with(&[])));
        };
        let mut command = Command::new(&program);
        command.args(["account", "get-access-token", "--output", "json", "--resource", audience]);
        if let Some(tenant) = &self.tenant {
            command.args(["--tenant", tenant]);
        }
        // Ends with the future: nobody waits for its answer any more then.
        command.stdin(Stdio::null()).kill_on_drop(true);
        let ran = command.output().await;
        let output = ran.map_err(|error| refused(&name, format!("{} cannot be run ({error})", program.display())))?;
        if output.status.success() {
            return token_answer::parse(&name, &String::from_utf8_lossy(&output.stdout));
        }
        let said = complaint(&String::from_utf8_lossy(&output.stderr));
        Err(found(&name, Finding::CliSignedOut.with(&[("said", &said)])))
    }

    fn describe(&self) -> String {
        match &self.tenant {
            Some(tenant) => format!("Azure CLI (tenant {tenant})"),
            None => "Azure CLI".to_owned(),
        }
    }
}

/// What it said.
fn complaint(stderr: &str) -> String {
    let error = stderr.lines().map(str::trim).find(|line| line.starts_with("ERROR:") || line.contains("AADSTS"));
    let line = error.or_else(|| stderr.lines().map(str::trim).rfind(|line| !line.is_empty()));
    let said: String =
        line.unwrap_or("it failed without a word").trim_start_matches("ERROR:").trim().chars().take(300).collect();
    said.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, path::Path};

    use secrecy::ExposeSecret;

    use super::*;

    /// A directory with a script for `az`.
    fn with_script(script: &str) -> (tempfile::TempDir, AzureCli) {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), script);
        let cli = AzureCli { tenant: Some("t1".into()), path: directory.path().into() };
        (directory, cli)
    }

    fn write(directory: &Path, script: &str) {
        let file = directory.join(PROGRAM);
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn the_token_of_whoever_is_signed_in_is_used() {
        let (_directory, cli) = with_script(
            r#"[ "$*" = "account get-access-token --output json --resource https://storage.azure.com --tenant t1" ] || exit 9
echo '{"accessToken":"abc","expires_on":99999999999}'"#,
        );
        let token = cli.fetch("https://storage.azure.com").await.unwrap();
        assert_eq!(token.text.expose_secret(), "abc");
    }

    #[tokio::test]
    async fn its_own_words_are_told_and_a_missing_one_is_named() {
        let (directory, cli) =
            with_script("echo \"WARNING: old\nERROR: Please run 'az login' to setup account.\" >&2; exit 1");
        let error = cli.fetch("x").await.unwrap_err().to_string();
        assert!(error.contains("Please run 'az login' to setup account") && !error.contains("WARNING"), "{error}");
        std::fs::remove_file(directory.path().join(PROGRAM)).unwrap();
        assert!(cli.fetch("x").await.unwrap_err().to_string().contains("no program az in PATH"));
        assert!(AzureCli { tenant: None, path: "relative:".into() }.program().is_none());
    }
}
