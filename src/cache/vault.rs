//! Memory for dirty data that survives the process: a memory file, whose descriptor somebody else holds too.
//!
//! Hands out buffers of the pool's two smaller sizes, each with its reservation. What lies where is not in the file: whoever
//! keeps bytes here writes down their [`Place`]. The process that takes over opens the file, adopts those places, and with
//! [`Vault::seal`] everything else is free. Knows nothing of files and layers.
//!
//! The file is sparse and has one length for ever. It is mapped in pieces of 16 MiB, each of slots of one size, when they are
//! needed. A store to a page that the kernel cannot give would be a signal (SIGBUS), so memory is asked for (fallocate)
//! before anybody gets a slot; a refusal is answered like a budget that is used up.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    io,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
    sys::{
        memfd::{MFdFlags, memfd_create},
        stat::fstat,
    },
    unistd::ftruncate,
};

use super::{
    budget::Reservation,
    pool::{BUFFER_BYTES, Buffer, Slot, size_index},
};
use crate::{
    mapping::{Mapping, populate},
    sync::{Arc, Mutex},
};

/// Bytes of the file. Address space only: what is not asked for takes no memory. Twice the dirty data of a machine of 64 GiB.
const FILE_BYTES: u64 = 64 << 30;
/// Bytes mapped at a time.
const PIECE_BYTES: u64 = 16 << 20;
/// How many of the pool's sizes are to be had here.
const SIZES: usize = 2;
/// Free memory that an idle vault keeps: a small file is written without a system call. A node has hundreds of vaults.
const IDLE_BYTES: u64 = 256 << 10;
/// Free memory that a busy vault keeps beside as much as is in use: pages that the kernel must find and clear cost a second
/// of processor time a GiB, pages that are there a tenth of that.
const WARM_BYTES_MAX: u64 = 32 << 20;

/// Where a buffer is in the file of its vault, to be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    offset: u64,
    size: usize,
}

impl Place {
    /// The place of a buffer of `capacity` bytes at `offset`; `None` where no vault has one.
    #[must_use]
    pub fn new(offset: u64, capacity: usize) -> Option<Self> {
        let size = BUFFER_BYTES[..SIZES].iter().position(|bytes| *bytes == capacity)?;
        let fits = offset.is_multiple_of(capacity as u64) && offset < FILE_BYTES;
        fits.then_some(Self { offset, size })
    }

    /// Where it begins, in bytes.
    #[must_use]
    pub fn offset(self) -> u64 {
        self.offset
    }

    /// Its bytes.
    #[must_use]
    pub fn capacity(self) -> usize {
        BUFFER_BYTES[self.size]
    }

    /// Which of the pool's sizes that is.
    pub(super) fn size(self) -> usize {
        self.size
    }

    fn range(self) -> Range<u64> {
        self.offset..self.offset + self.capacity() as u64
    }
}

/// A vault. See the module's doc.
#[derive(Debug)]
pub struct Vault {
    file: OwnedFd,
    /// Short sections; of system calls only that which maps a piece.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By number: the piece that begins at so many times [`PIECE_BYTES`].
    pieces: BTreeMap<u64, Piece>,
    free: [Free; SIZES],
    /// Bytes of all warm slots.
    warm_bytes: u64,
    /// Bytes of all slots that somebody has.
    used_bytes: u64,
    /// Until it is sealed: where the slots begin that somebody has.
    adopted: BTreeSet<u64>,
    is_sealed: bool,
}

/// Where free slots of one size begin.
#[derive(Debug, Default)]
struct Free {
    /// The kernel has given pages.
    warm: Vec<u64>,
    /// The kernel must be asked.
    cold: Vec<u64>,
}

/// A mapped part of the file, unmapped with the vault, which every buffer in it holds.
#[derive(Debug)]
struct Piece {
    mapping: Mapping,
    /// Of its slots.
    size: usize,
}

impl Piece {
    /// `None` when the kernel refuses (address space, number of mappings).
    fn map(file: &OwnedFd, number: u64, size: usize) -> Option<Self> {
        let mapping = Mapping::shared(file.as_fd(), number * PIECE_BYTES, PIECE_BYTES as usize).ok()?;
        Some(Self { mapping, size })
    }
}

