//! A set of byte positions, kept as the fewest disjoint ranges. Pure data.

use std::{collections::BTreeMap, ops::Range};

/// A set of byte positions. Neighbouring and overlapping ranges are one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Start to end (exclusive).
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// Adds all of `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // The one before may reach into it or touch it; every one that begins inside or at its end melts into it.
        if let Some((&before, &before_end)) = self.ranges.range(..start).next_back()
            && before_end >= start
        {
            (start, end) = (before, end.max(before_end));
        }
        while let Some((&next, &next_end)) = self.ranges.range(start..=end).next() {
            end = end.max(next_end);
            self.ranges.remove(&next);
        }
        self.ranges.insert(start, end);
    }

    /// Takes all of `range` out.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let cut: Vec<_> = self.overlapping(&range).collect();
        for part in cut {
            self.ranges.remove(&part.start);
            if part.start < range.start {
                self.ranges.insert(part.start, range.start);
            }
            if part.end > range.end {
                self.ranges.insert(range.end, part.end);
            }
        }
    }

    /// Where the last range ends; 0 for the empty set.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.ranges.last_key_value().map_or(0, |(_, &end)| end)
    }

    /// The positions of `range` that are in the set, in order.
    pub fn within(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<'_> {
        let (start, end) = (range.start, range.end);
        let cut = move |met: Range<u64>| met.start.max(start)..met.end.min(end);
        self.overlapping(range).map(cut).filter(|part| !part.is_empty())
    }

    /// Whether every position of `range` is in the set.
    #[must_use]
    pub fn covers(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.ranges.range(..=range.start).next_back().is_some_and(|(_, &end)| end >= range.end)
    }

    /// The ranges that meet `range`, whole, in order.
    pub fn overlapping(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<'_> {
        let first = self.ranges.range(..range.start).next_back().filter(|(_, end)| **end > range.start);
        let end = range.end.max(range.start);
        first.into_iter().chain(self.ranges.range(range.start..end)).map(|(&start, &end)| start..end)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_of_positions(steps in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 1..40)) {
            let mut set = RangeSet::default();
            let mut model = BTreeSet::new();
            for (add, start, length) in steps {
                let range = start..start + length;
                if add {
                    set.insert(range.clone());
                    model.extend(range);
                } else {
                    set.remove(range.clone());
                    model.retain(|position| !range.contains(position));
                }
                let ranges: Vec<_> = set.overlapping(&(0..u64::MAX)).collect();
                let positions: BTreeSet<u64> = ranges.iter().cloned().flatten().collect();
                prop_assert_eq!(&positions, &model);
                prop_assert_eq!(set.end(), model.last().map_or(0, |last| last + 1));
                prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "not the fewest: {:?}", ranges);
                for probe in 0..70u64 {
                    let probed = probe..probe + 5;
                    prop_assert_eq!(set.covers(&probed), probed.clone().all(|position| model.contains(&position)));
                    let met = set.overlapping(&probed).next().is_some();
                    prop_assert_eq!(met, probed.clone().any(|position| model.contains(&position)));
                    let within: BTreeSet<u64> = set.within(&probed).flatten().collect();
                    prop_assert_eq!(within, probed.filter(|position| model.contains(position)).collect::<BTreeSet<u64>>());
                }
            }
        }
    }
}
