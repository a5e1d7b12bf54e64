//! flock(2) and fcntl(2) locks, in one table for all views of a volume: what a program locks through one view keeps
//! programs of every other view out (DESIGN 10.10). They hold on this node only; nothing of them is on the service.

mod table;

use std::{future::Future, ops::RangeInclusive, sync::Arc};

use futures::future::{Either, select};

use table::{EVERYTHING, LockTable, Refused};
pub use table::{Lock, LockCall, Owner};

use super::{Caller, Error, FileSystem, HandleId, InodeNumber, Result, View, takeover::Scribe};
use crate::sync::Mutex;

/// A lock that a program wants, or asks about.
#[derive(Clone, Debug)]
pub struct LockRequest {
    /// The file.
    pub number: InodeNumber,
    /// The open file that it is locked through.
    pub handle: HandleId,
    /// The kernel's number for the process or open file that is to own it.
    pub owner: u64,
    /// The call.
    pub call: LockCall,
    /// The bytes.
    pub range: RangeInclusive<u64>,
    /// Whether it excludes everybody, or only those who exclude.
    pub exclusive: bool,
    /// The process.
    pub pid: u32,
}

/// A lock that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockHolder {
    /// The bytes.
    pub range: RangeInclusive<u64>,
    /// Whether it excludes everybody.
    pub exclusive: bool,
    /// The process.
    pub pid: u32,
}

/// The locks of a volume, shared by its views.
#[derive(Debug, Default)]
pub struct Locks {
    /// Short sections, nothing awaits inside.
    table: Mutex<LockTable>,
}

impl Locks {
    /// No locks yet; `scribe` writes down what is taken.
    pub(super) fn new(scribe: Option<&Arc<Scribe>>) -> Self {
        Self { table: Mutex::new(LockTable::new(scribe)) }
    }

    /// Takes the locks of another process over.
    pub(super) fn take_over(&self, left: Vec<(InodeNumber, Vec<Lock>)>) {
        self.table.lock().take_over(left);
    }
}

/// A wait that is known to the others while it lasts; gone on drop, so that a cancelled wait leaves nothing.
struct Waiting<'locks> {
    locks: &'locks Locks,
    number: InodeNumber,
    ticket: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.locks.table.lock().stop_waiting(self.number, self.ticket);
    }
}

impl LockRequest {
    fn lock(&self, view: &View) -> Lock {
        Lock {
            owner: Owner { view: view.id(), id: self.owner },
            call: self.call,
            handle: self.handle,
            range: self.range.clone(),
            exclusive: self.exclusive,
            pid: self.pid,
        }
    }
}

impl FileSystem {
    /// F_SETLK and flock(2) with LOCK_NB.
    ///
    /// # Errors
    /// EAGAIN where somebody holds it, ENOLCK for more ranges than a file may have, EBADF.
    pub fn lock(&self, caller: &Caller, request: &LockRequest) -> Result<()> {
        self.handles.file(request.handle)?;
        let taken = self.locks.table.lock().try_lock(request.number, &request.lock(&caller.view));
        taken.map_err(refusal)
    }

    /// F_SETLKW and flock(2): waits until the lock is free, or until `given_up` says with which error the wait ends.
    /// Cancel-safe: nothing is held or waited for after a drop.
    ///
    /// # Errors
    /// EDEADLK where those who hold it wait for the caller; what `given_up` says; ENOTCONN at the end of the view;
    /// ENOLCK, EBADF.
    pub async fn lock_waiting(
        self: &Arc<Self>,
        caller: &Caller,
        request: &LockRequest,
        given_up: impl Future<Output = Error>,
    ) -> Result<()> {
        self.handles.file(request.handle)?;
        let wanted = request.lock(&caller.view);
        let (waiting, freed) = {
            let mut table = self.locks.table.lock();
            match table.try_lock(request.number, &wanted) {
                Err(Refused::Held) => {}
                other => return other.map_err(refusal),
            }
            let (ticket, freed) = table.wait(request.number, &wanted).map_err(refusal)?;
            (Waiting { locks: &self.locks, number: request.number, ticket }, freed)
        };
        let mut given_up = std::pin::pin!(given_up);
        loop {
            let told = freed.notified();
            let mut told = std::pin::pin!(told);
            // Told of what is given up from here on, so that nothing is missed between the look and the wait.
            told.as_mut().enable();
            let taken = {
                let mut table = self.locks.table.lock();
                if table.is_closed(wanted.owner.view) {
                    return Err(Error::new(libc::ENOTCONN, "the mount has ended"));
                }
                table.try_lock(request.number, &wanted)
            };
            if taken != Err(Refused::Held) {
                drop(waiting);
                return taken.map_err(refusal);
            }
            if let Either::Right((error, _)) = select(told, given_up.as_mut()).await {
                return Err(error);
            }
        }
    }

    /// F_UNLCK and LOCK_UN. What is not locked is no error.
    pub fn unlock(&self, caller: &Caller, number: InodeNumber, owner: u64, range: &RangeInclusive<u64>) {
        let owner = Owner { view: caller.view.id(), id: owner };
        self.locks.table.lock().unlock(number, owner, range);
    }

    /// F_GETLK: somebody's lock that is in the way of `request`.
    #[must_use]
    pub fn lock_in_the_way(&self, caller: &Caller, request: &LockRequest) -> Option<LockHolder> {
        let blocker = self.locks.table.lock().blocker(request.number, &request.lock(&caller.view));
        blocker.map(|lock| LockHolder { range: lock.range, exclusive: lock.exclusive, pid: lock.pid })
    }

    /// close(2) of any descriptor: the process loses all its fcntl(2) locks of the file (POSIX).
    pub fn unlock_all(&self, caller: &Caller, number: InodeNumber, owner: u64) {
        self.unlock(caller, number, owner, &EVERYTHING);
    }

    /// The last descriptor of an open file is gone, and its locks with it.
    pub fn unlock_handle(&self, number: InodeNumber, handle: HandleId) {
        self.locks.table.lock().close(number, handle);
    }

    /// Ends the waits of a view whose kernel is gone, and frees its locks.
    pub fn end_locks(&self, view: &View) {
        self.locks.table.lock().close_view(view.id());
    }
}

fn refusal(refused: Refused) -> Error {
    match refused {
        Refused::Held => Error::new(libc::EAGAIN, "another process holds the lock"),
        Refused::Deadlock => Error::new(libc::EDEADLK, "those who hold the lock wait for the caller"),
        Refused::TooMany => Error::new(libc::ENOLCK, "the file has too many locks"),
    }
}
