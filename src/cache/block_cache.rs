//! Which blocks are kept, and which go first when memory is needed.
//!
//! A sharded map from (content, block index) to block. Each shard has three lists, each least recently used first:
//!
//! - *ahead*: fetched ahead and not yet read. Never pushed out for more prefetch: that would fetch bytes twice.
//! - *probation*: read, perhaps only once. A scan of a huge file passes through here.
//! - *protected*: read again after a while. A scan does not push it out (at most [`PROTECTED_PARTS`] of the blocks).
//!
//! A block that somebody holds (an `Arc` beside ours) or that is being filled is pinned. Knows nothing of fetching.

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use lru::LruCache;

use crate::sync::{Arc, AtomicU64, AtomicUsize, Mutex, Ordering};

use super::{
    block::{BLOCK_BYTES, Block},
    budget::{Class, Reclaim},
    content::{Content, ContentId},
};

/// Shards of the map; with a few session threads and cores two rarely meet (a guess).
const SHARDS: usize = 16;

/// Of every four blocks of a shard at most three are protected, so that new blocks have a chance to be read twice.
const PROTECTED_PARTS: (usize, usize) = (3, 4);

/// Fetched ahead so long ago that its reader is taken to have stopped: other streams may have the memory.
const AHEAD_STALE: Duration = Duration::from_secs(10);

type Key = (ContentId, u64);

/// The blocks in memory.
pub struct BlockCache {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    /// Counts insertions; tells a second use from the next request of the same scan.
    insertions: AtomicU64,
    /// Number of blocks.
    blocks: AtomicUsize,
    /// Counts uses: tells which shard has the coldest block.
    uses: AtomicU64,
    /// Blocks dropped for memory.
    evictions: AtomicU64,
    /// Blocks dropped for memory that were fetched ahead and never read.
    wasted: AtomicU64,
}

/// Short sections: nothing awaits inside, and what leaves a list is dropped after the guard (its Drop takes other locks).
struct Shard {
    ahead: LruCache<Key, Entry>,
    probation: LruCache<Key, Entry>,
    protected: LruCache<Key, Entry>,
}

struct Entry {
    block: Arc<Block>,
    #[expect(
        dead_code,
        reason = "held, not read: keeps the content alive, and with it the way to find its blocks again"
    )]
    content: Arc<Content>,
    since: Instant,
    /// `BlockCache::uses` when it was used last.
    used: u64,
}

/// Counters of the block cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCacheGauges {
    /// Blocks in memory.
    pub blocks: usize,
    /// Blocks dropped for memory so far.
    pub evictions: u64,
    /// Of these, blocks fetched ahead that nobody had read.
    pub wasted: u64,
}

