//! What a page says of each volume, and what happened between two pages. Knows neither where pages come from nor how figures
//! are shown.

use std::{collections::BTreeMap, time::Duration};

use crate::telemetry::metrics::{
    Family,
    scraped::Sample,
    table::{
        BACKEND_REQUESTS, BACKEND_THROTTLED, CACHE_HIT_BYTES, CACHE_MISS_BYTES, DIRTY_BYTES, FETCHED_BYTES, MOUNTS,
        OPERATION_DURATION, OPERATIONS, READ_BYTES, SENT_BYTES, VOLUMES, WRITTEN_BYTES,
    },
};

/// Requests of the kernel that no program waits for: their times say nothing to a user.
const UNWAITED: [&str; 3] = ["forget", "release", "releasedir"];

/// What names a volume, as its labels do. Sorted as the table shows them: claims first, by namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) namespace: String,
    pub(super) pvc: String,
    pub(super) volume: String,
    pub(super) pod: String,
}

impl Name {
    fn of(sample: &Sample) -> Option<Self> {
        let of = |label| sample.label(label).to_owned();
        let name = Self { namespace: of("namespace"), pvc: of("pvc"), volume: of("volume"), pod: of("pod") };
        (!name.volume.is_empty()).then_some(name)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $field:ident),* $(,)?) => {
        /// What only grows, from 0 when a volume is mounted.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub(super) struct Counters {
            $($(#[doc = $doc])* pub(super) $field: f64,)*
            /// Answers to programs by the upper end of their bucket, in seconds, as `f64::to_bits`: those up to there.
            pub(super) answered: BTreeMap<u64, f64>,
        }

        impl Counters {
            fn any_less_than(&self, before: &Self) -> bool {
                let fewer = |(end, count): (&u64, &f64)| self.answered.get(end).is_none_or(|now| now < count);
                $(self.$field < before.$field ||)* before.answered.iter().any(fewer)
            }

            fn minus(&self, before: &Self) -> Self {
                let before_of = |end: &u64| before.answered.get(end).copied().unwrap_or_default();
                Self {
                    $($field: self.$field - before.$field,)*
                    answered: self.answered.iter().map(|(end, count)| (*end, count - before_of(end))).collect(),
                }
            }
        }
    };
}

counters! {
    /// Reads that the kernel asked for.
    reads,
    /// Writes.
    writes,
    /// Bytes handed to programs.
    read_bytes,
    /// Bytes taken from programs.
    written_bytes,
    /// Of the bytes read, those that were in memory.
    hit_bytes,
    /// Of the bytes read, those that a reader waited for.
    miss_bytes,
    /// Requests to the service.
    requests,
    /// Requests that the service refused because it is asked too much.
    throttled,
    /// Bytes from the service.
    fetched_bytes,
    /// Bytes to the service.
    sent_bytes,
}

impl Counters {
    /// What happened since `before`, which is never negative: a counter that is smaller began at 0 meanwhile, and with it all
    /// counters of its volume.
    pub(super) fn since(&self, before: &Self) -> Self {
        if self.any_less_than(before) { self.clone() } else { self.minus(before) }
    }

    /// The part of the bytes read that was in memory; `None` where nothing was read.
    pub(super) fn hit_ratio(&self) -> Option<f64> {
        let all = self.hit_bytes + self.miss_bytes;
        (all > 0.0).then(|| self.hit_bytes / all)
    }

    /// How long the answer to a program took, at this quantile, in seconds; `None` without answers. As Prometheus' histogram_quantile:
    /// evenly spread within a bucket, and no more than the last finite end.
    pub(super) fn latency_seconds(&self, quantile: f64) -> Option<f64> {
        let all = *self.answered.last_key_value()?.1;
        if all <= 0.0 {
            return None;
        }
        let (mut start, mut below) = (0.0, 0.0);
        for (end, up_to) in self.answered.iter().map(|(end, up_to)| (f64::from_bits(*end), *up_to)) {
            if end.is_infinite() {
                break;
            }
            if up_to >= quantile * all && up_to > below {
                return Some(start + (end - start) * (quantile * all - below) / (up_to - below));
            }
            (start, below) = (end, up_to);
        }
        Some(start)
    }

