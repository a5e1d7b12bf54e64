//! What the files of the jobs hold. Every byte follows from a file's name in the tables here, so that the service, the
//! mounts and the checks agree without handing bytes around. Knows nothing of mounts or of the service.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Bytes without a pattern, which every file is cut from. A multiple of nothing that a file system works with, so that a
/// block at a wrong place is never right by chance. Small enough that the processor does not spend a job's time waiting for
/// this memory twice.
const UNIT_BYTES: usize = (64 << 20) - 4099;
/// Distance of the places where two files begin in it: odd as well, for the same reason.
const STRIDE_BYTES: u64 = 1_048_573;

/// A file: its name in the container, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Name below the container.
    pub name: String,
    /// Which place of the unit it begins at.
    pub seed: u64,
    /// Its length.
    pub bytes: u64,
}

/// The bytes that all files are cut from.
pub struct Unit(Bytes);

impl Unit {
    /// Makes it: the same in every process.
    pub fn new() -> Self {
        let (mut state, mut bytes) = (0x9e37_79b9_7f4a_7c15_u64, Vec::with_capacity(UNIT_BYTES + 8));
        while bytes.len() < UNIT_BYTES {
            bytes.extend_from_slice(&next(&mut state).to_le_bytes());
        }
        bytes.truncate(UNIT_BYTES);
        Self(Bytes::from(bytes))
    }

    /// At most `most` bytes of a file from `at` on, in one piece; empty at its end. May be shorter where the unit ends.
    pub fn piece(&self, file: &File, at: u64, most: usize) -> Bytes {
        let left = file.bytes.saturating_sub(at).min(most as u64) as usize;
        let from = ((file.seed * STRIDE_BYTES + at) % UNIT_BYTES as u64) as usize;
        self.0.slice(from..(from + left).min(UNIT_BYTES))
    }

    /// The pieces of a range of a file, in order.
    pub fn pieces<'a>(&'a self, file: &'a File, at: u64, bytes: u64) -> impl Iterator<Item = Bytes> + 'a {
        let (mut at, end) = (at, (at + bytes).min(file.bytes));
        std::iter::from_fn(move || {
            let piece = self.piece(file, at, (end - at).min(UNIT_BYTES as u64) as usize);
            at += piece.len() as u64;
            (!piece.is_empty()).then_some(piece)
        })
    }

    /// Whether `bytes` are those of a file at `at`.
    pub fn agrees(&self, file: &File, at: u64, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        for piece in self.pieces(file, at, bytes.len() as u64) {
            let Some((head, tail)) = rest.split_at_checked(piece.len()) else { return false };
            if head != piece {
                return false;
            }
            rest = tail;
        }
        rest.is_empty()
    }

    /// All bytes of a small file.
    pub fn whole(&self, file: &File) -> Vec<u8> {
        self.pieces(file, 0, file.bytes).flat_map(Vec::from).collect()
    }
}

/// The next random number (xorshift64*).
pub fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// Small files of the jobs about names.
pub const SMALL_FILES: usize = 1000;
/// Bytes in each of them.
pub const SMALL_BYTES: u64 = 4096;
/// Entries of the directory that is listed.
pub const MANY_FILES: usize = 100_000;

/// [`SMALL_FILES`] files in a directory `prefix`, in the order of their names.
pub fn small(prefix: &str) -> Vec<File> {
    let file = |index| File { name: format!("{prefix}/file-{index:04}"), seed: index, bytes: SMALL_BYTES };
    (0..SMALL_FILES as u64).map(file).collect()
}

/// [`MANY_FILES`] files of 1 to 16 bytes in a directory `prefix`.
pub fn many(prefix: &str) -> Vec<File> {
    let file = |index| File { name: format!("{prefix}/entry-{index:06}.dat"), seed: index, bytes: 1 + index % 16 };
    (0..MANY_FILES as u64).map(file).collect()
}

/// A source tree: `files` files in `directories` directories, two levels of them, of 0.5 to 15.5 KiB: 8 KiB on average,
/// which is about the kernel's source.
pub fn tree(prefix: &str, files: usize, directories: usize) -> Vec<File> {
    // A directory in ten stands at the top, the others below one of those.
    let tops = directories.div_ceil(10);
    let directory = |index: usize| match index < tops {
        true => format!("{prefix}/top-{index:02}"),
        false => format!("{prefix}/top-{:02}/sub-{index:03}", index % tops),
    };
    let file = |index: usize| File {
        name: format!("{}/source-{index:04}.txt", directory(index % directories)),
        seed: index as u64,
        bytes: 512 + (index as u64 * 7919) % (15 << 10),
    };
    (0..files).map(file).collect()
}

/// Bytes of files together.
pub fn sum(files: &[File]) -> u64 {
    files.iter().map(|file| file.bytes).sum()
}

/// A large file of `bytes` bytes; `seed` tells it from others.
pub fn large(name: &str, seed: u64, bytes: u64) -> File {
    File { name: name.to_owned(), seed, bytes }
}
