//! The planner against a byte array: whatever was written and cut, the planned version is what a program would read.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::{cut::segments, *};
use crate::{
    cache::{Budget, Class, Pool},
    fs::{
        overlay::{Segment, StagedRun},
        spool::SpoolFile,
    },
};

/// Small enough that every path of the planner is met with files of a few MiB.
const LIMITS: Limits = Limits {
    put_blob_bytes: 300 << 10,
    request_bytes: 20 << 10,
    block_bytes: 256 << 10,
    merge_bytes: 20 << 10,
    copy_bytes_min: 4 << 10,
    copy_bytes: 200 << 10,
    zero_bytes: 64 << 10,
    levels: [Level { bytes: 10 << 10, list: 4 }, Level { bytes: 40 << 10, list: 8 }],
    list_blocks: 120,
};

#[derive(Clone, Debug)]
enum Step {
    Write(u64, usize, u8),
    Truncate(u64),
    /// Move this much memory to the spool.
    Spill(u64),
    /// Send this stretch ahead, if all of it is dirty, and give its memory up or not.
    Stage(u64, u64, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let position = 0u64..3 << 20;
    prop_oneof![
        4 => (position.clone(), 1usize..600 << 10, 1u8..255).prop_map(|(at, length, fill)| Step::Write(at, length, fill)),
        1 => position.clone().prop_map(Step::Truncate),
        1 => position.clone().prop_map(Step::Spill),
        2 => (position, 1u64..2 << 20, any::<bool>()).prop_map(|(at, length, give_up)| Step::Stage(at, length, give_up)),
    ]
}

/// A base of blocks of any length, as other clients make them; or one Put Blob (no list).
fn base() -> impl Strategy<Value = (Vec<u64>, bool)> {
    let large = prop::collection::vec(1u64..500 << 10, 0..8);
    let small = prop::collection::vec(1u64..30 << 10, 110..121);
    (prop_oneof![3 => large, 1 => small], any::<bool>())
}

fn write(layer: &mut Overlay, pool: &Pool, at: u64, data: &[u8]) -> bool {
    let range = at..at + data.len() as u64;
    let buffer = |(index, length): (u64, u64)| {
        let length = Pool::capacity(usize::try_from(length).unwrap());
        (index, pool.try_buffer(Class::Dirty, length).expect("the test's budget is large enough"))
    };
    let mut buffers: BTreeMap<_, _> = layer.buffers_wanted(&range).into_iter().map(buffer).collect();
    layer.write(at, data, &mut buffers).is_ok()
}

fn bytes_of(layer: &Overlay, base: &[u8], range: &Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for segment in segments(layer, base.len() as u64) {
        let part = segment.range().start.max(range.start)..segment.range().end.min(range.end);
        if part.start >= part.end {
            continue;
        }
        let length = (part.end - part.start) as usize;
        match segment {
            Segment::Dirty(_) => {
                let mut copied = vec![0; length];
                layer.copy_to(&part, &mut copied).unwrap();
                if let Some(shared) = layer.share(&part) {
                    assert_eq!(shared.pieces().concat(), copied, "shared and copied bytes differ");
                }
                bytes.extend(copied);
            }
            Segment::Below(_) => bytes.extend(&base[part.start as usize..part.end as usize]),
            Segment::Zero(_) => bytes.resize(bytes.len() + length, 0),
            Segment::Staged(_) => panic!("bytes that only the service has must not be asked for: {part:?}"),
        }
    }
    bytes
}

/// Puts the version together from the parts, as the service would.
fn commit(layer: &Overlay, base: &[u8], blocks: &[CommittedBlock], staged: &BTreeMap<BlockId, Vec<u8>>) -> Vec<u8> {
    let parts = match plan(layer, blocks, base.len() as u64, &LIMITS) {
        Plan::PutBlob => return bytes_of(layer, base, &(0..layer.size())),
        Plan::Blocks(parts) => parts,
    };
    assert!(parts.len() <= LIMITS.list_blocks, "{} blocks", parts.len());
    let mut version = Vec::new();
    for part in parts {
        assert_eq!(version.len() as u64, part.range().start, "parts leave a gap or overlap at {part:?}");
        match part {
            Part::Keep(id, range) => {
                let start = blocks.iter().take_while(|block| block.id != id).map(|block| block.length).sum::<u64>();
                assert_eq!(start, range.start, "a kept block must stay where it was");
                version.extend(&base[range.start as usize..range.end as usize]);
            }
            Part::Staged(id, _) => version.extend(&staged[&id]),
            Part::Zero(range, bytes) => {
                assert_eq!(length(&range), bytes, "every block of zeros is a whole one");
                version.resize(range.end as usize, 0);
            }
            Part::Send(range) => {
                assert!(length(&range) <= LIMITS.block_bytes);
                version.extend(bytes_of(layer, base, &range));
            }
            Part::Copy(range) => {
                assert!(length(&range) <= LIMITS.copy_bytes);
                version.extend(&base[range.start as usize..range.end as usize]);
            }
        }
    }
    version
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_planned_version_is_what_a_program_would_read(
        (lengths, listed) in base(),
        steps in prop::collection::vec(step(), 1..14),
    ) {
        let pool = Pool::new(Budget::new(256 << 20));
        let total: u64 = lengths.iter().sum();
        let old: Vec<u8> = (0..total).map(|position| (position % 251) as u8).collect();
        let block = |(index, length): (usize, &u64)| CommittedBlock {
            id: BlockId(Bytes::from(format!("block{index:06}"))),
            length: *length,
        };
        let blocks: Vec<_> = lengths.iter().enumerate().map(block).filter(|_| listed).collect();
        let mut model = old.clone();
        let mut layer = Overlay::over(total);
        let mut staged = BTreeMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write(at, length, fill) => {
                    let data = vec![fill; length];
                    if write(&mut layer, &pool, at, &data) {
                        let end = at as usize + length;
                        model.resize(model.len().max(end), 0);
                        model[at as usize..end].copy_from_slice(&data);
                    }
                }
                Step::Spill(bytes) => {
                    let spool = layer.spool(|| SpoolFile::create(&std::env::temp_dir())).unwrap();
                    let spilling = layer.spillable(bytes, false);
                    spilling.keep(&spool).unwrap();
                    layer.spilled(spilling, &spool);
                }
                Step::Truncate(size) => {
                    if layer.truncate(size).is_ok() {
                        model.resize(size as usize, 0);
                    }
                }
                Step::Stage(at, length, give_up) => {
                    let range = at..(at + length).min(layer.size());
                    if range.start < range.end && layer.is_stageable(&range) {
                        let id = BlockId(Bytes::from(format!("sent{number:04}")));
                        staged.insert(id.clone(), bytes_of(&layer, &old, &range));
                        let fingerprint = layer.fingerprint(&range);
                        let run = StagedRun { range, id };
                        prop_assert!(layer.record_staged(run, &fingerprint));
                        if give_up {
                            layer.drop_staged();
                        }
                    }
                }
            }
            prop_assert_eq!(layer.size(), model.len() as u64);
        }
        prop_assert!(commit(&layer, &old, &blocks, &staged) == model, "the version differs from what was written");
    }
}

