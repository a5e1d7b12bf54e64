//! The keeper as this process knows it: whether there is one, so that mounts which are made now outlive the process, and what the
//! process before this one wrote down of its volumes.
//!
//! A plugin works without a keeper, and one that comes late is found: only mounts that are made from then on are held by it. The
//! group that is claimed here is the process's own, and stands for there being one such process; each volume has a group of its own.
//! The process's group has one item: the memory file with the [`Book`] of volumes.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use parking_lot::Mutex;

use super::registry::{
    Book,
    record::{FORMAT, VolumeRecord},
};
use crate::{
    keeper::{self, Claim, Item},
    ledger::{self, Ledger},
    telemetry::chain,
};

/// The item with the book.
const BOOK_KEY: &str = "volumes";

/// For a process of the same group that is about to end: it has closed its sockets before.
const BUSY_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks for a keeper that is not there.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What is known of the keeper at one socket.
#[derive(Debug)]
pub struct Keeping {
    socket: PathBuf,
    group: String,
    /// Once the keeper has been there. What happens to it from then on, the claim knows.
    claim: Mutex<Option<Claim>>,
    /// `None` where the kernel gives no memory file.
    book: Option<Written>,
    /// What an earlier process wrote, until somebody takes it.
    records: Mutex<Vec<VolumeRecord>>,
}

/// A book, and the memory file below it.
#[derive(Debug)]
struct Written {
    book: Book,
    file: OwnedFd,
}

impl Keeping {
    /// Claims `group` of the keeper at `socket`, and takes what an earlier process of the group wrote there. Where no keeper answers,
    /// that is said, and it is looked for until this is gone. Blocks for as long as an earlier process takes to end, and never for
    /// an absent keeper.
    #[must_use]
    pub fn begin(socket: &Path, group: &str) -> Arc<Self> {
        let (claim, items, error) = match Claim::new(socket, group, BUSY_PATIENCE) {
            Ok((claim, items)) => (Some(claim), items, None),
            Err(error) => (None, Vec::new(), Some(error)),
        };
        let (book, records) = opened(&items);
        let (socket, group) = (socket.to_owned(), group.to_owned());
        let records = Mutex::new(records);
        let keeping = Arc::new(Self { socket, group, claim: Mutex::default(), book, records });
        if let Some(claim) = claim {
            keeping.give(claim);
        }
        if let Some(error) = error {
            tracing::warn!(
                "mounts are not held: {}. Until it is there, a restart of this process ends the mounts of running pods (drain the \
                 node first); it is looked for again",
                chain(&error)
            );
            let looking = Arc::downgrade(&keeping);
            let started = thread::Builder::new().name("keeper".to_owned()).spawn(move || look_again(&looking));
            if let Err(error) = started {
                tracing::warn!(%error, "the keeper is not looked for again");
            }
        }
        keeping
    }

    /// Where it is written down what the next process has to know of volumes.
    #[must_use]
    pub fn book(&self) -> Option<&Book> {
        self.book.as_ref().map(|written| &written.book)
    }

    /// What an earlier process wrote of its volumes. Nothing, from the second call on.
    #[must_use]
    pub fn take_records(&self) -> Vec<VolumeRecord> {
        std::mem::take(&mut *self.records.lock())
    }

    /// Whether a keeper is there now.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.claim.lock().as_ref().is_some_and(Claim::is_held)
    }

    /// Where mounts that are made now are given to a keeper; `None` while there is none.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.is_held().then_some(self.socket.as_path())
    }

    fn look(&self) -> Result<(), keeper::Error> {
        // What it holds of a process before this one is of no use any more: all that was mounted has been looked at.
        let (claim, _items) = Claim::new(&self.socket, &self.group, Duration::ZERO)?;
        self.give(claim);
        Ok(())
    }

    /// Has the keeper hold the book.
    fn give(&self, claim: Claim) {
        if let Some(file) = self.book.as_ref().and_then(|written| written.file.try_clone().ok()) {
            let item = Item { key: BOOK_KEY.to_owned(), note: Vec::new(), descriptors: Arc::new(vec![file]) };
            if let Err(error) = claim.keep(item) {
                tracing::error!("the next process cannot go on with the mounts of this one: {}", chain(&error));
            }
        }
        tracing::info!(socket = %self.socket.display(), "a keeper holds what is mounted from now on");
        *self.claim.lock() = Some(claim);
    }
}

