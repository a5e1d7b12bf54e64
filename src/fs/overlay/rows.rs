//! What of a layer is written down, so that another process can go on with it: its head, one row a buffer, and one for the
//! runs that begin in the stretch of a buffer and whose bytes only the service has.
//!
//! A write must cost little, whatever the layer looks like, so it changes the rows of its buffers and nothing else: the head
//! says what the layer below knows *but for what is dirty or away*, and the size *but for what was written behind it*. Only
//! what takes bytes away (a truncation, a hole) changes the head. A run whose bytes are all here is not written down: it is
//! sent again.
//!
//! Rows of one change count together or not at all: between a head that no longer has bytes below and the row of the buffer
//! that has them, the file would read as zeros. And a row names memory, so a buffer that the layer gives up is nobody's
//! before the rows that no longer name it are written: [`Rows::released`].

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use bytes::Bytes;
use prost::Message as _;

use super::{BUFFER_BYTES, Held, Overlay, StagedRun, buffer_range};
use crate::{
    blob::BlockId,
    cache::{Buffer, Place, Reservation, Vault},
    fs::{ranges::RangeSet, spool::SpoolFile},
};

/// Bits of a key that say which row of its layer it is: a number below [`RUNS`] is a buffer's index, and from there on
/// that of the buffer in whose stretch runs begin.
const NUMBER_BITS: u32 = 27;
const RUNS: u64 = 1 << (NUMBER_BITS - 1);
/// Where the last buffer ends that has a row.
pub(in crate::fs) const WRITTEN_BYTES_MAX: u64 = RUNS * BUFFER_BYTES;
/// Largest size of a file, as the kernel has it.
const SIZE_MAX: u64 = i64::MAX as u64;
/// Longest block id of the service, in bytes.
const BLOCK_ID_BYTES_MAX: usize = 64;
/// What a place is counted in: the smallest buffer.
const SLOT_BYTES: u64 = 4096;

/// A layer's number, for ever its own. Below 2^37.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(pub u64);

impl LayerId {
    /// The keys that rows of this layer can have.
    #[must_use]
    #[cfg(test)]
    fn keys(self) -> Range<u64> {
        self.0 << NUMBER_BITS..(self.0 + 1) << NUMBER_BITS
    }

    /// The layer that a row belongs to.
    #[must_use]
    pub fn of_key(key: u64) -> Self {
        Self(key >> NUMBER_BITS)
    }

    fn of_buffer(self, index: u64) -> u64 {
        self.0 << NUMBER_BITS | index
    }

    fn of_runs(self, index: u64) -> u64 {
        self.0 << NUMBER_BITS | RUNS | index
    }
}

/// A layer that another process wrote down cannot be believed.
#[derive(Debug, thiserror::Error)]
#[error("what was written and not saved cannot be taken over: {0}")]
pub struct Unreadable(&'static str);

/// What must be written down of a change, in one stroke.
#[derive(Debug, Default)]
pub struct Rows {
    /// The layer's head, where it changed.
    pub head: Option<Vec<u8>>,
    /// Keys, and the rows that they have from now on.
    pub put: Vec<(u64, Vec<u8>)>,
    /// Keys that have no row any more, or never had one.
    pub removed: Vec<u64>,
    /// Memory that rows have named until now: to be dropped once the new ones are written, and not before.
    pub released: Vec<Arc<Buffer>>,
}

impl Rows {
    /// Whether nothing is to be written down.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head.is_none() && self.put.is_empty() && self.removed.is_empty() && self.released.is_empty()
    }
}

/// What has changed since rows were last taken; nothing is noted of a layer without a number. A copy of a layer has none: it
/// is looked at, and its bytes belong to the rows of the first.
#[derive(Debug, Default)]
pub(super) struct Notes(Option<Box<Kept>>);

#[derive(Debug)]
struct Kept {
    id: LayerId,
    /// What the layer below knows, were nothing dirty or away.
    below: RangeSet,
    head_changed: bool,
    /// Indexes of buffers.
    buffers: BTreeSet<u64>,
    /// Of the stretches of buffers in which runs begin.
    runs: BTreeSet<u64>,
    released: Vec<Arc<Buffer>>,
}

impl Clone for Notes {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Notes {
    /// Whether anything is written down.
    pub(super) fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Buffer `index`, or what of it is dirty, is another.
    pub(super) fn buffer(&mut self, index: u64) {
        if let Some(kept) = &mut self.0 {
            kept.buffers.insert(index);
        }
    }

    /// The run that begins at `start` came, went, or has lost bytes that were here.
    pub(super) fn run(&mut self, start: u64) {
        if let Some(kept) = &mut self.0 {
            kept.runs.insert(start / BUFFER_BYTES);
        }
    }