impl BlockCache {
    /// An empty cache.
    #[must_use]
    pub fn new() -> Self {
        let shard = || {
            Mutex::new(Shard {
                ahead: LruCache::unbounded(),
                probation: LruCache::unbounded(),
                protected: LruCache::unbounded(),
            })
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: RandomState::new(),
            insertions: AtomicU64::new(0),
            blocks: AtomicUsize::new(0),
            uses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            wasted: AtomicU64::new(0),
        }
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// The block for a reader: counts as a use.
    #[must_use]
    pub fn read(&self, id: ContentId, index: u64) -> Option<Arc<Block>> {
        let now = self.insertions.load(Ordering::Relaxed);
        // Requests of one scan reach a block within fewer insertions than an eighth of the cache (a guess).
        let correlated = self.blocks.load(Ordering::Relaxed) as u64 / 8 + 2;
        let used = self.uses.fetch_add(1, Ordering::Relaxed);
        let block = self.shard(&(id, index)).lock().touch(&(id, index), Use { used, now, correlated })?;
        block.mark_read();
        Some(block)
    }

    /// The block, without counting as a use.
    #[must_use]
    pub fn peek(&self, id: ContentId, index: u64) -> Option<Arc<Block>> {
        self.shard(&(id, index)).lock().peek(&(id, index))
    }

    /// Puts a block in unless there is one, and returns the one that is there.
    pub fn insert(&self, content: &Arc<Content>, index: u64, block: Arc<Block>) -> Arc<Block> {
        let key = (content.id(), index);
        let mut shard = self.shard(&key).lock();
        if let Some(found) = shard.peek(&key) {
            return found;
        }
        block.inserted.store(self.insertions.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        self.blocks.fetch_add(1, Ordering::Relaxed);
        let used = self.uses.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { block: Arc::clone(&block), content: Arc::clone(content), since: Instant::now(), used };
        let list = if block.is_unread() { &mut shard.ahead } else { &mut shard.probation };
        list.put(key, entry);
        block
    }

    /// A block fetched ahead that its stream no longer wants: it goes first when memory is needed.
    pub fn abandon(&self, id: ContentId, index: u64) {
        let key = (id, index);
        let mut shard = self.shard(&key).lock();
        if let Some(entry) = shard.ahead.pop(&key) {
            entry.block.mark_read();
            shard.probation.put(key, Entry { used: 0, ..entry });
            shard.probation.demote(&key);
        }
    }

    /// A block that a scan has passed: its memory is free for what the scan fetches next, unless somebody holds the block or
    /// still wants to (the node's disk, that has not come to it yet), has read it before the scan came, or nobody has read
    /// it.
    pub fn pass(&self, id: ContentId, index: u64) {
        let key = (id, index);
        let mut shard = self.shard(&key).lock();
        let wanted = |block: &Arc<Block>| Arc::strong_count(block) > 1 || Arc::weak_count(block) > 0;
        let idle = |entry: &Entry| !wanted(&entry.block) && !entry.block.is_being_filled();
        if shard.probation.peek(&key).is_some_and(idle)
            && let Some(passed) = shard.probation.pop(&key)
        {
            self.blocks.fetch_sub(1, Ordering::Relaxed);
            drop(shard);
            drop(passed);
        }
    }

    /// Takes a block out. Readers that hold it keep it.
    pub fn remove(&self, id: ContentId, index: u64) -> Option<Arc<Block>> {
        let removed = self.shard(&(id, index)).lock().remove(&(id, index))?;
        self.blocks.fetch_sub(1, Ordering::Relaxed);
        Some(removed.block)
    }

    /// Indices of the cached blocks of a content, in no order. Costs the smaller of the content's blocks and the cache.
    #[must_use]
    pub fn indices(&self, content: &Content) -> Vec<u64> {
        let id = content.id();
        let count = content.length().div_ceil(BLOCK_BYTES);
        if count <= self.blocks.load(Ordering::Relaxed) as u64 {
            return (0..count).filter(|index| self.peek(id, *index).is_some()).collect();
        }
        let mut indices = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            for list in [&shard.ahead, &shard.probation, &shard.protected] {
                indices.extend(list.iter().map(|(key, _)| *key).filter(|key| key.0 == id).map(|key| key.1));
            }
        }
        indices
    }

    /// Counters.
    #[must_use]
    pub fn gauges(&self) -> BlockCacheGauges {
        BlockCacheGauges {
            blocks: self.blocks.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
            wasted: self.wasted.load(Ordering::Relaxed),
        }
    }

    /// Evicts the coldest blocks of one list until `bytes` are freed or there is nothing left to give. The coldest of all
    /// shards goes, not of one shard after another: in a small cache a shard's only block may be in use.
    fn evict(&self, bytes: u64, list: List) -> u64 {
        let mut freed = 0;
        let mut exhausted = [false; SHARDS];
        while freed < bytes {
            let coldest = (0..SHARDS).filter(|at| !exhausted[*at]);
            let coldest = coldest.filter_map(|at| Some((self.shards[at].lock().coldest_use(list)?, at))).min();
            let Some((_, at)) = coldest else { break };
            let victim = self.shards[at].lock().pop_victim(list);
            let Some(victim) = victim else {
                exhausted[at] = true;
                continue;
            };
            freed += victim.block.capacity();
            self.blocks.fetch_sub(1, Ordering::Relaxed);
            self.evictions.fetch_add(1, Ordering::Relaxed);
            if matches!(list, List::Ahead | List::AheadStale) {
                self.wasted.fetch_add(1, Ordering::Relaxed);
            }
        }
        freed
    }
}

impl Default for BlockCache {
    fn default() -> Self {
        Self::new()
    }
}

impl Reclaim for BlockCache {
    fn reclaim(&self, bytes: u64, class: Class) -> u64 {
        let lists: &[List] = match class {
            Class::Prefetch => &[List::Probation, List::AheadStale, List::Protected],
            Class::Demand | Class::Dirty => &[List::Probation, List::AheadStale, List::Protected, List::Ahead],
        };
        let mut freed = 0;
        for list in lists {
            if freed < bytes {
                freed += self.evict(bytes - freed, *list);
            }
        }
        freed
    }
}

/// A list to evict from.
#[derive(Clone, Copy)]
enum List {
    Probation,
    Protected,
    AheadStale,
    Ahead,
}

/// One use of a block.
#[derive(Clone, Copy)]
struct Use {
    /// Place in the order of uses.
    used: u64,
    /// Insertions so far.
    now: u64,
    /// Within so many insertions uses belong to one scan.
    correlated: u64,
}

impl Shard {
    fn peek(&self, key: &Key) -> Option<Arc<Block>> {
        let lists = [&self.probation, &self.protected, &self.ahead];
        lists.into_iter().find_map(|list| list.peek(key)).map(|entry| Arc::clone(&entry.block))
    }

