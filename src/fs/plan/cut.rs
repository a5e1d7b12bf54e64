//! The first cut of a file: blocks that were sent, blocks that stay, and the rest as bytes to send or to copy. One walk
//! over the layer's segments, the blocks that were sent and the committed blocks together: linear in their number.

use std::ops::Range;

use super::{
    super::overlay::{Overlay, Segment},
    Limits, MIB, Part, length,
};
use crate::blob::CommittedBlock;

/// Zeros become about so many blocks: a list of 100 KiB, which every commit of the file sends again.
const ZERO_BLOCKS: u64 = 2048;
/// Largest block of zeros: 4 TiB of them are 16,384 blocks of a list of 50,000.
const ZERO_BLOCK_BYTES_MAX: u64 = 256 * MIB;

/// The committed blocks, walked once from the front to the back.
struct Walk<'a> {
    blocks: &'a [CommittedBlock],
    /// Where the first of `blocks` begins.
    start: u64,
}

pub(super) fn cut(layer: &Overlay, base: &[CommittedBlock], base_length: u64, limits: &Limits) -> Vec<Part> {
    let mut walk = Walk { blocks: base, start: 0 };
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
                Segment::Below(_) => walk.keep_or_copy(range.start..end, &mut parts),
                Segment::Zero(_) => zeros(range.start..end, limits, &mut parts),
                Segment::Dirty(_) | Segment::Staged(_) => parts.push(Part::Send(range.start..end)),
            }
            (position, range.start) = (end, end);
        }
    }
    parts
}

impl Walk<'_> {
    /// The committed blocks inside `range` stay; those that reach out of it are copied in part. Ranges come in order.
    fn keep_or_copy(&mut self, range: Range<u64>, parts: &mut Vec<Part>) {
        let mut position = range.start;
        while let Some((block, rest)) = self.blocks.split_first() {
            let whole = self.start..self.start + block.length;
            if whole.start >= range.end {
                break;
            }
            let met = whole.start.max(position)..whole.end.min(range.end);
            if !met.is_empty() {
                parts.push(if met == whole {
                    Part::Keep(block.id.clone(), whole.clone())
                } else {
                    Part::Copy(met.clone())
                });
                position = met.end;
            }
            if whole.end > range.end {
                break; // The next range may meet it again.
            }
            (self.blocks, self.start) = (rest, whole.end);
        }
        // A version of one Put Blob has bytes, but no blocks to keep.
        if position < range.end {
            parts.push(Part::Copy(position..range.end));
        }
    }
}

/// Zeros as blocks of zeros, where there are enough of them, and a rest to send.
fn zeros(range: Range<u64>, limits: &Limits, parts: &mut Vec<Part>) {
    let mut start = range.start;
    let large = (length(&range) / ZERO_BLOCKS).next_power_of_two();
    for bytes in [large.min(ZERO_BLOCK_BYTES_MAX).max(limits.zero_bytes), limits.zero_bytes] {
        let end = start + (range.end - start) / bytes * bytes;
        if start < end {
            parts.push(Part::Zero(start..end, bytes));
            start = end;
        }
    }
    if start < range.end {
        parts.push(Part::Send(start..range.end));
    }
}

/// The layer's segments, with what lies behind the old version's end as zeros.
pub(super) fn segments(layer: &Overlay, base_length: u64) -> Vec<Segment> {
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
