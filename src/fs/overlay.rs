//! What was written and is not committed: a sparse layer of bytes over the version below.
//!
//! A layer says for every byte below its `size` one of four things: *dirty* (its own byte, in memory or in the spool),
//! *staged* (its own byte, which only the service has, in an uncommitted block), *below* (the layer below knows), or
//! zero. Layers stack: the one that takes writes, the one that a running commit is sending, and the committed version.
//! Knows nothing of inodes, requests or the service.
//!
//! Bytes sit in buffers of 64 KiB at most, shared by reference count with the request bodies that send them: a write
//! to a buffer that is being sent copies it first, so that what was sent is what the commit publishes. What another process
//! must know to go on with a layer is in [`rows`].

mod held;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "what only its tests ask: the keys of a layer, and whether all is written")
)]
mod rows;

use std::{
    collections::{BTreeMap, HashSet},
    io,
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;

pub use held::Spilling;
use held::{Held, Shared};
pub use rows::LayerId;
use rows::Notes;
pub(super) use rows::WRITTEN_BYTES_MAX;

use super::{ranges::RangeSet, spool::SpoolFile};
use crate::{
    blob::{BlockId, Body},
    cache::Buffer,
};

/// Bytes that one dirty buffer covers at most. What a small write in the middle of nowhere costs in memory: with 1 MiB,
/// 200 random writes would fill a budget of 200 MiB; with 4 KiB, a stretch of 8 MiB would be a body of 2048 pieces.
pub const BUFFER_BYTES: u64 = 64 << 10;

/// A stretch of the file that was sent as one uncommitted block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedRun {
    /// Where it lies in the file.
    pub range: Range<u64>,
    /// The block's id.
    pub id: BlockId,
}

/// What a byte range of the layer is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Bytes of this layer, in memory or in the spool.
    Dirty(Range<u64>),
    /// Bytes of this layer that only the service has, uncommitted.
    Staged(Range<u64>),
    /// What the layer below says.
    Below(Range<u64>),
    /// Zeros.
    Zero(Range<u64>),
}

impl Segment {
    /// The bytes of the file that it speaks of.
    #[must_use]
    pub fn range(&self) -> &Range<u64> {
        let (Self::Dirty(range) | Self::Staged(range) | Self::Below(range) | Self::Zero(range)) = self;
        range
    }
}

/// A change would touch bytes that are no longer in memory: commit first, then try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotResident;

/// Why a write was not done.
#[derive(Debug)]
pub enum WriteRefused {
    /// The layer changed meanwhile: ask [`Overlay::buffers_wanted`] again.
    BuffersWanted,
    /// It would cut a staged stretch that is not in memory: commit first.
    NotResident,
    /// What the spool keeps beside the new bytes cannot be read.
    Spool(io::Error),
}

/// Dirty bytes on their way into a request body.
#[derive(Debug)]
pub enum Piece {
    /// In memory, shared.
    Shared(Bytes),
    /// To be fetched from the spool ([`Overlay::copy_to`]).
    Spooled(Range<u64>),
}

/// The layer. See the module's doc. `below`, `dirty` and `away` share no byte and end at `size`; what is in none of them
/// is zero.
#[derive(Clone, Debug)]
pub struct Overlay {
    size: u64,
    /// What the layer below knows.
    below: RangeSet,
    /// Own bytes that are here.
    dirty: RangeSet,
    /// Own bytes that only the service has. Each lies in a staged run.
    away: RangeSet,
    /// Buffer index to its bytes; may be shorter than [`BUFFER_BYTES`] while no dirty byte lies behind its end. There is
    /// one under every dirty byte.
    buffers: BTreeMap<u64, Held>,
    /// What did not fit into memory.
    spool: Option<Arc<SpoolFile>>,
    /// By start. Runs never overlap.
    staged: BTreeMap<u64, StagedRun>,
    /// What of this is to be written down.
    notes: Notes,
}

impl Overlay {
    /// A layer that changes nothing over `length` bytes.
    #[must_use]
    pub fn over(length: u64) -> Self {
        let mut below = RangeSet::default();
        below.insert(0..length);
        Self {
            size: length,
            below,
            dirty: RangeSet::default(),
            away: RangeSet::default(),
            buffers: BTreeMap::new(),
            spool: None,
            staged: BTreeMap::new(),
            notes: Notes::default(),
        }
    }

