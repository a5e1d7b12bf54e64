//! One version of a blob on disk: a sparse file of its bytes, and beside it an index of what of them is there.
//!
//! ```text
//! NAME.data   the bytes, each at its own offset; exactly as long as the blob, so that it can be read as the blob
//! NAME.index  0     magic, length, salt, key, checksum of these
//!             3584  one word a piece: 0 = not there, else a checksum of the piece
//! ```
//!
//! Nothing is synced. A piece is believed only when its bytes match its word, and a version only when its header matches
//! its checksum and holds the very key that was asked for; so a process or a machine that ends at any point leaves at worst
//! pieces that are fetched again. The word of a piece depends on the version and on the piece's place (through the salt),
//! so bytes that a damaged file system shows elsewhere match nothing. Knows nothing of budgets and of who reads.

use std::{
    fs::{File, OpenOptions},
    hash::{BuildHasher, Hasher, RandomState},
    io,
    ops::Range,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crc64fast_nvme::Digest;
use sha2::{Digest as _, Sha256};

use crate::sync::{AtomicBool, Ordering};

use super::super::{block::PIECE_BYTES, registry::Key};

/// First bytes of an index; the last one counts formats. A file of another format is not believed, so it is replaced.
const MAGIC: [u8; 8] = *b"azblobc\x01";

/// Where the words begin. With it the index of a blob of up to 4 MiB is one page of the disk.
const WORDS_AT: u64 = 3584;

/// Magic, length, salt, length of the key.
const HEADER_BYTES: usize = 8 + 8 + 8 + 4;

/// Room for the key: the rest of the header but its checksum. Longer ones (a name of over a thousand letters that take three
/// bytes each) are not kept on disk.
const KEY_BYTES_MAX: usize = WORDS_AT as usize - HEADER_BYTES - 8;

/// Pieces read at once when a version is checked.
const VERIFY_PIECES: u64 = 8;

/// Words read at once when pieces are counted: 32 KiB.
const COUNT_PIECES: usize = 4096;

/// What files are made with: they hold what their readers' credentials protect.
const FILE_MODE: u32 = 0o600;

/// Name of a version's files: the hash of its key. Two keys with one hash are told apart by the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId(pub(super) [u8; 16]);

impl FileId {
    pub(super) fn of(key: &Key) -> Self {
        let digest = Sha256::digest(encode(key));
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }

    /// The id of an index file's path, when it is one.
    pub(super) fn from_path(path: &Path) -> Option<Self> {
        let mut text = path.parent()?.file_name()?.to_str()?.to_owned();
        text.push_str(path.file_stem()?.to_str()?);
        (text.len() == 32).then(|| u128::from_str_radix(&text, 16).ok())?.map(|id| Self(id.to_be_bytes()))
    }

    /// Path of its files below `root`, with this extension. 256 directories: few enough to make, and each short enough.
    pub(super) fn path(self, root: &Path, extension: &str) -> PathBuf {
        let text = format!("{:032x}", u128::from_be_bytes(self.0));
        root.join(&text[..2]).join(format!("{}.{extension}", &text[2..]))
    }

    /// Takes both files away, whatever is there of them.
    pub(super) fn remove(self, root: &Path) {
        // The index first: bytes without one are nothing.
        let _ = std::fs::remove_file(self.path(root, "index"));
        let _ = std::fs::remove_file(self.path(root, "data"));
    }
}

/// The text of a key. A control character separates, as within the realm: neither URL, scope nor ETag can hold it, and
/// the name, which can, stands last.
fn encode(key: &Key) -> Vec<u8> {
    format!("{}\u{1}{}\u{1}{}", key.realm, key.etag.0, key.name.as_str()).into_bytes()
}

/// The open files of one version.
#[derive(Debug)]
pub(super) struct VersionFile {
    data: File,
    index: File,
    length: u64,
    salt: u64,
    /// All of it was there and right. Pieces that are there are never written again.
    verified: AtomicBool,
    verifying: AtomicBool,
}

impl VersionFile {
    fn new(data: File, index: File, length: u64, salt: u64) -> Self {
        Self { data, index, length, salt, verified: AtomicBool::new(false), verifying: AtomicBool::new(false) }
    }

    /// Opens a version; `None` when it is not there, or what is there is not to be believed.
    ///
    /// # Errors
    /// What the disk says, but for files that are missing.
    pub(super) fn open(root: &Path, id: FileId, key: &Key, length: u64) -> io::Result<Option<Self>> {
        let (Some(index), Some(data)) =
            (open_existing(&id.path(root, "index"))?, open_existing(&id.path(root, "data"))?)
        else {
            return Ok(None);
        };
        let mut header = [0; WORDS_AT as usize];
        let filled = read_up_to(&index, &mut header, 0)?;
        let believed = data.metadata()?.len() == length;
        let salt = parse_header(&header[..filled])
            .filter(|(found, _, text)| believed && *found == length && *text == encode(key))
            .map(|(_, salt, _)| salt);
        Ok(salt.map(|salt| Self::new(data, index, length, salt)))
    }

    /// Makes the files of a version without a piece. `None` when its key is too long to be kept.
    ///
    /// # Errors
    /// What the disk says; nothing is left behind then that would be believed.
    pub(super) fn create(root: &Path, id: FileId, key: &Key, length: u64) -> io::Result<Option<Self>> {
        let text = encode(key);
        if text.len() > KEY_BYTES_MAX {
            return Ok(None);
        }
        id.remove(root);
        let path = id.path(root, "data");
        let data = match create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Not the root: it has a lock, which must be taken anew when it is gone.
                make_directory(path.parent().unwrap_or(root), false)?;
                create_new(&path)?
            }
            other => other?,
        };
        data.set_len(length)?;
        let index = create_new(&id.path(root, "index"))?;
        let salt = RandomState::new().build_hasher().finish();
        index.write_all_at(&header(length, salt, &text), 0)?;
        Ok(Some(Self::new(data, index, length, salt)))
    }

    /// The words of some pieces.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn words(&self, pieces: &Range<u64>) -> io::Result<Vec<u64>> {
        let mut bytes = vec![0; (pieces.end - pieces.start) as usize * 8];
        // Behind the end of the index nothing was ever written: no piece is there.
        read_up_to(&self.index, &mut bytes, WORDS_AT + pieces.start * 8)?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }

    /// Reads neighbouring pieces from `first` on, with the words that they must match, into `buffer`. Returns how many
    /// bytes are right: less than the buffer when a piece does not match.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn read(&self, first: u64, words: &[u64], buffer: &mut [u8]) -> io::Result<usize> {
        self.data.read_exact_at(buffer, first * PIECE_BYTES)?;
        let mut right = 0;
        for ((piece, bytes), word) in (first..).zip(buffer.chunks(PIECE_BYTES as usize)).zip(words) {
            if self.word(piece, bytes) != *word {
                break;
            }
            right += bytes.len();
        }
        Ok(right)
    }

    /// Writes whole pieces from `first` on (the last of the version may be short), leaving out those that are there.
    /// Returns the bytes that were added.
    ///
    /// # Errors
    /// What the disk says; pieces may have been written before that.
    pub(super) fn write(&self, first: u64, bytes: &[u8]) -> io::Result<u64> {
        let end = first + (bytes.len() as u64).div_ceil(PIECE_BYTES);
        let there = self.words(&(first..end))?;
        let mut added = 0;
        let mut at = 0;
        while at < there.len() {
            let run = there[at..].iter().take_while(|word| **word == 0).count();
            if run > 0 {
                let start = at * PIECE_BYTES as usize;
                let part = &bytes[start..bytes.len().min(start + run * PIECE_BYTES as usize)];
                let place = first + at as u64;
                // The bytes before their words: a process that ends in between leaves no piece.
                self.data.write_all_at(part, place * PIECE_BYTES)?;
                let pieces = (place..).zip(part.chunks(PIECE_BYTES as usize));
                let words: Vec<u8> = pieces.flat_map(|(piece, bytes)| self.word(piece, bytes).to_le_bytes()).collect();
                self.index.write_all_at(&words, WORDS_AT + place * 8)?;
                added += part.len() as u64;
            }
            at += run.max(1);
        }
        Ok(added)
    }

    /// Takes pieces back: their bytes are not right.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn forget(&self, pieces: &Range<u64>) -> io::Result<()> {
        let zeroes = vec![0; (pieces.end - pieces.start) as usize * 8];
        self.index.write_all_at(&zeroes, WORDS_AT + pieces.start * 8)
    }

    /// Makes it the version `to` of `length` bytes, of which `unchanged` are those of this one at equal offsets. The files
    /// keep their names: the caller moves them after that, and until then nobody finds them under either key.
    ///
    /// # Errors
    /// What the disk says: the files are of no use then.
    pub(super) fn become_version(&self, to: &Key, length: u64, unchanged: &[Range<u64>]) -> io::Result<()> {
        let text = encode(to);
        if text.len() > KEY_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut at = 0;
        for kept in whole_pieces(self.length.min(length), length, unchanged) {
            if at < kept.start {
                self.forget(&(at..kept.start))?;
            }
            at = kept.end;
        }
        let end = self.length.max(length).div_ceil(PIECE_BYTES);
        if at < end {
            self.forget(&(at..end))?;
        }
        self.data.set_len(length)?;
        self.index.write_all_at(&header(length, self.salt, &text), 0)
    }

    /// Checks that all of it is there and right. Otherwise says how many pieces are wrong, and takes back the first.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn verify(&self) -> io::Result<Option<u64>> {
        let pieces = self.length.div_ceil(PIECE_BYTES);
        let mut buffer = vec![0; (VERIFY_PIECES * PIECE_BYTES) as usize];
        for first in (0..pieces).step_by(VERIFY_PIECES as usize) {
            let end = pieces.min(first + VERIFY_PIECES);
            let words = self.words(&(first..end))?;
            if words.contains(&0) {
                return Ok(Some(0));
            }
            let bytes = (self.length - first * PIECE_BYTES).min(buffer.len() as u64) as usize;
            let right = self.read(first, &words, &mut buffer[..bytes])?;
            if right < bytes {
                let wrong = first + right as u64 / PIECE_BYTES;
                self.forget(&(wrong..wrong + 1))?;
                return Ok(Some(1));
            }
        }
        self.verified.store(true, Ordering::Release);
        Ok(None)
    }

    /// Bytes of the pieces that are there.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn kept_bytes(&self) -> io::Result<u64> {
        let pieces = self.length.div_ceil(PIECE_BYTES);
        let mut bytes = 0;
        for first in (0..pieces).step_by(COUNT_PIECES) {
            let words = self.words(&(first..pieces.min(first + COUNT_PIECES as u64)))?;
            let there = (first..).zip(words).filter(|(_, word)| *word != 0);
            bytes += there.map(|(piece, _)| PIECE_BYTES.min(self.length - piece * PIECE_BYTES)).sum::<u64>();
        }
        Ok(bytes)
    }

    /// Whether it was found to be whole and right.
    pub(super) fn is_verified(&self) -> bool {
        self.verified.load(Ordering::Acquire)
    }

    /// True for the first one who asks, who is to do it.
    pub(super) fn begin_verifying(&self) -> bool {
        !self.verifying.swap(true, Ordering::Relaxed)
    }

    /// Somebody else may do it.
    pub(super) fn end_verifying(&self) {
        self.verifying.store(false, Ordering::Relaxed);
    }

    /// The bytes as a file of their own, for who has seen that all of them are right.
    pub(super) fn data(&self) -> &File {
        &self.data
    }

    /// The index, whose modification time is when the version was last used.
    pub(super) fn index(&self) -> &File {
        &self.index
    }

    /// Bytes of the version.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The word of a piece, never 0.
    fn word(&self, piece: u64, bytes: &[u8]) -> u64 {
        let mut digest = Digest::new();
        digest.write(bytes);
        // Odd, so that neighbours differ in many bits (the golden ratio, as hash tables use it).
        let place = self.salt.wrapping_add(piece).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (digest.sum64() ^ place).max(1)
    }
}

