//! The kernel's types to ours, and back.

use std::{
    ops::RangeInclusive,
    time::{Duration, SystemTime},
};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyStatfs, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};

use crate::{
    fs::{
        Attr, Caller, HandleId, InodeNumber, Kind, LockCall, LockRequest, RenameMode, SetAttr, SetTime, SetXattr,
        Usage, View, WriteMode,
    },
    sync::Arc,
};

/// Size that stat(2) recommends for reads and writes. stdio buffers have it: 4 KiB would make every buffer a request,
/// 1 MiB would read a MiB for every small record.
const IO_BYTES: u32 = 128 << 10;

/// Unit of `st_blocks` (stat(2)).
const STAT_BLOCK_BYTES: u64 = 512;

pub(super) fn caller(view: &Arc<View>, request: &Request) -> Caller {
    let (uid, gid, pid) = (request.uid(), request.gid(), request.pid());
    Caller { view: Arc::clone(view), uid, gid, pid, request: request.unique().0 }
}

pub(super) fn number(inode: INodeNo) -> InodeNumber {
    InodeNumber(inode.0)
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
    }
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.number.0),
        size: attr.size,
        blocks: attr.size.div_ceil(STAT_BLOCK_BYTES),
        atime: attr.atime,
        mtime: attr.mtime,
        ctime: attr.ctime,
        crtime: attr.ctime,
        kind: file_type(attr.kind),
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.links,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: IO_BYTES,
        flags: 0,
    }
}

/// An entry that says no more than what readdir(3) needs; never kept by the kernel.
pub(super) fn bare_attr(number: InodeNumber, kind: Kind) -> (Duration, FileAttr) {
    let epoch = SystemTime::UNIX_EPOCH;
    let attr =
        Attr { number, kind, size: 0, mode: 0, links: 1, uid: 0, gid: 0, atime: epoch, mtime: epoch, ctime: epoch };
    (Duration::ZERO, file_attr(&attr))
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::SpecificTime(time) => SetTime::At(as_the_kernel_meant(time)),
        TimeOrNow::Now => SetTime::Now,
    }
}

/// The kernel counts nanoseconds forwards from the second, also before 1970. fuser 0.18 takes them backwards there (its
/// `system_time_from_time`, but not the other direction): -0.25 s arrives as -1 s - 0.75 s.
fn as_the_kernel_meant(time: SystemTime) -> SystemTime {
    let nanoseconds = SystemTime::UNIX_EPOCH.duration_since(time).map_or(0, |before| before.subsec_nanos());
    time + 2 * Duration::from_nanos(u64::from(nanoseconds))
}

pub(super) fn asks_nothing(change: &SetAttr) -> bool {
    let SetAttr { mode, uid, gid, size, atime, mtime } = change;
    mode.is_none() && uid.is_none() && gid.is_none() && size.is_none() && atime.is_none() && mtime.is_none()
}

/// A lock of fcntl(2): F_GETLK asks for no other, and F_SETLK is told apart later.
pub(super) fn lock_request(
    inode: INodeNo,
    handle: FileHandle,
    owner: LockOwner,
    range: RangeInclusive<u64>,
    kind: i32,
    pid: u32,
) -> LockRequest {
    let (number, handle, exclusive) = (number(inode), HandleId(handle.0), kind == libc::F_WRLCK);
    LockRequest { number, handle, owner: owner.0, call: LockCall::Fcntl, range, exclusive, pid }
}

pub(super) fn lock_type(exclusive: bool) -> i32 {
    if exclusive { libc::F_WRLCK } else { libc::F_RDLCK }
}

/// A value, or its length for who asks with no room.
pub(super) fn answer_xattr(reply: ReplyXattr, room: u32, value: &[u8]) {
    match u32::try_from(value.len()) {
        Ok(length) if room == 0 => reply.size(length),
        Ok(length) if length <= room => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

/// The kernel refuses both flags at once.
pub(super) fn xattr_mode(flags: i32) -> SetXattr {
    match flags {
        libc::XATTR_CREATE => SetXattr::Create,
        libc::XATTR_REPLACE => SetXattr::Replace,
        _ => SetXattr::Any,
    }
}

/// `None` for an exchange or a whiteout.
pub(super) fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    if flags.is_empty() {
        Some(RenameMode::Replace)
    } else {
        (flags == RenameFlags::RENAME_NOREPLACE).then_some(RenameMode::NoReplace)
    }
}

/// The flags are those of the open file at this call, with what pwritev2(2) adds (fs/fuse/file.c, fuse_write_flags). A page
/// is written through any handle of the inode that may write: the flags of that handle do not concern it.
pub(super) fn write_mode(write_flags: WriteFlags, flags: OpenFlags) -> WriteMode {
    let page = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
    WriteMode {
        append: !page && flags.0 & libc::O_APPEND != 0,
        synchronous: !page && flags.0 & libc::O_DSYNC != 0,
        page,
    }
}

/// Block size that statfs(2) counts in.
const STATFS_BLOCK_BYTES: u32 = 4096;

/// Longest name of one component: what a blob's name of 1024 characters allows, cut to Linux' NAME_MAX.
const NAME_BYTES_MAX: u32 = 255;

/// Answers statfs(2).
pub(super) fn answer_statfs(reply: ReplyStatfs, usage: Usage) {
    let blocks = |bytes: u64| bytes / u64::from(STATFS_BLOCK_BYTES);
    let (capacity, free) = (blocks(usage.capacity), blocks(usage.free));
    reply.statfs(capacity, free, free, 0, 0, STATFS_BLOCK_BYTES, NAME_BYTES_MAX, STATFS_BLOCK_BYTES);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let from_fuser = |seconds: u64, nanoseconds| SystemTime::UNIX_EPOCH - Duration::new(seconds, nanoseconds);
        let meant = |seconds: u64, nanoseconds| from_fuser(seconds, 0) + Duration::from_nanos(nanoseconds);
        for (seconds, nanoseconds) in [(1, 750_000_000), (2, 0), (2, 1), (900, 999_999_999)] {
            let time = as_the_kernel_meant(from_fuser(seconds, nanoseconds));
            assert_eq!(time, meant(seconds, nanoseconds.into()), "-{seconds} s + {nanoseconds} ns");
        }
        let after = SystemTime::UNIX_EPOCH + Duration::new(3, 5);
        assert_eq!(as_the_kernel_meant(after), after);
    }
}
