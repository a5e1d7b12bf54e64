//! A pod: commands in a directory, run by another process and never for ever. Knows nothing of CSI.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};

/// No command of the demo needs more; a mount that hangs must fail the demo, not stop it.
const COMMAND_SECONDS: &str = "60";

/// See the module's doc.
#[derive(Debug)]
pub struct Pod {
    directory: PathBuf,
}

impl Pod {
    /// A pod whose volume is `directory`.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    fn run(&self, script: &str) -> Result<Output> {
        // The shell changes the directory, so that this process does not touch the mount.
        let script = format!("set -o pipefail; cd '{}' && {script}", self.directory.display());
        let mut command = Command::new("timeout");
        command.args(["-k", "5", COMMAND_SECONDS, "bash", "-c", &script]);
        command.output().context("cannot run bash under timeout(1)")
    }

    /// Runs a shell script in the volume and returns what it printed.
    ///
    /// # Errors
    /// What it complained when it did not succeed.
    pub fn shell(&self, script: &str) -> Result<String> {
        let output = self.run(script)?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{script}` ended with {}: {}", output.status, complaint.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a script that must fail, and returns its complaint.
    ///
    /// # Errors
    /// When it succeeds.
    pub fn refused(&self, script: &str) -> Result<String> {
        let output = self.run(script)?;
        ensure!(!output.status.success(), "`{script}` should have been refused");
        Ok(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
