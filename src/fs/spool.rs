//! Dirty bytes on the node's disk, when there are more than memory may hold. A spool file has no name: it is gone with
//! its layer, or with the process. Knows nothing of inodes; positions are those of the file that is written.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

/// Dirty bytes of one layer, sparse: each at its own position.
#[derive(Debug)]
pub struct SpoolFile {
    file: File,
}

impl SpoolFile {
    /// An empty one in `directory`.
    ///
    /// # Errors
    /// What the node's file system says.
    pub fn create(directory: &Path) -> io::Result<Self> {
        tempfile::tempfile_in(directory).map(|file| Self { file })
    }

    /// Keeps `bytes` of `position`.
    ///
    /// # Errors
    /// ENOSPC above all; nothing is lost then, since the caller still has them.
    pub fn keep(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, position)
    }

    /// Fills `target` with what was kept at `position`.
    ///
    /// # Errors
    /// What the node's disk says.
    pub fn fetch(&self, position: u64, target: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(target, position)
    }
}
