//! A second process of a test, for what must be open in another than the one that starts mounts (see `harness::Kept`). It runs
//! the same test, which finds a [`Stage`] there and plays its part: step by step, as the first process says.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use harness::program::wait_until;

/// Tells the second process where the mount is.
const ROOT: &str = "KERNEL_TEST_PLAYS_IN";
/// Begins a line that the first process is to hear.
const MARK: &str = "--> ";

/// What is waited for hangs if it takes longer.
pub(crate) const HANGS_AFTER: Duration = Duration::from_secs(120);
/// A process that was killed ends within it, unless a call that nobody answers holds it.
const DIES_WITHIN: Duration = Duration::from_secs(5);

/// The second process, seen from itself.
pub(crate) struct Stage {
    root: PathBuf,
}

impl Stage {
    /// Where this is the second process.
    pub(crate) fn of_this_process() -> Option<Self> {
        std::env::var_os(ROOT).map(|root| Self { root: root.into() })
    }

    /// The mount.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path in the mount.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Tells the first process.
    pub(crate) fn say(&self, what: &str) {
        // Unlike stdout, nobody but us writes here.
        eprintln!("{MARK}{what}");
    }

    /// Tells it, and waits until it says to go on.
    pub(crate) fn pause(&self, what: &str) {
        self.say(what);
        let read = std::io::stdin().read_line(&mut String::new()).unwrap();
        assert!(read > 0, "the first process is gone");
    }
}

/// The second process, seen from the first. It is killed when this goes.
pub(crate) struct Player {
    child: Child,
    orders: ChildStdin,
    said: mpsc::Receiver<String>,
    /// What it complained of.
    log: String,
}

impl Player {
    /// Starts the part of the second process in `test` (its full name).
    #[track_caller]
    pub(crate) fn start(test: &str, root: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROOT, root);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (orders, errors) = (child.stdin.take().unwrap(), child.stderr.take().unwrap());
        let (say, said) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                let _ = say.send(line);
            }
        });
        Self { child, orders, said, log: String::new() }
    }

    /// What it says next, if it does within `limit`.
    fn next(&mut self, limit: Duration) -> Option<String> {
        let end = Instant::now() + limit;
        while let Ok(line) = self.said.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if let Some(said) = line.strip_prefix(MARK) {
                return Some(said.to_owned());
            }
            self.log += &line;
            self.log.push('\n');
        }
        None
    }

    /// Waits until it says something that begins with `what`; returns the rest of that.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, what: &str) -> String {
        match self.next(HANGS_AFTER) {
            Some(said) => match said.strip_prefix(what) {
                Some(rest) => rest.trim().to_owned(),
                None => panic!("{what:?} was to come, not {said:?}"),
            },
            None => panic!("{what:?} did not come, something hangs or has failed: {}", self.log),
        }
    }

    /// Fails when it says anything within `time`.
    #[track_caller]
    pub(crate) fn is_silent_for(&mut self, time: Duration) {
        if let Some(said) = self.next(time) {
            panic!("{said:?} is too early");
        }
    }

    /// Has it go on behind a pause.
    pub(crate) fn go(&mut self) {
        self.orders.write_all(b"\n").unwrap();
    }

    /// Waits for its end, which is that of a test that passes.
    #[track_caller]
    pub(crate) fn success(mut self) {
        let status = wait_until(&mut self.child, Instant::now() + HANGS_AFTER);
        while self.next(DIES_WITHIN).is_some() {}
        let Some(status) = status else { panic!("it does not end: {}", self.log) };
        assert!(status.success(), "{status}: {}", self.log);
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // Where a test fails between two processes, the player may wait for the next one, which does not come.
        let _ = wait_until(&mut self.child, Instant::now() + DIES_WITHIN);
    }
}
