//! The programs that the machine runs, by cargo: `make test-kernel` sets what makes them static (RUSTFLAGS and
//! CARGO_BUILD_TARGET), for this program and for those alike.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::suite::{RUNS, Run};

/// What cargo built.
pub(crate) struct Programs {
    /// Test programs by the name of their target.
    pub(crate) tests: Vec<(String, PathBuf)>,
    /// These, and the driver that they start.
    pub(crate) all: Vec<PathBuf>,
}

/// Builds the test programs of the suite, and the driver.
pub(crate) fn programs() -> Result<Programs> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--no-run", "--message-format=json-render-diagnostics"]);
    for Run { target, .. } in &RUNS {
        match *target {
            "azblob_csi" => cargo.arg("--lib"),
            target => cargo.args(["--test", target]),
        };
    }
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "the programs do not build");
    let mut programs = Programs { tests: Vec::new(), all: Vec::new() };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Value = serde_json::from_str(line).context("cargo's messages are not JSON")?;
        let Some(executable) = message["executable"].as_str() else { continue };
        if message["profile"]["test"] == true {
            let name = message["target"]["name"].as_str().context("cargo tells of a target without a name")?;
            programs.tests.push((name.to_owned(), executable.into()));
        }
        programs.all.push(executable.into());
    }
    Ok(programs)
}

/// A copy without symbols below `directory`: they would take half of the machine's memory.
pub(crate) fn stripped(program: &Path, directory: &Path) -> Result<PathBuf> {
    let name = program.file_name().with_context(|| format!("{} is no file", program.display()))?;
    let copy = directory.join(name);
    let status = Command::new("strip").arg("-o").arg(&copy).arg(program).status();
    let status = status.context("cannot start strip, which comes with the C compiler (binutils)")?;
    ensure!(status.success(), "strip {}: {status}", program.display());
    Ok(copy)
}
