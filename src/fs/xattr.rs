//! Extended attributes. `user.*` is kept in blob metadata (`format`), facts of the blob answer under `user.azblob.*`, and
//! everything else is EOPNOTSUPP, without a look at the inode: the kernel asks for `security.capability` at each write
//! where it cannot leave that to us.

mod format;

use std::sync::Arc;

pub use format::MetadataChanges;

use super::{
    Caller, Error, FileSystem, InodeNumber, ROOT, Result,
    inode::{Inode, State},
    takeover::Begun,
};
use crate::blob::{Condition, Metadata};

/// What begins with this is a program's own.
const USER: &[u8] = b"user.";
/// What begins so (behind `user.`) is a fact of the blob: it can be read, is not listed (a copy of all attributes must
/// not fail on it, DESIGN 10.17), and cannot be set.
const FACTS: &[u8] = b"azblob.";

/// What must hold for an attribute to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetXattr {
    /// Nothing.
    Any,
    /// It must be new (XATTR_CREATE).
    Create,
    /// It must be there (XATTR_REPLACE).
    Replace,
}

impl FileSystem {
    /// getxattr(2).
    ///
    /// # Errors
    /// ENODATA where there is no such attribute; EOPNOTSUPP outside `user.`; as [`Self::getattr`].
    pub async fn get_xattr(self: &Arc<Self>, number: InodeNumber, name: &[u8]) -> Result<Vec<u8>> {
        let name = user_name(name)?;
        if self.is_figures(number) {
            return Err(no_such_attribute(name));
        }
        let inode = self.current(number).await?;
        let value = match name.strip_prefix(FACTS) {
            Some(b"acl") => self.access_list(&inode).await?.map(String::into_bytes),
            Some(fact) => self.fact(&inode, fact).await?,
            None => format::get(&inode.state.lock().metadata(), name),
        };
        value.ok_or_else(|| no_such_attribute(name))
    }

    /// listxattr(2): names, each with its NUL.
    ///
    /// # Errors
    /// As [`Self::getattr`].
    pub async fn list_xattrs(self: &Arc<Self>, number: InodeNumber) -> Result<Vec<u8>> {
        if self.is_figures(number) {
            return Ok(Vec::new());
        }
        let inode = self.current(number).await?;
        let names = format::names(&inode.state.lock().metadata());
        let mut list = Vec::new();
        for name in names {
            list.extend_from_slice(USER);
            list.extend_from_slice(&name);
            list.push(0);
        }
        Ok(list)
    }

    /// setxattr(2). Rides along with the commit of a file that is being written, and is on the service at once
    /// otherwise.
    ///
    /// # Errors
    /// EEXIST and ENODATA as `mode` has it; E2BIG for a value that no blob can hold, ENOSPC where the blob's other
    /// metadata leaves no room (8 KiB in all); EPERM for `user.azblob.*`; EOPNOTSUPP outside `user.` and on the root,
    /// which has no blob; EROFS; what a commit says.
    pub async fn set_xattr(
        self: &Arc<Self>,
        caller: &Caller,
        number: InodeNumber,
        name: &[u8],
        value: &[u8],
        mode: SetXattr,
    ) -> Result<()> {
        let begun = self.begin(caller);
        if let Some(outcome) = begun.outcome() {
            return outcome.map(drop);
        }
        self.note_begun(&begun);
        let set = self.set_own_xattr(caller, number, (name, value), mode, &begun).await;
        self.end(begun, &set, |()| (0, 0));
        set
    }

    async fn set_own_xattr(
        self: &Arc<Self>,
        caller: &Caller,
        number: InodeNumber,
        (name, value): (&[u8], &[u8]),
        mode: SetXattr,
        begun: &Begun,
    ) -> Result<()> {
        let (name, inode) = self.own_xattr(caller, number, name).await?;
        let was_dirty = inode.state.lock().is_dirty();
        {
            let mut state = inode.state.lock();
            match (mode, format::get(&state.metadata(), name)) {
                // The process before has set it.
                (SetXattr::Create, Some(there)) if begun.is_repeated() && there == value => {}
                (SetXattr::Create, Some(_)) => return Err(Error::new(libc::EEXIST, "the attribute is there already")),
                (SetXattr::Replace, None) => return Err(no_such_attribute(name)),
                _ => {}
            }
            let mut changes = state.metadata_changes.clone();
            changes.set(name, value);
            check_room(&inode, &state, &changes, name, value)?;
            state.change_metadata(changes);
        }
        self.save_attributes(caller, &inode, was_dirty).await
    }

