//! What was written and is not committed: a sparse layer of bytes over the version below.
//!
//! A layer says for every byte below its `size` one of four things: *dirty* (its own byte, in memory), *staged* (its
//! own byte, sent to the service as part of an uncommitted block and no longer in memory), *below* (the layer below
//! knows, up to `below`), or zero. Layers stack: the one that takes writes, the one that a running commit is sending,
//! and the committed version. Knows nothing of inodes, requests or the service.
//!
//! Bytes sit in buffers of 64 KiB at most, shared by reference count with the request bodies that send them: a write
//! to a buffer that is being sent copies it first, so that what was sent is what the commit publishes.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;

use super::ranges::RangeSet;
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
    /// Bytes of this layer, in memory.
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

/// Why a write was not done, though nothing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteRefused {
    /// The layer changed meanwhile: ask [`Overlay::buffers_wanted`] again.
    BuffersWanted,
    /// It would cut a staged stretch that is not in memory: commit first.
    NotResident,
}

/// The layer. See the module's doc.
#[derive(Clone, Debug)]
pub struct Overlay {
    size: u64,
    below: u64,
    dirty: RangeSet,
    /// Buffer index to its bytes; may be shorter than [`BUFFER_BYTES`] while no dirty byte lies behind its end.
    buffers: BTreeMap<u64, Arc<Buffer>>,
    /// By start. Runs never overlap.
    staged: BTreeMap<u64, StagedRun>,
}

impl Overlay {
    /// A layer that changes nothing over `length` bytes.
    #[must_use]
    pub fn over(length: u64) -> Self {
        Self {
            size: length,
            below: length,
            dirty: RangeSet::default(),
            buffers: BTreeMap::new(),
            staged: BTreeMap::new(),
        }
    }

    /// Size of the file as this layer has it, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of the layer below that are still to be seen.
    #[must_use]
    pub fn below(&self) -> u64 {
        self.below
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.buffers.values().map(|buffer| buffer.as_ref().as_ref().len() as u64).sum()
    }

    /// The stretches that were sent already, in order.
    pub fn staged(&self) -> impl Iterator<Item = &StagedRun> {
        self.staged.values()
    }

