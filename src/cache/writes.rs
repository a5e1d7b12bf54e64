//! What our own writes leave in the cache: freshly committed bytes, and what a commit did not change.

use std::ops::Range;

use crate::{blob::ETag, sync::Arc};

use super::{
    Shared,
    block::{BLOCK_BYTES, Block, PIECE_BYTES, Pieces},
    budget::Class,
    content::{Content, Source},
    disk::Rename,
    stream::block_length,
};

impl Shared {
    /// See [`super::Cache::insert`].
    pub(super) fn insert(&self, content: &Arc<Content>, offset: u64, bytes: &[u8]) {
        let end = content.length().min(offset + bytes.len() as u64);
        let mut at = offset;
        while at < end {
            let index = at / BLOCK_BYTES;
            let start = index * BLOCK_BYTES;
            let part_end = end.min(start + BLOCK_BYTES);
            let length = block_length(content, index) as u64;
            let whole = Pieces::inside(&(at - start..part_end - start), length);
            if !whole.is_empty() {
                let Some(block) = self.clean_block(content, index) else { return };
                for mut claim in block.claim(whole) {
                    let range = claim.range();
                    // Inside `bytes`: the claim lies inside the pieces that `at..part_end` covers.
                    let from = (start + range.start - offset) as usize;
                    let to = (start + range.end - offset) as usize;
                    claim.write(range.start, &bytes[from..to]);
                }
            }
            at = part_end;
        }
    }

    /// See [`super::Cache::derive`].
    pub(super) fn derive(&self, old: &Arc<Content>, etag: ETag, length: u64, unchanged: &[Range<u64>]) -> Arc<Content> {
        let source = Source { etag, ..Source::clone(&old.source()) };
        let new = match old.realm() {
            Some((registry, realm)) => registry.open_in(realm, source, length),
            None => Content::new(source.store, source.name, source.etag, length),
        };
        if new.id() != old.id() {
            for index in self.blocks.indices(old) {
                self.carry_over(old, &new, index, unchanged);
            }
            if let (Some(disk), Some(from), Some(to)) = (&self.disk, old.key(), new.key()) {
                disk.derive(Rename { from, from_length: old.length(), to, length, unchanged: unchanged.to_vec() });
            }
        }
        new
    }

    fn carry_over(&self, old: &Arc<Content>, new: &Arc<Content>, index: u64, unchanged: &[Range<u64>]) {
        let (old_length, length) = (block_length(old, index), block_length(new, index));
        let start = index * BLOCK_BYTES;
        let kept = unchanged_pieces(start, old_length.min(length) as u64, length as u64, unchanged);
        let Some(block) = self.blocks.peek(old.id(), index) else { return };
        if kept.and(block.valid()).is_empty() {
            return;
        }
        let all = Pieces::touched_by(&(0..length as u64));
        if old_length == length && kept == all && !block.is_being_filled() {
            // The block itself moves. Should a reader of the old content still fill a piece of it, that is harmless: it
            // fetches under the old ETag, and the bytes of these pieces are equal in both versions.
            if let Some(block) = self.blocks.remove(old.id(), index) {
                self.blocks.insert(new, index, block);
            }
            return;
        }
        let Some(copy) = self.clean_block(new, index) else { return };
        for mut claim in copy.claim(kept.and(block.valid())) {
            let range = claim.range();
            if let Some(bytes) = block.slice(&range) {
                claim.write(range.start, bytes);
            }
        }
    }

    /// The block to put clean bytes into, made if need be; `None` when memory is short. Takes no memory from what
    /// others fetched ahead.
    pub(super) fn clean_block(&self, content: &Arc<Content>, index: u64) -> Option<Arc<Block>> {
        if let Some(block) = self.blocks.peek(content.id(), index) {
            return Some(block);
        }
        let buffer = self.pool.try_buffer(Class::Prefetch, block_length(content, index))?;
        buffer.reservation().convert(Class::Demand);
        Some(self.blocks.insert(content, index, Arc::new(Block::new(buffer))))
    }
}

/// Pieces of the new block at `start` whose every byte lies in one unchanged range and existed in the old version
/// (`common` bytes of the block are in both).
fn unchanged_pieces(start: u64, common: u64, length: u64, unchanged: &[Range<u64>]) -> Pieces {
    let mut kept = Pieces::default();
    for range in unchanged {
        let from = range.start.max(start).min(start + common) - start;
        let to = range.end.max(start).min(start + common) - start;
        if from < to {
            kept = kept.or(Pieces::inside(&(from..to), length));
        }
    }
    debug_assert!(u64::from(kept.count()) * PIECE_BYTES <= common.next_multiple_of(PIECE_BYTES));
    kept
}
