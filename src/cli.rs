//! The command line: one file a role. Flags, environment and exit codes live here; what a role does lives below.
//!
//! Exit codes: 0 done, 1 failed with one sentence and its fix on stderr. stdout carries only what programs read.

pub mod controller;
mod disk;
pub mod doctor;
mod driver;
pub mod keeper;
mod memory;
pub mod migrate;
pub mod mount;
pub mod node;
mod place;
mod resources;
pub mod stats;
mod trust;
mod upstream;
mod volume_args;
pub mod warmup;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{
    finding::Diagnosis,
    telemetry::{self, Format},
};

/// Azure Blob containers as volumes, for Kubernetes and for mount(8).
#[derive(Debug, clap::Parser)]
#[command(name = "azblob-csi", version, after_help = "Each command has its own --help, with examples.")]
struct Root {
    /// Level of the log on stderr: error, warn, info, debug, trace, or a list such as info,azblob_csi::fs=debug.
    #[arg(long, global = true, env = telemetry::LEVEL_VARIABLE, default_value = "info", value_name = "LEVEL")]
    log_level: String,
    /// Form of the log.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    log_format: Format,
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, clap::Subcommand)]
enum Role {
    Mount(mount::Args),
    Node(node::Args),
    Controller(controller::Args),
    Warmup(warmup::Args),
    Doctor(doctor::Args),
    Migrate(migrate::Args),
    Stats(stats::Args),
    Keeper(keeper::Args),
}

/// A role that ended badly: what went wrong and, where we know it, how to mend it. Holds no secret.
#[derive(Debug)]
pub struct Failure {
    /// One sentence, with its causes.
    pub message: String,
    /// What to do.
    pub remedy: Option<String>,
}

impl Failure {
    /// A failure whose message says the fix itself.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: None }
    }

    /// A failure that is a known one. What the message says already is not repeated.
    #[must_use]
    pub fn known(message: String, known: Diagnosis) -> Self {
        let remedy = if message.contains(&known.cause) { known.fix } else { known.to_string() };
        Self { message, remedy: Some(remedy) }
    }

    /// An error and its causes, each said once.
    #[must_use]
    pub fn from_chain(error: &dyn std::error::Error) -> Self {
        Self::new(telemetry::chain(error))
    }
}

impl From<Diagnosis> for Failure {
    fn from(known: Diagnosis) -> Self {
        Self { message: known.cause, remedy: Some(known.fix) }
    }
}

/// Runs the role that the arguments name and gives the process its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let root = match Root::try_parse() {
        Ok(root) => root,
        Err(error) => {
            // Help and version are answers, not errors. Printing fails only where nobody reads.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    keep_out_of_cores();
    let outcome = telemetry::start(&root.log_level, root.log_format)
        .map_err(|error| Failure::from_chain(&error))
        .and_then(|()| match root.role {
            Role::Mount(args) => mount::run(args),
            Role::Node(args) => node::run(args),
            Role::Controller(args) => controller::run(args),
            Role::Warmup(args) => warmup::run(args),
            Role::Doctor(args) => doctor::run(args),
            Role::Migrate(args) => migrate::run(args),
            Role::Stats(args) => stats::run(args),
            Role::Keeper(args) => keeper::run(args),
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("azblob-csi: {}", failure.message);
            if let Some(remedy) = failure.remedy {
                eprintln!("  fix: {remedy}");
            }
            ExitCode::FAILURE
        }
    }
}

/// A core would hold keys and tokens, and other users' programs could attach: neither from here on. What the kernel refuses of
/// this leaves the process as any other.
fn keep_out_of_cores() {
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    // A core that goes to a program (core_pattern with a pipe) does not ask for the limit: core(5).
    let _ = nix::sys::prctl::set_dumpable(false);
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_each_role_shows_an_example() {
        let mut root = Root::command();
        root.clone().debug_assert();
        for role in root.get_subcommands_mut() {
            let name = role.get_name().to_owned();
            assert!(role.render_long_help().to_string().contains(&format!("azblob-csi {name} ")), "{name}");
        }
    }

    #[test]
    fn a_failure_says_every_cause_once() {
        let inner = std::io::Error::other("the cause");
        let outer = crate::fuse::Error::Refused("/mnt".into(), inner);
        assert_eq!(Failure::from_chain(&outer).message.matches("the cause").count(), 1);
    }
}
