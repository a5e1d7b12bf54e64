//! A program that runs beside the test, with all that it starts. Ended with the value, whatever happens.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How often we look.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a program may take to start or to end on a machine that is shared with a build.
const PATIENCE: Duration = Duration::from_secs(120);

/// See the module's doc.
pub struct Background {
    child: Child,
    said: PathBuf,
}

impl Background {
    /// Starts `command`; what it prints goes to the file `said`, what it complains beside it.
    pub fn start(command: &mut Command, said: &Path) -> Self {
        let out = File::create(said).unwrap();
        let complaints = File::create(said.with_extension("err")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(out).stderr(complaints).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program()));
        Self { child, said: said.to_owned() }
    }

    /// What it printed so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.said).unwrap()).into_owned()
    }

    /// What it complained so far.
    pub fn complained(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.said.with_extension("err")).unwrap()).into_owned()
    }

    /// Waits until `holds`; the program must not end before.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?} before {what}: {}{}", self.said(), self.complained());
            assert!(began.elapsed() < PATIENCE, "not {what} in {PATIENCE:?}: {}{}", self.said(), self.complained());
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Whether it has ended well.
    pub fn succeeded(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some_and(|status| status.success())
    }

    /// Kills it and all its descendants with SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        if self.child.try_wait().unwrap().is_some() {
            return; // Its number may be another's by now.
        }
        // Before the parent: its children would get another one. Servers put theirs into sessions of their own, so that
        // the process group does not reach them.
        for process in descendants(self.child.id()).into_iter().chain([self.child.id()]) {
            let _ = kill(Pid::from_raw(process.cast_signed()), Signal::SIGKILL);
        }
        self.child.wait().unwrap();
    }

    /// Asks it to end with `signal`, and waits. `false` when it had to be killed.
    pub fn end_with(&mut self, signal: Signal) -> bool {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
        self.ends()
    }

    /// Waits for its own end. `false` when it had to be killed.
    pub fn ends(&mut self) -> bool {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            thread::sleep(LOOK_EVERY);
        }
        self.kill();
        false
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The processes that `process` has started, and those that they have.
fn descendants(process: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut waiting = vec![process];
    while let Some(parent) = waiting.pop() {
        // Each thread has its own list.
        for thread in fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            let children = children.split_whitespace().filter_map(|number| number.parse::<u32>().ok());
            for child in children {
                found.push(child);
                waiting.push(child);
            }
        }
    }
    found
}
