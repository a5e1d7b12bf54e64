//! The check of an open that only reads: a GET of the first bytes, whose headers say which version they are of. So a small
//! file costs one request from open to close. open(2) returns with the headers; the bytes go to the cache as they arrive,
//! and a read that comes meanwhile waits for its piece of them.
//!
//! A HEAD is sent instead where no byte is needed: what is in memory already, or was given to the kernel, whose pages hold
//! it as long as we show the same inode.

use super::{
    FileSystem, Result,
    inode::{Base, Inode},
    lookup::Held,
};
use crate::{
    blob::{BlobProperties, Condition, Download},
    cache::{BLOCK_BYTES, Opening, PIECE_BYTES},
    sync::{Arc, Ordering},
};

/// Of a file that is not asked for whole: little beside the round trip (4 ms at 60 MiB/s), since the reader may go elsewhere,
/// and as much as a program's first reads take.
const FIRST_BYTES: u64 = 256 << 10;

/// How much of a file comes with its open, in bytes.
fn opening_bytes(length: u64) -> u64 {
    if length <= BLOCK_BYTES { length } else { FIRST_BYTES }
}

impl FileSystem {
    /// As [`Self::successor`], and the first bytes of the version that is found are on their way into the cache.
    pub(super) async fn successor_with_bytes(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<Option<Held>> {
        let Some(base) = inode.state.lock().base.clone() else { return Ok(None) };
        let Some(opening) = self.opening_of(inode, &base) else { return self.successor(inode).await };
        let question = self.question(inode)?;
        // Whole pieces, so that a version that has grown meanwhile arrives as usefully; the service cuts at the end.
        let range = 0..opening.range().end.next_multiple_of(PIECE_BYTES);
        let (opening, download) = match self.store.get(&question.blob, range, &Condition::None).await {
            Ok(download) if download.properties.etag == base.properties.etag => {
                opening.receive(download);
                question.note_current(inode);
                return Ok(None);
            }
            Ok(download) => (opening, download),
            Err(error) => return self.successor_in(inode, &question, Err(error)).await,
        };
        drop(opening);
        let properties = download.properties.clone();
        let successor = self.successor_in(inode, &question, Ok(properties)).await?;
        if let Some(successor) = &successor {
            self.take_in(&successor.inode, download);
        }
        Ok(successor)
    }

    /// What of the first bytes an open should bring along; `None`: nothing.
    fn opening_of(&self, inode: &Inode, base: &Base) -> Option<Opening> {
        let BlobProperties { length, access_tier, .. } = &base.properties;
        // The kernel has pages of a file that was read. A small one is fetched all the same: as cheap as a HEAD.
        let in_kernel = *length > PIECE_BYTES && inode.was_read.load(Ordering::Relaxed);
        if in_kernel || access_tier.as_deref() == Some("Archive") {
            return None;
        }
        self.cache().claim_beginning(&base.content, opening_bytes(*length))
    }

    /// Keeps the bytes of a version that was met under a name.
    fn take_in(&self, inode: &Inode, download: Download) {
        let Some(base) = inode.state.lock().base.clone() else { return };
        if base.properties.etag != download.properties.etag {
            return;
        }
        if let Some(opening) = self.cache().claim_beginning(&base.content, download.range.end) {
            opening.receive(download);
        }
    }
}
