//! Opening and closing. open(2) is exact: it sees every close that returned before it (close-to-open), at the price of
//! one request, which a name that is ours until it is committed does not pay: a conditional HEAD, or where it only reads
//! what is not in memory, the GET of its first bytes (`opening`).

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
};

use crate::sync::Mutex;

use super::{
    Access, Caller, Consistency, Error, FileSystem, HandleId, InodeNumber, Kind, Result,
    commit::{only_at_its_end, read_only_pages},
    error::REHYDRATE,
    handle::FileHandle,
    inode::{Fate, Inode, State},
};
use crate::blob::BlobKind;

/// Retries of open(2) that are still to come. An open that finds a foreign version answers ESTALE; the kernel then looks
/// the name up and opens again, in the same thread, and the check that was just made must answer that too (DESIGN
/// 10.1). The thread makes it exact: it cannot be in two system calls at once.
#[derive(Debug, Default)]
pub struct CheckedOpens {
    by_thread: Mutex<HashMap<u32, InodeNumber>>,
}

/// Threads that never came back with their retry (killed in between) are forgotten past this many.
const CHECKED_OPENS_MAX: usize = 1024;

impl CheckedOpens {
    /// Remembers the retry; returns the inodes of retries that will not come any more.
    fn await_retry(&self, thread: u32, number: InodeNumber) -> Vec<InodeNumber> {
        let mut by_thread = self.by_thread.lock();
        let mut given_up = Vec::new();
        if by_thread.len() >= CHECKED_OPENS_MAX {
            given_up.extend(by_thread.drain().map(|(_, number)| number));
        }
        given_up.extend(by_thread.insert(thread, number));
        given_up
    }

    fn take(&self, thread: u32) -> Option<InodeNumber> {
        self.by_thread.lock().remove(&thread)
    }
}

impl FileSystem {
    /// open(2) of an existing file.
    ///
    /// # Errors
    /// ESTALE when the name now leads to another version (the kernel looks it up and tries again); EROFS, EISDIR; EACCES
    /// for an archived blob; EPERM for writing a page blob, emptying an append blob, or writing one whose index tags may
    /// not be read.
    pub async fn open_file(self: &Arc<Self>, caller: &Caller, number: InodeNumber, access: Access) -> Result<HandleId> {
        if access.write || access.truncate {
            self.check_writable(caller)?;
        }
        if self.is_figures(number) {
            return self.open_figures(access);
        }
        let inode = self.inode(number)?;
        if inode.kind == Kind::Directory {
            return Err(Error::new(libc::EISDIR, "a directory is read with readdir"));
        }
        let only_reads = !access.write && !access.truncate;
        let ahead = if only_reads { self.fetch_siblings(&inode) } else { None };
        let checked = self.checked_opens.take(caller.pid);
        let result = match checked {
            Some(checked) if checked == number => Ok(()),
            _ if !self.must_check_open(&inode) || self.is_answered(&inode, ahead).await => Ok(()),
            _ => self.check_open(caller, &inode, only_reads).await,
        };
        if let Some(checked) = checked {
            self.table.release(checked, 1);
        }
        result?;
        check_openable(&inode.state.lock(), access)?;
        if access.write || access.truncate {
            self.check_tags(&inode).await?;
        }
        let handle = self.add_handle(caller, &inode, access);
        if access.truncate
            && let Err(error) = self.truncate(caller, &inode, 0, true).await
        {
            self.drop_handle(handle);
            return Err(error);
        }
        Ok(handle)
    }

    fn must_check_open(&self, inode: &Inode) -> bool {
        let state = inode.state.lock();
        let ours = state.is_local() || state.fate == Fate::Unlinked || state.base.is_none();
        self.settings.consistency == Consistency::CloseToOpen && !ours
    }

    async fn check_open(self: &Arc<Self>, caller: &Caller, inode: &Arc<Inode>, only_reads: bool) -> Result<()> {
        let found = if only_reads { self.successor_with_bytes(inode).await? } else { self.successor(inode).await? };
        let Some(successor) = found else { return Ok(()) };
        // Held until the retry, so that the lookup in between finds it without asking again.
        if self.table.hold(successor.inode.number, 1) {
            for given_up in self.checked_opens.await_retry(caller.pid, successor.inode.number) {
                self.table.release(given_up, 1);
            }
        }
        Err(Error::new(libc::ESTALE, "the name leads to another client's version"))
    }

