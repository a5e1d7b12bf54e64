//! What the next process must know of a volume, written down as it changes, and read by that process.
//!
//! When the process that serves a mount is killed or replaced, the kernel keeps inode numbers, open handles and locks, and
//! its requests wait. The next process can answer them if it knows what the numbers stood for. So every fact that a reply
//! rests on is in the ledger ([`crate::ledger`]) before the reply is sent:
//!
//! | rows | written by |
//! |---|---|
//! | versions and states of inodes | the lock of the state, when it opens ([`StateCell`]) |
//! | names, and who the parent is | the inode table, under its lock |
//! | lookups of each kernel | the view |
//! | open handles, what a directory's reader was given | the handle table |
//! | locks | the table of locks |
//! | dirty layers | the lock of the state; the bytes are in a memory file or the spool, which the keeper holds too |
//! | what was begun and must not be done twice | the operation ([`begun`]) |
//!
//! Where two rows belong together, the order in which they are written makes the state between them a harmless one: a
//! lookup too many (an inode is kept too long), a layer that is sent again over the version that it made itself.
//!
//! What is not here can be asked for again: listings, the cache, what was fetched ahead. Without a keeper there is no ledger,
//! and all of this costs a look at an `Option`.

mod begun;
mod cell;
mod inodes;
mod layers;
mod restore;
mod rows;
mod settle;

use std::{
    collections::BTreeMap,
    ops::Range,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Arc, atomic::Ordering},
};

use prost::Message as _;

pub use begun::Begun;
pub(super) use begun::RESENT;
pub use cell::StateCell;
pub(super) use inodes::digest_of;
pub(super) use restore::{Left, Understood, check_identity, number_of_now};
pub(super) use rows::AttemptRow;

use self::rows::{DeleteRow, GivenRow, HandleRow, LockRow, LocksRow, NameRow, VolumeRow};
use super::{
    FileSystem, Result,
    directory::Given,
    handle::{FileHandle, HandleId},
    inode::InodeNumber,
    lock::{Lock, LockCall},
};
use crate::{
    cache::Vault,
    ledger::{Change, Contents, Ledger, Section},
};

/// The version of the rows. A later version reads this one too.
pub const FORMAT: u32 = 1;

/// What a key names. Never another thing under an old number.
mod section {
    use super::Section;

    /// The volume; key 0.
    pub(super) const VOLUME: Section = Section(1);
    /// An inode's state; key: its number.
    pub(super) const INODE: Section = Section(2);
    /// Where it is; key: its number.
    pub(super) const NAME: Section = Section(3);
    /// How often a kernel has looked it up; key: the view, and its number.
    pub(super) const LOOKUPS: Section = Section(4);
    /// An open file or directory; key: its number.
    pub(super) const HANDLE: Section = Section(5);
    /// The locks of an inode; key: its number.
    pub(super) const LOCKS: Section = Section(6);
    /// The head of a dirty layer; key: its number.
    pub(super) const LAYER: Section = Section(7);
    /// A buffer of a dirty layer; key: the layer's number and its index.
    pub(super) const BUFFER: Section = Section(8);
    /// What was begun; key: the view, and the number of the request.
    pub(super) const BEGUN: Section = Section(9);
    /// Numbers below which all may have been given; key: of what.
    pub(super) const NUMBERS: Section = Section(10);
    /// A Delete without an answer; key: its ticket.
    pub(super) const DELETE: Section = Section(11);
    /// The version that an inode stands for; key: its number.
    pub(super) const VERSION: Section = Section(12);
    /// Names that the reader of a directory was given; key: the handle's number, and which row.
    pub(super) const GIVEN: Section = Section(13);
}

/// Keys of [`section::NUMBERS`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Counter {
    Inodes = 0,
    Handles = 1,
    Layers = 2,
    Views = 3,
}

impl Counter {
    const ALL: [Self; 4] = [Self::Inodes, Self::Handles, Self::Layers, Self::Views];
}

