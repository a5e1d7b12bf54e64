//! What programs see of an inode (stat), and what they ask to change.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Caller, Error, FOREVER, FileSystem, HandleId, InodeNumber, Kind, ROOT, Result, View,
    inode::{Fate, Inode, State},
};
use crate::blob::BlobKind;

/// Bytes that a directory's size shows; programs expect some.
const DIRECTORY_BYTES: u64 = 4096;

/// What stat(2) answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// The inode.
    pub number: InodeNumber,
    /// What it is.
    pub kind: Kind,
    /// Bytes in it.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Names that lead to it: 0 once unlinked.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access.
    pub atime: SystemTime,
    /// Last change of the data.
    pub mtime: SystemTime,
    /// Last change of data or attributes.
    pub ctime: SystemTime,
}

/// A name's inode, as the kernel keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What it is.
    pub attr: Attr,
    /// How long the kernel may believe name and attributes.
    pub ttl: Duration,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The time of the call.
    Now,
    /// That time.
    At(SystemTime),
}

/// What a program asks to change; `None` stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size: truncates or grows.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of the data.
    pub mtime: Option<SetTime>,
}

impl SetAttr {
    fn has_attributes(&self) -> bool {
        self.mode.is_some() || self.uid.is_some() || self.gid.is_some() || self.atime.is_some() || self.mtime.is_some()
    }

    /// Changes `state` as asked, with ctime.
    fn apply(&self, kind: Kind, state: &mut State) {
        let now = SystemTime::now();
        let time = |wanted| match wanted {
            SetTime::Now => now,
            SetTime::At(time) => time,
        };
        let attributes = &mut state.attributes;
        attributes.mode = self.mode.map(|mode| mode & 0o7777).or(attributes.mode);
        attributes.uid = self.uid.or(attributes.uid);
        attributes.gid = self.gid.or(attributes.gid);
        attributes.atime = self.atime.map(time).or(attributes.atime);
        attributes.mtime = self.mtime.map(time).or(attributes.mtime);
        attributes.ctime = Some(now);
        state.read_at = state.read_at.filter(|_| self.atime.is_none());
        // A kernel that leaves this to us (FUSE_HANDLE_KILLPRIV_V2) says no mode; the others say the one without the bits.
        if kind != Kind::Directory && self.mode.is_none() && (self.uid.is_some() || self.gid.is_some()) {
            attributes.drop_set_ids();
        }
        state.attributes_dirty = true;
    }
}

impl FileSystem {
    /// stat(2) and fstat(2).
    ///
    /// # Errors
    /// ESTALE when the inode is gone or has become somebody else's version, so that the kernel looks the name up again;
    /// what the service says when it must be asked.
    pub async fn getattr(self: &Arc<Self>, caller: &Caller, number: InodeNumber) -> Result<(Attr, Duration)> {
        if self.is_figures(number) {
            return Ok(self.figures_attr(&caller.view));
        }
        let inode = self.current(number).await?;
        Ok((self.attr(&caller.view, &inode), self.ttl(&inode)))
    }

