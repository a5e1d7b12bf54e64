//! Where the reader of a directory is, so that another process can go on with him.
//!
//! Its pass over the names has them in another order (what is not committed comes where it was put in), and offsets of its
//! own. So it gives him every name that he was not given: each name is known by a digest, which is written down when it is
//! given. readdir(3) then returns each name once, however often the process is another one.

use std::{collections::HashSet, sync::Arc};

/// Names that a reader was given one after the other, or could have been: where reading goes on behind each, and its [`digest`].
/// Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given(pub Vec<(u64, u64)>);

/// Where a read begins.
#[derive(Debug, Default)]
pub struct Start {
    /// At the beginning of the pass, whatever the offset says: that is of another process's pass.
    pub anew: bool,
    /// Digests of the names to leave out.
    pub skip: Arc<HashSet<u64>>,
    /// What is written down of the reader has become wrong: rows from this on.
    pub stale_from: Option<usize>,
}

/// See the module's doc.
#[derive(Debug, Default)]
pub struct Reader {
    /// By other processes; the last is cut where he was.
    left: Vec<Given>,
    /// By this one: the first offset and the last.
    here: Option<(u64, u64)>,
    /// How many rows are written down.
    rows: usize,
    skip: Arc<HashSet<u64>>,
}

impl Given {
    /// Where reading goes on behind the last.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.0.last().map_or(0, |(offset, _)| *offset)
    }

    fn position(&self, offset: u64) -> Option<usize> {
        self.0.binary_search_by_key(&offset, |(offset, _)| *offset).ok()
    }
}

impl Reader {
    /// The reader that another process had given all this.
    #[must_use]
    pub fn taken_over(left: Vec<Given>) -> Self {
        Self { rows: left.len(), left, ..Self::default() }
    }

    /// How many rows are written down.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What other processes gave.
    #[must_use]
    pub fn left(&self) -> &[Given] {
        &self.left
    }

    /// He reads at `offset`.
    pub fn go_to(&mut self, offset: u64) -> Start {
        if self.here.is_some_and(|(first, last)| (first..=last).contains(&offset)) {
            return Start { skip: Arc::clone(&self.skip), ..Start::default() };
        }
        let mut parts = self.left.iter().enumerate().rev();
        let found = parts.find_map(|(at, given)| Some((at, given.position(offset)?)));
        let Some((at, position)) = found else {
            // At the beginning, or where nobody has sent him.
            let stale_from = (self.rows > 0).then_some(0);
            *self = Self::default();
            return Start { stale_from, ..Start::default() };
        };
        self.left.truncate(at + 1);
        self.left[at].0.truncate(position + 1);
        (self.here, self.rows) = (None, at + 1);
        self.skip = Arc::new(self.left.iter().flat_map(|given| given.0.iter().map(|(_, digest)| *digest)).collect());
        Start { anew: true, skip: Arc::clone(&self.skip), stale_from: Some(at) }
    }

    /// He is given names, with where reading goes on behind each. Returns what is to be written down of it, and as which row.
    pub fn give<'name>(&mut self, names: impl Iterator<Item = (u64, &'name str)>) -> Option<(usize, Given)> {
        let behind = self.here.map_or(0, |(_, last)| last);
        let new = names.filter(|(offset, _)| *offset > behind);
        let given = Given(new.map(|(offset, name)| (offset, digest(name))).collect());
        let (first, _) = *given.0.first()?;
        self.here = Some((self.here.map_or(first, |(first, _)| first), given.last()));
        self.rows += 1;
        Some((self.rows - 1, given))
    }
}

/// What a name is known by. Two names of one directory that share it would be a chance of one in 10^19.
#[must_use]
pub fn digest(name: &str) -> u64 {
    let mut digest = crc64fast_nvme::Digest::new();
    digest.write(name.as_bytes());
    digest.sum64()
}
