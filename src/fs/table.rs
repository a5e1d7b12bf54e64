//! The inode table: which numbers exist, under which parent and name, and who still refers to them.
//!
//! Plain data on purpose: (number, parent, name, references) can be written out and read back, which is what a takeover
//! does (DESIGN 4). Knows nothing of the service. A row lives while it is referenced: by lookups of a view's kernel, by
//! open handles, by pins of unfinished work, or by the rows of its children.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::sync::Mutex;

use super::{
    by_number::ByNumber,
    inode::{Inode, InodeNumber, ROOT},
    takeover::{Counter, Scribe},
};

/// Numbers of rows that are gone which may stand in turn, however few rows there are.
const QUEUE_SLACK: usize = 1024;
/// How many inodes are looked at for each that comes too many: more than one, so that the table shrinks again.
const COLD_LOOKS: usize = 3;
/// Files that were asked for by themselves go only past so many times the share: the kernel gives up their pages with them.
const ASKED_PART: usize = 4;

#[derive(Debug)]
struct Row {
    inode: Arc<Inode>,
    parent: InodeNumber,
    name: Arc<str>,
    /// Whether (`parent`, `name`) leads here; not any more after an unlink or a replacement.
    linked: bool,
    references: u64,
    /// Whether anybody asked for it by itself since it was last looked at for being cold, and how it came into the table
    /// if not: in a listing.
    asked: bool,
}

#[derive(Debug, Default)]
struct Rows {
    rows: ByNumber<InodeNumber, Row>,
    children: ByNumber<InodeNumber, HashMap<Arc<str>, InodeNumber>>,
    /// All numbers, the one looked at for being cold longest ago first; some of rows that are gone.
    queue: VecDeque<InodeNumber>,
    /// Writes the rows down.
    scribe: Option<Arc<Scribe>>,
}

/// The table. Its lock is a leaf for everything but itself: no inode's state is locked and nothing awaits while it is held.
#[derive(Debug)]
pub struct InodeTable {
    rows: Mutex<Rows>,
    next: AtomicU64,
    scribe: Option<Arc<Scribe>>,
}

/// A row as another process has written it down.
#[derive(Debug)]
pub struct LeftRow {
    /// What it is of.
    pub inode: Arc<Inode>,
    /// The directory it is or was in.
    pub parent: InodeNumber,
    /// Its name there.
    pub name: Arc<str>,
    /// Whether the name leads to it.
    pub linked: bool,
    /// Lookups and open handles.
    pub references: u64,
}

impl InodeTable {
    /// A table with the root alone, written down by `scribe`.
    #[must_use]
    pub fn new(root: Arc<Inode>, scribe: Option<&Arc<Scribe>>) -> Self {
        let row = Row { inode: root, parent: ROOT, name: Arc::from(""), linked: true, references: 1, asked: true };
        let mut rows = Rows { scribe: scribe.cloned(), ..Rows::default() };
        rows.rows.insert(ROOT, row);
        Self { rows: Mutex::new(rows), next: AtomicU64::new(ROOT.0 + 1), scribe: scribe.cloned() }
    }

    /// Takes the rows of another process over, and goes on counting at `next`. Those that nothing refers to are left out.
    pub fn take_over(&self, left: Vec<LeftRow>, next: u64) {
        self.next.fetch_max(next, Ordering::Relaxed);
        let mut rows = self.rows.lock();
        let numbers: Vec<InodeNumber> = left.iter().map(|row| row.inode.number).collect();
        let mut places = Vec::new();
        for LeftRow { inode, parent, name, linked, references } in left {
            let number = inode.number;
            if linked {
                places.push((parent, Arc::clone(&name), number));
            }
            rows.rows.insert(number, Row { inode, parent, name, linked, references, asked: true });
            rows.enqueue(number);
        }
        for (parent, name, number) in places {
            match rows.rows.get_mut(&parent) {
                Some(row) => {
                    row.references += 1;
                    rows.children.entry(parent).or_default().insert(name, number);
                }
                None => {
                    if let Some(row) = rows.rows.get_mut(&number) {
                        row.linked = false;
                    }
                }
            }
        }
        for number in numbers {
            rows.release(number, 0);
        }
    }

    /// A number that was never used.
    pub fn next_number(&self) -> InodeNumber {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(scribe) = &self.scribe {
            scribe.note_number(Counter::Inodes, number);
        }
        InodeNumber(number)
    }

    /// The inode of `number`, which somebody asks for.
    #[must_use]
    pub fn get(&self, number: InodeNumber) -> Option<Arc<Inode>> {
        let mut rows = self.rows.lock();
        let row = rows.rows.get_mut(&number)?;
        row.asked = true;
        Some(Arc::clone(&row.inode))
    }

