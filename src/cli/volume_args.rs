//! Flags of a volume that is mounted from the command line: those of `mount`, which `doctor` takes as well, so that a command
//! line that fails can be examined as it is.

use std::time::Duration;

use super::{Failure, resources::ResourceArgs, trust::TrustArgs};
use crate::volume::options::{MountOptions, parse_duration};

/// The flags.
#[derive(Debug, clap::Args)]
pub struct VolumeArgs {
    /// Mount options, as in fstab; see below. May be given several times.
    #[arg(short = 'o', value_name = "LIST")]
    pub(super) options: Vec<String>,
    /// The storage account, where the URL does not name it.
    #[arg(long)]
    pub(super) account: Option<String>,
    /// Make the container when it is missing.
    #[arg(long)]
    pub(super) create_container: bool,
    #[command(flatten)]
    pub(super) resources: ResourceArgs,
    #[command(flatten)]
    pub(super) trust: TrustArgs,
    /// How old names and attributes may be, e.g. 10s [default: 10s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(super) metadata_ttl: Option<Duration>,
    /// close-to-open, exclusive or immutable [default: close-to-open].
    #[arg(long, value_name = "MODE")]
    pub(super) consistency: Option<String>,
}

impl VolumeArgs {
    /// The options of `-o` with those of the flags on top.
    pub(super) fn mount_options(&self) -> Result<MountOptions, Failure> {
        let flags = [
            self.metadata_ttl.map(|ttl| format!("metadata-ttl={}", ttl.as_secs_f64())),
            self.consistency.as_ref().map(|mode| format!("consistency={mode}")),
            self.create_container.then(|| "create-container".to_owned()),
        ];
        let items = self.options.iter().cloned().chain(flags.into_iter().flatten());
        let (options, warnings) = MountOptions::parse(items).map_err(|error| Failure::from_chain(&error))?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        Ok(options)
    }
}