    fn add(&mut self, sample: &Sample) {
        let operation = sample.label("operation");
        let sums: [(&Family, bool, &mut f64); 10] = [
            (&OPERATIONS, operation == "read", &mut self.reads),
            (&OPERATIONS, operation == "write", &mut self.writes),
            (&READ_BYTES, true, &mut self.read_bytes),
            (&WRITTEN_BYTES, true, &mut self.written_bytes),
            (&CACHE_HIT_BYTES, true, &mut self.hit_bytes),
            (&CACHE_MISS_BYTES, true, &mut self.miss_bytes),
            (&BACKEND_REQUESTS, true, &mut self.requests),
            (&BACKEND_THROTTLED, true, &mut self.throttled),
            (&FETCHED_BYTES, true, &mut self.fetched_bytes),
            (&SENT_BYTES, true, &mut self.sent_bytes),
        ];
        for (family, counts, sum) in sums {
            if counts && family.name == sample.name {
                *sum += sample.value;
            }
        }
        let is_bucket = sample.name.strip_suffix("_bucket") == Some(OPERATION_DURATION.name);
        if is_bucket
            && !UNWAITED.contains(&operation)
            && let Ok(end) = sample.label("le").parse::<f64>()
        {
            // Ends are positive, so their bits are in their order.
            *self.answered.entry(end.to_bits()).or_default() += sample.value;
        }
    }
}

/// A volume on a page.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Volume {
    pub(super) counters: Counters,
    /// Memory that holds what the service does not have.
    pub(super) dirty_bytes: f64,
}

/// A page, as far as it is about volumes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) volumes: BTreeMap<Name, Volume>,
}

impl Figures {
    /// What the samples say; `None` where they are of a process that mounts nothing.
    pub(super) fn of(samples: &[Sample]) -> Option<Self> {
        samples.iter().find(|sample| sample.name == VOLUMES.name)?;
        let mut volumes = BTreeMap::<Name, Volume>::new();
        // Each volume has it, whatever else it has.
        for name in samples.iter().filter(|sample| sample.name == MOUNTS.name).filter_map(Name::of) {
            volumes.entry(name).or_default();
        }
        for sample in samples {
            let Some(volume) = Name::of(sample).and_then(|name| volumes.get_mut(&name)) else { continue };
            volume.counters.add(sample);
            if sample.name == DIRTY_BYTES.name {
                volume.dirty_bytes += sample.value;
            }
        }
        Some(Self { volumes })
    }

    /// What happened since `before`, to each volume that is here now. What is new since then began at 0 meanwhile.
    pub(super) fn since(&self, before: &Self, elapsed: Duration) -> Vec<Row> {
        let nothing = Counters::default();
        let of = |(name, volume): (&Name, &Volume)| {
            let before = before.volumes.get(name).map_or(&nothing, |before| &before.counters);
            let happened = volume.counters.since(before);
            Row { name: name.clone(), elapsed, happened, dirty_bytes: volume.dirty_bytes }
        };
        self.volumes.iter().map(of).collect()
    }
}

/// What a volume did.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) name: Name,
    /// Within this time.
    pub(super) elapsed: Duration,
    pub(super) happened: Counters,
    /// As it is now.
    pub(super) dirty_bytes: f64,
}

