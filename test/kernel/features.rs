//! What kernels can do by their release, and that the driver uses just what its kernel has.

use std::{fs, os::fd::AsFd as _, os::fd::AsRawFd as _};

use azblob_csi::fuse::handshake;
use fuser::InitFlags;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::read,
};

use crate::world;

/// What came with which release (fs/fuse/inode.c, fuse_send_init). Distributions take small things back to older ones, such as
/// FUSE_HAS_EXPIRE_ONLY of 6.2 to Debian's 6.1; not these.
const SINCE: [(InitFlags, (u32, u32)); 4] = [
    (InitFlags::FUSE_PASSTHROUGH, (6, 9)),
    (InitFlags::FUSE_HAS_RESEND, RESEND_SINCE),
    (InitFlags::FUSE_ALLOW_IDMAP, (6, 12)),
    (InitFlags::FUSE_OVER_IO_URING, (6, 14)),
];
const RESEND_SINCE: (u32, u32) = (6, 9);

/// What every kernel from 5.15 on has, and the driver relies on.
const ALWAYS: [InitFlags; 8] = [
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_POSIX_LOCKS,
    InitFlags::FUSE_FLOCK_LOCKS,
];

/// What would take sizes, times or bytes out of the driver's hands.
const NEVER: [InitFlags; 2] = [InitFlags::FUSE_WRITEBACK_CACHE, InitFlags::FUSE_ATOMIC_O_TRUNC];

/// Major and minor number of this kernel's release.
fn release() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text.split(['.', '-', '\n']).map_while(|number| number.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// A mount that nobody answers: a descriptor of FUSE in the state in which a driver finds it.
struct Unanswered {
    point: tempfile::TempDir,
    device: fs::File,
}

impl Unanswered {
    fn new() -> Self {
        let point = tempfile::tempdir().unwrap();
        let device = fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("test"), point.path(), Some("fuse.azblob-csi"), flags, Some(data.as_str())).unwrap();
        Self { point, device }
    }

    /// What the kernel offers in its first message.
    fn offered(&self) -> InitFlags {
        let mut message = vec![0; 8192];
        let length = read(&self.device, &mut message).unwrap();
        // `fuse_init_in` stands behind a header of 40 bytes; its flags are at 12 and 16 (include/uapi/linux/fuse.h).
        let number = |at: usize| u64::from(u32::from_le_bytes(message[..length][at..at + 4].try_into().unwrap()));
        InitFlags::from_bits_retain(number(52) | number(56) << 32)
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        umount2(self.point.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

/// What the driver agreed on, as fuser logs it: "INIT response: ABI 7.40, flags 0x3f, ...".
fn agreed(log: &str) -> InitFlags {
    let (_, rest) = log.split_once("INIT response: ").unwrap_or_else(|| panic!("no INIT in the log: {log}"));
    let (_, flags) = rest.split_once("flags 0x").unwrap();
    let digits = flags.split(|letter: char| !letter.is_ascii_hexdigit()).next().unwrap();
    InitFlags::from_bits_retain(u64::from_str_radix(digits, 16).unwrap())
}

#[test]
fn the_driver_agrees_on_what_its_kernel_offers_and_does_without_the_rest_in_silence() {
    let (offered, release) = (Unanswered::new().offered(), release());
    println!("Linux {release:?} offers {offered:?}");
    for (feature, since) in SINCE {
        assert!(
            !offered.contains(feature) || release >= since,
            "{release:?} has {feature:?}, which came with {since:?}"
        );
    }
    let world = world();
    world.emulator().put(world.container(), "f", vec![7; 3 << 20], &[]).unwrap();
    let cache = world.directory("cache");
    let arguments = ["--log-level", "info,fuser=debug", "-o", "consistency=immutable", "--cache-dir"];
    let mount = world.mount(&[&arguments[..], &[cache.to_str().unwrap()]].concat());
    // The first time from the service, then from the kernel's pages, the cache or its directory.
    for _ in 0..3 {
        assert!(fs::read(mount.path("f")).unwrap() == vec![7; 3 << 20]);
    }
    let log = mount.unmount().log;
    let agreed = agreed(&log);
    assert!(offered.contains(agreed), "{agreed:?} is more than was offered: {offered:?}");
    for feature in ALWAYS {
        assert!(agreed.contains(feature), "{feature:?} is not used: {agreed:?}");
    }
    for feature in NEVER {
        assert!(!agreed.contains(feature), "{feature:?} is used");
    }
    let passthrough = InitFlags::FUSE_PASSTHROUGH;
    assert_eq!(agreed.contains(passthrough), offered.contains(passthrough), "with a cache that could be handed over");
    for level in [" WARN ", "Z ERROR "] {
        assert!(!log.contains(level), "somebody should look at this kernel: {log}");
    }
}

#[test]
fn what_a_dead_server_left_unanswered_is_sent_again_since_6_9_only() {
    let mount = Unanswered::new();
    let sent = handshake::resend(mount.device.as_fd()).map_err(|error| error.raw_os_error());
    let expected = if release() >= RESEND_SINCE { Ok(()) } else { Err(Some(libc::EINVAL)) };
    assert_eq!(sent, expected);
}
