//! How full the volume is. A container has neither a size nor a count of its bytes, so the size is what the claim asked for,
//! and the use is counted here: a scan of the names (LIST says lengths), then what this node writes, cuts and removes.
//!
//! What other nodes change is seen by the next scan. One is begun by who asks (statfs) or writes and is not repeated by
//! itself, so an idle volume makes no request; it goes on page by page with pauses as long as the pages took, and a volume
//! that takes long to scan is scanned seldom. What is committed beside a scan may be counted twice until the next: too full,
//! never too empty. Knows nothing of who is over it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Error, FileSystem, Result,
    inode::{Fate, Inode, State},
    name::RESERVED,
};
use crate::{
    blob::{ListEntry, ListRequest},
    sync::{
        Mutex,
        tokio::{sync::watch, time::sleep},
    },
};

/// What `statfs` shows as the size of a volume that has none: a petabyte, since an account has no limit to show.
const CAPACITY_BYTES_DEFAULT: u64 = 1 << 50;
/// How old the last scan may be for who asks: `df` beside another node's writer is right within a minute.
const ASKED_AGE_MAX: Duration = Duration::from_secs(60);
/// How old it may be for who writes: our own changes are counted without a scan.
const WRITTEN_AGE_MAX: Duration = Duration::from_secs(600);
/// How old it may be where a write is about to be refused: files may have been removed elsewhere.
const REFUSED_AGE_MAX: Duration = Duration::from_secs(10);
/// Scanning takes at most one part in so many of the time: a volume of ten million blobs (2000 pages) once in some hours.
const SCAN_PARTS: u32 = 20;
/// How long statfs(2) waits for a scan: one page, and a slow link. What is known then is shown.
const ASKED_WAIT: Duration = Duration::from_secs(2);
/// Between two sentences in the log about a volume that is full.
const FULL_SAID_EVERY: Duration = Duration::from_secs(60);

/// What becomes of writes that the volume's size has no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quota {
    /// Nothing is counted: all of the size shows as free.
    Off,
    /// The use is counted and shown. Writes go on.
    #[default]
    Soft,
    /// write(2), truncate(2) and fallocate(2) beyond the size are refused with EDQUOT.
    Hard,
}

/// What statfs(2) says, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Size of the volume.
    pub capacity: u64,
    /// Still free.
    pub free: u64,
    /// In use, as far as that was counted.
    pub used: Option<u64>,
}

/// The count.
#[derive(Debug)]
pub(super) struct Space {
    quota: Quota,
    /// Short sections, nothing awaits inside. May be taken under an inode's state.
    count: Mutex<Count>,
    /// How many scans have ended.
    scans: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Count {
    capacity: Option<u64>,
    used: u64,
    /// Changes since the scan under way began.
    scanning: Option<i64>,
    /// When the last scan ended, and how long it took.
    scanned: Option<(Instant, Duration)>,
    full_said: Option<Instant>,
    /// Writes that were refused.
    refusals: u64,
}

impl Count {
    fn change(&mut self, by: i64) {
        self.used = self.used.saturating_add_signed(by);
        if let Some(changes) = &mut self.scanning {
            *changes += by;
        }
    }

    /// Whether a scan should be begun for somebody to whom the last one may be so old.
    fn is_due(&self, age: Duration) -> bool {
        let old = |(ended, took): (Instant, Duration)| ended.elapsed() >= age.max(took * SCAN_PARTS);
        self.capacity.is_some() && self.scanning.is_none() && self.scanned.is_none_or(old)
    }
}

impl Space {
    pub(super) fn new(quota: Quota, capacity: Option<u64>) -> Self {
        let count = Count { capacity, ..Count::default() };
        Self { quota, count: Mutex::new(count), scans: watch::channel(0).0 }
    }

    /// Whether writes may be refused, and what is in use is not known yet.
    pub(super) fn must_be_counted(&self) -> bool {
        if self.quota != Quota::Hard {
            return false;
        }
        let count = self.count.lock();
        count.capacity.is_some() && count.scanned.is_none()
    }

    /// Counts what a file of `state` grows by when it reaches to `end`.
    ///
    /// # Errors
    /// EDQUOT where the volume has no room for that: nothing was counted.
    pub(super) fn reach(&self, state: &State, end: u64) -> Result<u64> {
        let more = if state.fate == Fate::Linked { end.saturating_sub(state.size()) } else { 0 };
        if more == 0 || self.quota == Quota::Off {
            return Ok(0);
        }
        let mut count = self.count.lock();
        let room = count.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(count.used));
        if self.quota == Quota::Hard && more > room {
            if count.full_said.is_none_or(|said| said.elapsed() >= FULL_SAID_EVERY) {
                count.full_said = Some(Instant::now());
                tracing::warn!(capacity = count.capacity, used = count.used, "the volume is full: writes are refused");
            }
            let full = format!("the volume of {} bytes is full", count.capacity.unwrap_or_default());
            return Err(Error::new(libc::EDQUOT, full));
        }
        count.change(more.cast_signed());
        Ok(more)
    }

    /// Counts what is no longer there, or did not come.
    pub(super) fn give_back(&self, bytes: u64) {
        if bytes > 0 && self.quota != Quota::Off {
            self.count.lock().change(-bytes.cast_signed());
        }
    }
}

