//! Answers reads: from memory at once where all bytes are there, else by fetching what is missing.
//!
//! The difficulties, and where each is met:
//! 1. Two readers miss the same piece: the claim has one winner, the other waits for the piece ([`Block::wait`]).
//! 2. The winner fails or is cancelled: the waiter finds the piece abandoned and fetches by itself (`read`'s loop). Only
//!    who made a request gets its error.
//! 3. Memory is short: the reader lets go of all its blocks before it waits for memory (`pin`), so that readers that
//!    hold blocks never wait for each other's.
//! 4. The reader goes away: its GET runs on as a task of its own, so the pieces still arrive for the next one.

use std::ops::Range;

use crate::sync::tokio::{sync::oneshot, time::Instant};

use crate::{
    blob::{Error, ErrorKind, Result},
    sync::{Arc, Ordering},
};

use super::{
    Shared,
    block::{BLOCK_BYTES, Block, Pieces, Waited},
    budget::{Class, Reservation},
    content::Content,
    fetch::claim_runs,
    pool::{Filled, Pool},
    slices::CachedBytes,
    stream::{ReadStream, block_length},
};

/// Rounds of one read in which pieces that others were filling were abandoned. Each round after the first fetches the
/// abandoned pieces itself, so a second one is rare; the bound keeps a defect from becoming an endless loop.
const ROUNDS_MAX: u32 = 64;

/// How long a read waits for requests, its own or others', in deadlines of one: a little more than one, so that a request
/// of its own can say what was wrong.
const PATIENCE: f64 = 1.25;

/// One block that a read needs.
struct Pin {
    index: u64,
    block: Arc<Block>,
    /// Bytes of the read within the block.
    range: Range<u64>,
}

/// The answer of a GET made for this read.
type Fetching = oneshot::Receiver<Result<()>>;

impl Pin {
    fn wanted(&self) -> Pieces {
        Pieces::touched_by(&self.range)
    }

    fn is_ready(&self) -> bool {
        self.block.valid().contains(self.wanted())
    }
}

impl Shared {
    /// The bytes of `range` (cut at the end of the content), if all of them are in memory.
    pub(super) fn try_read(
        &self,
        content: &Arc<Content>,
        range: &Range<u64>,
        stream: &ReadStream,
    ) -> Option<CachedBytes> {
        let answer = self.peek(content, range)?;
        let range = cut(content, range);
        for (index, _) in blocks_of(&range) {
            // Counts as a use; whether it is still in the list does not matter, we hold it.
            let _ = self.blocks.read(content.id(), index);
        }
        self.counters.hits.fetch_add(1, Ordering::Relaxed);
        stream.advance(content, &range, false, answer.last_block());
        Some(answer)
    }

    /// See [`super::Cache::peek`].
    pub(super) fn peek(&self, content: &Content, range: &Range<u64>) -> Option<CachedBytes> {
        let mut answer = CachedBytes::default();
        for (index, within) in blocks_of(&cut(content, range)) {
            let block = self.blocks.peek(content.id(), index)?;
            if !block.valid().contains(Pieces::touched_by(&within)) {
                return None;
            }
            answer.push(block, within);
        }
        Some(answer)
    }

    pub(super) async fn read(
        self: &Arc<Self>,
        content: &Arc<Content>,
        range: &Range<u64>,
        stream: &ReadStream,
    ) -> Result<CachedBytes> {
        let range = cut(content, range);
        // In order, or the first read of a file (many are smaller than a block): the rest of the block comes along.
        let to_block_end = range.start == 0 || stream.continues(content, &range);
        let mut ends = None;
        for round in 0..ROUNDS_MAX {
            let pins = self.pin(content, &range).await;
            let ready = pins.iter().all(Pin::is_ready);
            let fetching = if ready { Vec::new() } else { self.fetch_missing(content, &pins, to_block_end) };
            if round == 0 {
                let counter = if ready { &self.counters.hits } else { &self.counters.misses };
                counter.fetch_add(1, Ordering::Relaxed);
                if !ready && fetching.is_empty() {
                    self.counters.joins.fetch_add(1, Ordering::Relaxed);
                }
                stream.advance(content, &range, !ready, pins.last().map(|pin| &pin.block));
            }
            if !ready {
                // For all rounds together: one who joins request after request that ends badly must end as well.
                let limit = || Instant::now() + content.source().store.limits().names.mul_f64(PATIENCE);
                match crate::sync::tokio::time::timeout_at(*ends.get_or_insert_with(limit), wait(&pins, fetching)).await
                {
                    Ok(Ok(true)) => {}
                    Ok(Ok(false)) => continue,
                    Ok(Err(error)) => return Err(error),
                    Err(_) => {
                        return Err(failed(content, ErrorKind::TimedOut, format!("bytes {range:?} did not come")));
                    }
                }
            }
            let mut answer = CachedBytes::default();
            pins.into_iter().for_each(|pin| answer.push(pin.block, pin.range));
            return Ok(answer);
        }
        let told = format!("bytes {range:?} were given up {ROUNDS_MAX} times by those who fetched them");
        Err(failed(content, ErrorKind::Server, told))
    }

