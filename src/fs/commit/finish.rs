//! After a commit: the new base, and its bytes in the cache.

use std::{ops::Range, sync::Arc, time::Instant};

use super::super::{
    FileSystem,
    attributes::Attributes,
    inode::{Base, Inode},
    overlay::{Overlay, Segment},
};
use crate::{
    blob::{BlobKind, BlobName, BlobProperties, Committed, CommittedBlock, ContentHeaders, Metadata, WriteOptions},
    cache::{BLOCK_BYTES, Cache, Content},
};

/// Files up to this size stay readable without a request after their commit.
const KEEP_CACHED_BYTES_MAX: u64 = 8 << 20;

impl FileSystem {
    #[expect(clippy::too_many_arguments, reason = "the facts of one finished commit, used here alone")]
    pub(super) fn finish_layer(
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
pub(in crate::fs) fn written_properties(committed: &Committed, metadata: Metadata) -> BlobProperties {
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
        mode: None,
    }
}
