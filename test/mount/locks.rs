//! flock(2) and fcntl(2) between programs of one node.

use std::{
    fs::{self, File, OpenOptions},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use harness::program::wait_until;
use nix::{
    fcntl::{FcntlArg, Flock, FlockArg, fcntl},
    libc,
};

use crate::world;

/// None of the programs here works for longer than moments.
const LIMIT: Duration = Duration::from_secs(60);
/// Exit code that flock(1) is told to use where it does not get the lock.
const BUSY: &str = "7";

fn flock(args: &[&str], path: &Path) -> Command {
    let mut command = Command::new("flock");
    command.args(["-E", BUSY]).args(args).arg(path).arg("true");
    command
}

/// A lock of bytes, as fcntl(2) takes it.
fn range(kind: libc::c_int, start: i64, length: i64) -> libc::flock {
    // SAFETY: all zeros is a valid value of this plain struct; its fields are set below.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    (lock.l_start, lock.l_len) = (start, length);
    lock
}

/// Waits until a child sleeps in the system call that locks, so that a signal meets it there.
fn wait_until_it_locks(child: &Child) {
    let deadline = Instant::now() + LIMIT;
    let locks = |text: String| text.split(' ').next().is_some_and(|number| number == libc::SYS_flock.to_string());
    while !fs::read_to_string(format!("/proc/{}/syscall", child.id())).is_ok_and(locks) {
        assert!(Instant::now() < deadline, "it does not lock");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn flock_keeps_others_out_and_a_waiter_can_give_up_and_be_killed() {
    let world = world();
    let mount = world.mount(&[]);
    let path = mount.path("lock");
    let held = Flock::lock(File::create(&path).unwrap(), FlockArg::LockExclusive).unwrap();
    let busy = |args: &[&str]| world.run(&mut flock(args, &path), LIMIT).status.code();
    assert_eq!(busy(&["-n"]), Some(7));
    assert_eq!(busy(&["-n", "-s"]), Some(7));
    // Its alarm must end the system call: fuser answers the kernel's interrupts with ENOSYS.
    assert_eq!(busy(&["-w", "1"]), Some(7));
    let mut killed = flock(&[], &path).stdin(Stdio::null()).spawn().unwrap();
    wait_until_it_locks(&killed);
    killed.kill().unwrap();
    let ended = wait_until(&mut killed, Instant::now() + LIMIT);
    assert!(ended.is_some(), "a waiter cannot be killed");
    let mut waiting = flock(&[], &path).stdin(Stdio::null()).spawn().unwrap();
    wait_until_it_locks(&waiting);
    drop(held);
    let ended = wait_until(&mut waiting, Instant::now() + LIMIT);
    assert!(ended.is_some_and(|status| status.success()), "a waiter is not told that the lock is free: {ended:?}");
    assert_eq!(busy(&["-n"]), Some(0));
    mount.unmount();
}

#[test]
fn fcntl_locks_bytes_of_a_process_and_does_not_see_flock() {
    let world = world();
    let mount = world.mount(&[]);
    let path = mount.path("file");
    fs::write(&path, b"0123456789").unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let flocked = Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusive).unwrap();
    fcntl(&file, FcntlArg::F_SETLK(&range(libc::F_WRLCK, 0, 0))).expect("flock and fcntl do not meet");
    fcntl(&file, FcntlArg::F_SETLK(&range(libc::F_UNLCK, 5, 0))).unwrap();
    let try_lock = |start: &str| {
        let text = "import fcntl, sys; f = open(sys.argv[1], 'r+'); \
                    fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]))";
        let mut command = Command::new("python3");
        command.args(["-c", text]).arg(&path).arg(start);
        world.run(&mut command, LIMIT).status.success()
    };
    assert!(!try_lock("4"), "byte 4 is locked");
    assert!(try_lock("5"), "byte 5 was given up");
    let text = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX, 2, 7); \
                print('locked', flush=True); sys.stdin.read()";
    let mut holder = Command::new("python3")
        .args(["-c", text])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 6];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut said).unwrap();
    let mut asked = range(libc::F_WRLCK, 6, 0);
    fcntl(&file, FcntlArg::F_GETLK(&mut asked)).unwrap();
    let found = (libc::c_int::from(asked.l_type), asked.l_start, asked.l_len, asked.l_pid);
    assert_eq!(found, (libc::F_WRLCK, 7, 2, holder.id().cast_signed()));
    drop(holder.stdin.take());
    assert!(wait_until(&mut holder, Instant::now() + LIMIT).is_some());
    fcntl(&file, FcntlArg::F_SETLK(&range(libc::F_WRLCK, 7, 2))).expect("a process that ended holds nothing");
    // POSIX: closing any descriptor of the file gives up all of the process's locks.
    drop(File::open(&path).unwrap());
    assert!(try_lock("4"), "a close gives up everything");
    drop((file, flocked));
    mount.unmount();
}

#[test]
fn two_sqlite_processes_write_one_database_at_once() {
    let world = world();
    let mount = world.mount(&[]);
    let path = mount.path("shared.db");
    world.run(Command::new("sqlite3").arg(&path).arg("create table t(who, n)"), LIMIT).success();
    thread::scope(|scope| {
        for who in 0..2 {
            let mut script = "pragma busy_timeout=50000;".to_owned();
            (0..40).for_each(|n| script.push_str(&format!("insert into t values({who}, {n});")));
            let mut command = Command::new("sqlite3");
            command.arg("-bail").arg(&path).arg(script);
            let world = &world;
            scope.spawn(move || world.run(&mut command, LIMIT).success());
        }
    });
    let mut count = Command::new("sqlite3");
    count.arg(&path).arg("select count(*), count(distinct who || '-' || n) from t; pragma integrity_check");
    assert_eq!(world.run(&mut count, LIMIT).success(), "80|80\nok\n");
    mount.unmount();
}
