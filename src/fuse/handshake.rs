//! How kernel and server agree on what both can do, once in the life of a connection: with the first server. A later one,
//! which takes the descriptor over, is told what was agreed and must be content with it.
//!
//! fuser shakes hands by itself, on the descriptor that it is given, and has no way around that. So it is given a socket:
//! what the kernel asked goes in, fuser's answer comes out, and then the device takes the socket's place under the same
//! number. Both messages are kept: they are what a later server needs.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use fuser::{Config, Filesystem, InitFlags, Session, SessionACL};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    unistd::{read, write},
};

use super::receive;

/// The kernel refuses reads that are shorter (FUSE_MIN_READ_BUFFER of include/uapi/linux/fuse.h).
const READ_BYTES_MIN: usize = 8192;

/// Where fields are in a message: `fuse_in_header` is 40 bytes long, `fuse_out_header` 16 (include/uapi/linux/fuse.h).
mod at {
    /// `flags` of `fuse_init_in`; `flags2` follows.
    pub(super) const ASKED_FLAGS: usize = 40 + 12;
    /// `error` of `fuse_out_header`.
    pub(super) const ERROR: usize = 4;
    /// `flags` of `fuse_init_out`.
    pub(super) const AGREED_FLAGS: usize = 16 + 12;
    /// `flags2` of `fuse_init_out`.
    pub(super) const AGREED_FLAGS2: usize = 16 + 32;
}

/// In `flags2` of `fuse_init_in`: the kernel can send again what was not answered (FUSE_HAS_RESEND, Linux 6.9).
const HAS_RESEND: u64 = 1 << 39;

/// FUSE_DEV_IOC_CLONE: `_IOR(229, 0, uint32_t)` of include/uapi/linux/fuse.h.
const CLONE: libc::c_ulong = 0x8004_e500;

/// A message that asks the kernel to send again what the server before had read and not answered (`fuse_out_header` with
/// FUSE_NOTIFY_RESEND, Linux 6.9).
const RESEND: [u8; 16] = [16, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What was asked and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// INIT, as the kernel sent it.
    pub asked: Vec<u8>,
    /// What it was answered.
    pub answered: Vec<u8>,
}

impl Agreement {
    /// The features that are in use, as bits of FUSE's `flags | flags2 << 32`; `None` when this is no agreement.
    fn features(&self) -> Option<u64> {
        let low = number(&self.answered, at::AGREED_FLAGS)?;
        let high = number(&self.answered, at::AGREED_FLAGS2)?;
        Some(u64::from(low) | u64::from(high) << 32)
    }

    /// Whether the kernel can be asked to send again what a server has read and not answered.
    #[must_use]
    pub fn can_resend(&self) -> bool {
        let high = number(&self.asked, at::ASKED_FLAGS + 4).unwrap_or(0);
        u64::from(high) << 32 & HAS_RESEND != 0
    }

    /// What the kernel asked, offering only what was agreed on.
    fn asked_again(&self) -> Option<Vec<u8>> {
        let features = self.features()? | InitFlags::FUSE_INIT_EXT.bits();
        let mut asked = self.asked.clone();
        for (at, agreed) in [(at::ASKED_FLAGS, features), (at::ASKED_FLAGS + 4, features >> 32)] {
            let both = number(&asked, at)? & agreed as u32;
            asked.get_mut(at..at + 4)?.copy_from_slice(&both.to_le_bytes());
        }
        Some(asked)
    }
}

fn number(message: &[u8], at: usize) -> Option<u32> {
    message.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// Shakes hands with the kernel that has just mounted `device`.
///
/// # Errors
/// What kernel or `server` say.
pub fn shake<F: Filesystem>(server: F, device: &OwnedFd, config: Config) -> io::Result<(Session<F>, Agreement)> {
    let mut asked = vec![0; READ_BYTES_MIN];
    let length = loop {
        match read(device, &mut asked) {
            // Nothing to read yet, or what was there is gone: ask again (fuse_dev_do_read).
            Err(Errno::EINTR | Errno::EAGAIN | Errno::ENOENT) => {}
            length => break length?,
        }
    };
    asked.truncate(length);
    let (session, answered) = answer(server, &asked, config)?;
    write(device, &answered)?;
    put(device, &session)?;
    Ok((session, Agreement { asked, answered }))
}

/// Takes a connection over on which another process has agreed on `agreement`.
///
/// # Errors
/// InvalidData when this version would have agreed on something else, or `agreement` is none.
pub fn resume<F: Filesystem>(
    server: F,
    device: &OwnedFd,
    config: Config,
    agreement: &Agreement,
) -> io::Result<Session<F>> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let asked = agreement.asked_again().ok_or_else(|| invalid("what was agreed on is not readable".to_owned()))?;
    let (session, answered) = answer(server, &asked, config)?;
    let now = Agreement { asked, answered };
    let (before, now) = (agreement.features().unwrap_or(0), now.features().unwrap_or(0));
    if before != now {
        let missing = InitFlags::from_bits_retain(before ^ now);
        return Err(invalid(format!("the mount was made with other features than this version uses: {missing:?}")));
    }
    put(device, &session)?;
    Ok(session)
}

/// Has `session` read from a descriptor of its own, beside `device`, of which others have duplicates. What it has read is then
/// answered with an error as soon as it is gone, where nobody could have it sent again.
///
/// # Errors
/// What the kernel says.
pub fn serve_beside<F: Filesystem>(session: &Session<F>, device: BorrowedFd<'_>) -> io::Result<()> {
    let beside: OwnedFd = std::fs::File::options().read(true).write(true).open("/dev/fuse")?.into();
    let mut number = u32::try_from(device.as_raw_fd()).map_err(io::Error::other)?;
    // SAFETY: the request reads one number from where it points to.
    let cloned = unsafe { libc::ioctl(beside.as_raw_fd(), CLONE, &raw mut number) };
    Errno::result(cloned)?;
    put(&beside, session)
}

