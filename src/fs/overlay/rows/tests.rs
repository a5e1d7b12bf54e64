//! What is written down of a layer is the layer, whenever its process ends; what is not believable is not believed.

use std::{collections::BTreeMap, os::fd::AsFd as _};

use proptest::prelude::*;

use super::{
    super::{
        NotResident, Segment, WriteRefused,
        tests::{FILE_BYTES, Memory, Origin, Step, apply, check, runs, spill, step, write},
    },
    *,
};
use crate::{blob::Body, cache::Budget};

const ID: LayerId = LayerId(77);

/// What a ledger has of the layer.
#[derive(Clone, Default)]
struct Written {
    head: Vec<u8>,
    rows: BTreeMap<u64, Vec<u8>>,
}

impl Written {
    /// Writes `rows` down; what they have released is the caller's to drop.
    fn put(&mut self, rows: &mut Rows) {
        if let Some(head) = rows.head.take() {
            self.head = head;
        }
        self.rows.extend(rows.put.drain(..));
        rows.removed.drain(..).for_each(|key| drop(self.rows.remove(&key)));
    }

    /// The layer as the next process has it.
    fn restore(&self, vault: &Vault, spool: Option<&Arc<SpoolFile>>) -> Result<Overlay, Unreadable> {
        let vault = Vault::open(vault.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let spool = spool.map(|spool| Arc::new(SpoolFile::from_fd(spool.as_fd().try_clone_to_owned().unwrap())));
        let budget = Budget::new(16 << 20);
        let share = budget.dirty_share(1);
        let rows = self.rows.iter().map(|(key, row)| (*key, row.as_slice()));
        Overlay::restore(&self.head, rows, &vault, spool, |bytes| budget.admit_dirty(&share, bytes))
    }
}

/// The bytes of all dirty segments.
fn dirty_bytes(layer: &Overlay) -> Vec<(Range<u64>, Vec<u8>)> {
    let dirty = |segment: Segment| match segment {
        Segment::Dirty(range) => {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            layer.copy_to(&range, &mut bytes).unwrap();
            Some((range, bytes))
        }
        _ => None,
    };
    layer.segments(&(0..u64::MAX)).into_iter().filter_map(dirty).collect()
}

/// Both are the same layer, but for runs that will be sent again.
fn assert_same(found: &Overlay, living: &Overlay) {
    assert_eq!(found.size(), living.size());
    assert_eq!(found.segments(&(0..u64::MAX)), living.segments(&(0..u64::MAX)));
    assert!(dirty_bytes(found) == dirty_bytes(living), "other bytes");
    assert!(found.staged().eq(living.staged().filter(|run| living.is_away(run))));
    assert_eq!((found.id(), found.keys()), (living.id(), living.keys()));
    assert_eq!((found.resident_bytes(), found.spooled_bytes()), (living.resident_bytes(), living.spooled_bytes()));
}

/// Every byte of a layer whose process ended within a step is as it was before, or as the step was to leave it.
fn assert_between(found: &Overlay, before: &[Origin], after: &[Origin]) {
    assert!(found.size() == before.len() as u64 || found.size() == after.len() as u64, "a size of its own");
    for segment in found.segments(&(0..u64::MAX)) {
        let range = segment.range().clone();
        let mut bytes = vec![0; (range.end - range.start) as usize];
        if let Segment::Dirty(_) = segment {
            found.copy_to(&range, &mut bytes).unwrap();
        }
        for (position, byte) in range.zip(bytes) {
            let fits = |model: &[Origin]| match (model.get(position as usize), &segment) {
                (Some(Origin::Written(value)), Segment::Dirty(_)) => *value == byte,
                (Some(Origin::Written(_) | Origin::Placed), Segment::Staged(_)) => true,
                (Some(Origin::Below), Segment::Below(_)) | (Some(Origin::Zero), Segment::Zero(_)) => true,
                _ => false,
            };
            assert!(fits(before) || fits(after), "{position} of {segment:?} is of nobody: {byte}");
        }
    }
}

/// Another file of the volume: whatever is free of the vault is overwritten by it.
fn write_another_file(memory: &Memory) {
    let held: Vec<_> = [1, 1, 1, 5000, 5000, 5000].map(|length| memory.buffer(length)).into();
    for mut buffer in held {
        let capacity = buffer.capacity();
        buffer.set_len(capacity);
        buffer.as_mut().fill(0xee);
    }
}

#[derive(Clone, Debug)]
enum Event {
    Step(Step),
    /// A request body shares what is dirty of this stretch.
    Share(u64, u64),
    /// The request has ended.
    Unshare,
    /// All is written elsewhere again, as for a new ledger.
    KeepAgain,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => step().prop_map(Event::Step),
        2 => (0..FILE_BYTES, 1u64..200 << 10).prop_map(|(at, length)| Event::Share(at, length)),
        1 => Just(Event::Unshare),
        1 => Just(Event::KeepAgain),
    ]
}

