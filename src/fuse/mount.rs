//! Opens /dev/fuse and mounts it. We do this and not fuser, so that the descriptor can outlive a process later (takeover)
//! and every refusal has its own sentence. Knows nothing of requests.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use super::{Error, SessionOptions};

/// Largest request in either direction: what kernels allow without a changed sysctl (fs.fuse.max_pages_limit, 256 pages),
/// and the size of a cache block, so that a read needs at most two.
pub(super) const REQUEST_BYTES_MAX: u32 = 1 << 20;

/// File system type as `mount` and `findmnt` show it.
const TYPE: &str = "fuse.azblob-csi";

/// The mount point as the kernel will name it, checked to be a directory.
///
/// # Errors
/// [`Error::NoMountPoint`], [`Error::NotADirectory`], [`Error::DeadMount`], [`Error::MountPoint`].
pub(super) fn check_mount_point(path: &Path) -> Result<PathBuf, Error> {
    let failed = |source: io::Error| match source.raw_os_error() {
        Some(libc::ENOENT) => Error::NoMountPoint(path.to_owned()),
        Some(libc::ENOTDIR) => Error::NotADirectory(path.to_owned()),
        Some(libc::ENOTCONN | libc::ECONNABORTED) => Error::DeadMount(path.to_owned()),
        _ => Error::MountPoint { path: path.to_owned(), source },
    };
    let full = path.canonicalize().map_err(failed)?;
    if !full.metadata().map_err(failed)?.is_dir() {
        return Err(Error::NotADirectory(path.to_owned()));
    }
    Ok(full)
}

/// Mounts on `mount_point` (as [`check_mount_point`] returned it). The kernel's first request waits in the descriptor.
///
/// # Errors
/// [`Error::NoDevice`], [`Error::NotPermitted`], [`Error::Refused`].
pub(super) fn mount_at(mount_point: &Path, options: &SessionOptions) -> Result<OwnedFd, Error> {
    let device = open_device(mount_point)?;
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    flags.set(MsFlags::MS_RDONLY, options.read_only);
    flags.set(MsFlags::MS_NOEXEC, options.no_exec);
    flags.set(MsFlags::MS_NOATIME, options.no_atime);
    let data = kernel_options(&device, options);
    let mounted = mount(Some(options.source.as_str()), mount_point, Some(TYPE), flags, Some(data.as_str()));
    match mounted {
        Ok(()) => Ok(OwnedFd::from(device)),
        Err(errno @ (Errno::EPERM | Errno::EACCES)) => Err(Error::NotPermitted(mount_point.to_owned(), errno.into())),
        Err(errno @ Errno::ENODEV) => Err(Error::NoDevice(errno.into())),
        Err(errno) => Err(Error::Refused(mount_point.to_owned(), errno.into())),
    }
}

fn open_device(mount_point: &Path) -> Result<File, Error> {
    OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => Error::NotPermitted(mount_point.to_owned(), source),
        _ => Error::NoDevice(source),
    })
}

/// The option text of fs/fuse/inode.c. Permissions are checked by the kernel (default_permissions): it then asks us for
/// attributes instead of asking for every access.
fn kernel_options(device: &File, options: &SessionOptions) -> String {
    let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
    let mut text = format!(
        "fd={},rootmode=40000,user_id={user},group_id={group},default_permissions,max_read={REQUEST_BYTES_MAX}",
        device.as_raw_fd()
    );
    if options.allow_other {
        text.push_str(",allow_other");
    }
    text
}

/// Unmounts; `detach` takes the mount out of the tree at once and leaves it to those who still use it.
///
/// # Errors
/// EBUSY while it is in use, EINVAL when nothing is mounted there (any more).
pub(super) fn unmount(mount_point: &Path, detach: bool) -> Result<(), Errno> {
    let mut flags = MntFlags::UMOUNT_NOFOLLOW;
    flags.set(MntFlags::MNT_DETACH, detach);
    umount2(mount_point, flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_that_cannot_be_one_is_named_with_the_fix() {
        let scratch = tempfile::tempdir().unwrap();
        let missing = scratch.path().join("missing");
        let text = check_mount_point(&missing).unwrap_err().to_string();
        assert!(text.contains("missing") && text.contains("mkdir -p"), "{text}");
        let file = scratch.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(check_mount_point(&file), Err(Error::NotADirectory(_))));
        assert!(matches!(check_mount_point(&file.join("below")), Err(Error::NotADirectory(_))));
        assert_eq!(check_mount_point(scratch.path()).unwrap(), scratch.path().canonicalize().unwrap());
    }
}
