//! flock(2) and fcntl(2) between processes. The others are forked: no program is needed for them.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, Flock, FlockArg, fcntl},
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, fork},
};

use crate::world;

/// A waiter who still waits after it does wait.
const WAITS: Duration = Duration::from_millis(300);
/// A waiter is told within it.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

/// A lock of bytes, as fcntl(2) takes it.
pub(crate) fn range(kind: libc::c_int, start: i64, length: i64) -> libc::flock {
    // SAFETY: all zeros is a valid value of this plain struct; its fields are set below.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    (lock.l_start, lock.l_len) = (start, length);
    lock
}

/// What another process gets that opens the file and locks these bytes without waiting: 0, or an errno.
fn another_process_locks(path: &Path, start: i64, length: i64) -> Errno {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let lock = range(libc::F_WRLCK, start, length);
    // SAFETY: the child calls nothing but system calls, on what was made before.
    match unsafe { fork() }.unwrap() {
        // SAFETY: as above; the path ends with NUL.
        ForkResult::Child => unsafe {
            let file = libc::open(path.as_ptr(), libc::O_RDWR);
            let failed = file < 0 || libc::fcntl(file, libc::F_SETLK, &raw const lock) < 0;
            libc::_exit(if failed { *libc::__errno_location() } else { 0 })
        },
        ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, code) => Errno::from_raw(code),
            other => panic!("{other:?}"),
        },
    }
}

#[test]
fn flock_keeps_other_openings_out_and_a_waiter_gets_it_when_it_is_free() {
    let world = world();
    let mount = world.mount(&[]);
    let path = mount.path("lock");
    let held = Flock::lock(File::create(&path).unwrap(), FlockArg::LockExclusive).unwrap();
    let try_lock = |kind| Flock::lock(File::open(&path).unwrap(), kind).map_err(|(_, errno)| errno);
    assert_eq!(try_lock(FlockArg::LockExclusiveNonblock).map(drop), Err(Errno::EWOULDBLOCK));
    assert_eq!(try_lock(FlockArg::LockSharedNonblock).map(drop), Err(Errno::EWOULDBLOCK));
    let (got, hear) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| got.send(try_lock(FlockArg::LockShared).map(drop)).unwrap());
        assert!(hear.recv_timeout(WAITS).is_err(), "it did not wait");
        drop(held);
        assert_eq!(hear.recv_timeout(TOLD_WITHIN), Ok(Ok(())), "a waiter is not told");
    });
    let shared = try_lock(FlockArg::LockSharedNonblock).unwrap();
    assert_eq!(try_lock(FlockArg::LockSharedNonblock).map(drop), Ok(()));
    assert_eq!(try_lock(FlockArg::LockExclusiveNonblock).map(drop), Err(Errno::EWOULDBLOCK));
    drop(shared);
    mount.unmount();
}

#[test]
fn fcntl_locks_bytes_between_processes_and_does_not_see_flock() {
    let world = world();
    let mount = world.mount(&[]);
    let path = mount.path("f");
    fs::write(&path, b"0123456789").unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let flocked = Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusive).unwrap();
    fcntl(&file, FcntlArg::F_SETLK(&range(libc::F_WRLCK, 0, 0))).expect("flock and fcntl do not meet");
    fcntl(&file, FcntlArg::F_SETLK(&range(libc::F_UNLCK, 5, 0))).unwrap();
    assert_eq!(another_process_locks(&path, 4, 1), Errno::EAGAIN, "byte 4 is locked");
    assert_eq!(another_process_locks(&path, 5, 2), Errno::from_raw(0), "byte 5 was given up");
    // The other process has ended, and holds nothing.
    fcntl(&file, FcntlArg::F_SETLK(&range(libc::F_WRLCK, 5, 2))).unwrap();
    assert_eq!(another_process_locks(&path, 5, 2), Errno::EAGAIN);
    // POSIX: closing any descriptor of the file gives up all of the process's locks.
    drop(File::open(&path).unwrap());
    assert_eq!(another_process_locks(&path, 0, 0), Errno::from_raw(0));
    drop((file, flocked));
    mount.unmount();
}
