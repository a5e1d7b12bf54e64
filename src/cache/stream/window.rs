//! The bytes in front of one reader that are fetched, or being fetched.
//!
//! How many: a window doubles when its reader has to wait (it is too small for the reader's speed x the link's latency),
//! never beyond a multiple of what the reader has read, and halves when memory is refused. In how many GETs: a connection
//! has its own speed, so a window is cut into as many as it takes to be as fast as a reader can be, each no smaller than
//! a block and large enough to be worth its round trip. Both come from what the store has measured of its link.

use std::{collections::VecDeque, ops::Range};

use crate::sync::tokio::task::AbortHandle;

use crate::{
    blob::LinkEstimate,
    cache::{
        BlockCache, Shared,
        block::{BLOCK_BYTES, Block, Pieces},
        budget::Class,
        content::Content,
        fetch::claim_runs,
    },
    sync::{Arc, AtomicUsize, Ordering},
};

use super::{Direction, block_length};

/// First window. Small enough to be cheap when the reader stops after two reads.
const WINDOW_BYTES_FIRST: u64 = 4 << 20;

/// Smallest window: one block.
const WINDOW_BYTES_MIN: u64 = BLOCK_BYTES;

/// A window has at most so many times the bytes that its reader has read, beside the first: so much may be fetched in vain
/// when it stops without closing the file. With 3 a reader of 1 GiB/s has the window that it needs after 40 MiB.
const WINDOW_OF_READ: u64 = 3;

/// A window that grew waits until so much of it was read, one part in this many, before it grows again: the GETs that it
/// was grown by have then had time to answer.
const GROWTH_PAUSE: u64 = 8;

/// Connections that all windows use at most. 32 saturate a node (1.7 GiB/s at 60 MiB/s each); more only share it, in smaller
/// GETs (0.3 ms of processor time each).
const PARTS_MAX: u64 = 32;

/// And one window at least, while the window is large enough.
const PARTS_MIN: u64 = 4;

/// What one reader takes at most: copies out of the kernel's pages (2.3 to 3.5 GiB/s with 1 MiB requests).
const READER_BYTES_PER_SECOND: u64 = 3 << 30;

/// A GET is worth its round trip when its body takes so many times as long: one part in eight is then lost.
const BODY_OF_ROUND_TRIP: u32 = 7;

/// Bounds of the largest GET, and what it is while nothing was measured. Larger ones need more memory for the same number of
/// connections.
const PART_BYTES: Range<u64> = 2 << 20..8 << 20;
const PART_BYTES_UNMEASURED: u64 = 4 << 20;

/// Bodies arrive from front to back: on the way down the bytes that are wanted first come last.
const PART_BYTES_DOWN: u64 = BLOCK_BYTES;

/// Half-read blocks of all streams pin at most one part in this many of the memory (a guess).
const CURRENT_SHARE: u64 = 3;

/// Of a content larger than one part of the memory in [`SCANNED_PART`], a reader that goes through it alone keeps the first
/// part in [`HEAD_PART`], and lets go of the rest behind it. Else it would leave the end of the content, which the next one
/// that goes through it would push out before it comes there; and every byte would need memory that nothing has touched
/// lately, where a first touch costs 0.2 s/GiB, and 0.1 s/GiB of copies miss the processor's cache (cold read of 1 GiB).
const SCANNED_PART: u64 = 2;
/// See [`SCANNED_PART`].
const HEAD_PART: u64 = 8;

/// How far behind a reader its blocks stay: requests that the kernel sent before may be taken later (a guess: 8 of its
/// largest).
const BEHIND_BYTES: u64 = 8 << 20;

/// What is fetched ahead of a cursor.
pub(super) struct Window {
    content: Arc<Content>,
    /// Up to here blocks behind the reader were let go.
    passed: u64,
    direction: Direction,
    blocks: Arc<BlockCache>,
    active: ActiveWindow,
    /// Where it was opened.
    origin: u64,
    /// Bytes that should be ahead of the reader.
    target: u64,
    /// Up to here GETs were issued.
    issued: u64,
    /// The window may grow again when the reader has read so many bytes.
    grow_at: u64,
    /// GETs under way or done, with the far end of their range.
    parts: VecDeque<(u64, AbortHandle)>,
    /// The block that is half read: pinned, since a reader that stands still for a moment must not find it evicted.
    current: Option<Arc<Block>>,
}

/// Counts a living window, so that all share the memory.
struct ActiveWindow(Arc<AtomicUsize>);

impl Drop for ActiveWindow {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Window {
    pub(super) fn new(shared: &Arc<Shared>, content: &Arc<Content>, direction: Direction, place: u64) -> Self {
        shared.active_windows.fetch_add(1, Ordering::Relaxed);
        content.windows.fetch_add(1, Ordering::Relaxed);
        Self {
            content: Arc::clone(content),
            passed: place,
            direction,
            blocks: Arc::clone(&shared.blocks),
            active: ActiveWindow(Arc::clone(&shared.active_windows)),
            origin: place,
            target: WINDOW_BYTES_FIRST,
            issued: place,
            grow_at: 0,
            parts: VecDeque::new(),
            current: None,
        }
    }