/// Views of a volume whose state was lost begin here: no process has had so many.
const LOST_VIEWS: u64 = 1 << 16;
/// Numbers that are said to be given at once: a row for each would cost more than the numbers that a takeover skips.
const NUMBERS_AT_ONCE: u64 = 1024;
/// Bits of a key that an inode's or a request's number takes beside a view's.
const NUMBER_BITS: u32 = 44;

/// Bits of a key that the number of a row takes beside a handle's.
const GIVEN_BITS: u32 = 20;

/// Something that outlives the process on the ledger's behalf: descriptors are handed to it, and taken back.
pub trait Holder: Send + Sync + std::fmt::Debug {
    /// Holds a duplicate of `file` under `key`, in place of what was there.
    ///
    /// # Errors
    /// Why it will not be there for the next process.
    fn hold(&self, key: &str, file: BorrowedFd<'_>) -> std::io::Result<()>;
    /// Lets go what is under `key`.
    fn let_go(&self, key: &str);
}

/// What a volume is opened with, so that it can be taken over.
#[derive(Debug)]
pub struct Kept {
    /// Where it is written down.
    pub ledger: Ledger,
    /// The version of its rows.
    pub format: u32,
    /// What the process before has written there; empty for a new volume.
    pub contents: Contents,
    /// There was a process before, and what it has written cannot be read.
    pub is_lost: bool,
    /// Memory for what was written and is not saved.
    pub vault: Arc<Vault>,
    /// Who holds the files of the spool.
    pub holder: Arc<dyn Holder>,
    /// The files of the spool that it holds, by key.
    pub spools: BTreeMap<String, OwnedFd>,
}

/// Changes that count together: rows to be put, or taken away.
#[derive(Debug, Default)]
struct Changes(Vec<(Section, u64, Option<Vec<u8>>)>);

impl Changes {
    fn put(&mut self, section: Section, key: u64, row: Vec<u8>) {
        self.0.push((section, key, Some(row)));
    }

    fn remove(&mut self, section: Section, key: u64) {
        self.0.push((section, key, None));
    }
}

/// Writes down what the next process must know. See the module's doc.
#[derive(Debug)]
pub struct Scribe {
    ledger: Ledger,
    vault: Arc<Vault>,
    holder: Arc<dyn Holder>,
    layers: layers::Layers,
    ended: begun::Ended,
}

impl Scribe {
    fn new(ledger: Ledger, vault: Arc<Vault>, holder: Arc<dyn Holder>) -> Self {
        let (layers, ended) = (layers::Layers::default(), begun::Ended::default());
        Self { ledger, vault, holder, layers, ended }
    }

    fn apply(&self, changes: &Changes) {
        let changes: Vec<Change<'_>> = changes
            .0
            .iter()
            .map(|(section, key, row)| match row {
                Some(row) => Change::Put(*section, *key, row),
                None => Change::Remove(*section, *key),
            })
            .collect();
        self.ledger.change(&changes);
    }

    /// The memory for dirty data.
    pub(super) fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    /// Whether the next process will be able to go on.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.ledger.is_whole()
    }

