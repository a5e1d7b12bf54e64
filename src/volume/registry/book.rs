//! Records of volumes where the next process finds them: written before the answer to the call that changes one.

use std::{collections::HashMap, fmt};

use parking_lot::Mutex;

use super::record::VolumeRecord;
use crate::ledger::{Contents, Ledger, Section};

/// Where a book's rows are in a ledger.
const VOLUMES: Section = Section(1);

/// What outlives the process: bytes under numbers.
pub trait Rows: fmt::Debug + Send + Sync {
    /// Puts `row` under `key`, in place of what is there.
    fn put(&self, key: u64, row: &[u8]);

    /// Takes away what is under `key`.
    fn remove(&self, key: u64);
}

impl Rows for Ledger {
    fn put(&self, key: u64, row: &[u8]) {
        Self::put(self, VOLUMES, key, row);
    }

    fn remove(&self, key: u64) {
        Self::remove(self, VOLUMES, key);
    }
}

/// A record for each volume of this process.
#[derive(Debug)]
pub struct Book {
    rows: Box<dyn Rows>,
    /// Under which numbers volumes are. Held while a row is written, so that rows of one volume come in the order of its changes.
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    by_id: HashMap<String, u64>,
    next: u64,
}

impl Book {
    /// An empty one.
    #[must_use]
    pub fn new(rows: Box<dyn Rows>) -> Self {
        Self { rows, keys: Mutex::default() }
    }

    /// Goes on with the one that an earlier process wrote into `ledger`, and what it says. A record that cannot be read is taken
    /// out: its volume is mounted anew.
    #[must_use]
    pub fn resumed(ledger: Ledger, contents: &Contents) -> (Self, Vec<VolumeRecord>) {
        let (mut keys, mut records) = (Keys::default(), Vec::new());
        for ((section, key), row) in contents {
            if *section != VOLUMES {
                continue;
            }
            keys.next = keys.next.max(key.saturating_add(1));
            match VolumeRecord::read(row) {
                Ok(record) if !keys.by_id.contains_key(&record.id) => {
                    keys.by_id.insert(record.id.clone(), *key);
                    records.push(record);
                }
                read => {
                    let reason = read.err().unwrap_or_else(|| "the volume is there twice".to_owned());
                    tracing::error!("what an earlier process wrote of a volume is not used: {reason}");
                    Rows::remove(&ledger, *key);
                }
            }
        }
        (Self { rows: Box::new(ledger), keys: Mutex::new(keys) }, records)
    }

    /// Writes what is to be known of a volume from now on.
    pub fn note(&self, record: &VolumeRecord) {
        let mut keys = self.keys.lock();
        let key = match keys.by_id.get(&record.id) {
            Some(key) => *key,
            None => {
                let key = keys.next;
                keys.next += 1;
                keys.by_id.insert(record.id.clone(), key);
                key
            }
        };
        self.rows.put(key, &record.written());
    }

    /// The volume is no more.
    pub fn forget(&self, id: &str) {
        let mut keys = self.keys.lock();
        if let Some(key) = keys.by_id.remove(id) {
            self.rows.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    fn record(id: &str, capacity: u64) -> VolumeRecord {
        VolumeRecord { id: id.to_owned(), location: "l".to_owned(), capacity, ..VolumeRecord::default() }
    }

    fn reopened(ledger: &Ledger) -> (Book, Vec<(String, u64)>) {
        let file = ledger.as_fd().try_clone_to_owned().unwrap();
        let (ledger, contents, _) = Ledger::open(file).unwrap();
        let (book, records) = Book::resumed(ledger, &contents);
        (book, records.into_iter().map(|record| (record.id, record.capacity)).collect())
    }

    fn owned(volumes: &[(&str, u64)]) -> Vec<(String, u64)> {
        volumes.iter().map(|(id, capacity)| ((*id).to_owned(), *capacity)).collect()
    }

    #[test]
    fn the_next_process_reads_what_was_noted_last_and_goes_on() {
        let ledger = Ledger::create(1).unwrap();
        let (book, records) = reopened(&ledger);
        assert!(records.is_empty());
        book.note(&record("a", 1));
        book.note(&record("b", 1));
        book.note(&record("a", 2));
        book.note(&record("gone", 1));
        book.forget("gone");
        book.forget("never there");
        let (book, records) = reopened(&ledger);
        assert_eq!(records, owned(&[("a", 2), ("b", 1)]));
        // Numbers are not given twice.
        book.note(&record("c", 3));
        book.note(&record("b", 4));
        assert_eq!(reopened(&ledger).1, owned(&[("a", 2), ("b", 4), ("c", 3)]));
    }

    #[test]
    fn a_row_that_is_no_record_or_of_something_else_is_left_aside() {
        let ledger = Ledger::create(1).unwrap();
        ledger.put(VOLUMES, 7, b"\xff\xff");
        ledger.put(Section(9), 7, &record("other", 1).written());
        ledger.put(VOLUMES, 8, &record("a", 1).written());
        ledger.put(VOLUMES, 9, &record("a", 2).written());
        let (book, records) = reopened(&ledger);
        assert_eq!(records, owned(&[("a", 1)]));
        book.note(&record("b", 1));
        assert_eq!(reopened(&ledger).1, owned(&[("a", 1), ("b", 1)]), "nothing is in the way of what comes");
    }
}