    /// Up to where GETs were issued.
    pub(super) fn reach(&self) -> u64 {
        self.issued
    }

    /// The reader has come to `place`; `waited`: the bytes were not there.
    pub(super) fn advance(&mut self, shared: &Arc<Shared>, content: &Arc<Content>, place: u64, waited: bool) {
        self.resize(shared, place, waited);
        self.let_go_behind(shared, place);
        self.issue(shared, content, place);
    }

    /// Doubles when the reader had to wait, and keeps to this window's share of the memory.
    fn resize(&mut self, shared: &Shared, place: u64, waited: bool) {
        let read = place.abs_diff(self.origin);
        if waited && read >= self.grow_at {
            self.grow_at = read + self.target / GROWTH_PAUSE;
            self.target = (self.target * 2).min(WINDOW_BYTES_FIRST + WINDOW_OF_READ * read).max(self.target);
        }
        let windows = self.active.0.load(Ordering::Relaxed).max(1) as u64;
        let share = shared.pool.budget().limit_bytes(Class::Prefetch) / windows;
        self.target = self.target.min(shared.read_ahead_bytes).min(share).max(WINDOW_BYTES_MIN);
    }

    /// Lets go of what the reader has passed, see [`SCANNED_PART`].
    fn let_go_behind(&mut self, shared: &Shared, place: u64) {
        let memory = shared.pool.budget().pool_bytes();
        let alone = self.content.windows.load(Ordering::Relaxed) == 1;
        if self.direction != Direction::Up || self.content.length() <= memory / SCANNED_PART {
            return;
        }
        let end = place.saturating_sub(BEHIND_BYTES) / BLOCK_BYTES;
        if alone {
            let first = self.passed.max(memory / HEAD_PART) / BLOCK_BYTES;
            (first..end).for_each(|index| self.blocks.pass(self.content.id(), index));
        }
        self.passed = self.passed.max(end * BLOCK_BYTES);
    }

    /// Pins the block that the reader is in the middle of, while all windows together pin a small part of the memory.
    pub(super) fn keep(&mut self, shared: &Shared, read_end: u64, last: Option<&Arc<Block>>) {
        let windows = self.active.0.load(Ordering::Relaxed) as u64;
        let few = windows * BLOCK_BYTES <= shared.pool.budget().pool_bytes() / CURRENT_SHARE;
        let half_read = !read_end.is_multiple_of(BLOCK_BYTES);
        self.current = last.filter(|_| few && half_read).cloned();
    }

    /// Issues GETs until the window is full, each as large as the window allows.
    fn issue(&mut self, shared: &Arc<Shared>, content: &Arc<Content>, place: u64) {
        let passed = |end: u64| match self.direction {
            Direction::Up => end <= place,
            Direction::Down => end >= place,
        };
        while self.parts.front().is_some_and(|(end, task)| passed(*end) || task.is_finished()) {
            self.parts.pop_front();
        }
        self.issued = match self.direction {
            Direction::Up => self.issued.max(place),
            Direction::Down => self.issued.min(place),
        };
        let windows = self.active.0.load(Ordering::Relaxed);
        let part = part_bytes(self.target, self.direction, content.source().store.link(), windows as u64);
        while let Some(range) = self.next_part(content, place, part) {
            let (reached, complete) = self.issue_part(shared, content, &range);
            self.issued = reached;
            if !complete {
                self.target = (self.target / 2).max(WINDOW_BYTES_MIN);
                return;
            }
        }
    }

    /// What is to be fetched next: to a block boundary, so that no block is fetched by two GETs. `None` when the window is
    /// full or the file ends.
    fn next_part(&self, content: &Content, place: u64, part: u64) -> Option<Range<u64>> {
        match self.direction {
            Direction::Up => {
                let end = ((self.issued + part) / BLOCK_BYTES * BLOCK_BYTES).min(content.length());
                let full = end > (place + self.target).next_multiple_of(BLOCK_BYTES);
                (self.issued < content.length() && !full).then_some(self.issued..end)
            }
            Direction::Down => {
                let start = self.issued.saturating_sub(part).next_multiple_of(BLOCK_BYTES);
                let full = start + self.target < place / BLOCK_BYTES * BLOCK_BYTES;
                (self.issued > 0 && !full).then_some(start..self.issued)
            }
        }
    }

