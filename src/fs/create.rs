//! New names: files, directories, symbolic links, pipes and sockets.
//!
//! A new file costs no request until it is closed, except under O_EXCL, which must be exact between nodes: there one
//! conditional Put Blob decides who made it. In a directory that this mount has just made, even that waits for the
//! commit, whose If-None-Match decides (DESIGN 10.2; `excl=strict` turns it off). A file that is opened only to be read
//! (as lock files are) has no later commit: it is put at once.

use std::{
    ffi::OsStr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::Bytes;

use super::{
    Access, Caller, Entry, Error, FileSystem, HandleId, InodeNumber, Invalidation, Kind, ROOT, Result,
    attributes::Attributes,
    directory::Slot,
    figures::only_readable,
    inode::Inode,
    lookup::{Found, Held},
    name::RESERVED,
    overlay::Overlay,
    takeover::Begun,
};
use crate::blob::{BlobName, BlobProperties, Body, Condition, ContentHeaders, ErrorKind, WriteOptions};

/// Longest symbolic link target (PATH_MAX of include/uapi/linux/limits.h, without its NUL).
const TARGET_BYTES_MAX: usize = 4095;

impl FileSystem {
    /// open(2) with O_CREAT of a name that the kernel believes to be free.
    ///
    /// # Errors
    /// EEXIST under O_EXCL; EROFS, ENAMETOOLONG, EILSEQ, EPERM for the reserved name; as [`Self::open_file`] where the
    /// name exists after all.
    pub async fn create_file(
        self: &Arc<Self>,
        caller: &Caller,
        parent: InodeNumber,
        name: &OsStr,
        mode: u32,
        access: Access,
    ) -> Result<(Entry, HandleId)> {
        let mut begun = self.begin(caller);
        match begun.outcome() {
            Some(Ok((number, handle))) if self.handles.file(handle).is_ok() => {
                return Ok((self.enter(&caller.view, &*self.inode(number)?), handle));
            }
            Some(Err(error)) => return Err(error),
            _ => {}
        }
        let made = self.open_new(caller, parent, name, mode, access, &mut begun).await;
        self.end(begun, &made, |(held, handle)| (held.inode.number.0, handle.0));
        let (held, handle) = made?;
        Ok((self.enter(&caller.view, &held.inode), handle))
    }

    async fn open_new(
        self: &Arc<Self>,
        caller: &Caller,
        parent: InodeNumber,
        name: &OsStr,
        mode: u32,
        access: Access,
        begun: &mut Begun,
    ) -> Result<(Held, HandleId)> {
        let name = self.new_name(caller, parent, name)?;
        let directory = self.directory_inode(parent)?;
        self.wait_deleted(&directory, &name).await;
        let held = loop {
            let asked = Instant::now();
            if let Some(there) = self.existing(parent, &name).await? {
                if begun.has_made_inode(&there.inode) {
                    break there;
                }
                if access.exclusive {
                    return Err(exists(&name));
                }
                let handle = self.open_file(caller, there.inode.number, access).await?;
                return Ok((there, handle));
            }
            match self.make_file(caller, &directory, (&name, asked), mode, access, begun).await {
                // Another client made it just now: then it is opened.
                Err(error) if error.errno == libc::EEXIST && !access.exclusive => {}
                Err(error) => return Err(error),
                Ok(Some(made)) => break made,
                Ok(None) => {}
            }
        };
        let handle = self.add_handle(caller, &held.inode, access);
        self.after_make(caller, &directory, &held.inode);
        Ok((held, handle))
    }

    /// mknod(2): a file, pipe or socket.
    ///
    /// # Errors
    /// EEXIST; EPERM for devices, which a blob cannot be; as [`Self::create_file`].
    pub async fn make_node(
        self: &Arc<Self>,
        caller: &Caller,
        parent: InodeNumber,
        name: &OsStr,
        mode: u32,
    ) -> Result<Entry> {
        let kind = match mode & libc::S_IFMT {
            0 | libc::S_IFREG => Kind::File,
            libc::S_IFIFO => Kind::Fifo,
            libc::S_IFSOCK => Kind::Socket,
            _ => return Err(Error::new(libc::EPERM, "a blob cannot be a device")),
        };
        let made = self.make_blob(caller, parent, name, kind, mode, Bytes::new()).await?;
        Ok(self.enter(&caller.view, &made.inode))
    }

    /// What link(2) is answered: a blob has one name. Said in the log once.
    pub fn refuse_link(&self) -> Error {
        self.link_refusal.call_once(|| {
            tracing::warn!("a program asked for a hard link, which a blob cannot have: EPERM, now and from now on");
        });
        Error::new(libc::EPERM, "a blob cannot have a hard link")
    }

    /// symlink(2).
    ///
    /// # Errors
    /// EEXIST, ENAMETOOLONG for the target; as [`Self::create_file`].
    pub async fn make_symlink(
        self: &Arc<Self>,
        caller: &Caller,
        parent: InodeNumber,
        name: &OsStr,
        target: &[u8],
    ) -> Result<Entry> {
        if target.len() > TARGET_BYTES_MAX {
            return Err(Error::new(
                libc::ENAMETOOLONG,
                format!("a link's target has at most {TARGET_BYTES_MAX} bytes"),
            ));
        }
        let target = Bytes::copy_from_slice(target);
        let made = self.make_blob(caller, parent, name, Kind::Symlink, 0o777, target).await?;
        Ok(self.enter(&caller.view, &made.inode))
    }

    /// mkdir(2): a marker blob, so that the directory is there while it is empty.
    ///
    /// # Errors
    /// EEXIST; as [`Self::create_file`].
    pub async fn make_directory(
        self: &Arc<Self>,
        caller: &Caller,
        parent: InodeNumber,
        name: &OsStr,
        mode: u32,
    ) -> Result<Entry> {
        let made = self.make_blob(caller, parent, name, Kind::Directory, mode, Bytes::new()).await?;
        if let Some(directory) = &made.inode.directory {
            directory.set_own(&self.names);
        }
        Ok(self.enter(&caller.view, &made.inode))
    }

    /// readlink(2).
    ///
    /// # Errors
    /// EINVAL for anything but a symbolic link; what the service says.
    pub async fn read_symlink(self: &Arc<Self>, number: InodeNumber) -> Result<Vec<u8>> {
        let inode = self.inode(number)?;
        if inode.kind != Kind::Symlink {
            return Err(Error::new(libc::EINVAL, "not a symbolic link"));
        }
        let data = self.read_range(&inode, &(0..TARGET_BYTES_MAX as u64), &self.cache().stream()).await?;
        Ok(data.with(<[u8]>::to_vec))
    }

    /// The name to make, checked.
    pub(super) fn new_name(&self, caller: &Caller, parent: InodeNumber, name: &OsStr) -> Result<String> {
        self.check_writable(caller)?;
        let component = self.naming.new_component(name)?;
        if parent == ROOT && component.text == RESERVED {
            return Err(Error::new(libc::EPERM, format!("{RESERVED:?} is reserved for the file system's own blobs")));
        }
        if self.is_figures_name(parent, name) {
            return Err(only_readable());
        }
        name.to_str().map(str::to_owned).ok_or_else(|| Error::new(libc::EILSEQ, "a name must be UTF-8"))
    }

    /// What the name leads to already, if anything.
    pub(super) async fn existing(self: &Arc<Self>, parent: InodeNumber, name: &str) -> Result<Option<Held>> {
        loop {
            match self.resolve(parent, name.as_ref()).await {
                Ok(held) => return Ok(Some(held)),
                Err(error) if error.errno == libc::ENOENT && self.is_removed(parent, name) => {
                    self.finish_removal(parent, name).await?;
                }
                Err(error) if error.errno == libc::ENOENT => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// A new file: ours alone until its first commit, unless O_EXCL wants the service's word now. As [`Self::link_new`].
    async fn make_file(
        self: &Arc<Self>,
        caller: &Caller,
        directory: &Arc<Inode>,
        (name, asked): (&str, Instant),
        mode: u32,
        access: Access,
        begun: &mut Begun,
    ) -> Result<Option<Held>> {
        let attributes = begun.attributes(|| self.new_attributes(caller, directory, Kind::File, mode));
        self.note_making(begun, &attributes);
        if !access.write || (access.exclusive && !self.judges_names_in(directory)) {
            return self.put_new(directory, name, Kind::File, &attributes, Bytes::new(), begun).await.map(Some);
        }
        self.blob_at(directory, name)?; // Refuses a name too long now, not at close.
        let inode = Inode::new(self.table.next_number(), Kind::File, None, attributes, self.scribe.as_ref());
        inode.state.lock().overlay = Some(Overlay::over(0));
        self.link_new(directory, (name, asked), &inode)
    }

    async fn make_blob(
        self: &Arc<Self>,
        caller: &Caller,
        parent: InodeNumber,
        name: &OsStr,
        kind: Kind,
        mode: u32,
        body: Bytes,
    ) -> Result<Held> {
        let mut begun = self.begin(caller);
        if let Some(outcome) = begun.outcome() {
            let inode = self.inode(outcome?.0)?;
            return self.hold(&inode).ok_or_else(|| Error::new(libc::ESTALE, "what was made is gone"));
        }
        let made = self.make_named(caller, parent, (name, kind, mode), body, &mut begun).await;
        self.end(begun, &made, |held| (held.inode.number.0, 0));
        made
    }

    async fn make_named(
        self: &Arc<Self>,
        caller: &Caller,
        parent: InodeNumber,
        (name, kind, mode): (&OsStr, Kind, u32),
        body: Bytes,
        begun: &mut Begun,
    ) -> Result<Held> {
        let name = self.new_name(caller, parent, name)?;
        let directory = self.directory_inode(parent)?;
        self.wait_deleted(&directory, &name).await;
        let asked = Instant::now();
        if let Some(there) = self.existing(parent, &name).await? {
            return if begun.has_made_inode(&there.inode) { Ok(there) } else { Err(exists(&name)) };
        }
        let attributes = begun.attributes(|| self.new_attributes(caller, &directory, kind, mode));
        self.note_making(begun, &attributes);
        let owed = match kind {
            Kind::Directory => self.owe_directory(&directory, (&name, asked), &attributes).await?,
            _ => None,
        };
        let held = match owed {
            Some(held) => held,
            None => self.put_new(&directory, &name, kind, &attributes, body, begun).await?,
        };
        self.after_make(caller, &directory, &held.inode);
        Ok(held)
    }

    /// Puts a blob that must not exist yet, and its inode.
    async fn put_new(
        self: &Arc<Self>,
        directory: &Arc<Inode>,
        name: &str,
        kind: Kind,
        attributes: &Attributes,
        body: Bytes,
        begun: &Begun,
    ) -> Result<Held> {
        let blob = self.blob_at(directory, name)?;
        let mut metadata = crate::blob::Metadata::new();
        attributes.write_to(kind, &mut metadata);
        let length = body.len() as u64;
        let options = WriteOptions {
            condition: Condition::Absent,
            metadata,
            headers: ContentHeaders::default(),
            access_tier: None,
        };
        let (committed, mode) = match self.put_new_blob(&blob, kind, attributes.mode, Body::from(body), &options).await
        {
            Ok(made) => made,
            // The process before had sent it, and it has arrived since we looked.
            Err(error) if error.kind == ErrorKind::Precondition && begun.is_repeated() => {
                self.spoil_listed_ahead(directory, name);
                if let Some(known) = &directory.directory {
                    known.forget();
                }
                let there = self.existing(directory.number, name).await?;
                return there.filter(|there| begun.has_made_inode(&there.inode)).ok_or_else(|| exists(name));
            }
            Err(error) if error.kind == ErrorKind::Precondition => {
                // Another client was first: what we believed of the name is wrong.
                self.spoil_listed_ahead(directory, name);
                if let Some(known) = &directory.directory {
                    known.forget();
                }
                return Err(exists(name));
            }
            Err(error) => return Err(Error::from_store(format!("cannot create {blob}"), error)),
        };
        let properties = BlobProperties { length, mode, ..BlobProperties::written(&committed, options.metadata) };
        let number = Some(self.table.next_number());
        let found = Found { kind, properties: Some(Arc::new(properties)), seen: Instant::now(), number };
        self.settle(directory, name, &found)
    }

    /// Whether this mount says by itself which names are free in a directory, since it made that (DESIGN 10.2).
    pub(super) fn judges_names_in(&self, directory: &Inode) -> bool {
        let is_own = directory.directory.as_ref().is_some_and(|known| known.is_own(self.fresh_for()));
        is_own && !self.settings.excl_strict
    }

    /// Puts a new inode under a name that was free when that was asked for. `None`: the name was made, changed or removed here
    /// since (another view's program is as quick), and must be asked for again.
    pub(super) fn link_new(
        self: &Arc<Self>,
        directory: &Arc<Inode>,
        (name, asked): (&str, Instant),
        inode: &Arc<Inode>,
    ) -> Result<Option<Held>> {
        let is_touched = || directory.directory.as_ref().is_some_and(|known| known.is_touched_since(name, asked));
        if let Some(there) = self.table.child(directory.number, name)
            && !there.state.lock().is_local()
            && !is_touched()
        {
            // Nobody has the name any more, but an inode still claims it.
            self.detach(directory.number, name, &there);
        }
        let number = inode.number;
        let gone = || Error::new(libc::ESTALE, "the directory is gone");
        let linked = self.table.link(directory.number, name, Arc::clone(inode)).ok_or_else(gone)?;
        let held = Held::adopt(self, linked);
        // Who made it meanwhile has said so before it could be given up again: looked at once nobody can make it any more.
        if held.inode.number == number && !is_touched() {
            return Ok(Some(held));
        }
        inode.state.lock().discard_changes();
        self.table.unlink(number);
        drop(held);
        if let Some(scribe) = &self.scribe {
            scribe.forget_inode(number);
        }
        Ok(None)
    }

    /// Tells the directory, and other views, of a name that was made here.
    fn after_make(&self, caller: &Caller, directory: &Arc<Inode>, inode: &Arc<Inode>) {
        if let (Some(known), Some((_, name))) = (&directory.directory, self.table.place(inode.number)) {
            self.spoil_listed_ahead(directory, &name);
            self.views.invalidate(Some(&caller.view), &Invalidation::Entry(directory.number, Arc::clone(&name)));
            let (number, kind, seen) = (inode.number, inode.kind, Instant::now());
            known.put_local(&Slot { name, number, kind, properties: None, seen });
        }
        self.publish(inode);
        directory.state.lock().touch();
        self.views.invalidate(Some(&caller.view), &Invalidation::Attributes(directory.number));
    }

    pub(super) fn blob_at(&self, directory: &Inode, name: &str) -> Result<BlobName> {
        let component = self.naming.component(name.as_ref())?;
        BlobName::new(format!("{}{}", self.directory_prefix(directory.number)?, component.text))
            .map_err(|error| Error::new(libc::ENAMETOOLONG, format!("cannot create {name:?}: {error}")))
    }

    /// Owner, group and mode of something new: the caller's, but the group and the setgid bit of a setgid directory.
    fn new_attributes(&self, caller: &Caller, directory: &Inode, kind: Kind, mode: u32) -> Attributes {
        let parent = self.attr(&caller.view, directory);
        let setgid = parent.mode & libc::S_ISGID != 0;
        let inherited = if setgid && kind == Kind::Directory { libc::S_ISGID } else { 0 };
        let gid = if setgid { parent.gid } else { caller.gid };
        let now = SystemTime::now();
        Attributes {
            mode: Some(mode & 0o7777 | inherited),
            uid: Some(caller.uid),
            gid: caller.view.settings().forced_gid.is_none().then_some(gid),
            mtime: Some(now),
            atime: None,
            ctime: Some(now),
        }
    }
}

fn exists(name: &str) -> Error {
    Error::new(libc::EEXIST, format!("{name:?} exists already"))
}
