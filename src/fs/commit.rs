//! Commits: what was written becomes the blob's next version, or nothing of it does.
//!
//! One commit at a time per inode, in the order of the layers; each under If-Match of the version it was made over, or
//! If-None-Match for a new blob, so that nobody's change is overwritten unseen. State of an inode's changes:
//!
//! ```text
//!              write                commit begins             accepted
//!   clean ───────────► overlay ───────────────► committing ───────────► clean (a new base)
//!                        ▲                          │  failed: the layer stays and goes first next time
//!                        └── writes go on ──────────┘
//! ```
//!
//! Crash points: before the Put Blob or Put Block List, readers keep the old version and the service discards what was
//! staged; after it, the new one is whole. There is nothing in between.
//!
//! Here is the order of things; `send` brings a layer to the service (`append`: to an append blob), `attributes` what goes
//! without bytes; `attempt` knows what a commit without an answer may have done, `finish` makes the new base.

mod append;
mod attempt;
mod attributes;
mod finish;
mod send;
mod tags;

use std::sync::{Arc, atomic::Ordering};

use super::{
    Error, FileSystem, Kind, Result,
    handle::FileHandle,
    inode::{Base, Carried, Fate, Inode, Refusal},
    lookup::has_same_bytes,
    overlay::Overlay,
};
use crate::blob::{
    BlobKind, BlobName, BlobProperties, Committed, CommittedBlock, Condition, ContentHeaders, ErrorKind, Metadata,
    WriteOptions,
};
pub(super) use append::{check_change, check_holes, only_at_its_end, read_only_pages};
pub(super) use attempt::Attempt;

/// A commit whose version was replaced by the same bytes under a new ETag is tried again on that; more often than this,
/// somebody keeps changing the blob.
const ADOPTIONS_MAX: u32 = 4;

/// What a commit is to bring to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// Everything that was written.
    All,
    /// What the journal has ([`super::behind`]): what is written above it is for its own close.
    Owed,
}

/// Who hears of a failed commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hearing {
    /// The system call that runs it, and the other handles.
    Caller,
    /// The next fsync or close of every handle.
    Handles,
    /// The same, but only where it failed for good.
    HandlesInTheEnd,
}

/// What a commit has to do next.
enum Work {
    /// Nothing: all is on the service.
    Done,
    /// Send this layer, which an earlier commit left.
    Left(Arc<Overlay>),
    /// Send this layer, which took writes until now.
    Layer(Arc<Overlay>),
    /// Send attributes alone.
    Attributes,
    /// Wait for blocks that are on their way.
    Drain,
}

