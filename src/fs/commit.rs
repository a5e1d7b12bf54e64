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

use std::{collections::HashSet, ops::Range, sync::Arc, time::Instant};

use futures::{StreamExt, TryStreamExt};

use super::{
    Error, FileSystem, Result,
    attributes::Attributes,
    inode::{Base, Fate, Inode},
    lookup::has_same_bytes,
    overlay::{Overlay, Segment},
    plan::{Limits, Part, Plan, plan},
    stage::block_id_length,
};
use crate::{
    blob::{
        BlobKind, BlobName, BlobProperties, BlockId, Body, Committed, CommittedBlock, Condition, ContentHeaders,
        ErrorKind, ListedBlock, Metadata, WriteOptions,
    },
    cache::{BLOCK_BYTES, Cache, Content},
};

/// A commit whose version was replaced by the same bytes under a new ETag is tried again on that; more often than this,
/// somebody keeps changing the blob.
const ADOPTIONS_MAX: u32 = 4;
/// Blocks of one commit under way at once; the store bounds what the node sends in all.
const PARTS_AT_ONCE: usize = 8;
/// Files up to this size stay readable without a request after their commit.
const KEEP_CACHED_BYTES_MAX: u64 = 8 << 20;

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
        let _in_order = inode.commit.lock().await;
        self.commit_locked(inode).await
    }

    /// [`Self::commit`] for who holds the inode's commit lock already. What is written while it runs is left to the next:
    /// an fsync beside a busy writer must end.
    pub(super) async fn commit_locked(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<()> {
        let mut layer_sent = false;
        loop {
            let arrived = inode.staged.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            match next_work(inode, layer_sent)? {
                Work::Done => return Ok(()),
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
        for _ in 0..ADOPTIONS_MAX {
            let (base, attributes) = {
                let state = inode.state.lock();
                (state.base.clone(), state.attributes)
            };
            let options = write_options(inode, base.as_deref(), &attributes);
            match self.send_layer(inode, &name, layer, base.as_ref(), &options).await {
                Ok((committed, blocks)) => {
                    self.finish_layer(inode, &name, layer, &committed, blocks, options, &attributes);
                    // What was written meanwhile had to wait for the end of this commit.
                    self.stage_complete(inode);
                    return Ok(());
                }
                Err(error) if error.kind() == Some(ErrorKind::Precondition) && base.is_some() => {
                    if !self.adopt_same_bytes(inode).await? {
                        return Err(self.conflict(inode, &name, error));
                    }
                }
                Err(error) if matches!(error.kind(), Some(ErrorKind::Precondition | ErrorKind::NotFound)) => {
                    return Err(self.conflict(inode, &name, error));
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
            if let Some(directory) = self.table.get(parent).as_ref().and_then(|parent| parent.directory.as_ref()) {
                directory.forget();
            }
        }
        let sentence = format!("another client has changed {name}; what was written here was not saved over it");
        Error { errno: libc::ESTALE, message: sentence, ..error }
    }

    async fn send_layer(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        name: &BlobName,
        layer: &Arc<Overlay>,
        base: Option<&Arc<Base>>,
        options: &WriteOptions,
    ) -> Result<(Committed, Vec<CommittedBlock>)> {
        let base_length = base.map_or(0, |base| base.properties.length);
        let stays = layer.below() > 0 && base_length > 0;
        let blocks = match base.filter(|_| stays) {
            Some(base) => self.committed_blocks(inode, name, base).await?,
            None => Arc::new(Vec::new()),
        };
        let failed = |error| Error::from_store(format!("cannot save {name}"), error);
        match plan(layer, &blocks, base_length, Limits::default()) {
            Plan::PutBlob => {
                let body = self.body_of(layer, base, 0..layer.size()).await?;
                let committed = self.store.put_blob(name, body, options).await.map_err(failed)?;
                Ok((committed, Vec::new()))
            }
            Plan::Blocks(parts) => {
                let id_length = block_id_length(&blocks);
                // Collected first: the compiler cannot see that a stream over a borrowing closure is Send.
                let sends: Vec<_> =
                    parts.iter().map(|part| self.send_part(name, layer, base, part, id_length)).collect();
                let list: Vec<Vec<CommittedBlock>> =
                    futures::stream::iter(sends).buffered(PARTS_AT_ONCE).try_collect().await?;
                let list: Vec<CommittedBlock> = list.into_iter().flatten().collect();
                let old: HashSet<&BlockId> = blocks.iter().map(|block| &block.id).collect();
                let listed = |block: &CommittedBlock| match old.contains(&block.id) {
                    true => ListedBlock::Committed(block.id.clone()),
                    false => ListedBlock::Staged(block.id.clone()),
                };
                let listed: Vec<ListedBlock> = list.iter().map(listed).collect();
                let committed = self.store.put_block_list(name, &listed, options).await.map_err(failed)?;
                Ok((committed, list))
            }
        }
    }

    /// The committed blocks of `base`, asked for once.
    async fn committed_blocks(
        &self,
        inode: &Inode,
        name: &BlobName,
        base: &Arc<Base>,
    ) -> Result<Arc<Vec<CommittedBlock>>> {
        if let Some(blocks) = &base.blocks {
            return Ok(Arc::clone(blocks));
        }
        let failed = |error| Error::from_store(format!("cannot save {name}"), error);
        let list = self.store.get_block_list(name).await.map_err(failed)?;
        let blocks = Arc::new(list.committed);
        if list.etag != base.properties.etag {
            return Err(replaced(name)); // Get Block List takes no condition, so its answer is held against ours.
        }
        let mut state = inode.state.lock();
        if state.base.as_ref().is_some_and(|now| now.properties.etag == base.properties.etag) {
            state.base = Some(Arc::new(base.with_blocks(Arc::clone(&blocks))));
        }
        Ok(blocks)
    }

    /// Brings one part to the service; returns the block or blocks that hold it.
    async fn send_part(
        self: &Arc<Self>,
        name: &BlobName,
        layer: &Arc<Overlay>,
        base: Option<&Arc<Base>>,
        part: &Part,
        id_length: usize,
    ) -> Result<Vec<CommittedBlock>> {
        let block =
            |id: &BlockId, range: &Range<u64>| CommittedBlock { id: id.clone(), length: range.end - range.start };
        let failed = |error| Error::from_store(format!("cannot save {name}"), error);
        match part {
            Part::Keep(id, range) | Part::Staged(id, range) => Ok(vec![block(id, range)]),
            Part::Send(range) => {
                let id = self.writer.block_id(id_length);
                let body = self.body_of(layer, base, range.clone()).await?;
                self.store.put_block(name, &id, body).await.map_err(failed)?;
                Ok(vec![block(&id, range)])
            }
            Part::Copy(range) => {
                let Some(base) = base else { return Ok(Vec::new()) };
                let id = self.writer.block_id(id_length);
                let copied = self.store.put_block_from_url(name, &id, name, range.clone(), &base.properties.etag).await;
                match copied {
                    Ok(()) => Ok(vec![block(&id, range)]),
                    Err(error) if error.kind == ErrorKind::Unsupported => {
                        self.copy_through_us(name, layer, base, range, id_length).await
                    }
                    Err(error) => Err(failed(error)),
                }
            }
        }
    }

    /// Where the service cannot copy: reads and sends, block by block.
    async fn copy_through_us(
        self: &Arc<Self>,
        name: &BlobName,
        layer: &Arc<Overlay>,
        base: &Arc<Base>,
        range: &Range<u64>,
        id_length: usize,
    ) -> Result<Vec<CommittedBlock>> {
        let mut blocks = Vec::new();
        let mut position = range.start;
        while position < range.end {
            let part = position..range.end.min(position + Limits::default().block_bytes);
            let id = self.writer.block_id(id_length);
            let body = self.body_of(layer, Some(base), part.clone()).await?;
            let sent = self.store.put_block(name, &id, body).await;
            sent.map_err(|error| Error::from_store(format!("cannot save {name}"), error))?;
            blocks.push(CommittedBlock { id, length: part.end - part.start });
            position = part.end;
        }
        Ok(blocks)
    }

    #[expect(clippy::too_many_arguments, reason = "the facts of one finished commit, used here alone")]
    fn finish_layer(
        &self,
        inode: &Arc<Inode>,
        name: &BlobName,
        layer: &Arc<Overlay>,
        committed: &Committed,
        blocks: Vec<CommittedBlock>,
        options: WriteOptions,
        attributes: &Attributes,
    ) {
        let size = layer.size();
        let content = self.content_after(inode, name, layer, committed);
        let mut state = inode.state.lock();
        let properties = BlobProperties {
            length: size,
            headers: options.headers,
            access_tier: options.access_tier,
            ..written_properties(committed, options.metadata)
        };
        state.base = Some(Arc::new(Base { properties, content, blocks: Some(Arc::new(blocks)) }));
        state.committing = None;
        state.attributes_dirty = state.attributes != *attributes && state.overlay.is_none();
        state.checked = Some(Instant::now());
        drop(state);
        self.publish(inode);
    }

    /// The new version's bytes for the cache: what did not change is carried over, what is small enough is put in.
    fn content_after(&self, inode: &Inode, name: &BlobName, layer: &Overlay, committed: &Committed) -> Arc<Content> {
        let size = layer.size();
        let cache = self.cache();
        let old = inode.state.lock().base.as_ref().map(|base| Arc::clone(&base.content));
        let below = |segment: &Segment| matches!(segment, Segment::Below(_));
        let unchanged: Vec<Range<u64>> =
            layer.segments(&(0..size)).iter().filter(|part| below(part)).map(|part| part.range().clone()).collect();
        let content = match old.filter(|_| !unchanged.is_empty()) {
            Some(old) => cache.derive(&old, committed.etag.clone(), size, &unchanged),
            None => self.content(name, &committed.etag, size),
        };
        let whole_in_memory = layer.segments(&(0..size)).iter().all(|part| matches!(part, Segment::Dirty(_)));
        if whole_in_memory && size <= KEEP_CACHED_BYTES_MAX {
            insert_clean(cache, &content, layer, size);
        }
        content
    }

    async fn commit_attributes(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<()> {
        let name = self.blob_name(inode)?;
        let failed = |error| Error::from_store(format!("cannot save the attributes of {name}"), error);
        for _ in 0..ADOPTIONS_MAX {
            let (base, attributes) = {
                let state = inode.state.lock();
                (state.base.clone(), state.attributes)
            };
            let mut options = write_options(inode, base.as_deref(), &attributes);
            let result = match &base {
                Some(_) => self.store.set_metadata(&name, &options.metadata, &options.condition).await,
                // A directory that was a bare prefix gets its marker now.
                None => self.store.put_blob(&name, Body::new(), &options).await,
            };
            match result {
                Ok(committed) => {
                    let metadata = std::mem::take(&mut options.metadata);
                    self.finish_attributes(inode, &name, base.as_deref(), &committed, metadata, &attributes);
                    return Ok(());
                }
                Err(error) if error.kind == ErrorKind::Precondition => {
                    if !self.adopt_same_bytes(inode).await? {
                        return Err(self.conflict(inode, &name, failed(error)));
                    }
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Err(Error::new(libc::ESTALE, format!("{name} was changed again and again during its commit")))
    }

    fn finish_attributes(
        &self,
        inode: &Arc<Inode>,
        name: &BlobName,
        base: Option<&Base>,
        committed: &Committed,
        metadata: Metadata,
        attributes: &Attributes,
    ) {
        let base = match base {
            Some(base) => {
                // Set Metadata changes the ETag and not a byte: what is cached moves along (DESIGN 10.3).
                base.content.repoint(name.clone(), committed.etag.clone());
                base.with_attributes(committed, metadata)
            }
            None => self.base_of(name, &written_properties(committed, metadata)),
        };
        let mut state = inode.state.lock();
        state.base = Some(Arc::new(base));
        state.attributes_dirty = state.attributes != *attributes;
        state.checked = Some(Instant::now());
        drop(state);
        self.publish(inode);
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
            || self.has_our_blocks(&name, &base, &properties).await;
        if !same {
            return Ok(false);
        }
        base.content.repoint(name.clone(), properties.etag.clone());
        let attributes = Attributes::read_from(&properties.metadata);
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

/// Judges what comes next, moving the top layer into place; the one function that changes the state of a commit.
fn next_work(inode: &Inode, layer_sent: bool) -> Result<Work> {
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

fn write_options(inode: &Inode, base: Option<&Base>, attributes: &Attributes) -> WriteOptions {
    let mut metadata = base.map(|base| base.properties.metadata.clone()).unwrap_or_default();
    attributes.write_to(inode.kind, &mut metadata);
    WriteOptions {
        condition: base.map_or(Condition::Absent, |base| Condition::Match(base.properties.etag.clone())),
        metadata,
        headers: base.map_or_else(ContentHeaders::default, |base| base.properties.headers.clone()),
        access_tier: base.and_then(|base| base.properties.access_tier.clone()),
    }
}

/// Puts the bytes of a file that is all in this layer into the cache, block by block (whole pieces only are taken).
fn insert_clean(cache: &Cache, content: &Arc<Content>, layer: &Overlay, size: u64) {
    let mut block = vec![0; usize::try_from(BLOCK_BYTES.min(size)).unwrap_or_default()];
    let mut position = 0;
    while position < size {
        let end = size.min(position + BLOCK_BYTES);
        let part = &mut block[..(end - position) as usize];
        if layer.copy_to(&(position..end), part).is_err() {
            return; // Of no consequence: the service has them.
        }
        cache.insert(content, position, part);
        position = end;
    }
}

/// What an empty blob that we have just written has; the caller adds what it has more.
pub(super) fn written_properties(committed: &Committed, metadata: Metadata) -> BlobProperties {
    BlobProperties {
        etag: committed.etag.clone(),
        length: 0,
        last_modified: committed.last_modified,
        kind: BlobKind::Block,
        metadata,
        headers: ContentHeaders::default(),
        content_md5: None,
        access_tier: None,
        tag_count: 0,
        leased: false,
        copy: None,
    }
}

fn replaced(name: &BlobName) -> Error {
    let error = crate::blob::Error {
        kind: ErrorKind::Precondition,
        operation: "Get Block List",
        resource: name.to_string(),
        host: String::new(),
        status: None,
        code: None,
        request_id: None,
        source: None,
    };
    Error::from_store(format!("{name} was changed"), error)
}
