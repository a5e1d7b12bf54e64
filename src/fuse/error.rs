//! Why a mount could not be made or ended, said so that whoever reads it knows what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    finding::{Diagnosis, Finding},
    fs,
};

/// A failure of mounting or unmounting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The mount point does not exist.
    #[error("cannot mount on {0}: there is no such directory; create it (mkdir -p) first")]
    NoMountPoint(PathBuf),
    /// The mount point is a file.
    #[error("cannot mount on {0}: it is not a directory")]
    NotADirectory(PathBuf),
    /// A FUSE mount whose process has gone is still there.
    #[error("cannot mount on {0}: a mount whose process has ended is still there; run `umount -l {0}` first")]
    DeadMount(PathBuf),
    /// The mount point cannot be looked at.
    #[error("cannot mount on {path}: the directory cannot be accessed")]
    MountPoint {
        /// The mount point.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No /dev/fuse.
    #[error("{}", Finding::NoFuseDevice.with(&[]))]
    NoDevice(#[source] io::Error),
    /// /dev/fuse or mount(2) refuses.
    #[error("{}", not_permitted(.0))]
    NotPermitted(PathBuf, #[source] io::Error),
    /// mount(2) failed otherwise.
    #[error("cannot mount on {0}: the kernel refuses")]
    Refused(PathBuf, #[source] io::Error),
    /// The kernel and we could not agree on the protocol.
    #[error("cannot serve {0}: the FUSE handshake failed")]
    Handshake(PathBuf, #[source] io::Error),
    /// Data could not be saved before unmounting; what became of it.
    #[error("{0} was unmounted, but not everything could be saved: {1}")]
    Unsaved(PathBuf, String, #[source] Option<fs::Error>),
    /// umount(2) failed.
    #[error("cannot unmount {0}")]
    Unmount(PathBuf, #[source] io::Error),
}

fn not_permitted(mount_point: &Path) -> Diagnosis {
    Finding::MountNotPermitted.with(&[("place", &format!(" on {}", mount_point.display()))])
}
