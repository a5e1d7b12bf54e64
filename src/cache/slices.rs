//! The answer of a read: slices of cached blocks, which stay where they are and cannot go away while it lives.

use std::{fmt, ops::Range};

use crate::sync::Arc;

use super::block::Block;

/// One slice of a block whose pieces are all valid.
struct Slice {
    block: Arc<Block>,
    /// Bytes within the block.
    range: Range<u64>,
}

/// Bytes in the cache, without a copy. Holding it pins the blocks: let go of it as soon as the reply is sent.
#[derive(Default)]
pub struct CachedBytes {
    /// Nearly always one, at most two for a read of the kernel (1 MiB).
    slices: Vec<Slice>,
    length: usize,
}

impl CachedBytes {
    /// Adds a slice; the caller has seen that its pieces are valid.
    pub(super) fn push(&mut self, block: Arc<Block>, range: Range<u64>) {
        debug_assert!(block.slice(&range).is_some(), "only valid pieces are handed out");
        self.length += usize::try_from(range.end - range.start).unwrap_or(0);
        self.slices.push(Slice { block, range });
    }

    /// The block where it ends.
    pub(super) fn last_block(&self) -> Option<&Arc<Block>> {
        self.slices.last().map(|slice| &slice.block)
    }

    /// Bytes in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is none (a read at or behind the end).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The slices, in order.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.slices.iter().map(Slice::bytes)
    }

    /// All bytes as one slice, when they lie in one block.
    #[must_use]
    pub fn contiguous(&self) -> Option<&[u8]> {
        match self.slices.as_slice() {
            [] => Some(&[]),
            [one] => Some(one.bytes()),
            _ => None,
        }
    }

    /// Copies the bytes to the front of `target` and returns how many they were.
    ///
    /// # Panics
    /// When `target` is shorter than [`Self::len`].
    pub fn copy_to(&self, target: &mut [u8]) -> usize {
        let mut at = 0;
        for slice in self.slices() {
            target[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
        }
        at
    }

    /// The bytes in a vector of their own.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.length);
        self.slices().for_each(|slice| bytes.extend_from_slice(slice));
        bytes
    }
}

impl Slice {
    fn bytes(&self) -> &[u8] {
        match self.block.slice(&self.range) {
            Some(bytes) => bytes,
            None => unreachable!("a valid piece never becomes invalid"),
        }
    }
}

impl fmt::Debug for CachedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CachedBytes({} bytes in {} slices)", self.length, self.slices.len())
    }
}
