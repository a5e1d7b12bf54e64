//! How the threads that read requests stop, for a process that leaves its mount to the next one.
//!
//! | the kernel | a request that was read and not answered | so |
//! |---|---|---|
//! | sends it again (Linux 6.9) | is the next process's | [`Gate::close`]: nothing that was read is begun any more |
//! | does not | fails | [`Gate::drain`]: each thread goes on with what it has read, and reads no more |
//!
//! A thread in read(2) cannot be told to stop: the library reads again. So each is given something to read.

use std::{ffi::CString, os::unix::ffi::OsStrExt as _, path::Path, thread};

use tokio::sync::watch;

use crate::sync::{AtomicBool, Ordering};

/// See the module's doc.
#[derive(Debug)]
pub(super) struct Gate {
    is_closed: AtomicBool,
    is_leaving: AtomicBool,
    /// Threads that read.
    threads: usize,
    /// Those of them that read no more.
    retired: watch::Sender<usize>,
}

impl Gate {
    /// For so many threads.
    pub(super) fn new(threads: usize) -> Self {
        let (is_closed, is_leaving) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { is_closed, is_leaving, threads, retired: watch::Sender::new(0) }
    }

    /// Nothing new is begun: whoever brought it waits, for ever. The process is about to end.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Waits while it is closed.
    pub(super) fn pass(&self) {
        while self.is_closed.load(Ordering::Acquire) {
            thread::park();
        }
    }

    /// Whether threads retire.
    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Acquire)
    }

    /// The end of a request on the thread that has read it. Does not return when the process is about to end.
    pub(super) fn retire(&self) {
        if !self.is_leaving() {
            return;
        }
        self.retired.send_modify(|count| *count += 1);
        loop {
            thread::park();
        }
    }

    /// Has all threads retire, and waits for that. Cancel-safe. The process must end next.
    pub(super) async fn drain(&self, mount_point: &Path) {
        self.is_leaving.store(true, Ordering::Release);
        let mut retired = self.retired.subscribe();
        for _ in 0..self.threads {
            ask(mount_point);
        }
        // The sender is ours.
        let _ = retired.wait_for(|count| *count >= self.threads).await;
    }
}

/// Asks the mount for its root, on a thread that may wait for the answer until the process ends: a request that nobody has read
/// goes with who made it.
fn ask(mount_point: &Path) {
    let Ok(path) = CString::new(mount_point.as_os_str().as_bytes()) else { return };
    let asking = move || {
        let mut found = std::mem::MaybeUninit::<libc::statx>::uninit();
        // What the kernel remembers would not do.
        let flags = libc::AT_STATX_FORCE_SYNC | libc::AT_NO_AUTOMOUNT;
        // SAFETY: the path ends with NUL, and there is room for the answer, which nobody reads.
        unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, libc::STATX_SIZE, found.as_mut_ptr()) };
    };
    // Without it, a thread that nothing comes for goes on reading until the process ends.
    let _ = thread::Builder::new().name("leaving".to_owned()).spawn(asking);
}
