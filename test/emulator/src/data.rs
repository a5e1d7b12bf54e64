//! The bytes of a blob as a list of shared segments: committing a block list, copying and reading share them, and
//! nothing is ever flattened. Zeros are a number, not bytes: a sparse blob of 10 GiB costs no memory. Must not know what
//! a blob, a block or a request is.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use bytes::Bytes;

/// Zeros that all holes share when they are read.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
/// Pieces of a body that are looked at for zeros: what is shorter is cheaper to keep.
const ZEROS_BYTES_MIN: usize = 4 << 10;

/// An immutable run of bytes. Cloning and slicing cost no copy of the bytes.
#[derive(Clone, Default)]
pub(crate) struct Data {
    segments: Arc<Vec<Segment>>,
}

#[derive(Clone)]
struct Segment {
    /// Offset of the first byte behind this segment.
    end: u64,
    part: Part,
}

#[derive(Clone)]
enum Part {
    Bytes(Bytes),
    /// So many zeros.
    Zeros(u64),
}

impl Part {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(length) => *length,
        }
    }

    fn sub(&self, range: Range<u64>) -> Self {
        match self {
            Self::Bytes(bytes) => Self::Bytes(bytes.slice(range.start as usize..range.end as usize)),
            Self::Zeros(_) => Self::Zeros(range.end - range.start),
        }
    }

    /// As slices to send or to hash.
    fn slices(self) -> impl Iterator<Item = Bytes> {
        let (bytes, mut zeros) = match self {
            Self::Bytes(bytes) => (Some(bytes), 0),
            Self::Zeros(length) => (None, length),
        };
        bytes.into_iter().chain(std::iter::from_fn(move || {
            let take = zeros.min(ZEROS.len() as u64);
            zeros -= take;
            (take > 0).then(|| Bytes::from_static(&ZEROS[..take as usize]))
        }))
    }
}

impl Data {
    /// Joins parts in order; empty ones are left out.
    pub(crate) fn from_parts(parts: impl IntoIterator<Item = Bytes>) -> Self {
        // A body of zeros arrives in pieces, each zeros.
        let zeros = |bytes: &Bytes| bytes.chunks(ZEROS.len()).all(|chunk| ZEROS.starts_with(chunk));
        let is_zero = |bytes: &Bytes| bytes.len() >= ZEROS_BYTES_MIN && zeros(bytes);
        Self::join(parts.into_iter().map(|bytes| match is_zero(&bytes) {
            true => Part::Zeros(bytes.len() as u64),
            false => Part::Bytes(bytes),
        }))
    }

    fn join(parts: impl IntoIterator<Item = Part>) -> Self {
        let mut data = Self::default();
        data.extend(parts);
        data
    }

    fn extend(&mut self, parts: impl IntoIterator<Item = Part>) {
        let mut end = self.len();
        let segments = Arc::make_mut(&mut self.segments);
        for part in parts.into_iter().filter(|part| part.len() > 0) {
            end += part.len();
            match (segments.last_mut(), part) {
                (Some(Segment { end: before, part: Part::Zeros(length) }), Part::Zeros(more)) => {
                    *length += more;
                    *before = end;
                }
                (_, part) => segments.push(Segment { end, part }),
            }
        }
    }

    /// Adds a run at the end. Costs what is added, unless a reader shares the run at this moment.
    pub(crate) fn append(&mut self, run: &Data) {
        self.extend(run.segments.iter().map(|segment| segment.part.clone()));
    }

    /// `length` zero bytes.
    pub(crate) fn zeros(length: u64) -> Self {
        Self::join([Part::Zeros(length)])
    }

    /// Several runs one behind the other.
    pub(crate) fn concat<'a>(runs: impl IntoIterator<Item = &'a Data>) -> Self {
        Self::join(runs.into_iter().flat_map(|run| run.segments.iter().map(|segment| segment.part.clone())))
    }

    /// Number of bytes.
    pub(crate) fn len(&self) -> u64 {
        self.segments.last().map_or(0, |segment| segment.end)
    }

    /// The bytes of `range` as shared slices. The part of the range behind the end is left out.
    pub(crate) fn slice(&self, range: Range<u64>) -> VecDeque<Bytes> {
        self.parts_of(range).into_iter().flat_map(Part::slices).collect()
    }

    fn parts_of(&self, range: Range<u64>) -> Vec<Part> {
        let mut parts = Vec::new();
        let first = self.segments.partition_point(|segment| segment.end <= range.start);
        for segment in &self.segments[first..] {
            let begin = segment.end - segment.part.len();
            if begin >= range.end {
                break;
            }
            let from = range.start.saturating_sub(begin);
            let to = range.end.min(segment.end) - begin;
            if from < to {
                parts.push(segment.part.sub(from..to));
            }
        }
        parts
    }

    /// `range` as a run of its own.
    pub(crate) fn sub(&self, range: Range<u64>) -> Self {
        Self::join(self.parts_of(range))
    }

    /// The same run with the bytes from `offset` on replaced by `new`, which must end inside.
    pub(crate) fn spliced(&self, offset: u64, new: &Data) -> Self {
        let behind = offset + new.len();
        Self::concat([&self.sub(0..offset), new, &self.sub(behind..self.len())])
    }

    /// A copy in one piece: for small bodies (XML) and for tests.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len() as usize);
        self.parts().for_each(|part| all.extend_from_slice(&part));
        all
    }

    /// The bytes, in order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Bytes> {
        self.segments.iter().flat_map(|segment| segment.part.clone().slices())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(parts: &[&'static str]) -> Data {
        Data::from_parts(parts.iter().map(|part| Bytes::from_static(part.as_bytes())))
    }

    #[test]
    fn every_slice_equals_that_of_the_flat_bytes() {
        let data = data(&["abc", "", "d", "efgh"]);
        let flat = b"abcdefgh";
        assert_eq!(data.len(), 8);
        for start in 0..=8u64 {
            for end in start..=9u64 {
                let end_inside = end.min(8) as usize;
                let expected = flat[(start as usize).min(end_inside)..end_inside].to_vec();
                assert_eq!(data.sub(start..end).to_vec(), expected, "{start}..{end}");
            }
        }
    }

    #[test]
    fn splicing_replaces_the_bytes_and_keeps_the_length() {
        let pages = Data::zeros(3 << 20);
        let changed = pages.spliced((1 << 20) - 2, &data(&["xyz", "w"]));
        assert_eq!(changed.len(), 3 << 20);
        assert_eq!(changed.sub((1 << 20) - 3..(1 << 20) + 3).to_vec(), b"\0xyzw\0");
    }

    #[test]
    fn zeros_cost_no_memory_however_they_came() {
        let body = Data::from_parts(std::iter::repeat_n(Bytes::from(vec![0; 64 << 10]), 100));
        assert_eq!((body.segments.len(), body.len()), (1, 100 * (64 << 10)));
        let blob = Data::concat([&body, &data(&["x"]), &Data::zeros(10 << 30)]);
        assert_eq!((blob.segments.len(), blob.len()), (3, 100 * (64 << 10) + 1 + (10 << 30)));
        assert_eq!(blob.sub(body.len() - 1..body.len() + 2).to_vec(), b"\0x\0");
    }
}
