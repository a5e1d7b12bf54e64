//! How much waits for the service, in figures and in the log.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    super::{Error, FileSystem, inode::Inode},
    Behind,
};
use crate::sync::Ordering;

/// How often the log says that something waits: what fails once fails for each file.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// What a volume with write-behind owes to the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Debts {
    /// Files and directories that it must still get.
    pub files: usize,
    /// Bytes of memory that these hold.
    pub bytes: u64,
    /// Names that it must still lose.
    pub removals: usize,
    /// How long the oldest of them all waits; zero where there is none.
    pub oldest: Duration,
}

impl Debts {
    /// Of either sort.
    #[must_use]
    pub fn count(&self) -> usize {
        self.files + self.removals
    }
}

impl Behind {
    fn debts(&self) -> Debts {
        let (files, oldest) = {
            let owed = self.owed.lock();
            (owed.len(), owed.values().map(|(_, since)| *since).min())
        };
        let removals = self.removals.all();
        let oldest = removals.iter().map(|removal| removal.since).chain(oldest).min();
        Debts {
            files,
            bytes: self.owed_bytes.load(Ordering::Relaxed),
            removals: removals.len(),
            oldest: oldest.map_or(Duration::ZERO, |since| since.elapsed()),
        }
    }

    /// All files and directories that are owed.
    pub(super) fn files(&self) -> Vec<Arc<Inode>> {
        self.owed.lock().values().map(|(inode, _)| Arc::clone(inode)).collect()
    }

    /// Something could not be sent and is tried again: says so, and how much waits, once in a while.
    pub(super) fn report(&self, blob: &str, error: &Error) {
        let is_due = {
            let mut reported = self.reported.lock();
            let is_due = reported.is_none_or(|last| last.elapsed() >= REPORT_EVERY);
            if is_due {
                *reported = Some(Instant::now());
            }
            is_due
        };
        if !is_due {
            return tracing::debug!(blob, "in the journal, and tried again later: {}", error.to_chain());
        }
        let Debts { files, bytes, removals, oldest } = self.debts();
        let oldest_seconds = oldest.as_secs();
        let why = error.to_chain();
        tracing::warn!(
            files,
            bytes,
            removals,
            oldest_seconds,
            blob,
            "in the journal until the service takes it: {why}"
        );
    }
}

impl FileSystem {
    /// What the service must still get and lose, for metrics.
    #[must_use]
    pub fn debts(&self) -> Debts {
        self.behind.as_ref().map_or_else(Debts::default, Behind::debts)
    }
}
