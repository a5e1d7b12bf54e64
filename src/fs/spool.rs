//! Dirty bytes on the node's disk, when there are more than memory may hold. A spool file has no name: it is gone with
//! its layer, or with the last process that has its descriptor. Knows nothing of inodes; positions are those of the file that is written.

use std::{
    fs::File,
    io::{self, IoSlice},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::Path,
};

use nix::sys::uio::pwritev;

use crate::sync::{Mutex, MutexGuard};

/// What O_DIRECT asks of addresses, positions and lengths on any disk that a node has.
const ALIGNMENT_BYTES: u64 = 4096;
/// Pieces of one system call (IOV_MAX of Linux).
const PIECES_MAX: usize = 1024;

/// Dirty bytes of one layer, sparse: each at its own position.
#[derive(Debug)]
pub struct SpoolFile {
    file: File,
    /// The same file past the page cache, where its file system can: these bytes are read again only after a failure, and
    /// pages for them were a fifth of the processor time of a large upload.
    direct: Option<File>,
    /// Held from the choice of what goes there until the layer knows that it is there: of two copies of the same
    /// stretch the newer one must be the last.
    turn: Mutex<()>,
}

impl SpoolFile {
    /// An empty one in `directory`.
    ///
    /// # Errors
    /// What the node's file system says.
    pub fn create(directory: &Path) -> io::Result<Self> {
        Ok(Self::from_fd(tempfile::tempfile_in(directory)?.into()))
    }

    /// The one that another process has left.
    #[must_use]
    pub fn from_fd(file: OwnedFd) -> Self {
        let file = File::from(file);
        let by_number = format!("/proc/self/fd/{}", file.as_raw_fd());
        let direct = File::options().write(true).custom_flags(libc::O_DIRECT).open(by_number).ok();
        Self { file, direct, turn: Mutex::new(()) }
    }

    /// Whether something is kept up to `end`.
    #[must_use]
    pub fn reaches(&self, end: u64) -> bool {
        self.file.metadata().is_ok_and(|found| found.len() >= end)
    }

    /// The right to keep bytes here.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// Keeps `pieces`, each with its position, in ascending order.
    ///
    /// # Errors
    /// ENOSPC above all; nothing is lost then, since the caller still has them.
    pub fn keep(&self, pieces: &[(u64, &[u8])]) -> io::Result<()> {
        let mut left = pieces;
        while let Some((position, first)) = left.first() {
            let run = run_length(left);
            let done = match &self.direct {
                Some(direct) if is_aligned(*position, first) => keep_run(direct, &left[..run]),
                _ => false,
            };
            if !done {
                left[..run].iter().try_for_each(|(position, bytes)| self.file.write_all_at(bytes, *position))?;
            }
            left = &left[run..];
        }
        Ok(())
    }

    /// Fills `target` with what was kept at `position`.
    ///
    /// # Errors
    /// What the node's disk says.
    pub fn fetch(&self, position: u64, target: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(target, position)
    }
}

impl AsFd for SpoolFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// How many pieces one call can write: they follow each other and all can go past the page cache, or there is one.
fn run_length(pieces: &[(u64, &[u8])]) -> usize {
    let follows = |pair: &&[(u64, &[u8])]| {
        let [(position, bytes), (next, following)] = pair else { return false };
        position + bytes.len() as u64 == *next && is_aligned(*position, bytes) && is_aligned(*next, following)
    };
    1 + pieces[..pieces.len().min(PIECES_MAX)].windows(2).take_while(follows).count()
}

fn is_aligned(position: u64, bytes: &[u8]) -> bool {
    [position, bytes.len() as u64, bytes.as_ptr() as u64].iter().all(|number| number % ALIGNMENT_BYTES == 0)
}

/// Whether all of a run was written. What was not is written through the page cache, which also says why it cannot be.
fn keep_run(direct: &File, run: &[(u64, &[u8])]) -> bool {
    let slices: Vec<IoSlice<'_>> = run.iter().map(|(_, bytes)| IoSlice::new(bytes)).collect();
    let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
    i64::try_from(run[0].0).is_ok_and(|position| pwritev(direct, &slices, position) == Ok(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages of memory, so that a piece can be aligned or not.
    #[repr(align(4096))]
    struct Pages([u8; 4 * 4096]);

    #[test]
    fn pieces_of_every_shape_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let spool = SpoolFile::create(directory.path()).unwrap();
        let mut pages = Pages([0; 4 * 4096]);
        pages.0.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at % 251) as u8);
        let bytes = &pages.0;
        let kept: [(u64, &[u8]); 6] = [
            (0, &bytes[..4096]),
            (4096, &bytes[4096..3 * 4096]),
            (12288, &bytes[..100]),
            (16384, &bytes[1..4097]),
            (40960, &bytes[8192..12288]),
            (45056, &bytes[12288..12290]),
        ];
        spool.keep(&kept).unwrap();
        for (position, piece) in kept {
            let mut found = vec![0; piece.len()];
            spool.fetch(position, &mut found).unwrap();
            assert!(found == piece, "at {position}");
        }
        spool.keep(&[(4096, &bytes[..4096])]).unwrap();
        let mut found = [0; 4096];
        spool.fetch(4096, &mut found).unwrap();
        assert!(found == bytes[..4096], "the newer bytes");
    }
}
