//! Taking names away, and keeping what is still open readable until its last close.

use std::{collections::BTreeMap, ffi::OsStr, sync::Arc, time::Instant};

use super::{
    Caller, Error, FileSystem, InodeNumber, Invalidation, Kind, ROOT, Result,
    attributes::Attributes,
    inode::{Base, Fate, Inode},
    name::RESERVED,
    overlay::{Overlay, Segment},
    takeover::Begun,
    view::View,
};
use crate::{
    blob::{
        BlobName, BlobProperties, Body, Condition, ContentHeaders, ErrorKind, ListEntry, ListRequest, WriteOptions,
    },
    cache::{Buffer, Class, Pool},
};

/// What an open file may keep in memory after its name is gone; a larger one is copied inside the service to a hidden
/// name (DESIGN 10.5). Equal to what one write keeps in memory anyway.
pub(super) const KEPT_IN_MEMORY_BYTES_MAX: u64 = 1 << 20;

impl FileSystem {
    /// unlink(2).
    ///
    /// # Errors
    /// ENOENT, EISDIR, EROFS; EBUSY for a leased blob or one with snapshots; what the service says, or has said of an earlier
    /// unlink in the directory that was answered before it ([`super::deletes`]).
    pub async fn unlink(self: &Arc<Self>, caller: &Caller, parent: InodeNumber, name: &OsStr) -> Result<()> {
        let mut begun = self.begin(caller);
        if let Some(outcome) = begun.outcome() {
            return outcome.map(drop);
        }
        let removed = match self.catch_up_unlink(&begun).await {
            Ok(true) => Ok(()),
            Ok(false) => self.unlink_name(caller, parent, name, &mut begun).await,
            Err(error) => Err(error),
        };
        self.end_removal(begun, removed)
    }

    /// Writes down how a removal ended. What is not there is what the process before has removed, if that had begun it.
    fn end_removal(&self, begun: Begun, mut removed: Result<()>) -> Result<()> {
        if begun.is_repeated() && removed.as_ref().is_err_and(|error| error.errno == libc::ENOENT) {
            removed = Ok(());
        }
        self.end(begun, &removed, |()| (0, 0));
        removed
    }

    async fn unlink_name(
        self: &Arc<Self>,
        caller: &Caller,
        parent: InodeNumber,
        name: &OsStr,
        begun: &mut Begun,
    ) -> Result<()> {
        self.check_writable(caller)?;
        let held = self.resolve(parent, name).await?;
        if held.inode.kind == Kind::Directory {
            return Err(Error::new(libc::EISDIR, "a directory is removed with rmdir"));
        }
        let _in_order = held.inode.commit.lock().await;
        self.note_unlinking(begun, held.inode.number, None);
        self.keep_directory(parent).await?;
        if self.unlink_ahead(caller, parent, &held.inode).await? {
            return Ok(());
        }
        let hidden = self.hide_open(&held.inode, begun).await?;
        if !hidden {
            self.preserve(&held.inode).await?;
        }
        let may_be_there = {
            let state = held.inode.state.lock();
            let replaces = state.owed.as_ref().is_some_and(|owed| owed.replaces());
            state.base.is_some() || replaces || !state.attempts.is_empty()
        };
        if !hidden && may_be_there {
            if self.owe_removal(caller, &held.inode) {
                return Ok(());
            }
            let blob = self.blob_name(&held.inode)?;
            let deleted = self.delete_blob(&blob).await;
            held.inode.state.lock().name_in_motion = false;
            deleted?;
        }
        self.forget_name(Some(&caller.view), &held.inode, Fate::Unlinked);
        if let Some(known) = self.table.get(parent).as_ref().and_then(|parent| parent.directory.as_ref()) {
            known.note_unlink();
        }
        Ok(())
    }

    /// rmdir(2).
    ///
    /// # Errors
    /// ENOTEMPTY (hidden blobs count, and are named in the log), ENOTDIR, ENOENT, EROFS; what the service says.
    pub async fn remove_directory(self: &Arc<Self>, caller: &Caller, parent: InodeNumber, name: &OsStr) -> Result<()> {
        let begun = self.begin(caller);
        if let Some(outcome) = begun.outcome() {
            return outcome.map(drop);
        }
        self.note_begun(&begun);
        let removed = self.remove_directory_name(caller, parent, name).await;
        self.end_removal(begun, removed)
    }

    async fn remove_directory_name(self: &Arc<Self>, caller: &Caller, parent: InodeNumber, name: &OsStr) -> Result<()> {
        self.check_writable(caller)?;
        let held = self.resolve(parent, name).await?;
        if held.inode.kind != Kind::Directory {
            return Err(Error::new(libc::ENOTDIR, "not a directory"));
        }
        self.finish_deletes_in(&held.inode).await?;
        let _in_order = held.inode.commit.lock().await;
        if let Some(paths) = self.paths() {
            self.remove_path(paths, &held.inode).await?;
            self.forget_name(Some(&caller.view), &held.inode, Fate::Unlinked);
            return Ok(());
        }
        self.send_removals_below(held.inode.number).await?;
        self.check_empty(&held.inode).await?;
        self.keep_directory(parent).await?;
        let marker = self.blob_name(&held.inode)?;
        if held.inode.state.lock().base.is_some() {
            self.delete_blob(&marker).await?;
        }
        self.forget_name(Some(&caller.view), &held.inode, Fate::Unlinked);
        Ok(())
    }

