//! What a ledger says is what was put there, for whoever opens it, and nothing that was not.

use std::os::fd::{AsFd as _, OwnedFd};

use proptest::prelude::*;

use super::{Change, Contents, Error, Ledger, Section};

const FORMAT: u32 = 7;

/// The file as another process would have it.
fn file_of(ledger: &Ledger) -> OwnedFd {
    ledger.as_fd().try_clone_to_owned().unwrap()
}

fn contents_of(ledger: &Ledger) -> Contents {
    let (_, contents, format) = Ledger::open(file_of(ledger)).unwrap();
    assert_eq!(format, FORMAT);
    contents
}

#[derive(Clone, Debug)]
enum Step {
    Put(u16, u64, Vec<u8>),
    Remove(u16, u64),
    /// Puts the first value under the even ones of these keys, and takes the others away.
    Stroke(u16, std::ops::Range<u64>, Vec<u8>),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = prop::collection::vec(any::<u8>(), 0..300);
    let step = prop_oneof![
        2 => (0..3_u16, 0..20_u64, 0..8_u64, value.clone())
            .prop_map(|(section, key, count, value)| Step::Stroke(section, key..key + count, value)),
        8 => (0..3_u16, 0..20_u64, value).prop_map(|(section, key, value)| Step::Put(section, key, value)),
        3 => (0..3_u16, 0..20_u64).prop_map(|(section, key)| Step::Remove(section, key)),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn the_last_value_of_each_key_is_there(steps in steps()) {
        let mut ledger = Ledger::create(FORMAT).unwrap();
        let mut model = Contents::new();
        for step in steps {
            match step {
                Step::Put(section, key, value) => {
                    ledger.put(Section(section), key, &value);
                    model.insert((Section(section), key), value);
                }
                Step::Remove(section, key) => {
                    ledger.remove(Section(section), key);
                    model.remove(&(Section(section), key));
                }
                Step::Stroke(section, keys, value) => {
                    let section = Section(section);
                    let change = |key: u64| match key.is_multiple_of(2) {
                        true => Change::Put(section, key, &value),
                        false => Change::Remove(section, key),
                    };
                    ledger.change(&keys.clone().map(change).collect::<Vec<_>>());
                    model.retain(|(other, key), _| *other != section || !keys.contains(key));
                    model.extend(keys.filter(|key| key.is_multiple_of(2)).map(|key| ((section, key), value.clone())));
                }
                Step::Reopen => ledger = Ledger::open(file_of(&ledger)).unwrap().0,
            }
        }
        prop_assert_eq!(contents_of(&ledger), model);
        prop_assert!(ledger.is_whole());
    }

    /// Bytes that somebody has changed are found out, wherever they are.
    #[test]
    fn changed_bytes_are_never_believed(at in 0..2000_u64, change in 1..=255_u8, count in 1..20_u64) {
        let ledger = Ledger::create(FORMAT).unwrap();
        (0..count).for_each(|key| ledger.put(Section(1), key, &[key as u8; 60]));
        let before = contents_of(&ledger);
        let position = 4096 + at % ledger.used_bytes();
        let file = std::fs::File::from(file_of(&ledger));
        let mut byte = [0];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, position).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[byte[0] ^ change], position).unwrap();
        match Ledger::open(file.into()) {
            Err(Error::Unreadable(_)) => {}
            other => prop_assert!(false, "{before:?} became {other:?}"),
        }
    }

    /// So are headers of any content.
    #[test]
    fn no_header_makes_a_reader_fall(header in prop::collection::vec(any::<u8>(), 40), keep_magic: bool) {
        let ledger = Ledger::create(FORMAT).unwrap();
        ledger.put(Section(1), 1, b"value");
        let file = std::fs::File::from(file_of(&ledger));
        let from = if keep_magic { 8 } else { 0 };
        std::os::unix::fs::FileExt::write_all_at(&file, &header[from..], from as u64).unwrap();
        if let Ok((_, contents, _)) = Ledger::open(file.into()) {
            // The one header that is right by chance, or an empty area.
            prop_assert!(contents.is_empty() || contents[&(Section(1), 1)] == b"value");
        }
    }
}

#[test]
fn changes_of_one_stroke_count_together() {
    let ledger = Ledger::create(FORMAT).unwrap();
    ledger.put(Section(1), 1, b"one");
    let (before, used_bytes) = (contents_of(&ledger), ledger.used_bytes());
    ledger.change(&[
        Change::Put(Section(1), 1, b"uno"),
        Change::Remove(Section(1), 9),
        Change::Put(Section(2), 1, &[7; 100_000]),
    ]);
    assert_eq!(contents_of(&ledger).len(), 2);
    // Killed before the last store, which is the length.
    let file = std::fs::File::from(file_of(&ledger));
    std::os::unix::fs::FileExt::write_all_at(&file, &used_bytes.to_ne_bytes(), 24).unwrap();
    assert_eq!(contents_of(&ledger), before);
    let (ledger, ..) = Ledger::open(file.into()).unwrap();
    ledger.change(&[]);
    ledger.change(&[Change::Remove(Section(1), 1)]);
    assert!(contents_of(&ledger).is_empty());
}

#[test]
fn history_takes_no_memory_for_ever() {
    let ledger = Ledger::create(FORMAT).unwrap();
    for round in 0..200_000_u64 {
        ledger.put(Section(1), round % 100, &round.to_le_bytes());
    }
    let most = 2 * super::HISTORY_BYTES_MIN;
    assert!(ledger.used_bytes() < most, "{} bytes", ledger.used_bytes());
    let contents = contents_of(&ledger);
    assert_eq!(contents.len(), 100);
    assert_eq!(contents[&(Section(1), 99)], 199_999_u64.to_le_bytes());
    // What was given back is no memory of the file's either.
    let blocks = nix::sys::stat::fstat(&ledger).unwrap().st_blocks as u64 * 512;
    assert!(blocks < 2 * most, "{blocks} bytes resident");
}

#[test]
fn what_is_no_ledger_is_refused() {
    let scratch = tempfile::tempfile().unwrap();
    let refused = |file: OwnedFd| Ledger::open(file).unwrap_err().to_string();
    assert!(refused(scratch.try_clone().unwrap().into()).contains("0 bytes long"));
    scratch.set_len(4096 + (8 << 30)).unwrap();
    assert!(refused(scratch.into()).contains("begins with something else"));
    let ledger = Ledger::create(FORMAT).unwrap();
    ledger.memory.spoil();
    assert!(refused(file_of(&ledger)).contains("given it up"));
}
