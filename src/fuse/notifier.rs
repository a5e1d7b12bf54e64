//! Tells one kernel what changed behind its back: the work of one task a session.
//!
//! A notification takes locks in the kernel that a request under way may hold (the parent's for an entry, pages for
//! data), so it may wait for a request to be answered. Hence never from a thread that serves requests and never with a
//! lock of the file system held: this task takes from the view's queue and writes from a blocking thread.

use std::{
    ffi::OsStr,
    fmt, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use fuser::{INodeNo, Notifier};

use super::name_copies::NameCopies;
use crate::{
    fs::{InodeNumber, Invalidation, InvalidationQueue},
    sync::Arc,
};

/// Tells the kernel behind a device instead of us: it may keep us waiting, and then we could not end.
pub trait Tell: fmt::Debug + Send + Sync {
    /// That pages and attributes of an inode are to be forgotten, from `offset` on (negative: attributes alone).
    ///
    /// # Errors
    /// What the kernel says.
    fn inval_inode(&self, device: BorrowedFd<'_>, inode: u64, offset: i64) -> io::Result<()>;

    /// That what a name leads to is to be forgotten.
    ///
    /// # Errors
    /// What the kernel says.
    fn inval_entry(&self, device: BorrowedFd<'_>, parent: u64, name: &str) -> io::Result<()>;
}

/// How the kernel is told.
#[derive(Clone)]
pub(super) enum Voice {
    /// By us.
    Own(Notifier),
    /// By somebody else.
    Other(Arc<OwnedFd>, Arc<dyn Tell>),
}

impl Voice {
    fn inval_inode(&self, number: InodeNumber, offset: i64) -> io::Result<()> {
        match self {
            Self::Own(notifier) => notifier.inval_inode(INodeNo(number.0), offset, 0),
            Self::Other(device, teller) => teller.inval_inode(device.as_fd(), number.0, offset),
        }
    }

    fn inval_entry(&self, parent: InodeNumber, name: &str) -> io::Result<()> {
        match self {
            Self::Own(notifier) => notifier.inval_entry(INodeNo(parent.0), OsStr::new(name)),
            Self::Other(device, teller) => teller.inval_entry(device.as_fd(), parent.0, name),
        }
    }
}

/// Offset that means "attributes only" to fs/fuse/inode.c (fuse_reverse_inval_inode).
const ATTRIBUTES_ONLY: i64 = -1;

/// Passes the queue's invalidations on until it is cancelled or the kernel is gone.
pub(super) async fn notify(queue: Arc<InvalidationQueue>, voice: Voice, copies: Arc<NameCopies>) {
    loop {
        let waiting = queue.take().await;
        let (voice, copies) = (voice.clone(), Arc::clone(&copies));
        let tell_all = move || waiting.iter().try_for_each(|change| tell(&voice, &copies, change));
        let told = tokio::task::spawn_blocking(tell_all);
        match told.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "the kernel takes no notifications any more");
                return;
            }
            Err(_cancelled) => return,
        }
    }
}

/// # Errors
/// Only when the connection is gone; what the kernel does not know (any more) needs no telling.
fn tell(voice: &Voice, copies: &NameCopies, change: &Invalidation) -> io::Result<()> {
    let told = match change {
        // Something was made or removed in it.
        Invalidation::Attributes(number) if copies.is_open(*number) => voice.inval_inode(*number, 0),
        Invalidation::Attributes(number) => voice.inval_inode(*number, ATTRIBUTES_ONLY),
        Invalidation::Data(number) => voice.inval_inode(*number, 0),
        Invalidation::Entry(parent, name) => voice.inval_entry(*parent, name),
    };
    match told {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOTCONN | libc::EBADF)) => Err(error),
        // ENOTDIR, ENOTEMPTY and the like: the name became something else meanwhile, and was looked up anew for that.
        _ => Ok(()),
    }
}
