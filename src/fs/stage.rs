//! Sending blocks while the writer is still writing, so that close has little left to do and memory is free again.
//!
//! A stretch of the file is sent once it is full and the writer has left it. Nothing of it can be seen by anyone before
//! the list is committed; a crash leaves uncommitted blocks, which the service discards after a week.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::{
    Error, FileSystem, Result,
    inode::{Fate, Inode, State},
    overlay::{BUFFER_BYTES, StagedRun},
    plan::Limits,
};
use crate::blob::{BlobKind, BlobName, BlockId, Body, ErrorKind};

const MIB: u64 = 1 << 20;
/// Stretches that are sent as one block, by where they begin: (up to, bytes). On a connection of 60 MiB/s with 10 ms, 4 MiB
/// lose 13 % to the round trip, and the last ones, which fsync waits for, take 77 ms where 8 MiB take 143. They grow so
/// that the 50,000 blocks of a blob reach `FILE_BYTES_MAX`: 1024 + 3584 + 7168 + 14,336 blocks.
const STRETCHES: [(u64, u64); 4] =
    [(4 << 30, 4 * MIB), (32 << 30, 8 * MIB), (480 << 30, 64 * MIB), (u64::MAX, 256 * MIB)];
/// Stretches of one file on their way at once, a connection each: 32 are what a node of a few cores can feed (1.7 GiB/s at
/// 60 MiB/s each). Their memory is bounded by the budget, which larger stretches meet first.
const STAGING_MAX: usize = 32;
/// Length of the block ids that we choose: a nonce of the writer, a mark, a counter, the checksum of the block.
const BLOCK_ID_BYTES: usize = BLOCK_ID_BYTES_MARK + 8;
const NONCE_BYTES: usize = 8;
/// Says that a block was written by this program, on whatever node, which never writes other bytes under the same id: the
/// nonce is its process's own, and the counter (of 40 bits) counts no number twice.
const MARK: &[u8] = b"azb";
/// The same, and that the block's CRC64 follows.
const MARK_CHECKSUM: &[u8] = b"azc";
/// Ids from this length on have room for nonce, mark and counter.
const BLOCK_ID_BYTES_MARK: usize = 16;
/// Ids from this length on have room for the nonce and a counter of 32 bits.
const BLOCK_ID_BYTES_NONCE: usize = NONCE_BYTES + 4;

/// Who we are to other writers of the same blob: a random nonce at the head of each block id, so that two writers never
/// stage under one id.
#[derive(Debug)]
pub struct Writer {
    nonce: [u8; NONCE_BYTES],
    next: AtomicU64,
    /// The service answered that it cannot copy blocks.
    no_copies: AtomicBool,
    /// What all sizes of blocks are divided by.
    divisor: u64,
}

impl Writer {
    /// A writer that nobody else is. `divisor`, a power of two, divides all sizes of blocks (1 but in tests).
    #[must_use]
    pub fn new(divisor: u64) -> Self {
        let random = uuid::Uuid::new_v4();
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&random.as_bytes()[..NONCE_BYTES]);
        Self { nonce, next: AtomicU64::new(0), no_copies: AtomicBool::new(false), divisor: divisor.max(1) }
    }

    /// As [`Self::block_id`], for a block whose CRC64 is known.
    #[must_use]
    pub fn block_id_of(&self, length: usize, checksum: Option<u64>) -> BlockId {
        let id = self.block_id(length);
        let Some(checksum) = checksum.filter(|_| length >= BLOCK_ID_BYTES) else { return id };
        let mut bytes = id.0.to_vec();
        bytes.splice(NONCE_BYTES..NONCE_BYTES + MARK.len(), MARK_CHECKSUM.iter().copied());
        bytes.splice(BLOCK_ID_BYTES_MARK..BLOCK_ID_BYTES, checksum.to_be_bytes());
        BlockId(Bytes::from(bytes))
    }

    /// A new id of `length` bytes, which all ids of the blob have. Ids too short for the nonce get random bytes: such
    /// blobs were written by clients with ids of a few bytes, where only a lease is exact (DESIGN 10.7), and where the
    /// caller must see to it that the id is free.
    #[must_use]
    pub fn block_id(&self, length: usize) -> BlockId {
        let count = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut bytes = Vec::with_capacity(length.max(BLOCK_ID_BYTES));
        if length < BLOCK_ID_BYTES_NONCE {
            bytes.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
        } else {
            bytes.extend_from_slice(&self.nonce);
            if length < BLOCK_ID_BYTES_MARK {
                bytes.extend_from_slice(&count[4..]);
            } else {
                bytes.extend_from_slice(MARK);
                bytes.extend_from_slice(&count[MARK.len()..]);
            }
        }
        bytes.resize(length, 0);
        BlockId(Bytes::from(bytes))
    }

    /// What commits of a blob with ids of `id_length` bytes are planned by, as far as the service is known.
    #[must_use]
    pub fn limits(&self, id_length: usize) -> Limits {
        let limits = Limits::default().divided_by(self.divisor);
        // Half of the ids that there can be: a free one is found at once.
        let ids = 1usize.checked_shl(8 * id_length.min(4) as u32).map_or(usize::MAX, |ids| ids / 2);
        let limits = Limits { list_blocks: limits.list_blocks.min(ids), ..limits };
        if self.can_copy() { limits } else { limits.without_copies() }
    }

    /// The stretch that `position` lies in.
    #[must_use]
    pub fn stretch_at(&self, position: u64) -> Range<u64> {
        let stretch = stretch_at(position.saturating_mul(self.divisor));
        stretch.start / self.divisor..stretch.end / self.divisor
    }

    /// Whether the service can copy blocks, as far as it is known.
    #[must_use]
    pub fn can_copy(&self) -> bool {
        !self.no_copies.load(Ordering::Relaxed)
    }

    /// Remembers that the service cannot copy blocks.
    pub fn note_no_copies(&self) {
        self.no_copies.store(true, Ordering::Relaxed);
    }

    /// Whether an id is one of ours.
    #[must_use]
    pub fn made(&self, id: &BlockId) -> bool {
        id.0.len() >= BLOCK_ID_BYTES_NONCE && id.0[..NONCE_BYTES] == self.nonce
    }
}