/// The book among `items`, gone on with; else a new one.
fn opened(items: &[Item]) -> (Option<Written>, Vec<VolumeRecord>) {
    let file = items.iter().find(|item| item.key == BOOK_KEY).and_then(|item| item.descriptors.first());
    let before = file.map(|file| file.try_clone().map_err(ledger::Error::Memory).and_then(resumed));
    let opened = match before {
        Some(Ok(opened)) => Ok(opened),
        Some(Err(error)) => {
            tracing::error!("what an earlier process had mounted is mounted anew: {}", chain(&error));
            created()
        }
        None => created(),
    };
    match opened {
        Ok((written, records)) => (Some(written), records),
        Err(error) => {
            tracing::error!("the next process cannot go on with the mounts of this one: {}", chain(&error));
            (None, Vec::new())
        }
    }
}

fn resumed(file: OwnedFd) -> Result<(Written, Vec<VolumeRecord>), ledger::Error> {
    let (ledger, contents, format) = Ledger::open(file)?;
    if format > FORMAT {
        return Err(ledger::Error::Unreadable(format!("it is of version {format}, and {FORMAT} is the newest known")));
    }
    let file = ledger.as_fd().try_clone_to_owned().map_err(ledger::Error::Memory)?;
    let (book, records) = Book::resumed(ledger, &contents);
    Ok((Written { book, file }, records))
}

fn created() -> Result<(Written, Vec<VolumeRecord>), ledger::Error> {
    let ledger = Ledger::create(FORMAT)?;
    let file = ledger.as_fd().try_clone_to_owned().map_err(ledger::Error::Memory)?;
    Ok((Written { book: Book::new(Box::new(ledger)), file }, Vec::new()))
}

/// Looks for the keeper until it is there, or nobody wants it any more.
fn look_again(keeping: &Weak<Keeping>) {
    loop {
        thread::sleep(LOOK_INTERVAL);
        let Some(keeping) = keeping.upgrade() else { return };
        match keeping.look() {
            Ok(()) => return,
            Err(error) => tracing::debug!("still no keeper: {}", chain(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::keeper::{Keeper, Settings};

    const WITHIN: Duration = Duration::from_secs(60);

    fn until(condition: impl Fn() -> bool) {
        let end = Instant::now() + WITHIN;
        while !condition() {
            assert!(Instant::now() < end);
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn keep(socket: &Path) {
        let keeper = Keeper::listen(Settings { socket: socket.to_owned(), abandon_age: WITHIN }).unwrap();
        thread::spawn(move || keeper.serve());
    }

    fn record(id: &str) -> VolumeRecord {
        VolumeRecord { id: id.to_owned(), location: "l".to_owned(), ..VolumeRecord::default() }
    }

    fn ids(keeping: &Keeping) -> Vec<String> {
        keeping.take_records().into_iter().map(|record| record.id).collect()
    }

    #[test]
    fn what_one_process_wrote_of_its_volumes_the_next_reads() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("keeper.sock");
        keep(&socket);
        let first = Keeping::begin(&socket, "plugin");
        assert!(ids(&first).is_empty());
        first.book().unwrap().note(&record("a"));
        drop(first);
        let second = Keeping::begin(&socket, "plugin");
        assert_eq!(ids(&second), ["a"]);
        assert!(ids(&second).is_empty(), "it is taken once");
        second.book().unwrap().note(&record("b"));
        drop(second);
        assert_eq!(ids(&Keeping::begin(&socket, "plugin")), ["a", "b"]);
    }

    #[test]
    fn what_a_later_version_wrote_is_left_aside() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("keeper.sock");
        keep(&socket);
        let (claim, _) = Claim::new(&socket, "plugin", Duration::ZERO).unwrap();
        let file = Ledger::create(FORMAT + 1).unwrap().as_fd().try_clone_to_owned().unwrap();
        claim.keep(Item { key: BOOK_KEY.to_owned(), note: Vec::new(), descriptors: Arc::new(vec![file]) }).unwrap();
        drop(claim);
        let keeping = Keeping::begin(&socket, "plugin");
        assert!(ids(&keeping).is_empty() && keeping.is_held());
        keeping.book().unwrap().note(&record("a"));
        drop(keeping);
        assert_eq!(ids(&Keeping::begin(&socket, "plugin")), ["a"], "and is replaced");
    }

    #[test]
    fn a_keeper_that_comes_late_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("keeper.sock");
        let keeping = Keeping::begin(&socket, "plugin");
        assert!(!keeping.is_held() && keeping.socket().is_none());
        keeping.book().unwrap().note(&record("a"));
        keep(&socket);
        until(|| keeping.is_held());
        assert_eq!(keeping.socket(), Some(socket.as_path()));
        // There is one such process.
        assert!(Claim::new(&socket, "plugin", Duration::ZERO).is_err());
        drop(keeping);
        assert_eq!(ids(&Keeping::begin(&socket, "plugin")), ["a"]);
    }
}
