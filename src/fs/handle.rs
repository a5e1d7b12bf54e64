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
    directory::{Listing, Stamp},
    inode::Inode,
};
use crate::cache::ReadStream;

/// The number of an open handle; never used again within the life of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// What is open.
    pub inode: Arc<Inode>,
    /// What for.
    pub access: Access,
    /// Where it reads, and what was fetched ahead for it.
    pub stream: ReadStream,
    /// How far it has heard of failed commits ([`super::latch`]); changed under the lock of the inode's state.
    pub heard: AtomicU64,
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
}

/// All open handles.
#[derive(Debug, Default)]
pub struct HandleTable {
    files: Mutex<ByNumber<HandleId, Arc<FileHandle>>>,
    directories: Mutex<ByNumber<HandleId, Arc<DirectoryHandle>>>,
    next: AtomicU64,
}

impl HandleTable {
    /// A number for something else that is open.
    pub fn next_id(&self) -> HandleId {
        HandleId(self.next.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Keeps an open file.
    pub fn add_file(&self, handle: FileHandle) -> HandleId {
        let id = self.next_id();
        self.files.lock().insert(id, Arc::new(handle));
        id
    }

    /// Keeps an open directory.
    pub fn add_directory(&self, handle: DirectoryHandle) -> HandleId {
        let id = self.next_id();
        self.directories.lock().insert(id, Arc::new(handle));
        id
    }

    /// The open file of `id`.
    ///
    /// # Errors
    /// EBADF when there is none.
    pub fn file(&self, id: HandleId) -> Result<Arc<FileHandle>> {
        self.files.lock().get(&id).cloned().ok_or_else(|| not_open(id))
    }

    /// The open directory of `id`.
    ///
    /// # Errors
    /// EBADF when there is none.
    pub fn directory(&self, id: HandleId) -> Result<Arc<DirectoryHandle>> {
        self.directories.lock().get(&id).cloned().ok_or_else(|| not_open(id))
    }

    /// Takes an open file out.
    pub fn remove_file(&self, id: HandleId) -> Option<Arc<FileHandle>> {
        self.files.lock().remove(&id)
    }

    /// Takes an open directory out.
    pub fn remove_directory(&self, id: HandleId) -> Option<Arc<DirectoryHandle>> {
        self.directories.lock().remove(&id)
    }

    /// How many handles are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.lock().len() + self.directories.lock().len()
    }
}

fn not_open(id: HandleId) -> Error {
    Error::new(libc::EBADF, format!("handle {} is not open", id.0))
}
