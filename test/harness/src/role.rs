//! One role of the driver as a process that says `ready`, with its log. Dropping it kills the process, whatever happened.

use std::{
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

use crate::program::wait_until;

/// It must be ready, and one that is wrong must have failed, within this time.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Saving and unmounting takes at most this long in any test.
const END_WITHIN: Duration = Duration::from_secs(120);

/// What a test waits for in a log comes within this time, and is looked for so often.
const LOGGED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None` when it was killed.
    pub code: Option<i32>,
    /// Its log.
    pub log: String,
}

/// See the module's doc.
pub(crate) struct Role {
    child: Child,
    log: PathBuf,
}

/// Lines that a process prints.
pub(crate) struct Said(mpsc::Receiver<String>);

impl Role {
    /// Starts `command` with its log in the file `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> (Self, Said) {
        let stderr = File::create(log).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let (say, said) = mpsc::channel();
        let out = child.stdout.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = say.send(line);
            }
        });
        (Self { child, log: log.to_owned() }, Said(said))
    }

    /// Waits until it is ready.
    #[track_caller]
    pub(crate) fn wait_until_ready(&self, said: &Said) {
        match said.0.recv_timeout(READY_WITHIN) {
            Ok(line) => assert_eq!(line, "ready", "the first line on stdout"),
            Err(_) => panic!("not ready within {READY_WITHIN:?}: {}", self.log()),
        }
    }

    /// The number of its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits until it has logged `text`; returns what it logged so far.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
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

    /// What the kernel says of its memory in `field` (VmRSS, VmHWM), in bytes.
    pub(crate) fn memory_bytes(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Ends it with a signal and waits.
    #[track_caller]
    pub(crate) fn end_with(&mut self, signal: Signal) -> Ended {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
        let status = wait_until(&mut self.child, Instant::now() + END_WITHIN);
        let Some(status) = status else { panic!("{signal} did not end it in {END_WITHIN:?}: {}", self.log()) };
        Ended { code: status.code(), log: self.log() }
    }

    /// Kills it, if it runs, and waits for its end.
    pub(crate) fn kill(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.kill();
    }
}
