//! The journal of one process and volume: `<spool>/journal/<volume>/<random>/`, a file `lock` that is locked while the
//! process lives, and segments `00000001`, `00000002`, ... of frames (`record`). Segments go oldest first, once nothing
//! in them is owed: what settles a chain is then never gone before what it settles.
//!
//! Must not know inodes or the service. Locks here are short; appends write into the page cache under one, the disk is
//! waited for without it, and one wait serves all who came before it.

use std::{
    collections::{HashMap, VecDeque},
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::fcntl::{Flock, FlockArg};

use super::record::{Entry, frame};
use crate::{
    blob::Body,
    sync::{AtomicU64, Mutex, Ordering},
};

/// Format of the segments; a later one is left to the version that wrote it. 2 has names that change.
pub(super) const VERSION: u32 = 2;
/// A segment that has grown past this is followed by the next: what a restart reads, and what one slow upload keeps on
/// the disk.
const SEGMENT_BYTES: u64 = 32 << 20;
/// All segments together. More would be minutes of upload, which a restart must catch up with before it serves.
const JOURNAL_BYTES_MAX: u64 = 256 << 20;
/// Files that are owed at once: at 1000 uploads a second, what a restart sends in 16 seconds.
const CHAINS_MAX: usize = 16 << 10;
/// A journal in which nothing is owed is emptied from this size on: rarely enough to cost nothing.
const EMPTY_FROM_BYTES: u64 = 1 << 20;
const LOCK_NAME: &str = "lock";

/// How far something was written; see [`Journal::force`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(u64);

#[derive(Debug)]
struct Segment {
    number: u64,
    path: PathBuf,
    file: Arc<File>,
    bytes: u64,
    /// Chains that begin here and are owed.
    owed: usize,
}

#[derive(Debug, Default)]
struct Segments {
    /// Oldest first; the last one takes the appends.
    all: VecDeque<Segment>,
    /// Segments that were closed and may not be on the disk yet.
    unforced: Vec<Arc<File>>,
    /// The segment that a chain begins in.
    chains: HashMap<u64, u64>,
    next_chain: u64,
    /// Bytes appended so far.
    position: u64,
    /// A write failed and could not be undone, or the disk lost something: nothing is taken any more.
    is_broken: bool,
}

/// The journal. See the module's doc.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    first: Entry,
    segments: Mutex<Segments>,
    /// How much of it is on the disk.
    forced: AtomicU64,
    forcing: crate::sync::tokio::sync::Mutex<()>,
    _lock: Flock<File>,
}

impl Journal {
    /// A new one below `volume`, the directory of the volume's journals.
    ///
    /// # Errors
    /// What the node's disk says.
    pub(super) fn create(volume: &Path, identity: &str, prefix: &str) -> io::Result<Self> {
        let name = uuid::Uuid::new_v4().simple().to_string();
        // Locked before it has its name: who looks for journals of dead processes never finds it unlocked.
        let unready = volume.join(format!(".{name}"));
        DirBuilder::new().mode(0o700).create(&unready)?;
        let directory = volume.join(name);
        let lock = lock(&unready)?.ok_or_else(|| io::Error::other("a new journal is locked by somebody else"))?;
        std::fs::rename(&unready, &directory)?;
        sync_directory(volume)?;
        let first = Entry::Volume { version: VERSION, identity: identity.to_owned(), prefix: prefix.to_owned() };
        let journal = Self {
            directory,
            first,
            segments: Mutex::default(),
            forced: AtomicU64::new(0),
            forcing: crate::sync::tokio::sync::Mutex::default(),
            _lock: lock,
        };
        journal.add_segment(&mut journal.segments.lock())?;
        Ok(journal)
    }

