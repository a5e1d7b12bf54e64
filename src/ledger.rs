//! A memory file of what must be known again: keys and values that outlive the process that wrote them.
//!
//! Written before the reply that rests on it, read by the process that takes over. Being killed stops a process between two
//! instructions and loses none of its stores, so what makes a record count is one store: the length of what is written.
//! There is no disk and no power to fail; a checksum is there all the same, because a reader must never believe bytes that
//! somebody else's mistake has changed.
//!
//! ```text
//! file      header (one page) | area 0: records ... | area 1: records ...       sparse; only one area counts at a time
//! record    check u64 | length u32 | section u16 | kind u16 | key u64 | value, padded to 8 bytes
//! ```
//! A record puts a value under (section, key), or takes it away; the last one counts. Changes that belong together are
//! written before the length is, so they count together. When more than half of an area is history, what counts is copied to
//! the other area, and a single store makes that the one. Knows nothing of what the values mean.

mod memory;
mod record;

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::sync::Mutex;
use memory::Memory;
use record::{Kind, Record};

/// What kind of thing a key names. The numbers are the owner's to choose, and must never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Section(pub u16);

/// History that is never worth copying the rest for, in bytes.
const HISTORY_BYTES_MIN: u64 = 256 << 10;

/// One change of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'value> {
    /// Puts a value under a key.
    Put(Section, u64, &'value [u8]),
    /// Takes the value of a key away.
    Remove(Section, u64),
}

/// Why a ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel gives no memory file.
    #[error("no memory file for the takeover state")]
    Memory(#[source] io::Error),
    /// It is none of ours, or of a version that is not known here.
    #[error("the takeover state is not readable: {0}")]
    Unreadable(String),
}

/// A ledger that is written.
#[derive(Debug)]
pub struct Ledger {
    memory: Memory,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Where the record that counts begins, and how long it is.
    places: BTreeMap<(Section, u64), (u64, u64)>,
    /// Bytes of the records that count.
    live_bytes: u64,
    /// The area is full, or the kernel has no memory: what is written no longer counts, and a reader is told.
    is_broken: bool,
}

/// What a ledger says, by section and key.
pub type Contents = BTreeMap<(Section, u64), Vec<u8>>;

impl Ledger {
    /// An empty one. `format` is the version of what its owner writes.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn create(format: u32) -> Result<Self, Error> {
        let memory = Memory::create(format).map_err(Error::Memory)?;
        Ok(Self { memory, state: Mutex::default() })
    }

    /// Goes on with the one that another process wrote: what it says, and the version of its owner's format.
    ///
    /// # Errors
    /// [`Error`]; nothing is changed.
    pub fn open(file: OwnedFd) -> Result<(Self, Contents, u32), Error> {
        let (memory, format) = Memory::open(file)?;
        let mut state = State::default();
        let mut contents = Contents::new();
        let mut position = 0;
        let written = memory.written();
        while position < written {
            let record = Record::read(memory.bytes(position, written))
                .ok_or_else(|| Error::Unreadable(format!("no record at {position} of {written}")))?;
            state.note(&record, position);
            match record.kind {
                Kind::Put => contents.insert((record.section, record.key), record.value.to_vec()),
                Kind::Remove => contents.remove(&(record.section, record.key)),
            };
            position += record.len();
        }
        Ok((Self { memory, state: Mutex::new(state) }, contents, format))
    }

    /// Puts `value` under (`section`, `key`). It is there for the next process once this returns.
    pub fn put(&self, section: Section, key: u64, value: &[u8]) {
        self.change(&[Change::Put(section, key, value)]);
    }

    /// Takes the value of (`section`, `key`) away.
    pub fn remove(&self, section: Section, key: u64) {
        self.change(&[Change::Remove(section, key)]);
    }

    /// Makes `changes`, each of another key, in one stroke: the next process finds all of them or none.
    pub fn change(&self, changes: &[Change<'_>]) {
        let mut state = self.state.lock();
        let records: Vec<_> = changes.iter().filter_map(|change| state.record_of(change)).collect();
        self.write(&mut state, &records);
    }

    /// Takes everything away.
    pub fn clear(&self) {
        let names: Vec<_> = self.state.lock().places.keys().copied().collect();
        names.into_iter().for_each(|(section, key)| self.remove(section, key));
    }

    /// Whether all that was written is there. Once it is not, no process can take over.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.state.lock().is_broken
    }

    /// Bytes that it holds of memory.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.memory.written()
    }

    fn write(&self, state: &mut State, records: &[Record<'_>]) {
        if state.is_broken || records.is_empty() {
            return;
        }
        let mut position = self.memory.written();
        if !self.memory.append(records) {
            tracing::error!("the takeover state takes no more memory: another process cannot go on with this mount");
            self.memory.spoil();
            state.is_broken = true;
            return;
        }
        for record in records {
            state.note(record, position);
            position += record.len();
        }
        let history = self.memory.written() - state.live_bytes;
        if history > state.live_bytes.max(HISTORY_BYTES_MIN) {
            self.compact(state);
        }
    }

    /// Copies what counts to the other area, in the order in which it was written, so that memory is read once.
    fn compact(&self, state: &mut State) {
        let mut kept: Vec<_> = state.places.iter().map(|(name, place)| (*place, *name)).collect();
        kept.sort_unstable();
        let places = self.memory.rewrite(kept.iter().map(|((position, length), _)| (*position, *length)));
        // Without memory for the copy, history goes on growing until there is.
        let Some(places) = places else { return };
        state.places = kept.iter().zip(places).map(|(((_, length), name), place)| (*name, (place, *length))).collect();
    }
}

impl AsFd for Ledger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

impl State {
    /// What makes `change`; `None` where it would change nothing.
    fn record_of<'value>(&self, change: &Change<'value>) -> Option<Record<'value>> {
        match *change {
            Change::Put(section, key, value) => Some(Record { section, kind: Kind::Put, key, value }),
            Change::Remove(section, key) => {
                let is_there = self.places.contains_key(&(section, key));
                is_there.then_some(Record { section, kind: Kind::Remove, key, value: &[] })
            }
        }
    }

    fn note(&mut self, record: &Record<'_>, position: u64) {
        let name = (record.section, record.key);
        let before = match record.kind {
            Kind::Put => {
                self.live_bytes += record.len();
                self.places.insert(name, (position, record.len()))
            }
            Kind::Remove => self.places.remove(&name),
        };
        self.live_bytes -= before.map_or(0, |(_, length)| length);
    }
}

#[cfg(test)]
mod tests;