    /// Opens a handle on an inode that was checked.
    pub(super) fn add_handle(&self, caller: &Caller, inode: &Arc<Inode>, access: Access) -> HandleId {
        let heard = {
            let mut state = inode.state.lock();
            state.opened += 1;
            state.writers += u32::from(access.write);
            state.readers += u32::from(access.read);
            state.errors.sample()
        };
        self.table.hold(inode.number, 1);
        let (inode, stream, heard) = (Arc::clone(inode), self.cache().stream(), AtomicU64::new(heard));
        let (id, view) = (HandleId::default(), caller.view.id());
        self.handles.add_file(FileHandle { id, inode, access, stream, heard, view })
    }

    /// close(2) of one descriptor: what was written is on the service when it returns, or in the journal
    /// ([`super::Durability`]).
    ///
    /// # Errors
    /// What the commit says; the data stays and is tried again by the next fsync or close. A commit that failed since the
    /// last call on this handle, whoever ran it, is told once (handles that cannot write hear of it at fsync only).
    pub async fn flush(self: &Arc<Self>, handle: HandleId) -> Result<()> {
        let handle = match self.handles.file(handle) {
            Err(_) if self.has_figures_open(handle) => return Ok(()),
            found => found?,
        };
        match handle.access.write {
            true if self.owe(&handle.inode).await => Ok(()),
            true => self.commit_for(&handle).await,
            false => Ok(()),
        }
    }

    /// fsync(2) and fdatasync(2): what was written is on the service when it returns.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub async fn sync_file(self: &Arc<Self>, handle: HandleId) -> Result<()> {
        let handle = match self.handles.file(handle) {
            Err(_) if self.has_figures_open(handle) => return Ok(()),
            found => found?,
        };
        self.commit_for(&handle).await
    }

    /// The last reference to an open file is gone. A mapping may have written after the last close, so what is still
    /// dirty is committed here.
    ///
    /// # Errors
    /// What that commit says; nobody but the log hears of it.
    pub async fn release(self: &Arc<Self>, handle: HandleId) -> Result<()> {
        let Ok(open) = self.handles.file(handle) else {
            self.close_figures(handle);
            return Ok(());
        };
        if open.access.write {
            self.handles.note_closed(&open);
        }
        let result = match open.access.write {
            true if self.owe(&open.inode).await => Ok(()),
            true => self.commit_unheard(&open.inode).await,
            false => Ok(()),
        };
        self.drop_handle(handle);
        self.finish_last_close(&open.inode).await;
        result
    }

    fn drop_handle(&self, handle: HandleId) {
        let Some(open) = self.handles.remove_file(handle) else { return };
        {
            let mut state = open.inode.state.lock();
            state.opened -= 1;
            state.writers -= u32::from(open.access.write);
            state.readers -= u32::from(open.access.read);
        }
        self.table.release(open.inode.number, 1);
    }
}

impl FileSystem {
    /// EPERM now, not at close, for a blob whose index tags would be lost.
    async fn check_tags(&self, inode: &Inode) -> Result<()> {
        let base = inode.state.lock().base.clone().filter(|base| base.properties.tag_count > 0);
        let Some(base) = base else { return Ok(()) };
        self.tags_to_keep(&self.blob_name(inode)?, Some(&base)).await.map(drop)
    }
}

fn check_openable(state: &State, access: Access) -> Result<()> {
    let Some(base) = state.base.as_deref() else { return Ok(()) };
    if base.properties.access_tier.as_deref() == Some("Archive") {
        return Err(Error::new(libc::EACCES, REHYDRATE));
    }
    if !(access.write || access.truncate) {
        return Ok(());
    }
    match base.properties.kind {
        BlobKind::Block => {}
        BlobKind::Append if access.truncate && base.properties.length > 0 => return Err(only_at_its_end()),
        BlobKind::Append => return Ok(()), // Append Block keeps tags, metadata and headers.
        BlobKind::Page => return Err(read_only_pages()),
    }
    Ok(())
}
