//! `make test-kernel`: the static binaries in a machine of their own, whose kernel is as old as those of production.
//!
//! ```text
//! here      build      cargo's static programs, and where they lie
//!           archive    the machine's first file system, in the kernel's format
//!           qemu       the machine: QEMU without acceleration, disk or network; its console is our output
//! in there  guest      process 1: mounts what programs expect, loads FUSE, runs the suite, switches off
//! both      suite      which tests run there, and what they said
//! ```
//!
//! One program plays both parts: as process 1 it is the guest, else it starts the machine. Knows nothing of what is tested.

mod archive;
mod build;
mod guest;
mod qemu;
mod suite;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, ensure};

use archive::Archive;
use suite::Plan;

/// Where Debian has the certificates of authorities, and programs look for them.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

fn main() -> ExitCode {
    if std::process::id() == 1 {
        guest::live();
    }
    match test() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nmake test-kernel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Arguments: the directory that has `vmlinuz` and `fuse.ko`; then parts of names of tests, where not all shall run.
fn test() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let kernel = arguments.next().map(PathBuf::from);
    let kernel = kernel.context("say which directory has vmlinuz and fuse.ko (`make test-kernel` does)")?;
    let cases: Vec<String> = arguments.collect();
    let programs = build::programs()?;
    let directory = tempfile::tempdir().context("cannot make a directory for the machine's files")?;
    let mut archive = Archive::default();
    let this = std::env::current_exe().context("cannot find this program")?;
    archive.program("/init", &build::stripped(&this, directory.path())?)?;
    archive.program(guest::MODULE, &kernel.join("fuse.ko"))?;
    // At their own paths: tests start the driver from where it was built.
    for program in &programs.all {
        let path = program.to_str().with_context(|| format!("{} is no text", program.display()))?;
        archive.program(path, &build::stripped(program, directory.path())?)?;
    }
    archive.text(AUTHORITIES, &an_authority()?);
    let plan = serde_json::to_string(&Plan::new(&programs, &cases)?).context("names of programs are not text")?;
    archive.text(guest::PLAN, &plan);
    let image = directory.path().join("initramfs");
    archive.write_to(&image)?;
    let verdict = qemu::run(&kernel.join("vmlinuz"), &image)?;
    ensure!(verdict.is_success(), "{verdict}");
    Ok(())
}

/// The first authority of this machine. The driver insists that there are some before it speaks to anybody; reading all of
/// them would cost an emulated processor a second at each mount, and the emulator speaks plain HTTP.
fn an_authority() -> Result<String> {
    let all = std::fs::read_to_string(AUTHORITIES);
    let all = all.with_context(|| format!("cannot read {AUTHORITIES}: install the package ca-certificates"))?;
    let (first, _) = all.split_once("-----END").with_context(|| format!("no certificate is in {AUTHORITIES}"))?;
    Ok(format!("{first}-----END CERTIFICATE-----\n"))
}