/// The bodies of what is dirty in `range`.
fn bodies(layer: &Overlay, range: &Range<u64>) -> Vec<Body> {
    let dirty: Vec<_> = layer.dirty.within(range).collect();
    dirty.iter().filter_map(|part| layer.share(part)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_layer_is_what_was_written_down_whenever_its_process_ends(
        base in 0..FILE_BYTES,
        kept_at in 0usize..4,
        events in prop::collection::vec(event(), 1..40),
    ) {
        let vault = Vault::create().unwrap();
        let memory = Memory::new(Some(Arc::clone(&vault)));
        let mut layer = Overlay::over(base);
        let mut model = vec![Origin::Below; base as usize];
        let (mut written, mut shared) = (Written::default(), Vec::new());
        for (number, event) in events.into_iter().enumerate() {
            let before = model.clone();
            if number == kept_at {
                layer.keep(ID);
            }
            match event {
                Event::Step(step) => apply(&mut layer, &mut model, &memory, number, &step),
                Event::Share(at, length) => shared.push((number, bodies(&layer, &(at..at + length)))),
                Event::Unshare => drop(shared.pop()),
                Event::KeepAgain => layer.id().into_iter().for_each(|id| {
                    layer.keep(id);
                    written = Written::default();
                }),
            }
            check(&layer, &model);
            write_another_file(&memory);
            let mut rows = layer.take_rows();
            prop_assert!(layer.is_written_down());
            if layer.id().is_none() {
                prop_assert!(rows.is_empty());
                continue;
            }
            if !written.head.is_empty() {
                assert_between(&written.restore(&vault, layer.spool_file()).unwrap(), &before, &model);
            }
            written.put(&mut rows);
            prop_assert!(layer.keys().iter().all(|key| ID.keys().contains(key)));
            prop_assert!(written.rows.keys().copied().eq(layer.keys()), "the keys of what is written");
            assert_same(&written.restore(&vault, layer.spool_file()).unwrap(), &layer);
            drop(rows);
            write_another_file(&memory);
            let found = written.restore(&vault, layer.spool_file()).unwrap();
            assert_same(&found, &layer);
            check(&found, &model);
        }
    }

    #[test]
    fn who_goes_on_with_a_layer_writes_it_down_as_the_one_before(
        base in 0..FILE_BYTES,
        first in prop::collection::vec(step(), 1..12),
        second in prop::collection::vec(step(), 1..12),
    ) {
        let mut vault = Vault::create().unwrap();
        let mut memory = Memory::new(Some(Arc::clone(&vault)));
        let mut layer = Overlay::over(base);
        layer.keep(ID);
        let mut model = vec![Origin::Below; base as usize];
        let mut written = Written::default();
        for (number, step) in first.iter().enumerate() {
            apply(&mut layer, &mut model, &memory, number, step);
            written.put(&mut layer.take_rows());
        }
        let next = Vault::open(vault.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let rows = written.rows.iter().map(|(key, row)| (*key, row.as_slice()));
        let reserve = |bytes| memory.pool.budget().admit_dirty(&memory.share, bytes);
        let found = Overlay::restore(&written.head, rows, &next, layer.spool_file().cloned(), reserve).unwrap();
        next.seal();
        // The process before is gone: it gives nothing back.
        std::mem::forget(std::mem::replace(&mut layer, found));
        std::mem::forget(std::mem::replace(&mut vault, Arc::clone(&next)));
        std::mem::forget(memory.vault.replace(next));
        prop_assert!(layer.is_written_down());
        for (number, step) in second.iter().enumerate() {
            apply(&mut layer, &mut model, &memory, 100 + number, step);
            written.put(&mut layer.take_rows());
            write_another_file(&memory);
            check(&layer, &model);
            assert_same(&written.restore(&vault, layer.spool_file()).unwrap(), &layer);
        }
    }
}

/// A layer that has a bit of everything, as it was written down.
fn of_everything() -> (Written, Arc<Vault>, Overlay) {
    let vault = Vault::create().unwrap();
    let memory = Memory::new(Some(Arc::clone(&vault)));
    let mut layer = Overlay::over(500 << 10);
    layer.keep(ID);
    let mut ids = 0;
    write(&mut layer, &memory, 200 << 10, &vec![1; 100 << 10]).unwrap();
    spill(&mut layer, 1 << 20);
    write(&mut layer, &memory, 10, &vec![2; 100 << 10]).unwrap();
    write(&mut layer, &memory, 230_000, &[3]).unwrap();
    layer.place_staged(runs(400 << 10..600 << 10, 30 << 10, &mut ids)).unwrap();
    write(&mut layer, &memory, 700 << 10, &[4; 5000]).unwrap();
    layer.zero(&(20..30)).unwrap();
    let mut written = Written::default();
    written.put(&mut layer.take_rows());
    (written, vault, layer)
}

#[derive(Clone, Debug)]
enum Damage {
    /// One byte of a row is another.
    Byte(usize, usize, u8),
    /// A row ends early.
    Cut(usize, usize),
    /// A row is missing.
    Missing(usize),
    /// A row is under another key as well.
    Copied(usize, u64),
    /// A row is made up.
    Invented(u64, Vec<u8>),
    HeadByte(usize, u8),
    HeadCut(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let key = || {
        prop_oneof![
            (0u64..40).prop_map(|key| ID.of_buffer(key)),
            (0u64..40).prop_map(|key| ID.of_runs(key)),
            any::<u64>()
        ]
    };
    let row = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        6 => (any::<usize>(), any::<usize>(), any::<u8>()).prop_map(|(row, at, byte)| Damage::Byte(row, at, byte)),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(row, at)| Damage::Cut(row, at)),
        1 => any::<usize>().prop_map(Damage::Missing),
        2 => (any::<usize>(), key()).prop_map(|(row, key)| Damage::Copied(row, key)),
        1 => (key(), row).prop_map(|(key, row)| Damage::Invented(key, row)),
        2 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Damage::HeadByte(at, byte)),
        1 => any::<usize>().prop_map(Damage::HeadCut),
    ]
}

