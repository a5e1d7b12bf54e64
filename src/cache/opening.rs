//! The first bytes of a file that is being opened: one GET checks the version and brings them along.
//!
//! The pieces are claimed before the GET is sent, so a read that comes meanwhile joins it. Knows nothing of versions: the
//! caller says to which content an answer belongs.

use std::ops::Range;

use crate::{
    blob::Download,
    sync::{Arc, Ordering},
};

use super::{
    Shared,
    block::{Block, Pieces},
    budget::Class,
    content::Content,
    fetch::{Run, claim_runs},
    stream::block_length,
};

/// The right to fill the beginning of a content. Dropping it lets others fetch these bytes.
pub struct Opening {
    shared: Arc<Shared>,
    content: Arc<Content>,
    run: Run,
}

impl Opening {
    pub(super) fn claim(shared: &Arc<Shared>, content: &Arc<Content>, bytes: u64) -> Option<Self> {
        if needs_none(shared, content) {
            return None;
        }
        Self::claim_in(shared, content, &shared.clean_block(content, 0)?, bytes)
    }

    pub(super) fn claim_ahead(shared: &Arc<Shared>, content: &Arc<Content>, bytes: u64) -> Option<Self> {
        if needs_none(shared, content) {
            return None;
        }
        let block = match shared.blocks.peek(content.id(), 0) {
            Some(block) => block,
            None => {
                let buffer = shared.pool.try_buffer(Class::Prefetch, block_length(content, 0))?;
                shared.blocks.insert(content, 0, Arc::new(Block::new(buffer)))
            }
        };
        Self::claim_in(shared, content, &block, bytes)
    }

    fn claim_in(shared: &Arc<Shared>, content: &Arc<Content>, block: &Arc<Block>, bytes: u64) -> Option<Self> {
        let end = bytes.min(block.length());
        let run = claim_runs([(0, block, Pieces::touched_by(&(0..end)))]).into_iter().next()?;
        let (shared, content) = (Arc::clone(shared), Arc::clone(content));
        (run.range().start == 0).then_some(Self { shared, content, run })
    }

    /// The bytes to ask for.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.run.range()
    }

    /// Fills what was claimed from the body of `download`, which the caller has found to be of the content's version, as it
    /// arrives. Returns at once; a body that breaks off, or answers another range, leaves the rest to the next reader.
    pub fn receive(self, download: Download) {
        let Self { shared, content, mut run } = self;
        if download.range != run.range() || download.properties.length != content.length() {
            return;
        }
        let (counters, disk) = (Arc::clone(&shared.counters), shared.disk.clone());
        counters.fetches.fetch_add(1, Ordering::Relaxed);
        shared.runtime.spawn(async move {
            if let Err(error) = run.receive(download, &content, disk.as_ref(), &counters.fetched_bytes).await {
                tracing::debug!(%error, ?content, "the first bytes did not come; a reader will try again");
            }
        });
    }
}

/// Whether no byte need come: of an empty blob, and of what the node's disk has.
fn needs_none(shared: &Shared, content: &Arc<Content>) -> bool {
    let on_disk = || shared.disk.as_ref().zip(content.key()).is_some_and(|(disk, key)| disk.has(&key));
    content.length() == 0 || on_disk()
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opening({:?} of {:?})", self.run.range(), self.content)
    }
}
