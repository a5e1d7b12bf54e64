//! Tells one kernel what changed behind its back: the work of one task a session.
//!
//! A notification takes locks in the kernel that a request under way may hold (the parent's for an entry, pages for
//! data), so it may wait for a request to be answered. Hence never from a thread that serves requests and never with a
//! lock of the file system held: this task takes from the view's queue and writes from a blocking thread.

use std::{ffi::OsStr, io};

use fuser::{INodeNo, Notifier};

use super::name_copies::NameCopies;
use crate::{
    fs::{Invalidation, InvalidationQueue},
    sync::Arc,
};

/// Offset that means "attributes only" to fs/fuse/inode.c (fuse_reverse_inval_inode).
const ATTRIBUTES_ONLY: i64 = -1;

/// Passes the queue's invalidations on until it is cancelled or the kernel is gone.
pub(super) async fn notify(queue: Arc<InvalidationQueue>, notifier: Notifier, copies: Arc<NameCopies>) {
    loop {
        let waiting = queue.take().await;
        let (notifier, copies) = (notifier.clone(), Arc::clone(&copies));
        let tell_all = move || waiting.iter().try_for_each(|change| tell(&notifier, &copies, change));
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
fn tell(notifier: &Notifier, copies: &NameCopies, change: &Invalidation) -> io::Result<()> {
    let told = match change {
        // Something was made or removed in it.
        Invalidation::Attributes(number) if copies.is_open(*number) => notifier.inval_inode(INodeNo(number.0), 0, 0),
        Invalidation::Attributes(number) => notifier.inval_inode(INodeNo(number.0), ATTRIBUTES_ONLY, 0),
        Invalidation::Data(number) => notifier.inval_inode(INodeNo(number.0), 0, 0),
        Invalidation::Entry(parent, name) => notifier.inval_entry(INodeNo(parent.0), OsStr::new(name.as_ref())),
    };
    match told {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOTCONN | libc::EBADF)) => Err(error),
        // ENOTDIR, ENOTEMPTY and the like: the name became something else meanwhile, and was looked up anew for that.
        _ => Ok(()),
    }
}
