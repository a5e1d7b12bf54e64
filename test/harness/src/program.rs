//! Programs with a deadline. What hangs is killed by its process group and fails the test with what it had printed.

use std::{
    fs::File,
    io::{Read as _, Seek as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// How often we look whether a program has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A program that ended by itself.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Finished {
    /// Its standard output, if it succeeded; else the test fails with all it said.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.status.success(), "{}\nstdout: {}\nstderr: {}", self.status, self.stdout, self.stderr);
        self.stdout
    }
}

/// The driver at `binary`, with an environment that configures nothing.
#[must_use]
pub fn driver(binary: &str) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AZURE_") || name.starts_with("AZBLOB_")) {
        command.env_remove(name);
    }
    command
}

/// Waits for a child until `deadline`.
pub fn wait_until(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Runs a program to its end, at most `limit` long.
#[track_caller]
pub fn run(command: &mut Command, limit: Duration) -> Finished {
    // Files, not pipes: a full pipe would stop the program, and nobody reads while we wait.
    let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(err.try_clone().unwrap())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "cannot start {:?}: {error} (make tools installs it, or the Makefile names it in its first lines)",
                command.get_program()
            )
        });
    let status = wait_until(&mut child, began + limit);
    let took = began.elapsed();
    if status.is_none() {
        let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    }
    let (stdout, stderr) = (contents(&mut out), contents(&mut err));
    let Some(status) = status else {
        panic!("{command:?} did not end within {limit:?}\nstdout: {stdout}\nstderr: {stderr}");
    };
    Finished { status, stdout, stderr, took }
}

fn contents(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
