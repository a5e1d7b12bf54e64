//! A fresh mount of ours or of a peer, for one run of one job. Ended and unmounted with the value.

use std::{
    collections::BTreeSet,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Child,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use super::{
    driver::{Directories, Driver, Profile},
    process,
    service::Service,
};

/// Longest wait for a mount to be there, and for its end: a peer may upload what is left.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// See [`READY_WITHIN`].
const END_WITHIN: Duration = Duration::from_secs(60);
/// Longest life of a mount: what hangs is killed then, and the system calls that wait for it fail.
const LIVES_AT_MOST: Duration = Duration::from_secs(420);
/// How often we look.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// See the module's doc.
pub struct Mount {
    child: Child,
    at: Directories,
    // Holds both directories of `at`.
    _directory: tempfile::TempDir,
    /// Dropped with the mount, which tells the watchdog that it is over.
    _over: mpsc::Sender<()>,
}

impl Mount {
    /// Starts it and waits until it is there.
    ///
    /// # Errors
    /// When it ends, or is not there in time.
    pub fn start(driver: &Driver, service: &Service, profile: Profile, args: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let at = Directories { mountpoint: directory.path().join("mnt"), cache: directory.path().join("cache") };
        std::fs::create_dir(&at.mountpoint)?;
        std::fs::create_dir(&at.cache)?;
        let mut command = driver.command(service, profile, args, &at);
        // A group of its own: the watchdog ends all of it.
        let child = command.process_group(0).spawn().with_context(|| format!("cannot start {}", driver.name()))?;
        let (over, watched) = mpsc::channel();
        watch(child.id(), watched);
        let mut mount = Self { child, at, _directory: directory, _over: over };
        let deadline = Instant::now() + READY_WITHIN;
        while !is_mounted(&mount.at.mountpoint)? {
            if let Some(status) = mount.child.try_wait()? {
                bail!("{} did not mount: {status}; its log is above", driver.name());
            }
            if Instant::now() > deadline {
                bail!("{} did not mount within {READY_WITHIN:?}", driver.name());
            }
            thread::sleep(LOOK_EVERY);
        }
        // It is there; whether it answers shows a question about its root, which no job measures.
        std::fs::metadata(&mount.at.mountpoint).with_context(|| format!("{} does not answer", driver.name()))?;
        Ok(mount)
    }

    /// A path below its root.
    pub fn path(&self, name: &str) -> PathBuf {
        self.at.mountpoint.join(name)
    }

    /// Its processes.
    pub fn processes(&self) -> BTreeSet<u32> {
        process::family(self.child.id())
    }
}

/// Kills a process group that lives too long.
fn watch(group: u32, over: mpsc::Receiver<()>) {
    thread::spawn(move || {
        if over.recv_timeout(LIVES_AT_MOST) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("a mount lived for {LIVES_AT_MOST:?}: it hangs, and is killed");
            let _ = killpg(Pid::from_raw(group.cast_signed()), Signal::SIGKILL);
        }
    });
}

/// Whether something is mounted there: never asked of the mount itself, which may not answer yet.
fn is_mounted(point: &Path) -> Result<bool> {
    let text = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().any(|line| line.split(' ').nth(4).is_some_and(|field| Path::new(field) == point)))
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let deadline = Instant::now() + END_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
                let _ = self.child.wait();
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
        // Nothing is there any more unless the mount was killed; tempfile must not delete through it then.
        let _ = umount2(&self.at.mountpoint, MntFlags::MNT_DETACH);
    }
}
