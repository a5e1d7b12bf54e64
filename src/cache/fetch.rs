//! One GET that fills claimed pieces as its body arrives.
//!
//! A [`Run`] is a contiguous range of a content whose pieces are claimed; [`Run::fetch`] fills it from front to back
//! and publishes piece by piece, so that readers wake long before the body ends. Dropping it at any point (a cancelled
//! prefetch, a panic) releases the claims, and whoever waited fetches by itself. Knows nothing of streams or windows.

use std::{collections::VecDeque, io, ops::Range};

use futures::StreamExt;

use crate::{
    blob::{Condition, Download, Error, ErrorKind, Result},
    sync::{Arc, AtomicU64, Ordering},
};

use super::{
    block::{BLOCK_BYTES, Block, Claim, PIECE_BYTES, Pieces},
    content::{Content, Source},
    disk::DiskTier,
};

/// How often one fetch follows a content that moves under it (each needs a rename or metadata change in between).
const MOVES_MAX: u32 = 8;

/// A contiguous range of one content that we have the right to fill.
#[derive(Default)]
pub(super) struct Run {
    /// Next byte to fill.
    at: u64,
    end: u64,
    /// End of what the GET under way brings: behind it lies what is on the node's disk.
    get_end: u64,
    /// Blocks of the run with their first bytes, for the disk tier.
    blocks: Vec<(u64, Arc<Block>)>,
    /// Claims with the first byte of their blocks, in order, without gaps.
    claims: VecDeque<(u64, Claim)>,
    /// Nobody waits for it yet.
    ahead: bool,
}

/// Claims what of `wanted` is neither valid nor being filled, block by block, joined into the longest possible runs.
pub(super) fn claim_runs<'a>(blocks: impl IntoIterator<Item = (u64, &'a Arc<Block>, Pieces)>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (index, block, wanted) in blocks {
        let start = index * BLOCK_BYTES;
        for claim in block.claim(wanted) {
            let range = claim.range();
            let (first, end) = (start + range.start, start + range.end);
            match runs.last_mut() {
                Some(run) if run.end == first => {
                    run.end = end;
                    run.claims.push_back((start, claim));
                    run.blocks.push((start, Arc::clone(block)));
                }
                _ => runs.push(Run {
                    at: first,
                    end,
                    get_end: first,
                    blocks: vec![(start, Arc::clone(block))],
                    claims: VecDeque::from([(start, claim)]),
                    ahead: false,
                }),
            }
        }
    }
    runs
}

impl Run {
    /// The same, for a fetch that lets those go first that somebody waits for.
    pub(super) fn ahead_of_its_reader(self) -> Self {
        Self { ahead: true, ..self }
    }

    /// Bytes still to be filled.
    pub(super) fn range(&self) -> Range<u64> {
        self.at..self.end
    }

    /// Fetches and publishes all of it, from the node's disk as far as it is there; `fetched` counts the bytes that arrive
    /// from the service. Follows the content when it moves.
    ///
    /// # Errors
    /// What the store says. `Precondition` (and `NotFound`) mean that the content is gone, unless the caller moves it
    /// and tries again. Pieces that were published before the error stay valid.
    pub(super) async fn fetch(
        &mut self,
        content: &Content,
        disk: Option<&DiskTier>,
        fetched: &AtomicU64,
    ) -> Result<()> {
        let Some(disk) = disk else {
            self.get_end = self.end;
            return self.fetch_missing(content, fetched).await;
        };
        while self.at < self.end {
            self.get_end = disk.fill(self, content).await;
            if self.at < self.get_end {
                let from = self.at;
                let outcome = self.fetch_missing(content, fetched).await;
                self.keep(disk, content, from);
                outcome?;
            }
        }
        Ok(())
    }