/// Whether the id says that this program made it, on this node or another.
#[must_use]
pub fn is_marked(id: &BlockId) -> bool {
    let mark = id.0.get(NONCE_BYTES..NONCE_BYTES + MARK.len());
    id.0.len() >= BLOCK_ID_BYTES_MARK && (mark == Some(MARK) || mark == Some(MARK_CHECKSUM))
}

/// The CRC64 of a block, where its id holds it.
#[must_use]
pub fn checksum_of(id: &BlockId) -> Option<u64> {
    let mark = id.0.get(NONCE_BYTES..NONCE_BYTES + MARK.len());
    let bytes = id.0.get(BLOCK_ID_BYTES_MARK..BLOCK_ID_BYTES).filter(|_| mark == Some(MARK_CHECKSUM))?;
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// Whether ids of this length have room for a nonce: no other writer stages under them.
#[must_use]
pub fn has_nonce(id_length: usize) -> bool {
    id_length >= BLOCK_ID_BYTES_NONCE
}

impl State {
    /// Length of the ids of the blob's blocks, in bytes: all ids of a blob have one length (REST page "Put Block").
    #[must_use]
    pub fn block_id_length(&self) -> usize {
        let committed = self.base.as_ref().and_then(|base| base.blocks.as_ref()).and_then(|blocks| blocks.first());
        self.id_length.or(committed.map(|block| block.id.0.len())).unwrap_or(BLOCK_ID_BYTES)
    }
}

/// The stretch that `position` lies in, undivided.
fn stretch_at(position: u64) -> Range<u64> {
    let mut begin = 0;
    for (end, bytes) in STRETCHES {
        if position < end {
            let start = begin + (position - begin) / bytes * bytes;
            return start..start + bytes;
        }
        begin = end;
    }
    position..position
}

/// Whether blocks of this inode may be sent ahead now. Never during a commit, nor while one has failed and will be
/// tried again: its Put Block List discards every uncommitted block that it does not name.
fn may_stage(state: &State) -> bool {
    if state.committing.is_some() || state.sending_failed {
        return false;
    }
    let known = state.base.as_ref().is_none_or(|base| base.properties.kind == BlobKind::Block && base.blocks.is_some());
    let known = known && has_nonce(state.block_id_length());
    known && state.fate == Fate::Linked && state.staging.len() < STAGING_MAX && !state.draining && !state.name_in_motion
}

impl FileSystem {
    /// Sends the stretches that a write of `written` has completed.
    pub(super) fn stage_behind(self: &Arc<Self>, inode: &Arc<Inode>, written: &Range<u64>) {
        let mut stretch = self.writer.stretch_at(written.start);
        while stretch.end <= written.end {
            self.stage(inode, stretch.clone());
            stretch = self.writer.stretch_at(stretch.end);
        }
    }

    /// Sends every stretch that is complete and was passed over while too many were on their way. Returns whether any is
    /// on its way now.
    pub(super) fn stage_complete(self: &Arc<Self>, inode: &Arc<Inode>) -> bool {
        let mut stretches: Vec<Range<u64>> = Vec::new();
        {
            let state = inode.state.lock();
            let mut from = 0;
            // A stretch has many buffers: one of them is enough, and there are thousands while a large file is written.
            while let Some(position) = state.overlay.as_ref().and_then(|overlay| overlay.held_from(from)) {
                stretches.extend(self.stretches_in(position));
                let seen = stretches.last().map_or(0, |last| last.end / BUFFER_BYTES * BUFFER_BYTES);
                from = seen.max(position + BUFFER_BYTES);
            }
        }
        stretches.dedup();
        stretches.into_iter().for_each(|stretch| self.stage(inode, stretch));
        !inode.state.lock().staging.is_empty()
    }

    /// The stretches that meet the buffer at `position`.
    fn stretches_in(&self, position: u64) -> Vec<Range<u64>> {
        let mut stretches = vec![self.writer.stretch_at(position)];
        while let Some(last) = stretches.last().filter(|last| last.end < position + BUFFER_BYTES) {
            stretches.push(self.writer.stretch_at(last.end));
        }
        stretches
    }

    /// Sends one stretch in the background, if all of it is there and nothing speaks against it.
    fn stage(self: &Arc<Self>, inode: &Arc<Inode>, range: Range<u64>) {
        let (body, fingerprint, id_length) = {
            let mut state = inode.state.lock();
            if !may_stage(&state) || state.staging.contains(&range.start) {
                return;
            }
            let id_length = state.block_id_length();
            let Some(overlay) = state.overlay.as_ref().filter(|overlay| overlay.is_stageable(&range)) else { return };
            let Some(body) = overlay.share(&range) else { return };
            let fingerprint = overlay.fingerprint(&range);
            state.staging.insert(range.start);
            (body, fingerprint, id_length)
        };
        let (file_system, inode) = (Arc::clone(self), Arc::clone(inode));
        self.resources.runtime.spawn(async move {
            let id = file_system.writer.block_id_of(id_length, Some(body.crc64()));
            let result = file_system.stage_block(&inode, &id, &body).await;
            let sent = result.is_ok();
            file_system.finish_staging(&inode, StagedRun { range, id }, &fingerprint, result);
            if sent {
                file_system.stage_complete(&inode);
            }
            drop(body); // Held until here: as long as it lives, equal buffers are equal bytes.
        });
    }

    async fn stage_block(&self, inode: &Inode, id: &BlockId, body: &Body) -> Result<()> {
        let name = self.blob_name(inode)?;
        match self.store.put_block(&name, id, body.clone()).await {
            Ok(()) => Ok(()),
            Err(error) => {
                if error.kind == ErrorKind::BlockIdLength {
                    self.adopt_id_length(inode, &name).await?;
                }
                Err(Error::from_store(format!("cannot stage a block of {name}"), error))
            }
        }
    }

    /// Takes over the length of block ids that somebody has staged under the name, such as an upload that was broken off:
    /// until the next commit discards them, the service takes no other length.
    ///
    /// # Errors
    /// What the service says.
    pub(super) async fn adopt_id_length(&self, inode: &Inode, name: &BlobName) -> Result<()> {
        let found = self.store.uncommitted_id_length(name).await;
        let found = found.map_err(|error| Error::from_store(format!("cannot save {name}"), error))?;
        inode.state.lock().id_length = found;
        Ok(())
    }

    fn finish_staging(&self, inode: &Inode, run: StagedRun, fingerprint: &[usize], result: Result<()>) {
        let mut state = inode.state.lock();
        state.staging.remove(&run.range.start);
        // The bytes are dirty still where it failed: the commit sends them, and reports what it meets.
        let sent = result.inspect_err(|error| tracing::debug!("{}", error.to_chain())).is_ok();
        // What fails now would fail again: the commit finds out.
        state.sending_failed |= !sent;
        // Memory of what was sent goes when somebody needs it (`make_room`), to the spool; without one, at once, unless
        // the file may be read.
        let of_no_use = state.readers == 0 && self.resources.spool.is_none();
        if let Some(overlay) = state.overlay.as_mut()
            && sent
            && overlay.record_staged(run, fingerprint)
            && of_no_use
        {
            overlay.drop_staged();
        }
        drop(state);
        inode.staged.notify_waiters();
    }
}
