//! Bytes of blobs in memory: one budget, one pool, blocks shared by everybody who reads the same version.
//!
//! Knows nothing of files, inodes or FUSE. The map, from the bottom up:
//!
//! - [`budget`](Budget): who may hold memory. [`pool`](Pool): buffers that hold their share of it. [`vault`](Vault): buffers
//!   of dirty data, in a memory file that survives the process.
//! - [`block`](Block): 1 MiB with a validity bit per 64 KiB. [`BlockCache`]: which blocks are kept.
//! - [`content`](Content): one version of a blob's bytes. [`registry`](Registry): the one content of a version.
//! - `fetch`: one GET filling claimed pieces. [`stream`](ReadStream): fetching ahead. `reader`: answering reads.
//! - [`opening`](Opening): the first bytes, that come with the check of an open.
//! - `writes`: what our own commits leave behind. [`disk`](DiskTier): what is kept on the node's disk, between memory and
//!   the service.
//!
//! Lock order: stream, shard of the block cache, pool or vault, budget; the registry and a content's source are never held
//! together with them. Nothing awaits under any of these.

mod block;
mod block_cache;
mod budget;
mod content;
mod disk;
mod fetch;
mod opening;
mod pool;
mod reader;
mod registry;
mod slices;
mod stream;
#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests;
mod vault;
mod writes;

pub use block::{BLOCK_BYTES, Block, Claim, PIECE_BYTES, PIECES, Pieces, Waited};
pub use block_cache::{BlockCache, BlockCacheGauges};
pub use budget::{Budget, BudgetGauges, Class, DirtyShare, MEMORY_BYTES_MIN, Reclaim, Reservation};
pub use content::{Content, ContentId, Source};
pub use disk::{DiskGauges, DiskOptions, DiskTier};
pub use opening::Opening;
pub use pool::{BUFFER_BYTES, BUFFER_BYTES_MAX, Buffer, Filled, Pool};
pub use registry::Registry;
pub use slices::CachedBytes;
pub use stream::ReadStream;
pub use vault::{Place, Vault};

use std::{fmt, ops::Range};

use crate::sync::tokio::runtime::Handle;

use crate::{
    blob::{BlobName, BlobStore, ETag, Result},
    sync::{Arc, AtomicU64, AtomicUsize, Ordering, Weak},
};

/// Memory of a process that was not told otherwise and lives in no cgroup with a limit.
pub const MEMORY_BYTES_DEFAULT: u64 = 512 << 20;

/// Most bytes that one stream fetches ahead. 32 connections with the largest GET each: a link of 60 MiB/s a connection
/// and 10 ms is then limited by the machine, not by the window.
pub const READ_AHEAD_BYTES_DEFAULT: u64 = 128 << 20;

/// How a [`Cache`] is set up.
#[derive(Clone, Copy, Debug)]
pub struct CacheOptions {
    /// Memory that the whole process may use, in bytes.
    pub memory_bytes: u64,
    /// Most bytes that one stream fetches ahead; 0 fetches nothing ahead but the rest of a block.
    pub read_ahead_bytes: u64,
    /// How many volumes share the memory.
    pub volumes: Volumes,
}

/// How many volumes share a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Volumes {
    /// One: all memory for dirty data is its own.
    One,
    /// Any number: none holds more than half of the memory for dirty data, so that one whose service is silent or
    /// refuses it leaves room to the others.
    #[default]
    Many,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            memory_bytes: MEMORY_BYTES_DEFAULT,
            read_ahead_bytes: READ_AHEAD_BYTES_DEFAULT,
            volumes: Volumes::default(),
        }
    }
}

/// The cache of the process. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct Cache {
    shared: Arc<Shared>,
}

/// What readers, streams and writers work on.
struct Shared {
    pool: Pool,
    blocks: Arc<BlockCache>,
    contents: Arc<Registry>,
    disk: Option<DiskTier>,
    runtime: Handle,
    read_ahead_bytes: u64,
    volumes: Volumes,
    active_windows: Arc<AtomicUsize>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    joins: AtomicU64,
    fetches: AtomicU64,
    fetched_bytes: AtomicU64,
    prefetches: AtomicU64,
    prefetched_bytes: AtomicU64,
}

