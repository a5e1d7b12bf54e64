//! One MiB of one content: 16 pieces of 64 KiB, each of which becomes valid once and never changes afterwards.
//!
//! Knows nothing of where the bytes come from. The protocol that makes the few lines of `unsafe` sound:
//!
//! ```text
//! piece:   free --claim--> claimed (one Claim may write) --publish--> valid (everybody may read, nobody writes)
//!           ^------------- Claim dropped unpublished ------'
//! ```
//!
//! - A claim bit is taken by one atomic operation, so one [`Claim`] at a time may write a piece.
//! - A valid bit is set with Release after the bytes were written and read with Acquire before they are shared, and is
//!   never cleared; a claim bit of a valid piece stays set, so nobody can claim, and write, it again.
//! - `&[u8]` is made only over valid pieces, `&mut [u8]` never: writing goes through the raw pointer.
//!
//! So a range whose pieces are valid is handed out as one slice, without a lock and without a copy.

use std::{fmt, ops::Range, ptr};

use crate::sync::tokio::sync::Notify;

use crate::sync::{Arc, AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::{
    budget::Class,
    pool::{BUFFER_BYTES_MAX, Buffer},
};

/// Bytes of a block: the kernel's largest read, so that a request needs at most two blocks.
pub const BLOCK_BYTES: u64 = 1 << 20;

/// Bytes of a piece: what a random read fetches. Smaller pieces cost more requests for neighbours, larger ones move
/// more bytes nobody asked for (64 KiB takes the same time as 4 KiB on a link of 60 MiB/s and 10 ms, within 10 %).
pub const PIECE_BYTES: u64 = 64 << 10;

/// Pieces of a block.
pub const PIECES: u32 = (BLOCK_BYTES / PIECE_BYTES) as u32;

const _: () =
    assert!(BLOCK_BYTES.is_multiple_of(PIECE_BYTES) && PIECES <= 32 && BLOCK_BYTES == BUFFER_BYTES_MAX as u64);

/// A set of pieces of one block, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pieces(u32);

impl Pieces {
    /// Pieces that hold a byte of `range` (bytes within the block).
    #[must_use]
    pub fn touched_by(range: &Range<u64>) -> Self {
        if range.is_empty() {
            return Self(0);
        }
        Self::between(range.start / PIECE_BYTES, range.end.div_ceil(PIECE_BYTES))
    }

    /// Pieces of a block of `length` bytes that lie wholly inside `range`; its last piece may be short.
    #[must_use]
    pub fn inside(range: &Range<u64>, length: u64) -> Self {
        let end = if range.end >= length { length.div_ceil(PIECE_BYTES) } else { range.end / PIECE_BYTES };
        Self::between(range.start.div_ceil(PIECE_BYTES), end)
    }

    fn between(first: u64, end: u64) -> Self {
        let end = end.min(u64::from(PIECES));
        if first >= end {
            return Self(0);
        }
        let below = |count: u64| (1_u64 << count) - 1;
        // At most 16 bits are set: PIECES.
        Self((below(end) & !below(first)) as u32)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are among these.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// These without `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Those in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those in either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Number of pieces.
    #[must_use]
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Runs of neighbours, lowest first.
    pub fn runs(self) -> impl Iterator<Item = Range<u32>> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let first = left.trailing_zeros();
            let end = first + (left >> first).trailing_ones();
            left &= !(((1_u64 << end) - 1) as u32);
            Some(first..end)
        })
    }
}

/// A block of at most [`BLOCK_BYTES`] of one content (the last block of a content is shorter).
pub struct Block {
    buffer: Buffer,
    valid: AtomicU32,
    claimed: AtomicU32,
    /// Whether it was fetched ahead and nobody has read from it.
    unread: AtomicBool,
    /// Place in the order of insertions: tells a second use from the next request of the same scan.
    pub(super) inserted: AtomicU64,
    changed: Notify,
}

// SAFETY: bytes are written only through a Claim (one a piece) and read only when valid; see the protocol above.
unsafe impl Sync for Block {}

/// What a wait for pieces ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// All of them can be read.
    Valid,
    /// Some are neither valid nor being fetched: whoever fetched them gave up.
    Abandoned,
}

