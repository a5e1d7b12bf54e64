//! The memory file below a ledger: a header, and two areas of which one counts.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use nix::{
    fcntl::{FallocateFlags, fallocate},
    sys::{
        memfd::{MFdFlags, memfd_create},
        stat::fstat,
    },
    unistd::ftruncate,
};

use super::{Error, record::Record};
use crate::mapping::Mapping;

/// What the file begins with.
const MAGIC: [u8; 8] = *b"azbledg1";
/// Bytes before the areas: a page, so that an area's memory can be given back.
const HEADER_BYTES: u64 = 4096;
/// Bytes of an area. Address space only: what is not touched takes no memory. Enough for some ten million inodes.
const AREA_BYTES: u64 = 4 << 30;
/// Bytes of the file.
const FILE_BYTES: u64 = HEADER_BYTES + 2 * AREA_BYTES;
/// Bytes that are asked of the kernel at once. Asked, because a store to a page that it cannot give would be a signal.
const ROOM_BYTES: u64 = 64 << 10;
/// In [`Header::current`]: nothing counts.
const SPOILED: u64 = u64::MAX;

/// The first bytes of the file.
#[repr(C)]
struct Header {
    magic: AtomicU64,
    format: AtomicU64,
    /// The area that counts.
    current: AtomicU64,
    /// Bytes of each area that are written.
    written: [AtomicU64; 2],
}

/// A mapped file.
#[derive(Debug)]
pub(super) struct Memory {
    file: OwnedFd,
    mapping: Mapping,
    /// Bytes of each area that the kernel has given pages for.
    room: [AtomicU64; 2],
}

// SAFETY: the mapping lives as long as this. Its header is atomic; bytes up to `written` of the area that counts are never
// written again before the area is, and who writes has `&self` under the ledger's lock.
unsafe impl Send for Memory {}
// SAFETY: as for `Send`.
unsafe impl Sync for Memory {}

impl Memory {
    pub(super) fn create(format: u32) -> io::Result<Self> {
        let file = memfd_create(c"azblob-csi-ledger", MFdFlags::MFD_CLOEXEC)?;
        ftruncate(&file, FILE_BYTES as i64)?;
        let memory = Self::map(file)?;
        memory.header().format.store(u64::from(format), Ordering::Relaxed);
        memory.header().magic.store(u64::from_le_bytes(MAGIC), Ordering::Release);
        Ok(memory)
    }

    /// The file of another process, and the version of its owner's format.
    pub(super) fn open(file: OwnedFd) -> Result<(Self, u32), Error> {
        let length = fstat(&file).map_err(|errno| Error::Memory(errno.into()))?.st_size;
        // A shorter one would be a signal at the first look behind its end.
        if length != FILE_BYTES as i64 {
            return Err(Error::Unreadable(format!("{length} bytes long, not {FILE_BYTES}")));
        }
        let memory = Self::map(file).map_err(Error::Memory)?;
        let header = memory.header();
        let (magic, format) = (header.magic.load(Ordering::Acquire), header.format.load(Ordering::Relaxed));
        let current = header.current.load(Ordering::Acquire);
        if magic != u64::from_le_bytes(MAGIC) {
            return Err(Error::Unreadable("it begins with something else".to_owned()));
        }
        if current > 1 {
            return Err(Error::Unreadable("its writer has given it up".to_owned()));
        }
        let written = memory.written();
        if written > AREA_BYTES {
            return Err(Error::Unreadable(format!("{written} bytes in an area of {AREA_BYTES}")));
        }
        let format = u32::try_from(format).map_err(|_| Error::Unreadable(format!("format {format}")))?;
        memory.room[memory.current()].store(written, Ordering::Relaxed);
        Ok((memory, format))
    }

    fn map(file: OwnedFd) -> io::Result<Self> {
        let mapping = Mapping::shared(file.as_fd(), 0, FILE_BYTES as usize)?;
        Ok(Self { file, mapping, room: Default::default() })
    }