/// Counters and gauges for metrics. Counters only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheGauges {
    /// Memory.
    pub budget: BudgetGauges,
    /// Blocks.
    pub blocks: BlockCacheGauges,
    /// Memory kept warm for the next taker, in bytes.
    pub warm_bytes: u64,
    /// Contents alive.
    pub contents: usize,
    /// Streams that fetch ahead.
    pub windows: usize,
    /// Reads answered from memory.
    pub hits: u64,
    /// Reads that had to wait for the service.
    pub misses: u64,
    /// Of the misses, those for which somebody else's request was already under way.
    pub joins: u64,
    /// Requests made because a reader waited, and the bytes that they brought.
    pub fetches: u64,
    /// Bytes brought by `fetches`.
    pub fetched_bytes: u64,
    /// Requests made ahead of a reader, and the bytes that they brought.
    pub prefetches: u64,
    /// Bytes brought by `prefetches`.
    pub prefetched_bytes: u64,
    /// The disk tier, where there is one.
    pub disk: Option<DiskGauges>,
}

impl Cache {
    /// A cache whose fetches run on `runtime`, without a disk tier.
    #[must_use]
    pub fn new(options: CacheOptions, runtime: Handle) -> Self {
        Self::with_disk(options, None, runtime)
    }

    /// A cache whose fetches run on `runtime`, with a disk tier where one is described. With one it waits for the disk.
    #[must_use]
    pub fn with_disk(options: CacheOptions, disk: Option<DiskOptions>, runtime: Handle) -> Self {
        let budget = Budget::new(options.memory_bytes);
        let blocks = Arc::new(BlockCache::new());
        let reclaimer: Weak<BlockCache> = Arc::downgrade(&blocks);
        budget.set_reclaimer(reclaimer);
        let disk = disk.map(|disk| DiskTier::start(disk, options.memory_bytes, &runtime));
        Self {
            shared: Arc::new(Shared {
                pool: Pool::new(budget),
                blocks,
                contents: Arc::new(Registry::new(disk.clone())),
                disk,
                runtime,
                read_ahead_bytes: options.read_ahead_bytes,
                volumes: options.volumes,
                active_windows: Arc::default(),
                counters: Arc::default(),
            }),
        }
    }