    /// The size was set.
    pub(super) fn resized(&mut self) {
        if let Some(kept) = &mut self.0 {
            kept.head_changed = true;
        }
    }

    /// The bytes of `range` are no longer what they were below.
    pub(super) fn cleared(&mut self, range: &Range<u64>) {
        if let Some(kept) = &mut self.0 {
            kept.below.remove(range.clone());
            kept.head_changed = true;
        }
    }

    /// The layer has given `held` up.
    pub(super) fn released(&mut self, held: Option<Held>) {
        if let (Some(kept), Some(Held::Memory(buffer))) = (&mut self.0, held) {
            kept.released.push(buffer);
        }
    }
}

/// What a head says of itself: that it is one, and how its rows are to be read.
const FORMAT: u32 = 1;

/// The head, as it is written down. Numbers of fields never change their meaning.
#[derive(Clone, PartialEq, prost::Message)]
struct HeadRow {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    size: u64,
    /// [`Kept::below`], as [`packed`].
    #[prost(uint64, repeated, tag = "3")]
    below: Vec<u64>,
    /// [`FORMAT`].
    #[prost(uint32, tag = "4")]
    format: u32,
}

/// A buffer, as it is written down.
#[derive(Clone, PartialEq, prost::Message)]
struct BufferRow {
    /// Where its bytes are: [`NOWHERE`], [`SPOOLED`], or the capacity of its place in the vault.
    #[prost(uint32, tag = "1")]
    home: u32,
    /// Where in the vault, in [`SLOT_BYTES`].
    #[prost(uint64, tag = "2")]
    slot: u64,
    #[prost(uint32, tag = "3")]
    length: u32,
    /// The dirty bytes, from the buffer's start, as [`packed`].
    #[prost(uint64, repeated, tag = "4")]
    dirty: Vec<u64>,
}

/// In memory that does not survive. Says so, rather than that there is nothing.
const NOWHERE: u32 = 0;
/// In the layer's spool file, at the buffer's position.
const SPOOLED: u32 = 1;

/// The runs that begin in the stretch of one buffer, as they are written down.
#[derive(Clone, PartialEq, prost::Message)]
struct RunsRow {
    #[prost(message, repeated, tag = "1")]
    runs: Vec<RunRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RunRow {
    /// From the start of the stretch.
    #[prost(uint32, tag = "1")]
    start: u32,
    #[prost(uint64, tag = "2")]
    length: u64,
    #[prost(bytes = "bytes", tag = "3")]
    id: Bytes,
}

impl Overlay {
    /// From now on the layer is written down, as `id`; what it has already with the next [`Self::take_rows`]. Also where it has
    /// a number already: what was written is to be written elsewhere again.
    pub fn keep(&mut self, id: LayerId) {
        let before = self.notes.0.take();
        let (below, released) =
            before.map_or_else(|| (self.below.clone(), Vec::new()), |kept| (kept.below, kept.released));
        let buffers = self.buffers.keys().copied().collect();
        let runs = self.staged.keys().map(|start| start / BUFFER_BYTES).collect();
        self.notes = Notes(Some(Box::new(Kept { id, below, head_changed: true, buffers, runs, released })));
    }

    /// The number under which it is written down.
    #[must_use]
    pub fn id(&self) -> Option<LayerId> {
        self.notes.0.as_ref().map(|kept| kept.id)
    }

    /// Whether all that is to be written down was taken.
    #[must_use]
    pub fn is_written_down(&self) -> bool {
        let is_clean = |kept: &Kept| {
            !kept.head_changed && kept.buffers.is_empty() && kept.runs.is_empty() && kept.released.is_empty()
        };
        self.notes.0.as_deref().is_none_or(is_clean)
    }

    /// What has changed since the last call: nothing for a layer without a number. Before the lock that the change was made
    /// under is given back, the rows must be written, all at once, and only then may [`Rows::released`] be dropped.
    pub fn take_rows(&mut self) -> Rows {
        let mut rows = Rows::default();
        if self.is_written_down() {
            return rows;
        }
        let Some(kept) = &mut self.notes.0 else { return rows };
        let id = kept.id;
        rows.released = std::mem::take(&mut kept.released);
        if std::mem::take(&mut kept.head_changed) {
            let below = packed(kept.below.within(&(0..u64::MAX)), 0);
            rows.head = Some(HeadRow { id: id.0, size: self.size, below, format: FORMAT }.encode_to_vec());
        }
        let (buffers, runs) = (std::mem::take(&mut kept.buffers), std::mem::take(&mut kept.runs));
        let buffers = buffers.into_iter().map(|index| (id.of_buffer(index), self.buffer_row(index)));
        let runs = runs.into_iter().map(|index| (id.of_runs(index), self.runs_row(index)));
        for (key, row) in buffers.chain(runs) {
            match row {
                Some(row) => rows.put.push((key, row)),
                None => rows.removed.push(key),
            }
        }
        rows
    }

