//! How a layer of changes becomes a new version at the least cost: which committed blocks stay, which bytes are sent,
//! which are copied inside the service. Pure: no request, no lock, no clock.
//!
//! The cost is O(what changed). Committed blocks that no change touches are named again in the new list; a block that a
//! change cuts is replaced by its kept parts (copied inside the service, or read and sent where they are small) around
//! the changed bytes. Works for any layout: foreign ids and lengths, one Put Blob without a list.
//!
//! Many small commits (a log under fsync) make neither long lists nor large requests, by two rules. Small blocks before
//! the bytes to send go with them while they are no longer than these: so blocks double, each byte is sent again
//! log2(`merge_bytes` / append) times in all, and as few small blocks are left (`absorb`). Whole runs of blocks that are
//! too large for that are merged inside the service, sixteen at a time (`compact`).

mod absorb;
mod compact;
mod cut;

use std::ops::Range;

use super::overlay::Overlay;
use crate::blob::{BlockId, CommittedBlock};

const MIB: u64 = 1 << 20;

/// Blocks of `bytes` or more are not merged for the sake of a shorter list, unless the list is full.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    /// Blocks below this size are merged, in bytes.
    pub bytes: u64,
    /// Only in lists that are longer than this, in blocks.
    pub list: usize,
}

/// What the plan needs to know beside the layer. The defaults are those of production; tests make them small.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A file up to this size may be written whole by one Put Blob where nothing was sent yet.
    pub put_blob_bytes: u64,
    /// So many bytes more are sent to save a round trip. At 10 ms and 60 MiB/s it is worth 600 KiB; a fifth of that,
    /// since an fsync of a few bytes is what programs repeat.
    pub request_bytes: u64,
    /// Largest block that is made of changed bytes.
    pub block_bytes: u64,
    /// Blocks from this size on are not sent again for the sake of what is written beside them.
    pub merge_bytes: u64,
    /// A kept part of a cut block that is smaller than this is sent, not copied: it saves a request and a small block, and
    /// what is sent has a checksum.
    pub copy_bytes_min: u64,
    /// Largest range that one Put Block From URL copies. 100 MiB is what every service version takes.
    pub copy_bytes: u64,
    /// Zeros from this size on are a block of zeros that the list names again and again.
    pub zero_bytes: u64,
    /// When blocks are merged inside the service.
    pub levels: [Level; 2],
    /// Blocks of a list (REST page "Put Block List": 50,000).
    pub list_blocks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            put_blob_bytes: 8 * MIB,
            request_bytes: 128 << 10,
            block_bytes: 8 * MIB,
            merge_bytes: 256 << 10,
            copy_bytes_min: 256 << 10,
            copy_bytes: 100 * MIB,
            zero_bytes: MIB,
            // A list of 32 blocks is 1.5 KiB, one of 2048 is 96 KiB.
            levels: [Level { bytes: 4 * MIB, list: 32 }, Level { bytes: 32 * MIB, list: 2048 }],
            list_blocks: 50_000,
        }
    }
}

impl Limits {
    /// All sizes divided: small files are then planned as large ones are.
    #[must_use]
    pub fn divided_by(self, divisor: u64) -> Self {
        let bytes = |bytes: u64| (bytes / divisor).max(1);
        let count = |count: usize| count / usize::try_from(divisor).unwrap_or(usize::MAX).max(1);
        let level = |level: Level| Level { bytes: bytes(level.bytes), list: count(level.list) };
        Self {
            put_blob_bytes: bytes(self.put_blob_bytes),
            request_bytes: bytes(self.request_bytes),
            block_bytes: bytes(self.block_bytes),
            merge_bytes: bytes(self.merge_bytes),
            copy_bytes_min: bytes(self.copy_bytes_min),
            copy_bytes: bytes(self.copy_bytes),
            zero_bytes: bytes(self.zero_bytes),
            levels: self.levels.map(level),
            list_blocks: self.list_blocks,
        }
    }

    /// The same for a service that cannot copy: what is merged there goes through us, so only small blocks are.
    #[must_use]
    pub fn without_copies(self) -> Self {
        let [small, large] = self.levels;
        Self { levels: [small, Level { bytes: 0, ..large }], ..self }
    }
}

/// One block of the new version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A committed block that stays, and its bytes.
    Keep(BlockId, Range<u64>),
    /// A block that was sent already, and its bytes.
    Staged(BlockId, Range<u64>),
    /// Bytes to send.
    Send(Range<u64>),
    /// Bytes of the old version to copy inside the service.
    Copy(Range<u64>),
    /// Zeros, made of blocks of so many bytes each. All such blocks of one size are one block, named several times.
    Zero(Range<u64>, u64),
}

impl Part {
    /// The bytes of the file that it holds.
    #[must_use]
    pub fn range(&self) -> &Range<u64> {
        match self {
            Self::Keep(_, range) | Self::Staged(_, range) => range,
            Self::Send(range) | Self::Copy(range) | Self::Zero(range, _) => range,
        }
    }

    /// Whether its bytes are those of the old version, at the same place.
    fn is_kept(&self) -> bool {
        matches!(self, Self::Keep(..) | Self::Copy(_))
    }
}

/// How to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// One Put Blob of the whole file.
    PutBlob,
    /// These blocks, in this order.
    Blocks(Vec<Part>),
}

/// Whether one Put Blob is the plan whatever the blocks of the old version are, so that nobody need ask for them.
#[must_use]
pub fn is_one_request(layer: &Overlay, limits: &Limits) -> bool {
    layer.staged().next().is_none() && layer.size() <= limits.request_bytes.min(limits.put_blob_bytes)
}

/// Plans the commit of `layer` over a version of `base_length` bytes with these committed blocks (none: one Put Blob, or
/// nothing).
#[must_use]
pub fn plan(layer: &Overlay, base: &[CommittedBlock], base_length: u64, limits: &Limits) -> Plan {
    if is_one_request(layer, limits) {
        return Plan::PutBlob;
    }
    let parts = cut::cut(layer, base, base_length, limits);
    let kept: u64 = parts.iter().filter(|part| part.is_kept()).map(|part| length(part.range())).sum();
    let unsent = layer.staged().next().is_none();
    // Old bytes that one request sends again are sent again by the next, too: in blocks they are sent once.
    if unsent && layer.size() <= limits.put_blob_bytes && kept <= limits.request_bytes {
        return Plan::PutBlob;
    }
    let parts = split(absorb::absorb(parts, limits), limits);
    Plan::Blocks(compact::compact(parts, limits))
}

fn length(range: &Range<u64>) -> u64 {
    range.end - range.start
}

/// Cuts what is too large for one block or one copy, and zeros into their blocks.
fn split(parts: Vec<Part>, limits: &Limits) -> Vec<Part> {
    let split = |part| match part {
        Part::Send(range) => chunks(&range, limits.block_bytes, Part::Send),
        Part::Copy(range) => chunks(&range, limits.copy_bytes, Part::Copy),
        Part::Zero(range, bytes) => chunks(&range, bytes, |range| Part::Zero(range, bytes)),
        kept => vec![kept],
    };
    parts.into_iter().flat_map(split).collect()
}

fn chunks(range: &Range<u64>, bytes: u64, part: impl Fn(Range<u64>) -> Part) -> Vec<Part> {
    let starts = (range.start..range.end).step_by(usize::try_from(bytes).unwrap_or(usize::MAX));
    starts.map(|start| part(start..(start + bytes).min(range.end))).collect()
}

#[cfg(test)]
mod tests;