impl Row {
    /// How much of something that `happened` that was in a second.
    pub(super) fn per_second(&self, count: f64) -> f64 {
        count / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::{DATA_PATH_BOUNDS, Histogram, Labels, Page, scraped, table};

    /// A page with these volumes, each with so much of everything.
    fn page(volumes: &[(&str, u64)]) -> String {
        let mut page = Page::default();
        page.count(&VOLUMES, &Labels::default(), volumes.len() as u64);
        for (name, much) in volumes {
            let volume = Labels::default().with("volume", *name).with("pvc", "data").with("namespace", "shop");
            page.count(&MOUNTS, &volume, 1);
            let counters = [
                &READ_BYTES,
                &WRITTEN_BYTES,
                &CACHE_HIT_BYTES,
                &CACHE_MISS_BYTES,
                &FETCHED_BYTES,
                &SENT_BYTES,
                &BACKEND_THROTTLED,
            ];
            for family in counters {
                page.count(family, &volume, 10 * much);
            }
            for status in ["200", "503"] {
                let labels = volume.with("operation", "Get Blob").with("status", status);
                page.count(&BACKEND_REQUESTS, &labels, *much);
            }
            for operation in ["read", "write", "lookup", "forget"] {
                let (labels, seen) = (volume.with("operation", operation), Histogram::new(DATA_PATH_BOUNDS));
                (0..*much).for_each(|_| seen.observe(Duration::from_millis(3)));
                page.count(&OPERATIONS, &labels, *much);
                page.distribution(&OPERATION_DURATION, &labels, &seen.snapshot());
            }
            page.count(&DIRTY_BYTES, &volume, 5 * much);
        }
        page.count(&table::MEMORY_LIMIT, &Labels::default(), 1 << 30);
        page.text()
    }

    fn figures(volumes: &[(&str, u64)]) -> Figures {
        Figures::of(&scraped::parse(&page(volumes)).unwrap()).unwrap()
    }

    #[test]
    fn rates_are_what_was_counted_between_two_pages_by_volume() {
        let (before, now) = (figures(&[("a", 3), ("b", 7)]), figures(&[("a", 9), ("b", 7)]));
        let rows = now.since(&before, Duration::from_secs(2));
        let [a, b] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((a.name.volume.as_str(), a.name.pvc.as_str(), a.name.namespace.as_str()), ("a", "data", "shop"));
        let happened = &a.happened;
        assert_eq!((a.per_second(happened.reads), a.per_second(happened.writes)), (3.0, 3.0));
        assert_eq!((a.per_second(happened.requests), a.per_second(happened.fetched_bytes)), (6.0, 30.0));
        assert_eq!((happened.hit_ratio(), a.dirty_bytes), (Some(0.5), 45.0));
        assert_eq!((b.happened.reads, b.happened.hit_ratio(), b.happened.latency_seconds(0.5)), (0.0, None, None));
        assert_eq!(b.dirty_bytes, 35.0);
    }

    #[test]
    fn latencies_are_of_what_programs_waited_for() {
        let rows = figures(&[("a", 100)]).since(&Figures::default(), Duration::from_secs(1));
        let happened = &rows[0].happened;
        // Read, write and lookup took 3 ms each, which is between 1 and 5; forget is no answer.
        assert_eq!(happened.answered.values().next_back(), Some(&300.0));
        assert!((happened.latency_seconds(0.5).unwrap() - 0.003).abs() < 1e-9);
        assert!(happened.latency_seconds(0.99).unwrap() > 0.0049);
        let slow = Histogram::new(DATA_PATH_BOUNDS);
        slow.observe(Duration::from_secs(1000));
        let mut page = Page::default();
        let labels = Labels::default().with("volume", "a");
        page.count(&VOLUMES, &Labels::default(), 1);
        page.count(&MOUNTS, &labels, 1);
        page.distribution(&OPERATION_DURATION, &labels.with("operation", "read"), &slow.snapshot());
        let figures = Figures::of(&scraped::parse(&page.text()).unwrap()).unwrap();
        let rows = figures.since(&Figures::default(), Duration::from_secs(1));
        assert_eq!(rows[0].happened.latency_seconds(0.5), Some(60.0), "no more than the last end that is known");
    }

    /// A plugin that was started anew, or a volume that was mounted anew.
    #[test]
    fn counters_that_begin_again_count_from_nought_and_are_never_negative() {
        let (before, now) = (figures(&[("a", 100), ("gone", 5)]), figures(&[("a", 8), ("new", 2)]));
        let rows = now.since(&before, Duration::from_secs(1));
        let reads: Vec<_> = rows.iter().map(|row| (row.name.volume.as_str(), row.happened.reads)).collect();
        assert_eq!(reads, [("a", 8.0), ("new", 2.0)]);
        assert_eq!((rows[0].happened.sent_bytes, rows[0].happened.requests), (80.0, 16.0));
        // Some counters may have overtaken what they were: they begin again with those that have not.
        let mut mixed = before.clone();
        let volume = mixed.volumes.values_mut().next().unwrap();
        (volume.counters.reads, volume.counters.answered) =
            (1.0, now.volumes.values().next().unwrap().counters.answered.clone());
        let rows = now.since(&mixed, Duration::from_secs(1));
        assert_eq!((rows[0].happened.reads, rows[0].happened.sent_bytes), (8.0, 80.0));
    }

    #[test]
    fn a_page_of_a_process_without_volumes_is_told_from_one_that_mounts_none() {
        assert!(Figures::of(&scraped::parse("azblob_csi_build_info{version=\"1\"} 1\n").unwrap()).is_none());
        assert_eq!(figures(&[]).volumes.len(), 0);
    }
}
