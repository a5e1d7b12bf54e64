//! Short lists: runs of committed blocks become one block each, copied inside the service.
//!
//! By choice a few at a time, where blocks are small and the list is not short (`Limits::levels`): a list is sent whole
//! with every commit. By need as many as it takes, when the list is full.

use std::ops::Range;

use super::{Limits, Part, chunks, length};

/// So many blocks become one. The price of a merge by choice: each byte is copied once for every factor of this.
const FAN: usize = 16;
/// A run of blocks so large that fewer than [`FAN`] fill one copy is merged from this number on.
const FAN_LARGE: usize = 4;
/// One more merge a commit for so many blocks of the list: a foreign list of 50,000 is short after 60 commits.
const BLOCKS_A_MERGE: usize = 1024;
/// A full list is brought down to 15/16, so that the next commits find room without merging.
const ROOM_PARTS: usize = 16;

pub(super) fn compact(mut parts: Vec<Part>, limits: &Limits) -> Vec<Part> {
    let made = parts.iter().filter(|part| !matches!(part, Part::Keep(..))).count();
    let mut merges = 1 + made / FAN + parts.len() / BLOCKS_A_MERGE;
    for level in limits.levels {
        if parts.len() > level.list {
            parts = merge_small(parts, level.bytes, limits.copy_bytes, &mut merges);
        }
    }
    if parts.len() > limits.list_blocks { make_room(parts, limits) } else { parts }
}

/// Merges runs of kept blocks below `bytes_max` each, as many as `merges` allows.
fn merge_small(parts: Vec<Part>, bytes_max: u64, copy_bytes: u64, merges: &mut usize) -> Vec<Part> {
    let mut out: Vec<Part> = Vec::with_capacity(parts.len());
    let mut run = 0; // Parts at the end of `out` that could become one.
    for part in parts {
        let fits = *merges > 0 && part.is_kept() && length(part.range()) < bytes_max;
        let full = run > 0 && span(&out, run, part.range()) > copy_bytes;
        if fits && full && run >= FAN_LARGE {
            join_last(&mut out, run, merges);
        }
        if !fits || full {
            run = 0;
        }
        out.push(part);
        run += usize::from(fits);
        if run == FAN && *merges > 0 {
            join_last(&mut out, run, merges);
            run = 0;
        }
    }
    out
}

/// Bytes from the first of the last `run` parts to the end of `next`.
fn span(parts: &[Part], run: usize, next: &Range<u64>) -> u64 {
    let first = parts.len().checked_sub(run).and_then(|at| parts.get(at));
    first.map_or(0, |first| next.end - first.range().start)
}

/// Makes one copy of the last `run` parts.
fn join_last(parts: &mut Vec<Part>, run: usize, merges: &mut usize) {
    let joined = parts.split_off(parts.len() - run);
    if let [first, .., last] = joined.as_slice() {
        parts.push(Part::Copy(first.range().start..last.range().end));
        *merges -= 1;
    } else {
        parts.extend(joined);
    }
}

/// Merges as many neighbours as a full list needs, the smallest first.
fn make_room(mut parts: Vec<Part>, limits: &Limits) -> Vec<Part> {
    let enough = limits.list_blocks - limits.list_blocks / ROOM_PARTS;
    let mut bytes = limits.merge_bytes.min(limits.copy_bytes);
    while parts.len() > enough && bytes < limits.copy_bytes {
        parts = pack(parts, bytes, enough);
        bytes = (bytes * FAN as u64).min(limits.copy_bytes);
    }
    if parts.len() > enough {
        parts = pack(parts, limits.copy_bytes, enough);
    }
    if parts.len() > limits.list_blocks { recut(parts, limits.copy_bytes) } else { parts }
}

/// Makes one copy of each run of kept neighbours of at most `bytes` together, until `enough` parts are left.
fn pack(parts: Vec<Part>, bytes: u64, enough: usize) -> Vec<Part> {
    let mut excess = parts.len().saturating_sub(enough);
    let mut out: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts {
        match out.last_mut() {
            Some(last)
                if excess > 0 && last.is_kept() && part.is_kept() && part.range().end - last.range().start <= bytes =>
            {
                *last = Part::Copy(last.range().start..part.range().end);
                excess -= 1;
            }
            _ => out.push(part),
        }
    }
    out
}

/// The last resort, for files of terabytes: whole runs of kept bytes as the fewest copies there can be.
fn recut(parts: Vec<Part>, copy_bytes: u64) -> Vec<Part> {
    let mut out: Vec<Part> = Vec::new();
    for part in parts {
        match out.last_mut() {
            Some(Part::Copy(last)) if part.is_kept() => last.end = part.range().end,
            _ if part.is_kept() => out.push(Part::Copy(part.range().clone())),
            _ => out.push(part),
        }
    }
    let cut = |part| match part {
        Part::Copy(range) => chunks(&range, copy_bytes, Part::Copy),
        other => vec![other],
    };
    out.into_iter().flat_map(cut).collect()
}