    /// Fetches what of `range` nobody has or fetches. Returns how far memory went, and whether that is all.
    fn issue_part(&mut self, shared: &Arc<Shared>, content: &Arc<Content>, range: &Range<u64>) -> (u64, bool) {
        let mut blocks = Vec::new();
        let indices = range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
        let near_first: &mut dyn Iterator<Item = u64> = match self.direction {
            Direction::Up => &mut indices.clone(),
            Direction::Down => &mut indices.clone().rev(),
        };
        let mut reached = self.issued;
        let mut complete = true;
        for index in near_first {
            let start = index * BLOCK_BYTES;
            let Some(block) = shared.block_ahead(content, index) else {
                complete = false;
                break;
            };
            let part = range.start.max(start)..range.end.min(start + block.length());
            reached = if self.direction == Direction::Up { part.end } else { part.start };
            blocks.push((index, block, Pieces::touched_by(&(part.start - start..part.end - start))));
        }
        blocks.sort_unstable_by_key(|(index, _, _)| *index);
        for task in shared.fetch_ahead(content, &blocks) {
            self.parts.push_back((reached, task));
        }
        (reached, complete)
    }

    /// Stops what is being fetched beyond `place`, and lets what was fetched go first when memory is needed.
    pub(super) fn cancel(self, place: u64) {
        self.parts.iter().for_each(|(_, task)| task.abort());
        let (low, high) = (place.min(self.issued), place.max(self.issued));
        for index in low / BLOCK_BYTES..high.div_ceil(BLOCK_BYTES) {
            self.blocks.abandon(self.content.id(), index);
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.content.windows.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How large the GETs of a window of `target` bytes, one of `windows`, should be: whole blocks.
fn part_bytes(target: u64, direction: Direction, link: Option<LinkEstimate>, windows: u64) -> u64 {
    let parts_max = (PARTS_MAX / windows.max(1)).max(PARTS_MIN);
    let (parts, most) = match link {
        Some(link) => {
            let worth = (link.first_byte * BODY_OF_ROUND_TRIP).as_secs_f64() * link.bytes_per_second as f64;
            let parts = READER_BYTES_PER_SECOND / link.bytes_per_second.max(1);
            (parts.clamp(PARTS_MIN, parts_max), (worth as u64).clamp(PART_BYTES.start, PART_BYTES.end))
        }
        None => (parts_max, PART_BYTES_UNMEASURED),
    };
    let most = if direction == Direction::Down { PART_BYTES_DOWN } else { most };
    let blocks = (target / parts).min(most) / BLOCK_BYTES;
    blocks.max(1) * BLOCK_BYTES
}

impl Shared {
    /// The block to fetch ahead into, made if need be; `None` when memory is short.
    pub(super) fn block_ahead(&self, content: &Arc<Content>, index: u64) -> Option<Arc<Block>> {
        if let Some(block) = self.blocks.peek(content.id(), index) {
            return Some(block);
        }
        let buffer = self.pool.try_buffer(Class::Prefetch, block_length(content, index))?;
        Some(self.blocks.insert(content, index, Arc::new(Block::new(buffer))))
    }

    /// Starts GETs for what of these pieces nobody has or fetches.
    pub(super) fn fetch_ahead(&self, content: &Arc<Content>, blocks: &[(u64, Arc<Block>, Pieces)]) -> Vec<AbortHandle> {
        let mut tasks = Vec::new();
        for run in claim_runs(blocks.iter().map(|(index, block, wanted)| (*index, block, *wanted))) {
            let (content, counters, disk) = (Arc::clone(content), Arc::clone(&self.counters), self.disk.clone());
            counters.prefetches.fetch_add(1, Ordering::Relaxed);
            let mut run = run.ahead_of_its_reader();
            let task = self.runtime.spawn(async move {
                if let Err(error) = run.fetch(&content, disk.as_ref(), &counters.prefetched_bytes).await {
                    tracing::debug!(%error, ?content, "fetching ahead failed; a reader will try again");
                }
            });
            tasks.push(task.abort_handle());
        }
        tasks
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_window_uses_as_many_connections_as_its_link_needs_and_large_gets_where_round_trips_are_long() {
        let link = |first_byte_us: u64, mib_per_second: u64| {
            Some(LinkEstimate {
                first_byte: Duration::from_micros(first_byte_us),
                bytes_per_second: mib_per_second * MIB,
            })
        };
        let part = |target: u64, link| part_bytes(target * MIB, Direction::Up, link, 1) / MIB;
        let azure = link(10_000, 60);
        assert_eq!([8, 32, 64, 128, 512].map(|target| part(target, azure)), [1, 1, 2, 4, 4]);
        assert_eq!(part(512, link(30_000, 60)), 8);
        // The same machine: a few connections do.
        assert_eq!([4, 16, 128].map(|target| part(target, link(300, 1500))), [1, 3, 3]);
        assert_eq!([4, 128, 512].map(|target| part(target, None)), [1, 4, 4]);
        assert_eq!(part_bytes(128 * MIB, Direction::Down, azure, 1), BLOCK_BYTES);
        // Of four windows each has a quarter of the connections.
        assert_eq!([8, 32, 64].map(|target| part_bytes(target * MIB, Direction::Up, azure, 4) / MIB), [1, 4, 4]);
    }
}