    /// Deletes a blob that may be gone already.
    pub(super) async fn delete_blob(&self, blob: &BlobName) -> Result<()> {
        match self.store.delete(blob, &Condition::None).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::from_store(format!("cannot remove {blob}"), error)),
        }
    }

    /// Takes the name from an inode, here and in what is known of its directory. `knows`: the view whose kernel knows already.
    pub(super) fn forget_name(self: &Arc<Self>, knows: Option<&View>, inode: &Arc<Inode>, fate: Fate) {
        let Some((parent, name)) = self.table.place(inode.number) else { return };
        if fate == Fate::Unlinked && inode.kind == Kind::File {
            self.space.give_back(inode.state.lock().size());
        }
        inode.state.lock().fate = fate;
        self.table.unlink(inode.number);
        self.settle_owed(inode);
        self.let_go_hidden_copy(inode);
        if let Some(directory) = self.table.get(parent) {
            self.spoil_listed_ahead(&directory, &name);
            if let Some(known) = &directory.directory {
                known.remove_local(&name);
            }
            directory.state.lock().touch();
        }
        self.views.invalidate(knows, &Invalidation::Entry(parent, name));
        self.views.invalidate(knows, &Invalidation::Attributes(parent));
    }

    /// A file whose name has gone was closed while its hidden copy was being made: nobody else comes to delete that.
    fn let_go_hidden_copy(self: &Arc<Self>, inode: &Arc<Inode>) {
        let is_left = {
            let state = inode.state.lock();
            state.opened == 0 && state.fate == Fate::Unlinked && state.orphan.is_some()
        };
        if is_left {
            let (volume, inode) = (Arc::clone(self), Arc::clone(inode));
            self.resources.runtime.spawn(async move { volume.finish_last_close(&inode).await });
        }
    }

    /// ENOTEMPTY unless nothing is below a directory: neither here, uncommitted, nor at the service, shown or hidden.
    pub(super) async fn check_empty(&self, directory: &Inode) -> Result<()> {
        self.check_empty_here(directory)?;
        let prefix = self.directory_prefix(directory.number)?;
        let mut marker = None;
        loop {
            // Two: the marker `d/` of some tools, and anything else.
            let request = ListRequest { prefix: prefix.clone(), delimited: false, marker, max_results: Some(2) };
            let page = self.store.list(&request).await;
            let page = page.map_err(|error| Error::from_store(format!("cannot look into {prefix:?}"), error))?;
            for entry in &page.entries {
                let ListEntry::Blob(name, properties) = entry else { continue };
                let marks = name.as_str() == prefix && Kind::of(&properties.metadata) == Kind::Directory;
                if marks {
                    self.delete_blob(name).await?;
                    continue;
                }
                if directory.number != ROOT || !name.as_str().starts_with(&format!("{prefix}{RESERVED}/")) {
                    tracing::info!(blob = name.as_str(), "a directory is not removed: this blob is in it");
                    return Err(not_empty(&format!("the blob {:?}", name.as_str())));
                }
            }
            match page.next_marker {
                Some(next) => marker = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// ENOTEMPTY where something is below a directory that is not committed yet.
    pub(super) fn check_empty_here(&self, directory: &Inode) -> Result<()> {
        let children = self.table.children(directory.number);
        match children.into_iter().find(|(_, child)| child.state.lock().is_local()) {
            Some((name, _)) => Err(not_empty(&format!("{name:?}"))),
            None => Ok(()),
        }
    }

    /// Makes a marker for a directory that is a bare prefix, before its last name may go: to a program, a directory stays
    /// until rmdir(2).
    pub(super) async fn keep_directory(self: &Arc<Self>, number: InodeNumber) -> Result<()> {
        if number == ROOT || self.paths().is_some() {
            return Ok(());
        }
        let directory = self.directory_inode(number)?;
        // (Of one that only the journal has, the marker is on its way.)
        if directory.state.lock().base.is_some() || directory.is_owed_directory() {
            return Ok(());
        }
        let marker = self.blob_name(&directory)?;
        let mut metadata = crate::blob::Metadata::new();
        Attributes::default().write_to(Kind::Directory, &mut metadata);
        let options = WriteOptions {
            condition: Condition::Absent,
            metadata,
            headers: ContentHeaders::default(),
            access_tier: None,
        };
        match self.store.put_blob(&marker, Body::new(), &options).await {
            Ok(committed) => {
                let properties = BlobProperties::written(&committed, options.metadata);
                self.observe(&directory, &Self::found_marker(properties, Instant::now()));
                Ok(())
            }
            // A marker that we had not seen, or a shadowed blob of the name, which keeps the name alive as well.
            Err(error) if error.kind == ErrorKind::Precondition => Ok(()),
            Err(error) => Err(Error::from_store(format!("cannot keep the directory {marker}"), error)),
        }
    }

    /// Makes the bytes of an open file independent of its blob, which is about to go. Called under the inode's commit lock.
    pub(super) async fn preserve(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<()> {
        if inode.state.lock().opened == 0 || inode.kind != Kind::File {
            return Ok(());
        }
        inode.state.lock().name_in_motion = true;
        self.commit_sent(inode).await?;
        let Some(base) = inode.state.lock().base.clone() else { return Ok(()) };
        let kept = inode.state.lock().overlay.as_ref().map_or(base.properties.length, Overlay::below);
        if kept == 0 {
            return Ok(());
        }
        match self.keep(inode, &base, kept).await {
            Err(error) if matches!(error.kind(), Some(ErrorKind::NotFound | ErrorKind::Precondition)) => {
                let adopted = self.adopt_same_bytes(inode).await?;
                let base = inode.state.lock().base.clone().filter(|_| adopted);
                if let Some(base) = base {
                    return self.keep(inode, &base, kept).await;
                }
                // Another client took the version before us. The name goes all the same; reads of it say ESTALE.
                tracing::info!("an open file whose name goes cannot be kept: {}", error.to_chain());
                Ok(())
            }
            kept => kept,
        }
    }

    /// Commits layers that were sent ahead: they live at the service under the name that goes.
    pub(super) async fn commit_sent(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<()> {
        let sent = {
            let state = inode.state.lock();
            let sent = |layer: &Overlay| layer.staged().next().is_some();
            state.committing.is_some() || !state.staging.is_empty() || state.overlay.as_ref().is_some_and(sent)
        };
        if sent { self.commit_locked(inode).await } else { Ok(()) }
    }

    async fn keep(self: &Arc<Self>, inode: &Arc<Inode>, base: &Base, length: u64) -> Result<()> {
        if length <= KEPT_IN_MEMORY_BYTES_MAX {
            self.keep_in_memory(inode, base, length).await
        } else {
            self.orphan(inode, base).await
        }
    }

    /// Copies what lies below the top layer into it, around what it has of its own.
    async fn keep_in_memory(&self, inode: &Arc<Inode>, base: &Base, length: u64) -> Result<()> {
        let all = 0..length;
        let found = self.cache().read(&base.content, all.clone(), &self.cache().stream()).await;
        let found = found.map_err(|error| Error::from_store("cannot keep an open file whose name goes", error))?;
        let bytes = found.to_vec();
        let mut buffers = BTreeMap::new();
        loop {
            let wanted = {
                let mut state = inode.state.lock();
                let layer = state.overlay_mut();
                let missing = |(index, length): &(u64, u64)| {
                    buffers.get(index).is_none_or(|buffer: &Buffer| (buffer.len() as u64) < *length)
                };
                let wanted: Vec<_> = layer.buffers_wanted(&all).into_iter().filter(missing).collect();
                if wanted.is_empty() {
                    return fill_below(layer, &bytes, &mut buffers);
                }
                wanted
            };
            // At once: two files that each held a part and waited for the rest would wait for each other.
            let capacity = |length: u64| Pool::capacity(usize::try_from(length).unwrap_or(usize::MAX));
            let total = wanted.iter().map(|(_, length)| capacity(*length) as u64).sum();
            let mut memory = self.pool().budget().reserve(Class::Demand, total).await;
            for (index, length) in wanted {
                let capacity = capacity(length);
                let memory = memory.split(capacity as u64);
                let buffer = self.pool().take_dirty(self.vault.as_ref(), memory, capacity).ok_or_else(no_memory)?;
                buffers.insert(index, buffer);
            }
        }
    }
}

fn no_memory() -> Error {
    Error::new(libc::ENOMEM, "the kernel has no memory to keep an open file whose name goes; give the process more")
}

fn not_empty(what: &str) -> Error {
    Error::new(libc::ENOTEMPTY, format!("the directory holds {what}"))
}

/// Writes what lies below `layer` into it, from the old version's `bytes`. The buffers for all of it are there.
fn fill_below(layer: &mut Overlay, bytes: &[u8], buffers: &mut BTreeMap<u64, Buffer>) -> Result<()> {
    let size = layer.size();
    for segment in layer.segments(&(0..bytes.len() as u64)) {
        let Segment::Below(range) = segment else { continue };
        let part = &bytes[range.start as usize..range.end as usize];
        if layer.write(range.start, part, buffers).is_err() {
            return Err(Error::new(libc::EBUSY, "the open file was written while its name was removed; try again"));
        }
    }
    layer.truncate(size).map_err(|_| Error::new(libc::EBUSY, "the open file was cut while its name was removed"))
}
