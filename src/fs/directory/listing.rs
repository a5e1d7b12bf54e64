//! One pass over the names of a directory, page by page.
//!
//! A name's position is its offset for a reader, so names are only appended, and a removed one stays as a gap. A pass
//! that outgrows the memory for names gives up its first pages: it is not *whole* any more, says nothing of names that it
//! does not hold, and who reads there again goes on with a pass of its own from the page's marker.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hashbrown::HashTable;

use crate::sync::Mutex;

use super::{
    super::{attributes::Kind, inode::InodeNumber},
    memory::NameMemory,
    packed::{Packed, Shared},
};
use crate::blob::{BlobProperties, Committed};

/// One name of a listing.
#[derive(Clone, Debug)]
pub struct Slot {
    /// As the kernel is shown it.
    pub name: Arc<str>,
    /// The inode number set aside for it.
    pub number: InodeNumber,
    /// What it is.
    pub kind: Kind,
    /// What the service said of the blob; `None` for a bare prefix and for what only we have.
    pub properties: Option<Arc<BlobProperties>>,
    /// When the service was asked, or when it was changed here.
    pub seen: Instant,
}

/// A name as readdir(3) wants it.
#[derive(Clone, Debug)]
pub struct ListedName {
    /// Its position in the pass.
    pub position: usize,
    /// As the kernel is shown it.
    pub name: Arc<str>,
    /// The inode number set aside for it.
    pub number: InodeNumber,
    /// What it is.
    pub kind: Kind,
}

/// What a reader finds at a position.
#[derive(Debug)]
pub enum Names {
    /// These, and whether the pass has more behind them or may fetch more.
    Here(Vec<ListedName>, bool),
    /// They were given up: read this pass instead.
    ReadAgain(Arc<Listing>),
}

/// Where the next page starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// At the beginning, or at the service's marker.
    At(Option<String>),
    /// There is no next page: every name is known.
    Done,
}

/// One name as it is kept: 32 bytes and what is packed.
#[derive(Debug)]
struct Kept {
    packed: Packed,
    number: InodeNumber,
    /// Nanoseconds from the pass's beginning, or before it, to `Slot::seen`.
    seen: i64,
}

#[derive(Debug)]
struct Slots {
    /// Position of the first one.
    first: usize,
    slots: Vec<Kept>,
    /// Positions by name.
    index: HashTable<u32>,
    hasher: RandomState,
    shared: Shared,
    /// Slots of directories that are not gone.
    directories: usize,
    cursor: Cursor,
    /// How often a name came that a reader may have passed by, or one that he may have seen changed or went.
    changes: u64,
    /// Where each page began: its first position and its marker.
    pages: Vec<(usize, Option<String>)>,
    /// Bytes counted in the memory for names.
    counted: u64,
}

/// Bytes that a name takes beside what is packed: [`Kept`], its place in the index, the allocator's own.
const NAME_OVERHEAD_BYTES: u64 = 32 + 8 + 16;

/// Where the offsets of one pass over a directory begin, and how many passes have offsets of their own. Below 2^31, which is what
/// programs of 32 bits take (readdir(3), EOVERFLOW).
const OFFSETS_A_PASS: u64 = 1 << 24;
const PASSES_APART: u64 = 1 << 7;

/// The pass, by its number, that an offset is of.
pub(super) fn pass_of(offset: u64) -> u64 {
    offset / OFFSETS_A_PASS
}

/// What somebody's copy of the names was read from.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    pass: u64,
    changes: u64,
    /// Until when the pass is believed; `None`: for ever.
    pub fresh_until: Option<Instant>,
}

impl Stamp {
    /// Whether both were read from the same names.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        (self.pass, self.changes) == (other.pass, other.changes)
    }
}

/// See the module's doc.
#[derive(Debug)]
pub struct Listing {
    /// No other pass of the volume has it.
    id: u64,
    /// Offset of position 0.
    offsets_from: u64,
    started: Instant,
    /// By how much what it says is older than that, in nanoseconds.
    older_by: AtomicU64,
    slots: Mutex<Slots>,
    memory: Arc<NameMemory>,
    /// When it was asked last, by the clock of `memory`.
    used: AtomicU64,
    /// The furthest position that a reader was given.
    reached: AtomicUsize,
    /// Held by the one who fetches the next page.
    pub loading: crate::sync::tokio::sync::Mutex<()>,
}