    /// Bytes that all this takes.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.ledger.used_bytes()
    }

    /// What is said of the volume once.
    fn note_volume(&self, identity: &str, orphan_owner: &str, hierarchical: bool) {
        let row = VolumeRow { identity: identity.to_owned(), orphan_owner: orphan_owner.to_owned(), hierarchical };
        self.ledger.put(section::VOLUME, 0, &row.encode_to_vec());
    }

    /// `number` is about to be given. Others may give up to [`NUMBERS_AT_ONCE`] more before this returns.
    pub(super) fn note_number(&self, counter: Counter, number: u64) {
        if number.is_multiple_of(NUMBERS_AT_ONCE) {
            self.reserve_numbers(counter, number);
        }
    }

    fn reserve_numbers(&self, counter: Counter, from: u64) {
        let end = from + 2 * NUMBERS_AT_ONCE;
        self.ledger.put(section::NUMBERS, counter as u64, &end.to_le_bytes());
    }

    /// An inode is under a name, or has lost it.
    pub(super) fn note_name(&self, number: InodeNumber, parent: InodeNumber, name: &str, linked: bool) {
        let row = NameRow { parent: parent.0, name: name.to_owned(), linked };
        self.ledger.put(section::NAME, number.0, &row.encode_to_vec());
    }

    /// Nobody refers to an inode any more.
    pub(super) fn forget_inode(&self, number: InodeNumber) {
        self.ledger.remove(section::NAME, number.0);
        self.ledger.remove(section::INODE, number.0);
        self.ledger.remove(section::VERSION, number.0);
    }

    /// A view's kernel has looked an inode up so often.
    pub(super) fn note_lookups(&self, view: u64, number: InodeNumber, count: u64) {
        let key = key_of(view, number.0);
        match count {
            0 => self.ledger.remove(section::LOOKUPS, key),
            _ => self.ledger.put(section::LOOKUPS, key, &count.to_le_bytes()),
        }
    }

    /// A file is open, or `closed`: let go by the kernel, which does not tell twice, and not yet by us.
    pub(super) fn note_file(&self, open: &FileHandle, closed: bool) {
        let access = open.access;
        let bits = [(access.read, 1), (access.write, 2), (access.append, 4), (access.synchronous, 8)];
        let access = bits.iter().filter(|(is_set, _)| *is_set).map(|(_, bit)| bit).sum();
        let (inode, heard) = (open.inode.number.0, open.heard.load(Ordering::Relaxed));
        let row = HandleRow { inode, access, heard, view: open.view, closed, ..HandleRow::default() };
        self.ledger.put(section::HANDLE, open.id.0, &row.encode_to_vec());
    }

    /// A directory is open.
    pub(super) fn note_directory(&self, id: HandleId, view: u64, inode: InodeNumber) {
        let row = HandleRow { inode: inode.0, directory: true, view, ..HandleRow::default() };
        self.ledger.put(section::HANDLE, id.0, &row.encode_to_vec());
    }

    /// The reader of a directory is given these names.
    pub(super) fn note_given(&self, id: HandleId, row: usize, given: &Given) {
        if let Some(key) = given_key(id.0, row) {
            self.ledger.put(section::GIVEN, key, &GivenRow::from(given).encode_to_vec());
        }
    }

    /// The reader of a directory has gone back: these rows are not true any more, and the first of them is now `cut`.
    pub(super) fn cut_given(&self, id: HandleId, rows: Range<usize>, cut: Option<&Given>) {
        let mut changes = Changes::default();
        let first = rows.start;
        rows.filter_map(|row| given_key(id.0, row)).for_each(|key| changes.remove(section::GIVEN, key));
        if let Some((key, cut)) = given_key(id.0, first).zip(cut) {
            changes.put(section::GIVEN, key, GivenRow::from(cut).encode_to_vec());
        }
        self.apply(&changes);
    }

    /// A handle is closed, whose reader was given so many rows of names.
    pub(super) fn forget_handle(&self, id: HandleId, given: usize) {
        self.ledger.remove(section::HANDLE, id.0);
        if given > 0 {
            self.cut_given(id, 0..given, None);
        }
    }

    /// These are the locks of an inode.
    pub(super) fn note_locks(&self, number: InodeNumber, held: &[Lock]) {
        if held.is_empty() {
            return self.ledger.remove(section::LOCKS, number.0);
        }
        let row = |lock: &Lock| LockRow {
            view: lock.owner.view,
            owner: lock.owner.id,
            call: match lock.call {
                LockCall::Flock => 0,
                LockCall::Fcntl => 1,
                LockCall::Either => 2,
            },
            handle: lock.handle.0,
            start: *lock.range.start(),
            end: *lock.range.end(),
            exclusive: lock.exclusive,
            pid: lock.pid,
        };
        let row = LocksRow { held: held.iter().map(row).collect() };
        self.ledger.put(section::LOCKS, number.0, &row.encode_to_vec());
    }

    /// A Delete is on its way behind its unlink.
    pub(super) fn note_delete(&self, ticket: u64, blob: &str) {
        self.ledger.put(section::DELETE, ticket, &DeleteRow { blob: blob.to_owned() }.encode_to_vec());
    }

    /// A Delete was answered.
    pub(super) fn forget_delete(&self, ticket: u64) {
        self.ledger.remove(section::DELETE, ticket);
    }
}

