//! Warm-up (`warmup=PATH:PATH`): once the volume is open, its files at and below these paths are fetched into the cache
//! before a program asks for them.
//!
//! It lists them flat and reads each version that the listing names, past inodes and handles; a file that changes
//! meanwhile is left to its reader. With a cache directory it waits for the disk, so that it is never further ahead than a
//! few megabytes, and begun again it goes on where it was. Without one it fills a part of the memory. It ends with the
//! volume.

use std::time::Duration;

use futures::{StreamExt as _, stream};

use super::{FileSystem, Kind, Result, error::Error};
use crate::{
    blob::{self, BlobName, BlobProperties, Condition, ErrorKind, ListEntry, ListRequest},
    cache::Cache,
    sync::{Arc, AtomicU64, Ordering, Weak, tokio::time::sleep},
};

/// Files fetched at once: few, since each large one has a window of requests, and programs read at the same time.
const FILES_AT_ONCE: usize = 4;
/// Fetched of one file before the disk is waited for, in bytes.
const STEP_BYTES: u64 = 4 << 20;
/// Without a cache directory it fills one part in so many of the memory: the rest is for what programs choose.
const MEMORY_PART: u64 = 2;
/// What a file takes of the cache is a multiple of this: a block of the node's file system.
const CHARGE_BYTES: u64 = 4 << 10;
/// Between two looks whether it is known what an earlier process left on the disk.
const SCAN_LOOK: Duration = Duration::from_millis(100);

/// One warm-up under way.
struct WarmUp {
    /// Not held: the volume may end.
    volume: Weak<FileSystem>,
    cache: Cache,
    /// Bytes that the cache still takes.
    room: AtomicU64,
    files: AtomicU64,
    fetched_bytes: AtomicU64,
    /// Files that were there already.
    there: AtomicU64,
    /// Files that the cache has no room for.
    no_room: AtomicU64,
    failed: AtomicU64,
}

impl FileSystem {
    /// Begins the warm-up that the settings ask for.
    pub(super) fn begin_warm_up(self: &Arc<Self>) {
        let paths = self.settings.warm_up.clone();
        if paths.is_empty() {
            return;
        }
        let warm_up = WarmUp {
            volume: Arc::downgrade(self),
            cache: self.cache().clone(),
            room: AtomicU64::new(0),
            files: AtomicU64::new(0),
            fetched_bytes: AtomicU64::new(0),
            there: AtomicU64::new(0),
            no_room: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        };
        let volume = self.identity().to_owned();
        self.resources.runtime.spawn(async move {
            tracing::info!(volume, ?paths, "the warm-up begins");
            warm_up.run(&paths).await;
            warm_up.tell(&volume);
        });
    }

    /// A page of what is at and below a path: first the blob of that name.
    async fn files_below(&self, path: &str, marker: Option<String>) -> Result<(Vec<Found>, Option<String>)> {
        let exact = self.settings.prefix.clone() + path;
        let mut found = Vec::new();
        if marker.is_none() && !path.is_empty() {
            let blob = self.name_at(path)?;
            match self.store.head(&blob, &Condition::None).await {
                Ok(properties) => found.push((blob, Box::new(properties))),
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => return Err(Error::from_store(format!("cannot look at {exact:?}"), error)),
            }
        }
        let prefix = if path.is_empty() { exact } else { exact + "/" };
        let request = ListRequest { prefix: prefix.clone(), delimited: false, marker, max_results: None };
        let page = self.store.list(&request).await;
        let page = page.map_err(|error| Error::from_store(format!("cannot list {prefix:?}"), error))?;
        for entry in page.entries {
            if let ListEntry::Blob(blob, properties) = entry {
                found.push((blob, properties));
            }
        }
        Ok((found, page.next_marker))
    }
}

type Found = (BlobName, Box<BlobProperties>);

impl WarmUp {
    async fn run(&self, paths: &[String]) {
        let Some(room) = self.all_room().await else { return };
        self.room.store(room, Ordering::Relaxed);
        for path in paths {
            if let Err(error) = self.fetch_below(path.trim_matches('/')).await {
                self.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(path, "the warm-up leaves out the rest of a path: {}", error.to_chain());
            }
        }
    }

    /// Bytes that the cache can hold in all; `None` when the volume has ended.
    async fn all_room(&self) -> Option<u64> {
        let Some(disk) = self.cache.disk() else {
            return Some(self.cache.budget().pool_bytes() / MEMORY_PART);
        };
        while disk.gauges().on && !disk.gauges().scanned {
            sleep(SCAN_LOOK).await;
            self.volume.upgrade()?;
        }
        Some(disk.room_bytes().await)
    }

    async fn fetch_below(&self, path: &str) -> Result<()> {
        let mut marker = None;
        loop {
            let Some(volume) = self.volume.upgrade() else { return Ok(()) };
            let (found, next) = volume.files_below(path, marker.take()).await?;
            drop(volume);
            let files = found.into_iter().filter(|(_, properties)| Kind::of(&properties.metadata) == Kind::File);
            let fetches = files.map(|(blob, properties)| async move {
                if let Err(error) = self.fetch(&blob, &properties).await {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%blob, %error, "the warm-up leaves out a file");
                }
            });
            stream::iter(fetches).buffer_unordered(FILES_AT_ONCE).for_each(async |()| ()).await;
            match next {
                Some(next) => marker = Some(next),
                None => return Ok(()),
            }
        }
    }

    async fn fetch(&self, blob: &BlobName, properties: &BlobProperties) -> blob::Result<()> {
        let (length, archived) = (properties.length, properties.access_tier.as_deref() == Some("Archive"));
        let Some(volume) = self.volume.upgrade().filter(|_| length > 0 && !archived) else { return Ok(()) };
        let content = volume.content(blob, &properties.etag, length);
        drop(volume);
        let take = |room: u64| room.checked_sub(length.next_multiple_of(CHARGE_BYTES));
        if self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            self.no_room.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        self.files.fetch_add(1, Ordering::Relaxed);
        let disk = self.cache.disk();
        if let Some(disk) = disk
            && disk.kept_bytes(&content).await == length
        {
            self.there.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let stream = self.cache.stream();
        for at in (0..length).step_by(STEP_BYTES as usize) {
            let range = at..length.min(at + STEP_BYTES);
            let bytes = range.end - range.start;
            self.cache.read(&content, range, &stream).await?;
            self.fetched_bytes.fetch_add(bytes, Ordering::Relaxed);
            if let Some(disk) = disk {
                disk.flush().await;
            }
            if self.volume.strong_count() == 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    fn tell(&self, volume: &str) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (files, there, bytes) = (of(&self.files), of(&self.there), of(&self.fetched_bytes));
        tracing::info!(volume, files, there, bytes, "the warm-up is over");
        if of(&self.no_room) > 0 {
            tracing::warn!(
                volume,
                files = of(&self.no_room),
                "the cache has no room for these files of the warm-up: name fewer paths, or give it more (--cache-size, \
                 or --cache-dir where there is none)"
            );
        }
        if of(&self.failed) > 0 {
            tracing::warn!(volume, failed = of(&self.failed), "files or paths of the warm-up could not be read");
        }
    }
}
