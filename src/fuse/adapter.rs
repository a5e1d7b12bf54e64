//! One short method a request of the kernel: convert, ask [`FileSystem`], answer.
//!
//! `start` is for what memory can often answer, `spawn` for what always asks the service (see `dispatch`). Pages under a
//! node id always belong to one version of a blob (a foreign version gets a new node id, DESIGN 10.1), hence
//! FOPEN_KEEP_CACHE at every open.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, path::Path, time::SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::{
    fs::{Access, Allocation, Caller, DirectoryEntry, Entry, Error, FileSystem, HandleId, Result, Seek, SetAttr, View},
    sync::Arc,
};

use super::{
    convert::{asks_nothing, bare_attr, caller, file_attr, file_type, number, rename_mode, set_time, write_mode},
    dispatch::Dispatch,
    mount::REQUEST_BYTES_MAX,
    open_handles::OpenHandles,
};

/// Entries asked for at a time: enough to fill a reply of most kernels, few enough not to be thrown away by the others.
const ENTRIES_PER_REPLY: usize = 256;

/// Background requests (read-ahead, asynchronous reads and writes) that the kernel may have under way. fuser's default
/// of 16 stops parallel readers; beyond this more only queue (a guess).
const BACKGROUND_REQUESTS: u16 = 128;

/// Block size that statfs(2) counts in.
const STATFS_BLOCK_BYTES: u32 = 4096;

/// Longest name of one component: what a blob's name of 1024 characters allows, cut to Linux' NAME_MAX.
const NAME_BYTES_MAX: u32 = 255;

/// What we use where the kernel offers it, beside fuser's own defaults (asynchronous reads, large writes).
/// FUSE_WRITEBACK_CACHE is never asked for (DESIGN 10.1): the kernel would then be the authority on size and times.
const WANTED: [InitFlags; 6] = [
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_CACHE_SYMLINKS,
];

/// Serves one view of a volume to one kernel session.
pub(super) struct Adapter {
    pub(super) fs: Arc<FileSystem>,
    pub(super) view: Arc<View>,
    pub(super) dispatch: Dispatch,
    pub(super) open: Arc<OpenHandles>,
    /// INIT features that are not used although the kernel has them (tests of older kernels' behaviour).
    pub(super) masked_features: u64,
}

impl Adapter {
    fn context(&self, request: &Request) -> (Arc<FileSystem>, Caller) {
        (Arc::clone(&self.fs), caller(&self.view, request))
    }
}

fn answer_entry(reply: ReplyEntry, entry: Entry) {
    reply.entry(&entry.ttl, &file_attr(&entry.attr), Generation(0));
}

