//! Notifications to the kernel (FUSE_NOTIFY_* of include/uapi/linux/fuse.h): what they look like, and how one is written.
//!
//! Why the keeper writes them for who serves a mount: the kernel may have to wait for a page or a directory that a request holds,
//! and that wait cannot be interrupted. A server that is killed while one of its threads waits there does not end before that
//! request is answered, which only the next server will do, which does not start before the first has ended.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{errno::Errno, sys::stat::fstat, unistd::write as write_all};

/// `fuse_out_header`: length, code in place of an error, no request.
const HEAD_BYTES: usize = 16;
/// FUSE_NOTIFY_INVAL_INODE.
const INVAL_INODE: u32 = 2;
/// FUSE_NOTIFY_INVAL_ENTRY.
const INVAL_ENTRY: u32 = 3;
/// Of /dev/fuse (MISC_MAJOR, FUSE_MINOR).
const DEVICE: (u64, u64) = (10, 229);

/// The kernel is to forget attributes of `inode`, and its pages from `offset` on, `length` bytes (0: all; a negative offset:
/// none).
#[must_use]
pub fn inval_inode(inode: u64, offset: i64, length: i64) -> Vec<u8> {
    let mut message = head(INVAL_INODE, 24);
    message.extend(inode.to_le_bytes());
    message.extend(offset.to_le_bytes());
    message.extend(length.to_le_bytes());
    message
}

/// The kernel is to forget what `name` in `parent` leads to.
#[must_use]
pub fn inval_entry(parent: u64, name: &[u8]) -> Vec<u8> {
    let mut message = head(INVAL_ENTRY, 16 + name.len() + 1);
    message.extend(parent.to_le_bytes());
    message.extend(u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
    message.extend(0_u32.to_le_bytes());
    message.extend(name);
    message.push(0);
    message
}

fn head(code: u32, body: usize) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES + body);
    head.extend(u32::try_from(HEAD_BYTES + body).unwrap_or(u32::MAX).to_le_bytes());
    head.extend(code.to_le_bytes());
    head.extend(0_u64.to_le_bytes());
    head
}

/// Whether `message` is one of these, and `device` what takes it: nothing else is written by the keeper to anything.
pub(super) fn is_for(device: &OwnedFd, message: &[u8]) -> bool {
    let Some(number) = message.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes) else {
        return false;
    };
    let is_notification = [INVAL_INODE, INVAL_ENTRY].contains(&number) && message.get(8..16) == Some(&[0; 8]);
    let is_device = fstat(device).is_ok_and(|found| {
        let kind = found.st_mode & libc::S_IFMT;
        let number = (u64::from(libc::major(found.st_rdev)), u64::from(libc::minor(found.st_rdev)));
        kind == libc::S_IFCHR && number == DEVICE
    });
    is_notification && is_device
}

/// Writes it: what the kernel says, 0 for nothing.
pub(super) fn write(device: impl AsFd, message: &[u8]) -> i32 {
    match write_all(device, message) {
        Ok(_) => 0,
        Err(errno) => errno as i32,
    }
}

/// The same as a result.
///
/// # Errors
/// What the kernel says.
pub(super) fn written(device: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
    match write(device, message) {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_notifications_are_written_and_only_to_a_fuse_device() {
        let device: OwnedFd = std::fs::File::options().read(true).write(true).open("/dev/fuse").unwrap().into();
        let null: OwnedFd = std::fs::File::options().write(true).open("/dev/null").unwrap().into();
        let inode = inval_inode(7, 0, 0);
        assert_eq!((inode.len(), inval_entry(1, b"name").len()), (40, 37));
        assert!(is_for(&device, &inode) && is_for(&device, &inval_entry(1, b"name")));
        assert!(!is_for(&null, &inode));
        // The answer to a request, and nothing.
        let mut answer = inode.clone();
        answer[8] = 2;
        assert!(!is_for(&device, &answer) && !is_for(&device, b""));
        let mut resend = inode;
        resend[4] = 7;
        assert!(!is_for(&device, &resend));
        // Nothing is mounted with this one.
        assert_eq!(write(&device, &inval_inode(1, 0, 0)), libc::EPERM);
    }
}
