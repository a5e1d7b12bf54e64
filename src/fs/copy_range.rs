//! copy_file_range(2): bytes of one file into another. Large ranges of what is committed are copied inside the service,
//! as blocks of the target that its next commit names; nothing of them passes through here. The rest goes through our own
//! memory, which still saves the way into the kernel and back.
//!
//! Both ways may copy less than was asked, as the system call may: a copy of terabytes then shows its progress, and can
//! be interrupted.

use std::{ops::Range, sync::Arc};

use futures::{StreamExt, TryStreamExt};

use super::{
    Caller, Error, FileSystem, HandleId, Invalidation, Result,
    handle::FileHandle,
    inode::{Base, Fate, Inode},
    overlay::{Overlay, StagedRun},
    stage::has_nonce,
    write::{FILE_BYTES_MAX, Place},
};
use crate::{
    blob::{self, BlobKind, ErrorKind},
    cache::BLOCK_BYTES,
};

/// What one call copies inside the service at most: seconds of its work, and no more calls than a large file bears.
const INSIDE_CALL_BYTES_MAX: u64 = 1 << 30;
/// What one call copies through memory at most: a fraction of a second on a link of 60 MiB/s.
const MEMORY_CALL_BYTES_MAX: u64 = 16 << 20;
/// Copies of one call under way at once; each is the service's work, and the store bounds what the node asks for in all.
const COPIES_AT_ONCE: usize = 8;
/// A copy whose source or target is changed by us meanwhile is begun again; more often than this, the bytes go through
/// memory, which needs nobody to stand still.
const COPY_TRIES_MAX: u32 = 3;

impl FileSystem {
    /// copy_file_range(2): up to `length` bytes from an offset of one open file to an offset of another (or of the same).
    /// Returns how many; 0 only at the end of the source.
    ///
    /// # Errors
    /// EBADF, EROFS; EINVAL for ranges of one file that overlap; EFBIG; ESTALE when another client has replaced the source's
    /// version; what reading and writing say.
    pub async fn copy_range(
        self: &Arc<Self>,
        caller: &Caller,
        (from, from_offset): (HandleId, u64),
        (to, to_offset): (HandleId, u64),
        length: u64,
    ) -> Result<u64> {
        self.check_writable(caller)?;
        let (source, target) = (self.handles.file(from)?, self.handles.file(to)?);
        if !source.access.read || !target.access.write {
            return Err(Error::new(libc::EBADF, "a copy needs a file to read and one to write"));
        }
        let length = length.min(source.inode.state.lock().size().saturating_sub(from_offset));
        if length == 0 {
            return Ok(0);
        }
        let room = FILE_BYTES_MAX.saturating_sub(to_offset);
        if room == 0 {
            return Err(Error::new(libc::EFBIG, format!("a file has at most {FILE_BYTES_MAX} bytes")));
        }
        let length = length.min(room);
        let (from, to) = (from_offset..from_offset + length, to_offset..to_offset + length);
        if Arc::ptr_eq(&source.inode, &target.inode) && from.start < to.end && to.start < from.end {
            return Err(Error::new(libc::EINVAL, "the ranges overlap"));
        }
        let copied = match self.told(&target, self.copy_inside(&source.inode, &from, &target.inode, to.start).await)? {
            Some(copied) => copied,
            None => self.told(&target, self.copy_through_memory(&source, &from, &target.inode, to.start).await)?,
        };
        self.views.invalidate(Some(&caller.view), &Invalidation::Data(target.inode.number));
        if target.access.synchronous {
            self.commit_for(&target).await?;
        }
        Ok(copied)
    }

    /// Copies inside the service. `None` where it cannot or should not be done: the range is small, the bytes are not on
    /// the service, the target has no name to stage blocks under.
    async fn copy_inside(
        self: &Arc<Self>,
        source: &Arc<Inode>,
        from: &Range<u64>,
        target: &Arc<Inode>,
        to: u64,
    ) -> Result<Option<u64>> {
        let limits = self.writer.limits(usize::MAX);
        let least = limits.block_bytes;
        let mut length = from.end - from.start;
        if length < least || !self.writer.can_copy() {
            return Ok(None);
        }
        self.count_before_growing().await;
        // Not so that a rest is left which is too small to be copied inside the service.
        if length >= INSIDE_CALL_BYTES_MAX + least {
            length = INSIDE_CALL_BYTES_MAX;
        }
        for _ in 0..COPY_TRIES_MAX {
            let Some(base) = self.committed_base(source).await else { return Ok(None) };
            // Until the blocks are in the target's layer no commit of it may run: it would discard them (see `stage`).
            let in_order = target.commit.lock().await;
            let Some(id_length) = self.ready_target(target, &(to..to + length)).await? else { return Ok(None) };
            let copying = Copying { source: &base, from: from.start, target, to, length, id_length };
            match self.stage_copies(&copying, limits.copy_bytes).await? {
                Ok(runs) => {
                    let mut state = target.state.lock();
                    // What was written into the range meanwhile may have left memory: then all begins again.
                    let counted = self.note_refused(self.space.reach(&state, to + length))?;
                    if state.overlay_mut().place_staged(runs).is_ok() {
                        state.touch();
                        return Ok(Some(length));
                    }
                    self.space.give_back(counted);
                }
                Err(error) if matches!(error.kind, ErrorKind::Precondition | ErrorKind::NotFound) => {
                    drop(in_order);
                    self.follow(source, Some(&base), error).await?;
                }
                Err(error) if error.kind == ErrorKind::BlockIdLength => {
                    let name = self.blob_name(target)?;
                    self.adopt_id_length(target, &name).await?;
                }
                Err(error) if matches!(error.kind, ErrorKind::Unsupported | ErrorKind::Denied | ErrorKind::Invalid) => {
                    tracing::debug!("copying through memory: {error}");
                    if error.kind == ErrorKind::Unsupported {
                        self.writer.note_no_copies();
                    }
                    return Ok(None);
                }
                Err(error) => return Err(Error::from_store("cannot copy inside the service", error)),
            }
        }
        Ok(None)
    }

