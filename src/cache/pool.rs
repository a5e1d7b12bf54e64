//! Recycled buffers of three sizes, each of which holds its share of the budget.
//!
//! Knows nothing of blocks or blobs. Memory comes from anonymous mappings that are carved into buffers of one size and
//! live as long as the pool, so there is no fragmentation: a buffer that is given back is either kept warm for the next
//! taker or its pages are returned to the kernel one by one (MADV_DONTNEED) while its addresses stay ours.
//! Resident memory is therefore at most reserved + warm + [`POPULATE_BYTES`] a size, and warm memory is kept only inside
//! the budget.
//!
//! Why not the allocator: it keeps freed spans for itself, and 1 MiB allocations that come and go among small ones leave
//! holes, so that resident memory drifts away from what the budget believes.

use std::{fmt, io, ptr::NonNull, time::Duration};

use crate::{
    mapping::{Mapping, populate},
    sync::{Arc, Mutex},
};

use super::{
    budget::{Budget, Class, DirtyShare, Reservation},
    vault::{Place, Vault},
};

/// Sizes of buffers, in bytes: a small file, one piece (or a middle-sized file), one block.
pub const BUFFER_BYTES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];

/// Largest buffer, in bytes.
pub const BUFFER_BYTES_MAX: usize = BUFFER_BYTES[2];

/// Bytes mapped at a time. Only addresses are taken: pages become resident when they are first written.
const MAPPING_BYTES: usize = 16 << 20;

/// Memory that is asked of the kernel at a time where all of it is about to be filled. First touches of 448 MiB took 0.30
/// s/GiB so, 0.42 with a fault a page, and a reader or writer is often over before a buffer is used twice. Not by huge
/// pages: 0.12 where their memory is warm, but 2.1 in a machine that hands free memory back to its host, which it does in
/// blocks of just their size.
const POPULATE_BYTES: usize = BUFFER_BYTES_MAX;

/// How often memory is asked for again that the kernel did not have.
const KERNEL_LOOK: Duration = Duration::from_millis(20);

/// Warm memory tolerated beyond the budget, so that a full cache can swap a block without a system call.
const WARM_SLACK_BYTES: u64 = 4 << 20;

const _: () = assert!(MAPPING_BYTES.is_multiple_of(POPULATE_BYTES));

/// What becomes of a buffer's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// Nearly all of them are written soon: worth asking the kernel for its pages, and for its neighbours', at once.
    Whole,
    /// Perhaps only a few: each page is touched when it is written.
    Partly,
}

/// The pool. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct Pool {
    budget: Budget,
    inner: Arc<Inner>,
}

struct Inner {
    /// Short sections; system calls only when memory goes back to the kernel or a new mapping is made.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sizes: [Free; 3],
    /// Bytes of all warm buffers.
    warm_bytes: u64,
    mappings: Vec<Mapping>,
}

/// Free buffers of one size.
#[derive(Default)]
struct Free {
    /// Pages are resident: taken first.
    warm: Vec<Slot>,
    /// Pages went back to the kernel.
    cold: Vec<Slot>,
    /// Never used.
    fresh: Fresh,
}

/// What is left of the newest mapping, taken from front to back.
#[derive(Default)]
struct Fresh {
    /// `None`: there was no mapping.
    next: Option<NonNull<u8>>,
    /// Bytes from `next` to the end of the mapping.
    left: usize,
    /// Of these, bytes whose pages somebody has asked for.
    populated: usize,
}

// SAFETY: the sole right to a range of a private anonymous mapping; nothing in it belongs to a thread.
unsafe impl Send for Fresh {}

/// Pages to be asked for, once the pool's lock is free.
type Populate = Option<(NonNull<u8>, usize)>;

impl Fresh {
    /// The next `bytes`, and what is to be populated; `None` when the mapping is used up.
    fn take(&mut self, bytes: usize, filled: Filled) -> Option<(Slot, Populate)> {
        let start = self.next.filter(|_| self.left >= bytes)?;
        let mut populate = None;
        if filled == Filled::Whole && bytes > BUFFER_BYTES[0] && self.populated < bytes {
            // To where a whole number of them is left: buffers may have been taken without asking.
            let unasked = self.left - self.populated;
            let length = (unasked - 1) % POPULATE_BYTES + 1;
            // SAFETY: inside the mapping: `populated` and `length` together are at most `left`.
            populate = Some((unsafe { start.add(self.populated) }, length));
            self.populated += length;
        }
        // SAFETY: `bytes` is at most `left`, so this is inside the mapping or its end.
        self.next = Some(unsafe { start.add(bytes) });
        self.left -= bytes;
        self.populated = self.populated.saturating_sub(bytes);
        Some((Slot(start), populate))
    }
}

/// Addresses of one buffer inside a mapping that outlives it.
#[derive(Debug)]
pub(super) struct Slot(pub(super) NonNull<u8>);

