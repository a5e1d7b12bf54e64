//! Deletes under way: unlinks that were answered before the service has answered their Delete.
//!
//! The kernel sends the unlinks of one directory one after the other (it holds the directory's lock meanwhile), so `rm -r`
//! would take a round trip for each file. Once enough of them came in a row and went well, the next ones of plain closed
//! files are answered as soon as their Delete is on its way:
//!
//! ```text
//!   unlink answered, name gone here ──► under way ──► gone
//!                                           └───────► failed: the name is back, the next call in the directory hears of it,
//!                                                     and unlinks there wait again
//! ```
//!
//! Whoever could see a difference waits for the Deletes that concern it: to make, rename to or ask for the same name; to
//! remove, rename or fsync a directory above; the end of a session. A page of a listing does not wait, but what is under
//! way is left out of it. They are written down for a next process that takes the volume over; without one, what was not
//! deleted is still there after a kill.

use std::fmt::Write as _;

use super::{
    Caller, Error, FileSystem, InodeNumber, Invalidation, Kind, Result,
    inode::{Fate, Inode},
};
use crate::{
    blob::BlobName,
    sync::{
        Arc, Mutex,
        tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore},
    },
};

/// Deletes of one volume under way at once; the store bounds what the node sends in all. At 10 ms a round trip it is 3200
/// files a second.
const UNDER_WAY_MAX: usize = 32;
/// Failures kept for the next call in their directory; the log has them all.
const FAILURES_MAX: usize = 64;

/// Which blobs a question is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope<'name> {
    /// The one of this name.
    Name(&'name str),
    /// All whose names begin so.
    Below(&'name str),
}

impl Scope<'_> {
    fn has(self, blob: &BlobName) -> bool {
        match self {
            Self::Name(name) => blob.as_str() == name,
            Self::Below(prefix) => blob.as_str().starts_with(prefix),
        }
    }
}

/// A Delete without an answer.
#[derive(Debug)]
struct UnderWay {
    ticket: u64,
    blob: BlobName,
}

/// A Delete that failed behind its unlink.
#[derive(Debug)]
struct Failure {
    /// The prefix of its directory.
    directory: String,
    blob: BlobName,
    error: Error,
}

#[derive(Debug, Default)]
struct Pending {
    tickets: u64,
    under_way: Vec<UnderWay>,
    failures: Vec<Failure>,
}

/// Those of one volume.
#[derive(Debug)]
pub(super) struct Deletes {
    room: Arc<Semaphore>,
    pending: Mutex<Pending>,
    ended: Notify,
}

impl Default for Deletes {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(UNDER_WAY_MAX)), pending: Mutex::default(), ended: Notify::new() }
    }
}

impl Deletes {
    fn is_idle(&self) -> bool {
        self.pending.lock().under_way.is_empty()
    }

    fn has(&self, scope: Scope<'_>) -> bool {
        self.pending.lock().under_way.iter().any(|delete| scope.has(&delete.blob))
    }

    /// Waits for those that are under way now, not for later ones. `true`: there were some. As long as a request may take.
    pub(super) async fn wait(&self, scope: Scope<'_>) -> bool {
        let end = self.pending.lock().tickets;
        let mut waited = false;
        loop {
            let ended = self.ended.notified();
            crate::sync::tokio::pin!(ended);
            ended.as_mut().enable();
            let concerns = |delete: &UnderWay| delete.ticket < end && scope.has(&delete.blob);
            if !self.pending.lock().under_way.iter().any(concerns) {
                return waited;
            }
            waited = true;
            ended.await;
        }
    }

    fn begin(&self, blob: BlobName) -> u64 {
        let mut pending = self.pending.lock();
        let ticket = pending.tickets;
        pending.tickets += 1;
        pending.under_way.push(UnderWay { ticket, blob });
        ticket
    }

    fn end(&self, ticket: u64) {
        self.pending.lock().under_way.retain(|delete| delete.ticket != ticket);
        self.ended.notify_waiters();
    }

    fn note_failure(&self, failure: Failure) {
        let mut pending = self.pending.lock();
        if pending.failures.len() < FAILURES_MAX {
            pending.failures.push(failure);
        }
    }

    /// Tells, once, what failed. Of several the first, and how many there are.
    fn tell(&self, concerns: impl Fn(&Failure) -> bool) -> Result<()> {
        let mut pending = self.pending.lock();
        let mut told = None::<Error>;
        let mut more = 0;
        pending.failures.retain_mut(|failure| {
            if !concerns(failure) {
                return true;
            }
            match &told {
                None => told = Some(failure.error.repeat()),
                Some(_) => more += 1,
            }
            false
        });
        let Some(mut error) = told else { return Ok(()) };
        if more > 0 {
            let _ = write!(error.message, " (and {more} more)");
        }
        Err(error)
    }
}

/// The Delete of one file from its unlink to its end, however the task ends.
struct Turn {
    volume: Arc<FileSystem>,
    ticket: u64,
    /// Held in the table, so that its number stays that of the path.
    directory: Arc<Inode>,
    _room: OwnedSemaphorePermit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(scribe) = &self.volume.scribe {
            scribe.forget_delete(self.ticket);
        }
        self.volume.table.release(self.directory.number, 1);
        self.volume.deletes.end(self.ticket);
    }
}

/// Takes the name from a file that can go without more ado: nothing of it is open, unsaved or unsure.
fn take_plain(inode: &Inode) -> bool {
    let mut state = inode.state.lock();
    let plain = inode.kind != Kind::Directory
        && state.fate == Fate::Linked
        && state.opened == 0
        && !state.is_dirty()
        && !state.is_retried
        && !state.name_in_motion
        && state.owed.is_none()
        && state.attempts.is_empty()
        && state.staging.is_empty()
        && state.base.as_ref().is_some_and(|base| !base.properties.leased);
    if plain {
        state.fate = Fate::Unlinked;
    }
    plain
}