/// What was found of another process.
#[derive(Debug)]
pub(super) enum Taken {
    /// There was none.
    Nothing,
    /// All that is needed to go on.
    Understood(Box<Understood>, BTreeMap<String, OwnedFd>),
    /// Something that cannot be read.
    Lost,
}

impl Taken {
    pub(super) fn orphan_owner(&self) -> Option<&str> {
        match self {
            Self::Understood(read, _) => Some(read.orphan_owner()).filter(|owner| !owner.is_empty()),
            Self::Nothing | Self::Lost => None,
        }
    }

    /// Whether the account has a hierarchy, if that is known.
    pub(super) fn hierarchical(&self) -> Option<bool> {
        match self {
            Self::Understood(read, _) => Some(read.hierarchical()),
            Self::Nothing | Self::Lost => None,
        }
    }

    pub(super) fn left(&self) -> Left {
        Left::of_takeover(!matches!(self, Self::Nothing))
    }
}

/// Reads what another process has left in `kept`.
///
/// # Errors
/// EINVAL where that was of another volume.
pub(super) fn begin(kept: Kept, identity: &str) -> Result<(Arc<Scribe>, Taken)> {
    let Kept { ledger, format, contents, vault, holder, spools, is_lost } = kept;
    let scribe = Arc::new(Scribe::new(ledger, vault, holder));
    if is_lost {
        return Ok((scribe, Taken::Lost));
    }
    if contents.is_empty() {
        return Ok((scribe, Taken::Nothing));
    }
    match Understood::read(&contents, format) {
        Ok(read) => {
            check_identity(&read, identity)?;
            Ok((scribe, Taken::Understood(Box::new(read), spools)))
        }
        Err(error) => {
            tracing::error!("the takeover state is not readable: {error}");
            Ok((scribe, Taken::Lost))
        }
    }
}

impl FileSystem {
    /// Goes on with what was found, or begins anew.
    pub(super) fn finish_begin(self: &Arc<Self>, identity: &str, taken: Taken) {
        let Some(scribe) = &self.scribe else { return };
        if let Taken::Understood(read, spools) = taken {
            match self.take_over(scribe, *read, spools) {
                Ok(()) => return,
                Err(error) => tracing::error!("the takeover state is not readable: {error}"),
            }
            self.begin_anew(scribe, identity, true);
        } else {
            self.begin_anew(scribe, identity, matches!(taken, Taken::Lost));
        }
    }

    /// Begins with empty tables. `is_lost`: under numbers that no earlier process has given.
    fn begin_anew(&self, scribe: &Scribe, identity: &str, is_lost: bool) {
        scribe.ledger.clear();
        scribe.vault.seal();
        let (first, view) = if is_lost { (number_of_now(), LOST_VIEWS) } else { (0, 0) };
        if is_lost {
            tracing::error!(
                "what programs had open is lost: they are answered EIO, and paths are looked up anew; what was written and                  not saved is gone"
            );
            self.table.take_over(Vec::new(), first);
            self.handles.lose_below(first);
            self.views.count_from(view);
        }
        scribe.note_volume(identity, &self.orphan_owner, self.paths().is_some());
        for (counter, first) in Counter::ALL.into_iter().zip([first, first, 0, view]) {
            scribe.reserve_numbers(counter, first);
        }
    }
}

/// A key of two numbers, of which neither comes near its end.
fn key_of(view: u64, number: u64) -> u64 {
    view << NUMBER_BITS | number & ((1 << NUMBER_BITS) - 1)
}

/// The key of what a directory's reader was given; `None` past more rows than any reader takes: 2^20 replies.
fn given_key(handle: u64, row: usize) -> Option<u64> {
    (row < 1 << GIVEN_BITS).then_some(handle << GIVEN_BITS | row as u64)
}

/// The two numbers of such a key.
fn numbers_of(key: u64) -> (u64, u64) {
    (key >> NUMBER_BITS, key & ((1 << NUMBER_BITS) - 1))
}
