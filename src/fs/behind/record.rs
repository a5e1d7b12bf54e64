//! What a journal says, and how it is framed on the disk. Pure: knows neither files nor the service.
//!
//! A frame is magic, length of the entry, length of the bytes behind it, CRC64 of all that, then the entry as JSON, then
//! the bytes of a file where the entry is a [`Entry::Put`]. All numbers are little-endian. A frame that is not whole ends
//! the journal: it is what was being written when the machine stopped.

use std::{collections::BTreeMap, io};

use crc64fast_nvme::Digest;
use serde::{Deserialize, Serialize};

use crate::blob::{self, BlobProperties, Condition, ContentHeaders, WriteOptions};

const MAGIC: [u8; 4] = *b"azbj";
/// Magic, two lengths and the checksum.
const HEAD_BYTES: usize = 4 + 4 + 8 + 8;
/// An entry is metadata (8 KiB at most, and as much again for escapes) and names.
const ENTRY_BYTES_MAX: u32 = 1 << 20;

/// What the service must have under a name for a change to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Expected {
    /// Nothing.
    Absent,
    /// This version (its ETag).
    Version(String),
}

impl Expected {
    /// What a request's condition asks for; `None` for one that no commit has.
    pub(super) fn of(condition: &Condition) -> Option<Self> {
        match condition {
            Condition::Absent => Some(Self::Absent),
            Condition::Match(etag) => Some(Self::Version(etag.0.to_string())),
            Condition::None | Condition::NotMatch(_) => None,
        }
    }

    /// Whether this is what was found.
    pub(super) fn is_met(&self, found: Option<&BlobProperties>) -> bool {
        match (self, found) {
            (Self::Absent, None) => true,
            (Self::Version(etag), Some(found)) => *found.etag.0 == **etag,
            _ => false,
        }
    }
}

/// A whole file as it was closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Put {
    /// Counts the unsaved states of one name: later records of a chain replace earlier ones.
    pub(super) chain: u64,
    /// The blob, below the container.
    pub(super) blob: String,
    pub(super) expected: Expected,
    pub(super) metadata: blob::Metadata,
    /// Content headers, by their HTTP names.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) access_tier: Option<String>,
    /// Of the bytes, as Content-MD5 has it.
    pub(super) md5: [u8; 16],
    /// Of the bytes.
    pub(super) length: u64,
}

impl Put {
    /// Whether the version found is the one that sending this made. The times in its metadata are exact to the
    /// nanosecond; the MD5 is missing where it was sent as blocks.
    pub(super) fn made(&self, found: &BlobProperties) -> bool {
        found.length == self.length
            && found.metadata == self.metadata
            && found.content_md5.is_none_or(|md5| md5 == self.md5)
    }

    /// What is written beside the bytes.
    pub(super) fn options(&self, condition: Condition) -> WriteOptions {
        let header = |name: &str| self.headers.get(name).cloned();
        WriteOptions {
            condition,
            metadata: self.metadata.clone(),
            headers: ContentHeaders {
                content_type: header("content-type"),
                content_encoding: header("content-encoding"),
                content_language: header("content-language"),
                content_disposition: header("content-disposition"),
                cache_control: header("cache-control"),
                tags: None,
            },
            access_tier: self.access_tier.clone(),
        }
    }
}

/// Content headers by their HTTP names.
pub(super) fn headers_of(headers: &ContentHeaders) -> BTreeMap<String, String> {
    let all = [
        ("content-type", &headers.content_type),
        ("content-encoding", &headers.content_encoding),
        ("content-language", &headers.content_language),
        ("content-disposition", &headers.content_disposition),
        ("cache-control", &headers.cache_control),
    ];
    all.into_iter().filter_map(|(name, value)| value.clone().map(|value| (name.to_owned(), value))).collect()
}

/// One entry of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(super) enum Entry {
    /// The first of a segment: whose it is.
    Volume { version: u32, identity: String, prefix: String },
    /// A file that was closed; its bytes follow.
    Put(Put),
    /// A file of the journal got another name: `put` is what is owed from now on, with the bytes that its chain has. Of the
    /// chain `ends`, which had that name, nothing is owed any more.
    Moved { put: Put, ends: Option<u64> },
    /// This version of a blob is to be deleted, whatever the chain was before.
    Removed { chain: u64, blob: String, etag: String },
    /// Nothing is owed of the chain any more: it was saved, set aside or removed.
    Done { chain: u64 },
}

/// The frame of an entry, without the bytes that follow it; `body_crc` continues the checksum over those.
pub(super) fn frame<'a>(entry: &Entry, body: impl Iterator<Item = &'a [u8]> + Clone) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(entry)?;
    let length: u64 = body.clone().map(|piece| piece.len() as u64).sum();
    let entry_length = u32::try_from(text.len()).ok().filter(|length| *length <= ENTRY_BYTES_MAX);
    let entry_length = entry_length.ok_or_else(|| io::Error::other("an entry of the journal is too long"))?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + text.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&entry_length.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    let mut digest = Digest::new();
    digest.write(&bytes);
    digest.write(&text);
    body.for_each(|piece| digest.write(piece));
    bytes.extend_from_slice(&digest.sum64().to_le_bytes());
    bytes.extend_from_slice(&text);
    Ok(bytes)
}