impl Vault {
    /// An empty one.
    ///
    /// # Errors
    /// The kernel gives no memory file.
    pub fn create() -> io::Result<Arc<Self>> {
        let file = memfd_create(c"azblob-csi-vault", MFdFlags::MFD_CLOEXEC)?;
        ftruncate(&file, FILE_BYTES as i64)?;
        let state = State { is_sealed: true, ..State::default() };
        Ok(Arc::new(Self { file, state: Mutex::new(state) }))
    }

    /// The one that another process has left. Nothing is handed out before [`Self::seal`].
    ///
    /// # Errors
    /// It is no vault.
    pub fn open(file: OwnedFd) -> io::Result<Arc<Self>> {
        let length = fstat(&file)?.st_size;
        // A shorter one would be a signal at the first look behind its end.
        if length != FILE_BYTES as i64 {
            let sentence = format!("the memory of unsaved bytes is {length} bytes long, not {FILE_BYTES}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, sentence));
        }
        Ok(Arc::new(Self { file, state: Mutex::default() }))
    }

    /// The buffer of `length` bytes that another process left at `place`. `None` where there cannot be one: it would not
    /// hold so many, meets one that was adopted, the vault is sealed, or the kernel refuses.
    #[must_use]
    pub fn adopt(self: &Arc<Self>, place: Place, length: usize, reservation: Reservation) -> Option<Buffer> {
        let capacity = place.capacity() as u64;
        if length as u64 > capacity || reservation.bytes() != capacity {
            return None;
        }
        let slot = {
            let mut state = self.state.lock();
            // A piece has slots of one size: two meet where they begin at one offset.
            if state.is_sealed || state.adopted.contains(&place.offset) {
                return None;
            }
            let slot = state.slot(&self.file, place)?;
            state.adopted.insert(place.offset);
            state.used_bytes += capacity;
            slot
        };
        // They are there, unless what was written down is wrong.
        self.ask_for_pages(place)?;
        Some(Buffer::of_vault(Arc::clone(self), (place, slot), length, reservation))
    }

    /// Ends the adopting: what nobody has is free from now on, and its memory goes back.
    pub fn seal(&self) {
        let mut state = self.state.lock();
        if state.is_sealed {
            return;
        }
        state.is_sealed = true;
        let State { pieces, free, adopted, .. } = &mut *state;
        let mut position = 0;
        let taken = std::mem::take(adopted);
        for offset in &taken {
            let size = pieces.get(&(offset / PIECE_BYTES)).map_or(0, |piece| piece.size);
            self.punch(&(position..*offset));
            position = offset + BUFFER_BYTES[size] as u64;
        }
        self.punch(&(position..FILE_BYTES));
        for (number, piece) in pieces {
            free[piece.size].cold.extend(slots_of(*number, piece.size).filter(|offset| !taken.contains(offset)));
        }
    }

    /// Turns a reservation into a buffer of `length` bytes. `None` where `length` is more than the vault's sizes hold, before
    /// it is sealed, and where the kernel refuses; the reservation is given back.
    #[must_use]
    pub fn take(self: &Arc<Self>, reservation: Reservation, length: usize) -> Option<Buffer> {
        let size = Some(size_index(length)).filter(|size| *size < SIZES)?;
        debug_assert_eq!(reservation.bytes(), BUFFER_BYTES[size] as u64, "a buffer holds exactly its reservation");
        let (place, slot, is_warm) = self.state.lock().take(&self.file, size)?;
        if !is_warm {
            self.ask_for_pages(place)?;
            if size > 0 {
                populate(slot.0.addr().get(), place.capacity());
            }
        }
        Some(Buffer::of_vault(Arc::clone(self), (place, slot), length, reservation))
    }

    /// Bytes of memory that the kernel has given and nobody uses.
    #[must_use]
    pub fn warm_bytes(&self) -> u64 {
        self.state.lock().warm_bytes
    }

    /// Bytes of memory in buffers.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used_bytes
    }

