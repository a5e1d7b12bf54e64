//! A running `azblob-csi keeper`. Dropping it kills the process, whatever happened.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::program::{driver, wait_until};

/// It starts and ends, and says what a test waits for, within this time.
const WITHIN: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// See the module's doc.
pub struct Keeper {
    child: Child,
    log: PathBuf,
}

impl Keeper {
    /// Starts the driver at `binary` as the keeper of `socket`, and waits for its `ready`. Its log is beside the socket.
    #[track_caller]
    #[must_use]
    pub fn start(binary: &str, socket: &Path, args: &[&str]) -> Self {
        let log = socket.with_extension("log");
        let mut command = driver(binary);
        command.args(["keeper", "--socket"]).arg(socket).args(args);
        let stderr = File::create(&log).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let mut said = String::new();
        // Ends with the process, if it does not get ready.
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let keeper = Self { child, log };
        assert_eq!(said, "ready\n", "{command:?}: {}", keeper.log());
        keeper
    }

    /// The number of its process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
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
        let end = Instant::now() + WITHIN;
        loop {
            let log = self.log();
            if log.contains(text) {
                return log;
            }
            assert!(Instant::now() < end, "{text:?} was not logged within {WITHIN:?}: {log}");
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// What it has resident now, in bytes (VmRSS).
    #[must_use]
    pub fn rss_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Ends it with a signal. Returns its exit code (`None` when it was killed) and its log.
    #[track_caller]
    pub fn end_with(mut self, signal: Signal) -> (Option<i32>, String) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
        let status = wait_until(&mut self.child, Instant::now() + WITHIN);
        let Some(status) = status else { panic!("{signal} did not end the keeper: {}", self.log()) };
        (status.code(), self.log())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
