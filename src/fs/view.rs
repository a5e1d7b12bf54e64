//! A view: one kernel's sight of the volume. Views share inodes, cache and commits; each has its own owner and modes for
//! blobs that carry none, its own lookup counts, and its own queue of what its kernel must forget (DESIGN 10.10).

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::sync::Mutex;
use crate::sync::tokio::sync::Notify;

use super::{
    by_number::ByNumber,
    inode::InodeNumber,
    takeover::{Counter, Scribe},
};

/// How a view shows blobs that do not say it themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewSettings {
    /// Owner of blobs without `posix_owner`.
    pub uid: u32,
    /// Group of blobs without `posix_group`.
    pub gid: u32,
    /// Group of everything, whatever the blobs say: the pod's fsGroup. Files made here then store no group.
    pub forced_gid: Option<u32>,
    /// Permission bits of files without `permissions`.
    pub file_mode: u32,
    /// Permission bits of directories without `permissions`.
    pub dir_mode: u32,
    /// Refuses every change with EROFS.
    pub read_only: bool,
}

impl Default for ViewSettings {
    fn default() -> Self {
        Self { uid: 0, gid: 0, forced_gid: None, file_mode: 0o644, dir_mode: 0o755, read_only: false }
    }
}

/// Something that a kernel must forget because it changed behind its back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Invalidation {
    /// Attributes of an inode.
    Attributes(InodeNumber),
    /// Attributes and all cached pages of an inode.
    Data(InodeNumber),
    /// What a name leads to.
    Entry(InodeNumber, Arc<str>),
}

/// What waits to be told to one kernel: each thing once, however often it changed. One notifier task drains it; no
/// request thread ever does, since the kernel may hold a lock that the notification needs (DESIGN 10.10).
#[derive(Debug, Default)]
pub struct InvalidationQueue {
    telling: Mutex<Telling>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Telling {
    waiting: HashSet<Invalidation>,
    /// Taken, and told once more is asked for.
    taken: HashSet<Invalidation>,
    /// Whether anybody has come to tell a kernel.
    is_told: bool,
    /// Lengths that the kernel is shown of files that have grown, until it was told.
    held: HashMap<InodeNumber, u64>,
}

impl InvalidationQueue {
    fn push(&self, invalidation: Invalidation) {
        if self.telling.lock().waiting.insert(invalidation) {
            self.filled.notify_one();
        }
    }

    /// As [`Self::push`] of the data of a file that has grown from `length`.
    fn push_grown(&self, number: InodeNumber, length: u64) {
        let mut telling = self.telling.lock();
        if telling.is_told {
            telling.held.entry(number).or_insert(length);
        }
        if telling.waiting.insert(Invalidation::Data(number)) {
            self.filled.notify_one();
        }
    }

    fn held(&self, number: InodeNumber) -> Option<u64> {
        self.telling.lock().held.get(&number).copied()
    }

    /// Everything that waits, as soon as there is something. What was taken before counts as told. Cancel-safe: nothing is
    /// taken before it is returned.
    pub async fn take(&self) -> Vec<Invalidation> {
        {
            let Telling { waiting, taken, is_told, held } = &mut *self.telling.lock();
            *is_told = true;
            for told in taken.drain() {
                if let Invalidation::Data(number) = told
                    && !waiting.contains(&Invalidation::Data(number))
                {
                    held.remove(&number);
                }
            }
        }
        loop {
            {
                let mut telling = self.telling.lock();
                if !telling.waiting.is_empty() {
                    telling.taken = std::mem::take(&mut telling.waiting);
                    return telling.taken.iter().cloned().collect();
                }
            }
            self.filled.notified().await;
        }
    }
}

/// A view. See the module's doc.
#[derive(Debug)]
pub struct View {
    id: u64,
    settings: ViewSettings,
    /// Lookup counts that the view's kernel holds.
    lookups: Mutex<ByNumber<InodeNumber, u64>>,
    invalidations: Arc<InvalidationQueue>,
    /// Writes the lookups down.
    scribe: Option<Arc<Scribe>>,
}

impl View {
    /// How it shows blobs.
    #[must_use]
    pub fn settings(&self) -> &ViewSettings {
        &self.settings
    }

    /// Its number, never used again within the life of the volume.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Has its kernel forget what it keeps of an inode's data: pages of a file, names of a directory.
    pub fn forget_data(&self, number: InodeNumber) {
        self.invalidations.push(Invalidation::Data(number));
    }