    /// A number for a new chain, or `chain` again, if there is room for a record of `bytes`. Bounds are checked here alone:
    /// what is let in is never refused for lack of room but by the disk.
    pub(super) fn admit(&self, bytes: u64, chain: Option<u64>) -> Option<u64> {
        let mut segments = self.segments.lock();
        let total: u64 = segments.all.iter().map(|segment| segment.bytes).sum();
        let full = (chain.is_none() && segments.chains.len() >= CHAINS_MAX) || total + bytes > JOURNAL_BYTES_MAX;
        if full || segments.is_broken {
            return None;
        }
        if chain.is_some() {
            return chain;
        }
        segments.next_chain += 1;
        Some(segments.next_chain)
    }

    /// Writes an entry and its bytes behind the others; `chain` is owed from then on. On the disk once [`Self::force`] says so.
    ///
    /// # Errors
    /// What the disk says; nothing was written then.
    pub(super) fn append(&self, entry: &Entry, body: &Body, chain: Option<u64>) -> io::Result<Position> {
        let head = frame(entry, body.pieces().iter().map(|piece| &piece[..]))?;
        let mut segments = self.segments.lock();
        if segments.all.back().is_none_or(|segment| segment.bytes >= SEGMENT_BYTES) {
            self.add_segment(&mut segments)?;
        }
        if segments.all.back().is_some_and(|segment| segment.bytes == 0) {
            let first = frame(&self.first, std::iter::empty())?;
            segments.write(&first, &Body::new())?;
        }
        segments.write(&head, body)?;
        if let Some(chain) = chain
            && let Some(number) = segments.all.back().map(|segment| segment.number)
            && segments.chains.insert(chain, number).is_none()
            && let Some(segment) = segments.all.back_mut()
        {
            segment.owed += 1;
        }
        Ok(Position(segments.position))
    }

    /// Nothing is owed of the chain any more. A chain that the disk does not take this of is looked at again at the next
    /// start, and found to be done.
    pub(super) fn settle(&self, chain: u64) {
        let known = self.segments.lock().chains.contains_key(&chain);
        if !known {
            return;
        }
        if let Err(error) = self.append(&Entry::Done { chain }, &Body::new(), None) {
            tracing::debug!(%error, "the journal does not take that a file was saved");
        }
        let mut segments = self.segments.lock();
        let Some(number) = segments.chains.remove(&chain) else { return };
        if let Some(segment) = segments.all.iter_mut().find(|segment| segment.number == number) {
            segment.owed -= 1;
        }
        while segments.all.len() > 1 && segments.all.front().is_some_and(|segment| segment.owed == 0) {
            if let Some(segment) = segments.all.pop_front()
                && let Err(error) = std::fs::remove_file(&segment.path)
            {
                tracing::warn!(%error, segment = %segment.path.display(), "a segment of the journal stays");
            }
        }
        let nothing_owed = segments.chains.is_empty();
        if let Some(segment) = segments.all.back_mut().filter(|segment| segment.bytes >= EMPTY_FROM_BYTES)
            && nothing_owed
            && segment.file.set_len(0).is_ok()
        {
            segment.bytes = 0;
        }
    }

    /// Waits until everything up to `position` is on the disk. One wait serves all who came before it began.
    ///
    /// # Errors
    /// What the disk says; the journal takes nothing more then, since nobody knows what it has.
    pub(super) async fn force(&self, position: Position) -> io::Result<()> {
        if self.forced.load(Ordering::Acquire) >= position.0 {
            return Ok(());
        }
        let _one_at_a_time = self.forcing.lock().await;
        if self.forced.load(Ordering::Acquire) >= position.0 {
            return Ok(());
        }
        let (files, reached) = {
            let mut segments = self.segments.lock();
            let mut files = std::mem::take(&mut segments.unforced);
            files.extend(segments.all.back().map(|segment| Arc::clone(&segment.file)));
            (files, segments.position)
        };
        let forced = tokio::task::spawn_blocking(move || files.iter().try_for_each(|file| file.sync_data()));
        let forced = forced.await.map_err(io::Error::other).flatten();
        match forced {
            Ok(()) => {
                self.forced.store(reached, Ordering::Release);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, journal = %self.directory.display(), "the disk does not take the journal: closes wait for the service");
                self.segments.lock().is_broken = true;
                Err(error)
            }
        }
    }

    /// Everything that was written until now.
    pub(super) fn end(&self) -> Position {
        Position(self.segments.lock().position)
    }

    /// Where it is.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn add_segment(&self, segments: &mut Segments) -> io::Result<()> {
        let number = segments.all.back().map_or(1, |last| last.number + 1);
        let path = self.directory.join(segment_name(number));
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        sync_directory(&self.directory)?;
        let last = segments.all.back().map(|last| Arc::clone(&last.file));
        segments.unforced.extend(last);
        segments.all.push_back(Segment { number, path, file: Arc::new(file), bytes: 0, owed: 0 });
        Ok(())
    }
}

