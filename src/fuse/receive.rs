//! The buffers into which a session's threads receive requests: mapped, and there where a request comes to lie.
//!
//! Two things are wrong with 16 MiB and a page for each thread, as fuser has them from the allocator:
//!
//! - glibc raises the size from which on it maps a block to that of the blocks which it sees freed. Once one handshake has ended,
//!   buffers come from a heap, where calloc(3) writes zeros over all of them: 8 GiB resident with 200 mounts, and 11 of the
//!   13 s in which the next process went on with those.
//! - A process that is killed gets no more pages (`__get_user_pages` of mm/gup.c). When it is while the kernel copies a request into a page
//!   that is not there yet, the request ends with EIO (`fuse_dev_do_read` of fs/fuse/dev.c), and nobody can have it sent
//!   again: one msync(2) failed in 150 kills under a program that wrote.
//!
//! So buffers are mapped here (in single pages: 2 MiB for each thread of each mount are as wrong), with their first pages, which all requests without data fit into. Of a mount that is to outlive its process
//! as much more is there as small writes take, before the first file is open for writing; and all that any request takes, once one with
//! more data has come, or before the threads start where the process before left a long file open for writing. So a mount
//! costs 64 KiB while it is read, 320 KiB with small files and logs, and 4 MiB only where much is written. What is left of the second
//! danger is the first long write of all.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io,
    ptr::{self, NonNull},
    sync::{
        Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::mount::REQUEST_BYTES_MAX;
use crate::{
    fs::Access,
    mapping::{Mapping, populate},
};

/// What fuser 0.18 allocates for each thread (src/read_buf.rs). No other block is of this size but by chance, and it would do no harm.
const BUFFER_BYTES: usize = (16 << 20) + 4096;
/// Header and arguments of any request without data, names and targets of links included.
const HEAD_BYTES: usize = 16 << 10;
/// The same with the data of a small write.
const FIRST_BYTES: usize = 80 << 10;
/// The same with the most data that a request may have.
const WHOLE_BYTES: usize = REQUEST_BYTES_MAX as usize + HEAD_BYTES;
/// Threads of a session allocate their buffers as the first thing that they do.
const GATHERED_WITHIN: Duration = Duration::from_secs(10);

/// Whoever starts threads, or shakes hands, which takes a buffer as well: one at a time, so that it is known whose a buffer is.
static TURN: Mutex<()> = Mutex::new(());
/// Where buffers begin that were mapped in this turn, while somebody asks for them.
static GATHERED: Mutex<Option<Vec<usize>>> = Mutex::new(None);
static ARRIVED: Condvar = Condvar::new();
/// How much of a buffer is there at once.
static THERE_AT_ONCE: AtomicUsize = AtomicUsize::new(HEAD_BYTES);

/// A program has [`Allocator`], since a buffer came from it.
static IS_THERE: AtomicBool = AtomicBool::new(false);

/// The system's allocator, but for buffers of requests. For the `#[global_allocator]` of a program that serves mounts; without it
/// they are served as well, at the cost that this module's doc names.
#[derive(Clone, Copy, Debug)]
pub struct Allocator;

// SAFETY: blocks of one size come from mmap(2) and go by munmap(2), all others are the system's; `realloc` between the two copies.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match layout.size() {
            BUFFER_BYTES => map(),
            // SAFETY: the caller's promise.
            _ => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match layout.size() {
            // What is mapped is zero.
            BUFFER_BYTES => map(),
            // SAFETY: the caller's promise.
            _ => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match layout.size() {
            BUFFER_BYTES => {
                if let Some(start) = NonNull::new(block) {
                    // SAFETY: mapped by `map`, of that length, and nobody's any more.
                    drop(unsafe { Mapping::of(start, BUFFER_BYTES) });
                }
            }
            // SAFETY: the caller's promise.
            _ => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.size() != BUFFER_BYTES && size != BUFFER_BYTES {
            // SAFETY: the caller's promise.
            return unsafe { System.realloc(block, layout, size) };
        }
        // SAFETY: the caller's promise: `size` is not 0 and within bounds, `block` is of `layout`.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

/// A buffer, aligned as pages are; null when the kernel refuses.
fn map() -> *mut u8 {
    let Ok(mapping) = Mapping::anonymous(BUFFER_BYTES) else { return ptr::null_mut() };
    mapping.use_single_pages();
    let start = mapping.into_start();
    IS_THERE.store(true, Ordering::Relaxed);
    populate(start.addr().get(), THERE_AT_ONCE.load(Ordering::Relaxed));
    if let Some(gathered) = &mut *locked(&GATHERED) {
        gathered.push(start.addr().get());
        ARRIVED.notify_all();
    }
    start.as_ptr()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The buffers of one session's threads.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// The mount is to outlive this process.
    is_kept: bool,
    /// Where they begin, once the threads have started.
    starts: OnceLock<Vec<usize>>,
    /// How much of each is there.
    there: AtomicUsize,
}

impl Buffers {
    /// For threads that are still to be started.
    pub(super) fn new(is_kept: bool) -> Self {
        Self { is_kept, ..Self::default() }
    }

    /// Starts `count` threads that allocate a buffer each. `written`: the length of the longest file that is open for writing
    /// already, so that data may come at once.
    ///
    /// # Errors
    /// Those of `start`.
    pub(super) fn start<T>(
        &self,
        count: usize,
        written: Option<u64>,
        start: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let _turn = locked(&TURN);
        // The handshake took a buffer.
        if !IS_THERE.load(Ordering::Relaxed) {
            let _ = self.starts.set(Vec::new());
            return start();
        }
        let there = match written {
            Some(length) if self.is_kept => wanted_for(usize::try_from(length).unwrap_or(usize::MAX)),
            _ => HEAD_BYTES,
        };
        self.there.store(there, Ordering::Relaxed);
        THERE_AT_ONCE.store(there, Ordering::Relaxed);
        *locked(&GATHERED) = Some(Vec::with_capacity(count));
        let started = start();
        let mut gathered = locked(&GATHERED);
        if started.is_ok() {
            let are_missing =
                |gathered: &mut Option<Vec<usize>>| gathered.as_ref().is_some_and(|all| all.len() < count);
            let waited = ARRIVED.wait_timeout_while(gathered, GATHERED_WITHIN, are_missing);
            gathered = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let starts = gathered.take().unwrap_or_default();
        drop(gathered);
        THERE_AT_ONCE.store(HEAD_BYTES, Ordering::Relaxed);
        if starts.len() < count {
            tracing::warn!(wanted = count, found = starts.len(), "a write that is under way at a kill may fail");
        }
        let _ = self.starts.set(starts);
        started
    }

    /// A file is to be open for this: requests with data may come.
    pub(super) fn announce(&self, access: Access) {
        if access.write {
            self.want(FIRST_BYTES);
        }
    }

    /// A request with so much data came: longer ones may follow.
    pub(super) fn received(&self, length: usize) {
        self.want(wanted_for(length));
    }

    fn want(&self, bytes: usize) {
        if self.is_kept
            && self.there.load(Ordering::Relaxed) < bytes
            && self.there.fetch_max(bytes, Ordering::Relaxed) < bytes
        {
            self.starts.wait().iter().for_each(|start| populate(*start, bytes));
        }
    }
}

/// How much is to be there when requests with so much data come.
fn wanted_for(length: usize) -> usize {
    if length <= FIRST_BYTES / 2 { FIRST_BYTES } else { WHOLE_BYTES }
}

/// Does what takes a buffer that is no thread's, while no session's are gathered.
pub(super) fn apart<T>(shake: impl FnOnce() -> T) -> T {
    let _turn = locked(&TURN);
    shake()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator;

    /// Which of the first `bytes` are there, by mincore(2).
    fn resident(start: usize, bytes: usize) -> usize {
        let mut pages = vec![0_u8; bytes / 4096];
        // SAFETY: asks about memory, and has a byte for each page of it.
        let asked = unsafe { libc::mincore(start as *mut libc::c_void, bytes, pages.as_mut_ptr()) };
        assert_eq!(asked, 0);
        pages.iter().filter(|page| **page & 1 == 1).count()
    }

    /// Whether the kernel gives no large pages at `start`, by proc_pid_smaps(5).
    fn has_single_pages(start: usize) -> bool {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut is_here = false;
        for line in maps.lines() {
            let ends = line.split(' ').next().and_then(|range| range.split_once('-'));
            if let Some((Ok(from), Ok(to))) =
                ends.map(|(from, to)| (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16)))
            {
                is_here = (from..to).contains(&start);
            }
            if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| is_here) {
                return flags.split_whitespace().any(|flag| flag == "nh");
            }
        }
        false
    }

    #[test]
    fn a_buffer_takes_no_more_than_is_touched_where_everybody_is_given_large_pages() {
        let buffer = apart(|| vec![0_u8; BUFFER_BYTES]);
        assert!(has_single_pages(buffer.as_ptr() as usize));
    }

    #[test]
    fn buffers_are_there_as_far_as_requests_come_and_are_zero() {
        drop(apart(|| vec![0_u8; BUFFER_BYTES]));
        for (written, at_once) in [(None, HEAD_BYTES), (Some(100), FIRST_BYTES), (Some(1 << 20), WHOLE_BYTES)] {
            let buffers = Buffers::new(true);
            let make = || Ok([vec![0_u8; BUFFER_BYTES], vec![0_u8; BUFFER_BYTES]]);
            let made = buffers.start(2, written, make).unwrap();
            let starts = made.each_ref().map(|buffer| buffer.as_ptr() as usize);
            assert_eq!(buffers.starts.get().unwrap(), &starts);
            let there = || starts.map(|start| resident(start, BUFFER_BYTES) * 4096);
            assert_eq!(there(), [at_once; 2]);
            buffers.announce(Access { read: true, ..Access::default() });
            assert_eq!(there(), [at_once; 2]);
            buffers.announce(Access { write: true, ..Access::default() });
            buffers.received(4096);
            assert_eq!(there(), [at_once.max(FIRST_BYTES); 2]);
            buffers.received(128 << 10);
            assert_eq!(there(), [WHOLE_BYTES; 2]);
            assert!(made.iter().flatten().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_block_may_grow_to_a_buffers_size_and_shrink_from_it() {
        let mut block = vec![7_u8; 100];
        block.reserve_exact(BUFFER_BYTES - 100);
        block.resize(BUFFER_BYTES, 9);
        block.extend([1; 100]);
        block.truncate(BUFFER_BYTES);
        block.shrink_to_fit();
        block.truncate(1000);
        block.shrink_to_fit();
        assert_eq!(&block[..100], &[7; 100]);
        assert_eq!(&block[100..], &[9; 900]);
    }
}
