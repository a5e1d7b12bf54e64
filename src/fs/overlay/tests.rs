//! The layer against a byte array: whatever is written, cut, punched, sent and placed, every byte comes from where it
//! should.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::cache::{Budget, DirtyShare, Pool, Vault};

pub(super) const FILE_BYTES: u64 = 600 << 10;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Write(u64, u64),
    Truncate(u64),
    Zero(u64, u64),
    /// Blocks of this length that the service made by itself.
    Place(u64, u64, u64),
    /// Send this stretch, if all of it is dirty; give memory up or not.
    Stage(u64, u64, bool),
    Spill(u64),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let position = || 0..FILE_BYTES;
    prop_oneof![
        3 => (position(), 1u64..200 << 10).prop_map(|(at, length)| Step::Write(at, length)),
        1 => position().prop_map(Step::Truncate),
        2 => (position(), 0u64..200 << 10).prop_map(|(at, length)| Step::Zero(at, length)),
        2 => (position(), 1u64..200 << 10, 1u64..90 << 10).prop_map(|(at, length, block)| Step::Place(at, length, block)),
        2 => (position(), 1u64..200 << 10, any::<bool>()).prop_map(|(at, length, drop)| Step::Stage(at, length, drop)),
        1 => (0u64..300 << 10).prop_map(Step::Spill),
    ]
}

/// Where a byte should come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Written(u8),
    /// Made by the service.
    Placed,
    Below,
    Zero,
}

/// Where the layer's buffers come from.
pub(super) struct Memory {
    pub(super) pool: Pool,
    pub(super) share: DirtyShare,
    pub(super) vault: Option<Arc<Vault>>,
}

impl Memory {
    pub(super) fn new(vault: Option<Arc<Vault>>) -> Self {
        let pool = Pool::new(Budget::new(256 << 20));
        Self { share: pool.budget().dirty_share(1), pool, vault }
    }

    pub(super) fn buffer(&self, length: usize) -> Buffer {
        let buffer = self.pool.try_dirty_buffer(self.vault.as_ref(), &self.share, length);
        buffer.expect("the test's budget is large enough")
    }
}

pub(super) fn write(layer: &mut Overlay, memory: &Memory, at: u64, data: &[u8]) -> Result<(), WriteRefused> {
    let buffer = |(index, length): (u64, u64)| (index, memory.buffer(Pool::capacity(usize::try_from(length).unwrap())));
    let range = at..at + data.len() as u64;
    let mut buffers: BTreeMap<_, _> = layer.buffers_wanted(&range).into_iter().map(buffer).collect();
    layer.write(at, data, &mut buffers)
}

pub(super) fn runs(range: Range<u64>, block: u64, ids: &mut u32) -> Vec<StagedRun> {
    let starts = (range.start..range.end).step_by(usize::try_from(block).unwrap());
    let run = |start: u64| {
        *ids += 1;
        let id = BlockId(Bytes::from(format!("{ids:08}")));
        StagedRun { range: start..range.end.min(start + block), id }
    };
    starts.map(run).collect()
}

/// Applies a step to the layer and, where the layer took it, to the model.
pub(super) fn apply(layer: &mut Overlay, model: &mut Vec<Origin>, memory: &Memory, number: usize, step: &Step) {
    let mut fill = |range: &Range<u64>, origin: Origin| {
        let (start, end) = (range.start as usize, range.end as usize);
        model.resize(model.len().max(end), Origin::Zero);
        model[start..end].fill(origin);
    };
    let mut ids = number as u32 * 1000;
    match *step {
        Step::Write(at, length) => {
            let value = number as u8 + 1;
            let replaceable = layer.can_replace(&(at..at + length));
            let written = write(layer, memory, at, &vec![value; length as usize]);
            assert_eq!(written.is_ok(), replaceable, "{written:?}");
            if replaceable {
                fill(&(at..at + length), Origin::Written(value));
            }
        }
        Step::Truncate(size) => {
            if layer.truncate(size).is_ok() {
                model.resize(size as usize, Origin::Zero);
            }
        }
        Step::Zero(at, length) => {
            let cut = at..(at + length).min(layer.size());
            if layer.zero(&(at..at + length)).is_ok() && !cut.is_empty() {
                fill(&cut, Origin::Zero);
            }
        }
        Step::Place(at, length, block) => {
            if layer.place_staged(runs(at..at + length, block, &mut ids)).is_ok() {
                fill(&(at..at + length), Origin::Placed);
            }
        }
        Step::Stage(at, length, give_up) => {
            let range = at..at + length;
            if layer.is_stageable(&range) {
                let fingerprint = layer.fingerprint(&range);
                for run in runs(range, length, &mut ids) {
                    assert!(layer.record_staged(run, &fingerprint));
                }
                if give_up {
                    layer.drop_staged();
                }
            }
        }
        Step::Spill(bytes) => spill(layer, bytes),
    }
}