// SAFETY: a slot is the sole right to a range of a mapping; nothing in it belongs to a thread.
unsafe impl Send for Slot {}

/// Addresses for buffers of one size, unmapped with the pool; every buffer in them holds the `Inner` that owns them.
fn map() -> io::Result<Mapping> {
    let mapping = Mapping::anonymous(MAPPING_BYTES)?;
    // A huge page would make 2 MiB resident for a touched 4 KiB: the budget could not be kept. A refusal (kernels
    // without huge pages) is what we want anyway.
    // SAFETY: advice on the range just mapped.
    unsafe { libc::madvise(mapping.start().as_ptr().cast(), MAPPING_BYTES, libc::MADV_NOHUGEPAGE) };
    Ok(mapping)
}

impl Slot {
    /// Gives the pages back to the kernel; the next touch finds zeroes.
    fn release_pages(&self, bytes: usize) {
        // SAFETY: the slot is the sole right to this page-aligned range, and nobody refers to a free slot's bytes.
        unsafe { libc::madvise(self.0.as_ptr().cast(), bytes, libc::MADV_DONTNEED) };
    }
}

impl Pool {
    /// A pool whose buffers count against `budget`.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self { budget, inner: Arc::new(Inner { state: Mutex::default() }) }
    }

    /// The budget behind the pool.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Bytes that a buffer of `length` bytes takes: the smallest size that holds it.
    ///
    /// # Panics
    /// When `length` is over [`BUFFER_BYTES_MAX`]: callers cut at blocks.
    #[must_use]
    pub fn capacity(length: usize) -> usize {
        BUFFER_BYTES[size_index(length)]
    }

    /// A buffer of `length` bytes (at most [`BUFFER_BYTES_MAX`]) if the budget has it now. Its bytes are unspecified:
    /// whoever shows them to somebody must have written them.
    #[must_use]
    pub fn try_buffer(&self, class: Class, length: usize) -> Option<Buffer> {
        let reservation = self.budget.try_reserve(class, Self::capacity(length) as u64)?;
        Some(self.take(reservation, length, Filled::Whole))
    }

    /// As [`Self::try_buffer`], but waits as [`Budget::reserve`] does. Cancel-safe.
    pub async fn buffer(&self, class: Class, length: usize) -> Buffer {
        let reservation = self.budget.reserve(class, Self::capacity(length) as u64).await;
        self.take(reservation, length, Filled::Whole)
    }

    /// As [`Self::try_buffer`], for dirty data of one volume: in its `vault`, if that is to survive the process. `None` also
    /// where the kernel has no memory for the vault.
    #[must_use]
    pub fn try_dirty_buffer(&self, vault: Option<&Arc<Vault>>, share: &DirtyShare, length: usize) -> Option<Buffer> {
        let reservation = self.budget.try_reserve_dirty(share, Self::capacity(length) as u64)?;
        self.take_dirty(vault, reservation, length)
    }

    /// As [`Self::try_dirty_buffer`], but waits as [`Budget::reserve_dirty`] does, and for the kernel.
    pub async fn dirty_buffer(&self, vault: Option<&Arc<Vault>>, share: &DirtyShare, length: usize) -> Buffer {
        loop {
            let reservation = self.budget.reserve_dirty(share, Self::capacity(length) as u64).await;
            match self.take_dirty(vault, reservation, length) {
                Some(buffer) => return buffer,
                None => crate::sync::tokio::time::sleep(KERNEL_LOOK).await,
            }
        }
    }

    /// Turns a reservation of `capacity(length)` bytes into a buffer for dirty data: in `vault`, if there is one. `None`
    /// where the kernel has no memory for the vault; the reservation is given back.
    ///
    /// # Panics
    /// Without a vault, as [`Self::take`].
    #[must_use]
    pub fn take_dirty(&self, vault: Option<&Arc<Vault>>, reservation: Reservation, length: usize) -> Option<Buffer> {
        match vault {
            Some(vault) => vault.take(reservation, length),
            None => Some(self.take(reservation, length, Filled::Whole)),
        }
    }

    /// Turns a reservation of `capacity(length)` bytes into a buffer.
    ///
    /// # Panics
    /// When the kernel refuses address space: there is no answer to that but the allocator's.
    #[must_use]
    pub fn take(&self, reservation: Reservation, length: usize, filled: Filled) -> Buffer {
        let size = size_index(length);
        debug_assert_eq!(reservation.bytes(), BUFFER_BYTES[size] as u64, "a buffer holds exactly its reservation");
        let mut state = self.inner.state.lock();
        let (slot, pages) = match state.sizes[size].warm.pop() {
            Some(slot) => {
                state.warm_bytes -= BUFFER_BYTES[size] as u64;
                (slot, None)
            }
            None => {
                let taken = state.cold_slot(size, filled);
                state.trim(self.warm_limit_bytes());
                taken
            }
        };
        drop(state);
        if let Some(pages) = pages {
            populate(pages.0.addr().get(), pages.1);
        }
        Buffer { slot: Some(slot), size, length, home: Home::Pool(self.clone()), reservation }
    }

    /// Bytes of warm, unused memory.
    #[must_use]
    pub fn warm_bytes(&self) -> u64 {
        self.inner.state.lock().warm_bytes
    }

    /// Warm memory that fits beside what is reserved.
    fn warm_limit_bytes(&self) -> u64 {
        self.budget.pool_bytes().saturating_sub(self.budget.used_bytes()) + WARM_SLACK_BYTES
    }

    fn give_back(&self, slot: Slot, size: usize) {
        // The buffer that comes back still holds its reservation here, hence the limit leaves room for it.
        let bytes = BUFFER_BYTES[size] as u64;
        let limit = self.warm_limit_bytes() + bytes;
        let mut state = self.inner.state.lock();
        if state.warm_bytes + bytes <= limit {
            state.warm_bytes += bytes;
            state.sizes[size].warm.push(slot);
        } else {
            slot.release_pages(BUFFER_BYTES[size]);
            state.sizes[size].cold.push(slot);
        }
    }
}