impl FileSystem {
    /// unlink(2) within a run of such in one directory, answered with the Delete under way. `false`: it is none, and nothing
    /// was done. Called under the inode's commit lock.
    ///
    /// # Errors
    /// What failed behind an earlier unlink in the directory, once; this one was then not begun.
    pub(super) async fn unlink_ahead(
        self: &Arc<Self>,
        caller: &Caller,
        parent: InodeNumber,
        inode: &Arc<Inode>,
    ) -> Result<bool> {
        if self.behind.is_some() {
            return Ok(false); // The journal answers sooner, and a kill undoes nothing there.
        }
        let directory = self.directory_inode(parent)?;
        let Some(known) = &directory.directory else { return Ok(false) };
        let is_run = || known.is_emptied(self.settings.unlinks_waited);
        let room = if is_run() { Arc::clone(&self.deletes.room).acquire_owned().await.ok() } else { None };
        let prefix = self.directory_prefix(parent)?;
        self.deletes.tell(|failure| failure.directory == prefix)?;
        // (Both may have changed while there was no room.)
        let Some(room) = room.filter(|_| is_run()) else { return Ok(false) };
        let (Ok(blob), Some((_, name))) = (self.blob_name(inode), self.table.place(inode.number)) else {
            return Ok(false);
        };
        if !take_plain(inode) {
            return Ok(false);
        }
        self.table.hold(parent, 1);
        let ticket = self.deletes.begin(blob.clone());
        if let Some(scribe) = &self.scribe {
            scribe.note_delete(ticket, blob.as_str());
        }
        let turn = Turn { volume: Arc::clone(self), ticket, directory: Arc::clone(&directory), _room: room };
        self.forget_name(Some(&caller.view), inode, Fate::Unlinked);
        known.note_unlink();
        self.resources.runtime.spawn(async move {
            let outcome = turn.volume.delete_blob(&blob).await;
            turn.finish(&prefix, blob, &name, outcome);
        });
        Ok(true)
    }

    /// Goes on with Deletes that another process has begun and not seen the end of, under these tickets.
    pub(super) fn go_on_deleting(self: &Arc<Self>, left: Vec<(u64, BlobName)>) {
        if let Some((last, _)) = left.last() {
            self.deletes.pending.lock().tickets = last.saturating_add(1);
        }
        for (before, blob) in left {
            let ticket = self.deletes.begin(blob.clone());
            if let Some(scribe) = &self.scribe {
                scribe.note_delete(ticket, blob.as_str());
                scribe.forget_delete(before);
            }
            let volume = Arc::clone(self);
            self.resources.runtime.spawn(async move {
                if let Err(error) = volume.delete_blob(&blob).await {
                    tracing::error!(blob = blob.as_str(), "removed here, but still there: {}", error.to_chain());
                }
                if let Some(scribe) = &volume.scribe {
                    scribe.forget_delete(ticket);
                }
                volume.deletes.end(ticket);
            });
        }
    }

    /// Waits until no Delete of `name` is under way. `true`: one was.
    pub(super) async fn wait_deleted(&self, directory: &Inode, name: &str) -> bool {
        if self.deletes.is_idle() {
            return false;
        }
        let Ok(blob) = self.blob_at(directory, name) else { return false };
        self.deletes.wait(Scope::Name(blob.as_str())).await
    }

    /// Whether a Delete of `name` is under way: what the service lists of it says nothing.
    pub(super) fn is_being_deleted(&self, directory: &Inode, name: &str) -> bool {
        !self.deletes.is_idle()
            && self.blob_at(directory, name).is_ok_and(|blob| self.deletes.has(Scope::Name(blob.as_str())))
    }

    /// [`Self::finish_deletes_below`] an inode, if it is a directory.
    pub(super) async fn finish_deletes_in(&self, inode: &Inode) -> Result<()> {
        match inode.kind {
            Kind::Directory => self.finish_deletes_below(&self.directory_prefix(inode.number)?).await,
            _ => Ok(()),
        }
    }

    /// Waits for what is being deleted below a directory.
    ///
    /// # Errors
    /// What of it, or before it, failed, once.
    pub(super) async fn finish_deletes_below(&self, prefix: &str) -> Result<()> {
        self.deletes.wait(Scope::Below(prefix)).await;
        self.deletes.tell(|failure| Scope::Below(prefix).has(&failure.blob))
    }
}

impl Turn {
    /// Brings what is known of the directory in line with the answer, before anybody who waits for it goes on.
    fn finish(self, prefix: &str, blob: BlobName, name: &Arc<str>, outcome: Result<()>) {
        self.volume.spoil_listed_ahead(&self.directory, name);
        let Some(known) = &self.directory.directory else { return };
        let Err(error) = outcome else {
            // Once more, now that it is true at the service: answers to questions of before say nothing of the name.
            return known.remove_local(name);
        };
        let fix = error.source.as_ref().and_then(|source| source.remedy());
        tracing::error!(blob = blob.as_str(), fix, "removed here, but still there: {}", error.to_chain());
        known.forget();
        known.end_unlinks();
        let number = self.directory.number;
        self.volume.views.invalidate(None, &Invalidation::Entry(number, Arc::clone(name)));
        self.volume.views.invalidate(None, &Invalidation::Attributes(number));
        self.volume.deletes.note_failure(Failure { directory: prefix.to_owned(), blob, error });
    }
}
