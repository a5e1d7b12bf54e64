//! Sending a layer: what the plan says, block by block, then the list that makes them the next version.

use std::{collections::HashSet, ops::Range, sync::Arc};

use futures::{StreamExt, TryStreamExt};

use super::super::{
    Error, FileSystem, Result,
    inode::{Base, Inode},
    overlay::Overlay,
    plan::{Limits, Part, Plan, plan},
    stage::block_id_length,
};
use crate::blob::{BlobName, BlockId, Committed, CommittedBlock, ErrorKind, ListedBlock, WriteOptions};

/// Blocks of one commit under way at once; the store bounds what the node sends in all.
const PARTS_AT_ONCE: usize = 8;

impl FileSystem {
    pub(super) async fn send_layer(
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
