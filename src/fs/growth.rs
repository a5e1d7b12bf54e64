//! Open files follow a blob that only grew, as `tail -f` expects of a log that somebody appends to.
//!
//! Any other change makes a new inode (DESIGN 10.1). That a blob only grew must be known, not guessed: no reader may see
//! bytes of two versions. So the old version must be a beginning of the new one, by one of these:
//!
//! - an append blob that was made at the same time, and whose last bytes are what they were, only grew;
//! - the old block list is a beginning of the new one, in ids that carry our mark: nobody writes other bytes under them;
//! - from where the lists part, the checksums agree. Our ids hold the checksum of their block, so that of any run of blocks
//!   is known without reading, however often they were merged or written again meanwhile; only what the old version
//!   has of its last block's successor is read, under the new version's ETag;
//! - a small file of one Put Blob, or one that is cached whole: the beginning of the new version has the old one's MD5.
//!
//! The inode then stands for the new version: what is cached of the old one stays, size and attributes move together.

pub(super) mod checksum;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures::TryStreamExt;
use md5::{Digest, Md5};

use super::{
    FileSystem, Result,
    inode::{Base, Fate, Inode, State},
    stage::{checksum_of, is_marked},
};
use crate::{
    blob::{self, BlobKind, BlobName, BlobProperties, BlockList, Body, CommittedBlock, Condition, ErrorKind},
    cache::PIECE_BYTES,
};

/// What is read to compare the beginning of a version, at most, in bytes: the blocks at the end of a log under fsync are
/// smaller.
const COMPARED_BYTES_MAX: u64 = 8 << 20;
/// A busy appender makes the next version while we look at one; so often we look again.
const LOOKS_MAX: u32 = 8;
/// A blob that was not written for so long is no log that grows. A guess: what rotates does so daily, but is written often.
const QUIET: Duration = Duration::from_secs(3600);

impl State {
    /// Whether an open handle may follow the blob's growth: nothing here is waiting to be written over it.
    fn may_follow(&self) -> bool {
        self.opened > 0 && self.fate == Fate::Linked && !self.is_dirty()
    }
}

impl FileSystem {
    /// Whether a version that was met under the name of an open inode must be asked about before the name is taken from it.
    pub(super) fn may_have_grown(&self, inode: &Inode, properties: &BlobProperties) -> bool {
        let state = inode.state.lock();
        let base = state.base.as_ref().filter(|_| state.may_follow() && inode.kind == super::Kind::File);
        base.is_some_and(|base| {
            let old = &base.properties;
            old.etag != properties.etag && old.kind == properties.kind && old.length <= properties.length
        })
    }

    /// Lets an open inode stand for the version that `properties` describe, or a later one, if the blob only grew.
    ///
    /// # Errors
    /// What the service says, but not that the blob has changed or gone meanwhile.
    pub(super) async fn follow_growth(&self, inode: &Arc<Inode>, properties: &BlobProperties) -> Result<bool> {
        if !self.may_have_grown(inode, properties) {
            return Ok(false);
        }
        let Some(base) = inode.state.lock().base.clone() else { return Ok(false) };
        let name = self.blob_name(inode)?;
        let found = match self.grown_version(&name, &base, properties).await {
            Ok(found) => found,
            Err(error) if matches!(error.kind, ErrorKind::Precondition | ErrorKind::NotFound) => return Ok(false),
            Err(error) => return Err(super::Error::from_store(format!("cannot follow the growth of {name}"), error)),
        };
        let Some((properties, blocks)) = found else { return Ok(false) };
        let attributes = self.attributes_of(&properties);
        let grown = Base { blocks: blocks.map(Arc::new), ..self.grown(&base, properties) };
        {
            let mut state = inode.state.lock();
            // The same version, not the same `Base`: its block list may have come meanwhile (`watch_end`).
            let same = state.base.as_ref().is_some_and(|now| now.properties.etag == base.properties.etag);
            if !same || !state.may_follow() {
                return Ok(false);
            }
            state.base = Some(Arc::new(grown));
            state.attributes = attributes;
            state.checked = Some(Instant::now());
            // Before anybody can see the new length.
            self.views.invalidate_grown(inode.number, base.properties.length);
        }
        Ok(true)
    }

