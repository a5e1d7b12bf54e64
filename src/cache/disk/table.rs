//! What is on disk, in a few words a version: how many bytes, and when it was used last. Knows nothing of files.

use std::collections::HashMap;

use super::file::FileId;

/// Seconds between two writes of a version's time of use to the disk: after a restart the order of eviction is right to
/// within that, and a version that is read all the time costs one write in ten minutes.
const SAVE_SECONDS: u32 = 600;

/// One version.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Bytes on disk, index included.
    bytes: u64,
    /// When it was used last, in seconds since the epoch.
    used: u32,
    /// What of that is on disk.
    saved: u32,
}

/// The versions on disk.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<FileId, Entry>,
    bytes: u64,
}

impl Table {
    pub(super) fn contains(&self, id: FileId) -> bool {
        self.entries.contains_key(&id)
    }

    /// Number of versions.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all versions.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of one version.
    pub(super) fn bytes_of(&self, id: FileId) -> u64 {
        self.entries.get(&id).map_or(0, |entry| entry.bytes)
    }

    /// A version found on disk; what we know of it by now counts more.
    pub(super) fn found(&mut self, id: FileId, bytes: u64, used: u32) {
        if let std::collections::hash_map::Entry::Vacant(vacant) = self.entries.entry(id) {
            vacant.insert(Entry { bytes, used, saved: used });
            self.bytes += bytes;
        }
    }

    /// Bytes were added to a version, which may be new.
    pub(super) fn add(&mut self, id: FileId, bytes: u64, now: u32) {
        // Writing moves the time of the file by itself.
        let entry = self.entries.entry(id).or_default();
        entry.bytes += bytes;
        (entry.used, entry.saved) = (now, now);
        self.bytes += bytes;
    }

    /// A version was read. True when that is to be written down.
    pub(super) fn touch(&mut self, id: FileId, now: u32) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        entry.used = now;
        let save = now.saturating_sub(entry.saved) >= SAVE_SECONDS;
        if save {
            entry.saved = now;
        }
        save
    }

    /// A version is gone. Returns its bytes.
    pub(super) fn remove(&mut self, id: FileId) -> u64 {
        let bytes = self.entries.remove(&id).map_or(0, |entry| entry.bytes);
        self.bytes -= bytes;
        bytes
    }

    /// The versions used longest ago that have `bytes` together, and so many of them that at most `count` are left. Never
    /// `spared`.
    pub(super) fn victims(&self, bytes: u64, count: usize, spared: Option<FileId>) -> Vec<FileId> {
        let mut order: Vec<(u32, FileId, u64)> = self
            .entries
            .iter()
            .filter(|(id, _)| Some(**id) != spared)
            .map(|(id, entry)| (entry.used, *id, entry.bytes))
            .collect();
        order.sort_unstable_by_key(|(used, id, _)| (*used, id.0));
        let mut freed = 0;
        let mut left = self.entries.len();
        let wanted = |(_, id, size): (u32, FileId, u64)| {
            let more = freed < bytes || left > count;
            freed += size;
            left -= 1;
            more.then_some(id)
        };
        order.into_iter().map_while(wanted).collect()
    }
}
