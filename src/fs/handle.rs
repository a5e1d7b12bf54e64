//! Open files and directories. A handle can be rebuilt from its inode and flags; what it keeps beside them (where a
//! stream reads ahead, which listing a directory reader is in) may be lost without anyone noticing more than a request.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::sync::Mutex;

use super::{
    Error, Result,
    by_number::ByNumber,
    directory::{Listing, Reader, Stamp, Start},
    inode::Inode,
    takeover::{Counter, Scribe},
};
use crate::cache::ReadStream;

/// The number of an open handle; never used again within the life of the volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HandleId(pub u64);

/// What a handle was opened for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// May read.
    pub read: bool,
    /// May write.
    pub write: bool,
    /// Every write goes to the end (O_APPEND).
    pub append: bool,
    /// The file is emptied at open (O_TRUNC).
    pub truncate: bool,
    /// The file must not exist yet (O_EXCL with O_CREAT).
    pub exclusive: bool,
    /// Every write returns only once it is on the service (O_SYNC, O_DSYNC).
    pub synchronous: bool,
}

impl Access {
    /// From the flags of open(2).
    #[must_use]
    pub fn from_flags(flags: i32) -> Self {
        let mode = flags & libc::O_ACCMODE;
        Self {
            read: mode == libc::O_RDONLY || mode == libc::O_RDWR,
            write: mode == libc::O_WRONLY || mode == libc::O_RDWR,
            append: flags & libc::O_APPEND != 0,
            truncate: flags & libc::O_TRUNC != 0,
            exclusive: flags & libc::O_EXCL != 0,
            synchronous: flags & libc::O_DSYNC != 0,
        }
    }
}

/// An open file.
#[derive(Debug)]
pub struct FileHandle {
    /// Its number; given by [`HandleTable::add_file`].
    pub id: HandleId,
    /// What is open.
    pub inode: Arc<Inode>,
    /// What for.
    pub access: Access,
    /// Where it reads, and what was fetched ahead for it.
    pub stream: ReadStream,
    /// How far it has heard of failed commits ([`super::latch`]); changed under the lock of the inode's state.
    pub heard: AtomicU64,
    /// The view that it was opened through.
    pub view: u64,
}

/// An open directory.
#[derive(Debug)]
pub struct DirectoryHandle {
    /// What is open.
    pub inode: Arc<Inode>,
    /// The listing it reads; taken anew at offset 0.
    pub listing: Mutex<Option<Arc<Listing>>>,
    /// What that was when its reader began.
    pub stamp: Mutex<Option<Stamp>>,
    /// The view that it was opened through.
    pub view: u64,
    /// What its reader was given.
    pub reader: Mutex<Reader>,
}

/// All open handles.
#[derive(Debug, Default)]
pub struct HandleTable {
    files: Mutex<ByNumber<HandleId, Arc<FileHandle>>>,
    directories: Mutex<ByNumber<HandleId, Arc<DirectoryHandle>>>,
    next: AtomicU64,
    /// Handles below this number were open in another process, whose state could not be read.
    lost_below: AtomicU64,
    scribe: Option<Arc<Scribe>>,
}

impl HandleTable {
    /// An empty table, written down by `scribe`.
    pub fn new(scribe: Option<&Arc<Scribe>>) -> Self {
        Self { scribe: scribe.cloned(), ..Self::default() }
    }

    /// A number for something else that is open.
    pub fn next_id(&self) -> HandleId {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(scribe) = &self.scribe {
            scribe.note_number(Counter::Handles, id);
        }
        HandleId(id)
    }

    /// Takes the handles of another process over, and goes on counting at `next`.
    pub(super) fn take_over(
        &self,
        files: Vec<(HandleId, FileHandle)>,
        directories: Vec<(HandleId, DirectoryHandle)>,
        next: u64,
    ) {
        self.next.fetch_max(next, Ordering::Relaxed);
        self.files.lock().extend(files.into_iter().map(|(id, handle)| (id, Arc::new(handle))));
        self.directories.lock().extend(directories.into_iter().map(|(id, handle)| (id, Arc::new(handle))));
    }

    /// Handles below `next` were another process's, and nothing is known of them: to use one is an I/O error.
    pub(super) fn lose_below(&self, next: u64) {
        self.next.fetch_max(next, Ordering::Relaxed);
        self.lost_below.fetch_max(next, Ordering::Relaxed);
    }

