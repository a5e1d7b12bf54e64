//! What is different where the account is hierarchical (Data Lake Storage Gen2): directories are things of their own and
//! not markers, a rename is one request whatever is below, a directory is removed exactly when it is empty, and modes are
//! the service's. Must not know how the service is asked: that is `blob`'s `HierarchicalStore`.
//!
//! Owners of such an account are Entra object ids, which no uid is: uid and gid stay in metadata (DESIGN 10.17). So do
//! setuid and setgid, which the service does not keep.
//!
//! Whether a rename makes a new ETag is not documented. Where the service does not say, the old one is taken to stay (all
//! that is known speaks for it), except for open files: those are asked for, since their handles live by it. A wrong guess
//! is found at the next open, like a foreign version.

use std::sync::Arc;

use super::{
    Error, FileSystem, Kind, Result,
    attributes::Attributes,
    inode::{Fate, Inode, State},
    lookup::Held,
    name::RESERVED,
    remove::KEPT_IN_MEMORY_BYTES_MAX,
    rename::{RenameMode, Still},
    takeover::Begun,
};
use crate::{
    blob::{
        self, BlobName, BlobProperties, Body, Committed, Condition, ErrorKind, HierarchicalStore, MODE_BITS, Metadata,
        WriteOptions,
    },
    sync::{AtomicBool, Ordering},
};

/// A mode whose blob got another ETag meanwhile is set again under that; more often than this, somebody keeps changing it.
const MODE_TRIES_MAX: u32 = 4;
/// Mode of the directory of our own hidden blobs, in octal.
const HIDDEN_DIRECTORY_MODE: u32 = 0o700;
/// Mode of a directory that nobody has said one for.
const DIRECTORY_MODE_DEFAULT: u32 = 0o755;
/// The code of a rename whose new directory is missing; its kind is that of a missing source.
const NO_PARENT: &str = "RenameDestinationParentPathNotFound";

/// What is known of the account.
#[derive(Debug)]
pub(super) struct Hierarchy {
    enabled: bool,
    /// The credential may not set modes: they are kept and shown as on a flat account.
    modes_refused: AtomicBool,
}

impl Hierarchy {
    pub(super) fn new(enabled: bool) -> Self {
        Self { enabled, modes_refused: AtomicBool::new(false) }
    }
}

impl FileSystem {
    /// What the account can do because it is hierarchical; `None` on a flat one.
    pub(super) fn paths(&self) -> Option<&dyn HierarchicalStore> {
        if self.hierarchy.enabled { self.store.hierarchy() } else { None }
    }

    /// The attributes of a blob: from its metadata, but the mode from the service where that keeps one.
    pub(super) fn attributes_of(&self, properties: &BlobProperties) -> Attributes {
        let mut attributes = Attributes::read_from(&properties.metadata);
        let refused = self.hierarchy.modes_refused.load(Ordering::Relaxed);
        if let Some(mode) = properties.mode.filter(|_| self.hierarchy.enabled && !refused) {
            let kept_here = attributes.mode.unwrap_or(0) & !MODE_BITS;
            attributes.mode = Some(mode | kept_here);
        }
        attributes
    }

    /// After changes were dropped: the attributes are those of the version that is there, its mode among them.
    pub(super) fn restore_mode(&self, state: &mut State) {
        if let Some(base) = state.base.clone() {
            state.attributes = self.attributes_of(&base.properties);
        }
    }

    /// Puts a blob that must not exist: a directory as what it is, anything else with its mode, which Put Blob does not
    /// take. Returns the mode that the service has then, where that is known.
    pub(super) async fn put_new_blob(
        &self,
        name: &BlobName,
        kind: Kind,
        mode: Option<u32>,
        body: Body,
        options: &WriteOptions,
    ) -> blob::Result<(Committed, Option<u32>)> {
        let Some(paths) = self.paths() else { return Ok((self.store.put_blob(name, body, options).await?, None)) };
        if kind == Kind::Directory {
            let mode = mode.unwrap_or(DIRECTORY_MODE_DEFAULT) & MODE_BITS;
            let made = paths.create_directory(name, mode, &options.metadata, &options.condition).await?;
            return Ok((made, Some(mode)));
        }
        let made = self.store.put_blob(name, body, options).await?;
        let Some(mode) = mode.filter(|_| kind != Kind::Symlink) else { return Ok((made, None)) };
        // A mode that cannot be set now is set by the next commit: the blob is there all the same.
        let set = self.set_mode(paths, name, mode, &Condition::Match(made.etag.clone())).await;
        Ok(set.ok().flatten().map_or((made, None), |set| (set, Some(mode & MODE_BITS))))
    }

