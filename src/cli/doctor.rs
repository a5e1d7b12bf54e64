//! `azblob-csi doctor`: what keeps a container from being mounted, and how to mend it. Takes the flags of `mount` and mounts
//! nothing. The report is stdout's; exit code 1 where something was found.

use std::io::Write as _;

use super::{
    Failure, driver,
    place::{Place, Said},
    volume_args::VolumeArgs,
};
use crate::{
    blob::Connections,
    doctor::{self, Patient, Questions, Report},
    finding::Diagnosis,
    volume::options::{MountOptions, options_help},
};

/// Requests at a time: an examination asks one after the other.
const REQUESTS_IN_FLIGHT: usize = 4;

const EXAMPLES: &str = "\
Examples:
  AZURE_STORAGE_KEY=... azblob-csi doctor https://acme.blob.core.windows.net/logs
  azblob-csi doctor -o auth=workload_identity --write https://acme.blob.core.windows.net/logs
  azblob-csi doctor --origin https://app.example.com https://acme.blob.core.windows.net/logs
  azblob-csi doctor --json https://acme.blob.core.windows.net/logs | jq '.checks[] | select(.result == \"found\")'

Credentials come from where mount takes them (azblob-csi mount --help). docs/TROUBLESHOOTING.md lists all findings.
";

/// Find out why a container cannot be mounted, and how to mend it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("{EXAMPLES}\n{}", options_help()))]
pub struct Args {
    /// The container, as mount takes it.
    container_url: Option<String>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Write a small blob as well, and remove it.
    #[arg(long)]
    write: bool,
    /// Look whether pages of this origin (https://HOST) may read the account in a browser.
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<String>,
    #[command(flatten)]
    volume: VolumeArgs,
}

/// Examines, and prints the report.
///
/// # Errors
/// [`Failure`] where something was found that keeps the container from being mounted, or options that make no sense.
pub fn run(args: Args) -> Result<(), Failure> {
    let Args { container_url, json, write, origin, volume } = args;
    let options = volume.mount_options()?;
    let said = Said { url: container_url.as_deref(), account: volume.account.as_deref() };
    let report = match patient(said, &options, &volume) {
        Err(known) => doctor::examine::refused(container_url.as_deref().unwrap_or_default(), known),
        Ok(patient) => {
            let cache = volume
                .resources
                .disk
                .options()
                .map(|disk| doctor::CacheDirectory { path: disk.directory, free_percent_min: disk.free_percent_min });
            let questions = Questions { creates_container: options.create_container, write, origin, cache };
            let runtime = driver::runtime()?;
            let report = runtime.block_on(doctor::examine(&patient, &questions));
            runtime.shutdown_background();
            report
        }
    };
    print(&report, json);
    match report.is_healthy() {
        true => Ok(()),
        false => Err(Failure::new("this container cannot be mounted as it is: the report says why")),
    }
}

/// Who is to be examined.
///
/// # Errors
/// The finding that leaves nobody.
fn patient(said: Said<'_>, options: &MountOptions, volume: &VolumeArgs) -> Result<Patient, Diagnosis> {
    let trust = volume.trust.find()?;
    let Place { location, credential, .. } = Place::find(said, options, &trust)?;
    match Connections::trusting(REQUESTS_IN_FLIGHT, &trust) {
        Ok(connections) => Ok(Patient { location, credential, connections }),
        Err(error) => Err(doctor::diagnose(&error, &location, &credential)),
    }
}

/// A reader that is gone is no reason to complain.
fn print(report: &Report, json: bool) {
    let mut out = std::io::stdout().lock();
    let _ = match json {
        true => writeln!(out, "{:#}", report.json()),
        false => write!(out, "{report}"),
    };
}
