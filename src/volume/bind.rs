//! Bind mounts and unmounting, bounded in time.
//!
//! Every system call that may wait for a FUSE server runs on a thread of its own and is given up on after a deadline:
//! umount(2) of a FUSE mount asks the server to flush, and a server that is stuck must not take the caller with it.
//! Decides from [`MountTable`], never from stat(2). Knows nothing of volumes.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use super::mountinfo::{MountTable, resolve};

/// How long an ordinary unmount may take before the mount is detached instead (it then vanishes from the tree at once
/// and from the kernel when its last user closes). Well inside the kubelet's two minutes for a call.
const UNMOUNT_DEADLINE: Duration = Duration::from_secs(20);

/// Pause before an unmount is tried again while the mount is busy: a process that just ended may still hold it.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// Tries of an ordinary unmount while the mount is busy. A guess: half a second covers a process that is exiting.
const BUSY_TRIES: u32 = 10;

/// More mounts than this on top of each other at one path is not something that we made.
const STACKED_MOUNTS_MAX: usize = 64;

/// What [`unmount`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// Nothing was mounted there.
    Absent,
    /// The mount was taken down in the ordinary way.
    Clean,
    /// It was busy or did not answer: it was detached, and ends with its last user.
    Detached,
}

/// Binds `source` to the existing directory `target`, read-only when asked. On error nothing stays mounted.
///
/// # Errors
/// Those of mount(2).
pub async fn bind(source: &Path, target: &Path, read_only: bool) -> io::Result<()> {
    let (source, target) = (source.to_path_buf(), target.to_path_buf());
    blocking(move || bind_now(&source, &target, read_only)).await
}

fn bind_now(source: &Path, target: &Path, read_only: bool) -> io::Result<()> {
    const NONE: Option<&str> = None;
    mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)?;
    if read_only {
        // A bind takes its flags only by a second call, which also must repeat the flags that are to stay (mount(2)).
        let flags =
            MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        if let Err(error) = mount(NONE, target, NONE, flags, NONE) {
            // A writable mount where a read-only one was asked for must not stay.
            umount2(target, MntFlags::MNT_DETACH).ok();
            return Err(error.into());
        }
    }
    Ok(())
}

/// Takes down everything that is mounted exactly at `path`, the top first. Missing paths are fine.
///
/// # Errors
/// Those of umount2(2), other than "busy" and "not mounted".
pub async fn unmount(path: &Path) -> io::Result<Unmounted> {
    let path = resolve(path)?;
    let mut outcome = Unmounted::Absent;
    for _ in 0..STACKED_MOUNTS_MAX {
        if MountTable::read()?.at(&path).is_none() {
            return Ok(outcome);
        }
        outcome = unmount_top(&path).await?;
    }
    Err(io::Error::other(format!("more than {STACKED_MOUNTS_MAX} mounts at {}", path.display())))
}

async fn unmount_top(path: &Path) -> io::Result<Unmounted> {
    let plain = path.to_path_buf();
    let ordinary = blocking(move || Ok(unmount_patiently(&plain)));
    match tokio::time::timeout(UNMOUNT_DEADLINE, ordinary).await {
        Ok(Ok(Ok(()))) => return Ok(Unmounted::Clean),
        // Not a mount point any more: somebody else was faster.
        Ok(Ok(Err(Errno::EINVAL | Errno::ENOENT))) => return Ok(Unmounted::Absent),
        Ok(Ok(Err(Errno::EBUSY))) | Err(_) => {}
        Ok(Ok(Err(errno))) => return Err(errno.into()),
        Ok(Err(error)) => return Err(error),
    }
    tracing::warn!(path = %path.display(), "the mount is busy or does not answer: detaching it");
    detach(path).await?;
    Ok(Unmounted::Detached)
}

fn unmount_patiently(path: &Path) -> Result<(), Errno> {
    for _ in 1..BUSY_TRIES {
        match umount2(path, MntFlags::UMOUNT_NOFOLLOW) {
            Err(Errno::EBUSY) => std::thread::sleep(BUSY_PAUSE),
            other => return other,
        }
    }
    umount2(path, MntFlags::UMOUNT_NOFOLLOW)
}

/// Takes the top mount at `path` out of the tree at once, whatever uses it.
///
/// # Errors
/// Those of umount2(2), other than "not mounted".
pub async fn detach(path: &Path) -> io::Result<()> {
    let path = path.to_path_buf();
    blocking(move || match umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    })
    .await
}