impl FileSystem {
    /// What statfs(2) says, from memory.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let count = self.space.count.lock();
        let capacity = count.capacity.unwrap_or(CAPACITY_BYTES_DEFAULT);
        let used = Some(count.used).filter(|_| self.space.quota != Quota::Off && count.scanned.is_some());
        Usage { capacity, free: capacity.saturating_sub(used.unwrap_or(0)), used }
    }

    /// statfs(2): as [`Self::usage`], after a scan where the last one is old and a new one takes no longer than a person waits.
    pub async fn statfs(self: &Arc<Self>) -> Usage {
        self.scan_if_older(ASKED_AGE_MAX);
        let mut scans = self.space.scans.subscribe();
        if self.space.count.lock().scanning.is_some() {
            // Late or failed: what is known is shown.
            let _ = crate::sync::tokio::time::timeout(ASKED_WAIT, scans.changed()).await;
        }
        self.usage()
    }

    /// The size that the volume was given, if it was.
    #[must_use]
    pub fn capacity(&self) -> Option<u64> {
        self.space.count.lock().capacity
    }

    /// The volume has another size from now on.
    pub fn set_capacity(&self, bytes: u64) {
        self.space.count.lock().capacity = Some(bytes);
    }

    /// Writes that were refused since the volume is full.
    #[must_use]
    pub fn quota_refusals(&self) -> u64 {
        self.space.count.lock().refusals
    }

    /// Waits until it is known what is in use, where writes may be refused for that. A service that does not say lets them
    /// through: it will refuse the commit by itself.
    pub(super) async fn count_before_growing(self: &Arc<Self>) {
        if !self.space.must_be_counted() {
            return;
        }
        let mut scans = self.space.scans.subscribe();
        self.scan_if_older(Duration::ZERO);
        if self.space.count.lock().scanning.is_some() {
            let _ = crate::sync::tokio::time::timeout(self.store.limits().names, scans.changed()).await;
        }
    }

    /// Something was committed.
    pub(super) fn note_growth(self: &Arc<Self>) {
        self.scan_if_older(WRITTEN_AGE_MAX);
    }

    /// Counts a write that was refused, and looks again whether there is room by now.
    pub(super) fn note_refused<T>(self: &Arc<Self>, outcome: Result<T>) -> Result<T> {
        if outcome.as_ref().is_err_and(|error| error.errno == libc::EDQUOT) {
            self.space.count.lock().refusals += 1;
            self.scan_if_older(REFUSED_AGE_MAX);
        }
        outcome
    }

    /// Begins a scan in the background, unless one is under way or the last is younger than that.
    fn scan_if_older(self: &Arc<Self>, age: Duration) {
        if self.space.quota == Quota::Off {
            return;
        }
        {
            let mut count = self.space.count.lock();
            if !count.is_due(age) {
                return;
            }
            count.scanning = Some(0);
        }
        let volume = Arc::clone(self);
        self.resources.runtime.spawn(async move {
            let _ended = ScanEnd(Arc::clone(&volume));
            let (began, pending) = (Instant::now(), volume.uncommitted());
            match volume.scan().await {
                Ok(bytes) => {
                    let mut count = volume.space.count.lock();
                    let changed = pending + count.scanning.unwrap_or(0);
                    count.used = bytes.saturating_add_signed(changed);
                    count.scanned = Some((Instant::now(), began.elapsed()));
                }
                Err(error) => tracing::warn!("what is in use cannot be counted: {}", error.to_chain()),
            }
        });
    }

    /// Bytes of all blobs of the volume.
    async fn scan(&self) -> Result<u64> {
        let (prefix, mut marker, mut bytes) = (self.settings.prefix.clone(), None, 0);
        let ours = format!("{prefix}{RESERVED}/");
        loop {
            let asked = Instant::now();
            let request = ListRequest { prefix: prefix.clone(), delimited: false, marker, max_results: None };
            let page = self.store.list(&request).await;
            let page = page.map_err(|error| Error::from_store(format!("cannot list {prefix:?}"), error))?;
            for entry in &page.entries {
                if let ListEntry::Blob(name, properties) = entry
                    && !name.as_str().starts_with(&ours)
                {
                    bytes += properties.length;
                }
            }
            marker = page.next_marker;
            if marker.is_none() {
                return Ok(bytes);
            }
            sleep(asked.elapsed()).await;
        }
    }

    /// By how much files are longer here than at the service.
    fn uncommitted(&self) -> i64 {
        let longer = |inode: &Arc<Inode>| {
            let state = inode.state.lock();
            let there = state.base.as_ref().map_or(0, |base| base.properties.length);
            let counts = state.fate == Fate::Linked && inode.directory.is_none() && state.is_dirty();
            if counts { state.size().cast_signed() - there.cast_signed() } else { 0 }
        };
        self.table.all().iter().map(longer).sum()
    }
}

/// Ends a scan, however it ends.
struct ScanEnd(Arc<FileSystem>);

impl Drop for ScanEnd {
    fn drop(&mut self) {
        self.0.space.count.lock().scanning = None;
        self.0.space.scans.send_modify(|scans| *scans += 1);
    }
}
