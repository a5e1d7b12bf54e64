//! rename(2) on a flat namespace: a copy inside the service, then a delete, each under the version that was seen.
//!
//! No blob is ever lost: a source is deleted only when its copy has succeeded, and only in the version that was copied. A
//! directory's rename is that of each blob below it (`tree`); one that breaks off can be done again (`journal`).

mod journal;
mod tree;

use std::{ffi::OsStr, sync::Arc};

use super::{
    Caller, Error, FileSystem, InodeNumber, Invalidation, Kind, Result,
    directory::Slot,
    inode::{Fate, Inode},
    lookup::Held,
    takeover::Begun,
    view::View,
};
use crate::blob::{BlobName, BlobProperties, Committed, Condition, CopyOptions, ETag, ErrorKind};

/// What may be at the new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// Anything of the same sort; it is replaced.
    Replace,
    /// Nothing (RENAME_NOREPLACE).
    NoReplace,
}

/// A blob that is to get another name.
#[derive(Debug)]
struct Move {
    from: BlobName,
    etag: ETag,
    to: BlobName,
    /// What Copy Blob does not take along by itself.
    access_tier: Option<String>,
    tag_count: u32,
}

impl Move {
    fn new(from: BlobName, properties: &BlobProperties, to: BlobName) -> Self {
        let (etag, access_tier) = (properties.etag.clone(), properties.access_tier.clone());
        Self { from, etag, to, access_tier, tag_count: properties.tag_count }
    }
}

/// The inodes that a rename concerns, held still: none of them commits, and none sends blocks ahead, until their names
/// have changed. A directory's are the files below it that somebody writes.
pub(super) struct Still {
    inodes: Vec<Arc<Inode>>,
    _locks: Vec<crate::sync::tokio::sync::OwnedMutexGuard<()>>,
}

impl Still {
    async fn hold(file_system: &FileSystem, source: &Arc<Inode>, target: Option<&Held>) -> Self {
        let mut inodes = vec![Arc::clone(source)];
        inodes.extend(target.map(|target| Arc::clone(&target.inode)));
        inodes.extend(file_system.written_below(source));
        // By ascending number: two renames that meet cannot wait for each other.
        inodes.sort_by_key(|inode| inode.number);
        inodes.dedup_by_key(|inode| inode.number);
        let mut locks = Vec::with_capacity(inodes.len());
        for inode in &inodes {
            inode.state.lock().name_in_motion = true;
            locks.push(Arc::clone(&inode.commit).lock_owned().await);
        }
        Self { inodes, _locks: locks }
    }

    /// Commits everything that is held, but the source directory's own attributes, which move with its marker.
    pub(super) async fn commit(&self, file_system: &Arc<FileSystem>, source: &Inode) -> Result<()> {
        for inode in self.inodes.iter().filter(|inode| inode.number != source.number && inode.kind == Kind::File) {
            file_system.commit_locked(inode).await?;
        }
        Ok(())
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        self.inodes.iter().for_each(|inode| inode.state.lock().name_in_motion = false);
    }
}

impl FileSystem {
    /// rename(2).
    ///
    /// # Errors
    /// ENOENT, EEXIST, EISDIR, ENOTDIR, ENOTEMPTY, EINVAL for a directory into itself, EROFS; ESTALE when another client
    /// changed the source meanwhile (both names then stay); what the service says.
    pub async fn rename(
        self: &Arc<Self>,
        caller: &Caller,
        (parent, name): (InodeNumber, &OsStr),
        (new_parent, new_name): (InodeNumber, &OsStr),
        mode: RenameMode,
    ) -> Result<()> {
        let mut begun = self.begin(caller);
        if let Some(outcome) = begun.outcome() {
            return outcome.map(drop);
        }
        let renamed = match self.catch_up_rename(&begun).await {
            Ok(true) => Ok(()),
            Ok(false) => self.rename_name(caller, (parent, name), (new_parent, new_name), mode, &mut begun).await,
            Err(error) => Err(error),
        };
        self.end(begun, &renamed, |()| (0, 0));
        renamed
    }

