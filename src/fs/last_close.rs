//! What becomes of changes that the last close could not save: tried again while the cause may pass, moved to lost+found
//! (`lost_found`) when it will not, and never forgotten in between.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use futures::StreamExt;

use super::{
    Error, FileSystem, ROOT, Result,
    deletes::Scope,
    inode::{Fate, Inode},
};

/// First pause before unsaved changes without a handle are tried again; doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Longest of these pauses. Each try has its own deadline and its own backoff: more would only add load.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Commits of one sweep under way at once; the store bounds what the node sends in all.
const FLUSHES_AT_ONCE: usize = 32;

/// What a sweep into lost+found came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAside {
    /// Files that are in lost+found now.
    pub files: u64,
    /// Files that are nowhere but in memory: the spool takes no more, or there is none.
    pub kept: u64,
}

impl FileSystem {
    /// After a close: removes the hidden copy of a file without a name, and cares for what is not saved.
    pub(super) async fn finish_last_close(self: &Arc<Self>, inode: &Arc<Inode>) {
        let orphan = {
            let mut state = inode.state.lock();
            if state.opened > 0 {
                return;
            }
            if state.fate == Fate::Unlinked {
                state.discard_changes();
            }
            state.orphan.take()
        };
        if let Some(orphan) = orphan
            && let Err(error) = self.delete_blob(&orphan).await
        {
            tracing::warn!("a hidden copy stays: {}", error.to_chain());
        }
        if !inode.state.lock().is_dirty() || self.settle_unsaved(inode).await {
            return;
        }
        let is_in_turn = {
            let state = inode.state.lock();
            let may_pass = state.refusal.as_ref().is_none_or(|refusal| refusal.may_pass);
            state.owed.is_some() && state.overlay.is_none() && may_pass
        };
        if !is_in_turn {
            self.retry_later(inode);
        }
    }

    /// Moves changes that nobody will ever take to lost+found. `false`: they are still here, and worth another try.
    pub(super) async fn settle_unsaved(self: &Arc<Self>, inode: &Arc<Inode>) -> bool {
        let may_pass = {
            let state = inode.state.lock();
            state.fate == Fate::Linked && state.refusal.as_ref().is_none_or(|refusal| refusal.may_pass)
        };
        if may_pass {
            return false;
        }
        match self.set_aside(inode, false).await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(inode = inode.number.0, "unsaved changes stay in memory: lost+found: {error}");
                false
            }
        }
    }

    /// Commits a change that a system call has made without any handle. One that fails is undone: the call has said so, and
    /// nobody would try it again.
    pub(super) async fn commit_change(self: &Arc<Self>, inode: &Arc<Inode>, was_dirty: bool) -> Result<()> {
        let committed = self.commit(inode).await;
        if committed.is_err() && !was_dirty {
            let mut state = inode.state.lock();
            if state.opened == 0 && state.fate == Fate::Linked && state.base.is_some() {
                state.discard_changes();
                self.restore_mode(&mut state);
            }
        }
        committed
    }

    /// Tries again in the background until it is saved, set aside, or open again.
    pub(super) fn retry_later(self: &Arc<Self>, inode: &Arc<Inode>) {
        if std::mem::replace(&mut inode.state.lock().is_retried, true) {
            return;
        }
        // The kernel may forget the inode; its changes must not go with it.
        self.table.hold(inode.number, 1);
        let (volume, inode) = (Arc::downgrade(self), Arc::clone(inode));
        self.resources.runtime.spawn(async move {
            let mut pause = RETRY_PAUSE_FIRST;
            loop {
                crate::sync::tokio::time::sleep(pause).await;
                let Some(volume) = Weak::upgrade(&volume) else { return };
                if volume.retry(&inode).await {
                    inode.state.lock().is_retried = false;
                    volume.table.release(inode.number, 1);
                    return;
                }
                pause = (pause * 2).min(RETRY_PAUSE_MAX);
            }
        });
    }

    /// One more try. `true`: there is nothing left to do here.
    async fn retry(self: &Arc<Self>, inode: &Arc<Inode>) -> bool {
        let taken_over = {
            let state = inode.state.lock();
            !state.is_dirty() || state.opened > 0
        };
        if taken_over {
            return true;
        }
        match self.commit_unheard(inode).await {
            Ok(()) => {
                tracing::info!(inode = inode.number.0, "changes that were left over are saved now");
                true
            }
            Err(error) => {
                tracing::warn!(inode = inode.number.0, "changes that were left over: {}", error.to_chain());
                self.settle_unsaved(inode).await
            }
        }
    }

    /// Commits everything that is dirty, for the end of a session: close(2) has reported what it could, this is for what
    /// came after. Deletes that are under way are waited for; the log has those that fail. Once the service was silent for a
    /// whole deadline, what has not begun is not begun any more.
    ///
    /// # Errors
    /// The first commit that failed; the others were tried all the same.
    pub async fn flush_all(self: &Arc<Self>) -> Result<()> {
        self.deletes.wait(Scope::Below("")).await;
        let is_silent = std::sync::atomic::AtomicBool::new(false);
        let dirty = self.table.all().into_iter().filter(|inode| inode.state.lock().is_dirty());
        let flush = |inode: Arc<Inode>| {
            let is_silent = &is_silent;
            async move {
                if is_silent.load(Ordering::Relaxed) {
                    return Err(Error::new(libc::ETIMEDOUT, "the service does not answer"));
                }
                let saved = self.commit_unheard(&inode).await;
                if let Err(error) = &saved {
                    tracing::error!(inode = inode.number.0, "not saved: {}", error.to_chain());
                    is_silent.fetch_or(error.errno == libc::ETIMEDOUT, Ordering::Relaxed);
                }
                saved
            }
        };
        // Collected first: the compiler cannot see that a stream over a borrowing closure is Send.
        let flushes: Vec<_> = dirty.map(flush).collect();
        let outcomes: Vec<Result<()>> =
            futures::stream::iter(flushes).buffer_unordered(FLUSHES_AT_ONCE).collect().await;
        let saved = outcomes.into_iter().find(Result::is_err).unwrap_or(Ok(()));
        let removed = self.send_removals_below(ROOT).await;
        saved.and(removed)
    }

    /// Moves everything that is still dirty to lost+found, open or not: for the end of the volume, when nobody will save
    /// it any more. Sends no change to the service.
    pub async fn set_aside_all(self: &Arc<Self>) -> SetAside {
        let mut swept = SetAside::default();
        for inode in self.table.all() {
            let is_worth_keeping = {
                let state = inode.state.lock();
                state.is_dirty() && state.fate != Fate::Unlinked
            };
            if !is_worth_keeping {
                continue;
            }
            match self.set_aside(&inode, true).await {
                Ok(()) => swept.files += 1,
                Err(error) => {
                    tracing::error!(inode = inode.number.0, "unsaved changes are lost with the process: {error}");
                    swept.kept += 1;
                }
            }
        }
        swept
    }

    /// How many files were moved to lost+found so far.
    #[must_use]
    pub fn files_set_aside(&self) -> u64 {
        self.set_aside_count.load(Ordering::Relaxed)
    }
}
