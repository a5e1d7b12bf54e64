//! The bytes of a blob as a list of shared segments: committing a block list, copying and reading share them, and
//! nothing is ever flattened. Must not know what a blob, a block or a request is.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use bytes::Bytes;

/// Zeros that holes of page blobs share.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// An immutable run of bytes. Cloning and slicing cost no copy of the bytes.
#[derive(Clone, Default)]
pub(crate) struct Data {
    segments: Arc<[Segment]>,
}

#[derive(Clone)]
struct Segment {
    /// Offset of the first byte behind this segment.
    end: u64,
    bytes: Bytes,
}

impl Data {
    /// Joins parts in order; empty ones are left out.
    pub(crate) fn from_parts(parts: impl IntoIterator<Item = Bytes>) -> Self {
        let mut end = 0;
        let segments = parts.into_iter().filter(|part| !part.is_empty()).map(|bytes| {
            end += bytes.len() as u64;
            Segment { end, bytes }
        });
        Self { segments: segments.collect() }
    }

    /// `length` zero bytes.
    pub(crate) fn zeros(length: u64) -> Self {
        let mut parts = Vec::new();
        let mut left = length;
        while left > 0 {
            let take = left.min(ZEROS.len() as u64);
            parts.push(Bytes::from_static(&ZEROS[..take as usize]));
            left -= take;
        }
        Self::from_parts(parts)
    }

    /// Several runs one behind the other.
    pub(crate) fn concat<'a>(runs: impl IntoIterator<Item = &'a Data>) -> Self {
        Self::from_parts(runs.into_iter().flat_map(|run| run.segments.iter().map(|segment| segment.bytes.clone())))
    }

    /// Number of bytes.
    pub(crate) fn len(&self) -> u64 {
        self.segments.last().map_or(0, |segment| segment.end)
    }

    /// The bytes of `range` as shared slices. The part of the range behind the end is left out.
    pub(crate) fn slice(&self, range: Range<u64>) -> VecDeque<Bytes> {
        let mut parts = VecDeque::new();
        let first = self.segments.partition_point(|segment| segment.end <= range.start);
        for segment in &self.segments[first..] {
            let begin = segment.end - segment.bytes.len() as u64;
            if begin >= range.end {
                break;
            }
            let from = range.start.saturating_sub(begin) as usize;
            let to = (range.end.min(segment.end) - begin) as usize;
            if from < to {
                parts.push_back(segment.bytes.slice(from..to));
            }
        }
        parts
    }

    /// `range` as a run of its own.
    pub(crate) fn sub(&self, range: Range<u64>) -> Self {
        Self::from_parts(self.slice(range))
    }

    /// The same run with the bytes from `offset` on replaced by `new`, which must end inside.
    pub(crate) fn spliced(&self, offset: u64, new: &Data) -> Self {
        let behind = offset + new.len();
        Self::concat([&self.sub(0..offset), new, &self.sub(behind..self.len())])
    }

    /// A copy in one piece: for small bodies (XML) and for tests.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len() as usize);
        for segment in self.segments.iter() {
            all.extend_from_slice(&segment.bytes);
        }
        all
    }

    /// The segments, in order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Bytes> {
        self.segments.iter().map(|segment| &segment.bytes)
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
}