    /// Somebody asked for `number` by its name.
    pub fn note_asked(&self, number: InodeNumber) {
        if let Some(row) = self.rows.lock().rows.get_mut(&number) {
            row.asked = true;
        }
    }

    /// Names that kernels should forget, since the table holds more than `most` inodes: a few of those that nobody asked for
    /// since they were listed, and past [`ASKED_PART`] times as many, of files that nobody asked for lately. Never
    /// directories that were asked for: to forget one takes away what is mounted on it (d_invalidate of fs/dcache.c).
    #[must_use]
    pub fn cold_names(&self, most: usize) -> Vec<(InodeNumber, Arc<str>)> {
        let mut rows = self.rows.lock();
        if rows.rows.len() <= most {
            return Vec::new();
        }
        let mut cold = Vec::new();
        for _ in 0..COLD_LOOKS {
            cold.extend(rows.next_cold(most));
        }
        cold
    }

    /// The inode that (`parent`, `name`) leads to.
    #[must_use]
    pub fn child(&self, parent: InodeNumber, name: &str) -> Option<Arc<Inode>> {
        let rows = self.rows.lock();
        let number = rows.children.get(&parent)?.get(name)?;
        rows.rows.get(number).map(|row| Arc::clone(&row.inode))
    }

    /// All inodes below `parent` that are in the table, with their names.
    #[must_use]
    pub fn children(&self, parent: InodeNumber) -> Vec<(Arc<str>, Arc<Inode>)> {
        let rows = self.rows.lock();
        let Some(children) = rows.children.get(&parent) else { return Vec::new() };
        let row = |(name, number): (&Arc<str>, &InodeNumber)| {
            rows.rows.get(number).map(|row| (Arc::clone(name), Arc::clone(&row.inode)))
        };
        children.iter().filter_map(row).collect()
    }

    /// All inodes below `number` that have names.
    #[must_use]
    pub fn below(&self, number: InodeNumber) -> Vec<Arc<Inode>> {
        let rows = self.rows.lock();
        let (mut found, mut waiting) = (Vec::new(), vec![number]);
        while let Some(number) = waiting.pop() {
            for child in rows.children.get(&number).into_iter().flat_map(HashMap::values) {
                waiting.push(*child);
                found.extend(rows.rows.get(child).map(|row| Arc::clone(&row.inode)));
            }
        }
        found
    }

    /// Puts `inode` under (`parent`, `name`) with one reference, unless another is there already: then that one gets
    /// the reference and is returned. Returns `None` when the parent is gone.
    pub fn link(&self, parent: InodeNumber, name: &str, inode: Arc<Inode>) -> Option<Arc<Inode>> {
        let mut rows = self.rows.lock();
        if let Some(&there) = rows.children.get(&parent).and_then(|children| children.get(name)) {
            if let Some(scribe) = rows.scribe.as_ref().filter(|_| there != inode.number) {
                scribe.forget_inode(inode.number);
            }
            let row = rows.rows.get_mut(&there)?;
            row.references += 1;
            return Some(Arc::clone(&row.inode));
        }
        rows.rows.get_mut(&parent)?.references += 1;
        let name: Arc<str> = Arc::from(name);
        rows.children.entry(parent).or_default().insert(Arc::clone(&name), inode.number);
        rows.note_name(inode.number, parent, &name, true);
        let row = Row { inode: Arc::clone(&inode), parent, name, linked: true, references: 1, asked: false };
        rows.rows.insert(inode.number, row);
        rows.enqueue(inode.number);
        Some(inode)
    }

    /// Takes the name away from `number`; it stays reachable by number while it is referenced.
    pub fn unlink(&self, number: InodeNumber) {
        let mut rows = self.rows.lock();
        let Some(row) = rows.rows.get_mut(&number) else { return };
        if !std::mem::take(&mut row.linked) {
            return;
        }
        let (parent, name) = (row.parent, Arc::clone(&row.name));
        rows.note_name(number, parent, &name, false);
        rows.forget_child(parent, &name);
        rows.release(parent, 1);
        rows.release(number, 0);
    }

    /// Moves the name of `number` to (`parent`, `name`), which must be free.
    pub fn rename(&self, number: InodeNumber, parent: InodeNumber, name: &str) {
        let mut rows = self.rows.lock();
        let name: Arc<str> = Arc::from(name);
        let Some(row) = rows.rows.get_mut(&number) else { return };
        let was_linked = std::mem::replace(&mut row.linked, true);
        let old_parent = std::mem::replace(&mut row.parent, parent);
        let old_name = std::mem::replace(&mut row.name, Arc::clone(&name));
        rows.note_name(number, parent, &name, true);
        if let Some(row) = rows.rows.get_mut(&parent) {
            row.references += 1;
        }
        if was_linked {
            rows.forget_child(old_parent, &old_name);
            rows.release(old_parent, 1);
        }
        rows.children.entry(parent).or_default().insert(name, number);
    }

