//! What the kernel asked of a volume, and how that went: relaxed counters that metrics read. Knows nothing of who asks.

use std::time::Duration;

use crate::{
    sync::Mutex,
    telemetry::metrics::{Counter, DATA_PATH_BOUNDS, Distribution, Histogram},
};

macro_rules! operations {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// A request of the kernel.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Operation {
            $(
                #[doc = concat!("FUSE `", $text, "`.")]
                $name,
            )*
        }

        impl Operation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As the kernel's interface calls it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

operations! {
    Lookup = "lookup",
    Forget = "forget",
    Getattr = "getattr",
    Setattr = "setattr",
    Readlink = "readlink",
    Mknod = "mknod",
    Mkdir = "mkdir",
    Unlink = "unlink",
    Rmdir = "rmdir",
    Symlink = "symlink",
    Rename = "rename",
    Open = "open",
    Create = "create",
    Read = "read",
    Write = "write",
    Flush = "flush",
    Release = "release",
    Fsync = "fsync",
    Opendir = "opendir",
    Readdir = "readdir",
    Readdirplus = "readdirplus",
    Releasedir = "releasedir",
    Fsyncdir = "fsyncdir",
    Statfs = "statfs",
    Lseek = "lseek",
    Fallocate = "fallocate",
    CopyFileRange = "copy_file_range",
    Getlk = "getlk",
    Setlk = "setlk",
    Setxattr = "setxattr",
    Getxattr = "getxattr",
    Listxattr = "listxattr",
    Removexattr = "removexattr",
}

/// The operations of one volume, through all its views. Counters only grow.
#[derive(Debug)]
pub struct Meter {
    /// By [`Operation`].
    durations: Vec<Histogram>,
    /// Failures that a program did not ask for, by operation and errno. Rare, and few of both: nothing awaits inside.
    errors: Mutex<Vec<(Operation, i32, u64)>>,
    /// With the next, all that readers were handed. Each only grows, whoever else reads (a copy, a symbolic link).
    pub(super) hit_bytes: Counter,
    pub(super) missed_bytes: Counter,
    pub(super) written_bytes: Counter,
    pub(super) commit_failures: Counter,
    pub(super) conflicts: Counter,
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeterTotals {
    /// Bytes handed to readers that were in memory when they were asked for.
    pub hit_bytes: u64,
    /// Bytes handed to readers that had to be waited for.
    pub missed_bytes: u64,
    /// Bytes taken from writers.
    pub written_bytes: u64,
    /// Commits that failed.
    pub commit_failures: u64,
    /// Commits that met another client's change.
    pub conflicts: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            durations: Operation::ALL.iter().map(|_| Histogram::new(DATA_PATH_BOUNDS)).collect(),
            errors: Mutex::default(),
            hit_bytes: Counter::default(),
            missed_bytes: Counter::default(),
            written_bytes: Counter::default(),
            commit_failures: Counter::default(),
            conflicts: Counter::default(),
        }
    }
}

impl Meter {
    /// The kernel has its reply, `duration` after it asked.
    pub fn note(&self, operation: Operation, duration: Duration) {
        self.durations[operation as usize].observe(duration);
    }

    /// The reply was an error.
    pub fn note_error(&self, operation: Operation, errno: i32) {
        if is_answer(errno) {
            return;
        }
        let mut errors = self.errors.lock();
        match errors.iter_mut().find(|(known, of, _)| (*known, *of) == (operation, errno)) {
            Some((_, _, count)) => *count += 1,
            None => errors.push((operation, errno, 1)),
        }
    }

    /// How long the operations took that were asked for so far.
    pub fn durations(&self) -> impl Iterator<Item = (Operation, Distribution)> {
        let seen = Operation::ALL.iter().zip(&self.durations).map(|(operation, seen)| (*operation, seen.snapshot()));
        seen.filter(|(_, seen)| seen.count() > 0)
    }

    /// Failures by operation and errno.
    #[must_use]
    pub fn errors(&self) -> Vec<(Operation, i32, u64)> {
        self.errors.lock().clone()
    }

    /// Everything else.
    #[must_use]
    pub fn totals(&self) -> MeterTotals {
        MeterTotals {
            hit_bytes: self.hit_bytes.get(),
            missed_bytes: self.missed_bytes.get(),
            written_bytes: self.written_bytes.get(),
            commit_failures: self.commit_failures.get(),
            conflicts: self.conflicts.get(),
        }
    }
}

/// Whether an errno answers what the program asked, and tells nothing of the volume.
fn is_answer(errno: i32) -> bool {
    const ANSWERS: [i32; 18] = [
        libc::ENOENT,
        libc::EEXIST,
        libc::ENODATA,
        libc::ENOTEMPTY,
        libc::ENOTDIR,
        libc::EISDIR,
        libc::EAGAIN,
        libc::EROFS,
        libc::EINVAL,
        libc::ENAMETOOLONG,
        libc::ENXIO,
        libc::EBADF,
        libc::EOPNOTSUPP,
        libc::ENOSYS,
        libc::ERANGE,
        libc::EXDEV,
        libc::ELOOP,
        libc::EDEADLK,
    ];
    ANSWERS.contains(&errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_ask_for_is_no_failure() {
        let meter = Meter::default();
        meter.note_error(Operation::Lookup, libc::ENOENT);
        meter.note_error(Operation::Read, libc::EIO);
        meter.note_error(Operation::Read, libc::EIO);
        assert_eq!(meter.errors(), [(Operation::Read, libc::EIO, 2)]);
    }

    #[test]
    fn only_operations_that_were_asked_for_are_told() {
        let meter = Meter::default();
        meter.note(Operation::Removexattr, Duration::from_micros(70));
        let [(operation, seen)] = &meter.durations().collect::<Vec<_>>()[..] else { panic!() };
        assert_eq!((operation.name(), seen.count()), ("removexattr", 1));
    }
}
