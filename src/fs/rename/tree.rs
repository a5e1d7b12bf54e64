//! The rename of a directory on a flat namespace: every blob below is copied, then the sources are deleted.
//!
//! ```text
//!   written down ──► copied ──► deleted ──► looked again ──► forgotten
//!        │  a copy fails: the copies are deleted again, and the old name is what it was
//!        └─ the process dies, or a delete fails: `journal` stays; the same rename, done again, goes on
//! ```
//!
//! No blob is ever lost: a source is deleted only when this rename has copied it, and only in the version that was copied.
//! What comes or changes under the old name meanwhile is found by looking again. A copy never replaces a blob that this
//! rename (or the one it goes on with) has not made.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, future::select};

use super::{
    super::{
        Error, FileSystem, Result,
        inode::{Base, Inode},
        lookup::Held,
    },
    Move, Still,
    journal::Journal,
};
use crate::{
    blob::{BlobName, Committed, Condition, ETag, ErrorKind, ListEntry, ListRequest},
    sync::{AtomicBool, AtomicU64, Mutex, Ordering},
};

/// Blobs of a directory that are copied or deleted at once; the store bounds what the node does in all.
const AT_ONCE: usize = 32;
/// Requests that are prepared at a time: a directory may have millions.
const PREPARED: usize = 1024;
/// How often a directory is looked at again because something came under its old name meanwhile.
const PASSES_MAX: u32 = 5;
/// How often the log says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// A copy that was made: of which version, and what it is.
#[derive(Clone, Debug)]
struct Copied {
    source: ETag,
    committed: Committed,
}

/// One rename of a directory.
struct Tree<'volume> {
    volume: &'volume Arc<FileSystem>,
    source: &'volume Arc<Inode>,
    from: BlobName,
    to: BlobName,
    /// It goes on with one that broke off.
    resumed: bool,
    /// The copies that it has made, by their new names.
    copied: Mutex<HashMap<BlobName, Copied>>,
    done: AtomicU64,
    /// A copy has failed: no more are begun.
    failed: AtomicBool,
}

impl FileSystem {
    /// Moves everything below a directory, and its marker, to `to`.
    pub(super) async fn move_directory(
        self: &Arc<Self>,
        source: &Arc<Inode>,
        still: &Still,
        target: Option<&Held>,
        to: &BlobName,
        resumed: bool,
    ) -> Result<()> {
        still.commit(self, source).await?;
        if let Some(target) = target
            && target.inode.state.lock().base.is_some()
            && !resumed
        {
            self.delete_blob(to).await?;
        }
        let from = self.blob_name(source)?;
        let (copied, done, failed) = (Mutex::default(), AtomicU64::new(0), AtomicBool::new(false));
        let tree = Tree { volume: self, source, from, to: to.clone(), resumed, copied, done, failed };
        tree.run().await?;
        tree.repoint_below();
        Ok(())
    }

    /// Whether a directory that is not empty holds what an earlier rename of `from` to `to` has left.
    pub(super) async fn is_unfinished(&self, from: &BlobName, to: &BlobName) -> Result<bool> {
        Journal::of(self, from, to)?.is_open().await
    }
}

