//! How a layer of changes becomes a new version at the least cost: which committed blocks stay, which bytes are sent,
//! which are copied inside the service. Pure: no request, no lock, no clock.
//!
//! The cost is O(what changed). Committed blocks that no change touches are named again in the new list; a block that a
//! change cuts is replaced by its kept parts (copied inside the service, or read and sent where they are small) around
//! the changed bytes. Works for any layout: foreign ids and lengths, one Put Blob without a list.

use std::ops::Range;

use super::overlay::{Overlay, Segment};
use crate::blob::{BlockId, CommittedBlock};

/// What the plan needs to know beside the layer. The defaults are those of production; tests make them small.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A file up to this size is written whole by one Put Blob where nothing was sent yet: one request instead of two.
    pub put_blob_bytes: u64,
    /// What of the old version is read again and sent with a Put Blob at most, in bytes.
    pub reread_bytes: u64,
    /// Largest block that is made of changed bytes.
    pub block_bytes: u64,
    /// A kept part of a cut block, or a whole one beside changed bytes, that is smaller than this is sent with them:
    /// it saves a request, and keeps many small changes from making many small blocks.
    pub merge_bytes: u64,
    /// Largest range that one Put Block From URL copies. 100 MiB is what every service version takes.
    pub copy_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            put_blob_bytes: 8 * MIB,
            reread_bytes: MIB,
            block_bytes: 8 * MIB,
            merge_bytes: 256 << 10,
            copy_bytes: 100 * MIB,
        }
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
}

impl Part {
    /// The bytes of the file that it holds.
    #[must_use]
    pub fn range(&self) -> &Range<u64> {
        let (Self::Keep(_, range) | Self::Staged(_, range) | Self::Send(range) | Self::Copy(range)) = self;
        range
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

/// Plans the commit of `layer` over a version of `base_length` bytes with these committed blocks (none: one Put Blob, or
/// nothing).
#[must_use]
pub fn plan(layer: &Overlay, base: &[CommittedBlock], base_length: u64, limits: Limits) -> Plan {
    let size = layer.size();
    let reread: u64 =
        segments(layer, base_length).iter().filter(|part| is_below(part)).map(|part| length(part.range())).sum();
    let unsent = layer.staged().next().is_none();
    if unsent && size <= limits.put_blob_bytes && reread <= limits.reread_bytes {
        return Plan::PutBlob;
    }
    let parts = cut_by_blocks(layer, base, base_length);
    Plan::Blocks(split_sends(merge(parts, limits), limits))
}

fn is_below(segment: &Segment) -> bool {
    matches!(segment, Segment::Below(_))
}

fn length(range: &Range<u64>) -> u64 {
    range.end - range.start
}

/// The layer's segments, with what lies behind the old version's end as zeros.
fn segments(layer: &Overlay, base_length: u64) -> Vec<Segment> {
    let cut = |segment: Segment| match segment {
        Segment::Below(range) if range.end > base_length => {
            let kept = range.start..base_length.max(range.start);
            let zero = kept.end..range.end;
            [Segment::Below(kept), Segment::Zero(zero)]
        }
        other => {
            let end = other.range().end;
            [other, Segment::Zero(end..end)]
        }
    };
    let all = layer.segments(&(0..layer.size())).into_iter().flat_map(cut);
    all.filter(|segment| !segment.range().is_empty()).collect()
}

/// First cut: blocks that were sent, blocks that stay, and the rest as bytes to send or to copy.
fn cut_by_blocks(layer: &Overlay, base: &[CommittedBlock], base_length: u64) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut staged = layer.staged().peekable();
    let mut position = 0;
    for segment in segments(layer, base_length) {
        let mut range = segment.range().clone();
        range.start = range.start.max(position);
        while !range.is_empty() {
            // A block that was sent counts as a whole, whether its bytes are still in memory or not.
            while staged.peek().is_some_and(|run| run.range.end <= range.start) {
                staged.next();
            }
            if let Some(run) = staged.peek().filter(|run| run.range.start <= range.start) {
                parts.push(Part::Staged(run.id.clone(), run.range.clone()));
                position = run.range.end;
                range.start = position.min(range.end);
                continue;
            }
            let end = staged.peek().map_or(range.end, |run| run.range.start.min(range.end));
            match segment {
                Segment::Below(_) => keep_or_copy(range.start..end, base, &mut parts),
                _ => parts.push(Part::Send(range.start..end)),
            }
            (position, range.start) = (end, end);
        }
    }
    parts
}

/// The committed blocks inside `range` stay; those that reach out of it are copied in part.
fn keep_or_copy(range: Range<u64>, base: &[CommittedBlock], parts: &mut Vec<Part>) {
    let mut start = 0;
    for block in base {
        let whole = start..start + block.length;
        start = whole.end;
        let met = whole.start.max(range.start)..whole.end.min(range.end);
        if whole.start >= range.end {
            break;
        }
        if met.is_empty() {
            continue;
        }
        parts.push(if met == whole { Part::Keep(block.id.clone(), whole) } else { Part::Copy(met) });
    }
    // A version of one Put Blob has bytes, but no blocks to keep.
    if start < range.end {
        parts.push(Part::Copy(start.max(range.start)..range.end));
    }
}

/// Second pass: small kept neighbours of bytes to send go with them.
fn merge(parts: Vec<Part>, limits: Limits) -> Vec<Part> {
    let mut merged: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts {
        let small = length(part.range()) < limits.merge_bytes;
        let last = merged.last_mut();
        match (last, &part) {
            (Some(Part::Send(last)), Part::Send(next)) => last.end = next.end,
            (Some(Part::Send(last)), Part::Keep(_, next) | Part::Copy(next)) if small => last.end = next.end,
            (Some(Part::Copy(last)), Part::Copy(next)) => last.end = next.end,
            (Some(before @ (Part::Keep(..) | Part::Copy(_))), Part::Send(next))
                if length(before.range()) < limits.merge_bytes =>
            {
                *before = Part::Send(before.range().start..next.end);
                join_last_two(&mut merged);
            }
            _ => merged.push(part),
        }
    }
    merged
}

/// After the last part became one to send, the one before may be one too.
fn join_last_two(parts: &mut Vec<Part>) {
    if let [.., Part::Send(before), Part::Send(last)] = parts.as_mut_slice() {
        before.end = last.end;
        parts.pop();
    }
}

/// Last pass: nothing larger than a block may be, nothing larger than a copy may be.
fn split_sends(parts: Vec<Part>, limits: Limits) -> Vec<Part> {
    let chunks = |range: Range<u64>, bytes: u64, part: fn(Range<u64>) -> Part| {
        let starts = (range.start..range.end).step_by(usize::try_from(bytes).unwrap_or(usize::MAX));
        starts.map(|start| part(start..(start + bytes).min(range.end))).collect::<Vec<_>>()
    };
    let split = |part| match part {
        Part::Send(range) => chunks(range, limits.block_bytes, Part::Send),
        Part::Copy(range) => chunks(range, limits.copy_bytes, Part::Copy),
        kept => vec![kept],
    };
    parts.into_iter().flat_map(split).collect()
}

#[cfg(test)]
mod tests;