    /// removexattr(2).
    ///
    /// # Errors
    /// ENODATA where there is no such attribute; otherwise as [`Self::set_xattr`].
    pub async fn remove_xattr(self: &Arc<Self>, caller: &Caller, number: InodeNumber, name: &[u8]) -> Result<()> {
        let begun = self.begin(caller);
        if let Some(outcome) = begun.outcome() {
            return outcome.map(drop);
        }
        self.note_begun(&begun);
        let removed = match self.remove_own_xattr(caller, number, name).await {
            // The process before has removed it; what is left is to save that.
            Err(error) if error.errno == libc::ENODATA && begun.is_repeated() => {
                let inode = self.current(number).await?;
                self.save_attributes(caller, &inode, false).await
            }
            removed => removed,
        };
        self.end(begun, &removed, |()| (0, 0));
        removed
    }

    async fn remove_own_xattr(self: &Arc<Self>, caller: &Caller, number: InodeNumber, name: &[u8]) -> Result<()> {
        let (name, inode) = self.own_xattr(caller, number, name).await?;
        let was_dirty = inode.state.lock().is_dirty();
        {
            let mut state = inode.state.lock();
            if format::get(&state.metadata(), name).is_none() {
                return Err(no_such_attribute(name));
            }
            let mut changes = state.metadata_changes.clone();
            changes.remove(name);
            state.change_metadata(changes);
        }
        self.save_attributes(caller, &inode, was_dirty).await
    }

    /// The name of an attribute that may be changed, and its inode.
    async fn own_xattr<'name>(
        self: &Arc<Self>,
        caller: &Caller,
        number: InodeNumber,
        name: &'name [u8],
    ) -> Result<(&'name [u8], Arc<Inode>)> {
        let name = user_name(name)?;
        if name.starts_with(FACTS) {
            return Err(Error::new(libc::EPERM, "user.azblob.* are facts of the blob, which cannot be set"));
        }
        self.check_writable(caller)?;
        if number == ROOT {
            return Err(Error::new(libc::EOPNOTSUPP, "the root of a volume has no blob to keep attributes in"));
        }
        Ok((name, self.current(number).await?))
    }

    /// A fact of the blob as it was last seen or committed; `None` where it has none. `request_id` costs a request: the
    /// last one for the blob is then the one whose id is given.
    async fn fact(&self, inode: &Inode, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(base) = inode.state.lock().base.clone() else { return Ok(None) };
        let properties = &base.properties;
        let text = match name {
            b"etag" => Some(properties.etag.0.trim_matches('"').to_owned()),
            b"url" => Some(self.store.url(&self.blob_name(inode)?)),
            b"tier" => properties.access_tier.clone(),
            b"content_type" => properties.headers.content_type.clone(),
            b"cached" => match self.cache().disk() {
                Some(disk) => Some(disk.kept_bytes(&base.content).await.to_string()),
                None => None,
            },
            b"request_id" => {
                let blob = self.blob_name(inode)?;
                let asked = self.store.head(&blob, &Condition::None).await;
                asked.map_err(|error| Error::from_store(format!("cannot ask for {blob}"), error))?.request_id
            }
            _ => None,
        };
        Ok(text.map(String::into_bytes))
    }
}

impl State {
    /// All metadata as it will be after the next commit, but for owner, mode and times.
    fn metadata(&self) -> Metadata {
        let mut metadata = self.base.as_ref().map(|base| base.properties.metadata.clone()).unwrap_or_default();
        self.metadata_changes.apply(&mut metadata);
        metadata
    }

    fn change_metadata(&mut self, changes: MetadataChanges) {
        self.metadata_changes = changes;
        self.attributes.ctime = Some(std::time::SystemTime::now());
        self.attributes_dirty = true;
    }
}

fn check_room(inode: &Inode, state: &State, changes: &MetadataChanges, name: &[u8], value: &[u8]) -> Result<()> {
    let fits = |mut metadata: Metadata, changes: &MetadataChanges| {
        changes.apply(&mut metadata);
        format::fits(&metadata, inode.kind)
    };
    let base = state.base.as_ref().map(|base| base.properties.metadata.clone()).unwrap_or_default();
    if fits(base, changes) {
        return Ok(());
    }
    let mut alone = MetadataChanges::default();
    alone.set(name, value);
    let errno = if fits(Metadata::new(), &alone) { libc::ENOSPC } else { libc::E2BIG };
    Err(Error::new(errno, "all metadata of a blob, its attributes among it, has at most 8 KiB"))
}

/// The part of a name behind `user.`.
fn user_name(name: &[u8]) -> Result<&[u8]> {
    let name = name.strip_prefix(USER).filter(|name| !name.is_empty());
    name.ok_or_else(|| Error::new(libc::EOPNOTSUPP, "a blob has extended attributes of users only"))
}

fn no_such_attribute(name: &[u8]) -> Error {
    Error::new(libc::ENODATA, format!("there is no attribute user.{}", String::from_utf8_lossy(name)))
}