impl Block {
    /// A block of the buffer's length, without a valid byte.
    #[must_use]
    pub fn new(buffer: Buffer) -> Self {
        let ahead = buffer.reservation().class() == Class::Prefetch;
        Self {
            buffer,
            valid: AtomicU32::new(0),
            claimed: AtomicU32::new(0),
            unread: AtomicBool::new(ahead),
            inserted: AtomicU64::new(0),
            changed: Notify::new(),
        }
    }

    /// Bytes of the content in this block.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.buffer.len() as u64
    }

    /// Bytes of memory it takes.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.buffer.capacity() as u64
    }

    /// Pieces that can be read.
    #[must_use]
    pub fn valid(&self) -> Pieces {
        Pieces(self.valid.load(Ordering::Acquire))
    }

    /// Bytes that can be read.
    #[must_use]
    pub fn valid_bytes(&self) -> u64 {
        let bytes = |run: Range<u32>| {
            let (start, end) = (u64::from(run.start) * PIECE_BYTES, u64::from(run.end) * PIECE_BYTES);
            end.min(self.length()) - start
        };
        self.valid().runs().map(bytes).sum()
    }

    /// Whether a fetch is under way.
    #[must_use]
    pub fn is_being_filled(&self) -> bool {
        // Claimed first: a piece that becomes valid in between is then not seen as in flight.
        let claimed = self.claimed.load(Ordering::Acquire);
        claimed & !self.valid.load(Ordering::Acquire) != 0
    }

    /// Whether it was fetched ahead and nobody has read from it yet.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Notes that somebody reads from it: its memory no longer counts as prefetch. True the first time.
    pub fn mark_read(&self) -> bool {
        let first = self.is_unread() && self.unread.swap(false, Ordering::Relaxed);
        if first {
            self.buffer.reservation().convert(Class::Demand);
        }
        first
    }

    /// The bytes of `range`, when every piece of it is valid and it lies inside the block.
    #[must_use]
    pub fn slice(&self, range: &Range<u64>) -> Option<&[u8]> {
        if range.start > range.end || range.end > self.length() || !self.valid().contains(Pieces::touched_by(range)) {
            return None;
        }
        let length = usize::try_from(range.end - range.start).ok()?;
        let start = usize::try_from(range.start).ok()?;
        // SAFETY: inside the buffer (checked), every piece valid (Acquire above), and valid pieces are never written.
        Some(unsafe { std::slice::from_raw_parts(self.buffer.as_ptr().as_ptr().add(start), length) })
    }

    /// Takes the right to fill those of `wanted` that nobody has filled or is filling: one claim a run of neighbours.
    #[must_use]
    pub fn claim(self: &Arc<Self>, wanted: Pieces) -> Vec<Claim> {
        let before = Pieces(self.claimed.fetch_or(wanted.0, Ordering::AcqRel));
        let claim = |run: Range<u32>| Claim { block: Arc::clone(self), left: run };
        wanted.without(before).runs().map(claim).collect()
    }

    /// Waits until `wanted` can be read, or until somebody gave up filling them. Cancel-safe.
    pub async fn wait(&self, wanted: Pieces) -> Waited {
        loop {
            let changed = self.changed.notified();
            crate::sync::tokio::pin!(changed);
            // Registered before looking, so that a change in between is not missed.
            changed.as_mut().enable();
            if self.valid().contains(wanted) {
                return Waited::Valid;
            }
            if !Pieces(self.claimed.load(Ordering::Acquire)).contains(wanted) {
                return Waited::Abandoned;
            }
            changed.await;
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} bytes, {} of {} pieces)", self.length(), self.valid().count(), PIECES)
    }
}

/// The right to fill a run of pieces of one block, from front to back. What is not published when it is dropped may be
/// claimed by somebody else, who is woken.
pub struct Claim {
    block: Arc<Block>,
    /// Pieces not yet published.
    left: Range<u32>,
}

