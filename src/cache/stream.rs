//! Notices that a handle is read in order, and fetches ahead of it.
//!
//! A [`ReadStream`] belongs to one open handle. It follows up to [`CURSORS_MAX`] places at once (two threads that read
//! two parts of a file are two cursors). From the second read in order a cursor has a window: bytes in front of the
//! reader that are fetched, or being fetched, in parallel GETs of whole blocks. The window doubles when the reader has
//! to wait for it (it is too small for bandwidth x latency) and halves when memory is refused. It is cancelled when the
//! handle goes elsewhere or is closed. A window that fails is silent: the reader fetches what is missing and gets the
//! error then. Knows nothing of how a read is answered.

use std::{collections::VecDeque, ops::Range};

use crate::sync::tokio::task::AbortHandle;

use crate::sync::{Arc, Mutex, Ordering, Weak};

use super::{
    Shared,
    block::{BLOCK_BYTES, Block, Pieces},
    budget::Class,
    content::{Content, ContentId},
    fetch::claim_runs,
};

/// Places of one handle that are followed at once (a guess: readers with more are random readers).
const CURSORS_MAX: usize = 4;

/// First window. Small enough to be cheap when the reader stops after two reads.
const WINDOW_BYTES_FIRST: u64 = 4 << 20;

/// Smallest window: one block.
const WINDOW_BYTES_MIN: u64 = BLOCK_BYTES;

/// Largest GET of a window. At 60 MiB/s and 10 ms to the first byte a connection loses 13 % to latency with it; larger
/// ones need more memory for the same number of connections.
const PART_BYTES_MAX: u64 = 4 << 20;

/// A window is cut into about so many GETs while it is smaller than that many of the largest.
const PARTS_OF_A_WINDOW: u64 = 4;

/// Reads of the handle elsewhere after which a window is given up.
const ELSEWHERE_READS_MAX: u64 = 16;

/// How far reads in order may overtake each other, in lengths of the read: the kernel reads ahead with several requests
/// at once, and session threads take them in any order.
const DISORDER_READS: u64 = 2;

/// Half-read blocks of all streams pin at most one part in this many of the memory (a guess).
const CURRENT_SHARE: u64 = 3;

/// What one open handle reads in order. Dropping it cancels what is being fetched ahead.
pub struct ReadStream {
    shared: Weak<Shared>,
    /// Short sections, nothing awaits inside. Taken before the locks of blocks and budget.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cursors: Vec<Cursor>,
    /// Reads of this handle so far.
    reads: u64,
}

/// One place that is read in order.
struct Cursor {
    content: ContentId,
    /// End of the furthest read.
    next: u64,
    /// Reads in order so far.
    run: u64,
    /// `State::reads` when it was used last.
    used: u64,
    window: Option<Window>,
}

/// What is fetched ahead of a cursor.
struct Window {
    content: ContentId,
    blocks: Arc<super::BlockCache>,
    active: ActiveWindow,
    /// Bytes that should be ahead of the reader.
    target: u64,
    /// Up to here GETs were issued.
    issued: u64,
    /// The window may grow again when the reader has come here.
    grow_at: u64,
    /// GETs under way or done, with the end of their range.
    parts: VecDeque<(u64, AbortHandle)>,
    /// The block that is half read: pinned, since a reader that stands still for a moment must not find it evicted.
    current: Option<Arc<Block>>,
}

/// Counts a living window, so that all share the memory.
struct ActiveWindow(Arc<crate::sync::AtomicUsize>);

