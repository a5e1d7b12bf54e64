//! One role of the binary as a process on a socket. Dropping it ends the process, whatever happened.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use harness::program::{driver, wait_until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Time to make the socket, and to end.
const WITHIN: Duration = Duration::from_secs(30);

/// See the module's doc.
pub struct Plugin {
    role: &'static str,
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Plugin {
    /// Starts `azblob-csi <role>` with its socket and its log in `directory`, and waits for the socket. The log is a
    /// talkative one: that no secret stands in it shall mean something.
    pub fn start(role: &'static str, directory: &Path, flags: &[&str]) -> Self {
        let (socket, log) = (directory.join(format!("{role}.sock")), directory.join(format!("{role}.log")));
        let child = driver(env!("CARGO_BIN_EXE_azblob-csi"))
            .args(["--log-level", "debug", role, "--endpoint", &format!("unix://{}", socket.display())])
            .args(flags)
            .env("TMPDIR", directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut plugin = Self { role, child, socket, log };
        let deadline = Instant::now() + WITHIN;
        while !plugin.socket.exists() {
            let ended = plugin.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{role} has no socket: {ended:?} {}", plugin.log());
            thread::sleep(Duration::from_millis(10));
        }
        plugin
    }

    /// Where it serves, as gRPC clients write it.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Ends it as the kubelet does; it must exit with 0, and its log is handed back.
    pub fn terminate(mut self) -> String {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        let status = wait_until(&mut self.child, Instant::now() + WITHIN);
        let Some(status) = status else { panic!("SIGTERM did not end the {}: {}", self.role, self.log()) };
        assert!(status.success(), "the {} ended with {status}: {}", self.role, self.log());
        self.log()
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