    /// The keys of all rows that may be written: to be removed, all at once and the head with them, before the layer is
    /// dropped. None for a layer without a number.
    #[must_use]
    #[cfg(test)]
    fn keys(&self) -> Vec<u64> {
        let Some(kept) = &self.notes.0 else { return Vec::new() };
        let buffers: BTreeSet<u64> = self.buffers.keys().chain(&kept.buffers).copied().collect();
        let away = self.staged.values().filter(|run| self.is_away(run)).map(|run| run.range.start / BUFFER_BYTES);
        let runs: BTreeSet<u64> = away.chain(kept.runs.iter().copied()).collect();
        let buffers = buffers.into_iter().map(|index| kept.id.of_buffer(index));
        buffers.chain(runs.into_iter().map(|index| kept.id.of_runs(index))).collect()
    }

    /// The spool file, for whoever is to hold its descriptor for the next process: before the rows that send it there.
    #[must_use]
    pub fn spool_file(&self) -> Option<&Arc<SpoolFile>> {
        self.spool.as_ref()
    }

    fn buffer_row(&self, index: u64) -> Option<Vec<u8>> {
        let held = self.buffers.get(&index)?;
        let stretch = buffer_range(index);
        let (home, slot) = match held {
            Held::Spool(_) => (SPOOLED, 0),
            Held::Memory(buffer) => {
                buffer.place().map_or((NOWHERE, 0), |place| (place.capacity() as u32, place.offset() / SLOT_BYTES))
            }
        };
        let dirty = packed(self.dirty.within(&stretch), stretch.start);
        Some(BufferRow { home, slot, length: held.len() as u32, dirty }.encode_to_vec())
    }

    fn runs_row(&self, index: u64) -> Option<Vec<u8>> {
        let stretch = buffer_range(index);
        let row = |run: &StagedRun| RunRow {
            start: (run.range.start - stretch.start) as u32,
            length: run.range.end - run.range.start,
            id: run.id.0.clone(),
        };
        let away = self.staged.range(stretch.clone()).map(|(_, run)| run).filter(|run| self.is_away(run));
        let runs: Vec<RunRow> = away.map(row).collect();
        (!runs.is_empty()).then(|| RunsRow { runs }.encode_to_vec())
    }

    /// Whether only the service has some of a run's bytes.
    fn is_away(&self, run: &StagedRun) -> bool {
        self.away.overlapping(&run.range).next().is_some()
    }

    /// Whether bytes in the stretch of buffer `index` belong to a run that is written down as sent: they must not change
    /// before it is written down that it no longer counts.
    pub(super) fn is_sent_for_good(&self, index: u64) -> bool {
        self.notes.is_kept() && self.runs_meeting(&buffer_range(index)).any(|run| self.is_away(run))
    }

    /// The layer that another process wrote down as `head` and `rows` (all of [`LayerId::keys`]), with its bytes in `vault`
    /// and `spool`. `reserve` gives the reservation for so many bytes of dirty data.
    ///
    /// # Errors
    /// [`Unreadable`]; of the vault, nothing is taken then.
    pub fn restore<'rows>(
        head: &[u8],
        rows: impl Iterator<Item = (u64, &'rows [u8])>,
        vault: &Arc<Vault>,
        spool: Option<Arc<SpoolFile>>,
        mut reserve: impl FnMut(u64) -> Reservation,
    ) -> Result<Self, Unreadable> {
        let head = HeadRow::decode(head).map_err(|_| Unreadable("the head of a layer is garbled"))?;
        if head.format != FORMAT {
            return Err(Unreadable("a layer was written down in a way that is not known here"));
        }
        let (id, below) = (LayerId(head.id), unpacked(&head.below, 0, head.size)?);
        if head.id >= 1 << (u64::BITS - NUMBER_BITS) || head.size > SIZE_MAX {
            return Err(Unreadable("the head of a layer has numbers that no layer has"));
        }
        let mut layer = Self { size: head.size, spool, ..Self::over(0) };
        for (key, row) in rows {
            let number = key & ((1 << NUMBER_BITS) - 1);
            if LayerId::of_key(key) != id {
                return Err(Unreadable("a row belongs to another layer"));
            }
            match number.checked_sub(RUNS) {
                Some(index) => layer.restore_runs(index, row)?,
                None => layer.restore_buffer(number, row, vault, &mut reserve)?,
            }
        }
        layer.settle(&below);
        let kept = Kept {
            id,
            below,
            head_changed: false,
            buffers: BTreeSet::new(),
            runs: BTreeSet::new(),
            released: Vec::new(),
        };
        layer.notes = Notes(Some(Box::new(kept)));
        Ok(layer)
    }

