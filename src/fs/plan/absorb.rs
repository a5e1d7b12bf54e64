//! Small kept neighbours of bytes to send go with them, so that many small commits do not make many small blocks.
//!
//! A whole block is sent again only while it is no longer than what is sent beside it. A log under fsync then counts in
//! binary: blocks of 1, 2, 4, ... appends, each byte sent once a doubling, and never again from `merge_bytes` on.

use std::ops::Range;

use super::{Limits, Part, length};

/// What one stretch to send takes along of the old version at most, in blocks of `merge_bytes`: two, which is what the
/// doubling ends with. Without a bound, large writes would send any number of small blocks beside them again.
const ABSORBED_BLOCKS_MAX: u64 = 2;

/// A part, and how much of the old version it has taken along.
struct Taken {
    part: Part,
    absorbed: u64,
}

pub(super) fn absorb(parts: Vec<Part>, limits: &Limits) -> Vec<Part> {
    let mut taken: Vec<Taken> = Vec::with_capacity(parts.len());
    for part in parts {
        match (taken.last_mut(), &part) {
            (Some(Taken { part: Part::Copy(last), .. }), Part::Copy(next)) if last.end == next.start => {
                last.end = next.end;
            }
            (Some(Taken { part: Part::Send(last), .. }), Part::Send(next)) => {
                last.end = next.end;
                absorb_before(&mut taken, limits);
            }
            (Some(Taken { part: Part::Send(last), absorbed }), _) if goes_along(&part, last, *absorbed, limits) => {
                last.end = part.range().end;
                *absorbed += length(part.range());
                absorb_before(&mut taken, limits);
            }
            _ => {
                let sends = matches!(part, Part::Send(_));
                taken.push(Taken { part, absorbed: 0 });
                if sends {
                    absorb_before(&mut taken, limits);
                }
            }
        }
    }
    taken.into_iter().map(|taken| taken.part).collect()
}

/// Whether a kept part is sent with its neighbour `sent`.
fn goes_along(part: &Part, sent: &Range<u64>, absorbed: u64, limits: &Limits) -> bool {
    let bytes = length(part.range());
    let small = bytes < limits.merge_bytes && bytes <= length(sent);
    let bounded = absorbed + bytes <= ABSORBED_BLOCKS_MAX * limits.merge_bytes;
    match part {
        Part::Keep(..) => small && bounded,
        Part::Copy(_) => (small && bounded) || bytes < limits.copy_bytes_min,
        Part::Staged(..) | Part::Send(_) | Part::Zero(..) => false,
    }
}

/// The last part is one to send: those before it may go along.
fn absorb_before(taken: &mut Vec<Taken>, limits: &Limits) {
    while let [.., before, Taken { part: Part::Send(last), absorbed }] = taken.as_mut_slice() {
        let joins = matches!(before.part, Part::Send(_));
        if !joins && !goes_along(&before.part, last, *absorbed, limits) {
            return;
        }
        let bytes = if joins { before.absorbed } else { length(before.part.range()) };
        before.absorbed = *absorbed + bytes;
        before.part = Part::Send(before.part.range().start..last.end);
        taken.pop();
    }
}
