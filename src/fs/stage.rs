//! Sending blocks while the writer is still writing, so that close has little left to do and memory is free again.
//!
//! A stretch of the file is sent once it is full and the writer has left it. Nothing of it can be seen by anyone before
//! the list is committed; a crash leaves uncommitted blocks, which the service discards after a week.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::{
    FileSystem, Result,
    inode::{Fate, Inode, State},
    overlay::StagedRun,
};
use crate::blob::{BlobKind, BlockId, Body, CommittedBlock};

const MIB: u64 = 1 << 20;
/// Stretches that are sent as one block, by where they begin: (up to, bytes). Below 8 MiB a Put Block is mostly latency
/// on a 10 ms, 60 MiB/s connection (133 ms of transfer against 10 ms); they grow so that the 50,000 blocks of a blob
/// reach `FILE_BYTES_MAX`: 4096 + 7168 + 14,336 blocks.
const STRETCHES: [(u64, u64); 3] = [(32 << 30, 8 * MIB), (480 << 30, 64 * MIB), (u64::MAX, 256 * MIB)];
/// Stretches of one file on their way at once: enough to fill 16 connections (DESIGN 5), few enough to leave memory to
/// other writers. A guess until the write benchmark exists.
const STAGING_MAX: usize = 16;
/// Length of the block ids that we choose: a nonce of the writer, then a counter (DESIGN 10.7).
const BLOCK_ID_BYTES: usize = 16;
const NONCE_BYTES: usize = 8;

/// Who we are to other writers of the same blob: a random nonce at the head of each block id, so that two writers never
/// stage under one id.
#[derive(Debug)]
pub struct Writer {
    nonce: [u8; NONCE_BYTES],
    next: AtomicU64,
}

impl Writer {
    /// A writer that nobody else is.
    #[must_use]
    pub fn new() -> Self {
        let random = uuid::Uuid::new_v4();
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&random.as_bytes()[..NONCE_BYTES]);
        Self { nonce, next: AtomicU64::new(0) }
    }

    /// A new id of `length` bytes, which all ids of the blob have. Ids too short for the nonce get random bytes: such
    /// blobs were written by clients with ids of a few bytes, where only a lease would be exact (DESIGN 10.7).
    #[must_use]
    pub fn block_id(&self, length: usize) -> BlockId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let mut bytes = Vec::with_capacity(length.max(BLOCK_ID_BYTES));
        if length >= NONCE_BYTES + 4 {
            bytes.extend_from_slice(&self.nonce);
            bytes.extend_from_slice(&count.to_be_bytes()[(16 - length.min(BLOCK_ID_BYTES)).min(4)..]);
        } else {
            bytes.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
        }
        bytes.resize(length, 0);
        BlockId(Bytes::from(bytes))
    }

    /// Whether an id is one of ours.
    #[must_use]
    pub fn made(&self, id: &BlockId) -> bool {
        id.0.len() >= NONCE_BYTES + 4 && id.0[..NONCE_BYTES] == self.nonce
    }
}

/// Length of the ids of a blob with these committed blocks.
#[must_use]
pub fn block_id_length(blocks: &[CommittedBlock]) -> usize {
    blocks.first().map_or(BLOCK_ID_BYTES, |block| block.id.0.len())
}

/// The stretch that `position` lies in.
#[must_use]
pub fn stretch_at(position: u64) -> Range<u64> {
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
    if state.committing.is_some() {
        return false;
    }
    let known = state.base.as_ref().is_none_or(|base| base.properties.kind == BlobKind::Block && base.blocks.is_some());
    known && state.fate == Fate::Linked && state.staging.len() < STAGING_MAX && !state.draining && !state.name_in_motion
}

impl FileSystem {
    /// Sends the stretches that a write of `written` has completed.
    pub(super) fn stage_behind(self: &Arc<Self>, inode: &Arc<Inode>, written: &Range<u64>) {
        let mut stretch = stretch_at(written.start);
        while stretch.end <= written.end {
            self.stage(inode, stretch.clone());
            stretch = stretch_at(stretch.end);
        }
    }

    /// Sends every stretch that is complete and was passed over while too many were on their way. Returns whether any is
    /// on its way now.
    pub(super) fn stage_complete(self: &Arc<Self>, inode: &Arc<Inode>) -> bool {
        let mut stretches: Vec<Range<u64>> = {
            let state = inode.state.lock();
            let positions = state.overlay.iter().flat_map(super::overlay::Overlay::resident_positions);
            positions.map(stretch_at).collect()
        };
        stretches.dedup();
        stretches.into_iter().for_each(|stretch| self.stage(inode, stretch));
        !inode.state.lock().staging.is_empty()
    }

    /// Sends one stretch in the background, if all of it is there and nothing speaks against it.
    fn stage(self: &Arc<Self>, inode: &Arc<Inode>, range: Range<u64>) {
        let (body, fingerprint, id) = {
            let mut state = inode.state.lock();
            if !may_stage(&state) || state.staging.contains(&range.start) {
                return;
            }
            let id_length = state
                .base
                .as_ref()
                .and_then(|base| base.blocks.as_ref())
                .map_or(BLOCK_ID_BYTES, |blocks| block_id_length(blocks));
            let Some(overlay) = state.overlay.as_ref().filter(|overlay| overlay.is_stageable(&range)) else { return };
            let Some(body) = overlay.share(&range) else { return };
            let fingerprint = overlay.fingerprint(&range);
            state.staging.insert(range.start);
            (body, fingerprint, self.writer.block_id(id_length))
        };
        let (file_system, inode) = (Arc::clone(self), Arc::clone(inode));
        self.resources.runtime.spawn(async move {
            let result = file_system.send_block(&inode, &id, &body).await;
            let sent = result.is_ok();
            file_system.finish_staging(&inode, StagedRun { range, id }, &fingerprint, result);
            if sent {
                file_system.stage_complete(&inode);
            }
            drop(body); // Held until here: as long as it lives, equal buffers are equal bytes.
        });
    }

    async fn send_block(&self, inode: &Inode, id: &BlockId, body: &Body) -> Result<()> {
        let name = self.blob_name(inode)?;
        let sent = self.store.put_block(&name, id, body.clone()).await;
        sent.map_err(|error| super::Error::from_store(format!("cannot stage a block of {name}"), error))
    }

    fn finish_staging(&self, inode: &Inode, run: StagedRun, fingerprint: &[usize], result: Result<()>) {
        let mut state = inode.state.lock();
        state.staging.remove(&run.range.start);
        // The bytes are dirty still where it failed: the commit sends them, and reports what it meets.
        let sent = result.inspect_err(|error| tracing::debug!("{}", error.to_chain())).is_ok();
        // A file that is only written gives its memory back at once; one that may be read keeps it while there is room.
        let only_written = state.readers == 0;
        if let Some(overlay) = state.overlay.as_mut()
            && sent
            && overlay.record_staged(run, fingerprint)
            && only_written
        {
            overlay.drop_staged();
        }
        drop(state);
        inode.staged.notify_waiters();
    }
}