fn inflict(written: &mut Written, damage: Damage) {
    let keys: Vec<u64> = written.rows.keys().copied().collect();
    let key = |row: usize| keys[row % keys.len()];
    match damage {
        _ if keys.is_empty() => {}
        Damage::Byte(row, at, byte) => {
            let row = written.rows.get_mut(&key(row)).unwrap();
            let length = row.len();
            row.iter_mut().skip(at % length.max(1)).take(1).for_each(|found| *found = byte);
        }
        Damage::Cut(row, at) => {
            let row = written.rows.get_mut(&key(row)).unwrap();
            row.truncate(at % (row.len() + 1));
        }
        Damage::Missing(row) => drop(written.rows.remove(&key(row))),
        Damage::Copied(row, to) => drop(written.rows.insert(to, written.rows[&key(row)].clone())),
        Damage::Invented(key, row) => drop(written.rows.insert(key, row)),
        Damage::HeadByte(at, byte) => {
            let length = written.head.len();
            written.head.iter_mut().skip(at % length.max(1)).take(1).for_each(|found| *found = byte);
        }
        Damage::HeadCut(at) => written.head.truncate(at % (written.head.len() + 1)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_down_is_refused_or_a_layer(damages in prop::collection::vec(damage(), 1..6)) {
        thread_local!(static WHOLE: (Written, Arc<Vault>, Overlay) = of_everything());
        WHOLE.with(|(whole, vault, living)| {
            let mut written = whole.clone();
            damages.into_iter().for_each(|damage| inflict(&mut written, damage));
            if let Ok(mut layer) = written.restore(vault, living.spool_file()) {
                // All that it says it has can be had, and it can be worked with.
                let segments = layer.segments(&(0..u64::MAX));
                assert_eq!(segments.last().map_or(0, |last| last.range().end), layer.size());
                dirty_bytes(&layer);
                let dirty: Vec<_> = layer.dirty.within(&(0..u64::MAX)).collect();
                dirty.iter().for_each(|part| drop((layer.pieces(part), layer.fingerprint(part))));
                drop((layer.keys(), layer.staged().count(), layer.spillable(1 << 20, true)));
                layer.drop_staged();
                let _ = layer.zero(&(1000..300 << 10));
                let _ = layer.truncate(0);
                drop(layer.take_rows());
            }
        });
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let (whole, vault, living) = of_everything();
    assert_same(&whole.restore(&vault, living.spool_file()).unwrap(), &living);
    let refused = |change: &dyn Fn(&mut Written)| {
        let mut written = whole.clone();
        change(&mut written);
        written.restore(&vault, living.spool_file()).expect_err("it was believed").to_string()
    };
    let (first, last, run) = (ID.of_buffer(0), ID.of_buffer(11), ID.of_runs(6));
    let changed = |key: u64, change: &dyn Fn(&mut BufferRow), written: &mut Written| {
        let mut row = BufferRow::decode(written.rows[&key].as_slice()).unwrap();
        change(&mut row);
        written.rows.insert(key, row.encode_to_vec());
    };
    assert!(refused(&|written| written.head.clear()).contains("not known here"));
    assert!(refused(&|written| drop(written.rows.insert(1, Vec::new()))).contains("another layer"));
    let twice = |written: &mut Written| drop(written.rows.insert(last, written.rows[&first].clone()));
    assert!(refused(&twice).contains("not where it should be"), "two rows of one buffer");
    let longer = |written: &mut Written| changed(last, &|row| row.length = 65537, written);
    assert!(refused(&longer).contains("a part of") || refused(&longer).contains("too much"));
    assert!(refused(&|written| changed(last, &|row| row.dirty = vec![0, 70_000], written)).contains("behind"));
    assert!(refused(&|written| changed(last, &|row| row.dirty = vec![0, 5, 3], written)).contains("no end"));
    assert!(refused(&|written| changed(last, &|row| row.dirty.clear(), written)).contains("nothing"));
    assert!(refused(&|written| changed(first, &|row| row.slot += 1, written)).contains("not where it should be"));
    assert!(refused(&|written| changed(last, &|row| row.home = 4097, written)).contains("not where it should be"));
    assert!(refused(&|written| changed(last, &|row| row.home = NOWHERE, written)).contains("did not survive"));
    let farther = |written: &mut Written| {
        let spooled = written.rows[&ID.of_buffer(4)].clone();
        drop(written.rows.insert(ID.of_buffer(1 << 25), spooled));
    };
    assert!(refused(&farther).contains("spool"));
    let overlapping = |written: &mut Written| {
        let mut row = RunsRow::decode(written.rows[&run].as_slice()).unwrap();
        row.runs[0].length += 1;
        written.rows.insert(run, row.encode_to_vec());
    };
    assert!(refused(&overlapping).contains("meets another"));
    assert!(whole.restore(&vault, None).is_err(), "the spool is gone");
}

#[test]
fn memory_that_does_not_survive_is_said_to_be_there() {
    let (vault, memory) = (Vault::create().unwrap(), Memory::new(None));
    let mut layer = Overlay::over(0);
    layer.keep(ID);
    write(&mut layer, &memory, 0, &[1]).unwrap();
    let mut written = Written::default();
    written.put(&mut layer.take_rows());
    assert!(written.restore(&vault, None).unwrap_err().to_string().contains("did not survive"));
}

#[test]
fn a_write_costs_the_rows_of_its_buffers_however_the_layer_looks() {
    let memory = Memory::new(Some(Vault::create().unwrap()));
    let mut layer = Overlay::over(512 << 20);
    layer.keep(ID);
    drop(layer.take_rows());
    // Every second page of 64 MiB: the layer below is in 8192 pieces.
    for page in 0..8192 {
        write(&mut layer, &memory, page * 8192, &[1; 4096]).unwrap();
    }
    drop(layer.take_rows());
    write(&mut layer, &memory, 600 << 20, &vec![2; 128 << 10]).unwrap();
    let rows = layer.take_rows();
    assert_eq!((&rows.head, rows.put.len(), rows.removed.len(), rows.released.len()), (&None, 2, 0, 0));
    assert!(rows.put.iter().all(|(_, row)| row.len() < 24), "{:?}", rows.put);
    write(&mut layer, &memory, 600 << 20, &vec![3; 64 << 10]).unwrap();
    assert!(layer.take_rows().is_empty(), "the same bytes of the file, in the same memory");
    assert_eq!(Overlay::over(1 << 30).take_rows().put.len(), 0);
}

#[test]
fn a_copy_of_a_layer_is_not_written_down() {
    let memory = Memory::new(Some(Vault::create().unwrap()));
    let mut layer = Overlay::over(0);
    layer.keep(ID);
    write(&mut layer, &memory, 0, &[1; 100]).unwrap();
    let mut copy = layer.clone();
    assert_eq!((copy.id(), copy.keys()), (None, Vec::new()));
    assert!(copy.take_rows().is_empty());
    assert_eq!(layer.take_rows().put.len(), 1);
    // The copy shares the memory, so a write goes elsewhere, and the memory is free when both have given it up.
    write(&mut layer, &memory, 0, &[2; 100]).unwrap();
    let rows = layer.take_rows();
    assert_eq!(rows.released.len(), 1);
    let place = rows.released[0].place();
    drop(rows);
    assert_ne!(memory.buffer(4096).place(), place);
    assert_eq!(dirty_bytes(&copy), [(0..100, vec![1; 100])]);
    drop(copy);
    assert_eq!(memory.buffer(4096).place(), place);
}

#[test]
fn bytes_that_were_sent_for_good_are_not_written_over_in_place() {
    let memory = Memory::new(Some(Vault::create().unwrap()));
    let mut layer = Overlay::over(0);
    layer.keep(ID);
    // One block, of which the second buffer has bytes that were not sent.
    write(&mut layer, &memory, 0, &vec![1; 128 << 10]).unwrap();
    let sent = 0..100 << 10;
    let fingerprint = layer.fingerprint(&sent);
    let mut ids = 0;
    runs(sent.clone(), sent.end, &mut ids).into_iter().for_each(|run| assert!(layer.record_staged(run, &fingerprint)));
    drop(layer.take_rows());
    assert_eq!(layer.buffers_wanted(&(0..128 << 10)), [], "all of it is here, and would be sent again");
    assert_eq!(layer.drop_staged(), 64 << 10);
    assert!(matches!(write(&mut layer, &memory, 0, &[2]), Err(WriteRefused::NotResident)));
    assert_eq!(layer.truncate(10), Err(NotResident));
    assert_eq!(layer.buffers_wanted(&(0..128 << 10)), [(0, 64 << 10), (1, 64 << 10)]);
    write(&mut layer, &memory, 0, &vec![2; 128 << 10]).unwrap();
    assert_eq!(layer.take_rows().released.len(), 2);
}
