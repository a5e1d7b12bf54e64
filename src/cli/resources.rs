//! Flags of what a process may take of its node, memory and disk, the same for all roles that mount.

use std::path::PathBuf;

use tokio::runtime::Handle;

use super::{disk::DiskArgs, memory};
use crate::{
    cache::{Cache, CacheOptions, MEMORY_BYTES_MIN, READ_AHEAD_BYTES_DEFAULT, Volumes},
    fs::Resources,
    volume::options::parse_bytes,
};

/// Memory, disk and the spool.
#[derive(Debug, clap::Args)]
pub(super) struct ResourceArgs {
    /// Memory of the whole process, e.g. 512MiB [default: 70 % of the cgroup's limit, or 512MiB without one].
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    memory: Option<u64>,
    /// Most that one sequential reader fetches ahead.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, default_value_t = READ_AHEAD_BYTES_DEFAULT, hide_default_value = true)]
    read_ahead: u64,
    #[command(flatten)]
    pub(super) disk: DiskArgs,
    /// Where unsaved data goes that does not fit the memory, in files without a name that go with the process; and, below
    /// lost+found, what the service refuses for good, which stays: for a node plugin, a place that outlives the pod
    /// [default: $TMPDIR, or /tmp].
    #[arg(long, value_name = "DIR")]
    spool_dir: Option<PathBuf>,
}

impl ResourceArgs {
    /// What all volumes of the process share.
    pub(super) fn resources(self, volumes: Volumes, runtime: &Handle) -> Resources {
        let cache = CacheOptions {
            // A cgroup may be smaller than what we need at least.
            memory_bytes: self.memory.unwrap_or_else(memory::default_budget).max(MEMORY_BYTES_MIN),
            read_ahead_bytes: self.read_ahead,
            volumes,
        };
        Resources {
            cache: Cache::with_disk(cache, self.disk.options(), runtime.clone()),
            spool: Some(self.spool_dir.unwrap_or_else(std::env::temp_dir)),
            runtime: runtime.clone(),
        }
    }
}

fn parse_memory(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    match bytes >= MEMORY_BYTES_MIN {
        true => Ok(bytes),
        false => Err(format!("at least {} MiB are needed", MEMORY_BYTES_MIN >> 20)),
    }
}