/// Makes the directory `path` and its parents. What is mounted there is not looked at: the caller has asked
/// [`MountTable`] first.
///
/// # Errors
/// Those of mkdir(2).
pub async fn make_directory(path: &Path) -> io::Result<()> {
    tokio::fs::create_dir_all(path).await
}

/// Removes the empty directory `path`. A missing one is fine; one with content is left alone, with an error.
///
/// # Errors
/// Those of rmdir(2), other than "missing".
pub async fn remove_directory(path: &Path) -> io::Result<()> {
    match tokio::fs::remove_dir(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What a mount says that another process serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It works.
    Works,
    /// Nobody serves it any more.
    Dead,
    /// Nothing within the deadline, or an error that may pass.
    Silent,
}

/// Asks a FUSE mount that *another* process serves by statfs(2), for at most `deadline`. The call runs on a thread that is
/// abandoned when it hangs. For our own mounts the registry knows without asking.
pub async fn ask_foreign_mount(path: &Path, deadline: Duration) -> Answer {
    let path: PathBuf = path.to_path_buf();
    let (report, answer) = tokio::sync::oneshot::channel();
    let probe = std::thread::Builder::new().name("statfs-probe".to_owned()).spawn(move || {
        report.send(nix::sys::statvfs::statvfs(&path).map(drop)).ok();
    });
    if probe.is_err() {
        return Answer::Silent;
    }
    match tokio::time::timeout(deadline, answer).await {
        Ok(Ok(Ok(()))) => Answer::Works,
        // What the kernel says of a connection whose server has gone, and of one that was aborted (fs/fuse/dev.c).
        Ok(Ok(Err(Errno::ENOTCONN | Errno::ECONNABORTED))) => Answer::Dead,
        _ => Answer::Silent,
    }
}

async fn blocking<T: Send + 'static>(call: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(call).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A temporary directory whose mounts are detached when the test ends, also when it fails.
    struct Scratch(tempfile::TempDir);

    impl Scratch {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn directory(&self, name: &str) -> PathBuf {
            let path = self.0.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let Ok(table) = MountTable::read() else { return };
            let mounts: Vec<_> = table.below(self.0.path()).map(|mount| mount.mount_point.clone()).collect();
            for mount_point in mounts.iter().rev() {
                umount2(mount_point, MntFlags::MNT_DETACH).ok();
            }
        }
    }

    #[tokio::test]
    async fn a_read_only_bind_refuses_writes_and_the_source_stays_writable() {
        let scratch = Scratch::new();
        let (source, target) = (scratch.directory("source"), scratch.directory("target dir"));
        bind(&source, &target, true).await.unwrap();
        assert!(MountTable::read().unwrap().at(&target).unwrap().read_only);
        assert!(std::fs::write(target.join("a"), "x").is_err());
        std::fs::write(source.join("a"), "x").unwrap();
        assert_eq!(std::fs::read(target.join("a")).unwrap(), b"x");
        assert_eq!(unmount(&target).await.unwrap(), Unmounted::Clean);
    }

    #[tokio::test]
    async fn stacked_mounts_are_all_taken_down_and_a_second_call_finds_nothing() {
        let scratch = Scratch::new();
        let (source, target) = (scratch.directory("source"), scratch.directory("target"));
        bind(&source, &target, false).await.unwrap();
        bind(&source, &target, false).await.unwrap();
        assert_eq!(unmount(&target).await.unwrap(), Unmounted::Clean);
        assert!(MountTable::read().unwrap().at(&target).is_none());
        assert_eq!(unmount(&target).await.unwrap(), Unmounted::Absent);
        assert_eq!(unmount(&scratch.0.path().join("no/such")).await.unwrap(), Unmounted::Absent);
    }

    #[tokio::test]
    async fn a_busy_mount_is_detached() {
        let scratch = Scratch::new();
        let (source, target) = (scratch.directory("source"), scratch.directory("target"));
        bind(&source, &target, false).await.unwrap();
        let holder = std::fs::File::create(target.join("open")).unwrap();
        assert_eq!(unmount(&target).await.unwrap(), Unmounted::Detached);
        assert!(MountTable::read().unwrap().at(&target).is_none());
        drop(holder);
    }

    #[tokio::test]
    async fn a_directory_with_content_is_not_removed() {
        let scratch = Scratch::new();
        let full = scratch.directory("full");
        std::fs::write(full.join("a"), "x").unwrap();
        assert!(remove_directory(&full).await.is_err());
        assert!(remove_directory(&full.join("missing")).await.is_ok());
        assert!(full.join("a").exists());
    }
}