fn listed(lengths: &[u64]) -> Vec<CommittedBlock> {
    let block = |(index, length): (usize, &u64)| CommittedBlock {
        id: BlockId(Bytes::from(format!("block{index:06}"))),
        length: *length,
    };
    lengths.iter().enumerate().map(block).collect()
}

#[test]
fn untouched_blocks_are_named_again_and_cost_nothing() {
    let pool = Pool::new(Budget::new(64 << 20));
    let blocks = listed(&[100 * MIB; 100]);
    let mut layer = Overlay::over(10_000 * MIB);
    assert!(write(&mut layer, &pool, 5_050 * MIB, &[7; 4096]));
    let Plan::Blocks(parts) = plan(&layer, &blocks, 10_000 * MIB, &Limits::default()) else {
        panic!("not by one Put Blob")
    };
    let kept = parts.iter().filter(|part| matches!(part, Part::Keep(..))).count();
    let sent: u64 = parts.iter().filter(|part| matches!(part, Part::Send(_))).map(|part| length(part.range())).sum();
    assert_eq!(kept, 99);
    assert_eq!(sent, 4096, "changing 4 KiB sends 4 KiB: {parts:?}");
}

#[test]
fn a_small_tail_block_is_sent_again_with_what_is_appended() {
    let pool = Pool::new(Budget::new(64 << 20));
    let blocks = listed(&[8 << 20, 100]);
    let base = (8 << 20) + 100;
    let mut layer = Overlay::over(base);
    assert!(write(&mut layer, &pool, base, &[1; 200]));
    let expected = vec![Part::Keep(blocks[0].id.clone(), 0..8 << 20), Part::Send(8 << 20..base + 200)];
    assert_eq!(plan(&layer, &blocks, base, &Limits::default()), Plan::Blocks(expected));
}

