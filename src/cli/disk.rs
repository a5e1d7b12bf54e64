//! Flags of the disk tier, the same for all roles that mount.

use std::{path::PathBuf, time::Duration};

use crate::{
    cache::{Cache, DiskOptions},
    volume::options::parse_bytes,
};

/// How long the end of a mount waits for what was fetched last to be on disk: as much as any disk writes of what waits at
/// most (a sixteenth of the memory). What is not there by then is fetched again one day.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// Flags of the disk tier.
#[derive(Debug, clap::Args)]
pub(super) struct DiskArgs {
    /// Keep what was read on the node's disk as well, in DIR/blocks, across restarts. Each process needs a directory of its
    /// own. A disk that is slow, full or gone makes reads slower, never wrong [default: memory only].
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Most that the cache directory holds, e.g. 100GiB [default: all but what --cache-free leaves free].
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, requires = "cache_dir")]
    cache_size: Option<u64>,
    /// Part of the cache directory's file system that stays free, in percent.
    #[arg(
        long,
        value_name = "PERCENT",
        value_parser = clap::value_parser!(u8).range(0..=99),
        default_value_t = DiskOptions::FREE_PERCENT_MIN_DEFAULT,
        requires = "cache_dir"
    )]
    cache_free: u8,
}

impl DiskArgs {
    /// The tier, when there is to be one.
    pub(super) fn options(self) -> Option<DiskOptions> {
        let free_percent_min = self.cache_free;
        self.cache_dir.map(|directory| DiskOptions { free_percent_min, ..DiskOptions::new(directory, self.cache_size) })
    }
}

/// Lets what was fetched last reach the disk, for the end of the process.
pub(super) async fn flush(cache: &Cache) {
    if let Some(disk) = cache.disk()
        && tokio::time::timeout(FLUSH_WITHIN, disk.flush()).await.is_err()
    {
        tracing::debug!("the cache directory is too slow to wait for");
    }
}
