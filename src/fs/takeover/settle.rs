//! Unlinks and renames that the service did for a process that did not live to note it. Until that is noted here, a file's old
//! name leads to nothing, and what its open handles read and write seems to be another client's doing. So this is found out
//! before anything is served, and not left to the request: it may never be sent again (Linux before 6.9), and other requests
//! may come before it.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;

use super::{
    super::{
        Error, FileSystem, Invalidation, Kind, Result,
        inode::{Fate, Inode, InodeNumber},
    },
    Begun,
    rows::BegunRow,
};
use crate::blob::{BlobName, BlobProperties, Committed, Condition, ErrorKind};

/// How long serving may wait for this. A healthy service answers a question about a blob within tens of milliseconds, and
/// two are asked one after the other; programs wait meanwhile. What is not settled by then is when its request is sent again.
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// Requests that are settled at once; the store bounds what the node sends in all.
const AT_ONCE: usize = 32;

impl FileSystem {
    /// Finds out what became of the unlinks and renames that another process had begun.
    pub(in crate::fs) async fn settle_begun(self: &Arc<Self>) {
        let open = self.left.unfinished();
        if open.is_empty() {
            return;
        }
        let settle = |(key, row): (u64, BegunRow)| {
            let volume = Arc::clone(self);
            async move {
                match volume.catch_up(&row).await {
                    Ok(true) => volume.note_settled(key, row),
                    Ok(false) => {}
                    Err(error) => tracing::warn!("what was begun before a restart is not known: {}", error.to_chain()),
                }
            }
        };
        // Collected first: the compiler cannot see that a stream over a borrowing closure is Send.
        let settling: Vec<_> = open.into_iter().map(settle).collect();
        let all = futures::stream::iter(settling).buffer_unordered(AT_ONCE).collect::<()>();
        if crate::sync::tokio::time::timeout(SETTLE_MAX, all).await.is_err() {
            tracing::warn!("the service does not answer what became of requests that were begun before a restart");
        }
    }

    /// As the process would have, that did not live to see the answer. `false`: it is still to be done.
    async fn catch_up(self: &Arc<Self>, row: &BegunRow) -> Result<bool> {
        if row.from.is_empty() { self.catch_up_unlink_of(row).await } else { self.catch_up_rename_of(row).await }
    }

    /// Goes on with an unlink that the process before has brought to its end at the service, but not here. `false`: it has to
    /// be done, or nothing depends on it.
    pub(in crate::fs) async fn catch_up_unlink(self: &Arc<Self>, begun: &Begun) -> Result<bool> {
        match begun.before() {
            Some(row) => self.catch_up_unlink_of(row).await,
            None => Ok(false),
        }
    }

    /// As [`Self::catch_up_unlink`], for a rename.
    pub(in crate::fs) async fn catch_up_rename(self: &Arc<Self>, begun: &Begun) -> Result<bool> {
        match begun.before().filter(|row| !row.from.is_empty()) {
            Some(row) => self.catch_up_rename_of(row).await,
            None => Ok(false),
        }
    }

    async fn catch_up_unlink_of(self: &Arc<Self>, row: &BegunRow) -> Result<bool> {
        let Some(inode) = self.table.get(InodeNumber(row.inode)) else { return Ok(false) };
        let is_needed = {
            let state = inode.state.lock();
            state.fate == Fate::Linked && (state.opened > 0 || state.is_dirty())
        };
        let Some((parent, name)) = self.table.place(inode.number).filter(|_| is_needed) else { return Ok(false) };
        if !self.is_removed(parent, &name) && self.found(&self.blob_name(&inode)?).await?.is_some() {
            return Ok(false);
        }
        if !row.to.is_empty()
            && let Ok(hidden) = BlobName::new(row.to.as_str())
            && let Some(found) = self.found(&hidden).await?
        {
            self.repoint(&inode, &hidden, &version_of(&found));
            inode.state.lock().orphan = Some(hidden);
        }
        self.forget_name(None, &inode, Fate::Unlinked);
        if let Some(known) = self.table.get(parent).as_ref().and_then(|parent| parent.directory.as_ref()) {
            known.note_unlink();
        }
        self.left.doubt(Invalidation::Entry(parent, name));
        Ok(true)
    }

    async fn catch_up_rename_of(self: &Arc<Self>, row: &BegunRow) -> Result<bool> {
        let (Ok(from), Ok(to)) = (BlobName::new(row.from.as_str()), BlobName::new(row.to.as_str())) else {
            return Ok(false);
        };
        let source = self.table.get(InodeNumber(row.inode)).filter(|_| !row.new_name.is_empty());
        let Some(source) = source else { return Ok(false) };
        if source.state.lock().base.is_none() || self.found(&from).await?.is_some() {
            return Ok(false);
        }
        let Some(found) = self.found(&to).await?.filter(|found| is_moved(&source, found)) else { return Ok(false) };
        let (new_parent, new_name) = (InodeNumber(row.new_parent), row.new_name.as_str());
        let target = self.table.child(new_parent, new_name).filter(|target| target.number != source.number);
        let target = target.and_then(|target| self.hold(&target));
        self.repoint(&source, &to, &version_of(&found));
        if let Some((parent, name)) = self.table.place(source.number) {
            self.left.doubt(Invalidation::Entry(parent, name));
            self.left.doubt(Invalidation::Entry(new_parent, Arc::from(new_name)));
        }
        self.move_name(None, &source, target.as_ref(), new_parent, new_name);
        for below in self.table.below(source.number) {
            let base = below.state.lock().base.clone();
            if let (Some(base), Ok(name)) = (base, self.blob_name(&below)) {
                base.content.repoint(name, base.properties.etag.clone());
            }
        }
        Ok(true)
    }

    /// Whoever is sent the request again, here or in a later process, need only say so.
    fn note_settled(&self, key: u64, row: BegunRow) {
        let row = BegunRow { outcome: Some(0), ..row };
        if let Some(scribe) = &self.scribe {
            scribe.note_begun(key, &row);
        }
        self.left.end(key, row);
    }

    /// What is at the service under a name.
    async fn found(&self, name: &BlobName) -> Result<Option<BlobProperties>> {
        match self.store.head(name, &Condition::None).await {
            Ok(properties) => Ok(Some(properties)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::from_store(format!("cannot check {name}"), error)),
        }
    }
}

/// Whether `found` is what `source` was before: a copy has its length, and its times to the nanosecond. What of directories is known
/// says less; nobody's bytes hang on it.
fn is_moved(source: &Inode, found: &BlobProperties) -> bool {
    let base = source.state.lock().base.clone();
    let is_same = |base: &BlobProperties| base.length == found.length && base.metadata == found.metadata;
    source.kind == Kind::Directory || base.is_some_and(|base| is_same(&base.properties))
}

fn version_of(found: &BlobProperties) -> Committed {
    Committed { etag: found.etag.clone(), last_modified: found.last_modified }
}