    /// The inode of `number`, after asking whether its version is still the one under its name where what we know is too
    /// old.
    ///
    /// # Errors
    /// As [`Self::getattr`].
    pub(super) async fn current(self: &Arc<Self>, number: InodeNumber) -> Result<Arc<Inode>> {
        let inode = self.inode(number)?;
        let in_use = |state: &State| state.opened > 0;
        if inode.kind == Kind::File && self.must_revalidate(&inode) {
            match self.revalidate(&inode).await {
                Err(error) if error.errno == libc::ESTALE && in_use(&inode.state.lock()) => {}
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        } else if inode.state.lock().fate == Fate::Replaced && !in_use(&inode.state.lock()) {
            return Err(Error::new(libc::ESTALE, "another client's version has taken the name"));
        }
        Ok(inode)
    }

    /// chmod(2), chown(2), utimensat(2), truncate(2) and ftruncate(2).
    ///
    /// # Errors
    /// EROFS; EISDIR for a size of a directory; what a commit can say where the change goes to the service at once.
    pub async fn setattr(
        self: &Arc<Self>,
        caller: &Caller,
        number: InodeNumber,
        handle: Option<HandleId>,
        change: SetAttr,
    ) -> Result<(Attr, Duration)> {
        self.check_writable(caller)?;
        let inode = self.inode(number)?;
        let was_dirty = inode.state.lock().is_dirty();
        if let Some(size) = change.size {
            self.truncate(caller, &inode, size, handle.is_some()).await?;
            // The kernel says whether the caller may keep the bits, but not to us: who is root may.
            if caller.uid != 0 {
                inode.state.lock().drop_set_ids();
            }
        }
        if change.has_attributes() {
            change.apply(inode.kind, &mut inode.state.lock());
        }
        self.save_attributes(caller, &inode, was_dirty).await?;
        Ok((self.attr(&caller.view, &inode), self.ttl(&inode)))
    }

    /// Takes the setuid and setgid bits away before a write by somebody who may not keep them.
    ///
    /// # Errors
    /// EBADF.
    pub fn drop_set_ids(&self, handle: HandleId) -> Result<()> {
        self.handles.file(handle)?.inode.state.lock().drop_set_ids();
        Ok(())
    }

    /// Counts a read through `handle` as an access. What the kernel's pages answer is not counted.
    pub fn note_read(&self, handle: HandleId) {
        if let Ok(handle) = self.handles.file(handle) {
            let mut state = handle.inode.state.lock();
            if state.counts_read() {
                state.note_read();
            }
        }
    }

    /// Sends changed attributes, unless a program has the file open for writing: then they ride along with the commit
    /// at its close. `was_dirty`: there was something to send before the change.
    pub(super) async fn save_attributes(
        self: &Arc<Self>,
        caller: &Caller,
        inode: &Arc<Inode>,
        was_dirty: bool,
    ) -> Result<()> {
        let at_once = inode.state.lock().writers == 0;
        if inode.number == ROOT {
            inode.state.lock().attributes_dirty = false;
        } else if at_once {
            self.commit_change(inode, was_dirty).await?;
        }
        self.views.invalidate(Some(&caller.view), &super::Invalidation::Attributes(inode.number));
        Ok(())
    }

    /// What `view` shows of an inode.
    pub(super) fn attr(&self, view: &View, inode: &Inode) -> Attr {
        let settings = view.settings();
        let state = inode.state.lock();
        let carried = &state.attributes;
        let base = state.base.as_deref();
        let written = base.map_or(SystemTime::UNIX_EPOCH, |base| base.properties.last_modified);
        // Append Block keeps metadata, so an append blob's `modtime` is that of its first byte.
        let appended = base.is_some_and(|base| base.properties.kind == BlobKind::Append);
        let mtime = carried.mtime.filter(|_| !appended).unwrap_or(written);
        let directory = inode.kind == Kind::Directory;
        let default_mode = if directory { settings.dir_mode } else { settings.file_mode };
        let mode = if inode.kind == Kind::Symlink { 0o777 } else { carried.mode.unwrap_or(default_mode) };
        let links = match (state.fate, &inode.directory) {
            (Fate::Linked, Some(known)) => directory_links(known.subdirectories(self.fresh_for())),
            (Fate::Linked, None) => 1,
            _ => 0,
        };
        let is_dirty = state.is_dirty();
        let mut attr = Attr {
            number: inode.number,
            kind: inode.kind,
            size: if directory { DIRECTORY_BYTES } else { state.size() },
            mode,
            links,
            uid: carried.uid.unwrap_or(settings.uid),
            gid: settings.forced_gid.or(carried.gid).unwrap_or(settings.gid),
            atime: state.read_at.max(carried.atime).unwrap_or(mtime),
            mtime,
            ctime: carried.ctime.filter(|_| !appended).unwrap_or(written.max(mtime)),
        };
        drop(state);
        // (What is written here the kernel knows by itself.)
        attr.size = view.held_length(inode.number).filter(|_| !is_dirty).unwrap_or(attr.size);
        attr
    }

    /// How long the kernel may believe what it is told of an inode now.
    pub(super) fn ttl(&self, inode: &Inode) -> Duration {
        let state = inode.state.lock();
        let fresh_for = self.fresh_for();
        match state.checked {
            _ if state.fate != Fate::Linked => Duration::ZERO,
            Some(checked) if !state.is_local() => fresh_for.saturating_sub(checked.elapsed()),
            _ => fresh_for.min(FOREVER),
        }
    }
}

impl State {
    fn drop_set_ids(&mut self) {
        self.attributes_dirty |= self.attributes.drop_set_ids();
    }
}

/// The names of a directory: its own, its `.`, and the `..` of each directory in it. 1 where those are not counted, which
/// would take a listing: find(1) and fts(3) then look at every entry (as on Btrfs, which always says 1).
fn directory_links(subdirectories: Option<usize>) -> u32 {
    subdirectories.map_or(1, |count| u32::try_from(count).unwrap_or(u32::MAX).saturating_add(2))
}
