//! What a volume tells of itself: everything that is counted of it, on a page of metrics and, where that is asked for, in a virtual
//! file `.azblob-stats` in its root.
//!
//! The file is found under its name and never listed, so nothing that walks the volume (find, cp -r, a backup, a checksum) meets it;
//! JuiceFS does the same with its `.stats`. It has no inode in the table, no blob and no request: an open takes a snapshot, which
//! the kernel reads past its page cache, and which ends with the close. Its size is 0, as in /proc, since only an open knows it.
//! A blob of that name cannot be reached meanwhile, which is logged and counted like every hidden one. Without the setting
//! nothing of this is there.

use std::{
    ffi::OsStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use nix::errno::Errno;

use super::{
    Access, Attr, Entry, Error, FOREVER, FileSystem, HandleId, InodeNumber, Kind, ROOT, ReadData, Result, View,
    by_number::ByNumber, name::HiddenReason,
};
use crate::{
    sync::Mutex,
    telemetry::metrics::{Labels, Page, table},
};

/// Name of the virtual file in the root.
pub const FIGURES_NAME: &str = ".azblob-stats";
/// Its inode: the table counts up from 2 and never gets there.
const FIGURES: InodeNumber = InodeNumber(i64::MAX as u64);
/// Who may read the volume's files may read it, and nobody writes it.
const READABLE: u32 = 0o444;

/// The virtual file, where it is asked for.
#[derive(Debug)]
pub(super) struct Figures {
    since: SystemTime,
    /// What each handle reads. Short sections.
    snapshots: Mutex<ByNumber<HandleId, Arc<str>>>,
}

impl Figures {
    /// One that begins now, if it is `wanted`.
    pub(super) fn new(wanted: bool) -> Option<Self> {
        wanted.then(|| Self { since: SystemTime::now(), snapshots: Mutex::default() })
    }
}

impl FileSystem {
    /// Adds all figures of the volume, which `labels` name. Waits for nothing and asks nobody.
    pub fn write_figures(&self, page: &mut Page, labels: &Labels) {
        let usage = self.usage();
        page.count(&table::CAPACITY, labels, usage.capacity);
        if let Some(used) = usage.used {
            page.count(&table::USED, labels, used);
        }
        page.count(&table::QUOTA_REFUSALS, labels, self.quota_refusals());
        self.write_operations(page, labels);
        self.write_requests(page, labels);
        let (inodes, handles) = self.gauges();
        page.count(&table::DIRTY_BYTES, labels, self.dirty_bytes());
        page.count(&table::SET_ASIDE, labels, self.files_set_aside());
        page.count(&table::OPEN_FILES, labels, handles as u64);
        page.count(&table::INODES, labels, inodes as u64);
    }

    fn write_operations(&self, page: &mut Page, labels: &Labels) {
        let (meter, totals) = (self.meter(), self.meter().totals());
        for (operation, seen) in meter.durations() {
            let labels = labels.with("operation", operation.name());
            page.count(&table::OPERATIONS, &labels, seen.count());
            page.distribution(&table::OPERATION_DURATION, &labels, &seen);
        }
        for (operation, errno, count) in meter.errors() {
            let labels = labels.with("operation", operation.name());
            page.count(&table::OPERATION_ERRORS, &labels.with("errno", format!("{:?}", Errno::from_raw(errno))), count);
        }
        page.count(&table::READ_BYTES, labels, totals.hit_bytes + totals.missed_bytes);
        page.count(&table::WRITTEN_BYTES, labels, totals.written_bytes);
        page.count(&table::CACHE_HIT_BYTES, labels, totals.hit_bytes);
        page.count(&table::CACHE_MISS_BYTES, labels, totals.missed_bytes);
        page.count(&table::COMMIT_FAILURES, labels, totals.commit_failures);
        page.count(&table::CONFLICTS, labels, totals.conflicts);
    }

    fn write_requests(&self, page: &mut Page, labels: &Labels) {
        let Some(traffic) = self.traffic() else { return };
        for counts in traffic.requests() {
            let labels = labels.with("operation", counts.operation);
            for (end, count) in &counts.ends {
                page.count(&table::BACKEND_REQUESTS, &labels.with("status", end.label()), *count);
            }
            page.distribution(&table::BACKEND_DURATION, &labels, &counts.duration);
        }
        let totals = traffic.totals();
        page.count(&table::FETCHED_BYTES, labels, totals.fetched_bytes);
        page.count(&table::SENT_BYTES, labels, totals.sent_bytes);
        page.count(&table::BACKEND_RETRIES, labels, totals.retries);
        page.count(&table::BACKEND_THROTTLED, labels, totals.throttled);
    }

    /// Whether `number` is the virtual file: the kernel must not keep pages of it.
    #[must_use]
    pub fn is_figures(&self, number: InodeNumber) -> bool {
        number == FIGURES && self.figures.is_some()
    }

    /// Whether the name is the virtual file's.
    pub(super) fn is_figures_name(&self, parent: InodeNumber, name: impl AsRef<OsStr>) -> bool {
        self.figures.is_some() && parent == ROOT && name.as_ref() == FIGURES_NAME
    }

    /// Whether a listed name is the virtual file's: then its blob is hidden, which is logged once.
    pub(super) fn hides_figures_name(&self, parent: InodeNumber, name: &str) -> bool {
        let hides = self.is_figures_name(parent, name);
        if hides {
            self.hidden.record(&format!("{}{name}", self.settings.prefix), HiddenReason::Figures);
        }
        hides
    }

    /// What lookup answers. It is never counted: there is nothing to be forgotten.
    pub(super) fn figures_entry(&self, view: &View) -> Entry {
        let (attr, ttl) = self.figures_attr(view);
        Entry { attr, ttl }
    }

    /// What stat answers.
    pub(super) fn figures_attr(&self, view: &View) -> (Attr, Duration) {
        let settings = view.settings();
        let since = self.figures.as_ref().map_or(SystemTime::UNIX_EPOCH, |figures| figures.since);
        let attr = Attr {
            number: FIGURES,
            kind: Kind::File,
            size: 0,
            mode: settings.file_mode & READABLE,
            links: 1,
            uid: settings.uid,
            gid: settings.forced_gid.unwrap_or(settings.gid),
            atime: since,
            mtime: since,
            ctime: since,
        };
        (attr, FOREVER)
    }

    /// Takes a snapshot, for this handle alone.
    pub(super) fn open_figures(&self, access: Access) -> Result<HandleId> {
        let Some(figures) = self.figures.as_ref().filter(|_| !access.write && !access.truncate) else {
            return Err(only_readable());
        };
        let mut page = Page::default();
        self.write_figures(&mut page, &Labels::default());
        let handle = self.handles.next_id();
        figures.snapshots.lock().insert(handle, page.short_text().into());
        Ok(handle)
    }

    /// What the handle's snapshot has there; `None` where it has none.
    pub(super) fn read_figures(&self, handle: HandleId, offset: u64, size: u32) -> Option<ReadData> {
        let snapshot = self.figures.as_ref()?.snapshots.lock().get(&handle).cloned()?;
        let bytes = snapshot.as_bytes();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let to = from.saturating_add(size as usize).min(bytes.len());
        Some(ReadData::Assembled(bytes[from..to].to_vec()))
    }

    /// Whether the handle has a snapshot: there is nothing to be saved, and nothing to fail.
    pub(super) fn has_figures_open(&self, handle: HandleId) -> bool {
        self.figures.as_ref().is_some_and(|figures| figures.snapshots.lock().contains_key(&handle))
    }

    /// The handle is closed.
    pub(super) fn close_figures(&self, handle: HandleId) {
        if let Some(figures) = &self.figures {
            figures.snapshots.lock().remove(&handle);
        }
    }
}

/// What every change of it, and of its name, ends with.
pub(super) fn only_readable() -> Error {
    Error::new(libc::EPERM, format!("{FIGURES_NAME:?} tells the volume's figures and can only be read"))
}