    /// The version that holds all bytes of the source; what is not committed is committed first. `None` when that cannot
    /// be done now: whoever wrote it hears why at his own fsync.
    async fn committed_base(self: &Arc<Self>, source: &Arc<Inode>) -> Option<Arc<Base>> {
        let committed = || {
            let state = source.state.lock();
            let clean = state.overlay.is_none() && state.committing.is_none();
            state.base.clone().filter(|_| clean)
        };
        if let Some(base) = committed() {
            return Some(base);
        }
        self.commit_unheard(source).await.ok()?;
        committed()
    }

    /// Makes the target's layer take blocks for `range`; the caller holds its commit lock. Returns the length of its block
    /// ids, `None` when it takes no blocks.
    async fn ready_target(self: &Arc<Self>, target: &Arc<Inode>, range: &Range<u64>) -> Result<Option<usize>> {
        let in_the_way = {
            let state = target.state.lock();
            let cuts = |layer: &Overlay| !layer.can_replace(range);
            state.committing.is_some() || state.overlay.as_ref().is_some_and(cuts)
        };
        if in_the_way {
            self.commit_locked(target).await?;
        }
        let base = {
            let state = target.state.lock();
            if state.fate != Fate::Linked {
                return Ok(None);
            }
            state.base.clone()
        };
        if let Some(base) = base {
            if base.properties.kind != BlobKind::Block {
                return Ok(None);
            }
            let name = self.blob_name(target)?;
            // Where the list cannot be had, or is that of another version, the commit finds out why.
            if self.committed_blocks(target, &name, &base).await.is_err() {
                return Ok(None);
            }
        }
        let id_length = target.state.lock().block_id_length();
        Ok(has_nonce(id_length).then_some(id_length))
    }

    /// Has the service make the blocks. The outer error is ours, the inner one the service's.
    async fn stage_copies(&self, copying: &Copying<'_>, copy_bytes: u64) -> Result<blob::Result<Vec<StagedRun>>> {
        let name = self.blob_name(copying.target)?;
        let at = copying.source.content.source();
        let (name, at) = (&name, &at);
        let copy = |piece: Range<u64>| async move {
            let id = self.writer.block_id(copying.id_length);
            let from = copying.from + piece.start..copying.from + piece.end;
            self.store.put_block_from_url(name, &id, &at.name, from, &at.etag).await?;
            Ok(StagedRun { range: copying.to + piece.start..copying.to + piece.end, id })
        };
        // Collected first: the compiler cannot see that a stream over a borrowing closure is Send.
        let copies: Vec<_> = even_pieces(copying.length, copy_bytes).map(copy).collect();
        Ok(futures::stream::iter(copies).buffered(COPIES_AT_ONCE).try_collect().await)
    }

    async fn copy_through_memory(
        self: &Arc<Self>,
        source: &FileHandle,
        from: &Range<u64>,
        target: &Arc<Inode>,
        to: u64,
    ) -> Result<u64> {
        let length = (from.end - from.start).min(MEMORY_CALL_BYTES_MAX);
        let mut copied = 0;
        while copied < length {
            let step = from.start + copied..from.start + length.min(copied + BLOCK_BYTES);
            match self.copy_step(source, &step, target, to + copied).await {
                Ok(0) => break,
                Ok(count) => copied += count,
                Err(error) if copied == 0 => return Err(error),
                // What is copied is copied; the next call meets the error again.
                Err(_) => break,
            }
        }
        Ok(copied)
    }

    async fn copy_step(
        self: &Arc<Self>,
        source: &FileHandle,
        from: &Range<u64>,
        target: &Arc<Inode>,
        to: u64,
    ) -> Result<u64> {
        let read = self.read_range(&source.inode, from, &source.stream).await?;
        // Copied out: a writer that waits for memory must hold none of the cache's.
        let bytes = read.with(<[u8]>::to_vec);
        drop(read);
        if !bytes.is_empty() {
            let written = self.write_layer(target, Place::At(to), &bytes).await?;
            self.stage_behind(target, &written);
        }
        Ok(bytes.len() as u64)
    }
}

/// One copy inside the service.
struct Copying<'a> {
    source: &'a Arc<Base>,
    from: u64,
    target: &'a Arc<Inode>,
    to: u64,
    length: u64,
    id_length: usize,
}

/// `length` bytes in as few pieces of at most `bytes_max` as possible, all of about one size: a last block of a few bytes
/// would be rewritten with every append.
fn even_pieces(length: u64, bytes_max: u64) -> impl Iterator<Item = Range<u64>> {
    let count = length.div_ceil(bytes_max).max(1);
    let bytes = length.div_ceil(count).max(1);
    (0..count).map(move |at| at * bytes..length.min((at + 1) * bytes)).filter(|piece| !piece.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_few_and_even_and_leave_nothing_out() {
        for (length, bytes_max) in [(1, 100), (100, 100), (101, 100), (1 << 30, 100 << 20), (7, 2), (10, 3)] {
            let pieces: Vec<_> = even_pieces(length, bytes_max).collect();
            assert_eq!(pieces.len() as u64, length.div_ceil(bytes_max), "{length} by {bytes_max}: {pieces:?}");
            assert!(pieces.iter().all(|piece| piece.end - piece.start <= bytes_max));
            assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert_eq!((pieces[0].start, pieces[pieces.len() - 1].end), (0, length));
        }
    }
}
