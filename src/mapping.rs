//! A range of memory that the kernel maps for us: anonymous, or a part of a memory file that other processes may map as well.
//! Unmapped with its owner. What is in it, and who may touch which part of it when, is the owner's business.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::{self, NonNull},
};

/// See the module's doc. Pages come at their first touch, and are zero (in a file: what was written there).
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    /// Bytes.
    length: usize,
}

// SAFETY: an address and a length; any thread may unmap, and nothing in a mapping belongs to one.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared access gives the address only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `length` bytes of nobody else.
    ///
    /// # Errors
    /// The kernel refuses: address space, overcommit limits, number of mappings.
    pub fn anonymous(length: usize) -> io::Result<Self> {
        Self::map(length, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    /// `length` bytes of `file` from `offset` on, which must be there for as long as the mapping: to touch what is behind the
    /// file's end is a signal.
    ///
    /// # Errors
    /// As [`Self::anonymous`].
    pub fn shared(file: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        Self::map(length, libc::MAP_SHARED, file.as_raw_fd(), offset)
    }

    fn map(length: usize, flags: i32, file: i32, offset: libc::off_t) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length, protection, flags | libc::MAP_NORESERVE, file, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }

    /// Where it begins; aligned as pages are.
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Has the kernel give single pages here, also where it gives 2 MiB at the first touch to everybody
    /// (`transparent_hugepage/enabled` is `always`): for memory of which little is touched. A kernel without large pages refuses.
    pub fn use_single_pages(&self) {
        // SAFETY: advice that changes no byte of what is mapped here.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.length, libc::MADV_NOHUGEPAGE) };
    }

    /// Leaves it mapped; [`Self::of`] takes it back.
    #[must_use]
    pub fn into_start(self) -> NonNull<u8> {
        let start = self.start;
        std::mem::forget(self);
        start
    }

    /// The mapping of `length` bytes that begins at `start`.
    ///
    /// # Safety
    /// It came from [`Self::into_start`] with that length, and is taken back once.
    #[must_use]
    pub unsafe fn of(start: NonNull<u8>, length: usize) -> Self {
        Self { start, length }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped with this length; who owns a mapping outlives every reference into it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Makes pages resident with one system call instead of a fault each: `bytes` from the address `start` on. What the kernel
/// refuses (before Linux 5.14) comes by faults.
pub fn populate(start: usize, bytes: usize) {
    // SAFETY: advice that changes no byte, whatever is mapped there.
    unsafe { libc::madvise(start as *mut libc::c_void, bytes, libc::MADV_POPULATE_WRITE) };
}