/// Asks the kernel to send again what a server before this one left unanswered.
///
/// # Errors
/// EINVAL before Linux 6.9.
pub fn resend(device: BorrowedFd<'_>) -> io::Result<()> {
    write(device, &RESEND)?;
    Ok(())
}

/// A session that has answered `asked`, and its answer.
fn answer<F: Filesystem>(server: F, asked: &[u8], config: Config) -> io::Result<(Session<F>, Vec<u8>)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    write(&ours, asked)?;
    // The kernel checks who may use the mount (allow_other); fuser need not do it again.
    let session = receive::apart(|| Session::from_fd(server, theirs, SessionACL::All, config))?;
    let mut answered = vec![0; READ_BYTES_MIN];
    let length = read(&ours, &mut answered)?;
    answered.truncate(length);
    match number(&answered, at::ERROR) {
        Some(0) => Ok((session, answered)),
        Some(error) => Err(io::Error::from_raw_os_error((error as i32).wrapping_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Puts the device where the session has the socket.
fn put<F: Filesystem>(device: &OwnedFd, session: &Session<F>) -> io::Result<()> {
    // SAFETY: the number is the session's own and open, as the session is there; what it stood for, the socket, is closed.
    let put = unsafe { libc::dup3(device.as_raw_fd(), session.as_fd().as_raw_fd(), libc::O_CLOEXEC) };
    Errno::result(put)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, path::Path};

    use fuser::{FileAttr, FileType, INodeNo, KernelConfig, ReplyAttr, ReplyEntry, Request};
    use nix::mount::{MntFlags, MsFlags, mount, umount2};

    use super::*;

    /// Serves a root directory and nothing else.
    struct Root {
        wanted: InitFlags,
    }

    impl Filesystem for Root {
        fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
            for feature in self.wanted {
                let _ = config.add_capabilities(feature);
            }
            Ok(())
        }

        fn lookup(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
            reply.error(fuser::Errno::ENOENT);
        }

        fn getattr(&self, _request: &Request, inode: INodeNo, _handle: Option<fuser::FileHandle>, reply: ReplyAttr) {
            let time = std::time::UNIX_EPOCH;
            let attr = FileAttr {
                ino: inode,
                size: 0,
                blocks: 0,
                atime: time,
                mtime: time,
                ctime: time,
                crtime: time,
                kind: FileType::Directory,
                perm: 0o755,
                nlink: 2,
                uid: 0,
                gid: 0,
                rdev: 0,
                blksize: 4096,
                flags: 0,
            };
            reply.attr(&std::time::Duration::ZERO, &attr);
        }
    }

    /// A mount that is there until this goes.
    struct Mounted {
        point: tempfile::TempDir,
        device: OwnedFd,
    }

    impl Mounted {
        fn new() -> Self {
            let point = tempfile::tempdir().unwrap();
            let device = std::fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
            let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(Some("test"), point.path(), Some("fuse.azblob-csi"), flags, Some(data.as_str())).unwrap();
            Self { point, device: device.into() }
        }

        fn path(&self) -> &Path {
            self.point.path()
        }
    }

    impl Drop for Mounted {
        fn drop(&mut self) {
            umount2(self.path(), MntFlags::MNT_DETACH).unwrap();
        }
    }

    fn root() -> Root {
        Root { wanted: InitFlags::FUSE_PARALLEL_DIROPS | InitFlags::FUSE_POSIX_LOCKS }
    }

    #[test]
    fn a_second_server_goes_on_with_what_the_first_agreed_on() {
        let mounted = Mounted::new();
        let (first, agreement) = shake(root(), &mounted.device, Config::default()).unwrap();
        assert!(agreement.features().unwrap() & InitFlags::FUSE_PARALLEL_DIROPS.bits() != 0);
        // It dies before it serves anything: the request waits.
        let path = mounted.path().to_owned();
        let asking = std::thread::spawn(move || std::fs::metadata(path).unwrap().is_dir());
        drop(first);
        let second = resume(root(), &mounted.device, Config::default(), &agreement).unwrap();
        let serving = std::thread::spawn(move || second.run());
        assert!(asking.join().unwrap());
        drop(mounted);
        serving.join().unwrap().unwrap();
    }

    #[test]
    fn a_server_that_does_without_a_feature_is_refused() {
        let mounted = Mounted::new();
        let (_first, agreement) = shake(root(), &mounted.device, Config::default()).unwrap();
        let poor = Root { wanted: InitFlags::FUSE_PARALLEL_DIROPS };
        let error = resume(poor, &mounted.device, Config::default(), &agreement).map(drop).unwrap_err().to_string();
        assert!(error.contains("FUSE_POSIX_LOCKS"), "{error}");
        // More than was agreed on is not used.
        let rich = Root { wanted: root().wanted | InitFlags::FUSE_FLOCK_LOCKS };
        resume(rich, &mounted.device, Config::default(), &agreement).map(drop).unwrap();
        let short = Agreement { answered: agreement.answered[..at::AGREED_FLAGS2].to_vec(), ..agreement };
        let error = resume(root(), &mounted.device, Config::default(), &short).map(drop).unwrap_err().to_string();
        assert!(error.contains("not readable"), "{error}");
    }
}