    /// Size of the file as this layer has it, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the last byte of the layer below ends that is still to be seen; 0: none is.
    #[must_use]
    pub fn below(&self) -> u64 {
        self.below.end()
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.buffers.values().filter(|held| matches!(held, Held::Memory(_))).map(Held::len).sum()
    }

    /// The stretches that were sent already, in order.
    pub fn staged(&self) -> impl Iterator<Item = &StagedRun> {
        self.staged.values()
    }

    /// The buffers that a [`Self::write`] of `range` will take, as index and least length in bytes: where there is
    /// none, where it is too short, where a request body shares it, and where the next process would take its bytes for
    /// those that were sent.
    #[must_use]
    pub fn buffers_wanted(&self, range: &Range<u64>) -> Vec<(u64, u64)> {
        let wanted = |(index, within): (u64, Range<u64>)| {
            let held = self.buffers.get(&index);
            let length = held.map_or(0, Held::len);
            let alone = |held: &Held| matches!(held, Held::Memory(buffer) if Arc::strong_count(buffer) == 1);
            let usable = length >= within.end && held.is_some_and(alone) && !self.is_sent_for_good(index);
            (!usable).then_some((index, length.max(within.end)))
        };
        split(range).filter_map(wanted).collect()
    }

    /// Writes `data` at `offset`, growing the file. Takes from `buffers` what [`Self::buffers_wanted`] asked for.
    ///
    /// # Errors
    /// [`WriteRefused`]; nothing was changed then.
    pub fn write(&mut self, offset: u64, data: &[u8], buffers: &mut BTreeMap<u64, Buffer>) -> Result<(), WriteRefused> {
        let range = offset..offset + data.len() as u64;
        let missing = |(index, length): &(u64, u64)| {
            buffers.get(index).is_none_or(|buffer| (buffer.as_ref().len() as u64) < *length)
        };
        let wanted = self.buffers_wanted(&range);
        if wanted.iter().any(missing) {
            return Err(WriteRefused::BuffersWanted);
        }
        self.unspool(&range, buffers).map_err(WriteRefused::Spool)?;
        self.unstage(&range).map_err(|NotResident| WriteRefused::NotResident)?;
        let was_dirty = self.dirty.covers(&range);
        let mut rest = data;
        for (index, within) in split(&range) {
            let (part, behind) = rest.split_at((within.end - within.start) as usize);
            let is_wanted = wanted.binary_search_by_key(&index, |(wanted, _)| *wanted).is_ok();
            if let Some(fresh) = if is_wanted { buffers.remove(&index) } else { None } {
                self.replace(index, fresh);
            } else if !was_dirty {
                self.notes.buffer(index);
            }
            self.writable(index)[within.start as usize..within.end as usize].copy_from_slice(part);
            rest = behind;
        }
        self.below.remove(range.clone());
        self.dirty.insert(range.clone());
        self.size = self.size.max(range.end);
        Ok(())
    }

    /// Brings what the spool keeps of the buffers under `range` back into memory, into those of `buffers`.
    fn unspool(&mut self, range: &Range<u64>, buffers: &mut BTreeMap<u64, Buffer>) -> io::Result<()> {
        let Some(spool) = self.spool.clone() else { return Ok(()) };
        for (index, _) in split(range) {
            let Some(Held::Spool(length)) = self.buffers.get(&index) else { continue };
            let Some(fresh) = buffers.get_mut(&index) else { continue };
            spool.fetch(index * BUFFER_BYTES, &mut fresh.as_mut()[..*length as usize])?;
            if let Some(fresh) = buffers.remove(&index) {
                self.buffers.insert(index, Held::Memory(Arc::new(fresh)));
                self.notes.buffer(index);
            }
        }
        Ok(())
    }

    /// Has `fresh` in the place of buffer `index`, with its bytes.
    fn replace(&mut self, index: u64, mut fresh: Buffer) {
        if let Some(Held::Memory(old)) = self.buffers.get(&index) {
            fresh.as_mut()[..old.len()].copy_from_slice(old.as_ref().as_ref());
        }
        let old = self.buffers.insert(index, Held::Memory(Arc::new(fresh)));
        self.notes.released(old);
        self.notes.buffer(index);
    }