impl Claim {
    /// The bytes within the block that are still to be written and published.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        u64::from(self.left.start) * PIECE_BYTES..(u64::from(self.left.end) * PIECE_BYTES).min(self.block.length())
    }

    /// Writes `bytes` at `offset` of the block and publishes every piece that is complete with it. Bytes come in order:
    /// `offset` lies in the first unpublished piece, behind what was written before.
    ///
    /// # Panics
    /// When the bytes lie outside the claim: the caller cuts them (a defect, never an input).
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let range = self.range();
        let end = offset + bytes.len() as u64;
        assert!(range.start <= offset && end <= range.end, "bytes {offset}..{end} lie outside the claim {range:?}");
        let start = offset as usize; // inside a block: fits
        // SAFETY: inside the buffer (a claim never reaches beyond its block), and the pieces are claimed by us and not
        // valid, so nobody else reads or writes them; `bytes` is not part of them, since no slice of them exists.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.block.buffer.as_ptr().as_ptr().add(start), bytes.len());
        };
        let complete = if end == range.end { self.left.end } else { (end / PIECE_BYTES) as u32 };
        self.publish_below(complete);
    }

    fn publish_below(&mut self, end: u32) {
        if end > self.left.start {
            let done = Pieces::between(u64::from(self.left.start), u64::from(end));
            self.block.valid.fetch_or(done.0, Ordering::Release);
            self.left.start = end;
            self.block.changed.notify_waiters();
        }
    }

    /// Whether all of it was published.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.left.is_empty()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.left.is_empty() {
            let left = Pieces::between(u64::from(self.left.start), u64::from(self.left.end));
            self.block.claimed.fetch_and(!left.0, Ordering::AcqRel);
            self.block.changed.notify_waiters();
        }
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim({:?})", self.range())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Budget, Pool};

    fn block(length: usize) -> Arc<Block> {
        Arc::new(Block::new(Pool::new(Budget::new(16 << 20)).try_buffer(Class::Demand, length).unwrap()))
    }

    #[test]
    fn pieces_of_a_range_are_those_it_touches_or_covers() {
        assert_eq!(Pieces::touched_by(&(1..2)), Pieces(1));
        assert_eq!(Pieces::touched_by(&(65535..65537)), Pieces(3));
        assert_eq!(Pieces::touched_by(&(5..5)), Pieces(0));
        assert_eq!(Pieces::touched_by(&(0..BLOCK_BYTES)), Pieces(0xffff));
        assert_eq!(Pieces::inside(&(1..200_000), BLOCK_BYTES), Pieces(0b110));
        assert_eq!(Pieces::inside(&(0..70_000), 70_000), Pieces(0b11));
        assert_eq!(Pieces(0b1101_1001).runs().collect::<Vec<_>>(), [0..1, 3..5, 6..8]);
    }

    #[test]
    fn a_piece_has_one_filler_and_is_readable_only_when_complete() {
        let block = block(BLOCK_BYTES as usize);
        let mut claims = block.claim(Pieces(0b111));
        assert_eq!(claims.len(), 1);
        assert!(block.claim(Pieces(0b010)).is_empty());
        let claim = &mut claims[0];
        claim.write(0, &[1; 65535]);
        assert!(block.slice(&(0..1)).is_none());
        claim.write(65535, &[2; 2]);
        assert_eq!(block.slice(&(65534..65536)), Some(&[1, 2][..]));
        assert!(block.slice(&(65535..65537)).is_none());
        assert!(block.is_being_filled());
        drop(claims);
        assert!(!block.is_being_filled());
        let again = block.claim(Pieces(0b111));
        assert_eq!((again.len(), again[0].range()), (1, 65536..196_608));
    }

    #[test]
    fn the_last_piece_of_a_short_block_is_complete_at_its_end() {
        let block = block(70_000);
        let mut claims = block.claim(Pieces::touched_by(&(0..70_000)));
        claims[0].write(0, &[9; 70_000]);
        assert!(claims[0].is_complete());
        assert_eq!(block.slice(&(0..70_000)).unwrap().len(), 70_000);
        assert!(block.slice(&(0..70_001)).is_none());
    }

    #[tokio::test]
    async fn waiters_wake_piece_by_piece_and_when_the_filler_gives_up() {
        let block = block(BLOCK_BYTES as usize);
        let mut claims = block.claim(Pieces(0b11));
        let first = crate::sync::tokio::spawn({
            let block = Arc::clone(&block);
            async move { block.wait(Pieces(0b01)).await }
        });
        let second = crate::sync::tokio::spawn({
            let block = Arc::clone(&block);
            async move { block.wait(Pieces(0b10)).await }
        });
        crate::sync::tokio::task::yield_now().await;
        claims[0].write(0, &[0; PIECE_BYTES as usize]);
        assert_eq!(first.await.unwrap(), Waited::Valid);
        assert!(!second.is_finished());
        drop(claims);
        assert_eq!(second.await.unwrap(), Waited::Abandoned);
    }
}