impl Tree<'_> {
    /// The directory and all that is known below it, with the paths that they get.
    fn known_below(&self) -> Vec<(Arc<Inode>, String)> {
        let mut found = Vec::new();
        let mut waiting = vec![(Arc::clone(self.source), self.to.as_str().to_owned())];
        while let Some((inode, path)) = waiting.pop() {
            for (name, child) in self.volume.table.children(inode.number) {
                if let Some(path) = self.below(&path, &name) {
                    waiting.push((child, path));
                }
            }
            found.push((inode, path));
        }
        found
    }

    fn below(&self, path: &str, name: &str) -> Option<String> {
        let component = self.volume.naming.component(name.as_ref()).ok()?;
        Some(format!("{path}/{}", component.text))
    }

    /// Open files go on reading from the copies, before their sources go: nobody holds still those that are only read.
    fn read_copies_below(&self) {
        let copied = self.copied.lock();
        for (inode, path) in self.known_below() {
            let Some((name, copy)) = copied.get_key_value(path.as_str()) else { continue };
            let base = inode.state.lock().base.clone();
            if let Some(base) = base.filter(|base| base.properties.etag == copy.source) {
                base.content.repoint(name.clone(), copy.committed.etag.clone());
            }
        }
    }

    /// What is known below the directory has new names and versions.
    fn repoint_below(&self) {
        let copied = self.copied.lock();
        for (inode, path) in self.known_below() {
            if let Some((name, copy)) = copied.get_key_value(path.as_str()) {
                let is_copied = |base: &Arc<Base>| base.properties.etag == copy.source;
                let ours = inode.state.lock().base.as_ref().is_some_and(is_copied);
                if ours {
                    self.volume.repoint(&inode, name, &copy.committed);
                } else {
                    inode.state.lock().checked = None; // Another version than the one that was moved: asked for when it is used.
                }
            }
            match &inode.directory {
                // What the earlier one had moved is below, too.
                Some(known) if self.resumed => known.forget(),
                Some(known) => known.renew(|name| {
                    let path = self.below(&path, name)?;
                    copied.get(path.as_str()).map(|copy| copy.committed.clone())
                }),
                None => {}
            }
        }
        let (from, to) = (self.from.as_str(), self.to.as_str());
        tracing::info!(from, to, blobs = copied.len(), "a directory was renamed");
    }

    /// The passes, with a line in the log now and then.
    async fn run(&self) -> Result<()> {
        let work = std::pin::pin!(self.passes());
        let progress = std::pin::pin!(async {
            loop {
                crate::sync::tokio::time::sleep(PROGRESS_EVERY).await;
                let blobs = self.done.load(Ordering::Relaxed);
                let (from, to) = (self.from.as_str(), self.to.as_str());
                tracing::info!(from, to, blobs, "renaming a directory: so many blobs are copied");
            }
        });
        select(work, progress).await.factor_first().0
    }

    async fn passes(&self) -> Result<()> {
        let journal = Journal::of(self.volume, &self.from, &self.to)?;
        let mut written = self.resumed;
        for pass in 0..PASSES_MAX {
            let moves = self.moves().await?;
            if moves.is_empty() {
                if written {
                    journal.end().await;
                }
                return Ok(());
            }
            // One blob alone cannot be half moved in a way that the next rename would not mend by itself.
            if !written && moves.len() > 1 {
                journal.begin().await?;
                written = true;
            }
            let copies = match self.copy_all(&moves).await {
                Ok(copies) => copies,
                Err(error) if pass == 0 && !self.resumed => {
                    if self.undo().await && written {
                        journal.end().await;
                    }
                    return Err(error);
                }
                Err(error) => return Err(self.unfinished(error)),
            };
            self.read_copies_below();
            self.delete_all(&moves, &copies).await.map_err(|error| self.unfinished(error))?;
        }
        let busy = Error::new(libc::EBUSY, "another client keeps writing under the old name");
        Err(self.unfinished(busy))
    }

    fn unfinished(&self, error: Error) -> Error {
        let message = format!(
            "the rename of {} to {} is not complete: every blob is under one of both names; rename it again (mv -T) to \
             complete it: {}",
            self.from, self.to, error.message
        );
        Error { message, ..error }
    }

    /// Every blob that is under the old name now, the directory's marker first, with the name that it gets.
    async fn moves(&self) -> Result<Vec<Move>> {
        let failed = |error| Error::from_store(format!("cannot list {}", self.from), error);
        let store = &self.volume.store;
        let mut moves = Vec::new();
        match store.head(&self.from, &Condition::None).await {
            Ok(marker) => moves.push(Move::new(self.from.clone(), &marker, self.to.clone())),
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let mut marker = None;
        loop {
            let prefix = format!("{}/", self.from);
            let request = ListRequest { prefix, delimited: false, marker, max_results: None };
            let page = store.list(&request).await.map_err(failed)?;
            for entry in page.entries {
                if let ListEntry::Blob(name, properties) = entry {
                    let to = self.renamed(&name)?;
                    moves.push(Move::new(name, &properties, to));
                }
            }
            match page.next_marker {
                Some(next) => marker = Some(next),
                None => return Ok(moves),
            }
        }
    }

    fn renamed(&self, name: &BlobName) -> Result<BlobName> {
        let path = name.as_str().strip_prefix(self.from.as_str()).unwrap_or_default();
        BlobName::new(format!("{}{path}", self.to))
            .map_err(|error| Error::new(libc::ENAMETOOLONG, format!("cannot rename {name}: {error}")))
    }

    /// Copies, and says which of `moves` are copied in the version that was listed.
    async fn copy_all(&self, moves: &[Move]) -> Result<Vec<bool>> {
        let mut copied = Vec::with_capacity(moves.len());
        for part in moves.chunks(PREPARED) {
            // Collected first: the compiler cannot see that a stream over a borrowing closure is Send.
            let copies: Vec<_> = part.iter().map(|moved| self.copy(moved)).collect();
            // All of them to their end, also where one has failed: a copy that was left under way could take place after
            // everything was undone.
            let part: Vec<Result<bool>> = futures::stream::iter(copies).buffered(AT_ONCE).collect().await;
            copied.extend(part.into_iter().collect::<Result<Vec<_>>>()?);
        }
        Ok(copied)
    }

    /// `false`: the source has changed, or gone, since it was listed; or another copy has failed, and no more are begun.
    async fn copy(&self, moved: &Move) -> Result<bool> {
        if self.failed.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let copied = self.try_copy(moved).await;
        self.failed.fetch_or(copied.is_err(), Ordering::Relaxed);
        copied
    }

    async fn try_copy(&self, moved: &Move) -> Result<bool> {
        let ours = self.copied.lock().get(&moved.to).cloned();
        let condition = ours.as_ref().map_or(Condition::Absent, |copy| Condition::Match(copy.committed.etag.clone()));
        let committed = match self.volume.copy_one(moved, &condition).await {
            Ok(committed) => committed,
            Err(error) if error.kind() == Some(ErrorKind::NotFound) => return Ok(false),
            Err(error) if error.kind() == Some(ErrorKind::Precondition) => {
                match self.copy_over(moved, ours.as_ref(), error).await? {
                    Some(committed) => committed,
                    None => return Ok(false),
                }
            }
            Err(error) => return Err(error),
        };
        self.copied.lock().insert(moved.to.clone(), Copied { source: moved.etag.clone(), committed });
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// Finds out which of both blobs was in the way of a copy: `None`, the source has changed.
    async fn copy_over(&self, moved: &Move, ours: Option<&Copied>, error: Error) -> Result<Option<Committed>> {
        let there = match self.volume.store.head(&moved.to, &Condition::None).await {
            Ok(there) => there,
            Err(gone) if gone.kind == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::from_store(format!("cannot look at {}", moved.to), error)),
        };
        if ours.is_some_and(|copy| copy.committed.etag == there.etag) {
            return Ok(None);
        }
        // A blob that was written after it was copied says nothing of a copy any more (Get Blob Properties).
        if !(self.resumed && ours.is_none() && there.copy.is_some()) {
            let sentence = format!("{} was made by somebody else; nothing is renamed over it", moved.to);
            return Err(Error { errno: libc::ENOTEMPTY, message: sentence, ..error });
        }
        match self.volume.copy_one(moved, &Condition::Match(there.etag)).await {
            Err(error) if error.kind() == Some(ErrorKind::Precondition) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Deletes the sources whose copies were made. One that has changed since is left to the next pass.
    async fn delete_all(&self, moves: &[Move], copied: &[bool]) -> Result<()> {
        let mut sources: Vec<&Move> =
            moves.iter().zip(copied).filter(|(_, copied)| **copied).map(|(moved, _)| moved).collect();
        sources.reverse(); // The marker last: until then, the old name is a directory.
        for part in sources.chunks(PREPARED) {
            let deletes: Vec<_> = part.iter().map(|moved| self.delete(moved)).collect();
            futures::stream::iter(deletes).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        }
        Ok(())
    }

    async fn delete(&self, moved: &Move) -> Result<()> {
        match self.volume.delete_source(moved).await {
            Err(error) if error.kind() == Some(ErrorKind::Precondition) => Ok(()),
            other => other,
        }
    }

    /// Deletes the copies of a first pass that failed, before any source was touched. `true`: the new name is as it was.
    async fn undo(&self) -> bool {
        let copied: Vec<_> = self.copied.lock().drain().collect();
        let mut complete = true;
        for part in copied.chunks(PREPARED) {
            let deletes: Vec<_> = part
                .iter()
                .map(|(name, copy)| async move {
                    let condition = Condition::Match(copy.committed.etag.clone());
                    let deleted = self.volume.store.delete(name, &condition).await;
                    deleted.is_ok() || deleted.is_err_and(|error| error.kind == ErrorKind::NotFound)
                })
                .collect();
            let deleted: Vec<bool> = futures::stream::iter(deletes).buffer_unordered(AT_ONCE).collect().await;
            complete &= deleted.iter().all(|deleted| *deleted);
        }
        complete
    }
}