/// Moves up to `bytes_max` of the layer's memory to its spool.
pub(super) fn spill(layer: &mut Overlay, bytes_max: u64) {
    let spool = layer.spool(|| SpoolFile::create(&std::env::temp_dir())).unwrap();
    let spilling = layer.spillable(bytes_max, false);
    spilling.keep(&spool).unwrap();
    layer.spilled(spilling, &spool);
}

/// Every byte of the layer is where the model has it; what is away lies in staged runs.
pub(super) fn check(layer: &Overlay, model: &[Origin]) {
    assert_eq!(layer.size(), model.len() as u64);
    let mut position = 0;
    for segment in layer.segments(&(0..u64::MAX)) {
        let range = segment.range().clone();
        assert_eq!(range.start, position, "a gap before {segment:?}");
        position = range.end;
        let expected = &model[range.start as usize..range.end as usize];
        match segment {
            Segment::Dirty(_) => {
                let mut bytes = vec![0; expected.len()];
                layer.copy_to(&range, &mut bytes).unwrap();
                let same = bytes.iter().zip(expected).all(|(byte, origin)| *origin == Origin::Written(*byte));
                assert!(same, "{range:?} holds other bytes than were written");
            }
            Segment::Staged(_) => {
                let away = |origin: &Origin| matches!(origin, Origin::Placed | Origin::Written(_));
                assert!(expected.iter().all(away), "{range:?} is not away");
                assert!(layer.runs_meeting(&range).next().is_some(), "{range:?} is nowhere");
            }
            Segment::Below(_) => assert!(expected.iter().all(|origin| *origin == Origin::Below), "{range:?}"),
            Segment::Zero(_) => assert!(expected.iter().all(|origin| *origin == Origin::Zero), "{range:?}"),
        }
    }
    assert_eq!(position, layer.size());
    let last_below = model.iter().rposition(|origin| *origin == Origin::Below).map_or(0, |last| last as u64 + 1);
    assert_eq!(layer.below(), last_below);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_comes_from_where_it_was_put_last(
        base in 0..FILE_BYTES,
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let memory = Memory::new(None);
        let mut layer = Overlay::over(base);
        let mut model = vec![Origin::Below; base as usize];
        for (number, step) in steps.iter().enumerate() {
            apply(&mut layer, &mut model, &memory, number, step);
            check(&layer, &model);
        }
    }
}

#[test]
fn what_replaces_a_sent_stretch_as_a_whole_needs_no_commit() {
    let memory = Memory::new(None);
    let mut layer = Overlay::over(0);
    let mut ids = 0;
    layer.place_staged(runs(0..1 << 20, 256 << 10, &mut ids)).unwrap();
    write(&mut layer, &memory, 256 << 10, &vec![1; 256 << 10]).unwrap();
    assert!(matches!(write(&mut layer, &memory, 10, &[1]), Err(WriteRefused::NotResident)), "it would cut a block");
    assert_eq!(layer.truncate((512 << 10) + 1), Err(NotResident));
    layer.truncate(0).unwrap();
    assert_eq!(layer.staged().count(), 0);
}

#[test]
fn a_hole_gives_its_memory_back() {
    let memory = Memory::new(None);
    let mut layer = Overlay::over(0);
    write(&mut layer, &memory, 0, &vec![1; 1 << 20]).unwrap();
    layer.zero(&(10..u64::MAX)).unwrap();
    assert_eq!(layer.resident_bytes(), BUFFER_BYTES, "ten bytes are left");
    assert_eq!(layer.segments(&(0..u64::MAX)), [Segment::Dirty(0..10), Segment::Zero(10..1 << 20)]);
}

#[test]
fn what_is_written_while_the_old_bytes_go_to_the_spool_is_what_counts() {
    let memory = Memory::new(None);
    let mut layer = Overlay::over(0);
    write(&mut layer, &memory, 0, &vec![1; 2 * BUFFER_BYTES as usize]).unwrap();
    let spool = layer.spool(|| SpoolFile::create(&std::env::temp_dir())).unwrap();
    let spilling = layer.spillable(u64::MAX, false);
    write(&mut layer, &memory, 10, &[2]).unwrap();
    spilling.keep(&spool).unwrap();
    assert_eq!(layer.spilled(spilling, &spool), BUFFER_BYTES, "the buffer that was left alone");
    let mut found = vec![0; 2 * BUFFER_BYTES as usize];
    layer.copy_to(&(0..2 * BUFFER_BYTES), &mut found).unwrap();
    assert!(found.iter().enumerate().all(|(at, &byte)| byte == if at == 10 { 2 } else { 1 }));

    let spilling = layer.spillable(u64::MAX, false);
    spilling.keep(&spool).unwrap();
    let elsewhere = std::sync::Arc::new(SpoolFile::create(&std::env::temp_dir()).unwrap());
    assert_eq!(layer.spilled(spilling, &elsewhere), 0, "another layer's spool says nothing of this one's bytes");
}