impl Listing {
    /// A pass that begins now, the `count`th of its directory.
    #[must_use]
    pub fn begin(memory: &Arc<NameMemory>, count: u64) -> Arc<Self> {
        Self::begin_at(memory, count % PASSES_APART * OFFSETS_A_PASS, 0, Cursor::At(None))
    }

    /// A pass over a directory that is known to be empty: we have just made it.
    #[must_use]
    pub fn of_new_directory(memory: &Arc<NameMemory>) -> Arc<Self> {
        Self::begin_at(memory, 0, 0, Cursor::Done)
    }

    fn begin_at(memory: &Arc<NameMemory>, offsets_from: u64, first: usize, cursor: Cursor) -> Arc<Self> {
        let slots = Slots {
            first,
            slots: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            shared: Shared::default(),
            directories: 0,
            cursor,
            changes: 0,
            pages: Vec::new(),
            counted: 0,
        };
        let listing = Arc::new(Self {
            id: memory.tick(),
            offsets_from,
            started: Instant::now(),
            older_by: AtomicU64::new(0),
            slots: Mutex::new(slots),
            memory: Arc::clone(memory),
            used: AtomicU64::new(memory.tick()),
            reached: AtomicUsize::new(first),
            loading: crate::sync::tokio::sync::Mutex::new(()),
        });
        memory.watch(&listing);
        listing
    }

    /// Whether it began less than `fresh_for` ago and holds all names that it ever had.
    #[must_use]
    pub fn is_current(&self, fresh_for: Duration) -> bool {
        self.started().elapsed() < fresh_for && self.slots.lock().first == 0
    }

    /// What a reader who begins now will have read, if nothing changes meanwhile.
    #[must_use]
    pub fn stamp(&self, fresh_for: Duration) -> Stamp {
        let fresh_until = self.started().checked_add(fresh_for);
        Stamp { pass: self.id, changes: self.slots.lock().changes, fresh_until }
    }

    /// The offset of a position. Passes of one directory have different ones, so that a kernel that puts together what several
    /// readers were given takes nothing of one pass for a continuation of another.
    #[must_use]
    pub fn offset_of(&self, position: usize) -> u64 {
        self.offsets_from + position as u64
    }

    /// The position of an offset; one of another pass leads to the same position in this.
    #[must_use]
    pub fn position_of(&self, offset: u64) -> usize {
        let position = offset.checked_sub(self.offsets_from).unwrap_or(offset % OFFSETS_A_PASS);
        usize::try_from(position).unwrap_or(usize::MAX)
    }