    /// Fills all of it from an answer to a request for just its range.
    ///
    /// # Errors
    /// What breaks the body off. Pieces that were published before that stay valid.
    pub(super) async fn receive(
        &mut self,
        download: Download,
        content: &Content,
        disk: Option<&DiskTier>,
        fetched: &AtomicU64,
    ) -> Result<()> {
        let from = self.at;
        self.get_end = self.end;
        let outcome = self.fill(download, &content.source(), fetched).await;
        if let Some(disk) = disk {
            self.keep(disk, content, from);
        }
        outcome
    }

    /// Hands what was filled since `from` to the disk tier, as far as pieces are whole.
    fn keep(&self, disk: &DiskTier, content: &Content, from: u64) {
        let Some(key) = content.key() else { return };
        for (start, block) in &self.blocks {
            let (first, end) = (from.max(*start) - start, self.at.min(start + block.length()).saturating_sub(*start));
            let end = if end == block.length() { end } else { end / PIECE_BYTES * PIECE_BYTES };
            if first < end && first.is_multiple_of(PIECE_BYTES) {
                disk.keep(key.clone(), content.length(), start / BLOCK_BYTES, block, first..end);
            }
        }
    }

    async fn fetch_missing(&mut self, content: &Content, fetched: &AtomicU64) -> Result<()> {
        let mut moves = 0;
        loop {
            let source = content.source();
            let error = match self.attempt(content, &source, fetched).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let gone = matches!(error.kind, ErrorKind::Precondition | ErrorKind::NotFound);
            let moved = {
                let now = content.source();
                now.etag != source.etag || now.name != source.name
            };
            if !gone || !moved || moves == MOVES_MAX {
                return Err(error);
            }
            moves += 1;
        }
    }

    async fn attempt(&mut self, content: &Content, source: &Source, fetched: &AtomicU64) -> Result<()> {
        let condition = Condition::Match(source.etag.clone());
        let wanted = self.at..self.get_end;
        let ahead = self.ahead.then(|| source.store.ahead()).flatten();
        let download = ahead.as_ref().unwrap_or(&source.store).get(&source.name, wanted.clone(), &condition).await?;
        if download.properties.length != content.length() || download.range != wanted {
            let told = format!(
                "version {:?} has {} bytes and answered {:?}; {} bytes were expected, asked for {:?}",
                source.etag,
                download.properties.length,
                download.range,
                content.length(),
                wanted
            );
            return Err(corrupt(source, told));
        }
        self.fill(download, source, fetched).await
    }

    async fn fill(&mut self, mut download: Download, source: &Source, fetched: &AtomicU64) -> Result<()> {
        while let Some(chunk) = download.body.next().await {
            let chunk = chunk?;
            fetched.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            let room = usize::try_from(self.get_end - self.at).unwrap_or(usize::MAX);
            if self.write(&chunk[..chunk.len().min(room)]) < chunk.len() {
                return Err(corrupt(source, "the body is longer than the range asked for".to_owned()));
            }
        }
        if self.at < self.get_end {
            return Err(corrupt(source, format!("the body ends {} bytes early", self.get_end - self.at)));
        }
        Ok(())
    }

    /// Writes bytes at the next place and returns how many had room.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            let Some((start, claim)) = self.claims.front_mut() else { break };
            let offset = self.at - *start;
            let room = usize::try_from(claim.range().end - offset).unwrap_or(usize::MAX);
            let part = room.min(bytes.len() - written);
            claim.write(offset, &bytes[written..written + part]);
            self.at += part as u64;
            written += part;
            if claim.is_complete() {
                self.claims.pop_front();
            }
        }
        written
    }
}

/// An answer that contradicts itself or what we know of the version.
fn corrupt(source: &Source, told: String) -> Error {
    Error {
        kind: ErrorKind::Corrupt,
        operation: "Get Blob",
        resource: source.name.as_str().to_owned(),
        host: source.store.identity().to_owned(),
        status: None,
        code: None,
        request_id: None,
        source: Some(Box::new(io::Error::new(io::ErrorKind::InvalidData, told))),
    }
}