    /// Tells its kernel.
    pub(super) fn tell(&self, invalidation: Invalidation) {
        self.invalidations.push(invalidation);
    }

    /// What its kernel must be told.
    #[must_use]
    pub fn invalidations(&self) -> Arc<InvalidationQueue> {
        Arc::clone(&self.invalidations)
    }

    /// The length that the kernel is shown of a file that has grown, while it may hold pages of the old one: behind the end
    /// they are zeros, which a reader would take for bytes once the kernel knows the new length (`fuse_change_attributes` of
    /// fs/fuse/inode.c sets the size before it drops the pages).
    pub(super) fn held_length(&self, number: InodeNumber) -> Option<u64> {
        self.invalidations.held(number)
    }

    /// Counts one more lookup of `number`.
    pub(super) fn count_lookup(&self, number: InodeNumber) {
        let mut lookups = self.lookups.lock();
        let count = lookups.entry(number).or_default();
        *count += 1;
        if let Some(scribe) = &self.scribe {
            scribe.note_lookups(self.id, number, *count);
        }
    }

    /// Takes back up to `count` lookups; returns how many there were to take.
    pub(super) fn forget_lookups(&self, number: InodeNumber, count: u64) -> u64 {
        let mut lookups = self.lookups.lock();
        let Some(held) = lookups.get_mut(&number) else { return 0 };
        let taken = count.min(*held);
        *held -= taken;
        if let Some(scribe) = &self.scribe {
            scribe.note_lookups(self.id, number, *held);
        }
        if *held == 0 {
            lookups.remove(&number);
        }
        taken
    }

    /// Takes back all lookups: the kernel's session is over.
    pub(super) fn forget_all(&self) -> Vec<(InodeNumber, u64)> {
        let mut lookups = self.lookups.lock();
        if let Some(scribe) = &self.scribe {
            lookups.keys().for_each(|number| scribe.note_lookups(self.id, *number, 0));
        }
        std::mem::take(&mut *lookups).into_iter().collect()
    }
}

/// The views of a volume.
#[derive(Debug, Default)]
pub struct Views {
    views: Mutex<Vec<Arc<View>>>,
    next: AtomicU64,
}

impl Views {
    /// Opens a view, whose lookups `scribe` writes down.
    pub fn add(&self, settings: ViewSettings, scribe: Option<&Arc<Scribe>>) -> Arc<View> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(scribe) = scribe {
            scribe.note_number(Counter::Views, id);
        }
        self.take_over(id, settings, ByNumber::default(), scribe)
    }

    /// New views have numbers from `next` on.
    pub(super) fn count_from(&self, next: u64) {
        self.next.fetch_max(next, Ordering::Relaxed);
    }

    /// Goes on with the view `id`, whose kernel has these lookups.
    pub(super) fn take_over(
        &self,
        id: u64,
        settings: ViewSettings,
        lookups: ByNumber<InodeNumber, u64>,
        scribe: Option<&Arc<Scribe>>,
    ) -> Arc<View> {
        let (lookups, invalidations) = (Mutex::new(lookups), Arc::default());
        let view = Arc::new(View { id, settings, lookups, invalidations, scribe: scribe.cloned() });
        self.views.lock().push(Arc::clone(&view));
        view
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.views.lock().is_empty()
    }

    /// Closes a view.
    pub fn remove(&self, view: &View) {
        self.views.lock().retain(|other| other.id != view.id);
    }

    /// Tells every view but `except` (the one whose kernel made the change and knows).
    pub fn invalidate(&self, except: Option<&View>, invalidation: &Invalidation) {
        for view in self.views.lock().iter().filter(|view| except.is_none_or(|except| except.id != view.id)) {
            view.invalidations.push(invalidation.clone());
        }
    }

    /// Tells every view that a file has grown from `length` behind its kernel's back.
    pub fn invalidate_grown(&self, number: InodeNumber, length: u64) {
        for view in self.views.lock().iter() {
            view.invalidations.push_grown(number, length);
        }
    }
}

/// Who asks: the view it came through, and the process behind it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The view.
    pub view: Arc<View>,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Thread that made the system call (0: none, such as the kernel's own read-ahead).
    pub pid: u32,
    /// The kernel's number for the request; 0 where it is no kernel's. Marked where it was sent before
    /// ([`super::RESENT`]).
    pub request: u64,
}