    /// All open handles of a view: files, and directories.
    pub(super) fn of_view(&self, view: u64) -> (Vec<HandleId>, Vec<HandleId>) {
        let files = self.files.lock().iter().filter(|(_, open)| open.view == view).map(|(id, _)| *id).collect();
        let directories = self.directories.lock();
        let directories = directories.iter().filter(|(_, open)| open.view == view).map(|(id, _)| *id).collect();
        (files, directories)
    }

    /// What a view has open for writing.
    pub(super) fn written(&self, view: u64) -> Vec<Arc<Inode>> {
        let files = self.files.lock();
        let written = files.values().filter(|open| open.view == view && open.access.write);
        written.map(|open| Arc::clone(&open.inode)).collect()
    }

    /// Writes down a handle, and how far it has heard of failures.
    pub(super) fn note_heard(&self, handle: &FileHandle) {
        if let Some(scribe) = &self.scribe {
            scribe.note_file(handle, false);
        }
    }

    /// Writes down that the kernel has let a handle go: who comes after us has to close it, as nobody tells them.
    pub(super) fn note_closed(&self, handle: &FileHandle) {
        if let Some(scribe) = &self.scribe {
            scribe.note_file(handle, true);
        }
    }

    /// The reader of a directory reads at `offset`.
    pub(super) fn read_from(&self, id: HandleId, open: &DirectoryHandle, offset: u64) -> Start {
        let Some(scribe) = &self.scribe else { return Start::default() };
        let mut reader = open.reader.lock();
        let before = reader.rows();
        let start = reader.go_to(offset);
        if let Some(from) = start.stale_from {
            scribe.cut_given(id, from..before, reader.left().get(from));
        }
        start
    }

    /// Writes down what the reader of a directory is given.
    pub(super) fn note_given<'name>(
        &self,
        id: HandleId,
        open: &DirectoryHandle,
        names: impl Iterator<Item = (u64, &'name str)>,
    ) {
        if let Some(scribe) = &self.scribe
            && let Some((row, given)) = open.reader.lock().give(names)
        {
            scribe.note_given(id, row, &given);
        }
    }

    /// Keeps an open file.
    pub fn add_file(&self, handle: FileHandle) -> HandleId {
        let id = self.next_id();
        let handle = FileHandle { id, ..handle };
        self.note_heard(&handle);
        self.files.lock().insert(id, Arc::new(handle));
        id
    }

    /// Keeps an open directory.
    pub fn add_directory(&self, handle: DirectoryHandle) -> HandleId {
        let id = self.next_id();
        if let Some(scribe) = &self.scribe {
            scribe.note_directory(id, handle.view, handle.inode.number);
        }
        self.directories.lock().insert(id, Arc::new(handle));
        id
    }

    /// The open file of `id`.
    ///
    /// # Errors
    /// EBADF when there is none.
    pub fn file(&self, id: HandleId) -> Result<Arc<FileHandle>> {
        self.files.lock().get(&id).cloned().ok_or_else(|| self.not_open(id))
    }

    /// The open directory of `id`.
    ///
    /// # Errors
    /// EBADF when there is none.
    pub fn directory(&self, id: HandleId) -> Result<Arc<DirectoryHandle>> {
        self.directories.lock().get(&id).cloned().ok_or_else(|| self.not_open(id))
    }

    /// Takes an open file out.
    pub fn remove_file(&self, id: HandleId) -> Option<Arc<FileHandle>> {
        let removed = self.files.lock().remove(&id);
        self.forget(id, 0);
        removed
    }

    /// Takes an open directory out.
    pub fn remove_directory(&self, id: HandleId) -> Option<Arc<DirectoryHandle>> {
        let removed = self.directories.lock().remove(&id);
        let rows = removed.as_ref().map_or(0, |open| open.reader.lock().rows());
        self.forget(id, rows);
        removed
    }

    /// How many handles are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.lock().len() + self.directories.lock().len()
    }

    fn forget(&self, id: HandleId, given: usize) {
        if let Some(scribe) = &self.scribe {
            scribe.forget_handle(id, given);
        }
    }

    fn not_open(&self, id: HandleId) -> Error {
        match id.0 < self.lost_below.load(Ordering::Relaxed) {
            true => {
                Error::new(libc::EIO, format!("what handle {} stood for is not known any more: open it again", id.0))
            }
            false => Error::new(libc::EBADF, format!("handle {} is not open", id.0)),
        }
    }
}
