//! A file in memory (mmap(2)), read and changed there.

use std::{fs::File, os::fd::AsRawFd as _, ptr::NonNull};

use nix::errno::Errno;

/// A whole file in memory.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    pub(crate) fn new(file: &File, length: usize, kind: libc::c_int) -> Self {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; unmapped once, in drop.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, kind, file.as_raw_fd(), 0) };
        assert_ne!(start, libc::MAP_FAILED, "{}", Errno::last());
        Self { start: NonNull::new(start.cast()).unwrap(), length }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        // SAFETY: the mapping as mmap(2) returned it, which nobody changes meanwhile.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }.to_vec()
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length);
        // SAFETY: inside the mapping, of which nobody holds a slice.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(offset), bytes.len()) };
    }

    pub(crate) fn save(&self) {
        // SAFETY: the mapping as mmap(2) returned it.
        let saved = unsafe { libc::msync(self.start.as_ptr().cast(), self.length, libc::MS_SYNC) };
        assert_eq!(saved, 0, "{}", Errno::last());
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping as mmap(2) returned it; no slice of it is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