    async fn rename_name(
        self: &Arc<Self>,
        caller: &Caller,
        (parent, name): (InodeNumber, &OsStr),
        (new_parent, new_name): (InodeNumber, &OsStr),
        mode: RenameMode,
        begun: &mut Begun,
    ) -> Result<()> {
        self.check_writable(caller)?;
        let source = self.resolve(parent, name).await?;
        let shown = self.new_name(caller, new_parent, new_name)?;
        let component = self.naming.component(shown.as_ref())?;
        let directory = self.directory_inode(new_parent)?;
        self.wait_deleted(&directory, &shown).await;
        let target = self.existing(new_parent, &shown).await?;
        if let Some(target) = &target {
            if target.inode.number == source.inode.number {
                return Ok(());
            }
            if mode == RenameMode::NoReplace && !begun.is_repeated() {
                return Err(Error::new(libc::EEXIST, format!("{shown:?} exists already")));
            }
        }
        if self.table.is_within(new_parent, source.inode.number) {
            return Err(Error::new(libc::EINVAL, "a directory cannot be moved into itself"));
        }
        for moved in [Some(&source), target.as_ref()].into_iter().flatten() {
            self.finish_deletes_in(&moved.inode).await?;
        }
        let new_path = format!("{}{}", self.directory_prefix(new_parent)?, component.text);
        let new_blob = BlobName::new(new_path)
            .map_err(|error| Error::new(libc::ENAMETOOLONG, format!("cannot rename to {shown:?}: {error}")))?;
        if let Ok(from) = self.blob_name(&source.inode) {
            self.note_renaming(begun, (source.inode.number, &from), (new_parent, &shown, &new_blob));
        }
        let mode = if begun.is_repeated() { RenameMode::Replace } else { mode };
        let resumed = match &target {
            Some(target) => {
                self.send_removals_below(target.inode.number).await?;
                self.check_replaceable(&source.inode, &target.inode, &new_blob).await?
            }
            None => false,
        };
        let is_directory = source.inode.kind == Kind::Directory;
        let _names_stay = is_directory.then(|| self.begin_directory_rename());
        if is_directory {
            self.send_below(source.inode.number).await?; // Markers that only the journal has would not move along.
        }
        self.keep_directory(parent).await?;
        let still = Still::hold(self, &source.inode, target.as_ref()).await;
        let in_journal = self.owe_rename(&source.inode, target.as_ref(), (new_parent, &new_blob), mode).await?;
        if in_journal {
            // Its attributes are in the record, with the time of this.
        } else if let Some(paths) = self.paths() {
            self.move_path(paths, &source.inode, &still, (target.as_ref(), &new_blob), mode).await?;
        } else if source.inode.kind == Kind::Directory {
            self.move_directory(&source.inode, &still, target.as_ref(), &new_blob, resumed).await?;
        } else {
            self.move_file(&source.inode, target.as_ref(), &new_blob, mode).await?;
        }
        self.move_name(Some(&caller.view), &source.inode, target.as_ref(), new_parent, &shown);
        if !in_journal {
            source.inode.state.lock().attributes.ctime = Some(std::time::SystemTime::now());
        }
        Ok(())
    }

    /// Whether `source` may take the name of `target`. `true`: what that holds is what an earlier rename of the two has
    /// left, and this one goes on with it.
    async fn check_replaceable(&self, source: &Inode, target: &Inode, new_blob: &BlobName) -> Result<bool> {
        match (source.kind == Kind::Directory, target.kind == Kind::Directory) {
            (true, false) => Err(Error::new(libc::ENOTDIR, "the new name is not a directory")),
            (false, true) => Err(Error::new(libc::EISDIR, "the new name is a directory")),
            (true, true) if self.paths().is_some() => self.check_empty_here(target).map(|()| false),
            (true, true) => match self.check_empty(target).await {
                Err(full) if full.errno == libc::ENOTEMPTY => {
                    let unfinished = self.is_unfinished(&self.blob_name(source)?, new_blob).await?;
                    if unfinished { Ok(true) } else { Err(full) }
                }
                other => other.map(|()| false),
            },
            (false, false) => Ok(false),
        }
    }

    /// What renameat2(2) is answered for RENAME_EXCHANGE and RENAME_WHITEOUT: neither can be done without a moment in which
    /// a name leads to nothing. Said in the log once.
    pub fn refuse_rename_flags(&self, flags: &str) -> Error {
        self.exchange_refusal.call_once(|| {
            tracing::warn!(
                flags,
                "a program asked to exchange two names, which blobs cannot: EINVAL, now and from now on"
            );
        });
        Error::new(libc::EINVAL, format!("rename with flags {flags} is not supported"))
    }