    /// Adds `count` references to `number`; `false` when it is gone.
    pub fn hold(&self, number: InodeNumber, count: u64) -> bool {
        match self.rows.lock().rows.get_mut(&number) {
            Some(row) => {
                row.references += count;
                true
            }
            None => false,
        }
    }

    /// Gives `count` references back.
    pub fn release(&self, number: InodeNumber, count: u64) {
        self.rows.lock().release(number, count);
    }

    /// Parent and name of a linked inode.
    #[must_use]
    pub fn place(&self, number: InodeNumber) -> Option<(InodeNumber, Arc<str>)> {
        let rows = self.rows.lock();
        rows.rows.get(&number).filter(|row| row.linked).map(|row| (row.parent, Arc::clone(&row.name)))
    }

    /// The names that lead from the root to `number`; empty for the root; `None` once it, or a directory above it, has
    /// no name any more.
    #[must_use]
    pub fn names(&self, number: InodeNumber) -> Option<Vec<Arc<str>>> {
        let rows = self.rows.lock();
        let mut names = Vec::new();
        let mut position = number;
        while position != ROOT {
            let row = rows.rows.get(&position).filter(|row| row.linked)?;
            names.push(Arc::clone(&row.name));
            position = row.parent;
        }
        names.reverse();
        Some(names)
    }

    /// Whether `number` is `ancestor` or lies below it.
    #[must_use]
    pub fn is_within(&self, number: InodeNumber, ancestor: InodeNumber) -> bool {
        let rows = self.rows.lock();
        let mut position = number;
        loop {
            if position == ancestor {
                return true;
            }
            match rows.rows.get(&position) {
                Some(row) if position != ROOT => position = row.parent,
                _ => return false,
            }
        }
    }

    /// All inodes, for the sweeps that must not miss one (flush at the end of a session).
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Inode>> {
        self.rows.lock().rows.values().map(|row| Arc::clone(&row.inode)).collect()
    }

    /// How many inodes the table holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.lock().rows.len()
    }
}

impl Rows {
    fn note_name(&self, number: InodeNumber, parent: InodeNumber, name: &str, linked: bool) {
        if let Some(scribe) = &self.scribe {
            scribe.note_name(number, parent, name, linked);
        }
    }

    /// Puts a new row in turn; when most numbers in turn are of rows that are gone, those leave.
    fn enqueue(&mut self, number: InodeNumber) {
        self.queue.push_back(number);
        if self.queue.len() > 2 * self.rows.len() + QUEUE_SLACK {
            self.queue.retain(|number| self.rows.contains_key(number));
        }
    }

    /// Looks at the next inode in turn: its place, if kernels should forget it.
    fn next_cold(&mut self, most: usize) -> Option<(InodeNumber, Arc<str>)> {
        let len = self.rows.len();
        let number = self.queue.pop_front()?;
        let row = self.rows.get_mut(&number)?;
        self.queue.push_back(number);
        // One reference is a kernel's lookup, which is there to be given back; more are handles, children or work.
        let idle = row.linked && row.references == 1;
        if row.asked {
            // A second chance, for files.
            row.asked = row.inode.directory.is_some() || len <= ASKED_PART * most;
            return None;
        }
        idle.then(|| (row.parent, Arc::clone(&row.name)))
    }

    fn forget_child(&mut self, parent: InodeNumber, name: &str) {
        if let Some(children) = self.children.get_mut(&parent) {
            children.remove(name);
            if children.is_empty() {
                self.children.remove(&parent);
            }
        }
    }

    /// Gives references back, and removes the row, and rows above it, once nothing refers to them.
    fn release(&mut self, number: InodeNumber, count: u64) {
        let (mut number, mut count) = (number, count);
        loop {
            let Some(row) = self.rows.get_mut(&number) else { return };
            row.references = row.references.saturating_sub(count);
            if row.references > 0 || number == ROOT {
                return;
            }
            let Some(row) = self.rows.remove(&number) else { return };
            if let Some(scribe) = &self.scribe {
                scribe.forget_inode(number);
            }
            if !row.linked {
                return;
            }
            self.forget_child(row.parent, &row.name);
            (number, count) = (row.parent, 1);
        }
    }
}