impl State {
    /// A slot whose pages are not there, and which of them to ask for.
    fn cold_slot(&mut self, size: usize, filled: Filled) -> (Slot, Populate) {
        let bytes = BUFFER_BYTES[size];
        if let Some(slot) = self.sizes[size].cold.pop() {
            let pages = (filled == Filled::Whole && bytes == BUFFER_BYTES_MAX).then_some((slot.0, bytes));
            return (slot, pages);
        }
        if self.sizes[size].fresh.left < bytes {
            let Ok(mapping) = map() else {
                let layout = std::alloc::Layout::new::<[u8; MAPPING_BYTES]>();
                std::alloc::handle_alloc_error(layout)
            };
            self.sizes[size].fresh = Fresh { next: Some(mapping.start()), left: MAPPING_BYTES, populated: 0 };
            self.mappings.push(mapping);
        }
        match self.sizes[size].fresh.take(bytes, filled) {
            Some(taken) => taken,
            None => unreachable!("a mapping holds at least one buffer of each size"),
        }
    }

    /// Returns warm memory beyond `limit_bytes` to the kernel, largest buffers first (fewest calls).
    fn trim(&mut self, limit_bytes: u64) {
        for size in (0..BUFFER_BYTES.len()).rev() {
            while self.warm_bytes > limit_bytes {
                let Some(slot) = self.sizes[size].warm.pop() else { break };
                self.warm_bytes -= BUFFER_BYTES[size] as u64;
                slot.release_pages(BUFFER_BYTES[size]);
                self.sizes[size].cold.push(slot);
            }
        }
    }
}

pub(super) fn size_index(length: usize) -> usize {
    match BUFFER_BYTES.iter().position(|bytes| length <= *bytes) {
        Some(index) => index,
        None => panic!("a buffer has at most {BUFFER_BYTES_MAX} bytes, asked for {length}"),
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("budget", &self.budget).field("warm_bytes", &self.warm_bytes()).finish()
    }
}

/// Where a buffer goes when nobody has it any more.
enum Home {
    Pool(Pool),
    Vault(Arc<Vault>, Place),
}

/// A buffer of the pool or of a [`Vault`], with the memory reservation it counts against. `Bytes::from_owner(buffer)` shares it without
/// a copy; the last owner's drop recycles it.
pub struct Buffer {
    /// Taken only by Drop.
    slot: Option<Slot>,
    size: usize,
    length: usize,
    home: Home,
    reservation: Reservation,
}

