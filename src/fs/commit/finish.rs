//! After a commit: the new base, and its bytes in the cache.

use std::{ops::Range, sync::Arc, time::Instant};

use super::super::{
    FileSystem,
    inode::{Base, Carried, Inode},
    overlay::{Overlay, Segment},
};
use crate::{
    blob::{BlobName, BlobProperties, Committed, CommittedBlock, ContentHeaders, WriteOptions},
    cache::{BLOCK_BYTES, Cache, Content, PIECE_BYTES},
};

/// What a commit has changed stays readable without a request, up to so many bytes.
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
        carried: &Carried,
    ) {
        let size = layer.size();
        let content = self.content_after(inode, name, layer, committed);
        let mut state = inode.state.lock();
        // A hierarchical account keeps the mode of what is written again.
        let mode = state.base.as_ref().and_then(|base| base.properties.mode);
        let properties = BlobProperties {
            length: size,
            mode,
            tag_count: options.headers.tags.as_ref().map_or(0, |tags| tags.split('&').count() as u32),
            headers: ContentHeaders { tags: None, ..options.headers },
            access_tier: options.access_tier,
            tier_known: true,
            ..BlobProperties::written(committed, options.metadata)
        };
        state.base = Some(Arc::new(Base { properties, content, blocks: Some(Arc::new(blocks)) }));
        state.committing = None;
        state.id_length = None; // The commit has discarded whatever else was staged.
        state.note_carried(carried);
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
        let below = old.as_ref().filter(|_| !unchanged.is_empty());
        let content = match below {
            Some(old) => cache.derive(old, committed.etag.clone(), size, &unchanged),
            None => self.content(name, &committed.etag, size),
        };
        for range in changed_pieces(layer) {
            let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or_default()];
            // What is not at hand is of no consequence: the service has it.
            if copy_new(cache, below, layer, &range, &mut bytes).is_some() {
                cache.insert(&content, range.start, &bytes);
            }
        }
        if let Some(old) = old.filter(|old| old.id() != content.id()) {
            cache.forget(&old);
        }
        content
    }
}

/// The cached pieces that a layer has changed, whole, neighbours together up to a block: where the cache must be told
/// what is there now. Ends after `KEEP_CACHED_BYTES_MAX`.
fn changed_pieces(layer: &Overlay) -> Vec<Range<u64>> {
    let mut pieces: Vec<Range<u64>> = Vec::new();
    let mut left = KEEP_CACHED_BYTES_MAX;
    for segment in layer.segments(&(0..layer.size())) {
        if !matches!(segment, Segment::Dirty(_)) {
            continue;
        }
        let range = segment.range();
        let mut start = range.start / PIECE_BYTES * PIECE_BYTES;
        start = start.max(pieces.last().map_or(0, |last| last.end));
        let end = range.end.next_multiple_of(PIECE_BYTES).min(layer.size());
        while start < end {
            let stop = end.min((start / BLOCK_BYTES + 1) * BLOCK_BYTES);
            left = match left.checked_sub(stop - start) {
                Some(left) => left,
                None => return pieces,
            };
            pieces.push(start..stop);
            start = stop;
        }
    }
    pieces
}

/// Fills `target` with the bytes of `range` as they are after the commit; `None` where some are not in memory.
fn copy_new(
    cache: &Cache,
    old: Option<&Arc<Content>>,
    layer: &Overlay,
    range: &Range<u64>,
    target: &mut [u8],
) -> Option<()> {
    for segment in layer.segments(range) {
        let part = segment.range();
        let target = target.get_mut((part.start - range.start) as usize..(part.end - range.start) as usize)?;
        match &segment {
            Segment::Dirty(part) => layer.copy_to(part, target).ok()?,
            Segment::Zero(_) => {}
            Segment::Below(part) => {
                cache.peek(old?, part)?.copy_to(target);
            }
            Segment::Staged(_) => return None,
        }
    }
    Some(())
}
