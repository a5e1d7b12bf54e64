//! The disk tier: what was fetched once is kept on the node's disk, across restarts, under one byte budget.
//!
//! Between memory and the service: a block that is not in memory is looked for here, and what comes from the service is
//! written here behind its readers. Nothing depends on it. What is damaged, half-written or gone is fetched again; a disk
//! that is slow is skipped; one that is full, read-only or gone is left alone and tried again later.
//!
//! - [`file`]: one version on disk, and when its pieces are believed. [`table`]: what is there, and what goes first.
//! - [`directory`]: lock, scan, open files. [`writer`]: the one who changes anything. [`fill`]: the way into memory.
//!   [`whole`]: a version that others may read by themselves.
//!
//! Knows nothing of inodes or FUSE. No function that touches the disk runs on a thread that answers requests: readers have
//! a bounded number of blocking threads, the writer has one.

mod directory;
mod file;
mod fill;
mod table;
mod whole;
mod writer;

use std::{fmt, io, ops::Range, path::PathBuf};

use crate::sync::{
    Arc, AtomicBool, AtomicU64, Ordering, RwLock,
    tokio::{
        runtime::Handle,
        sync::{Semaphore, mpsc, oneshot},
        task::spawn_blocking,
    },
};

use self::{
    directory::Directory,
    file::FileId,
    writer::{EVICT_PART, Job, Keep},
};
use super::{block::Block, registry::Key};

pub(super) use self::directory::Rename;

/// Reads of the disk at once. More than the queue depth at which local disks are fastest makes each of them slower.
const READS_MAX: usize = 8;

/// Parts of blocks that may wait to be written. They pin no memory (what is evicted before its turn is not written), so this
/// bounds their descriptions alone: about 2 MiB.
const QUEUED_MAX: u64 = 8192;

/// What is known of the versions on disk takes at most one part in this many of the memory ...
const TABLE_PART: u64 = 16;

/// ... at so many bytes a version: key, entry, and a hash table that is half full.
const TABLE_ENTRY_BYTES: u64 = 80;

/// How the tier is set up.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// A directory on the node's disk, made where it is missing. Only `blocks` in it is ours.
    pub directory: PathBuf,
    /// Most bytes that it holds.
    pub size_bytes: u64,
    /// Part of the file system that stays free, in percent.
    pub free_percent_min: u8,
}

impl DiskOptions {
    /// Part of the file system that is left to others: one in ten. The kubelet evicts pods below 10 % of free space
    /// (`nodefs.available`), and file systems become slow when nearly full.
    pub const FREE_PERCENT_MIN_DEFAULT: u8 = 10;

    /// A tier in `directory` of at most `size_bytes`, by default all of the file system but the part that stays free.
    #[must_use]
    pub fn new(directory: PathBuf, size_bytes: Option<u64>) -> Self {
        let size_bytes = size_bytes.unwrap_or(u64::MAX);
        Self { directory, size_bytes, free_percent_min: Self::FREE_PERCENT_MIN_DEFAULT }
    }
}

/// Counters and gauges of the tier. Counters only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskGauges {
    /// Whether it is in use.
    pub on: bool,
    /// Whether what an earlier process left is all known.
    pub scanned: bool,
    /// Bytes on disk.
    pub bytes: u64,
    /// Versions on disk.
    pub versions: usize,
    /// Parts of blocks that wait to be written.
    pub queued: u64,
    /// Bytes read from disk.
    pub read_bytes: u64,
    /// Bytes written to disk.
    pub written_bytes: u64,
    /// Bytes that were not written since the disk is slow, full or gone.
    pub dropped_bytes: u64,
    /// Pieces whose bytes were not right, and which were fetched again.
    pub corrupt_pieces: u64,
    /// Versions taken away for room.
    pub evictions: u64,
    /// Times that the disk refused something.
    pub errors: u64,
}

#[derive(Default)]
struct Counters {
    queued: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    dropped_bytes: AtomicU64,
    corrupt_pieces: AtomicU64,
    evictions: AtomicU64,
    errors: AtomicU64,
}

/// The tier of the process. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct DiskTier {
    inner: Arc<Inner>,
}

struct Inner {
    options: DiskOptions,
    runtime: Handle,
    /// `None` while the disk is left alone.
    directory: RwLock<Option<Arc<Directory>>>,
    jobs: mpsc::UnboundedSender<Job>,
    reads: Arc<Semaphore>,
    versions_max: usize,
    /// Whether it was said why the tier is off, or that a piece is damaged: each is said once, until it is mended.
    told_off: AtomicBool,
    told_corrupt: AtomicBool,
    counters: Counters,
}

