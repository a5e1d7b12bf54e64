//! Who is measured: ours, and peers. Each is a command that mounts the container and stays; the jobs do not know which.
//!
//! A peer is given as `BENCH_PEER_<NAME>="command"`, run by `sh -c`. In it, these words are replaced:
//!
//! | word | is |
//! |---|---|
//! | `{url}` `{endpoint}` `{account}` `{key}` `{container}` | where the container is: URL of the container, of the account, and its parts |
//! | `{mountpoint}` | an empty directory |
//! | `{cache}` | an empty directory for its own files, on disk |
//! | `{profile}` | what the job is about: `stream`, `random`, `names`, or `durable`, where each close has to be in the service |
//!
//! The usual variables (AZURE_STORAGE_ACCOUNT, AZURE_STORAGE_ACCESS_KEY, ...) are in its environment as well. It ends with
//! SIGTERM. Names that begin alike (BLOBFUSE2_BLOCK, BLOBFUSE2_FILE) are variants of one peer: its better one counts where a
//! mark names the peer.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::service::{CONTAINER, Service};

/// What a job is about, for those that have to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Large files from end to end.
    Stream,
    /// Large files here and there.
    Random,
    /// Many small files.
    Names,
    /// Many small files, each in the service when it is closed.
    Durable,
}

impl Profile {
    /// As it stands in a command.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Random => "random",
            Self::Names => "names",
            Self::Durable => "durable",
        }
    }

    /// rclone's flags for it, each as its documentation says for the purpose: streams of chunks at once for large files from
    /// object stores; no cache of written files where a close has to be an upload; else the mode for everything.
    fn rclone(self) -> &'static str {
        match self {
            Self::Stream => "--vfs-cache-mode full --vfs-read-chunk-streams 16 --vfs-read-chunk-size 4M",
            Self::Random | Self::Names => "--vfs-cache-mode full",
            Self::Durable => "--vfs-cache-mode off",
        }
    }
}

/// What is measured.
#[derive(Clone, Debug)]
pub enum Driver {
    /// The binary of this build, at this path.
    Ours(PathBuf),
    /// rclone at this path, with flags that fit each job.
    Rclone(PathBuf),
    /// A command of the user's.
    Given {
        /// In lower case.
        name: String,
        /// See the module's doc.
        command: String,
    },
}

/// Where `make bench` puts rclone, from the root of the repository.
const RCLONE: &str = "target/tools/bin/rclone";
/// Names and attributes may be as old as ours by default (`metadata-ttl`); the key is in the environment.
const RCLONE_COMMAND: &str = "exec {rclone} mount :azureblob:{container} {mountpoint} --config= --cache-dir {cache} \
    --azureblob-account {account} --azureblob-endpoint {endpoint} --dir-cache-time 10s --log-level ERROR {flags}";
const PEER_PREFIX: &str = "BENCH_PEER_";
/// What begins like a peer's command and is none.
const PEER_RUNS: &str = "BENCH_PEER_RUNS";

impl Driver {
    /// Ours, built beside this program.
    ///
    /// # Errors
    /// When it is not there.
    pub fn ours() -> Result<Self> {
        let here = std::env::current_exe()?;
        let binary = here.parent().and_then(Path::parent).context("no build directory")?.join("azblob-csi");
        ensure!(binary.exists(), "{} is missing: run `make bench`, which builds it", binary.display());
        Ok(Self::Ours(binary))
    }

    /// rclone where it is installed, then those of the environment, by name. `BENCH_PEERS=name,...` chooses among them.
    pub fn peers() -> Vec<Self> {
        let rclone = PathBuf::from(RCLONE);
        let mut peers: Vec<Self> = rclone.exists().then_some(Self::Rclone(rclone)).into_iter().collect();
        let mut given: Vec<(String, String)> = std::env::vars()
            .filter(|(name, _)| name != PEER_RUNS)
            .filter_map(|(name, command)| Some((name.strip_prefix(PEER_PREFIX)?.to_ascii_lowercase(), command)))
            .collect();
        given.sort();
        for (name, command) in given {
            peers.retain(|peer| peer.name() != name);
            peers.push(Self::Given { name, command });
        }
        if let Ok(chosen) = std::env::var("BENCH_PEERS") {
            peers.retain(|peer| chosen.split(',').any(|name| peer.name().starts_with(name) && !name.is_empty()));
        }
        peers
    }

    /// Its name in the table.
    pub fn name(&self) -> &str {
        match self {
            Self::Ours(_) => "ours",
            Self::Rclone(_) => "rclone",
            Self::Given { name, .. } => name,
        }
    }

    /// The command that mounts the container of `service` on `mountpoint`.
    pub fn command(&self, service: &Service, profile: Profile, args: &[&str], at: &Directories) -> Command {
        let mut command = match self {
            Self::Ours(binary) => {
                let mut command = Command::new(binary);
                command.args(["--log-level=warn", "mount"]).args(args).arg(service.url()).arg(&at.mountpoint);
                command.arg("--spool-dir").arg(&at.cache);
                command
            }
            Self::Rclone(rclone) => {
                let text = RCLONE_COMMAND.replace("{rclone}", &rclone.to_string_lossy());
                shell(&text.replace("{flags}", profile.rclone()), service, profile, at)
            }
            Self::Given { command, .. } => shell(command, service, profile, at),
        };
        for name in ["AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"] {
            command.env_remove(name);
        }
        command
            .env("AZURE_STORAGE_ACCOUNT", service.account())
            .env("AZURE_STORAGE_ACCESS_KEY", service.key())
            .env("AZURE_STORAGE_BLOB_ENDPOINT", service.endpoint())
            .env("AZURE_STORAGE_ACCOUNT_CONTAINER", CONTAINER)
            .env("RCLONE_AZUREBLOB_KEY", service.key())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }
}

/// Where a mount is, and its files.
pub struct Directories {
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// For files of its own.
    pub cache: PathBuf,
}

fn shell(template: &str, service: &Service, profile: Profile, at: &Directories) -> Command {
    let words = [
        ("{url}", service.url()),
        ("{endpoint}", service.endpoint().to_owned()),
        ("{account}", service.account().to_owned()),
        ("{key}", service.key().to_owned()),
        ("{container}", CONTAINER.to_owned()),
        ("{mountpoint}", at.mountpoint.to_string_lossy().into_owned()),
        ("{cache}", at.cache.to_string_lossy().into_owned()),
        ("{profile}", profile.name().to_owned()),
    ];
    let text = words.iter().fold(template.to_owned(), |text, (word, value)| text.replace(word, value));
    let mut command = Command::new("sh");
    command.args(["-c", &text]);
    command
}
