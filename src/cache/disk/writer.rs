//! The one who changes what is on disk: writes what was fetched, behind the readers; evicts; follows versions that move.
//!
//! One task takes jobs from the queue, and works on a few of them at a time on a thread that may block. Whatever the disk
//! says, readers go on: a disk without room is left alone for a while, one that fails is given up and tried again later.

use std::{io, ops::Range, time::Duration};

use crate::sync::tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
    time::{Instant, timeout},
};

use crate::sync::{Arc, Ordering, Weak};

use super::{
    super::{
        block::{BLOCK_BYTES, Block, PIECE_BYTES},
        registry::Key,
    },
    Inner,
    directory::{Directory, INDEX_BYTES, Rename, now_seconds},
    file::FileId,
};

/// How long a disk that failed or is full is left alone.
const PAUSE: Duration = Duration::from_secs(30);

/// Jobs worked on between two looks at the room that is left: at most 64 MiB.
const BATCH_JOBS: usize = 64;

/// One version holds at most nine parts in ten of the budget, so that it never has to push itself out.
const VERSION_PARTS: (u64, u64) = (9, 10);

/// Eviction goes on until one part in so many of the budget is free, so that it is not done again with every piece.
pub(super) const EVICT_PART: u64 = 32;

/// Something to be done on disk.
pub(super) enum Job {
    /// Pieces that were fetched.
    Keep(Keep),
    /// The same bytes, or most of them, are another version now.
    Rename(Rename),
    /// A version that nobody will ask for again.
    Forget(FileId),
    /// Answered when everything before it is done.
    Barrier(oneshot::Sender<()>),
}

/// Pieces in memory that are to be kept: a range of block `index` that begins and ends with pieces.
pub(super) struct Keep {
    pub(super) key: Key,
    /// Of the version.
    pub(super) length: u64,
    pub(super) index: u64,
    /// Not pinned: readers may need the memory sooner than the disk takes it.
    pub(super) block: Weak<Block>,
    pub(super) range: Range<u64>,
}

/// Does jobs until the tier is gone.
pub(super) async fn run(tier: Weak<Inner>, mut jobs: mpsc::UnboundedReceiver<Job>) {
    let mut writer = Writer::default();
    loop {
        let off = tier.upgrade().is_some_and(|inner| inner.directory().is_none());
        let next = jobs.recv();
        // While the disk is given up, somebody must try again; else an idle tier wakes nobody.
        let received = if off { timeout(PAUSE, next).await.ok() } else { Some(next.await) };
        let Some(inner) = tier.upgrade().filter(|_| !matches!(received, Some(None))) else { return };
        let mut batch = Vec::from_iter(received.flatten());
        while batch.len() < BATCH_JOBS
            && let Ok(job) = jobs.try_recv()
        {
            batch.push(job);
        }
        let worked = spawn_blocking(move || {
            writer.work(&inner, batch);
            writer
        });
        writer = worked.await.unwrap_or_default();
    }
}

/// What it remembers from one batch to the next.
#[derive(Default)]
struct Writer {
    /// Nothing is written before that.
    paused_until: Option<Instant>,
    /// Whether it was said that there is no room.
    told_full: bool,
}

impl Writer {
    fn work(&mut self, inner: &Arc<Inner>, batch: Vec<Job>) {
        let directory = inner.directory().or_else(|| self.reopen(inner));
        if let Some(directory) = &directory
            && self.paused_until.is_none_or(|end| end <= Instant::now())
        {
            self.check_room(inner, directory);
        }
        for job in batch {
            if let Job::Barrier(told) = job {
                let _ = told.send(());
                continue;
            }
            let is_queued = matches!(job, Job::Keep(_));
            if let Some(directory) = directory.as_ref().filter(|_| inner.directory().is_some())
                && let Err(error) = self.job(inner, directory, job)
            {
                self.failed(inner, directory, &error);
            }
            inner.counters.queued.fetch_sub(u64::from(is_queued), Ordering::Relaxed);
        }
    }

    fn job(&mut self, inner: &Inner, directory: &Directory, job: Job) -> io::Result<()> {
        match job {
            Job::Keep(keep) => self.keep(inner, directory, &keep),
            Job::Rename(change) => directory.rename(&change),
            Job::Forget(id) => {
                directory.remove(id);
                Ok(())
            }
            Job::Barrier(_) => Ok(()),
        }
    }

