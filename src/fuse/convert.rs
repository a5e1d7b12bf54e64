//! The kernel's types to ours, and back.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo, RenameFlags, Request, TimeOrNow};

use crate::{
    fs::{Attr, Caller, Error, InodeNumber, Kind, RenameMode, Result, SetAttr, SetTime, View},
    sync::Arc,
};

/// Size that stat(2) recommends for reads and writes. stdio buffers have it: 4 KiB would make every buffer a request,
/// 1 MiB would read a MiB for every small record.
const IO_BYTES: u32 = 128 << 10;

/// Unit of `st_blocks` (stat(2)).
const STAT_BLOCK_BYTES: u64 = 512;

pub(super) fn caller(view: &Arc<View>, request: &Request) -> Caller {
    Caller { view: Arc::clone(view), uid: request.uid(), gid: request.gid(), pid: request.pid() }
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
        TimeOrNow::SpecificTime(time) => SetTime::At(time),
        TimeOrNow::Now => SetTime::Now,
    }
}

pub(super) fn asks_nothing(change: &SetAttr) -> bool {
    let SetAttr { mode, uid, gid, size, atime, mtime } = change;
    mode.is_none() && uid.is_none() && gid.is_none() && size.is_none() && atime.is_none() && mtime.is_none()
}

/// # Errors
/// EINVAL for an exchange or a whiteout: neither can be done without a moment in which a name leads to nothing.
pub(super) fn rename_mode(flags: RenameFlags) -> Result<RenameMode> {
    if flags.is_empty() {
        Ok(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Ok(RenameMode::NoReplace)
    } else {
        Err(Error::new(libc::EINVAL, format!("rename with flags {flags} is not supported")))
    }
}
