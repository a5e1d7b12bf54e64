//! Notices how a handle is read, and fetches ahead of it: in order, backwards, or in equal steps.
//!
//! A [`ReadStream`] belongs to one open handle. It follows up to [`CURSORS_MAX`] places at once (two threads that read
//! two parts of a file are two cursors). From the second read in order a cursor has a window (`window`): bytes in front
//! of the reader that are fetched, or being fetched, in parallel GETs of whole blocks. Reads that are equally far apart
//! have their next ones fetched piece by piece (`stride`). What is fetched ahead is cancelled when the handle goes
//! elsewhere or is closed. A window that fails is silent: the reader fetches what is missing and gets the error then.
//! Knows nothing of how a read is answered.

mod stride;
mod window;

use std::ops::Range;

use crate::sync::{Arc, Mutex, Weak};

use super::{
    Shared,
    block::{BLOCK_BYTES, Block},
    content::{Content, ContentId},
};
use stride::Stride;
use window::Window;

/// Places of one handle that are followed at once (a guess: readers with more are random readers).
const CURSORS_MAX: usize = 4;

/// A first read of so many bytes from the start of a file is that of a bulk reader: the kernel asks for 1 MiB only where
/// the program did or where the file is mapped and read through. Waiting for the second read costs such a reader a round
/// trip and the time of a block.
const BULK_READ_BYTES: u64 = BLOCK_BYTES / 2;

/// Reads of the handle elsewhere after which a window is given up.
const ELSEWHERE_READS_MAX: u64 = 16;

/// How far reads in order may overtake each other, in lengths of the read: the kernel reads ahead with several requests
/// at once, and session threads take them in any order.
const DISORDER_READS: u64 = 2;

/// What one open handle reads in order. Dropping it cancels what is being fetched ahead.
pub struct ReadStream {
    shared: Weak<Shared>,
    /// Short sections, nothing awaits inside. Taken before the locks of blocks and budget.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cursors: Vec<Cursor>,
    stride: Stride,
    /// Reads of this handle so far.
    reads: u64,
}

/// Which way a place is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// Towards the end of the file.
    Up,
    /// Towards its start.
    Down,
}

/// One place that is read in order.
struct Cursor {
    content: ContentId,
    direction: Direction,
    /// Start of the lowest read. The reader's place on the way down.
    low: u64,
    /// End of the furthest read. The reader's place on the way up.
    next: u64,
    /// Reads in order so far.
    run: u64,
    /// `State::reads` when it was used last.
    used: u64,
    window: Option<Window>,
}

impl ReadStream {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::downgrade(shared), state: Mutex::default() }
    }

    /// Whether a read of `range` would continue what was read before, upwards.
    pub(super) fn continues(&self, content: &Content, range: &Range<u64>) -> bool {
        let follows = |cursor: &Cursor| !cursor.turns_down(content.id(), range) && cursor.follows(content.id(), range);
        self.state.lock().cursors.iter().any(follows)
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
        let (id, cursors) = (content.id(), &mut state.cursors);
        // Downwards first: a read right below another is within the disorder that a way up allows.
        let down = cursors.iter().position(|cursor| cursor.turns_down(id, range));
        let found = down.or_else(|| cursors.iter().position(|cursor| cursor.follows(id, range)));
        match found {
            Some(at) => {
                let cursor = &mut cursors[at];
                cursor.used = reads;
                cursor.note(range, down.is_some());
                cursor.fetch_ahead(&shared, content, waited);
                if let Some(window) = &mut cursor.window {
                    window.keep(&shared, range.end, last);
                }
                state.stride.forget();
            }
            None => {
                state.stride.note(&shared, content, range, waited);
                let bulk = range.start == 0 && range.end >= BULK_READ_BYTES;
                let mut cursor = Cursor::at(id, range, reads);
                if bulk {
                    cursor.run += 1;
                    cursor.fetch_ahead(&shared, content, false);
                }
                state.start_cursor(cursor);
            }
        }
    }

    /// Gives up everything that is being fetched ahead (the caller seeks, or drops caches).
    pub fn cancel(&self) {
        let mut state = self.state.lock();
        state.cursors.iter_mut().for_each(Cursor::cancel);
        state.cursors.clear();
        state.stride.forget();
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
    fn at(content: ContentId, range: &Range<u64>, used: u64) -> Self {
        let (low, next) = (range.start, range.end);
        Self { content, direction: Direction::Up, low, next, run: 1, used, window: None }
    }

    /// Whether a read continues a way down, or begins one: it ends where the only read so far began.
    fn turns_down(&self, content: ContentId, range: &Range<u64>) -> bool {
        let begins = self.run == 1 && range.end == self.low;
        let disorder = DISORDER_READS * (range.end - range.start);
        let goes_on = self.direction == Direction::Down
            && range.end <= self.low.saturating_add(disorder)
            && range.end.saturating_add(disorder) >= self.low;
        self.content == content && range.start < self.low && (begins || goes_on)
    }

    fn follows(&self, content: ContentId, range: &Range<u64>) -> bool {
        if self.content != content {
            return false;
        }
        let disorder = DISORDER_READS * (range.end - range.start);
        match self.direction {
            Direction::Up => {
                let furthest = self.window.as_ref().map_or(self.next, |window| window.reach().max(self.next));
                range.start <= furthest + disorder && range.end + disorder >= self.next
            }
            // Overtaken on the way down.
            Direction::Down => range.start >= self.low && range.end <= self.low + disorder,
        }
    }

    fn note(&mut self, range: &Range<u64>, down: bool) {
        if down && self.direction == Direction::Up {
            self.cancel();
            self.direction = Direction::Down;
        }
        self.run += u64::from(down || range.end > self.next);
        self.low = self.low.min(range.start);
        self.next = self.next.max(range.end);
    }

    /// Where the reader is.
    fn place(&self) -> u64 {
        match self.direction {
            Direction::Up => self.next,
            Direction::Down => self.low,
        }
    }

    fn cancel(&mut self) {
        let place = self.place();
        if let Some(window) = self.window.take() {
            window.cancel(place);
        }
    }

    fn fetch_ahead(&mut self, shared: &Arc<Shared>, content: &Arc<Content>, waited: bool) {
        if self.run < 2 || shared.read_ahead_bytes == 0 {
            return;
        }
        let place = self.place();
        let at_the_end = match self.direction {
            Direction::Up => place >= content.length(),
            Direction::Down => place == 0,
        };
        if at_the_end {
            // All of it is issued. What is still arriving is wanted by reads that were overtaken: no cancelling.
            self.window = None;
            return;
        }
        let direction = self.direction;
        let window = self.window.get_or_insert_with(|| Window::new(shared, content, direction, place));
        window.advance(shared, content, place, waited);
    }
}

/// Bytes of block `index` of a content.
pub(super) fn block_length(content: &Content, index: u64) -> usize {
    let length = content.length().saturating_sub(index * BLOCK_BYTES).min(BLOCK_BYTES);
    usize::try_from(length).unwrap_or(usize::MAX)
}
