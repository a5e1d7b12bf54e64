//! Failed commits that somebody must still hear of: every handle that was open hears of each exactly once.
//!
//! The rules of Linux' `errseq_t` (Documentation/core-api/errseq.rst): a handle remembers how far it has heard. One that
//! is opened later hears of a failure only while nobody has; failures that follow one another unheard are one, the
//! last. Plain data: what a handle has heard is a number that a takeover writes out and reads back.

use super::Error;

/// The failures of one inode's commits.
#[derive(Debug, Default)]
pub struct ErrorLatch {
    /// Counts failures that were told apart.
    sequence: u64,
    /// Whether anybody has heard of the last one.
    heard: bool,
    last: Option<Error>,
}

impl ErrorLatch {
    /// What it consists of, to be written down: the count, whether the last was heard of, and the last.
    #[must_use]
    pub fn parts(&self) -> (u64, bool, Option<&Error>) {
        (self.sequence, self.heard, self.last.as_ref())
    }

    /// A latch of such parts.
    #[must_use]
    pub fn of_parts(sequence: u64, heard: bool, last: Option<Error>) -> Self {
        Self { sequence, heard, last }
    }

    /// Takes note of a failure. `heard`: a system call returns it, so only the handles that are open now are left to tell.
    pub fn record(&mut self, error: &Error, heard: bool) {
        if self.heard || self.last.is_none() {
            self.sequence += 1;
        }
        self.heard = heard;
        self.last = Some(error.repeat());
    }

    /// How far a handle that is opened now has heard.
    #[must_use]
    pub fn sample(&self) -> u64 {
        if self.heard { self.sequence } else { self.sequence.saturating_sub(1) }
    }

    /// How far a handle has heard that was told of everything.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The last failure again, for another call that it answers.
    pub fn repeat(&mut self, heard: bool) -> Option<Error> {
        self.heard |= heard;
        self.last.as_ref().map(Error::repeat)
    }

    /// The failure that a handle which has heard up to `cursor` must be told of, if there is one.
    pub fn tell(&mut self, cursor: u64) -> Option<Error> {
        let error = self.last.as_ref().filter(|_| cursor < self.sequence)?;
        self.heard = true;
        Some(error.repeat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> Error {
        Error::new(libc::EIO, text)
    }

    #[test]
    fn every_handle_that_was_open_hears_of_a_failure_once() {
        let mut latch = ErrorLatch::default();
        let (one, two) = (latch.sample(), latch.sample());
        assert!(latch.tell(one).is_none());
        latch.record(&failure("first"), false);
        assert_eq!(latch.tell(one).unwrap().message, "first");
        let one = latch.sequence();
        assert!(latch.tell(one).is_none());
        assert_eq!(latch.tell(two).unwrap().message, "first");
    }

    #[test]
    fn a_handle_opened_later_hears_of_a_failure_only_while_nobody_has() {
        let mut latch = ErrorLatch::default();
        latch.record(&failure("unheard"), false);
        let late = latch.sample();
        assert_eq!(latch.tell(late).unwrap().message, "unheard");
        let later = latch.sample();
        assert!(latch.tell(later).is_none());
        latch.record(&failure("returned by its own call"), true);
        assert!(latch.tell(latch.sample()).is_none());
        assert!(latch.tell(later).is_some(), "who was open is told all the same");
    }

    #[test]
    fn failures_that_nobody_heard_of_are_one() {
        let mut latch = ErrorLatch::default();
        let cursor = latch.sample();
        latch.record(&failure("first"), false);
        latch.record(&failure("second"), false);
        assert_eq!(latch.tell(cursor).unwrap().message, "second");
        assert!(latch.tell(latch.sequence()).is_none());
    }
}