    fn header(&self) -> &Header {
        // SAFETY: the mapping is page-aligned, longer than a header, and all of a header's values are valid.
        unsafe { self.mapping.start().cast::<Header>().as_ref() }
    }

    fn current(&self) -> usize {
        usize::from(self.header().current.load(Ordering::Acquire) == 1)
    }

    /// Bytes of the area that counts.
    pub(super) fn written(&self) -> u64 {
        self.header().written[self.current()].load(Ordering::Acquire)
    }

    /// The bytes from `position` to `end` of the area that counts, which are written.
    pub(super) fn bytes(&self, position: u64, end: u64) -> &[u8] {
        // SAFETY: inside the area, which callers stay in; nobody writes there.
        unsafe { std::slice::from_raw_parts(self.at(self.current(), position), (end - position) as usize) }
    }

    /// Appends `records`, which count together. `false` when there is no memory for them: then nothing has changed.
    pub(super) fn append(&self, records: &[Record<'_>]) -> bool {
        let (area, mut position) = (self.current(), self.written());
        let end = position + records.iter().map(Record::len).sum::<u64>();
        if !self.has_room(area, end) {
            return false;
        }
        for record in records {
            // SAFETY: behind what is written, inside the area and where pages are; the ledger's lock keeps other writers out.
            let target = unsafe { std::slice::from_raw_parts_mut(self.at(area, position), record.len() as usize) };
            record.write(target);
            position += record.len();
        }
        self.header().written[area].store(end, Ordering::Release);
        true
    }

    /// Makes the other area the one that counts, with the records at these places in this order: their new places. `None`
    /// when there is no memory for them.
    pub(super) fn rewrite(&self, records: impl Iterator<Item = (u64, u64)>) -> Option<Vec<u64>> {
        let (from, to) = (self.current(), 1 - self.current());
        let mut end = 0;
        let mut places = Vec::with_capacity(records.size_hint().0);
        for (position, length) in records {
            if !self.has_room(to, end + length) {
                self.give_back(to);
                return None;
            }
            // SAFETY: both inside their areas, which do not overlap, and where pages are.
            unsafe { std::ptr::copy_nonoverlapping(self.at(from, position), self.at(to, end), length as usize) };
            places.push(end);
            end += length;
        }
        self.header().written[to].store(end, Ordering::Release);
        self.header().current.store(to as u64, Ordering::Release);
        self.give_back(from);
        Some(places)
    }

    /// Says that the file is not to be believed any more.
    pub(super) fn spoil(&self) {
        self.header().current.store(SPOILED, Ordering::Release);
    }

    /// Whether the first `bytes` of `area` have pages.
    fn has_room(&self, area: usize, bytes: u64) -> bool {
        let room = self.room[area].load(Ordering::Relaxed);
        if bytes <= room {
            return true;
        }
        let wanted = bytes.next_multiple_of(ROOM_BYTES);
        if wanted > AREA_BYTES {
            return false;
        }
        let start = HEADER_BYTES + area as u64 * AREA_BYTES + room;
        let given = fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, start as i64, (wanted - room) as i64);
        if given.is_ok() {
            self.room[area].store(wanted, Ordering::Relaxed);
        }
        given.is_ok()
    }

    fn give_back(&self, area: usize) {
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let start = HEADER_BYTES + area as u64 * AREA_BYTES;
        // Memory that stays is no harm: it is written over.
        let _ = fallocate(&self.file, hole, start as i64, AREA_BYTES as i64);
        self.room[area].store(0, Ordering::Relaxed);
    }

    fn at(&self, area: usize, position: u64) -> *mut u8 {
        let offset = HEADER_BYTES + area as u64 * AREA_BYTES + position;
        // SAFETY: inside the mapping: `area` is 0 or 1 and callers keep `position` within an area.
        unsafe { self.mapping.start().as_ptr().add(offset as usize) }
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