impl Drop for ActiveWindow {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ReadStream {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::downgrade(shared), state: Mutex::default() }
    }

    /// Whether a read of `range` would continue what was read before.
    pub(super) fn continues(&self, content: &Content, range: &Range<u64>) -> bool {
        self.state.lock().cursors.iter().any(|cursor| cursor.follows(content.id(), range))
    }

    /// Notes a read of `range` and fetches ahead if it is in order. `waited`: the bytes were not there.
    /// `last`: the block where the read ends. Noting the same read twice does no harm.
    pub(super) fn advance(&self, content: &Arc<Content>, range: &Range<u64>, waited: bool, last: Option<&Arc<Block>>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut state = self.state.lock();
        let state = &mut *state;
        state.reads += 1;
        let reads = state.reads;
        for cursor in &mut state.cursors {
            if reads - cursor.used > ELSEWHERE_READS_MAX {
                cursor.cancel();
            }
        }
        match state.cursors.iter_mut().find(|cursor| cursor.follows(content.id(), range)) {
            Some(cursor) => {
                cursor.used = reads;
                cursor.run += u64::from(range.end > cursor.next);
                cursor.next = cursor.next.max(range.end);
                cursor.fetch_ahead(&shared, content, waited);
                if let Some(window) = &mut cursor.window {
                    window.keep(&shared, range.end, last);
                }
            }
            None => {
                state.start_cursor(Cursor {
                    content: content.id(),
                    next: range.end,
                    run: 1,
                    used: reads,
                    window: None,
                });
            }
        }
    }

    /// Gives up everything that is being fetched ahead (the caller seeks, or drops caches).
    pub fn cancel(&self) {
        let mut state = self.state.lock();
        state.cursors.iter_mut().for_each(Cursor::cancel);
        state.cursors.clear();
    }
}

impl Drop for ReadStream {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl std::fmt::Debug for ReadStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReadStream({} cursors)", self.state.lock().cursors.len())
    }
}

impl State {
    /// The cursor used longest ago makes room.
    fn start_cursor(&mut self, cursor: Cursor) {
        if self.cursors.len() >= CURSORS_MAX
            && let Some(oldest) = (0..self.cursors.len()).min_by_key(|at| self.cursors[*at].used)
        {
            self.cursors.swap_remove(oldest).cancel();
        }
        self.cursors.push(cursor);
    }
}

impl Cursor {
    fn follows(&self, content: ContentId, range: &Range<u64>) -> bool {
        let disorder = DISORDER_READS * (range.end - range.start);
        let furthest = self.window.as_ref().map_or(self.next, |window| window.issued.max(self.next));
        self.content == content && range.start <= furthest + disorder && range.end + disorder >= self.next
    }

    fn cancel(&mut self) {
        if let Some(window) = self.window.take() {
            window.cancel(self.next);
        }
    }

    fn fetch_ahead(&mut self, shared: &Arc<Shared>, content: &Arc<Content>, waited: bool) {
        if self.run < 2 || shared.read_ahead_bytes == 0 {
            return;
        }
        if self.next >= content.length() {
            // All of it is issued. What is still arriving is wanted by reads that were overtaken: no cancelling.
            self.window = None;
            return;
        }
        let next = self.next;
        let window = self.window.get_or_insert_with(|| Window::new(shared, content, next));
        window.resize(shared, next, waited);
        window.issue(shared, content, next);
    }
}

impl Window {
    fn new(shared: &Arc<Shared>, content: &Content, next: u64) -> Self {
        shared.active_windows.fetch_add(1, Ordering::Relaxed);
        Self {
            content: content.id(),
            blocks: Arc::clone(&shared.blocks),
            active: ActiveWindow(Arc::clone(&shared.active_windows)),
            target: WINDOW_BYTES_FIRST,
            issued: next,
            grow_at: next,
            parts: VecDeque::new(),
            current: None,
        }
    }

    /// Doubles when the reader had to wait, and keeps to this window's share of the memory.
    fn resize(&mut self, shared: &Shared, next: u64, waited: bool) {
        if waited && next >= self.grow_at {
            self.grow_at = next + self.target / 2;
            self.target *= 2;
        }
        let windows = self.active.0.load(Ordering::Relaxed).max(1) as u64;
        let share = shared.pool.budget().limit_bytes(Class::Prefetch) / windows;
        self.target = self.target.min(shared.read_ahead_bytes).min(share).max(WINDOW_BYTES_MIN);
    }