/// Runs of pieces of a version of `length` bytes that lie wholly in one of `ranges`, as far as the first `common` bytes.
/// The last piece must be as long in both versions.
fn whole_pieces(common: u64, length: u64, ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        let end = range.end.min(common);
        let end = if end == length { end.div_ceil(PIECE_BYTES) } else { end / PIECE_BYTES };
        let pieces = range.start.div_ceil(PIECE_BYTES)..end;
        if pieces.start < pieces.end {
            sorted.push(pieces);
        }
    }
    sorted.sort_by_key(|pieces| pieces.start);
    sorted
}

/// A directory that only we may look into, with its parents where asked for.
pub(super) fn make_directory(path: &Path, parents: bool) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(parents).mode(0o700).create(path)
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)
}

fn open_existing(path: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Fills the front of `buffer` as far as the file goes, and returns how far.
fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn header(length: u64, salt: u64, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + key.len() + 8);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&salt.to_le_bytes());
    bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
    bytes.extend_from_slice(key);
    let mut digest = Digest::new();
    digest.write(&bytes);
    bytes.extend_from_slice(&digest.sum64().to_le_bytes());
    bytes
}

/// Length, salt and key of a header that is whole.
fn parse_header(bytes: &[u8]) -> Option<(u64, u64, &[u8])> {
    let word = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?));
    let key_length = u32::from_le_bytes(*bytes.get(24..)?.first_chunk::<4>()?) as usize;
    let end = HEADER_BYTES.checked_add(key_length).filter(|_| key_length <= KEY_BYTES_MAX)?;
    let key = bytes.get(HEADER_BYTES..end)?;
    let mut digest = Digest::new();
    digest.write(bytes.get(..end)?);
    (bytes.starts_with(&MAGIC) && word(end)? == digest.sum64()).then_some((word(8)?, word(16)?, key))
}