// SAFETY: shared access hands out `&[u8]` only; writing needs `&mut` or the block's claims (see `block.rs`).
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A buffer at `place` of a vault.
    pub(super) fn of_vault(
        vault: Arc<Vault>,
        (place, slot): (Place, Slot),
        length: usize,
        reservation: Reservation,
    ) -> Self {
        Self { slot: Some(slot), size: place.size(), length, home: Home::Vault(vault, place), reservation }
    }

    /// Where it is in the vault that it is in.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        match &self.home {
            Home::Pool(_) => None,
            Home::Vault(_, place) => Some(*place),
        }
    }

    /// Length in bytes, as asked for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes that it takes from the budget.
    #[must_use]
    pub fn capacity(&self) -> usize {
        BUFFER_BYTES[self.size]
    }

    /// Changes the length within the capacity; bytes that appear are unspecified.
    ///
    /// # Panics
    /// When `length` is over the capacity.
    pub fn set_len(&mut self, length: usize) {
        assert!(length <= self.capacity(), "a buffer of {} bytes cannot hold {length}", self.capacity());
        self.length = length;
    }

    /// The reservation that it holds, to convert it (dirty data that became clean).
    #[must_use]
    pub fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// Start of the bytes. Valid for reads and writes of `capacity()` bytes while the buffer lives.
    pub(super) fn as_ptr(&self) -> NonNull<u8> {
        match &self.slot {
            Some(slot) => slot.0,
            None => unreachable!("only Drop takes the slot"),
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: mapped, initialised (zero pages or earlier bytes) and ours; `length` <= capacity.
        unsafe { std::slice::from_raw_parts(self.as_ptr().as_ptr(), self.length) }
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_ref`, and `&mut self` is the only access.
        unsafe { std::slice::from_raw_parts_mut(self.as_ptr().as_ptr(), self.length) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            match &self.home {
                Home::Pool(pool) => pool.give_back(slot, self.size),
                Home::Vault(vault, place) => vault.give_back(*place),
            }
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} of {} bytes)", self.length, self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// Of the pages of `buffer`, those in memory.
    fn resident_pages(buffer: &Buffer) -> usize {
        let mut pages = vec![0_u8; buffer.capacity() / 4096];
        // SAFETY: a mapped range and one byte a page of it.
        let asked = unsafe { libc::mincore(buffer.as_ptr().as_ptr().cast(), buffer.capacity(), pages.as_mut_ptr()) };
        assert_eq!(asked, 0);
        pages.iter().filter(|page| **page & 1 == 1).count()
    }

    #[test]
    fn pages_come_at_once_for_what_is_filled_and_one_by_one_for_what_may_not_be() {
        let pool = Pool::new(Budget::new(64 << 20));
        let take = |filled| pool.take(pool.budget().try_reserve(Class::Demand, 1 << 20).unwrap(), MIB, filled);
        let first = take(Filled::Whole);
        let partly = take(Filled::Partly);
        assert_eq!((resident_pages(&first), resident_pages(&partly)), (256, 0));
        let partly = [partly, take(Filled::Partly), take(Filled::Partly), take(Filled::Partly)];
        assert_eq!(partly[1..].iter().map(resident_pages).sum::<usize>(), 0);
        // Never more than is asked for: to the end of the mapping all buffers are of the pool, each once.
        let rest: Vec<_> = (0..20).map(|_| take(Filled::Whole)).collect();
        assert!(rest.iter().all(|buffer| resident_pages(buffer) == 256));
        let mut starts: Vec<_> = rest.iter().chain(&partly).map(|buffer| buffer.as_ptr()).collect();
        starts.sort_unstable();
        assert!(starts.windows(2).all(|pair| pair[0].as_ptr() as usize + MIB <= pair[1].as_ptr() as usize));
    }

    #[test]
    fn the_smallest_size_that_holds_the_bytes_is_taken() {
        assert_eq!(Pool::capacity(0), 4096);
        assert_eq!(Pool::capacity(4096), 4096);
        assert_eq!(Pool::capacity(4097), 65536);
        assert_eq!(Pool::capacity(MIB), MIB);
    }

    #[test]
    fn a_buffer_given_back_is_used_again() {
        let pool = Pool::new(Budget::new(16 << 20));
        let mut first = pool.try_buffer(Class::Dirty, MIB).unwrap();
        first.as_mut().fill(7);
        let address = first.as_ptr();
        drop(first);
        assert_eq!(pool.warm_bytes(), 1 << 20);
        assert_eq!(pool.try_buffer(Class::Dirty, MIB).unwrap().as_ptr(), address);
    }

    #[test]
    fn buffers_shared_as_bytes_hold_their_reservation_until_the_last_clone_goes() {
        let pool = Pool::new(Budget::new(16 << 20));
        let mut buffer = pool.try_buffer(Class::Dirty, 5000).unwrap();
        buffer.as_mut().fill(b'x');
        let bytes = bytes::Bytes::from_owner(buffer);
        let tail = bytes.slice(4000..);
        drop(bytes);
        assert_eq!(pool.budget().used_bytes(), 65536);
        assert!(tail.iter().all(|byte| *byte == b'x'));
        drop(tail);
        assert_eq!(pool.budget().used_bytes(), 0);
    }

    #[test]
    fn memory_of_one_size_goes_back_to_the_kernel_when_another_size_needs_it() {
        let pool = Pool::new(Budget::new(16 << 20));
        let large: Vec<_> = (0..14).map(|_| pool.try_buffer(Class::Demand, MIB).unwrap()).collect();
        drop(large);
        assert_eq!(pool.warm_bytes(), 14 << 20);
        let small: Vec<_> = (0..14 * 16).map(|_| pool.try_buffer(Class::Demand, 65536).unwrap()).collect();
        assert!(pool.warm_bytes() <= WARM_SLACK_BYTES);
        assert_eq!(small.len(), 224);
    }
}