    fn remove(&mut self, key: &Key) -> Option<Entry> {
        let lists = [&mut self.probation, &mut self.protected, &mut self.ahead];
        lists.into_iter().find_map(|list| list.pop(key))
    }

    /// A use of the block.
    fn touch(&mut self, key: &Key, access: Use) -> Option<Arc<Block>> {
        if let Some(entry) = self.protected.get_mut(key) {
            entry.used = access.used;
            return Some(Arc::clone(&entry.block));
        }
        if let Some(entry) = self.probation.get_mut(key) {
            entry.used = access.used;
            let block = Arc::clone(&entry.block);
            if access.now.saturating_sub(block.inserted.load(Ordering::Relaxed)) > access.correlated
                && let Some(entry) = self.probation.pop(key)
            {
                self.protected.put(*key, entry);
                self.bound_protected();
            }
            return Some(block);
        }
        let entry = self.ahead.pop(key)?;
        let block = Arc::clone(&entry.block);
        // It was fetched some time before; its first use is its arrival.
        block.inserted.store(access.now, Ordering::Relaxed);
        self.probation.put(*key, Entry { used: access.used, ..entry });
        Some(block)
    }

    fn list(&mut self, list: List) -> &mut LruCache<Key, Entry> {
        match list {
            List::Probation => &mut self.probation,
            List::Protected => &mut self.protected,
            List::Ahead | List::AheadStale => &mut self.ahead,
        }
    }

    /// When the coldest block of the list was used.
    fn coldest_use(&mut self, list: List) -> Option<u64> {
        self.list(list).peek_lru().map(|(_, entry)| entry.used)
    }

    fn bound_protected(&mut self) {
        let (parts, of) = PROTECTED_PARTS;
        while self.protected.len() * of > (self.protected.len() + self.probation.len() + 1) * parts {
            let Some((key, entry)) = self.protected.pop_lru() else { return };
            self.probation.put(key, entry);
        }
    }

    /// The coldest block of a list that nobody holds and nothing fills. Pinned ones met on the way become the warmest:
    /// they are in use now.
    fn pop_victim(&mut self, list: List) -> Option<Entry> {
        let blocks = self.list(list);
        for _ in 0..blocks.len() {
            if matches!(list, List::AheadStale)
                && blocks.peek_lru().is_some_and(|(_, e)| e.since.elapsed() < AHEAD_STALE)
            {
                return None;
            }
            let (key, entry) = blocks.pop_lru()?;
            if Arc::strong_count(&entry.block) == 1 && !entry.block.is_being_filled() {
                return Some(entry);
            }
            blocks.put(key, entry);
        }
        None
    }
}