    /// Sets a mode. `None`: the credential may not, and is not tried again.
    async fn set_mode(
        &self,
        paths: &dyn HierarchicalStore,
        name: &BlobName,
        mode: u32,
        condition: &Condition,
    ) -> blob::Result<Option<Committed>> {
        if self.hierarchy.modes_refused.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match paths.set_mode(name, mode, condition).await {
            Ok(committed) => Ok(Some(committed)),
            Err(error) if error.kind == ErrorKind::Denied => {
                if !self.hierarchy.modes_refused.swap(true, Ordering::Relaxed) {
                    let remedy = error.remedy().unwrap_or_default();
                    tracing::warn!("modes are kept in metadata, where only this driver sees them: {error}. {remedy}");
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Brings the mode to the service where it has another, once everything else is there. Called under the inode's commit
    /// lock.
    pub(super) async fn commit_mode(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<()> {
        let Some(paths) = self.paths().filter(|_| inode.kind != Kind::Symlink) else { return Ok(()) };
        for _ in 0..MODE_TRIES_MAX {
            let (base, mode) = {
                let state = inode.state.lock();
                let differs = |base: &BlobProperties| match state.attributes.mode {
                    Some(mode) => base.mode != Some(mode & MODE_BITS),
                    None => false,
                };
                match &state.base {
                    Some(base) if state.fate == Fate::Linked && differs(&base.properties) => {
                        (Arc::clone(base), state.attributes.mode.unwrap_or_default())
                    }
                    _ => return Ok(()),
                }
            };
            let name = self.blob_name(inode)?;
            let condition = Condition::Match(base.properties.etag.clone());
            match self.set_mode(paths, &name, mode, &condition).await {
                Ok(Some(committed)) => {
                    base.content.repoint(name, committed.etag.clone());
                    inode.state.lock().base = Some(Arc::new(base.with_mode(&committed, mode & MODE_BITS)));
                    self.publish(inode);
                    return Ok(());
                }
                Ok(None) => return Ok(()),
                Err(error) if error.kind == ErrorKind::Precondition && self.adopt_same_bytes(inode).await? => {}
                Err(error) => return Err(Error::from_store(format!("cannot set the mode of {name}"), error)),
            }
        }
        Ok(())
    }

    /// Who may do what with an inode's path, as one text for people: owner, group and access list in the service's words.
    /// `None` on a flat account, and for what is not on the service.
    ///
    /// # Errors
    /// EACCES where the credential may not ask; what the service says.
    pub(super) async fn access_list(&self, inode: &Inode) -> Result<Option<String>> {
        let Some(paths) = self.paths().filter(|_| inode.state.lock().base.is_some()) else { return Ok(None) };
        let name = self.blob_name(inode)?;
        let control = paths.access_control(&name).await;
        let control = control.map_err(|error| Error::from_store(format!("cannot read who may use {name}"), error))?;
        Ok(Some(format!("owner={},group={},{}", control.owner, control.group, control.list)))
    }

    /// Removes a directory in which nothing is; the service decides that.
    pub(super) async fn remove_path(&self, paths: &dyn HierarchicalStore, directory: &Inode) -> Result<()> {
        self.check_empty_here(directory)?;
        let name = self.blob_name(directory)?;
        match paths.delete_directory(&name, false).await {
            Ok(()) => Ok(()),
            // Gone, or a directory of old data that has no entry: then it is there as long as something is in it.
            Err(error) if error.kind == ErrorKind::NotFound => self.check_empty(directory).await,
            Err(error) => Err(Error::from_store(format!("cannot remove {name}"), error)),
        }
    }

    /// rename(2) of a file or directory in one request. What is held still has been committed where it must be.
    pub(super) async fn move_path(
        self: &Arc<Self>,
        paths: &dyn HierarchicalStore,
        source: &Arc<Inode>,
        still: &Still,
        (target, new_name): (Option<&Held>, &BlobName),
        mode: RenameMode,
    ) -> Result<()> {
        if source.kind == Kind::Directory {
            still.commit(self, source).await?;
        } else {
            self.commit_locked(source).await?;
        }
        if let Some(target) = target.filter(|target| target.inode.kind != Kind::Directory) {
            self.preserve(&target.inode).await?;
        }
        let name = self.blob_name(source)?;
        let base = source.state.lock().base.clone();
        let version = match (source.kind, base) {
            (Kind::Directory, Some(_)) => None,
            (Kind::Directory, None) => {
                self.make_entry(paths, &name, DIRECTORY_MODE_DEFAULT).await?;
                None
            }
            (_, Some(base)) => Some(base.properties.etag.clone()),
            (_, None) => return Err(Error::new(libc::ESTALE, "the file has no version to rename")),
        };
        let destination = if mode == RenameMode::NoReplace { Condition::Absent } else { Condition::None };
        match paths.rename(&name, version.as_ref(), new_name, &destination).await {
            Ok(committed) => {
                self.lead_to(source, new_name, committed).await;
                Ok(())
            }
            Err(error) => Err(refused(source.kind, mode, format!("cannot rename {name} to {new_name}"), error)),
        }
    }

    /// Gives a directory of old data, which is there by what is in it alone, an entry of its own.
    async fn make_entry(&self, paths: &dyn HierarchicalStore, name: &BlobName, mode: u32) -> Result<()> {
        match paths.create_directory(name, mode, &Metadata::new(), &Condition::Absent).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == ErrorKind::Precondition => Ok(()),
            Err(error) => Err(Error::from_store(format!("cannot make the directory {name}"), error)),
        }
    }

    /// What is known of an inode that moved, and of all below it, gets the new name.
    async fn lead_to(&self, inode: &Arc<Inode>, new_name: &BlobName, committed: Option<Committed>) {
        let mut waiting = vec![(Arc::clone(inode), new_name.as_str().to_owned(), committed)];
        while let Some((inode, path, committed)) = waiting.pop() {
            let base = inode.state.lock().base.clone();
            if let (Some(base), Ok(name)) = (base, BlobName::new(path.as_str())) {
                let committed = match committed {
                    Some(committed) => committed,
                    None => self.version_now(&inode, &name, &base.properties).await,
                };
                self.repoint(&inode, &name, &committed);
            }
            if let Some(known) = &inode.directory {
                known.forget_entries(); // They may have new versions.
            }
            for (shown, child) in self.table.children(inode.number) {
                if let Ok(component) = self.naming.component(shown.as_ref().as_ref()) {
                    waiting.push((child, format!("{path}/{}", component.text), None));
                }
            }
        }
    }

    /// The version of what was moved: asked for where a handle lives by it, else the one it had.
    async fn version_now(&self, inode: &Inode, name: &BlobName, before: &BlobProperties) -> Committed {
        let kept = || Committed { etag: before.etag.clone(), last_modified: before.last_modified };
        if inode.state.lock().opened == 0 || inode.kind == Kind::Directory {
            return kept();
        }
        let found = self.store.head(name, &Condition::None).await;
        found.map_or_else(|_| kept(), |found| Committed { etag: found.etag, last_modified: found.last_modified })
    }

    /// unlink(2) of a large open file: its blob moves to a hidden name at once, and handles go on reading it there.
    /// `false`: the file is not of that sort, and nothing was done.
    pub(super) async fn hide_open(self: &Arc<Self>, inode: &Arc<Inode>, begun: &mut Begun) -> Result<bool> {
        let Some(paths) = self.paths() else { return Ok(false) };
        let large = {
            let state = inode.state.lock();
            let length = state.base.as_ref().map_or(0, |base| base.properties.length);
            inode.kind == Kind::File && state.opened > 0 && length > KEPT_IN_MEMORY_BYTES_MAX
        };
        if !large {
            return Ok(false);
        }
        inode.state.lock().name_in_motion = true;
        self.commit_sent(inode).await?;
        let Some(base) = inode.state.lock().base.clone() else { return Ok(false) };
        let name = self.blob_name(inode)?;
        let home = format!("{RESERVED}/orphan/{}", self.orphan_owner);
        let hidden = self.name_at(&format!("{home}/{}", uuid::Uuid::new_v4().simple()))?;
        self.note_unlinking(begun, inode.number, Some(&hidden));
        let version = Some(&base.properties.etag);
        let mut moved = paths.rename(&name, version, &hidden, &Condition::Absent).await;
        if moved.as_ref().is_err_and(|error| error.code.as_deref() == Some(NO_PARENT)) {
            self.make_entry(paths, &self.name_at(&home)?, HIDDEN_DIRECTORY_MODE).await?;
            moved = paths.rename(&name, version, &hidden, &Condition::Absent).await;
        }
        let committed = match moved {
            Ok(Some(committed)) => committed,
            Ok(None) => self.version_now(inode, &hidden, &base.properties).await,
            // Another client's version has the name: what becomes of that is judged as on a flat account.
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Precondition) => return Ok(false),
            Err(error) => return Err(Error::from_store(format!("cannot remove {name}, which is open"), error)),
        };
        self.repoint(inode, &hidden, &committed);
        let mut state = inode.state.lock();
        state.orphan = Some(hidden);
        state.name_in_motion = false;
        Ok(true)
    }
}

/// What a rename that the service refused means to a program.
fn refused(kind: Kind, mode: RenameMode, sentence: String, error: blob::Error) -> Error {
    let code = error.code.clone().unwrap_or_default();
    let error = Error::from_store(sentence, error);
    match (error.kind(), code.as_str()) {
        (Some(ErrorKind::Precondition), "SourceConditionNotMet" | "ConditionNotMet") => error,
        (Some(ErrorKind::Precondition), _) if mode == RenameMode::NoReplace => error.with_errno(libc::EEXIST),
        (Some(ErrorKind::Precondition), "InvalidSourceOrDestinationResourceType") => {
            error.with_errno(if kind == Kind::Directory { libc::ENOTDIR } else { libc::EISDIR })
        }
        (Some(ErrorKind::Precondition), "InvalidDestinationPath") => error.with_errno(libc::ENOTDIR),
        _ => error,
    }
}