#[test]
fn a_small_new_file_is_one_put_blob() {
    let pool = Pool::new(Budget::new(64 << 20));
    let mut layer = Overlay::over(0);
    assert!(write(&mut layer, &pool, 0, &[1; 5000]));
    assert_eq!(plan(&layer, &[], 0, &Limits::default()), Plan::PutBlob);
    assert_eq!(plan(&Overlay::over(0), &[], 0, &Limits::default()), Plan::PutBlob, "an empty file is a blob as well");
}

#[test]
fn a_stretch_that_was_written_again_while_it_was_sent_is_not_taken_for_sent() {
    let pool = Pool::new(Budget::new(64 << 20));
    let mut layer = Overlay::over(0);
    assert!(write(&mut layer, &pool, 0, &vec![1; 1 << 20]));
    let range = 0..1 << 20;
    let body = layer.share(&range).unwrap();
    let fingerprint = layer.fingerprint(&range);
    assert!(write(&mut layer, &pool, 10, &[2; 10]));
    assert_eq!(body.pieces().concat(), vec![1; 1 << 20], "what is being sent does not change under the request");
    let run = StagedRun { range, id: BlockId(Bytes::from_static(b"sent")) };
    assert!(!layer.record_staged(run, &fingerprint));
}

/// A blob as the service would hold it after the parts of a plan are committed.
fn committed(parts: &[Part], number: usize) -> Vec<CommittedBlock> {
    let block = |(index, part): (usize, &Part)| CommittedBlock {
        id: match part {
            Part::Keep(id, _) | Part::Staged(id, _) => id.clone(),
            _ => BlockId(Bytes::from(format!("{number:08}{index:08}"))),
        },
        length: length(part.range()),
    };
    parts.iter().enumerate().map(block).collect()
}

/// What appending costs: bytes sent with lists, requests to copy, and the longest list.
#[derive(Debug, Default)]
struct Cost {
    sent: u64,
    copied: u64,
    copies: u64,
    list: usize,
    size: u64,
}

/// An element of a list: `<Committed>` around 24 bytes in base64.
const LISTED_BYTES: u64 = 55;

fn append(lengths: impl Iterator<Item = usize>, limits: &Limits) -> Cost {
    let pool = Pool::new(Budget::new(64 << 20));
    let (mut blocks, mut cost) = (Vec::new(), Cost::default());
    for (number, bytes) in lengths.enumerate() {
        let mut layer = Overlay::over(cost.size);
        assert!(write(&mut layer, &pool, cost.size, &vec![1; bytes]));
        match plan(&layer, &blocks, cost.size, limits) {
            Plan::PutBlob => {
                cost.sent += layer.size();
                blocks = Vec::new();
            }
            Plan::Blocks(parts) => {
                for part in &parts {
                    match part {
                        Part::Send(range) => cost.sent += length(range),
                        Part::Copy(range) => {
                            cost.copied += length(range);
                            cost.copies += 1;
                        }
                        _ => {}
                    }
                }
                blocks = committed(&parts, number);
                cost.sent += LISTED_BYTES * blocks.len() as u64;
                cost.list = cost.list.max(blocks.len());
            }
        }
        cost.size = layer.size();
        let listed: u64 = blocks.iter().map(|block| block.length).sum();
        assert!(blocks.is_empty() || listed == cost.size, "the list has {listed} of {} bytes", cost.size);
    }
    cost
}