    /// The blocks of `range`, made where they are missing. Waits for memory with nothing held.
    async fn pin(&self, content: &Arc<Content>, range: &Range<u64>) -> Vec<Pin> {
        let missing: u64 = blocks_of(range)
            .filter(|(index, _)| self.blocks.peek(content.id(), *index).is_none())
            .map(|(index, _)| capacity(content, index))
            .sum();
        let budget = self.pool.budget();
        let mut memory = match missing {
            0 => None,
            bytes => budget.try_reserve(Class::Demand, bytes),
        };
        loop {
            if let Some(pins) = self.try_pin(content, range, &mut memory) {
                return pins;
            }
            // A block went away since we counted, or memory was short: enough for all of them this time.
            drop(memory.take());
            let bytes = blocks_of(range).map(|(index, _)| capacity(content, index)).sum();
            memory = Some(budget.reserve(Class::Demand, bytes).await);
        }
    }

    /// As [`Self::pin`] with the memory at hand; `None` when it does not suffice.
    fn try_pin(
        &self,
        content: &Arc<Content>,
        range: &Range<u64>,
        memory: &mut Option<Reservation>,
    ) -> Option<Vec<Pin>> {
        let mut pins = Vec::new();
        for (index, within) in blocks_of(range) {
            let block = match self.blocks.read(content.id(), index) {
                Some(block) => block,
                None => {
                    let bytes = capacity(content, index);
                    let memory = memory.as_mut().filter(|memory| memory.bytes() >= bytes)?;
                    let most = (within.end - within.start) * 2 > bytes;
                    let filled = if most { Filled::Whole } else { Filled::Partly };
                    let buffer = self.pool.take(memory.split(bytes), block_length(content, index), filled);
                    let block = self.blocks.insert(content, index, Arc::new(Block::new(buffer)));
                    block.mark_read();
                    block
                }
            };
            pins.push(Pin { index, block, range: within });
        }
        Some(pins)
    }

    /// Starts GETs for the pieces that nobody has or fetches; neighbours go into one.
    fn fetch_missing(&self, content: &Arc<Content>, pins: &[Pin], to_block_end: bool) -> Vec<Fetching> {
        let wanted = pins.iter().map(|pin| {
            let end = if to_block_end { pin.block.length() } else { pin.range.end };
            (pin.index, &pin.block, Pieces::touched_by(&(pin.range.start..end)))
        });
        let mut fetching = Vec::new();
        for mut run in claim_runs(wanted) {
            let (told, answer) = oneshot::channel();
            let (content, counters, disk) = (Arc::clone(content), Arc::clone(&self.counters), self.disk.clone());
            counters.fetches.fetch_add(1, Ordering::Relaxed);
            self.runtime.spawn(async move {
                let outcome = run.fetch(&content, disk.as_ref(), &counters.fetched_bytes).await;
                // The outcome first: whoever finds the pieces abandoned looks for it.
                let _ = told.send(outcome);
                drop(run);
            });
            fetching.push(answer);
        }
        fetching
    }
}

/// Waits until every pin can be read. False when somebody else gave up filling a piece.
///
/// # Errors
/// Of our own GETs only.
async fn wait(pins: &[Pin], mut fetching: Vec<Fetching>) -> Result<bool> {
    for pin in pins {
        if pin.block.wait(pin.wanted()).await == Waited::Abandoned {
            for answer in &mut fetching {
                if let Ok(Err(error)) = answer.try_recv() {
                    return Err(error);
                }
            }
            return Ok(false);
        }
    }
    Ok(true)
}

fn cut(content: &Content, range: &Range<u64>) -> Range<u64> {
    let end = range.end.min(content.length());
    range.start.min(end)..end
}

/// The blocks that hold a byte of `range`, with the bytes within each.
fn blocks_of(range: &Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> + use<> {
    let range = range.clone();
    (range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES)).filter_map(move |index| {
        let start = index * BLOCK_BYTES;
        let within = range.start.max(start) - start..range.end.min(start + BLOCK_BYTES) - start;
        (!within.is_empty()).then_some((index, within))
    })
}

fn capacity(content: &Content, index: u64) -> u64 {
    Pool::capacity(block_length(content, index)) as u64
}

fn failed(content: &Content, kind: ErrorKind, told: String) -> Error {
    let source = content.source();
    Error {
        kind,
        operation: "Get Blob",
        resource: source.name.as_str().to_owned(),
        host: source.store.identity().to_owned(),
        status: None,
        code: None,
        request_id: None,
        source: Some(told.into()),
    }
}