    /// Whether it holds every name of the directory, so that one it does not hold is not there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let slots = self.slots.lock();
        slots.cursor == Cursor::Done && slots.first == 0
    }

    /// When the pass began, or when what it says was asked for.
    #[must_use]
    pub fn started(&self) -> Instant {
        let older_by = Duration::from_nanos(self.older_by.load(Ordering::Relaxed));
        self.started.checked_sub(older_by).unwrap_or(self.started)
    }

    /// What it is filled with was asked for earlier than it began.
    pub fn date_back(&self, asked: Instant) {
        let older_by = u64::try_from(self.started.saturating_duration_since(asked).as_nanos()).unwrap_or(u64::MAX);
        self.older_by.store(older_by, Ordering::Relaxed);
    }

    /// When it was asked last, by the clock of the memory for names.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn use_now(&self) {
        self.used.store(self.memory.tick(), Ordering::Relaxed);
    }

    /// Where the next page starts.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.slots.lock().cursor.clone()
    }

    /// Notes that a page begins at the end of what is there.
    pub fn begin_page(&self, marker: Option<String>) {
        let mut slots = self.slots.lock();
        let at = slots.end();
        slots.pages.push((at, marker));
    }

    /// Ends a page.
    pub fn advance(&self, cursor: Cursor) {
        self.slots.lock().cursor = cursor;
    }

    /// The slot of `name`, if it has one that is not gone.
    #[must_use]
    pub fn slot(&self, name: &str) -> Option<Slot> {
        self.use_now();
        let slots = self.slots.lock();
        let kept = slots.kept(name).filter(|kept| !kept.packed.is_gone())?;
        Some(self.unpacked(kept, &slots.shared))
    }

    fn unpacked(&self, kept: &Kept, shared: &Shared) -> Slot {
        Slot {
            name: Arc::from(kept.packed.name()),
            number: kept.number,
            kind: kept.packed.kind(),
            properties: kept.packed.properties(shared).map(Arc::new),
            seen: self.instant(kept.seen),
        }
    }

    /// The position of `name`.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.slots.lock().position(name)
    }

    /// Up to `count` slots that are there from position `from`, gaps left out, each with its position. No reader of the
    /// directory: what was given up is not read again.
    #[must_use]
    pub fn slots_from(&self, from: usize, count: usize) -> Vec<(usize, Slot)> {
        let slots = self.slots.lock();
        let behind = slots.slots.iter().enumerate().skip(from.saturating_sub(slots.first));
        let there = behind.filter(|(_, kept)| !kept.packed.is_gone()).take(count);
        there.map(|(at, kept)| (slots.first + at, self.unpacked(kept, &slots.shared))).collect()
    }

    /// How many directories are there from position `from` to before position `to`.
    #[must_use]
    pub fn directories_between(&self, from: usize, to: usize) -> usize {
        let slots = self.slots.lock();
        let range = from.saturating_sub(slots.first)..to.saturating_sub(slots.first).min(slots.slots.len());
        let there = |kept: &&Kept| kept.packed.kind() == Kind::Directory && !kept.packed.is_gone();
        slots.slots.get(range).map_or(0, |slots| slots.iter().filter(there).count())
    }

    /// What `name` is, if it is there.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<Kind> {
        let slots = self.slots.lock();
        slots.kept(name).filter(|kept| !kept.packed.is_gone()).map(|kept| kept.packed.kind())
    }

    /// Up to `count` names from position `from`, gaps left out.
    #[must_use]
    pub fn names_from(&self, from: usize, count: usize) -> Names {
        self.use_now();
        let slots = self.slots.lock();
        if from < slots.first {
            let page = slots.pages.iter().rfind(|(start, _)| *start <= from);
            let (first, marker) = page.cloned().unwrap_or_default();
            drop(slots);
            return Names::ReadAgain(Self::begin_at(&self.memory, self.offsets_from, first, Cursor::At(marker)));
        }
        let mut found = Vec::new();
        let mut position = from;
        while position < slots.end() && found.len() < count {
            let kept = &slots.slots[position - slots.first];
            if !kept.packed.is_gone() {
                let (name, kind) = (Arc::from(kept.packed.name()), kept.packed.kind());
                found.push(ListedName { position, name, number: kept.number, kind });
            }
            position += 1;
        }
        self.reached.fetch_max(position, Ordering::Relaxed);
        Names::Here(found, position < slots.end() || slots.cursor != Cursor::Done)
    }

    /// Whether a reader who has come to `position` is in the last page that is there, and another follows: time to fetch it.
    #[must_use]
    pub fn is_last_page(&self, position: usize) -> bool {
        let slots = self.slots.lock();
        slots.cursor != Cursor::Done && slots.pages.last().is_none_or(|(start, _)| position >= *start)
    }

    /// How many directories it holds; `None` while there are more pages, or names were given up.
    #[must_use]
    pub fn directories(&self) -> Option<usize> {
        self.is_complete().then(|| self.slots.lock().directories)
    }

    /// The position behind the last name, gaps counted.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.slots.lock().end()
    }

    /// Puts a name in, or renews what is known of it.
    pub fn put(&self, slot: &Slot) {
        let mut slots = self.slots.lock();
        let properties = slot.properties.as_deref();
        let packed = Packed::new(&slot.name, slot.kind, false, properties, &mut slots.shared);
        let kept = Kept { packed, number: slot.number, seen: self.nanoseconds(slot.seen) };
        slots.put(kept, &self.memory);
    }

    /// Whether what it says of `name` (if anything) is older than `seen`.
    #[must_use]
    pub fn is_older(&self, name: &str, seen: Instant) -> bool {
        self.slots.lock().kept(name).is_none_or(|kept| self.instant(kept.seen) < seen)
    }

    /// Takes a name out; its position stays as a gap.
    pub fn remove(&self, name: &str) {
        let mut slots = self.slots.lock();
        let Some(kept) = slots.kept(name) else { return };
        let (kind, number, seen) = (kept.packed.kind(), kept.number, kept.seen);
        let packed = Packed::new(name, kind, true, None, &mut slots.shared);
        slots.put(Kept { packed, number, seen }, &self.memory);
    }

    /// All blobs have the versions that `renewed` says, by the name as it is shown.
    pub fn renew(&self, renewed: impl Fn(&str) -> Option<Committed>) {
        let mut slots = self.slots.lock();
        let now = self.nanoseconds(Instant::now());
        let slots = &mut *slots;
        for kept in &mut slots.slots {
            let name = kept.packed.name();
            let properties = kept.packed.properties(&slots.shared).zip(renewed(name));
            let properties = properties.map(|(properties, committed)| BlobProperties {
                etag: committed.etag,
                last_modified: committed.last_modified,
                ..properties
            });
            let (kind, gone) = (kept.packed.kind(), kept.packed.is_gone());
            kept.packed = Packed::new(name, kind, gone, properties.as_ref(), &mut slots.shared);
            kept.seen = now;
        }
        // Its `..` is another directory.
        slots.changes += 1;
        slots.recount(&self.memory);
    }

    /// Gives up names that no reader is about to want: all if `is_read` is false, else the pages that were read.
    pub(super) fn give_up(&self, is_read: bool) {
        let mut slots = self.slots.lock();
        let end = if is_read { slots.page_of(self.reached.load(Ordering::Relaxed)) } else { slots.end() };
        slots.give_up_to(end);
        slots.recount(&self.memory);
    }

    fn nanoseconds(&self, seen: Instant) -> i64 {
        let signed = |age: Duration| i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
        match seen.checked_duration_since(self.started) {
            Some(after) => signed(after),
            None => -signed(self.started.duration_since(seen)),
        }
    }

    fn instant(&self, nanoseconds: i64) -> Instant {
        let age = Duration::from_nanos(nanoseconds.unsigned_abs());
        if nanoseconds < 0 { self.started.checked_sub(age).unwrap_or(self.started) } else { self.started + age }
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.memory.give_back(self.slots.get_mut().counted);
    }
}