    /// The memory budget of the process.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        self.shared.pool.budget()
    }

    /// Buffers for dirty data and whatever else needs memory of the budget.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    /// One volume's part of the memory for dirty data.
    #[must_use]
    pub fn dirty_share(&self) -> DirtyShare {
        let parts = match self.shared.volumes {
            Volumes::One => 1,
            Volumes::Many => 2,
        };
        self.budget().dirty_share(parts)
    }

    /// The content of a blob's version, shared with everybody who opened it in the same authorization `scope`; see
    /// [`Registry::open`]. `length` is the blob's, in bytes.
    #[must_use]
    pub fn open(
        &self,
        store: &Arc<dyn BlobStore>,
        scope: &str,
        name: BlobName,
        etag: ETag,
        length: u64,
    ) -> Arc<Content> {
        self.shared.contents.open(store, scope, name, etag, length)
    }

    /// What a handle needs to have its bytes fetched ahead. One a handle; dropping it cancels what is under way.
    #[must_use]
    pub fn stream(&self) -> ReadStream {
        ReadStream::new(&self.shared)
    }

    /// The bytes of `range` if all are in memory, without counting as a read: for a writer that puts the next version
    /// together. Cut at the end of the content.
    #[must_use]
    pub fn peek(&self, content: &Content, range: &Range<u64>) -> Option<CachedBytes> {
        self.shared.peek(content, range)
    }

    /// The bytes of `range`, cut at the end of the content, if all are in memory. Never waits: for the thread that
    /// brought the request. After `None`, ask [`Self::read`].
    #[must_use]
    pub fn try_read(&self, content: &Arc<Content>, range: Range<u64>, stream: &ReadStream) -> Option<CachedBytes> {
        self.shared.try_read(content, &range, stream)
    }

    /// The bytes of `range`, cut at the end of the content (empty behind it). Memory pressure makes it slower, never an
    /// error. Holds all of `range` in memory: ask for a few MiB at a time. Cancel-safe; a fetch that was started
    /// goes on for the next reader.
    ///
    /// # Errors
    /// What the service said to the request made for this read. `Precondition` or `NotFound`: this version is gone, and
    /// the content was not pointed elsewhere meanwhile; bytes of another version are never returned.
    pub async fn read(&self, content: &Arc<Content>, range: Range<u64>, stream: &ReadStream) -> Result<CachedBytes> {
        self.shared.read(content, &range, stream).await
    }

    /// The right to fill the first `bytes` of a content (a multiple of [`PIECE_BYTES`], or all of it). `None` where the first
    /// byte is there or on its way, where there is none, and where memory is short.
    #[must_use]
    pub fn claim_beginning(&self, content: &Arc<Content>, bytes: u64) -> Option<Opening> {
        Opening::claim(&self.shared, content, bytes)
    }

    /// As [`Self::claim_beginning`], for bytes that nobody has asked for yet: their memory counts as prefetch.
    #[must_use]
    pub fn claim_ahead(&self, content: &Arc<Content>, bytes: u64) -> Option<Opening> {
        Opening::claim_ahead(&self.shared, content, bytes)
    }

    /// Puts bytes at `offset` of a content in, as far as they cover whole pieces (the content's last piece may be short)
    /// and memory is to be had without taking it from readers. They must be the content's bytes.
    pub fn insert(&self, content: &Arc<Content>, offset: u64, bytes: &[u8]) {
        self.shared.insert(content, offset, bytes);
    }

    /// The content after a commit of ours: version `etag` of the same blob with `length` bytes, which takes over the
    /// cached pieces that lie wholly in `unchanged` (byte ranges with equal bytes at equal offsets in both versions).
    /// Blocks move: whoever still reads `old` may get `Precondition` and must go on with the new content.
    #[must_use]
    pub fn derive(&self, old: &Arc<Content>, etag: ETag, length: u64, unchanged: &[Range<u64>]) -> Arc<Content> {
        self.shared.derive(old, etag, length, unchanged)
    }

    /// Drops what is cached of a content. Readers that hold blocks keep them.
    pub fn forget(&self, content: &Content) {
        if let (Some(disk), Some(key)) = (&self.shared.disk, content.key()) {
            disk.forget(&key);
        }
        for index in self.shared.blocks.indices(content) {
            drop(self.shared.blocks.remove(content.id(), index));
        }
    }

    /// Bytes of a content that are in memory (metrics, and whether a file can be kept when its blob is deleted).
    #[must_use]
    pub fn cached_bytes(&self, content: &Content) -> u64 {
        let blocks = &self.shared.blocks;
        let bytes = |index: u64| blocks.peek(content.id(), index).map_or(0, |block| block.valid_bytes());
        blocks.indices(content).into_iter().map(bytes).sum()
    }

    /// The disk tier.
    #[must_use]
    pub fn disk(&self) -> Option<&DiskTier> {
        self.shared.disk.as_ref()
    }

    /// Counters and gauges.
    #[must_use]
    pub fn gauges(&self) -> CacheGauges {
        let counters = &self.shared.counters;
        CacheGauges {
            budget: self.budget().gauges(),
            blocks: self.shared.blocks.gauges(),
            warm_bytes: self.shared.pool.warm_bytes(),
            contents: self.shared.contents.count(),
            windows: self.shared.active_windows.load(Ordering::Relaxed),
            hits: counters.hits.load(Ordering::Relaxed),
            misses: counters.misses.load(Ordering::Relaxed),
            joins: counters.joins.load(Ordering::Relaxed),
            fetches: counters.fetches.load(Ordering::Relaxed),
            fetched_bytes: counters.fetched_bytes.load(Ordering::Relaxed),
            prefetches: counters.prefetches.load(Ordering::Relaxed),
            prefetched_bytes: counters.prefetched_bytes.load(Ordering::Relaxed),
            disk: self.shared.disk.as_ref().map(DiskTier::gauges),
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("gauges", &self.gauges()).finish()
    }
}
