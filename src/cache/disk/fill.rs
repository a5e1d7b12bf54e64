//! From the disk into memory: fills what of a run is on disk, and says what must come from the service.
//!
//! Whatever goes wrong here, the answer is "from the service".

use std::{io, ops::Range};

use crate::sync::{Arc, Ordering, tokio::task::spawn_blocking};

use super::{
    super::{block::PIECE_BYTES, content::Content, fetch::Run, registry::Key},
    DiskTier, Inner,
    directory::Directory,
    file::{FileId, VersionFile},
    writer::Job,
};

/// Pieces read with one call, into a buffer that is not the budget's: [`super::READS_MAX`] of them are 2 MiB.
const READ_PIECES: u64 = 4;

impl DiskTier {
    /// Fills the front of `run` as far as its pieces are on disk. Returns the end of what is then missing at its front: all
    /// up to there must come from the service. When cancelled, `run` is released.
    pub(in super::super) async fn fill(&self, run: &mut Run, content: &Content) -> u64 {
        let all = run.range().end;
        let Some((key, directory)) = content.key().zip(self.inner.directory()) else { return all };
        let id = FileId::of(&key);
        // A run that begins inside a piece goes on with a body that was cut.
        if !directory.may_have(id) || !run.range().start.is_multiple_of(PIECE_BYTES) {
            return all;
        }
        let Ok(permit) = Arc::clone(&self.inner.reads).acquire_owned().await else { return all };
        let (mut taken, inner, length) = (std::mem::take(run), Arc::clone(&self.inner), content.length());
        let filled = spawn_blocking(move || {
            let _permit = permit;
            let reader = Reader { inner: &inner, directory: &directory, id };
            let end = reader.fill(&key, length, &mut taken);
            (taken, end)
        });
        match filled.await {
            Ok((taken, end)) => {
                *run = taken;
                end
            }
            // The runtime ends, or a defect: the run is empty now, so whoever waits for its pieces fetches them.
            Err(_) => 0,
        }
    }
}

/// One reading of one version.
struct Reader<'a> {
    inner: &'a Inner,
    directory: &'a Directory,
    id: FileId,
}

impl Reader<'_> {
    fn fill(&self, key: &Key, length: u64, run: &mut Run) -> u64 {
        let all = run.range().end;
        match self.directory.version(self.id, key, length) {
            Ok(Some(file)) => self.fill_from(&file, run).unwrap_or_else(|error| self.give_up(&error, all)),
            // Not there: the scan is not that far, or somebody took it away.
            Ok(None) => {
                if self.directory.is_scanned() {
                    let _ = self.inner.jobs.send(Job::Forget(self.id));
                }
                all
            }
            Err(error) => self.give_up(&error, all),
        }
    }

    fn fill_from(&self, file: &VersionFile, run: &mut Run) -> io::Result<u64> {
        let range = run.range();
        let first = range.start / PIECE_BYTES;
        let words = file.words(&(first..range.end.div_ceil(PIECE_BYTES)))?;
        let mut buffer = vec![0; (READ_PIECES * PIECE_BYTES) as usize];
        let mut at = 0;
        while at < words.len() && words[at] != 0 {
            let there = words[at..].iter().take(READ_PIECES as usize).take_while(|word| **word != 0).count();
            let place = first + at as u64;
            let bytes = (range.end - place * PIECE_BYTES).min(there as u64 * PIECE_BYTES) as usize;
            let right = file.read(place, &words[at..at + there], &mut buffer[..bytes])?;
            // Counted first: whoever waits for these bytes goes on as soon as they are there.
            self.inner.counters.read_bytes.fetch_add(right as u64, Ordering::Relaxed);
            run.write(&buffer[..right]);
            if right < bytes {
                let wrong = place + right as u64 / PIECE_BYTES;
                self.tell_corrupt(wrong);
                file.forget(&(wrong..wrong + 1))?;
                return Ok(missing_end(&range, first, &words, (wrong - first) as usize));
            }
            at += there;
        }
        self.directory.touch(self.id, file);
        Ok(if at == words.len() { range.end } else { missing_end(&range, first, &words, at) })
    }

    fn tell_corrupt(&self, piece: u64) {
        self.inner.counters.corrupt_pieces.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.data_path(self.id);
        if self.inner.told_corrupt.swap(true, Ordering::Relaxed) {
            tracing::debug!(path = %path.display(), piece, "a piece on disk is damaged");
        } else {
            tracing::warn!(
                path = %path.display(),
                piece,
                "a piece in the cache directory is damaged (a crash, or the disk): it is fetched again; further ones are \
                 counted, not logged"
            );
        }
    }

    /// A version that cannot be read is taken away.
    fn give_up(&self, error: &io::Error, all: u64) -> u64 {
        self.inner.counters.errors.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, "a version in the cache directory cannot be read");
        let _ = self.inner.jobs.send(Job::Forget(self.id));
        all
    }
}

/// End of the stretch of pieces that are not on disk and begins at `words[at]`, which is taken as one of them.
fn missing_end(range: &Range<u64>, first: u64, words: &[u64], at: usize) -> u64 {
    let more = words[at + 1..].iter().take_while(|word| **word == 0).count();
    ((first + (at + 1 + more) as u64) * PIECE_BYTES).min(range.end)
}