    fn restore_buffer(
        &mut self,
        index: u64,
        row: &[u8],
        vault: &Arc<Vault>,
        reserve: &mut impl FnMut(u64) -> Reservation,
    ) -> Result<(), Unreadable> {
        let row = BufferRow::decode(row).map_err(|_| Unreadable("a row of a buffer is garbled"))?;
        let stretch = buffer_range(index);
        let length = u64::from(row.length);
        let dirty = unpacked(&row.dirty, stretch.start, (stretch.start + length).min(stretch.end))?;
        if dirty.end() == 0 || length > BUFFER_BYTES || self.buffers.contains_key(&index) {
            return Err(Unreadable("a buffer holds nothing, too much, or was there already"));
        }
        let held = match row.home {
            NOWHERE => return Err(Unreadable("bytes were in memory that did not survive")),
            SPOOLED if self.spool.as_ref().is_some_and(|spool| spool.reaches(stretch.start + length)) => {
                Held::Spool(length)
            }
            SPOOLED => return Err(Unreadable("the spool does not have what it should")),
            capacity => {
                let offset = row.slot.checked_mul(SLOT_BYTES);
                let place = offset.and_then(|offset| Place::new(offset, capacity as usize));
                let adopt = |place: Place| vault.adopt(place, row.length as usize, reserve(place.capacity() as u64));
                let buffer = place.and_then(adopt).ok_or(Unreadable("a buffer is not where it should be"))?;
                Held::Memory(Arc::new(buffer))
            }
        };
        self.buffers.insert(index, held);
        dirty.within(&stretch).for_each(|part| self.dirty.insert(part));
        Ok(())
    }

    fn restore_runs(&mut self, index: u64, row: &[u8]) -> Result<(), Unreadable> {
        let row = RunsRow::decode(row).map_err(|_| Unreadable("a row of runs is garbled"))?;
        let stretch = buffer_range(index);
        for run in row.runs {
            let start = stretch.start + u64::from(run.start);
            let end = start.checked_add(run.length).filter(|end| *end <= SIZE_MAX);
            let range = start..end.ok_or(Unreadable("a run ends behind every file"))?;
            let is_id = (1..=BLOCK_ID_BYTES_MAX).contains(&run.id.len());
            if range.is_empty() || !stretch.contains(&start) || !is_id || self.runs_meeting(&range).next().is_some() {
                return Err(Unreadable("a run is empty, nameless, elsewhere, or meets another"));
            }
            self.staged.insert(start, StagedRun { range, id: BlockId(run.id) });
        }
        Ok(())
    }

    /// Once all buffers and runs are there: what is away, what is below, and the size.
    fn settle(&mut self, below: &RangeSet) {
        self.staged.values().for_each(|run| self.away.insert(run.range.clone()));
        self.dirty.within(&(0..u64::MAX)).for_each(|part| self.away.remove(part));
        self.below = below.clone();
        let own = self.dirty.within(&(0..u64::MAX)).chain(self.away.within(&(0..u64::MAX)));
        own.for_each(|part| self.below.remove(part));
        self.size = self.size.max(self.dirty.end()).max(self.away.end());
        // What is all here is sent again.
        let away = &self.away;
        self.staged.retain(|_, run| away.overlapping(&run.range).next().is_some());
    }
}

/// Ranges in order as gap and length in turn, from `origin` on.
fn packed(ranges: impl Iterator<Item = Range<u64>>, origin: u64) -> Vec<u64> {
    let mut position = origin;
    let mut numbers = Vec::new();
    for range in ranges {
        numbers.extend([range.start - position, range.end - range.start]);
        position = range.end;
    }
    numbers
}

/// What [`packed`] made of ranges that end at `end` at the latest.
fn unpacked(numbers: &[u64], origin: u64, end: u64) -> Result<RangeSet, Unreadable> {
    let mut found = RangeSet::default();
    let mut position = origin;
    let (pairs, rest) = numbers.as_chunks::<2>();
    for [gap, length] in pairs {
        let start = position.checked_add(*gap);
        let stop = start.and_then(|start| start.checked_add(*length)).filter(|stop| *stop <= end && *length > 0);
        let (Some(start), Some(stop)) = (start, stop) else {
            return Err(Unreadable("a range ends behind what it is a part of"));
        };
        found.insert(start..stop);
        position = stop;
    }
    if rest.is_empty() { Ok(found) } else { Err(Unreadable("a range has no end")) }
}

#[cfg(test)]
mod tests;
