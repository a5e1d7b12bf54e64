//! Reads that are equally far apart: a column of a table, every n-th record, the frames of a film. Their next pieces are
//! fetched ahead one by one, so that no byte between them is.

use std::{collections::VecDeque, ops::Range};

use crate::sync::tokio::task::AbortHandle;

use crate::{
    cache::{
        Shared,
        block::{BLOCK_BYTES, Pieces},
        content::{Content, ContentId},
    },
    sync::Arc,
};

/// Equal steps after which the next reads are fetched: three reads lie at equal distances by chance in one of many
/// thousand cases, four hardly ever.
const STEPS_MIN: u64 = 3;

/// Reads that are fetched ahead at first, and at most. As many as connections help (see the window); each is a few pieces.
const AHEAD_READS: Range<u64> = 4..32;

/// The reads of one handle, looked at for equal steps.
#[derive(Default)]
pub(super) struct Stride {
    content: Option<ContentId>,
    last: Range<u64>,
    /// From the start of one read to that of the next, in bytes; negative downwards.
    step: i64,
    /// How often in a row it was the same.
    steps: u64,
    /// Reads to fetch ahead.
    ahead: u64,
    /// Of these, how many were issued behind the last read.
    issued: u64,
    /// GETs under way or done, oldest first.
    tasks: VecDeque<AbortHandle>,
}

impl Stride {
    /// Notes a read that continues no cursor.
    pub(super) fn note(&mut self, shared: &Arc<Shared>, content: &Arc<Content>, range: &Range<u64>, waited: bool) {
        let step = i64::try_from(range.start).unwrap_or(0) - i64::try_from(self.last.start).unwrap_or(0);
        let as_long = range.end - range.start == self.last.end - self.last.start;
        let same = self.content == Some(content.id()) && as_long && step != 0 && step == self.step;
        if !same {
            let (content, ahead) = (Some(content.id()), AHEAD_READS.start);
            self.forget();
            *self = Self { content, last: range.clone(), step, steps: 1, ahead, ..Self::default() };
            return;
        }
        self.steps += 1;
        self.last = range.clone();
        self.issued = self.issued.saturating_sub(1);
        if self.steps < STEPS_MIN || shared.read_ahead_bytes == 0 {
            return;
        }
        if waited && self.issued > 0 {
            self.ahead = (self.ahead * 2).min(AHEAD_READS.end);
        }
        self.issue(shared, content);
    }

    fn issue(&mut self, shared: &Arc<Shared>, content: &Arc<Content>) {
        while self.tasks.len() as u64 > 2 * AHEAD_READS.end || self.tasks.front().is_some_and(AbortHandle::is_finished)
        {
            self.tasks.pop_front();
        }
        let length = self.last.end - self.last.start;
        while self.issued < self.ahead {
            let steps = i64::try_from(self.issued + 1).unwrap_or(i64::MAX);
            let start = self.step.checked_mul(steps).and_then(|distance| self.last.start.checked_add_signed(distance));
            let Some(start) = start.filter(|start| *start < content.length()) else { return };
            let range = start..(start + length).min(content.length());
            let mut blocks = Vec::new();
            for index in range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES) {
                let Some(block) = shared.block_ahead(content, index) else { return };
                let first = index * BLOCK_BYTES;
                let within = range.start.max(first) - first..range.end.min(first + BLOCK_BYTES) - first;
                blocks.push((index, block, Pieces::touched_by(&within)));
            }
            self.tasks.extend(shared.fetch_ahead(content, &blocks));
            self.issued += 1;
        }
    }

    /// The reader went elsewhere: what is under way is cancelled.
    pub(super) fn forget(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
        *self = Self::default();
    }
}
