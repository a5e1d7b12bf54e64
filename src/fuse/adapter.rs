//! One short method a request of the kernel: convert, ask [`FileSystem`], answer.
//!
//! `start` is for what memory can often answer, `spawn` for what always asks the service (see `dispatch`). Pages under a
//! node id always belong to one version of a blob (a foreign version gets a new node id, DESIGN 10.1), hence
//! FOPEN_KEEP_CACHE at every open.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, path::Path, time::SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock,
    ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::{
    fs::{Access, Allocation, Caller, Entry, Error, FileSystem, HandleId, Operation, Seek, SetAttr, View},
    sync::Arc,
};

use super::{
    convert::{
        answer_statfs, answer_xattr, asks_nothing, caller, file_attr, file_type, lock_request, lock_type, number,
        rename_mode, set_time, write_mode, xattr_mode,
    },
    dispatch::Dispatch,
    listed::Listed,
    lock_caller,
    mount::REQUEST_BYTES_MAX,
    name_copies::NameCopies,
    open_handles::OpenHandles,
    passthrough::Passthrough,
    receive::Buffers,
};

/// Entries asked for at a time: enough to fill a reply of most kernels, few enough not to be thrown away by the others.
pub(super) const ENTRIES_PER_REPLY: usize = 256;

/// Background requests (read-ahead, asynchronous reads and writes) that the kernel may have under way. fuser's default
/// of 16 stops parallel readers; beyond this more only queue (a guess).
const BACKGROUND_REQUESTS: u16 = 128;

/// What we use where the kernel offers it, beside fuser's own defaults (asynchronous reads, large writes).
/// FUSE_WRITEBACK_CACHE is never asked for (DESIGN 10.1): the kernel would then be the authority on size and times. Nor is
/// FUSE_ATOMIC_O_TRUNC: the kernel looks for a running program behind an open with O_RDONLY | O_TRUNC after our reply
/// (handle_truncate in fs/namei.c), when the program's bytes would be gone. With FUSE_HANDLE_KILLPRIV_V2 (Linux 5.11) the
/// kernel does not ask for `security.capability` before each write.
const WANTED: [InitFlags; 8] = [
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_POSIX_LOCKS,
    InitFlags::FUSE_FLOCK_LOCKS,
];

/// Serves one view of a volume to one kernel session.
pub(super) struct Adapter {
    pub(super) fs: Arc<FileSystem>,
    pub(super) view: Arc<View>,
    pub(super) dispatch: Dispatch,
    pub(super) open: Arc<OpenHandles>,
    pub(super) passthrough: Arc<Passthrough>,
    pub(super) copies: Arc<NameCopies>,
    /// INIT features that are not used although the kernel has them (tests of older kernels' behaviour).
    pub(super) masked_features: u64,
    /// Whether reads move access times (not with `noatime`).
    pub(super) access_times: bool,
    /// Of the threads that call all this.
    pub(super) buffers: Arc<Buffers>,
}

impl Adapter {
    fn context(&self, request: &Request) -> (Arc<FileSystem>, Caller) {
        (Arc::clone(&self.fs), caller(&self.view, request))
    }