impl FileSystem {
    /// Brings everything that was written to an inode before the call to the service.
    ///
    /// # Errors
    /// ESTALE when another client changed the blob: nothing was overwritten, and the inode keeps its bytes until its last
    /// close. Anything else leaves the data dirty, to be tried again. Cancel-safe: a dropped commit leaves the layer to
    /// the next.
    pub(super) async fn commit(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<()> {
        self.commit_in_turn(inode, true).await
    }

    /// [`Self::commit`] that no system call returns the error of: the next fsync or close of every handle does.
    pub(super) async fn commit_unheard(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<()> {
        self.commit_in_turn(inode, false).await
    }

    /// [`Self::commit`] for fsync or close of a handle.
    ///
    /// # Errors
    /// As [`Self::commit`]; where that succeeds, a failure that this handle was not told of yet, once.
    pub(super) async fn commit_for(self: &Arc<Self>, handle: &FileHandle) -> Result<()> {
        let outcome = self.commit(&handle.inode).await;
        let mut state = handle.inode.state.lock();
        let heard = handle.heard.swap(state.errors.sequence(), Ordering::Relaxed);
        if heard != state.errors.sequence() {
            self.handles.note_heard(handle);
        }
        outcome?;
        state.errors.tell(heard).map_or(Ok(()), Err)
    }

    /// Waits for the inode's turn. A commit that failed meanwhile answers for this one too: behind a service that is
    /// silent, everybody waits for one deadline and not for one each.
    async fn commit_in_turn(self: &Arc<Self>, inode: &Arc<Inode>, heard: bool) -> Result<()> {
        let failures = inode.state.lock().failures;
        let _in_order = inode.commit.lock().await;
        {
            let mut state = inode.state.lock();
            let failed_meanwhile = state.failures > failures && state.refusal.is_some();
            if let Some(error) = state.errors.repeat(heard).filter(|_| failed_meanwhile) {
                return Err(error);
            }
        }
        let hearing = if heard { Hearing::Caller } else { Hearing::Handles };
        self.commit_noted(inode, Extent::All, hearing).await
    }

    /// Brings what the journal has of an inode to the service, and nothing of what was written since. A failure that may
    /// pass is told to nobody: the journal has it, and it is tried again.
    pub(super) async fn commit_owed(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<()> {
        let _in_order = inode.commit.lock().await;
        if inode.state.lock().owed.is_none() {
            return Ok(());
        }
        self.commit_noted(inode, Extent::Owed, Hearing::HandlesInTheEnd).await
    }

    /// [`Self::commit`] for who holds the inode's commit lock already.
    pub(super) async fn commit_locked(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<()> {
        self.commit_noted(inode, Extent::All, Hearing::Caller).await
    }

    /// Commits, and keeps a failure for those who must hear of it.
    async fn commit_noted(self: &Arc<Self>, inode: &Arc<Inode>, extent: Extent, hearing: Hearing) -> Result<()> {
        let name = self.blob_name(inode);
        let outcome = self.commit_all(inode, extent).await;
        let mut state = inode.state.lock();
        match (&outcome, name) {
            (Ok(()), _) => {
                (state.refusal, state.sending_failed) = (None, false);
                state.attempts.clear();
                self.note_growth();
            }
            (Err(error), Ok(blob)) => {
                if hearing != Hearing::HandlesInTheEnd || !error.may_pass() {
                    state.errors.record(error, hearing == Hearing::Caller);
                }
                state.failures += 1;
                self.meter.commit_failures.add(1);
                self.meter.conflicts.add(u64::from(error.errno == libc::ESTALE));
                let (errno, sentence, may_pass) = (error.errno, error.to_chain(), error.may_pass());
                state.refusal = Some(Refusal { blob, errno, sentence, may_pass });
            }
            // The name was lost before: that failure was kept.
            (Err(_), Err(_)) => {}
        }
        outcome
    }

    /// Sends layer after layer. What is written while it runs is left to the next: an fsync beside a busy writer must end.
    async fn commit_all(self: &Arc<Self>, inode: &Arc<Inode>, extent: Extent) -> Result<()> {
        let mut layer_sent = false;
        loop {
            let arrived = inode.staged.notified();
            crate::sync::tokio::pin!(arrived);
            arrived.as_mut().enable();
            match next_work(inode, layer_sent, extent)? {
                Work::Done => return self.commit_mode(inode).await,
                Work::Drain => arrived.await,
                Work::Left(layer) => self.commit_layer(inode, &layer).await?,
                Work::Layer(layer) => {
                    self.commit_layer(inode, &layer).await?;
                    layer_sent = true;
                }
                Work::Attributes => self.commit_attributes(inode).await?,
            }
        }
    }

    async fn commit_layer(self: &Arc<Self>, inode: &Arc<Inode>, layer: &Arc<Overlay>) -> Result<()> {
        let name = self.blob_name(inode)?;
        self.finish_removal_before(inode).await?;
        for _ in 0..ADOPTIONS_MAX {
            let (base, carried) = {
                let state = inode.state.lock();
                (state.base.clone(), state.carried())
            };
            if base.as_ref().is_some_and(|base| base.properties.kind == BlobKind::Append) {
                return self.commit_append(inode, &name, layer).await;
            }
            let mut options = write_options(inode, base.as_deref(), &carried);
            if let Some(base) = &base {
                options.access_tier = self.with_tier(&name, &base.properties).await?.access_tier;
            }
            options.headers.tags = self.tags_to_keep(&name, base.as_deref()).await?;
            match self.send_layer(inode, &name, layer, base.as_ref(), (&options, &carried)).await {
                Ok((committed, blocks)) => {
                    self.finish_layer(inode, &name, layer, &committed, blocks, options, &carried);
                    self.settle_owed(inode);
                    // What was written meanwhile had to wait for the end of this commit.
                    self.stage_complete(inode);
                    return Ok(());
                }
                Err(error) if matches!(error.kind(), Some(ErrorKind::Precondition | ErrorKind::NotFound)) => {
                    if let Some(own) = self.recognise(inode, &name, layer, base.as_ref()).await? {
                        self.finish_layer(inode, &name, layer, &own.committed, own.blocks, own.options, &own.carried);
                        self.settle_owed(inode);
                        return Ok(());
                    }
                    let may_be_same = error.kind() == Some(ErrorKind::Precondition) && base.is_some();
                    if !(may_be_same && self.adopt_same_bytes(inode).await?) {
                        return Err(self.conflict(inode, &name, error));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(libc::ESTALE, format!("{name} was changed again and again during its commit")))
    }

    /// Another client's version is in the way: the name is theirs from now on, our bytes stay with the open handles.
    fn conflict(&self, inode: &Arc<Inode>, name: &BlobName, error: Error) -> Error {
        if let Some((parent, shown)) = self.table.place(inode.number) {
            self.detach(parent, &shown, inode);
            if let Some(parent) = self.table.get(parent) {
                self.spoil_listed_ahead(&parent, &shown);
                parent.directory.iter().for_each(super::directory::Directory::forget);
            }
        }
        let sentence = format!("another client has changed {name}; what was written here was not saved over it");
        Error { errno: libc::ESTALE, message: sentence, ..error }
    }

    /// Settles a failed condition that may be none: the blob has a new ETag, but the same bytes (metadata or headers were
    /// changed by somebody). `true`: the inode stands for the new ETag now, with our own pending attributes kept.
    pub(super) async fn adopt_same_bytes(&self, inode: &Arc<Inode>) -> Result<bool> {
        let Some(base) = inode.state.lock().base.clone() else { return Ok(false) };
        if inode.state.lock().fate != Fate::Linked {
            return Ok(false);
        }
        let name = self.blob_name(inode)?;
        let properties = match self.store.head(&name, &Condition::None).await {
            Ok(properties) => properties,
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::from_store(format!("cannot check {name}"), error)),
        };
        let same = properties.etag == base.properties.etag
            || has_same_bytes(&base, &properties)
            || has_our_attributes(inode, &base, &properties)
            || self.has_our_blocks(&name, &base, &properties).await;
        if !same {
            return self.follow_growth(inode, &properties).await;
        }
        base.content.repoint(name.clone(), properties.etag.clone());
        let attributes = self.attributes_of(&properties);
        let mut adopted = Base::new(properties, Arc::clone(&base.content));
        adopted.blocks.clone_from(&base.blocks);
        let mut state = inode.state.lock();
        if !state.attributes_dirty && state.overlay.is_none() && state.committing.is_none() {
            state.attributes = attributes;
        }
        state.base = Some(Arc::new(adopted));
        Ok(true)
    }

    /// Whether the committed list is the one that we committed: ids with our nonce are ours alone, so equal ids are equal
    /// bytes.
    async fn has_our_blocks(&self, name: &BlobName, base: &Base, properties: &BlobProperties) -> bool {
        let Some(ours) = base.blocks.as_ref().filter(|blocks| !blocks.is_empty()) else { return false };
        if properties.length != base.properties.length || !ours.iter().all(|block| self.writer.made(&block.id)) {
            return false;
        }
        let list = self.store.get_block_list(name).await;
        list.is_ok_and(|list| list.etag == properties.etag && list.committed == **ours)
    }
}

impl Base {
    fn with_blocks(&self, blocks: Arc<Vec<CommittedBlock>>) -> Self {
        Self { properties: self.properties.clone(), content: Arc::clone(&self.content), blocks: Some(blocks) }
    }

    /// The same version under another name: a copy has the bytes, blocks and metadata of its source.
    pub(super) fn renamed(&self, committed: &Committed) -> Self {
        Self { blocks: None, ..self.with_attributes(committed, self.properties.metadata.clone()) }
    }

    /// The same bytes and metadata under a new ETag, with the mode that the service has now.
    pub(super) fn with_mode(&self, committed: &Committed, mode: u32) -> Self {
        let mut changed = self.with_attributes(committed, self.properties.metadata.clone());
        changed.properties.mode = Some(mode);
        changed
    }

    fn with_attributes(&self, committed: &Committed, metadata: Metadata) -> Self {
        let properties = BlobProperties {
            etag: committed.etag.clone(),
            last_modified: committed.last_modified,
            metadata,
            ..self.properties.clone()
        };
        Self { properties, content: Arc::clone(&self.content), blocks: self.blocks.clone() }
    }
}

/// Whether a version of the same length has exactly the metadata that is to be written here, whose times are ours to the
/// nanosecond: then it was written, and the answer was lost.
fn has_our_attributes(inode: &Inode, base: &Base, found: &BlobProperties) -> bool {
    let state = inode.state.lock();
    let only_attributes = state.attributes_dirty && state.overlay.is_none() && state.committing.is_none();
    let is_ours = || {
        state.setting.contains(&found.metadata)
            || found.metadata == metadata_of(inode.kind, Some(base), &state.carried())
    };
    only_attributes && found.length == base.properties.length && is_ours()
}

/// Judges what comes next, moving the top layer into place; the one function that changes the state of a commit.
fn next_work(inode: &Inode, layer_sent: bool, extent: Extent) -> Result<Work> {
    let mut state = inode.state.lock();
    match state.fate {
        Fate::Unlinked => return Ok(Work::Done), // It has no name to be saved under; its bytes live as long as its handles.
        Fate::Replaced if state.is_dirty() => {
            return Err(Error::new(
                libc::ESTALE,
                "another client's version has the name; changes here cannot be saved",
            ));
        }
        Fate::Replaced => return Ok(Work::Done),
        Fate::Linked => {}
    }
    if let Some(layer) = &state.committing {
        return Ok(Work::Left(Arc::clone(layer)));
    }
    if extent == Extent::Owed && inode.directory.is_none() {
        return Ok(Work::Done);
    }
    if state.overlay.is_some() {
        if layer_sent {
            return Ok(Work::Done);
        }
        if !state.staging.is_empty() {
            state.draining = true;
            return Ok(Work::Drain);
        }
        state.draining = false;
        let layer = state.overlay.take().map(Arc::new);
        state.committing.clone_from(&layer);
        return Ok(layer.map_or(Work::Done, Work::Layer));
    }
    Ok(if state.attributes_dirty { Work::Attributes } else { Work::Done })
}

/// The metadata of the version that a commit over `base` makes.
pub(super) fn metadata_of(kind: Kind, base: Option<&Base>, carried: &Carried) -> Metadata {
    let mut metadata = base.map(|base| base.properties.metadata.clone()).unwrap_or_default();
    carried.metadata_changes.apply(&mut metadata);
    carried.attributes.write_to(kind, &mut metadata);
    metadata
}

pub(super) fn write_options(inode: &Inode, base: Option<&Base>, carried: &Carried) -> WriteOptions {
    let metadata = metadata_of(inode.kind, base, carried);
    WriteOptions {
        condition: base.map_or_else(
            || inode.state.lock().owed.as_ref().map_or(Condition::Absent, |owed| owed.condition()),
            |base| Condition::Match(base.properties.etag.clone()),
        ),
        metadata,
        headers: base.map_or_else(ContentHeaders::default, |base| base.properties.headers.clone()),
        access_tier: base.and_then(|base| base.properties.access_tier.clone()),
    }
}
