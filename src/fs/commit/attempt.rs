//! Commits whose answer did not come within the deadline: the service may have made the version all the same. The next
//! commit of the same layer then meets its own work under the name, which is no conflict.

use std::sync::Arc;

use bytes::Bytes;
use md5::{Digest, Md5};

use super::super::{
    Error, FileSystem, Result,
    inode::{Base, Carried, Inode},
    overlay::Overlay,
    takeover::{AttemptRow, digest_of},
};
use crate::blob::{BlobName, BlobProperties, Body, Committed, CommittedBlock, Condition, ErrorKind, WriteOptions};

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
    /// One Put Blob of the layer, whose bytes are at hand.
    Layer,
    /// A list of these blocks, whose ids carry our nonce.
    Blocks(Vec<CommittedBlock>),
    /// A list of blocks with this check sum.
    Digest(Bytes),
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

impl Attempt {
    /// What the next process must know of it.
    pub(in crate::fs) fn row(&self) -> AttemptRow {
        let (blocks, md5) = match &self.made {
            Made::Whole { md5, .. } => (Bytes::new(), Bytes::copy_from_slice(md5)),
            Made::Layer => (Bytes::new(), Bytes::new()),
            Made::Blocks(blocks) => (digest_of(blocks), Bytes::new()),
            Made::Digest(digest) => (digest.clone(), Bytes::new()),
        };
        AttemptRow {
            blocks,
            md5,
            metadata: self.options.metadata.clone(),
            headers: Some((&self.options.headers).into()),
            access_tier: self.options.access_tier.clone(),
            carried: Some((&self.carried).into()),
        }
    }

    /// What another process has tried to make of `layer`.
    pub(in crate::fs) fn of_row(row: &AttemptRow, layer: &Arc<Overlay>) -> Self {
        let md5: Option<[u8; 16]> = row.md5.as_ref().try_into().ok();
        let made = match (row.blocks.is_empty(), md5) {
            (false, _) => Made::Digest(row.blocks.clone()),
            (true, Some(md5)) => Made::Whole { length: layer.size(), md5 },
            (true, None) => Made::Layer,
        };
        let options = WriteOptions {
            // Of what may be made already, no condition is sent again.
            condition: Condition::None,
            metadata: row.metadata.clone(),
            headers: row.headers.as_ref().map(|row| row.headers()).unwrap_or_default(),
            access_tier: row.access_tier.clone(),
        };
        let carried = row.carried.as_ref().map(|row| row.carried()).unwrap_or_default();
        Self { layer: Arc::clone(layer), made, options, carried }
    }
}

impl FileSystem {
    /// Keeps what a commit is about to make, where another process may have to know it again.
    pub(super) fn note_attempt_ahead(
        &self,
        inode: &Inode,
        layer: &Arc<Overlay>,
        (options, carried): (&WriteOptions, &Carried),
        made: impl FnOnce() -> Made,
    ) {
        if self.scribe.is_some() {
            Self::keep_attempt(inode, layer, (options, carried), made());
        }
    }

    /// Keeps what a commit tried to make, where `error` leaves open whether it did.
    pub(super) fn note_attempt(
        inode: &Inode,
        layer: &Arc<Overlay>,
        (options, carried): (&WriteOptions, &Carried),
        error: &crate::blob::Error,
        made: impl FnOnce() -> Made,
    ) {
        if is_uncertain(error) {
            Self::keep_attempt(inode, layer, (options, carried), made());
        }
    }

    fn keep_attempt(inode: &Inode, layer: &Arc<Overlay>, (options, carried): (&WriteOptions, &Carried), made: Made) {
        let (options, carried) = (options.clone(), carried.clone());
        let attempt = Attempt { layer: Arc::clone(layer), made, options, carried };
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
        base: Option<&Arc<Base>>,
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
                Made::Layer if self.is_layer(layer, base, &found).await => Vec::new(),
                Made::Layer => continue,
                Made::Blocks(_) | Made::Digest(_) => {
                    let list = self.store.get_block_list(name).await.map_err(failed)?;
                    let same = match &attempt.made {
                        Made::Digest(digest) => digest_of(&list.committed) == *digest,
                        Made::Blocks(blocks) => list.committed == *blocks,
                        Made::Whole { .. } | Made::Layer => false,
                    };
                    if list.etag != found.etag || !same {
                        continue;
                    }
                    list.committed
                }
            };
            let committed = Committed { etag: found.etag, last_modified: found.last_modified };
            let Attempt { options, carried, .. } = attempt;
            return Ok(Some(Recognised { committed, blocks, options, carried }));
        }
        Ok(None)
    }

    /// Whether a version has the bytes of `layer` over `base`.
    async fn is_layer(&self, layer: &Overlay, base: Option<&Arc<Base>>, found: &BlobProperties) -> bool {
        if found.length != layer.size() || found.content_md5.is_none() {
            return false;
        }
        let body = self.body_of(layer, base, 0..layer.size()).await;
        body.is_ok_and(|body| matches!(Made::whole(&body), Made::Whole { md5, .. } if found.content_md5 == Some(md5)))
    }
}