    /// The version that `base` has become by growing, with its blocks where they are known; `None` when it changed in
    /// another way, or when nothing proves that it did not.
    async fn grown_version(
        &self,
        name: &BlobName,
        base: &Base,
        properties: &BlobProperties,
    ) -> blob::Result<Option<(BlobProperties, Option<Vec<CommittedBlock>>)>> {
        if base.properties.kind == BlobKind::Append {
            return self.appended_to(name, base).await.map(|found| found.map(|properties| (properties, None)));
        }
        let old = base.blocks.as_ref().filter(|blocks| !blocks.is_empty());
        let Some(old) = old else {
            return self.same_beginning(name, base).await.map(|found| found.map(|it| (it, None)));
        };
        for _ in 0..LOOKS_MAX {
            let list = self.store.get_block_list(name).await?;
            match self.is_beginning(name, old, &list).await {
                Ok(true) => {
                    // The list may be of a later version than the properties; metadata that says so comes with the next look.
                    let properties = BlobProperties {
                        etag: list.etag,
                        length: list.length,
                        content_md5: None,
                        ..properties.clone()
                    };
                    return Ok(Some((properties, Some(list.committed))));
                }
                Ok(false) => return Ok(None),
                Err(error) if error.kind == ErrorKind::Precondition => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// An append blob: the version that it has grown to. One that was made again under the name is another blob; the creation
    /// time says so, and where the service keeps that (the documents do not say), the last bytes that are cached do.
    async fn appended_to(&self, name: &BlobName, base: &Base) -> blob::Result<Option<BlobProperties>> {
        let length = base.properties.length;
        let last = length.saturating_sub(1) / PIECE_BYTES * PIECE_BYTES..length;
        let found = self.store.get(name, last.clone(), &Condition::None).await?;
        let (properties, delivered) = (found.properties, found.range);
        let bytes = found.body.try_collect::<Vec<_>>().await?.concat();
        let known = properties.created.is_some() && properties.created == base.properties.created;
        let cached = self.cache().peek(&base.content, &last);
        let same = delivered == last && cached.is_none_or(|cached| cached.to_vec() == bytes);
        Ok(Some(properties).filter(|properties| known && same && properties.kind == BlobKind::Append))
    }

    /// Whether the blocks `old` are the beginning of the version with the blocks `new`.
    async fn is_beginning(&self, name: &BlobName, old: &[CommittedBlock], new: &BlockList) -> blob::Result<bool> {
        let length = |blocks: &[CommittedBlock]| blocks.iter().map(|block| block.length).sum::<u64>();
        let same = old.iter().zip(&new.committed).take_while(|(old, new)| old == new && is_marked(&old.id)).count();
        let Some((before, behind)) = old.split_at_checked(same) else { return Ok(false) };
        if behind.is_empty() {
            return Ok(true);
        }
        let (start, end) = (length(before), length(old));
        if new.length < end {
            return Ok(false);
        }
        let Some(wanted) = checksum::of_blocks(behind, &(0..end - start)) else { return Ok(false) };
        let (mut position, mut sum) = (start, 0);
        for block in new.committed.iter().skip(same) {
            let Some(part) = checksum_of(&block.id).filter(|_| position + block.length <= end) else { break };
            sum = checksum::join(sum, part, block.length);
            position += block.length;
        }
        if position < end {
            if end - position > COMPARED_BYTES_MAX {
                return Ok(false);
            }
            let bytes = self.store.get(name, position..end, &Condition::Match(new.etag.clone())).await?;
            let body: Body = bytes.body.try_collect::<Vec<_>>().await?.into_iter().collect();
            if body.len() != end - position {
                return Ok(false);
            }
            sum = checksum::join(sum, body.crc64(), end - position);
        }
        Ok(sum == wanted)
    }

    /// A small version of one Put Blob: whether the blob begins with it, and the version that does.
    async fn same_beginning(&self, name: &BlobName, base: &Base) -> blob::Result<Option<BlobProperties>> {
        let length = base.properties.length;
        let cached = || {
            let found = self.cache().peek(&base.content, &(0..length))?;
            Some(found.slices().fold(Md5::new(), |md5, slice| md5.chain_update(slice)).finalize().into())
        };
        if length > COMPARED_BYTES_MAX {
            return Ok(None);
        }
        let Some(md5) = base.properties.content_md5.or_else(cached) else { return Ok(None) };
        let found = self.store.get(name, 0..length, &Condition::None).await?;
        let (properties, delivered) = (found.properties, found.range);
        let hashed =
            found.body.try_fold(Md5::new(), |md5, piece| std::future::ready(Ok(md5.chain_update(piece)))).await?;
        let same = delivered == (0..length) && md5 == <[u8; 16]>::from(hashed.finalize());
        Ok(Some(properties).filter(|properties| same && properties.kind == base.properties.kind))
    }

    /// A reader is at the end of a version that may be growing: its blocks are asked for now, since they can no longer be
    /// asked for when the next version is there.
    pub(super) fn watch_end(self: &Arc<Self>, inode: &Arc<Inode>, base: &Arc<Base>, end: u64) {
        let properties = &base.properties;
        let known = base.blocks.is_some() || properties.content_md5.is_some() || properties.kind != BlobKind::Block;
        let quiet = SystemTime::now().duration_since(properties.last_modified).is_ok_and(|age| age > QUIET);
        if known || quiet || end < properties.length {
            return;
        }
        {
            let mut state = inode.state.lock();
            if state.watched.as_ref() == Some(&properties.etag) {
                return;
            }
            state.watched = Some(properties.etag.clone());
        }
        let (file_system, inode, base) = (Arc::clone(self), Arc::clone(inode), Arc::clone(base));
        self.resources.runtime.spawn(async move {
            let Ok(name) = file_system.blob_name(&inode) else { return };
            if let Err(error) = file_system.committed_blocks(&inode, &name, &base).await {
                tracing::debug!("the end of an open file is not watched: {}", error.to_chain());
            }
        });
    }
}