    /// The bytes of buffer `index`, which is ours alone.
    fn writable(&mut self, index: u64) -> &mut [u8] {
        #[expect(
            clippy::expect_used,
            reason = "write() refuses before it comes here without a usable or a fresh buffer"
        )]
        let buffer = self.buffers.get_mut(&index).and_then(Held::memory_mut).expect("a buffer of our own");
        buffer.as_mut()
    }

    /// The layer's spool file, which `create` makes when there is none.
    ///
    /// # Errors
    /// That of `create`.
    pub fn spool(&mut self, create: impl FnOnce() -> io::Result<SpoolFile>) -> io::Result<Arc<SpoolFile>> {
        match &self.spool {
            Some(spool) => Ok(Arc::clone(spool)),
            None => Ok(Arc::clone(self.spool.insert(Arc::new(create()?)))),
        }
    }

    /// Up to `bytes_max` of memory that can go to the spool: all kinds, or only what was sent. While the caller holds them,
    /// the buffers do not change: a write puts others in their place.
    #[must_use]
    pub fn spillable(&self, bytes_max: u64, only_sent: bool) -> Spilling {
        let sent: HashSet<u64> = if only_sent { self.sent_buffers().into_iter().collect() } else { HashSet::new() };
        let mut bytes = 0;
        let mut buffers = Vec::new();
        for (index, held) in &self.buffers {
            let Held::Memory(buffer) = held else { continue };
            if bytes >= bytes_max {
                break;
            }
            if Arc::strong_count(buffer) > 1 || (only_sent && !sent.contains(index)) {
                continue;
            }
            bytes += buffer.len() as u64;
            buffers.push((*index, Arc::clone(buffer)));
        }
        Spilling { buffers }
    }

    /// Gives up the memory of what [`Spilling::keep`] has put into `spool`, as far as both are still the layer's. Returns
    /// the bytes given up.
    pub fn spilled(&mut self, spilling: Spilling, spool: &Arc<SpoolFile>) -> u64 {
        let mut freed = 0;
        if !self.spool.as_ref().is_some_and(|own| Arc::ptr_eq(own, spool)) {
            return freed;
        }
        for (index, kept) in spilling.buffers {
            let Some(held) = self.buffers.get_mut(&index) else { continue };
            if matches!(held, Held::Memory(buffer) if Arc::ptr_eq(buffer, &kept)) {
                freed += kept.len() as u64;
                *held = Held::Spool(kept.len() as u64);
                self.notes.released(Some(Held::Memory(kept)));
                self.notes.buffer(index);
            }
        }
        freed
    }

    /// Cuts or grows the file to `size`; what comes into being reads as zeros.
    ///
    /// # Errors
    /// [`NotResident`]; nothing was changed then.
    pub fn truncate(&mut self, size: u64) -> Result<(), NotResident> {
        if size < self.size {
            self.clear(&(size..self.size))?;
        }
        if size != self.size {
            self.notes.resized();
        }
        self.size = size;
        Ok(())
    }

    /// Makes `range` zeros, as far as it lies inside the file. Nothing is kept for them.
    ///
    /// # Errors
    /// [`NotResident`]; nothing was changed then.
    pub fn zero(&mut self, range: &Range<u64>) -> Result<(), NotResident> {
        self.clear(&(range.start..range.end.min(self.size)))
    }

    /// Takes `runs`, blocks that the service made by itself and that follow each other without a gap, as the bytes of
    /// their ranges; grows the file.
    ///
    /// # Errors
    /// [`NotResident`]; nothing was changed then.
    pub fn place_staged(&mut self, runs: Vec<StagedRun>) -> Result<(), NotResident> {
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else { return Ok(()) };
        let whole = first.range.start..last.range.end;
        self.clear(&whole)?;
        self.away.insert(whole.clone());
        self.size = self.size.max(whole.end);
        runs.iter().for_each(|run| self.notes.run(run.range.start));
        self.staged.extend(runs.into_iter().map(|run| (run.range.start, run)));
        Ok(())
    }

    /// Whether `range` can be written without a commit: no staged run reaches out of it whose rest is not here.
    #[must_use]
    pub fn can_replace(&self, range: &Range<u64>) -> bool {
        self.runs_meeting(range).all(|run| {
            let before = run.range.start..range.start.max(run.range.start);
            let behind = range.end.min(run.range.end)..run.range.end;
            self.dirty.covers(&before) && self.dirty.covers(&behind)
        })
    }

    /// Takes every byte of `range` out of all sets, and gives up the buffers that no dirty byte needs any more.
    fn clear(&mut self, range: &Range<u64>) -> Result<(), NotResident> {
        if range.is_empty() {
            return Ok(());
        }
        self.unstage(range)?;
        self.below.remove(range.clone());
        self.dirty.remove(range.clone());
        self.notes.cleared(range);
        let touched: Vec<u64> = self.buffers_under(range).collect();
        for index in touched {
            self.notes.buffer(index);
            if self.dirty.overlapping(&buffer_range(index)).next().is_none() {
                self.notes.released(self.buffers.remove(&index));
            }
        }
        Ok(())
    }

    /// Forgets that stretches meeting `range` were sent: their bytes are about to change. One that lies wholly inside is
    /// replaced, wherever its bytes are.
    fn unstage(&mut self, range: &Range<u64>) -> Result<(), NotResident> {
        if !self.can_replace(range) {
            return Err(NotResident);
        }
        let met: Vec<u64> = self.runs_meeting(range).map(|run| run.range.start).collect();
        for start in met {
            self.staged.remove(&start);
            self.notes.run(start);
        }
        self.away.remove(range.clone());
        Ok(())
    }

    fn runs_meeting(&self, range: &Range<u64>) -> impl Iterator<Item = &StagedRun> {
        let end = range.end.max(range.start);
        let first = self.staged.range(..range.start).next_back().filter(|(_, run)| run.range.end > range.start);
        first.into_iter().chain(self.staged.range(range.start..end)).map(|(_, run)| run)
    }

    /// The indexes of the buffers that are held under `range`.
    fn buffers_under(&self, range: &Range<u64>) -> impl Iterator<Item = u64> {
        let end = range.end.div_ceil(BUFFER_BYTES).max(range.start / BUFFER_BYTES);
        self.buffers.range(range.start / BUFFER_BYTES..end).map(|(index, _)| *index)
    }

    /// What `range` is made of, in order and without gaps, cut at the size of the file.
    #[must_use]
    pub fn segments(&self, range: &Range<u64>) -> Vec<Segment> {
        let range = range.start..range.end.min(self.size);
        let dirty = self.dirty.within(&range).map(Segment::Dirty);
        let away = self.away.within(&range).map(Segment::Staged);
        let below = self.below.within(&range).map(Segment::Below);
        let mut known: Vec<Segment> = dirty.chain(away).chain(below).collect();
        known.sort_unstable_by_key(|segment| segment.range().start);
        let mut segments = Vec::with_capacity(known.len() + 1);
        let mut position = range.start;
        for segment in known {
            if position < segment.range().start {
                segments.push(Segment::Zero(position..segment.range().start));
            }
            position = segment.range().end;
            segments.push(segment);
        }
        if position < range.end {
            segments.push(Segment::Zero(position..range.end));
        }
        segments
    }

    /// Copies the dirty bytes of `range` to `target` of the same length.
    ///
    /// # Errors
    /// What the node's disk says of the spool.
    pub fn copy_to(&self, range: &Range<u64>, target: &mut [u8]) -> io::Result<()> {
        let mut rest = target;
        for (index, within) in split(range) {
            let (part, behind) = rest.split_at_mut((within.end - within.start) as usize);
            match (self.buffers.get(&index), &self.spool) {
                (Some(Held::Memory(buffer)), _) => {
                    part.copy_from_slice(&buffer.as_ref().as_ref()[within.start as usize..within.end as usize]);
                }
                (Some(Held::Spool(_)), Some(spool)) => spool.fetch(index * BUFFER_BYTES + within.start, part)?,
                _ => return Err(io::Error::other("dirty bytes are neither in memory nor in the spool")),
            }
            rest = behind;
        }
        Ok(())
    }

    /// The dirty bytes of `range` for a request body.
    #[must_use]
    pub fn pieces(&self, range: &Range<u64>) -> Vec<Piece> {
        let piece = |(index, within): (u64, Range<u64>)| match self.buffers.get(&index) {
            Some(Held::Memory(buffer)) => {
                let whole = Bytes::from_owner(Shared(Arc::clone(buffer)));
                Piece::Shared(whole.slice(within.start as usize..within.end as usize))
            }
            _ => Piece::Spooled(index * BUFFER_BYTES + within.start..index * BUFFER_BYTES + within.end),
        };
        split(range).map(piece).collect()
    }

    /// The dirty bytes of `range` as a body that shares them; `None` when some are in the spool.
    #[must_use]
    pub fn share(&self, range: &Range<u64>) -> Option<Body> {
        let shared = |piece| match piece {
            Piece::Shared(bytes) => Some(bytes),
            Piece::Spooled(_) => None,
        };
        self.pieces(range).into_iter().map(shared).collect()
    }

    /// Whether all of `range` is dirty and not yet sent.
    #[must_use]
    pub fn is_stageable(&self, range: &Range<u64>) -> bool {
        self.dirty.covers(range) && self.runs_meeting(range).next().is_none()
    }

    /// Where the first buffer is that ends behind `from`: a way to find what could be sent without walking the file.
    #[must_use]
    pub fn held_from(&self, from: u64) -> Option<u64> {
        self.buffers.range(from / BUFFER_BYTES..).next().map(|(index, _)| index * BUFFER_BYTES)
    }

    /// Records that the bytes shared as `body` for `run` were sent. `false` when they have changed since, which the
    /// caller sees by the identity of the buffers that `run` was made from ([`Self::fingerprint`]).
    pub fn record_staged(&mut self, run: StagedRun, fingerprint: &[usize]) -> bool {
        if !self.is_stageable(&run.range) || self.fingerprint(&run.range) != fingerprint {
            return false;
        }
        self.staged.insert(run.range.start, run);
        true
    }

    /// The identities of the buffers under `range`: a write to a shared buffer replaces it, so equal identities mean
    /// equal bytes as long as the request body that shares them lives.
    #[must_use]
    pub fn fingerprint(&self, range: &Range<u64>) -> Vec<usize> {
        split(range)
            .map(|(index, _)| match self.buffers.get(&index) {
                Some(Held::Memory(buffer)) => Arc::as_ptr(buffer) as usize,
                _ => 0,
            })
            .collect()
    }

    /// Gives up the memory of what was sent, where a buffer holds nothing else; reading it needs a commit from then on.
    /// Returns the bytes given up.
    pub fn drop_staged(&mut self) -> u64 {
        let before = self.resident_bytes();
        for index in self.sent_buffers() {
            if !matches!(self.buffers.get(&index), Some(Held::Memory(_))) {
                continue;
            }
            let stretch = buffer_range(index);
            let held: Vec<Range<u64>> = self.dirty.within(&stretch).collect();
            let runs: Vec<u64> = self.runs_meeting(&stretch).map(|run| run.range.start).collect();
            runs.into_iter().for_each(|start| self.notes.run(start));
            self.notes.released(self.buffers.remove(&index));
            self.notes.buffer(index);
            self.dirty.remove(stretch);
            held.into_iter().for_each(|part| self.away.insert(part));
        }
        before - self.resident_bytes()
    }

    /// Bytes in the spool.
    #[must_use]
    pub fn spooled_bytes(&self) -> u64 {
        self.buffers.values().filter(|held| matches!(held, Held::Spool(_))).map(Held::len).sum()
    }

    /// The buffers whose every byte was sent.
    fn sent_buffers(&self) -> Vec<u64> {
        let mut sent = RangeSet::default();
        self.staged.values().for_each(|run| sent.insert(run.range.clone()));
        let mut touched: Vec<u64> = self.staged.values().flat_map(|run| self.buffers_under(&run.range)).collect();
        touched.dedup();
        touched.retain(|index| self.dirty.within(&buffer_range(*index)).all(|part| sent.covers(&part)));
        touched
    }
}

/// The bytes of the file that buffer `index` covers.
fn buffer_range(index: u64) -> Range<u64> {
    index * BUFFER_BYTES..(index + 1) * BUFFER_BYTES
}

/// The parts of `range` by buffer: index, and the bytes relative to the buffer's start.
fn split(range: &Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> + use<> {
    let range = range.clone();
    let indexes = if range.is_empty() { 0..0 } else { range.start / BUFFER_BYTES..range.end.div_ceil(BUFFER_BYTES) };
    indexes.map(move |index| {
        let start = index * BUFFER_BYTES;
        (index, range.start.max(start) - start..range.end.min(start + BUFFER_BYTES) - start)
    })
}

#[cfg(test)]
mod tests;