    /// Takes the slot of a buffer back.
    pub(super) fn give_back(&self, place: Place) {
        let surplus = self.state.lock().give_back(place);
        for place in surplus {
            // Memory that stays is no harm: it is asked for again before it is used.
            self.punch(&place.range());
            self.state.lock().free[place.size].cold.push(place.offset);
        }
    }

    /// Asks the kernel for the pages of a slot that was just taken. `None`: it has none, and the slot was given back.
    fn ask_for_pages(&self, place: Place) -> Option<()> {
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let given = loop {
            match fallocate(&self.file, keep, place.offset as i64, place.capacity() as i64) {
                Err(Errno::EINTR) => {}
                given => break given,
            }
        };
        if given.is_err() {
            let mut state = self.state.lock();
            state.used_bytes -= place.capacity() as u64;
            match state.is_sealed {
                true => state.free[place.size].cold.push(place.offset),
                false => drop(state.adopted.remove(&place.offset)),
            }
        }
        given.ok()
    }

    fn punch(&self, range: &Range<u64>) {
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if !range.is_empty() {
            let _ = fallocate(&self.file, hole, range.start as i64, (range.end - range.start) as i64);
        }
    }
}

impl State {
    /// A free slot, and whether its pages are there.
    fn take(&mut self, file: &OwnedFd, size: usize) -> Option<(Place, Slot, bool)> {
        if !self.is_sealed {
            return None;
        }
        let bytes = BUFFER_BYTES[size] as u64;
        let is_warm = !self.free[size].warm.is_empty();
        if !is_warm && self.free[size].cold.is_empty() {
            self.map_next(file, size)?;
        }
        let Free { warm, cold } = &mut self.free[size];
        let place = Place { offset: warm.pop().or_else(|| cold.pop())?, size };
        let slot = self.slot(file, place)?;
        self.used_bytes += bytes;
        self.warm_bytes -= if is_warm { bytes } else { 0 };
        Some((place, slot, is_warm))
    }

    /// Maps the first piece that is not, and has its slots of this size handed out.
    fn map_next(&mut self, file: &OwnedFd, size: usize) -> Option<()> {
        let number = (0..FILE_BYTES / PIECE_BYTES).find(|number| !self.pieces.contains_key(number))?;
        self.pieces.insert(number, Piece::map(file, number, size)?);
        self.free[size].cold.extend(slots_of(number, size).rev());
        Some(())
    }

    /// The addresses of `place`, in a piece of slots of its size, which is mapped if it is not.
    fn slot(&mut self, file: &OwnedFd, place: Place) -> Option<Slot> {
        let number = place.offset / PIECE_BYTES;
        let piece = match self.pieces.entry(number) {
            Entry::Occupied(mapped) => mapped.into_mut(),
            Entry::Vacant(unmapped) => unmapped.insert(Piece::map(file, number, place.size)?),
        };
        if piece.size != place.size {
            return None;
        }
        // SAFETY: inside the piece, which is as long as the remainder may be.
        Some(Slot(unsafe { piece.mapping.start().add((place.offset % PIECE_BYTES) as usize) }))
    }

    /// Takes a slot back, and keeps it warm where that is not too much; returns those whose pages are to go.
    fn give_back(&mut self, place: Place) -> Vec<Place> {
        self.used_bytes -= place.capacity() as u64;
        if !self.is_sealed {
            self.adopted.remove(&place.offset);
            return Vec::new();
        }
        self.free[place.size].warm.push(place.offset);
        self.warm_bytes += place.capacity() as u64;
        let limit = IDLE_BYTES + self.used_bytes.min(WARM_BYTES_MAX);
        let mut surplus = Vec::new();
        for size in (0..SIZES).rev() {
            while self.warm_bytes > limit {
                let Some(offset) = self.free[size].warm.pop() else { break };
                self.warm_bytes -= BUFFER_BYTES[size] as u64;
                surplus.push(Place { offset, size });
            }
        }
        surplus
    }
}

/// Where the slots of a piece begin.
fn slots_of(number: u64, size: usize) -> impl DoubleEndedIterator<Item = u64> {
    let bytes = BUFFER_BYTES[size] as u64;
    (0..PIECE_BYTES / bytes).map(move |index| number * PIECE_BYTES + index * bytes)
}

impl AsFd for Vault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests;