    fn listed(&self, request: &Request, directory: INodeNo, handle: FileHandle) -> Listed {
        let (context, copies) = (self.context(request), Arc::clone(&self.copies));
        Listed { context, copies, directory, handle: HandleId(handle.0) }
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
        if self.fs.has_local_copies() && self.masked_features & InitFlags::FUSE_PASSTHROUGH.bits() == 0 {
            self.passthrough.negotiate(config);
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
        self.dispatch.start(Operation::Lookup, reply, work, answer_entry);
    }

    fn forget(&self, _request: &Request, inode: INodeNo, count: u64) {
        self.dispatch.now(Operation::Forget, |_| self.fs.forget(&self.view, number(inode), count));
    }

    fn getattr(&self, request: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let (fs, caller) = self.context(request);
        let work = async move { fs.getattr(&caller, number(inode)).await };
        self.dispatch.start(Operation::Getattr, reply, work, |reply, (attr, ttl)| reply.attr(&ttl, &file_attr(&attr)));
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
        self.dispatch.spawn(Operation::Setattr, reply, work, |reply, (attr, ttl)| reply.attr(&ttl, &file_attr(&attr)));
    }

    fn readlink(&self, _request: &Request, inode: INodeNo, reply: ReplyData) {
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.read_symlink(number(inode)).await };
        self.dispatch.start(Operation::Readlink, reply, work, |reply, target| reply.data(&target));
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
        self.dispatch.spawn(Operation::Mknod, reply, work, answer_entry);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let ((fs, caller), name) = (self.context(request), name.to_owned());
        let work = async move { fs.make_directory(&caller, number(parent), &name, mode).await };
        self.dispatch.spawn(Operation::Mkdir, reply, work, answer_entry);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let ((fs, caller), name) = (self.context(request), name.to_owned());
        let work = async move { fs.unlink(&caller, number(parent), &name).await };
        self.dispatch.start(Operation::Unlink, reply, work, answer_done);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let ((fs, caller), name) = (self.context(request), name.to_owned());
        let work = async move { fs.remove_directory(&caller, number(parent), &name).await };
        self.dispatch.spawn(Operation::Rmdir, reply, work, answer_done);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let ((fs, caller), name, target) = (self.context(request), name.to_owned(), target.to_owned());
        let work = async move {
            let target = target.as_os_str().as_bytes();
            fs.make_symlink(&caller, number(parent), &name, target).await
        };
        self.dispatch.spawn(Operation::Symlink, reply, work, answer_entry);
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
            let mode = rename_mode(flags).ok_or_else(|| fs.refuse_rename_flags(&flags.to_string()))?;
            fs.rename(&caller, (number(parent), &name), (number(new_parent), &new_name), mode).await
        };
        self.dispatch.spawn(Operation::Rename, reply, work, answer_done);
    }

    fn link(&self, _request: &Request, _inode: INodeNo, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        let refused = self.fs.refuse_link();
        reply.error(Errno::from_i32(refused.errno));
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (fs, caller) = self.context(request);
        let (open, passthrough) = (Arc::clone(&self.open), Arc::clone(&self.passthrough));
        let (by_itself, figures) = (passthrough.is_enabled(), fs.is_figures(number(inode)));
        let access = Access::from_flags(flags.0);
        self.buffers.announce(access);
        let work = async move {
            let handle = fs.open_file(&caller, number(inode), access).await?;
            Ok((handle, if by_itself { fs.local_copy(handle).await } else { None }))
        };
        self.dispatch.start(Operation::Open, reply, work, move |reply, (handle, copy)| {
            open.add_file(handle);
            if figures {
                return reply.opened(FileHandle(handle.0), FopenFlags::FOPEN_DIRECT_IO);
            }
            passthrough.answer(reply, inode, FileHandle(handle.0), copy);
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
        let access = Access::from_flags(flags);
        self.buffers.announce(access);
        let work = async move { fs.create_file(&caller, number(parent), &name, mode, access).await };
        let open = Arc::clone(&self.open);
        self.dispatch.start(Operation::Create, reply, work, move |reply, (entry, handle)| {
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
        let handle = HandleId(handle.0);
        self.dispatch.now(Operation::Read, |began| {
            if self.access_times {
                self.fs.note_read(handle);
            }
            if let Some(data) = self.fs.read_now(handle, offset, size) {
                data.with(|bytes| reply.data(bytes));
                return self.dispatch.answered(Operation::Read, began);
            }
            let fs = Arc::clone(&self.fs);
            let work = async move { fs.read(handle, offset, size).await };
            self.dispatch.start(Operation::Read, reply, work, |reply, data| data.with(|bytes| reply.data(bytes)));
        });
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
        let ((fs, caller), mode, handle) = (self.context(request), write_mode(write_flags, flags), HandleId(handle.0));
        self.buffers.received(data.len());
        let kills_set_ids = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        if !kills_set_ids {
            let write = || fs.try_write_as(&caller, handle, offset, data, mode);
            if let Some(count) = self.dispatch.attempt(Operation::Write, write) {
                return reply.written(count);
            }
        }
        // The thread's receive buffer is wanted for the next request, and this write waits, perhaps for memory.
        let data = data.to_vec();
        let work = async move {
            if kills_set_ids {
                fs.drop_set_ids(handle)?;
            }
            fs.write_as(&caller, handle, offset, &data, mode).await
        };
        self.dispatch.start(Operation::Write, reply, work, ReplyWrite::written);
    }

    fn flush(&self, request: &Request, inode: INodeNo, handle: FileHandle, owner: LockOwner, reply: ReplyEmpty) {
        let (fs, caller) = self.context(request);
        let work = async move {
            let saved = fs.flush(HandleId(handle.0)).await;
            fs.unlock_all(&caller, number(inode), owner.0);
            saved
        };
        self.dispatch.spawn(Operation::Flush, reply, work, answer_done);
    }

    fn release(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.open.remove_file(HandleId(handle.0));
        self.passthrough.released(inode);
        let fs = Arc::clone(&self.fs);
        let work = async move {
            let saved = fs.release(HandleId(handle.0)).await;
            fs.unlock_handle(number(inode), HandleId(handle.0));
            saved
        };
        self.dispatch.spawn(Operation::Release, reply, work, answer_done);
    }

    fn fsync(&self, _request: &Request, _inode: INodeNo, handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.sync_file(HandleId(handle.0)).await };
        self.dispatch.spawn(Operation::Fsync, reply, work, answer_done);
    }

    fn opendir(&self, request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let ((fs, caller), open, copies) = (self.context(request), Arc::clone(&self.open), Arc::clone(&self.copies));
        let work = async move {
            let handle = fs.open_directory(&caller.view, number(inode))?;
            Ok((handle, fs.stamp_of_names(handle)))
        };
        self.dispatch.start(Operation::Opendir, reply, work, move |reply, (handle, stamp)| {
            open.add_directory(handle);
            reply.opened(FileHandle(handle.0), copies.opened(inode, handle, stamp));
        });
    }

    fn readdir(&self, request: &Request, inode: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        let listed = self.listed(request, inode, handle);
        let work = async move { listed.names_from(offset).await };
        self.dispatch.start(Operation::Readdir, reply, work, |mut reply, entries| {
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
        let listed = self.listed(request, inode, handle);
        let work = async move {
            let entries = listed.entries_from(offset).await?;
            Ok((listed, entries))
        };
        self.dispatch
            .start(Operation::Readdirplus, reply, work, |reply, (listed, entries)| listed.answer(reply, entries));
    }

    fn releasedir(&self, _request: &Request, inode: INodeNo, handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.copies.closed(inode, HandleId(handle.0));
        self.open.remove_directory(HandleId(handle.0));
        self.dispatch.now(Operation::Releasedir, |_| {
            self.fs.close_directory(HandleId(handle.0));
            reply.ok();
        });
    }

    fn fsyncdir(&self, _request: &Request, inode: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.sync_directory(number(inode)).await };
        self.dispatch.start(Operation::Fsyncdir, reply, work, answer_done);
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        let fs = Arc::clone(&self.fs);
        let work = async move { Ok(fs.statfs().await) };
        self.dispatch.start(Operation::Statfs, reply, work, answer_statfs);
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
        self.dispatch.start(Operation::Lseek, reply, work, ReplyLseek::offset);
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
        self.dispatch.start(Operation::Fallocate, reply, work, answer_done);
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
        self.dispatch.spawn(Operation::CopyFileRange, reply, work, |reply, copied| {
            // One call copies far less than 4 GiB; the answer has no more bits.
            reply.written(u32::try_from(copied).unwrap_or(u32::MAX));
        });
    }

    fn getlk(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let (fs, caller) = self.context(request);
        let wanted = lock_request(inode, handle, owner, start..=end, kind, pid);
        let work = async move { Ok(fs.lock_in_the_way(&caller, &wanted)) };
        self.dispatch.start(Operation::Getlk, reply, work, move |reply, found| match found {
            Some(held) => reply.locked(*held.range.start(), *held.range.end(), lock_type(held.exclusive), held.pid),
            None => reply.locked(start, end, libc::F_UNLCK, pid),
        });
    }

    fn setlk(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        wait: bool,
        reply: ReplyEmpty,
    ) {
        let (fs, caller) = self.context(request);
        let mut wanted = lock_request(inode, handle, owner, start..=end, kind, pid);
        let work = async move {
            if kind == libc::F_UNLCK {
                fs.unlock(&caller, wanted.number, wanted.owner, &wanted.range);
                return Ok(());
            }
            wanted.call = lock_caller::lock_call(caller.pid, &wanted.range).await;
            if !wait {
                return fs.lock(&caller, &wanted);
            }
            let given_up = lock_caller::given_up(caller.pid);
            fs.lock_waiting(&caller, &wanted, given_up).await
        };
        self.dispatch.start(Operation::Setlk, reply, work, answer_done);
    }

    fn getxattr(&self, _request: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (fs, name) = (Arc::clone(&self.fs), name.to_owned());
        let work = async move { fs.get_xattr(number(inode), name.as_bytes()).await };
        self.dispatch.start(Operation::Getxattr, reply, work, move |reply, value| answer_xattr(reply, size, &value));
    }

    fn listxattr(&self, _request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let fs = Arc::clone(&self.fs);
        let work = async move { fs.list_xattrs(number(inode)).await };
        self.dispatch.start(Operation::Listxattr, reply, work, move |reply, names| answer_xattr(reply, size, &names));
    }

    fn setxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let ((fs, caller), name, value) = (self.context(request), name.to_owned(), value.to_vec());
        let work =
            async move { fs.set_xattr(&caller, number(inode), name.as_bytes(), &value, xattr_mode(flags)).await };
        self.dispatch.spawn(Operation::Setxattr, reply, work, answer_done);
    }

    fn removexattr(&self, request: &Request, inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let ((fs, caller), name) = (self.context(request), name.to_owned());
        let work = async move { fs.remove_xattr(&caller, number(inode), name.as_bytes()).await };
        self.dispatch.spawn(Operation::Removexattr, reply, work, answer_done);
    }

    // What we do not have. The kernel remembers ENOSYS and asks no more; programs see EOPNOTSUPP.

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