/// What a reader found at the end of the whole frames.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Where they end, in bytes.
    pub(super) whole_bytes: u64,
    /// Whether there is something behind them: a torn frame.
    pub(super) is_torn: bool,
}

/// Reads frame after frame, and tells each entry with the place of its bytes: offset and length.
///
/// # Errors
/// What the disk says; a frame that is not whole is no error but the end.
pub(super) fn read_frames(
    mut source: impl io::Read,
    mut tell: impl FnMut(Entry, std::ops::Range<u64>),
) -> io::Result<End> {
    let mut position = 0;
    loop {
        let mut head = [0; HEAD_BYTES];
        let count = fill(&mut source, &mut head)?;
        let torn = Ok(End { whole_bytes: position, is_torn: count > 0 });
        if count < HEAD_BYTES || head[..4] != MAGIC {
            return torn;
        }
        let (Ok(entry_length), Ok(length), Ok(sum)) =
            (head[4..8].try_into(), head[8..16].try_into(), head[16..24].try_into())
        else {
            return torn;
        };
        let (entry_length, length) = (u32::from_le_bytes(entry_length), u64::from_le_bytes(length));
        if entry_length > ENTRY_BYTES_MAX {
            return torn;
        }
        let mut digest = Digest::new();
        digest.write(&head[..16]);
        let mut text = vec![0; entry_length as usize];
        if fill(&mut source, &mut text)? < text.len() {
            return torn;
        }
        digest.write(&text);
        if !digest_body(&mut source, length, &mut digest)? || digest.sum64() != u64::from_le_bytes(sum) {
            return torn;
        }
        let Ok(entry) = serde_json::from_slice(&text) else { return torn };
        let start = position + HEAD_BYTES as u64 + u64::from(entry_length);
        position = start + length;
        tell(entry, start..position);
    }
}

/// Adds `length` bytes to `digest`; `false` when there are fewer.
fn digest_body(source: &mut impl io::Read, length: u64, digest: &mut Digest) -> io::Result<bool> {
    let mut buffer = vec![0; 64 << 10];
    let mut left = length;
    while left > 0 {
        let part = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if fill(source, &mut buffer[..part])? < part {
            return Ok(false);
        }
        digest.write(&buffer[..part]);
        left -= part as u64;
    }
    Ok(true)
}

/// Reads until `target` is full or nothing is left; returns how many bytes there were.
fn fill(source: &mut impl io::Read, target: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < target.len() {
        match source.read(&mut target[count..]) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(chain: u64) -> Entry {
        Entry::Put(Put {
            chain,
            blob: "dir/ä".to_owned(),
            expected: Expected::Version("\"0x1\"".to_owned()),
            metadata: [("modtime".to_owned(), "1".to_owned())].into(),
            headers: [("content-type".to_owned(), "text/plain".to_owned())].into(),
            access_tier: None,
            md5: [7; 16],
            length: 5,
        })
    }

    fn journal() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (entry, body) in [(put(1), &b"first"[..]), (Entry::Done { chain: 1 }, b""), (put(2), b"other")] {
            bytes.extend(frame(&entry, [&body[..body.len() / 2], &body[body.len() / 2..]].into_iter()).unwrap());
            bytes.extend_from_slice(body);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> (Vec<(Entry, Vec<u8>)>, End) {
        let mut found = Vec::new();
        let end = read_frames(bytes, |entry, place| {
            found.push((entry, bytes[place.start as usize..place.end as usize].to_vec()));
        });
        (found, end.unwrap())
    }

    #[test]
    fn names_that_changed_are_read_again() {
        let Entry::Put(put) = put(1) else { panic!("not a put") };
        let moved = Entry::Moved { put, ends: Some(7) };
        let removed = Entry::Removed { chain: 2, blob: "dir/ä".to_owned(), etag: "\"0x1\"".to_owned() };
        for entry in [moved, removed] {
            let bytes = frame(&entry, std::iter::empty()).unwrap();
            assert_eq!(read(&bytes).0, [(entry, Vec::new())]);
        }
    }

    #[test]
    fn what_was_framed_is_read_again() {
        let bytes = journal();
        let (found, end) = read(&bytes);
        let expected =
            [(put(1), b"first".to_vec()), (Entry::Done { chain: 1 }, Vec::new()), (put(2), b"other".to_vec())];
        assert_eq!(found, expected);
        assert_eq!(end, End { whole_bytes: bytes.len() as u64, is_torn: false });
    }

    #[test]
    fn a_journal_cut_anywhere_keeps_its_whole_frames_and_nothing_else() {
        let bytes = journal();
        let (all, _) = read(&bytes);
        for length in 0..bytes.len() {
            let (found, end) = read(&bytes[..length]);
            assert_eq!(found, all[..found.len()], "cut at {length}");
            assert_eq!(end.is_torn, end.whole_bytes < length as u64, "cut at {length}");
        }
    }

    #[test]
    fn a_byte_that_changed_on_the_disk_ends_the_journal_before_its_frame() {
        let bytes = journal();
        let (all, _) = read(&bytes);
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x10;
            let (found, end) = read(&damaged);
            assert!(found.len() < all.len() && end.is_torn, "byte {position}");
            assert_eq!(found, all[..found.len()], "byte {position}");
        }
    }
}
