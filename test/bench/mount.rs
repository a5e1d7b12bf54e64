//! A fresh mount of the real binary for one measurement, and what it cost: CPU time and memory of the process, requests
//! and bytes at the service.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::{Pid, SysconfVar, sysconf},
};

use super::link::Link;

/// Longest wait for the end of a mount: it saves what is left, which is nothing after fsync.
const END_WITHIN: Duration = Duration::from_secs(60);

/// What a job did on a mount.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// In the job's unit, a second.
    pub rate: f64,
    /// Requests that the service answered.
    pub requests: u64,
    /// Bytes that the service sent and received, for each byte that the job asked for. `None` where it asks for none.
    pub amplification: Option<f64>,
    /// CPU time of the mount, in seconds.
    pub cpu_seconds: f64,
    /// Most memory that the mount had resident, in bytes.
    pub peak_rss_bytes: u64,
}

/// A running mount; ended and unmounted with the value.
pub struct Mount {
    child: Child,
    directory: tempfile::TempDir,
}

impl Mount {
    fn start(link: &Link) -> Result<Self> {
        let here = std::env::current_exe()?;
        let binary = here.parent().and_then(Path::parent).context("no build directory")?.join("azblob-csi");
        ensure!(binary.exists(), "{} is missing: run `make bench`, which builds it", binary.display());
        let directory = tempfile::tempdir()?;
        let mut child = Command::new(&binary)
            .args(["--log-level=warn", "mount", &link.url()])
            .arg(directory.path())
            .env_remove("AZURE_STORAGE_CONNECTION_STRING")
            .env_remove("AZURE_STORAGE_KEY")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let out = child.stdout.take().context("no stdout")?;
        let mount = Self { child, directory };
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "the mount did not get ready; its log is above");
        Ok(mount)
    }

    /// A path below its root.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn cpu_seconds(&self) -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // Behind the name in parentheses: utime and stime are fields 14 and 15, in clock ticks (proc(5)).
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 =
            fields.get(11..13).context("short /proc/PID/stat")?.iter().flat_map(|text| text.parse::<u64>()).sum();
        let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
        Ok(ticks as f64 / per_second as f64)
    }

    fn peak_rss_bytes(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let deadline = Instant::now() + END_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Nothing is there any more unless the mount was killed; tempfile must not delete through it then.
        let _ = umount2(self.directory.path(), MntFlags::MNT_DETACH);
    }
}

/// Runs `job` on a fresh mount. It returns how many units it did and how many bytes it asked for; `prepare` is not
/// measured.
pub fn measure<T>(
    link: &Link,
    prepare: impl FnOnce(&Mount) -> Result<T>,
    job: impl FnOnce(&Mount, T) -> Result<(f64, u64)>,
) -> Result<Measured> {
    let mount = Mount::start(link)?;
    let prepared = prepare(&mount)?;
    link.emulator.reset_counters();
    let (cpu_before, began) = (mount.cpu_seconds()?, Instant::now());
    let (units, asked) = job(&mount, prepared)?;
    let took = began.elapsed().as_secs_f64();
    let counters = link.emulator.counters();
    let moved: u64 = counters.operations.values().map(|operation| operation.bytes_in + operation.bytes_out).sum();
    Ok(Measured {
        rate: units / took,
        requests: counters.total(),
        amplification: (asked > 0).then(|| moved as f64 / asked as f64),
        cpu_seconds: mount.cpu_seconds()? - cpu_before,
        peak_rss_bytes: mount.peak_rss_bytes()?,
    })
}