    fn keep(&mut self, inner: &Inner, directory: &Directory, keep: &Keep) -> io::Result<()> {
        let bytes = keep.range.end - keep.range.start;
        let paused = self.paused_until.is_some_and(|end| end > Instant::now());
        let Some(block) = keep.block.upgrade().filter(|_| !paused) else {
            inner.counters.dropped_bytes.fetch_add(bytes, Ordering::Relaxed);
            return Ok(());
        };
        let id = FileId::of(&keep.key);
        if !self.make_room(inner, directory, id, bytes) {
            inner.counters.dropped_bytes.fetch_add(bytes, Ordering::Relaxed);
            return Ok(());
        }
        let Some(slice) = block.slice(&keep.range) else { return Ok(()) };
        let found = if directory.may_have(id) { directory.version(id, &keep.key, keep.length)? } else { None };
        let file = match found {
            Some(file) => file,
            None => match directory.create(id, &keep.key, keep.length)? {
                Some(file) => file,
                None => return Ok(()),
            },
        };
        let first = (keep.index * BLOCK_BYTES + keep.range.start) / PIECE_BYTES;
        let added = file.write(first, slice)?;
        directory.table.lock().add(id, added.next_multiple_of(INDEX_BYTES), now_seconds());
        inner.counters.written_bytes.fetch_add(added, Ordering::Relaxed);
        self.told_full = false;
        Ok(())
    }

    /// Evicts until `bytes` more fit the budget; false when they never will.
    fn make_room(&self, inner: &Inner, directory: &Directory, id: FileId, bytes: u64) -> bool {
        let budget = inner.options.size_bytes;
        let (own, all, versions) = {
            let table = directory.table.lock();
            (table.bytes_of(id), table.bytes(), table.len())
        };
        let (parts, of) = VERSION_PARTS;
        if own + bytes > budget / of * parts {
            return false;
        }
        let wanted = bytes + INDEX_BYTES;
        if all + wanted > budget || versions >= inner.versions_max {
            let least = (all + wanted).saturating_sub(budget);
            let most = if least > 0 { least + budget / EVICT_PART } else { 0 };
            evict(inner, directory, most, Some(id));
        }
        directory.table.lock().bytes() + wanted <= budget
    }

    /// Keeps the file system's floor: gives back what is missing, and writes nothing while that does not help.
    fn check_room(&mut self, inner: &Inner, directory: &Directory) {
        // A directory that is gone shows with the next write.
        let Ok((free, all)) = directory.room() else { return };
        let floor = all / 100 * u64::from(inner.options.free_percent_min);
        if free >= floor {
            return;
        }
        let freed = evict(inner, directory, floor - free, None);
        if freed < floor - free {
            self.pause(inner, &format!("less than {} % of its file system are free", inner.options.free_percent_min));
        }
    }

    fn pause(&mut self, inner: &Inner, reason: &str) {
        self.paused_until = Some(Instant::now() + PAUSE);
        if !std::mem::replace(&mut self.told_full, true) {
            let directory = inner.options.directory.display();
            tracing::warn!("the cache directory {directory} takes nothing for now: {reason}");
        }
    }

    fn failed(&mut self, inner: &Inner, directory: &Directory, error: &io::Error) {
        inner.counters.errors.fetch_add(1, Ordering::Relaxed);
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                // A budget that is larger than what the disk really takes: so much less than there is now.
                let bytes = directory.table.lock().bytes();
                evict(inner, directory, bytes / EVICT_PART, None);
                self.pause(inner, &error.to_string());
            }
            _ => {
                self.paused_until = Some(Instant::now() + PAUSE);
                inner.switch_off(error);
            }
        }
    }

    /// The directory again, when the time has come.
    fn reopen(&mut self, inner: &Arc<Inner>) -> Option<Arc<Directory>> {
        if self.paused_until.is_some_and(|end| end > Instant::now()) {
            return None;
        }
        self.paused_until = None;
        if !inner.switch_on() {
            self.paused_until = Some(Instant::now() + PAUSE);
        }
        inner.directory()
    }
}

/// Takes away the versions used longest ago. Returns the bytes that they had.
fn evict(inner: &Inner, directory: &Directory, bytes: u64, spared: Option<FileId>) -> u64 {
    let victims = directory.table.lock().victims(bytes, inner.versions_max.saturating_sub(1), spared);
    inner.counters.evictions.fetch_add(victims.len() as u64, Ordering::Relaxed);
    victims.into_iter().map(|id| directory.remove(id)).sum()
}
