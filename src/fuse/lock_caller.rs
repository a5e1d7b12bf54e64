//! What the kernel knows of a thread that waits for our answer to a lock, and the library does not pass on.
//!
//! 1. FUSE_LK_FLOCK, which tells flock(2) from fcntl(2). The thread sleeps in that very system call, so its number
//!    answers (/proc/TID/syscall).
//! 2. FUSE_INTERRUPT, which the library answers with ENOSYS: from then on the kernel sends none, and a thread that waits
//!    for us cannot even be killed (request_wait_answer in fs/fuse/dev.c). So we look at its pending signals
//!    (/proc/TID/status), and answer EINTR when there is one that it would take.
//!
//! Both need a /proc in which the caller is seen: the host's processes for a node plugin (hostPID). Where it is not seen,
//! a lock of a whole file excludes both calls, and a wait ends after [`UNSEEN_WAIT_MAX`].

use std::{fs, io, ops::RangeInclusive, time::Duration};

use crate::fs::{Error, LockCall};

/// `l_len` 0: to the end of whatever the file becomes (OFFSET_MAX, include/linux/fs.h). Also the range of every flock(2).
const WHOLE_FILE: RangeInclusive<u64> = 0..=i64::MAX as u64;
/// flock(2) for 32-bit programs, on x86 and ARM alike.
const FLOCK_32_BIT: i64 = 143;
/// The thread sends its request just before it goes to sleep: so often we look again, and so long we wait in between.
const LOOKS_UNTIL_ASLEEP: u32 = 50;
const UNTIL_ASLEEP: Duration = Duration::from_millis(1);
/// How often a waiting thread's signals are looked at: what a person does not notice after Ctrl-C, and next to no load.
const SIGNAL_LOOK: Duration = Duration::from_millis(100);
/// How long a thread that we cannot see may wait: as long as a commit (DESIGN 10.14).
const UNSEEN_WAIT_MAX: Duration = Duration::from_secs(300);

/// The call that asks for a lock of `range` in `thread`.
pub(super) async fn lock_call(thread: u32, range: &RangeInclusive<u64>) -> LockCall {
    if *range != WHOLE_FILE {
        return LockCall::Fcntl;
    }
    for _ in 0..LOOKS_UNTIL_ASLEEP {
        match fs::read_to_string(format!("/proc/{thread}/syscall")).map(|text| syscall_number(&text)) {
            Ok(Some(number)) if number == libc::SYS_flock || number == FLOCK_32_BIT => return LockCall::Flock,
            Ok(Some(_)) => return LockCall::Fcntl,
            Ok(None) => tokio::time::sleep(UNTIL_ASLEEP).await,
            Err(_) => break,
        }
    }
    LockCall::Either
}

/// `running`, or the number and its arguments (Documentation/filesystems/proc.rst).
fn syscall_number(text: &str) -> Option<i64> {
    text.split_whitespace().next()?.parse().ok()
}

/// Ends when `thread` must not wait for a lock any longer, with the answer that it gets.
pub(super) async fn given_up(thread: u32) -> Error {
    let mut unseen = Duration::ZERO;
    loop {
        tokio::time::sleep(SIGNAL_LOOK).await;
        match is_signalled(thread) {
            Ok(true) => return Error::new(libc::EINTR, "a signal ended the wait for a lock"),
            Ok(false) => unseen = Duration::ZERO,
            Err(_) => unseen += SIGNAL_LOOK,
        }
        if unseen >= UNSEEN_WAIT_MAX {
            return Error::new(libc::ENOLCK, "a process that cannot be seen has waited too long for a lock");
        }
    }
}

/// Whether a signal waits for `thread` that would wake it. EINTR without one would reach the program as ERESTARTSYS.
fn is_signalled(thread: u32) -> io::Result<bool> {
    let status = |number: u32| fs::read_to_string(format!("/proc/{number}/status"));
    let signals = Signals::read(&status(thread)?);
    if signals.process == thread {
        return Ok(signals.waken_by(signals.shared));
    }
    // The kernel hands a signal of the whole process to its first thread, unless that blocks it (complete_signal in
    // kernel/signal.c); SIGKILL it gives to each.
    let first = Signals::read(&status(signals.process)?);
    Ok(signals.waken_by(signals.shared & first.blocked))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Signals {
    process: u32,
    own: u64,
    shared: u64,
    blocked: u64,
    ignored: u64,
}

impl Signals {
    fn read(status: &str) -> Self {
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map_or("", str::trim)
        };
        let set = |name| u64::from_str_radix(field(name), 16).unwrap_or_default();
        Self {
            process: field("Tgid").parse().unwrap_or_default(),
            own: set("SigPnd"),
            shared: set("ShdPnd"),
            blocked: set("SigBlk"),
            ignored: set("SigIgn"),
        }
    }

    fn waken_by(&self, shared: u64) -> bool {
        (self.own | shared) & !self.blocked & !self.ignored != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_thread_has_no_number_and_a_sleeping_one_has() {
        assert_eq!(syscall_number("running\n"), None);
        assert_eq!(syscall_number("73 0x3 0x2 0x0 0x0 0x0 0x0 0x7ffd 0x7f2c\n"), Some(73));
        assert_eq!(syscall_number("-1 0x7ffd 0x7f2c\n"), Some(-1));
    }

    #[test]
    fn only_signals_that_the_thread_would_take_end_a_wait() {
        let status = "Name:\tx\nTgid:\t5\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000002002\nSigBlk:\t0000000000002000\n\
                      SigIgn:\t0000000000001000\nSigCgt:\t0000000000000002\n";
        let signals = Signals::read(status);
        assert_eq!(signals.process, 5);
        assert!(signals.waken_by(0x2002), "SIGINT");
        assert!(!signals.waken_by(0x2000), "SIGALRM is blocked");
        assert!(!signals.waken_by(0x1000), "SIGPIPE is ignored");
        let killed = Signals { own: 1 << 8, ..Signals::default() };
        assert!(killed.waken_by(0), "SIGKILL");
    }

    #[tokio::test]
    async fn a_range_is_fcntl_and_a_thread_that_is_not_seen_is_either() {
        assert_eq!(lock_call(0, &(0..=9)).await, LockCall::Fcntl);
        assert_eq!(lock_call(0, &WHOLE_FILE).await, LockCall::Either);
    }
}
