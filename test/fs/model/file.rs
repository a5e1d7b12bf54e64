//! What a program on one node believes of an inode, and what the container makes of it.

use std::collections::BTreeMap;

pub use crate::support::service::{Blob, Snapshot};

/// The bytes of all blobs, by name: what a step may change, but for ETags.
pub fn bytes_of(snapshot: &Snapshot) -> BTreeMap<&str, &[u8]> {
    snapshot.iter().map(|(name, blob)| (name.as_str(), blob.bytes.as_slice())).collect()
}

/// The version of a blob that a file was opened in, or became with its last commit.
#[derive(Clone, Debug)]
pub struct Version {
    pub etag: String,
    pub bytes: Vec<u8>,
}

/// Whether the container still holds the version that a file was made over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does (or holds nothing under the name of a new file).
    Current,
    /// It holds the same bytes under another ETag: adopting it is right, and so is ESTALE.
    SameBytes,
    /// It holds something else, or nothing.
    Gone,
}

/// One inode, seen from a program that has it open or has changed it.
#[derive(Clone, Debug)]
pub struct File {
    /// Every byte, as a read must answer it.
    pub content: Vec<u8>,
    /// What a commit goes over; `None` for a new file.
    pub base: Option<Version>,
    /// The name it has; `None` once it was removed or replaced on this node.
    pub path: Option<String>,
    /// Bytes that are not committed.
    pub dirty: bool,
    /// Attributes that are not committed.
    pub attributes_dirty: bool,
    /// Another client's version took the name: nothing of it can be saved any more.
    pub replaced: bool,
    pub writers: u32,
    pub handles: u32,
}

impl File {
    /// A new file, of which the container knows nothing.
    pub fn new(path: &str) -> Self {
        Self {
            content: Vec::new(),
            base: None,
            path: Some(path.to_owned()),
            dirty: true,
            attributes_dirty: false,
            replaced: false,
            writers: 0,
            handles: 0,
        }
    }

    /// A file in the version that the container holds.
    pub fn of(path: &str, blob: &Blob) -> Self {
        let base = Some(Version { etag: blob.etag.clone(), bytes: blob.bytes.clone() });
        Self { content: blob.bytes.clone(), base, dirty: false, ..Self::new(path) }
    }

    /// Whether the node must believe itself rather than the container.
    pub fn is_local(&self) -> bool {
        self.path.is_some() && !self.replaced && (self.dirty || self.attributes_dirty || self.writers > 0)
    }

    pub fn is_at(&self, path: &str) -> bool {
        self.path.as_deref() == Some(path) && !self.replaced
    }

    pub fn needs_commit(&self) -> bool {
        self.path.is_some() && (self.dirty || self.attributes_dirty)
    }

    /// How the container stands to the version below this file.
    pub fn standing(&self, snapshot: &Snapshot) -> Standing {
        let there = self.path.as_ref().and_then(|path| snapshot.get(path));
        match (&self.base, there) {
            (None, None) => Standing::Current,
            (Some(base), Some(blob)) if base.etag == blob.etag => Standing::Current,
            (Some(base), Some(blob)) if base.bytes == blob.bytes => Standing::SameBytes,
            _ => Standing::Gone,
        }
    }

    /// The container holds this file now, as a commit or a rename left it.
    pub fn committed(&mut self, snapshot: &Snapshot) {
        let Some(blob) = self.path.as_ref().and_then(|path| snapshot.get(path)) else { return };
        self.base = Some(Version { etag: blob.etag.clone(), bytes: blob.bytes.clone() });
        (self.dirty, self.attributes_dirty) = (false, false);
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let (start, end) = (offset as usize, offset as usize + data.len());
        self.content.resize(self.content.len().max(end), 0);
        self.content[start..end].copy_from_slice(data);
        self.dirty = true;
    }

    pub fn cut(&mut self, size: u64) {
        let size = size as usize;
        self.dirty |= self.content.len() != size;
        self.attributes_dirty = true;
        self.content.resize(size, 0);
    }

    pub fn slice(&self, offset: u64, length: usize) -> &[u8] {
        let start = (offset as usize).min(self.content.len());
        &self.content[start..(start + length).min(self.content.len())]
    }
}
