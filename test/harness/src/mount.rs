//! A running `azblob-csi mount`. Dropping it ends the process and detaches the mount, whatever happened.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{length, mountinfo::detach_below, program::wait_until};

/// A mount must be ready, and a wrong one must have failed, within this time.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Saving and unmounting takes at most this long in any test.
const END_WITHIN: Duration = Duration::from_secs(120);

/// What a test waits for in a log comes within this time, and is looked for so often.
const LOGGED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Longest life of a mount in a short and in a long test. One that hangs is killed then: the system calls that wait for it
/// fail, and the test with them.
const LIVES_AT_MOST: Duration = Duration::from_secs(300);
const LIVES_LONG_AT_MOST: Duration = Duration::from_secs(3 * 3600);

/// How a mount ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None` when it was killed.
    pub code: Option<i32>,
    /// Its log.
    pub log: String,
}

/// See the module's doc.
pub struct Mount {
    child: Child,
    point: PathBuf,
    log: PathBuf,
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
        let stderr = File::create(log).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let (said, hear) = mpsc::channel();
        let out = child.stdout.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        let (over, watched) = mpsc::channel();
        watch(child.id(), life, watched);
        let mount = Self { child, point, log: log.to_owned(), _over: over, is_left: false };
        match hear.recv_timeout(READY_WITHIN) {
            Ok(line) => assert_eq!(line, "ready", "the first line on stdout"),
            Err(_) => panic!("{command:?} was not ready within {READY_WITHIN:?}: {}", mount.log()),
        }
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
        self.child.id()
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits until it has logged `text`; returns what it logged so far.
    #[track_caller]
    #[must_use]
    pub fn wait_for_log(&self, text: &str) -> String {
        let end = Instant::now() + LOGGED_WITHIN;
        loop {
            let log = self.log();
            if log.contains(text) {
                return log;
            }
            assert!(Instant::now() < end, "{text:?} was not logged within {LOGGED_WITHIN:?}: {log}");
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Most memory that it has had resident so far, in bytes (VmHWM).
    #[must_use]
    pub fn peak_rss_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// How often each of its threads, by number, has gone to sleep so far: as often they were woken.
    #[must_use]
    pub fn wakeups(&self) -> BTreeMap<u32, u64> {
        let of_thread = |thread: fs::DirEntry| -> Option<(u32, u64)> {
            let status = fs::read_to_string(thread.path().join("status")).ok()?;
            let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            Some((thread.file_name().to_str()?.parse().ok()?, count.trim().parse().ok()?))
        };
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        threads.flatten().filter_map(of_thread).collect()
    }

    /// Kills it (SIGKILL) and waits for its end. The mount stays, with nobody who serves it, until it is detached or this
    /// value goes.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
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
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
        let status = wait_until(&mut self.child, Instant::now() + END_WITHIN);
        let Some(status) = status else { panic!("{signal} did not end the mount in {END_WITHIN:?}: {}", self.log()) };
        Ended { code: status.code(), log: self.log() }
    }
}

impl Mount {
    /// Ends the process with a signal and leaves the mount to the next one, which a keeper makes possible. Returns its log.
    #[track_caller]
    #[must_use]
    pub fn leave(mut self, signal: Signal) -> String {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
        let status = wait_until(&mut self.child, Instant::now() + END_WITHIN);
        assert!(status.is_some(), "{signal} did not end the mount in {END_WITHIN:?}: {}", self.log());
        self.is_left = true;
        self.log()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // After SIGKILL the kernel keeps the mount, answering ENOTCONN, until somebody takes it away.
        detach_below(&self.point);
    }
}