impl DiskTier {
    /// Starts the tier beside a memory budget of `memory_bytes`. What an earlier process left is found in the background.
    /// Never fails: a directory that cannot be used is said, and tried again.
    ///
    /// Waits for the disk: to be called where that is no harm.
    #[must_use]
    pub fn start(options: DiskOptions, memory_bytes: u64, runtime: &Handle) -> Self {
        let (jobs, received) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            options,
            directory: RwLock::new(None),
            jobs,
            reads: Arc::new(Semaphore::new(READS_MAX)),
            versions_max: usize::try_from(memory_bytes / TABLE_PART / TABLE_ENTRY_BYTES).unwrap_or(usize::MAX),
            told_off: AtomicBool::new(false),
            told_corrupt: AtomicBool::new(false),
            counters: Counters::default(),
            runtime: runtime.clone(),
        });
        inner.switch_on();
        runtime.spawn(writer::run(Arc::downgrade(&inner), received));
        Self { inner }
    }

    /// Waits until everything that was handed over is on disk, or dropped. Cancel-safe.
    pub async fn flush(&self) {
        let (told, done) = oneshot::channel();
        if self.inner.jobs.send(Job::Barrier(told)).is_ok() {
            let _ = done.await;
        }
    }

    /// Most bytes that it can hold without taking some away again: its budget, or what the file system has room for. Zero
    /// while the disk is left alone.
    pub async fn room_bytes(&self) -> u64 {
        let Some(directory) = self.inner.directory() else { return 0 };
        let (budget, floor_percent) = (self.inner.options.size_bytes, self.inner.options.free_percent_min);
        let looked = spawn_blocking(move || {
            let (free, all) = directory.room().ok()?;
            let held = directory.table.lock().bytes();
            Some(held + free.saturating_sub(all / 100 * u64::from(floor_percent)))
        });
        let most = looked.await.ok().flatten().unwrap_or(0).min(budget);
        most - most / EVICT_PART
    }

    /// Whether somebody fetches what will be handed over.
    #[cfg(all(test, not(feature = "shuttle")))]
    pub(super) fn is_fetching(&self) -> bool {
        // The cache and its registry have one handle each, and so has every fetch.
        Arc::strong_count(&self.inner) > 2
    }

    /// Counters and gauges.
    #[must_use]
    pub fn gauges(&self) -> DiskGauges {
        let counters = &self.inner.counters;
        let directory = self.inner.directory();
        let table = directory.as_ref().map(|directory| directory.table.lock());
        DiskGauges {
            on: directory.is_some(),
            scanned: directory.as_ref().is_some_and(|directory| directory.is_scanned()),
            bytes: table.as_ref().map_or(0, |table| table.bytes()),
            versions: table.as_ref().map_or(0, |table| table.len()),
            queued: counters.queued.load(Ordering::Relaxed),
            read_bytes: counters.read_bytes.load(Ordering::Relaxed),
            written_bytes: counters.written_bytes.load(Ordering::Relaxed),
            dropped_bytes: counters.dropped_bytes.load(Ordering::Relaxed),
            corrupt_pieces: counters.corrupt_pieces.load(Ordering::Relaxed),
            evictions: counters.evictions.load(Ordering::Relaxed),
            errors: counters.errors.load(Ordering::Relaxed),
        }
    }

    /// Keeps pieces that were fetched: `range` of block `index` begins and ends with pieces, which are valid. Drops them
    /// when the disk does not keep up. Never waits.
    pub(super) fn keep(&self, key: Key, length: u64, index: u64, block: &Arc<Block>, range: Range<u64>) {
        let counters = &self.inner.counters;
        let bytes = range.end - range.start;
        let queued = counters.queued.fetch_add(1, Ordering::Relaxed);
        let fits = queued < QUEUED_MAX && self.inner.directory.read().is_some();
        let job = Job::Keep(Keep { key, length, index, block: Arc::downgrade(block), range });
        if !fits || self.inner.jobs.send(job).is_err() {
            counters.queued.fetch_sub(1, Ordering::Relaxed);
            counters.dropped_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// What is kept under `from` is version `to` of the same length now. Never waits.
    pub(super) fn rename(&self, from: Key, to: Key, length: u64) {
        let unchanged = std::iter::once(0..length).collect();
        self.derive(Rename { from, from_length: length, to, length, unchanged });
    }

    /// What is kept of one version is part of another one now. Never waits.
    pub(super) fn derive(&self, change: Rename) {
        if self.may_have(&change.from) {
            // Refused only when the writer is gone, and with it the tier.
            let _ = self.inner.jobs.send(Job::Rename(change));
        }
    }

    /// Nobody will ask for this version again. Never waits.
    pub(super) fn forget(&self, key: &Key) {
        if self.may_have(key) {
            let _ = self.inner.jobs.send(Job::Forget(FileId::of(key)));
        }
    }

    /// Whether some of a version is on disk, or that is not known yet. Never waits.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.inner.directory().is_some_and(|directory| directory.may_have(FileId::of(key)))
    }

    /// Whether a version may be on disk, now or when what is queued is written. Never waits.
    fn may_have(&self, key: &Key) -> bool {
        let queued = self.inner.counters.queued.load(Ordering::Relaxed) > 0;
        self.inner.directory().is_some_and(|directory| queued || directory.may_have(FileId::of(key)))
    }
}

impl Inner {
    fn directory(&self) -> Option<Arc<Directory>> {
        self.directory.read().clone()
    }

    /// Begins to use the directory. Waits for the disk. False when it cannot be used, which is said once.
    fn switch_on(self: &Arc<Self>) -> bool {
        let directory = match Directory::open(&self.options.directory) {
            Ok(directory) => Arc::new(directory),
            Err(error) => {
                self.switch_off(&error);
                return false;
            }
        };
        *self.directory.write() = Some(Arc::clone(&directory));
        if self.told_off.swap(false, Ordering::Relaxed) {
            tracing::info!("the cache directory {} is in use again", self.options.directory.display());
        }
        let inner = Arc::clone(self);
        drop(self.runtime.spawn(async move {
            let scan = spawn_blocking(move || {
                if let Err(error) = directory.scan(inner.versions_max) {
                    inner.switch_off(&error);
                }
            });
            // A panic in it is reported by the runtime; the tier then looks into the directory each time.
            let _ = scan.await;
        }));
        true
    }

    /// Leaves the disk alone. Whoever reads from it goes on to the service.
    fn switch_off(&self, error: &io::Error) {
        if let Some(directory) = self.directory.write().take() {
            directory.close();
        }
        if !self.told_off.swap(true, Ordering::Relaxed) {
            let directory = self.options.directory.display();
            tracing::warn!("the cache directory {directory} is not used for now: {error}");
        }
    }
}

impl fmt::Debug for DiskTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskTier").field("gauges", &self.gauges()).finish()
    }
}
