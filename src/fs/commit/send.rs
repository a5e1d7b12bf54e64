//! Sending a layer: what the plan says, block by block, then the list that makes them the next version.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt};

use super::{
    super::{
        Error, FileSystem, Result,
        growth::checksum,
        inode::{Base, Carried, Inode},
        overlay::Overlay,
        plan::{Part, Plan, is_one_request, plan},
        stage::{Writer, has_nonce},
    },
    attempt::Made,
};
use crate::{
    blob::{BlobName, BlobStore, BlockId, Body, Committed, CommittedBlock, ErrorKind, ListedBlock, WriteOptions},
    sync::Mutex,
};

/// Blocks of one commit under way at once; the store bounds what the node sends in all.
const PARTS_AT_ONCE: usize = 8;

/// One layer on its way.
struct Sending<'a> {
    inode: &'a Inode,
    /// What goes beside the bytes.
    carried: &'a Carried,
    /// The container, under the lease where one is held.
    store: Arc<dyn BlobStore>,
    name: &'a BlobName,
    layer: &'a Arc<Overlay>,
    base: Option<&'a Arc<Base>>,
    /// The committed blocks of `base`.
    blocks: &'a [CommittedBlock],
    /// Length of the blob's block ids.
    id_length: usize,
    /// Ids that are in use, where they are so short that chance could find one of them.
    taken: Mutex<HashSet<BlockId>>,
}

impl Sending<'_> {
    fn failed(&self, error: crate::blob::Error) -> Error {
        Error::from_store(format!("cannot save {}", self.name), error)
    }

    /// Keeps what the service may have made although it did not say so.
    fn note(&self, options: &WriteOptions, error: &crate::blob::Error, made: impl FnOnce() -> Made) {
        FileSystem::note_attempt(self.inode, self.layer, (options, self.carried), error, made);
    }

    /// An id that no block of the blob has, for a block with this CRC64 (where it is known).
    fn new_id(&self, writer: &Writer, checksum: Option<u64>) -> BlockId {
        loop {
            let id = writer.block_id_of(self.id_length, checksum);
            if has_nonce(self.id_length) || self.taken.lock().insert(id.clone()) {
                return id;
            }
        }
    }
}

impl FileSystem {
    pub(super) async fn send_layer(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        name: &BlobName,
        layer: &Arc<Overlay>,
        base: Option<&Arc<Base>>,
        (options, carried): (&WriteOptions, &Carried),
    ) -> Result<(Committed, Vec<CommittedBlock>)> {
        let base_length = base.map_or(0, |base| base.properties.length);
        let stays = layer.below() > 0 && base_length > 0 && !is_one_request(layer, &self.writer.limits(usize::MAX));
        let blocks = match base.filter(|_| stays) {
            Some(base) => self.committed_blocks(inode, name, base).await?,
            None => Arc::new(Vec::new()),
        };
        let id_length = inode.state.lock().block_id_length();
        let taken = blocks.iter().filter(|_| !has_nonce(id_length)).map(|block| block.id.clone()).collect();
        let store = Arc::clone(&self.store);
        let sending =
            Sending { inode, carried, store, name, layer, base, blocks: &blocks, id_length, taken: Mutex::new(taken) };
        match plan(layer, &blocks, base_length, &self.writer.limits(id_length)) {
            Plan::PutBlob => {
                let body = self.body_of(layer, base, 0..layer.size()).await?;
                // Without bytes of the old version the layer says what they were; those could be gone.
                let ahead = || if layer.below() == 0 { Made::Layer } else { Made::whole(&body) };
                self.note_attempt_ahead(inode, layer, (options, carried), ahead);
                let committed = self.store.put_blob(name, body.clone(), options).await.map_err(|error| {
                    sending.note(options, &error, || Made::whole(&body));
                    sending.failed(error)
                })?;
                Ok((committed, Vec::new()))
            }
            Plan::Blocks(parts) => self.send_blocks(inode, sending, &parts, options).await,
        }
    }

    /// Stages the parts and commits the list of them; under a lease where the ids leave no room for a nonce.
    async fn send_blocks(
        self: &Arc<Self>,
        inode: &Inode,
        mut sending: Sending<'_>,
        parts: &[Part],
        options: &WriteOptions,
    ) -> Result<(Committed, Vec<CommittedBlock>)> {
        match self.send_under_lease(&mut sending, parts, options).await {
            Err(error) if error.kind() == Some(ErrorKind::BlockIdLength) => {
                self.adopt_id_length(inode, sending.name).await?;
                sending.id_length = inode.state.lock().block_id_length();
                self.send_under_lease(&mut sending, parts, options).await
            }
            sent => sent,
        }
    }

    async fn send_under_lease(
        self: &Arc<Self>,
        sending: &mut Sending<'_>,
        parts: &[Part],
        options: &WriteOptions,
    ) -> Result<(Committed, Vec<CommittedBlock>)> {
        let lease = if has_nonce(sending.id_length) { None } else { self.lease(sending.name).await? };
        let Some(lease) = lease else { return self.send_list(sending, parts, options).await };
        sending.store = Arc::clone(&lease.store);
        let sent = lease.keep_while(self.send_list(sending, parts, options)).await;
        lease.release().await;
        sent
    }