fn answer_done(reply: ReplyEmpty, (): ()) {
    reply.ok();
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for feature in WANTED {
            if self.masked_features & feature.bits() == 0 {
                // What an older kernel does not have, it does without.
                let _ = config.add_capabilities(feature);
            }
        }
        let refused = |_| io::Error::from(io::ErrorKind::InvalidInput);
        config.set_max_write(REQUEST_BYTES_MAX).map_err(refused)?;
        let refused = |_| io::Error::from(io::ErrorKind::InvalidInput);
        config.set_max_background(BACKGROUND_REQUESTS).map_err(refused)?;
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let ((fs, caller), name) = (self.context(request), name.to_owned());
        let work = async move { fs.lookup(&caller, number(parent), &name).await };
        self.dispatch.start("lookup", reply, work, answer_entry);
    }

    fn forget(&self, _request: &Request, inode: INodeNo, count: u64) {
        self.dispatch.now("forget", || self.fs.forget(&self.view, number(inode), count));
    }

    fn getattr(&self, request: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let (fs, caller) = self.context(request);
        let work = async move { fs.getattr(&caller, number(inode)).await };
        self.dispatch.start("getattr", reply, work, |reply, (attr, ttl)| reply.attr(&ttl, &file_attr(&attr)));
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _created: Option<SystemTime>,
        _changed: Option<SystemTime>,
        _backed_up: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (fs, caller) = self.context(request);
        let change = SetAttr { mode, uid, gid, size, atime: atime.map(set_time), mtime: mtime.map(set_time) };
        let handle = handle.map(|handle| HandleId(handle.0));
        let work = async move {
            if asks_nothing(&change) {
                return fs.getattr(&caller, number(inode)).await;
            }
            fs.setattr(&caller, number(inode), handle, change).await
        };
        self.dispatch.spawn("setattr", reply, work, |reply, (attr, ttl)| reply.attr(&ttl, &file_attr(&attr)));
    }

    fn readlink(&self, _request: &Request, inode: INodeNo, reply: ReplyData) {
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.read_symlink(number(inode)).await };
        self.dispatch.start("readlink", reply, work, |reply, target| reply.data(&target));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _device: u32,
        reply: ReplyEntry,
    ) {
        let ((fs, caller), name) = (self.context(request), name.to_owned());
        let work = async move { fs.make_node(&caller, number(parent), &name, mode).await };
        self.dispatch.spawn("mknod", reply, work, answer_entry);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let ((fs, caller), name) = (self.context(request), name.to_owned());
        let work = async move { fs.make_directory(&caller, number(parent), &name, mode).await };
        self.dispatch.spawn("mkdir", reply, work, answer_entry);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let ((fs, caller), name) = (self.context(request), name.to_owned());
        let work = async move { fs.unlink(&caller, number(parent), &name).await };
        self.dispatch.spawn("unlink", reply, work, answer_done);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let ((fs, caller), name) = (self.context(request), name.to_owned());
        let work = async move { fs.remove_directory(&caller, number(parent), &name).await };
        self.dispatch.spawn("rmdir", reply, work, answer_done);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let ((fs, caller), name, target) = (self.context(request), name.to_owned(), target.to_owned());
        let work = async move {
            let target = target.as_os_str().as_bytes();
            fs.make_symlink(&caller, number(parent), &name, target).await
        };
        self.dispatch.spawn("symlink", reply, work, answer_entry);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let ((fs, caller), name, new_name) = (self.context(request), name.to_owned(), new_name.to_owned());
        let work = async move {
            let mode = rename_mode(flags)?;
            fs.rename(&caller, (number(parent), &name), (number(new_parent), &new_name), mode).await
        };
        self.dispatch.spawn("rename", reply, work, answer_done);
    }

    fn link(&self, _request: &Request, _inode: INodeNo, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        // A blob has one name. EPERM is what link(2) promises for file systems without hard links.
        reply.error(Errno::EPERM);
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (fs, caller) = self.context(request);
        let work = async move { fs.open_file(&caller, number(inode), Access::from_flags(flags.0)).await };
        let open = Arc::clone(&self.open);
        self.dispatch.start("open", reply, work, move |reply, handle| {
            open.add_file(handle);
            reply.opened(FileHandle(handle.0), FopenFlags::FOPEN_KEEP_CACHE);
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let ((fs, caller), name) = (self.context(request), name.to_owned());
        let work = async move { fs.create_file(&caller, number(parent), &name, mode, Access::from_flags(flags)).await };
        let open = Arc::clone(&self.open);
        self.dispatch.start("create", reply, work, move |reply, (entry, handle)| {
            open.add_file(handle);
            let (attr, handle) = (file_attr(&entry.attr), FileHandle(handle.0));
            reply.created(&entry.ttl, &attr, Generation(0), handle, FopenFlags::FOPEN_KEEP_CACHE);
        });
    }

    fn read(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.read(HandleId(handle.0), offset, size).await };
        self.dispatch.start("read", reply, work, |reply, data| data.with(|bytes| reply.data(bytes)));
    }

    fn write(
        &self,
        request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // The thread's receive buffer is wanted for the next request; a write may have to wait for memory.
        let ((fs, caller), data, mode) = (self.context(request), data.to_vec(), write_mode(write_flags, flags));
        let work = async move { fs.write_as(&caller, HandleId(handle.0), offset, &data, mode).await };
        self.dispatch.start("write", reply, work, ReplyWrite::written);
    }

    fn flush(&self, _request: &Request, _inode: INodeNo, handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.flush(HandleId(handle.0)).await };
        self.dispatch.spawn("flush", reply, work, answer_done);
    }

    fn release(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.open.remove_file(HandleId(handle.0));
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.release(HandleId(handle.0)).await };
        self.dispatch.spawn("release", reply, work, answer_done);
    }

    fn fsync(&self, _request: &Request, _inode: INodeNo, handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.sync_file(HandleId(handle.0)).await };
        self.dispatch.spawn("fsync", reply, work, answer_done);
    }

    fn opendir(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.open_directory(number(inode)) };
        let open = Arc::clone(&self.open);
        self.dispatch.start("opendir", reply, work, move |reply, handle| {
            open.add_directory(handle);
            reply.opened(FileHandle(handle.0), FopenFlags::empty());
        });
    }

    fn readdir(&self, _request: &Request, _inode: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.read_directory(HandleId(handle.0), offset, ENTRIES_PER_REPLY).await };
        self.dispatch.start("readdir", reply, work, |mut reply, entries| {
            for entry in entries {
                let (inode, kind) = (INodeNo(entry.number.0), file_type(entry.kind));
                if reply.add(inode, entry.next_offset, kind, entry.name.as_ref()) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let listed = Listed { context: self.context(request), directory: inode, handle: HandleId(handle.0) };
        let work = async move {
            let entries = listed.entries_from(offset).await?;
            Ok((listed, entries))
        };
        self.dispatch.start("readdirplus", reply, work, |reply, (listed, entries)| listed.answer(reply, entries));
    }

    fn releasedir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.open.remove_directory(HandleId(handle.0));
        self.dispatch.now("releasedir", || self.fs.close_directory(HandleId(handle.0)));
        reply.ok();
    }

    fn fsyncdir(&self, _request: &Request, _inode: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        // Names are on the service when the call that made or removed them returns.
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        let usage = self.fs.usage();
        let blocks = |bytes: u64| bytes / u64::from(STATFS_BLOCK_BYTES);
        let (capacity, free) = (blocks(usage.capacity), blocks(usage.free));
        reply.statfs(capacity, free, free, 0, 0, STATFS_BLOCK_BYTES, NAME_BYTES_MAX, STATFS_BLOCK_BYTES);
    }

    fn lseek(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let fs = Arc::clone(&self.fs);
        let work = async move {
            let offset = u64::try_from(offset).map_err(|_| Error::new(libc::ENXIO, "before the file"))?;
            let found = fs.seek(HandleId(handle.0), offset, Seek::from_whence(whence)?)?;
            i64::try_from(found).map_err(|_| Error::new(libc::EOVERFLOW, "the offset has no name"))
        };
        self.dispatch.start("lseek", reply, work, ReplyLseek::offset);
    }

    fn fallocate(
        &self,
        request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (fs, caller) = self.context(request);
        let work = async move {
            let range = offset..offset.saturating_add(length);
            fs.allocate(&caller, HandleId(handle.0), range, Allocation::from_mode(mode)?).await
        };
        self.dispatch.start("fallocate", reply, work, answer_done);
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        _to_inode: INodeNo,
        to_handle: FileHandle,
        to_offset: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (fs, caller) = self.context(request);
        let (from, to) = ((HandleId(handle.0), offset), (HandleId(to_handle.0), to_offset));
        let work = async move { fs.copy_range(&caller, from, to, length).await };
        self.dispatch.spawn("copy_file_range", reply, work, |reply, copied| {
            // One call copies far less than 4 GiB; the answer has no more bits.
            reply.written(u32::try_from(copied).unwrap_or(u32::MAX));
        });
    }

    // What we do not have. The kernel remembers ENOSYS and asks no more; programs see EOPNOTSUPP.

    fn getxattr(&self, _request: &Request, _inode: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _request: &Request, _inode: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn setxattr(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn removexattr(&self, _request: &Request, _inode: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _reply_bytes: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _waker: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }
}

/// A directory that is read together with the attributes of its entries.
struct Listed {
    context: (Arc<FileSystem>, Caller),
    directory: INodeNo,
    handle: HandleId,
}

impl Listed {
    /// Entries from `offset`, with attributes for the first: where the listing has none, it is looked up. The others are
    /// looked up only as they are put into the reply, since every entry in a reply counts as a lookup.
    async fn entries_from(&self, mut offset: u64) -> Result<Vec<(DirectoryEntry, Option<Entry>)>> {
        let (fs, caller) = &self.context;
        loop {
            let entries = fs.read_directory(self.handle, offset, ENTRIES_PER_REPLY).await?;
            let mut entries = entries.into_iter().map(|entry| (entry, None)).peekable();
            while let Some((first, found)) = entries.peek_mut() {
                if is_dot(&first.name) {
                    return Ok(entries.collect());
                }
                *found = match fs.enter_listed(caller, self.handle, first) {
                    Some(entry) => Some(entry),
                    None => fs.lookup(caller, number(self.directory), OsStr::new(first.name.as_ref())).await.ok(),
                };
                if found.is_some() {
                    return Ok(entries.collect());
                }
                // Gone since it was listed.
                offset = first.next_offset;
                entries.next();
                if entries.peek().is_none() {
                    break;
                }
            }
            if entries.peek().is_none() && fs.read_directory(self.handle, offset, 1).await?.is_empty() {
                return Ok(Vec::new());
            }
        }
    }

    fn answer(&self, mut reply: ReplyDirectoryPlus, entries: Vec<(DirectoryEntry, Option<Entry>)>) {
        let (fs, caller) = &self.context;
        for (listed, found) in entries {
            let (ttl, attr, entered) = if is_dot(&listed.name) {
                // The kernel takes only name and number of these two, and counts no lookup.
                let (ttl, attr) = bare_attr(listed.number, listed.kind);
                (ttl, attr, None)
            } else {
                // What must be looked up at the service comes first in the next reply.
                let Some(entry) = found.or_else(|| fs.enter_listed(caller, self.handle, &listed)) else { break };
                (entry.ttl, file_attr(&entry.attr), Some(entry.attr.number))
            };
            if reply.add(attr.ino, listed.next_offset, listed.name.as_ref(), &ttl, &attr, Generation(0)) {
                if let Some(number) = entered {
                    fs.forget(&caller.view, number, 1);
                }
                break;
            }
        }
        reply.ok();
    }
}

fn is_dot(name: &str) -> bool {
    name == "." || name == ".."
}