impl Slots {
    fn end(&self) -> usize {
        self.first + self.slots.len()
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.index.find(self.hasher.hash_one(name), |at| self.name_at(*at) == name).map(|at| *at as usize)
    }

    fn kept(&self, name: &str) -> Option<&Kept> {
        self.slots.get(self.position(name)? - self.first)
    }

    fn name_at(&self, position: u32) -> &str {
        self.slots[position as usize - self.first].packed.name()
    }

    fn put(&mut self, kept: Kept, memory: &NameMemory) {
        let counts = |kept: &Kept| usize::from(kept.packed.kind() == Kind::Directory && !kept.packed.is_gone());
        self.directories += counts(&kept);
        let hash = self.hasher.hash_one(kept.packed.name());
        let found = self.index.find(hash, |at| self.name_at(*at) == kept.packed.name()).copied();
        let added = kept.packed.bytes() as u64;
        let before = self.counted;
        match found {
            Some(position) => {
                let place = &mut self.slots[position as usize - self.first];
                let seen = |kept: &Kept| (kept.packed.kind(), kept.packed.is_gone(), kept.number);
                self.changes += u64::from(seen(place) != seen(&kept));
                self.counted = self.counted + added - place.packed.bytes() as u64;
                self.directories -= counts(place);
                *place = kept;
            }
            None => {
                self.changes += u64::from(self.cursor == Cursor::Done);
                let (position, first) = (self.end() as u32, self.first);
                self.slots.push(kept);
                let (slots, hasher) = (&self.slots, &self.hasher);
                self.index
                    .insert_unique(hash, position, |at| hasher.hash_one(slots[*at as usize - first].packed.name()));
                self.counted += added + NAME_OVERHEAD_BYTES;
            }
        }
        memory.recount(before, self.counted);
    }

    /// Where the page begins that `position` is in.
    fn page_of(&self, position: usize) -> usize {
        self.pages.iter().rfind(|(start, _)| *start <= position).map_or(self.first, |(start, _)| *start)
    }

    fn give_up_to(&mut self, end: usize) {
        let count = end.clamp(self.first, self.end()) - self.first;
        if count == 0 {
            return;
        }
        self.first += count;
        self.slots.drain(..count);
        self.slots.shrink_to_fit();
        let counts = |kept: &&Kept| kept.packed.kind() == Kind::Directory && !kept.packed.is_gone();
        self.directories = self.slots.iter().filter(counts).count();
        let first = self.first;
        self.index.retain(|at| *at as usize >= first);
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.shrink_to_fit(|at| hasher.hash_one(slots[*at as usize - first].packed.name()));
    }

    fn recount(&mut self, memory: &NameMemory) {
        let before = self.counted;
        self.counted = self.slots.iter().map(|kept| kept.packed.bytes() as u64 + NAME_OVERHEAD_BYTES).sum();
        memory.recount(before, self.counted);
    }
}
