//! A running `azblob-csi mount`. Dropping it ends the process and detaches the mount, whatever happened.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    length,
    mountinfo::detach_below,
    role::{Ended, Role},
};

/// Longest life of a mount in a short and in a long test. One that hangs is killed then: the system calls that wait for it
/// fail, and the test with them.
const LIVES_AT_MOST: Duration = Duration::from_secs(300);
const LIVES_LONG_AT_MOST: Duration = Duration::from_secs(3 * 3600);

/// See the module's doc.
pub struct Mount {
    role: Role,
    point: PathBuf,
    /// Dropped with the mount, which tells the watchdog that it is over.
    _over: mpsc::Sender<()>,
    /// The mount is somebody else's.
    is_left: bool,
}

/// Kills the process when `over` is not dropped in time.
fn watch(process: u32, life: Option<Duration>, over: mpsc::Receiver<()>) {
    let lives_at_most = life.unwrap_or_else(|| length().of(LIVES_AT_MOST, LIVES_LONG_AT_MOST));
    thread::spawn(move || {
        if over.recv_timeout(lives_at_most) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("the mount of process {process} lived for {lives_at_most:?}: it hangs, and is killed");
            let _ = kill(Pid::from_raw(process.cast_signed()), Signal::SIGKILL);
        }
    });
}

impl Mount {
    /// Starts `command`, which mounts on `point`, and waits for its `ready`. It lives for `life` at most.
    #[track_caller]
    pub(crate) fn start(mut command: Command, point: PathBuf, log: &Path, life: Option<Duration>) -> Self {
        let (role, said) = Role::start(&mut command, log);
        let (over, watched) = mpsc::channel();
        watch(role.process(), life, watched);
        let mount = Self { role, point, _over: over, is_left: false };
        mount.role.wait_until_ready(&said);
        mount
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.point
    }

    /// The number of its process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.role.process()
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.role.log()
    }

    /// Waits until it has logged `text`; returns what it logged so far.
    #[track_caller]
    #[must_use]
    pub fn wait_for_log(&self, text: &str) -> String {
        self.role.wait_for_log(text)
    }

    /// Most memory that it has had resident so far, in bytes (VmHWM).
    #[must_use]
    pub fn peak_rss_bytes(&self) -> u64 {
        self.role.memory_bytes("VmHWM")
    }

    /// How often each of its threads, by number, has gone to sleep so far: as often they were woken.
    #[must_use]
    pub fn wakeups(&self) -> BTreeMap<u32, u64> {
        let of_thread = |thread: fs::DirEntry| -> Option<(u32, u64)> {
            let status = fs::read_to_string(thread.path().join("status")).ok()?;
            let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            Some((thread.file_name().to_str()?.parse().ok()?, count.trim().parse().ok()?))
        };
        let threads = fs::read_dir(format!("/proc/{}/task", self.role.process())).unwrap();
        threads.flatten().filter_map(of_thread).collect()
    }

    /// Kills it (SIGKILL) and waits for its end. The mount stays, with nobody who serves it, until it is detached or this
    /// value goes.
    pub fn kill(&mut self) {
        self.role.kill();
    }

    /// Ends it as an operator does (SIGTERM); it must save, unmount and exit with 0.
    #[track_caller]
    pub fn unmount(self) -> Ended {
        let ended = self.end_with(Signal::SIGTERM);
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        ended
    }

    /// Ends it with a signal and waits.
    #[track_caller]
    pub fn end_with(mut self, signal: Signal) -> Ended {
        self.role.end_with(signal)
    }

    /// Ends the process with a signal and leaves the mount to the next one, which a keeper makes possible. Returns its log.
    #[track_caller]
    #[must_use]
    pub fn leave(mut self, signal: Signal) -> String {
        let ended = self.role.end_with(signal);
        self.is_left = true;
        ended.log
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        self.role.kill();
        // After SIGKILL the kernel keeps the mount, answering ENOTCONN, until somebody takes it away.
        detach_below(&self.point);
    }
}
