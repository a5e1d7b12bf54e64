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

use super::inode::InodeNumber;

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
    waiting: Mutex<HashSet<Invalidation>>,
    filled: Notify,
}

impl InvalidationQueue {
    fn push(&self, invalidation: Invalidation) {
        if self.waiting.lock().insert(invalidation) {
            self.filled.notify_one();
        }
    }

    /// Everything that waits, as soon as there is something. Cancel-safe: nothing is taken before it is returned.
    pub async fn take(&self) -> Vec<Invalidation> {
        loop {
            let waiting = std::mem::take(&mut *self.waiting.lock());
            if !waiting.is_empty() {
                return waiting.into_iter().collect();
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
    lookups: Mutex<HashMap<InodeNumber, u64>>,
    invalidations: Arc<InvalidationQueue>,
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

    /// What its kernel must be told.
    #[must_use]
    pub fn invalidations(&self) -> Arc<InvalidationQueue> {
        Arc::clone(&self.invalidations)
    }

    /// Counts one more lookup of `number`.
    pub(super) fn count_lookup(&self, number: InodeNumber) {
        *self.lookups.lock().entry(number).or_default() += 1;
    }

    /// Takes back up to `count` lookups; returns how many there were to take.
    pub(super) fn forget_lookups(&self, number: InodeNumber, count: u64) -> u64 {
        let mut lookups = self.lookups.lock();
        let Some(held) = lookups.get_mut(&number) else { return 0 };
        let taken = count.min(*held);
        *held -= taken;
        if *held == 0 {
            lookups.remove(&number);
        }
        taken
    }

    /// Takes back all lookups: the kernel's session is over.
    pub(super) fn forget_all(&self) -> Vec<(InodeNumber, u64)> {
        std::mem::take(&mut *self.lookups.lock()).into_iter().collect()
    }
}

/// The views of a volume.
#[derive(Debug, Default)]
pub struct Views {
    views: Mutex<Vec<Arc<View>>>,
    next: AtomicU64,
}

impl Views {
    /// Opens a view.
    pub fn add(&self, settings: ViewSettings) -> Arc<View> {
        let view = Arc::new(View {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            settings,
            lookups: Mutex::default(),
            invalidations: Arc::default(),
        });
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
}
