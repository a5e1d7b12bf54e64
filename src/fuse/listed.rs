//! What readdir and readdirplus are answered: entries of a directory, with their attributes where they are asked for, and without a
//! request where the listing has those.

use std::ffi::OsStr;

use fuser::{Generation, INodeNo, ReplyDirectoryPlus};

use super::{
    adapter::ENTRIES_PER_REPLY,
    convert::{bare_attr, file_attr, number},
    name_copies::NameCopies,
};
use crate::{
    fs::{Caller, DirectoryEntry, Entry, FileSystem, HandleId, Result},
    sync::Arc,
};

/// A directory that is being read.
pub(super) struct Listed {
    pub(super) context: (Arc<FileSystem>, Caller),
    pub(super) copies: Arc<NameCopies>,
    pub(super) directory: INodeNo,
    pub(super) handle: HandleId,
}

impl Listed {
    /// Entries from `offset`, without attributes.
    pub(super) async fn names_from(&self, offset: u64) -> Result<Vec<DirectoryEntry>> {
        let fs = &self.context.0;
        let entries = fs.read_directory(self.handle, offset, ENTRIES_PER_REPLY).await?;
        if offset == 0 {
            self.copies.reads(self.directory, self.handle, fs.stamp_of_names(self.handle));
        }
        Ok(entries)
    }

    /// Entries from `offset`, with attributes for the first: where the listing has none, it is looked up. The others are
    /// looked up only as they are put into the reply, since every entry in a reply counts as a lookup.
    pub(super) async fn entries_from(&self, mut offset: u64) -> Result<Vec<(DirectoryEntry, Option<Entry>)>> {
        let (fs, caller) = &self.context;
        loop {
            let entries = self.names_from(offset).await?;
            let mut entries = entries.into_iter().map(|entry| (entry, None)).peekable();
            while let Some((first, found)) = entries.peek_mut() {
                if is_dot(&first.name) {
                    return Ok(entries.collect());
                }
                *found = match fs.enter_listed(caller, self.handle, first) {
                    Some(entry) => Some(entry),
                    None => fs.lookup(caller, number(self.directory), OsStr::new(first.name.as_ref())).await.ok(),
                };
                if found.is_some() {
                    return Ok(entries.collect());
                }
                // Gone since it was listed.
                offset = first.next_offset;
                entries.next();
                if entries.peek().is_none() {
                    break;
                }
            }
            if entries.peek().is_none() && fs.read_directory(self.handle, offset, 1).await?.is_empty() {
                return Ok(Vec::new());
            }
        }
    }

    pub(super) fn answer(&self, mut reply: ReplyDirectoryPlus, entries: Vec<(DirectoryEntry, Option<Entry>)>) {
        let (fs, caller) = &self.context;
        for (listed, found) in entries {
            let (ttl, attr, entered) = if is_dot(&listed.name) {
                // The kernel takes only name and number of these two, and counts no lookup.
                let (ttl, attr) = bare_attr(listed.number, listed.kind);
                (ttl, attr, None)
            } else {
                // What must be looked up at the service comes first in the next reply.
                let Some(entry) = found.or_else(|| fs.enter_listed(caller, self.handle, &listed)) else { break };
                (entry.ttl, file_attr(&entry.attr), Some(entry.attr.number))
            };
            if reply.add(attr.ino, listed.next_offset, listed.name.as_ref(), &ttl, &attr, Generation(0)) {
                if let Some(number) = entered {
                    fs.forget(&caller.view, number, 1);
                }
                break;
            }
        }
        reply.ok();
    }
}

fn is_dot(name: &str) -> bool {
    name == "." || name == ".."
}