#[test]
fn sixty_thousand_appends_of_200_bytes_send_a_few_kib_each_in_short_lists() {
    let cost = append(std::iter::repeat_n(200, 60_000), &Limits::default());
    assert!(cost.sent / 60_000 < 8 << 10, "{cost:?}");
    assert!(cost.list <= 64, "{cost:?}");
    assert!(cost.copies < 600 && cost.copied < 8 * cost.size, "{cost:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn appends_of_any_size_are_sent_a_few_times_each_and_lists_stay_short(
        largest in 1usize..300 << 10,
        lengths in prop::collection::vec(1usize..1 << 30, 2000..4000),
    ) {
        let cost = append(lengths.iter().map(|length| 1 + length % largest), &Limits::default());
        // Each byte a dozen times (the doublings from 200 bytes to 256 KiB), a short list, a small file as a whole.
        let bound = cost.size * 12 + lengths.len() as u64 * ((128 << 10) + LISTED_BYTES * cost.list as u64);
        prop_assert!(cost.sent <= bound, "{:?}", cost);
        prop_assert!(cost.sent <= cost.size * 12 + lengths.len() as u64 * (16 << 10), "{:?}", cost);
        prop_assert!(cost.list as u64 <= 64 + cost.size / (2 << 20), "{:?}", cost);
    }

    #[test]
    fn a_full_list_takes_any_change_and_never_grows_beyond_its_limit(
        blocks in 46_000usize..=50_000,
        block_bytes in 1u64..300 << 10,
        changes in prop::collection::vec((0u64..1 << 40, 1usize..100_000), 1..12),
    ) {
        let pool = Pool::new(Budget::new(64 << 20));
        let mut list = listed(&vec![block_bytes; blocks]);
        let size = block_bytes * blocks as u64;
        for (number, (at, bytes)) in changes.into_iter().enumerate() {
            let mut layer = Overlay::over(size);
            let at = at % size;
            prop_assert!(write(&mut layer, &pool, at, &vec![1; bytes.min((size - at) as usize)]));
            let Plan::Blocks(parts) = plan(&layer, &list, size, &Limits::default()) else {
                prop_assert!(size <= 8 << 20);
                return Ok(());
            };
            prop_assert!(parts.len() <= 50_000, "{} blocks", parts.len());
            let mut position = 0;
            for part in &parts {
                prop_assert_eq!(part.range().start, position);
                position = part.range().end;
            }
            prop_assert_eq!(position, size);
            list = committed(&parts, number);
        }
    }
}

#[test]
fn a_full_list_of_large_blocks_is_cut_anew_where_no_two_fit_one_copy() {
    let limits = Limits { list_blocks: 100, ..LIMITS };
    let pool = Pool::new(Budget::new(64 << 20));
    let blocks = listed(&[150 << 10; 100]);
    let size = 100 * (150 << 10);
    let mut layer = Overlay::over(size);
    assert!(write(&mut layer, &pool, size / 2 + 40_000, &[1; 5000]));
    let Plan::Blocks(parts) = plan(&layer, &blocks, size, &limits) else { panic!("not by one Put Blob") };
    assert!(parts.len() <= 100, "{}", parts.len());
    assert!(parts.iter().all(|part| length(part.range()) <= limits.copy_bytes), "{parts:?}");
}

#[test]
fn a_hundred_gib_of_zeros_are_two_blocks_named_again_and_again() {
    let mut layer = Overlay::over(10);
    layer.truncate(100 << 30).unwrap();
    let Plan::Blocks(parts) = plan(&layer, &listed(&[10]), 10, &Limits::default()) else {
        panic!("not by one Put Blob")
    };
    let sizes: std::collections::BTreeSet<u64> =
        parts.iter().filter_map(|part| if let Part::Zero(_, bytes) = part { Some(*bytes) } else { None }).collect();
    let sent: u64 = parts.iter().filter(|part| matches!(part, Part::Send(_))).map(|part| length(part.range())).sum();
    assert!(sizes.len() <= 2 && sizes.iter().sum::<u64>() + sent < 80 * MIB, "{sizes:?} and {sent} bytes");
    assert!(parts.len() < 2500, "{} blocks", parts.len());
    assert_eq!(parts.last().map(|part| part.range().end), Some(100 << 30));
}