    async fn send_list(
        self: &Arc<Self>,
        sending: &Sending<'_>,
        parts: &[Part],
        options: &WriteOptions,
    ) -> Result<(Committed, Vec<CommittedBlock>)> {
        let list = self.send_parts(sending, parts).await?;
        let as_sent = (options, sending.carried);
        self.note_attempt_ahead(sending.inode, sending.layer, as_sent, || Made::Blocks(list.clone()));
        let committed = sending.store.put_block_list(sending.name, &listed(&list, sending.blocks), options).await;
        let committed = committed.map_err(|error| {
            sending.note(options, &error, || Made::Blocks(list.clone()));
            sending.failed(error)
        })?;
        Ok((committed, list))
    }

    /// The committed blocks of `base`, asked for once.
    pub(in crate::fs) async fn committed_blocks(
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

    /// Brings all parts to the service; returns the blocks that hold them, in order.
    async fn send_parts(self: &Arc<Self>, sending: &Sending<'_>, parts: &[Part]) -> Result<Vec<CommittedBlock>> {
        let zeros = self.send_zeros(sending, parts).await?;
        // Collected first: the compiler cannot see that a stream over a borrowing closure is Send.
        let sends: Vec<_> = parts.iter().map(|part| self.send_part(sending, part, &zeros)).collect();
        let list: Vec<Vec<CommittedBlock>> = futures::stream::iter(sends).buffered(PARTS_AT_ONCE).try_collect().await?;
        Ok(list.into_iter().flatten().collect())
    }

    /// Stages one block of zeros of each size that the parts ask for. A list may name a block as often as it likes:
    /// blobfuse2 fills the holes of its files that way, and Azurite takes it too.
    async fn send_zeros(&self, sending: &Sending<'_>, parts: &[Part]) -> Result<BTreeMap<u64, BlockId>> {
        let mut ids = BTreeMap::new();
        for part in parts {
            let Part::Zero(range, bytes) = part else { continue };
            if !ids.contains_key(bytes) {
                let body = self.body_of(sending.layer, sending.base, range.clone()).await?;
                ids.insert(*bytes, self.send_block(sending, body).await?);
            }
        }
        Ok(ids)
    }

    async fn send_block(&self, sending: &Sending<'_>, body: Body) -> Result<BlockId> {
        let id = sending.new_id(&self.writer, Some(body.crc64()));
        sending.store.put_block(sending.name, &id, body).await.map_err(|error| sending.failed(error))?;
        Ok(id)
    }

    /// Brings one part to the service; returns the block or blocks that hold it.
    async fn send_part(
        self: &Arc<Self>,
        sending: &Sending<'_>,
        part: &Part,
        zeros: &BTreeMap<u64, BlockId>,
    ) -> Result<Vec<CommittedBlock>> {
        let block = |id: BlockId, range: &Range<u64>| CommittedBlock { id, length: range.end - range.start };
        match part {
            Part::Keep(id, range) | Part::Staged(id, range) => Ok(vec![block(id.clone(), range)]),
            Part::Zero(range, bytes) => Ok(zeros.get(bytes).map(|id| block(id.clone(), range)).into_iter().collect()),
            Part::Send(range) => {
                let body = self.body_of(sending.layer, sending.base, range.clone()).await?;
                Ok(vec![block(self.send_block(sending, body).await?, range)])
            }
            Part::Copy(range) => {
                let Some(base) = sending.base else { return Ok(Vec::new()) };
                let checksum = checksum::of_blocks(sending.blocks, range).or_else(|| self.cached_checksum(base, range));
                let (name, id) = (sending.name, sending.new_id(&self.writer, checksum));
                let version = &base.properties.etag;
                match sending.store.put_block_from_url(name, &id, name, range.clone(), version).await {
                    Ok(()) => Ok(vec![block(id, range)]),
                    Err(error) if error.kind == ErrorKind::Unsupported => {
                        self.writer.note_no_copies();
                        self.copy_through_us(sending, range).await
                    }
                    Err(error) => Err(sending.failed(error)),
                }
            }
        }
    }

    /// The CRC64 of bytes that are copied, where they are at hand.
    fn cached_checksum(&self, base: &Base, range: &Range<u64>) -> Option<u64> {
        let found = self.cache().peek(&base.content, range)?;
        Some(checksum::of_slices(found.slices()))
    }

    /// Where the service cannot copy: reads and sends, block by block.
    async fn copy_through_us(
        self: &Arc<Self>,
        sending: &Sending<'_>,
        range: &Range<u64>,
    ) -> Result<Vec<CommittedBlock>> {
        let mut blocks = Vec::new();
        let mut position = range.start;
        while position < range.end {
            let part = position..range.end.min(position + self.writer.limits(sending.id_length).block_bytes);
            let body = self.body_of(sending.layer, sending.base, part.clone()).await?;
            let id = self.send_block(sending, body).await?;
            blocks.push(CommittedBlock { id, length: part.end - part.start });
            position = part.end;
        }
        Ok(blocks)
    }
}

/// The list to commit: what the old version has is looked for there, the rest among what was staged.
fn listed(list: &[CommittedBlock], old: &[CommittedBlock]) -> Vec<ListedBlock> {
    let old: HashSet<&BlockId> = old.iter().map(|block| &block.id).collect();
    let listed = |block: &CommittedBlock| match old.contains(&block.id) {
        true => ListedBlock::Committed(block.id.clone()),
        false => ListedBlock::Staged(block.id.clone()),
    };
    list.iter().map(listed).collect()
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