impl Drop for Journal {
    /// An orderly end owes nothing and leaves nothing.
    fn drop(&mut self) {
        if self.segments.lock().chains.is_empty()
            && let Err(error) = remove(&self.directory)
        {
            tracing::debug!(%error, "an empty journal stays");
        }
    }
}

impl Segments {
    /// Writes behind what the last segment has; all of it or nothing.
    fn write(&mut self, head: &[u8], body: &Body) -> io::Result<()> {
        let Some(segment) = self.all.back_mut().filter(|_| !self.is_broken) else {
            return Err(io::Error::other("the journal takes nothing any more"));
        };
        let mut file = &*segment.file;
        let written =
            file.write_all(head).and_then(|()| body.pieces().iter().try_for_each(|piece| file.write_all(piece)));
        if let Err(error) = written {
            tracing::warn!(%error, segment = %segment.path.display(), "the disk takes no more of the journal: closes wait for the service");
            // What follows half a frame would not be found again.
            self.is_broken = file.set_len(segment.bytes).is_err();
            return Err(error);
        }
        let length = head.len() as u64 + body.len();
        segment.bytes += length;
        self.position += length;
        Ok(())
    }
}

/// The journals below `volume` whose process is gone, each locked by us.
///
/// # Errors
/// What the node's disk says.
pub(super) fn left_behind(volume: &Path) -> io::Result<Vec<LeftBehind>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(volume)? {
        let path = entry?.path();
        let unready = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if unready || !path.is_dir() {
            continue;
        }
        match lock(&path) {
            Ok(Some(lock)) => found.push(LeftBehind { directory: path, _lock: lock }),
            Ok(None) => {}
            // Another process has just replayed and removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The journal of a process that is gone.
#[derive(Debug)]
pub(super) struct LeftBehind {
    pub(super) directory: PathBuf,
    _lock: Flock<File>,
}

impl LeftBehind {
    /// Its segments, oldest first.
    ///
    /// # Errors
    /// What the node's disk says.
    pub(super) fn segments(&self) -> io::Result<Vec<PathBuf>> {
        let paths: io::Result<Vec<PathBuf>> =
            std::fs::read_dir(&self.directory)?.map(|entry| entry.map(|entry| entry.path())).collect();
        let is_segment = |path: &PathBuf| path.file_name().is_some_and(|name| name != LOCK_NAME);
        let mut paths: Vec<PathBuf> = paths?.into_iter().filter(is_segment).collect();
        paths.sort();
        Ok(paths)
    }

    /// Removes it: nothing in it is owed.
    ///
    /// # Errors
    /// What the node's disk says.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove(&self.directory)
    }
}

/// The lock goes last: a journal that is half removed is still found.
fn remove(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name != LOCK_NAME) {
            std::fs::remove_file(path)?;
        }
    }
    std::fs::remove_file(directory.join(LOCK_NAME))?;
    std::fs::remove_dir(directory)
}

/// The lock of a journal; `None` while its process lives.
fn lock(directory: &Path) -> io::Result<Option<Flock<File>>> {
    let path = directory.join(LOCK_NAME);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

fn segment_name(number: u64) -> String {
    format!("{number:08}")
}

pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