    /// Pins the block that the reader is in the middle of, while all windows together pin a small part of the memory.
    fn keep(&mut self, shared: &Shared, read_end: u64, last: Option<&Arc<Block>>) {
        let windows = self.active.0.load(Ordering::Relaxed) as u64;
        let few = windows * BLOCK_BYTES <= shared.pool.budget().pool_bytes() / CURRENT_SHARE;
        let half_read = !read_end.is_multiple_of(BLOCK_BYTES);
        self.current = last.filter(|_| few && half_read).cloned();
    }

    /// Issues GETs until the window is full, each as large as the window allows.
    fn issue(&mut self, shared: &Arc<Shared>, content: &Arc<Content>, next: u64) {
        self.issued = self.issued.max(next);
        while self.parts.front().is_some_and(|(end, task)| *end <= next || task.is_finished()) {
            self.parts.pop_front();
        }
        let part = (self.target / PARTS_OF_A_WINDOW / BLOCK_BYTES * BLOCK_BYTES).clamp(BLOCK_BYTES, PART_BYTES_MAX);
        loop {
            // To a block boundary, so that no block is fetched by two GETs.
            let end = ((self.issued + part) / BLOCK_BYTES * BLOCK_BYTES).min(content.length());
            let full = end > (next + self.target).next_multiple_of(BLOCK_BYTES);
            if self.issued >= content.length() || full {
                return;
            }
            let reached = self.issue_part(shared, content, self.issued..end);
            self.issued = reached;
            if reached < end {
                self.target = (self.target / 2).max(WINDOW_BYTES_MIN);
                return;
            }
        }
    }

    /// Fetches what of `range` nobody has or fetches. Returns how far memory went.
    fn issue_part(&mut self, shared: &Arc<Shared>, content: &Arc<Content>, range: Range<u64>) -> u64 {
        let mut blocks = Vec::new();
        let mut reached = range.start;
        while reached < range.end {
            let index = reached / BLOCK_BYTES;
            let start = index * BLOCK_BYTES;
            let Some(block) = shared.block_ahead(content, index) else { break };
            let end = range.end.min(start + block.length());
            blocks.push((index, block, Pieces::touched_by(&(reached - start..end - start))));
            reached = end;
        }
        for mut run in claim_runs(blocks.iter().map(|(index, block, wanted)| (*index, block, *wanted))) {
            let (end, content, counters) = (run.range().end, Arc::clone(content), Arc::clone(&shared.counters));
            let disk = shared.disk.clone();
            counters.prefetches.fetch_add(1, Ordering::Relaxed);
            let task = shared.runtime.spawn(async move {
                if let Err(error) = run.fetch(&content, disk.as_ref(), &counters.prefetched_bytes).await {
                    tracing::debug!(%error, ?content, "fetching ahead failed; a reader will try again");
                }
            });
            self.parts.push_back((end, task.abort_handle()));
        }
        reached
    }

    /// Stops what is being fetched beyond `next`, and lets what was fetched go first when memory is needed.
    fn cancel(self, next: u64) {
        self.parts.iter().for_each(|(_, task)| task.abort());
        for index in next / BLOCK_BYTES..self.issued.div_ceil(BLOCK_BYTES) {
            self.blocks.abandon(self.content, index);
        }
    }
}

impl Shared {
    /// The block to fetch ahead into, made if need be; `None` when memory is short.
    fn block_ahead(&self, content: &Arc<Content>, index: u64) -> Option<Arc<Block>> {
        if let Some(block) = self.blocks.peek(content.id(), index) {
            return Some(block);
        }
        let buffer = self.pool.try_buffer(Class::Prefetch, block_length(content, index))?;
        Some(self.blocks.insert(content, index, Arc::new(Block::new(buffer))))
    }
}

/// Bytes of block `index` of a content.
pub(super) fn block_length(content: &Content, index: u64) -> usize {
    let length = content.length().saturating_sub(index * BLOCK_BYTES).min(BLOCK_BYTES);
    usize::try_from(length).unwrap_or(usize::MAX)
}
