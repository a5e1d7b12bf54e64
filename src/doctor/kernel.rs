//! The kernel: /dev/fuse, the right to mount, passthrough, and the limit of open files. Mounts nothing.

use std::{fs, io};

use nix::sys::resource::{Resource, getrlimit};

use super::examine::Step;
use crate::finding::{Diagnosis, Finding};

/// First kernel with FUSE_PASSTHROUGH, major and minor.
const PASSTHROUGH_SINCE: (u32, u32) = (6, 9);

/// CAP_SYS_ADMIN, as a bit of CapEff (capabilities(7), linux/capability.h).
const CAP_SYS_ADMIN: u32 = 21;

/// Connections, cached files handed to the kernel and descriptors of the process itself; usual soft limits are 1024, which
/// the process raises to the hard one where it serves many volumes.
const FILES_MIN: u64 = 4096;

pub(super) fn ask() -> Step<String> {
    match look() {
        Ok(text) => Step::Done(text),
        Err(known) => Step::Failed(known),
    }
}

fn look() -> Result<String, Diagnosis> {
    let opened = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Finding::MountNotPermitted.with(&[]),
        _ => Finding::NoFuseDevice.with(&[]),
    })?;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if may_mount(&status) == Some(false) {
        return Err(Finding::MountNotPermitted.with(&[]));
    }
    let hard = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard);
    if hard < FILES_MIN {
        return Err(Finding::FileLimit.with(&[("limit", &hard.to_string())]));
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let passthrough = if has_passthrough(release) { "has" } else { "lacks" };
    Ok(format!(
        "/dev/fuse can be used; Linux {release} {passthrough} passthrough (6.9 and later); up to {hard} open files"
    ))
}

/// Whether the effective capabilities hold the one for mounting; `None` where they do not show.
fn may_mount(status: &str) -> Option<bool> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let bits = u64::from_str_radix(line.trim(), 16).ok()?;
    Some(bits >> CAP_SYS_ADMIN & 1 == 1)
}

fn has_passthrough(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) >= PASSTHROUGH_SINCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_to_mount_is_a_bit_of_the_effective_capabilities() {
        assert_eq!(may_mount("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(true));
        assert_eq!(may_mount("CapEff:\t00000000a80425fb\n"), Some(false), "a container that is not privileged");
        assert_eq!(may_mount(""), None);
    }

    #[test]
    fn passthrough_is_told_by_the_release() {
        for (release, has) in
            [("6.18.1", true), ("6.9.0-rc1", true), ("6.8.0-45-generic", false), ("7.0", true), ("x", false)]
        {
            assert_eq!(has_passthrough(release), has, "{release}");
        }
    }
}