    /// The buffers that a [`Self::write`] of `range` will take, as index and least length in bytes: where there is
    /// none, where it is too short, and where a request body shares it.
    #[must_use]
    pub fn buffers_wanted(&self, range: &Range<u64>) -> Vec<(u64, u64)> {
        let wanted = |(index, within): (u64, Range<u64>)| {
            let held = self.buffers.get(&index);
            let length = held.map_or(0, |buffer| buffer.as_ref().as_ref().len() as u64);
            let usable = length >= within.end && held.is_some_and(|buffer| Arc::strong_count(buffer) == 1);
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
        if self.buffers_wanted(&range).iter().any(missing) {
            return Err(WriteRefused::BuffersWanted);
        }
        self.unstage(&range).map_err(|NotResident| WriteRefused::NotResident)?;
        let mut rest = data;
        for (index, within) in split(&range) {
            let (part, behind) = rest.split_at((within.end - within.start) as usize);
            self.writable(index, within.end, buffers)[within.start as usize..within.end as usize].copy_from_slice(part);
            rest = behind;
        }
        self.dirty.insert(range.clone());
        self.size = self.size.max(range.end);
        Ok(())
    }

    /// The bytes of buffer `index`, ours alone and at least `length` long.
    fn writable(&mut self, index: u64, length: u64, buffers: &mut BTreeMap<u64, Buffer>) -> &mut [u8] {
        let usable = self
            .buffers
            .get_mut(&index)
            .is_some_and(|held| Arc::get_mut(held).is_some_and(|buffer| buffer.as_ref().len() as u64 >= length));
        if !usable && let Some(mut fresh) = buffers.remove(&index) {
            if let Some(old) = self.buffers.get(&index) {
                let old = old.as_ref().as_ref();
                fresh.as_mut()[..old.len()].copy_from_slice(old);
            }
            self.buffers.insert(index, Arc::new(fresh));
        }
        #[expect(
            clippy::expect_used,
            reason = "write() refuses before it comes here without a usable or a fresh buffer"
        )]
        let buffer = self.buffers.get_mut(&index).and_then(Arc::get_mut).expect("a buffer of our own");
        buffer.as_mut()
    }

    /// Cuts or grows the file to `size`; what comes into being reads as zeros.
    ///
    /// # Errors
    /// [`NotResident`]; nothing was changed then.
    pub fn truncate(&mut self, size: u64) -> Result<(), NotResident> {
        if size < self.size {
            self.unstage(&(size..self.size))?;
            self.below = self.below.min(size);
            self.dirty.remove(size..self.size);
            drop(self.buffers.split_off(&size.div_ceil(BUFFER_BYTES)));
        }
        self.size = size;
        Ok(())
    }

    /// Forgets that stretches meeting `range` were sent: their bytes are about to change.
    fn unstage(&mut self, range: &Range<u64>) -> Result<(), NotResident> {
        let met: Vec<u64> = self.runs_meeting(range).map(|run| run.range.start).collect();
        let resident = |start: &u64| self.staged.get(start).is_none_or(|run| self.is_resident(&run.range));
        if !met.iter().all(resident) {
            return Err(NotResident);
        }
        met.iter().for_each(|start| drop(self.staged.remove(start)));
        Ok(())
    }

    fn runs_meeting(&self, range: &Range<u64>) -> impl Iterator<Item = &StagedRun> {
        let end = range.end.max(range.start);
        let first = self.staged.range(..range.start).next_back().filter(|(_, run)| run.range.end > range.start);
        first.into_iter().chain(self.staged.range(range.start..end)).map(|(_, run)| run)
    }

    fn is_resident(&self, range: &Range<u64>) -> bool {
        split(range).all(|(index, _)| self.buffers.contains_key(&index))
    }

    /// What `range` is made of, in order and without gaps, cut at the size of the file.
    #[must_use]
    pub fn segments(&self, range: &Range<u64>) -> Vec<Segment> {
        let end = range.end.min(self.size);
        let mut segments = Vec::new();
        let mut position = range.start;
        for dirty in self.dirty.overlapping(&(range.start..end)) {
            let (start, stop) = (dirty.start.max(position), dirty.end.min(end));
            self.push_undirty(position..start, &mut segments);
            for (index, within) in split(&(start..stop)) {
                let part = index * BUFFER_BYTES + within.start..index * BUFFER_BYTES + within.end;
                let resident = self.buffers.contains_key(&index);
                match segments.last_mut() {
                    Some(Segment::Dirty(last)) if resident && last.end == part.start => last.end = part.end,
                    Some(Segment::Staged(last)) if !resident && last.end == part.start => last.end = part.end,
                    _ if resident => segments.push(Segment::Dirty(part)),
                    _ => segments.push(Segment::Staged(part)),
                }
            }
            position = stop;
        }
        self.push_undirty(position..end, &mut segments);
        segments
    }

    fn push_undirty(&self, range: Range<u64>, segments: &mut Vec<Segment>) {
        let seen = range.start..range.end.min(self.below);
        let zero = range.start.max(self.below)..range.end;
        if !seen.is_empty() {
            segments.push(Segment::Below(seen));
        }
        if !zero.is_empty() {
            segments.push(Segment::Zero(zero));
        }
    }

    /// Copies the dirty bytes of `range`, all of them resident, to `target` of the same length.
    pub fn copy_to(&self, range: &Range<u64>, target: &mut [u8]) {
        let mut rest = target;
        for (index, within) in split(range) {
            let (part, behind) = rest.split_at_mut((within.end - within.start) as usize);
            if let Some(buffer) = self.buffers.get(&index) {
                part.copy_from_slice(&buffer.as_ref().as_ref()[within.start as usize..within.end as usize]);
            }
            rest = behind;
        }
    }

    /// Adds the dirty bytes of `range`, all of them resident, to `body`, sharing the buffers.
    pub fn share(&self, range: &Range<u64>, body: &mut Body) {
        for (index, within) in split(range) {
            if let Some(buffer) = self.buffers.get(&index) {
                let whole = Bytes::from_owner(Shared(Arc::clone(buffer)));
                body.push(whole.slice(within.start as usize..within.end as usize));
            }
        }
    }

    /// Whether all of `range` is dirty, in memory, and not yet sent.
    #[must_use]
    pub fn is_stageable(&self, range: &Range<u64>) -> bool {
        self.dirty.covers(range) && self.is_resident(range) && self.runs_meeting(range).next().is_none()
    }

    /// Where buffers are held, in order: a way to find what could be sent without walking the file.
    pub fn resident_positions(&self) -> impl Iterator<Item = u64> {
        self.buffers.keys().map(|index| index * BUFFER_BYTES)
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
            .map(|(index, _)| self.buffers.get(&index).map_or(0, |buffer| Arc::as_ptr(buffer) as usize))
            .collect()
    }

    /// Gives up the memory of what was sent; reading it needs a commit from then on. Returns the bytes given up.
    pub fn drop_staged(&mut self) -> u64 {
        let before = self.resident_bytes();
        let covered: Vec<u64> = self
            .staged
            .values()
            .flat_map(|run| run.range.start.div_ceil(BUFFER_BYTES)..run.range.end / BUFFER_BYTES)
            .collect();
        covered.iter().for_each(|index| drop(self.buffers.remove(index)));
        before - self.resident_bytes()
    }
}

/// Lets a request body keep a dirty buffer alive.
struct Shared(Arc<Buffer>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().as_ref()
    }
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