    async fn move_file(
        self: &Arc<Self>,
        source: &Arc<Inode>,
        target: Option<&Held>,
        new_blob: &BlobName,
        mode: RenameMode,
    ) -> Result<()> {
        self.commit_locked(source).await?;
        let Some(base) = source.state.lock().base.clone() else {
            return Err(Error::new(libc::ESTALE, "the file has no version to rename"));
        };
        if let Some(target) = target {
            self.preserve(&target.inode).await?;
        }
        let condition = match (target, mode) {
            (Some(_), RenameMode::Replace) => Condition::None,
            _ => Condition::Absent,
        };
        let from = self.blob_name(source)?;
        let properties = self.with_tier(&from, &base.properties).await?;
        let moved = Move::new(from, &properties, new_blob.clone());
        let committed = match self.copy_one(&moved, &condition).await {
            // Somebody made the new name since we looked: rename(2) replaces it all the same.
            Err(error) if error.kind() == Some(ErrorKind::Precondition) && mode == RenameMode::Replace => {
                self.copy_one(&moved, &Condition::None).await?
            }
            Err(error) if error.kind() == Some(ErrorKind::Precondition) => return Err(error.with_errno(libc::EEXIST)),
            other => other?,
        };
        self.delete_source(&moved).await?;
        self.repoint(source, new_blob, &committed);
        Ok(())
    }

    async fn copy_one(&self, moved: &Move, condition: &Condition) -> Result<Committed> {
        let options = CopyOptions {
            condition: condition.clone(),
            access_tier: moved.access_tier.clone(),
            tags: self.tags_of(&moved.from, moved.tag_count).await?,
        };
        let copied = self.store.copy(&moved.from, &moved.etag, &moved.to, &options).await;
        copied.map_err(|error| Error::from_store(format!("cannot rename {} to {}", moved.from, moved.to), error))
    }

    /// Deletes a source in the version that was copied. A version that came meanwhile stays under the old name.
    async fn delete_source(&self, moved: &Move) -> Result<()> {
        match self.store.delete(&moved.from, &Condition::Match(moved.etag.clone())).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            Err(error) => {
                let sentence = format!("{} is at {} now, but the old name stays", moved.from, moved.to);
                Err(Error::from_store(sentence, error))
            }
        }
    }

    /// The same bytes have a new name and a new ETag: what is cached moves along.
    pub(super) fn repoint(&self, inode: &Inode, name: &BlobName, committed: &Committed) {
        let mut state = inode.state.lock();
        let Some(base) = state.base.clone() else { return };
        base.content.repoint(name.clone(), committed.etag.clone());
        state.base = Some(Arc::new(base.renamed(committed)));
        state.checked = Some(std::time::Instant::now());
    }

    /// The files below a directory that have something uncommitted, or a writer.
    pub(super) fn written_below(&self, directory: &Inode) -> Vec<Arc<Inode>> {
        let mut found = Vec::new();
        let mut waiting = vec![directory.number];
        while let Some(number) = waiting.pop() {
            for (_, child) in self.table.children(number) {
                if child.kind == Kind::Directory {
                    waiting.push(child.number);
                } else if child.state.lock().is_local() {
                    found.push(child);
                }
            }
        }
        found
    }

    /// The new name leads to the source's inode, here and in what is known of both directories. `knows`: the view whose kernel
    /// knows already.
    pub(super) fn move_name(
        self: &Arc<Self>,
        knows: Option<&View>,
        source: &Arc<Inode>,
        target: Option<&Held>,
        new_parent: InodeNumber,
        shown: &str,
    ) {
        if let Some(target) = target {
            self.forget_name(knows, &target.inode, Fate::Unlinked);
        }
        let Some((parent, name)) = self.table.place(source.number) else { return };
        if source.kind == Kind::Directory {
            self.subtrees.end_all();
        }
        if let Some(directory) = self.table.get(parent) {
            self.spoil_listed_ahead(&directory, &name);
            if let Some(known) = &directory.directory {
                known.remove_local(&name);
            }
        }
        self.table.rename(source.number, new_parent, shown);
        if let Some(directory) = self.table.get(new_parent) {
            self.spoil_listed_ahead(&directory, shown);
            if let Some(known) = &directory.directory {
                let (number, kind, seen) = (source.number, source.kind, std::time::Instant::now());
                known.put_local(&Slot { name: Arc::from(shown), number, kind, properties: None, seen });
            }
            directory.state.lock().touch();
        }
        self.publish(source);
        for invalid in [
            Invalidation::Entry(parent, name),
            Invalidation::Entry(new_parent, Arc::from(shown)),
            Invalidation::Attributes(parent),
            Invalidation::Attributes(new_parent),
        ] {
            self.views.invalidate(knows, &invalid);
        }
    }
}
