//! Commits whose answer did not come within the deadline: the service may have made the version all the same. The next
//! commit of the same layer then meets its own work under the name, which is no conflict.

use std::sync::Arc;

use md5::{Digest, Md5};

use super::super::{
    Error, FileSystem, Result,
    inode::{Carried, Inode},
    overlay::Overlay,
};
use crate::blob::{BlobName, Body, Committed, CommittedBlock, Condition, ErrorKind, WriteOptions};

/// Attempts that are kept of one layer; each took a whole deadline, so more are hardly ever open.
const ATTEMPTS_MAX: usize = 8;

/// A version that a commit may have made.
#[derive(Clone, Debug)]
pub(in crate::fs) struct Attempt {
    layer: Arc<Overlay>,
    made: Made,
    options: WriteOptions,
    carried: Carried,
}

/// A version that an earlier attempt has made.
pub(super) struct Recognised {
    pub(super) committed: Committed,
    pub(super) blocks: Vec<CommittedBlock>,
    pub(super) options: WriteOptions,
    pub(super) carried: Carried,
}

/// How a version is known again.
#[derive(Clone, Debug)]
pub(super) enum Made {
    /// One Put Blob of these bytes.
    Whole { length: u64, md5: [u8; 16] },
    /// A list of these blocks, whose ids carry our nonce.
    Blocks(Vec<CommittedBlock>),
}

impl Made {
    pub(super) fn whole(body: &Body) -> Self {
        let mut md5 = Md5::new();
        body.pieces().iter().for_each(|piece| md5.update(piece));
        Self::Whole { length: body.len(), md5: md5.finalize().into() }
    }
}

/// Whether the service may have done it in one of the tries. Only a refused condition says surely that it did not: that
/// is settled below.
fn is_uncertain(error: &crate::blob::Error) -> bool {
    !matches!(error.kind, ErrorKind::Precondition | ErrorKind::NotFound | ErrorKind::ContainerNotFound)
}

impl FileSystem {
    /// Keeps what a commit tried to make, where `error` leaves open whether it did.
    pub(super) fn note_attempt(
        inode: &Inode,
        layer: &Arc<Overlay>,
        (options, carried): (&WriteOptions, &Carried),
        error: &crate::blob::Error,
        made: impl FnOnce() -> Made,
    ) {
        if !is_uncertain(error) {
            return;
        }
        let (options, carried) = (options.clone(), carried.clone());
        let attempt = Attempt { layer: Arc::clone(layer), made: made(), options, carried };
        let mut state = inode.state.lock();
        state.attempts.retain(|other| Arc::ptr_eq(&other.layer, layer));
        if state.attempts.len() == ATTEMPTS_MAX {
            state.attempts.remove(0);
        }
        state.attempts.push(attempt);
    }

    /// After a refused condition: the version under the name, if an earlier attempt at this layer made it.
    ///
    /// # Errors
    /// What the service says when it is asked.
    pub(super) async fn recognise(
        &self,
        inode: &Inode,
        name: &BlobName,
        layer: &Arc<Overlay>,
    ) -> Result<Option<Recognised>> {
        let attempts: Vec<Attempt> = {
            let state = inode.state.lock();
            state.attempts.iter().filter(|attempt| Arc::ptr_eq(&attempt.layer, layer)).cloned().collect()
        };
        if attempts.is_empty() {
            return Ok(None);
        }
        let failed = |error| Error::from_store(format!("cannot check {name}"), error);
        let found = match self.store.head(name, &Condition::None).await {
            Ok(found) => found,
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        for attempt in attempts.into_iter().rev().filter(|attempt| attempt.options.metadata == found.metadata) {
            let blocks = match attempt.made.clone() {
                Made::Whole { length, md5 } if found.length == length && found.content_md5 == Some(md5) => Vec::new(),
                Made::Whole { .. } => continue,
                Made::Blocks(blocks) => {
                    let list = self.store.get_block_list(name).await.map_err(failed)?;
                    if list.etag != found.etag || list.committed != blocks {
                        continue;
                    }
                    blocks
                }
            };
            let committed = Committed { etag: found.etag, last_modified: found.last_modified };
            let Attempt { options, carried, .. } = attempt;
            return Ok(Some(Recognised { committed, blocks, options, carried }));
        }
        Ok(None)
    }
}
