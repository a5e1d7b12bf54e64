//! Bytes in a vault are there for whoever opens its file, and memory goes where the rules say.

use std::os::fd::AsFd as _;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use proptest::prelude::*;

use super::*;
use crate::cache::{Budget, Class};

const SMALL: usize = BUFFER_BYTES[0];
const LARGE: usize = BUFFER_BYTES[1];

fn budget() -> Budget {
    Budget::new(1 << 30)
}

fn reserved(budget: &Budget, length: usize) -> Reservation {
    budget.try_reserve(Class::Dirty, BUFFER_BYTES[size_index(length)] as u64).unwrap()
}

fn filled(vault: &Arc<Vault>, budget: &Budget, length: usize, byte: u8) -> Buffer {
    let mut buffer = vault.take(reserved(budget, length), length).unwrap();
    buffer.as_mut().fill(byte);
    buffer
}

/// The vault as another process would have it.
fn taken_over(vault: &Vault) -> Arc<Vault> {
    Vault::open(vault.as_fd().try_clone_to_owned().unwrap()).unwrap()
}

/// Memory that the kernel has given to the file, in bytes.
fn memory_bytes(vault: &Vault) -> u64 {
    fstat(&vault.file).unwrap().st_blocks as u64 * 512
}

#[test]
fn bytes_survive_the_process_at_their_places() {
    let (vault, budget) = (Vault::create().unwrap(), budget());
    let written: Vec<_> = [100, LARGE, SMALL, 5000].map(|length| filled(&vault, &budget, length, length as u8)).into();
    let places: Vec<_> = written.iter().map(|buffer| (buffer.place().unwrap(), buffer.len())).collect();
    let next = taken_over(&vault);
    for (place, length) in &places {
        assert_eq!(Place::new(place.offset(), place.capacity()), Some(*place));
        let adopted = next.adopt(*place, *length, reserved(&budget, *length)).unwrap();
        assert_eq!((adopted.place(), adopted.len()), (Some(*place), *length));
        assert!(adopted.as_ref().iter().all(|byte| *byte == *length as u8));
        std::mem::forget(adopted);
    }
    // Both have the pages, not copies.
    let (place, length) = places[0];
    assert!(next.adopt(place, length, reserved(&budget, length)).is_none(), "it is somebody's");
    next.seal();
    assert!(written.iter().all(|buffer| buffer.as_ref().iter().all(|byte| *byte == buffer.len() as u8)));
    assert_eq!(memory_bytes(&next), 2 * SMALL as u64 + 2 * LARGE as u64, "what nobody adopted went back");
    let fresh: Vec<_> = (0..20).map(|_| filled(&next, &budget, LARGE, 1).place().unwrap()).collect();
    assert!(fresh.iter().all(|fresh| places.iter().all(|(place, _)| place != fresh)));
}

#[test]
fn what_cannot_be_a_buffer_is_not_adopted() {
    let (vault, budget) = (Vault::create().unwrap(), budget());
    let _kept = [filled(&vault, &budget, LARGE, 1), filled(&vault, &budget, SMALL, 2)];
    assert!(vault.adopt(Place::new(0, LARGE).unwrap(), 1, reserved(&budget, LARGE)).is_none(), "sealed from the start");
    let next = taken_over(&vault);
    assert!(next.take(reserved(&budget, LARGE), LARGE).is_none(), "nothing is free before it is sealed");
    assert_eq!(Place::new(SMALL as u64, LARGE), None);
    assert_eq!(Place::new(100, SMALL), None);
    assert_eq!(Place::new(FILE_BYTES, SMALL), None);
    assert_eq!(Place::new(0, 1 << 20), None);
    let place = Place::new(FILE_BYTES - LARGE as u64, LARGE).unwrap();
    assert!(next.adopt(place, LARGE + 1, reserved(&budget, LARGE)).is_none());
    assert!(next.adopt(place, LARGE, reserved(&budget, SMALL)).is_none(), "a reservation of another size");
    let last = next.adopt(place, LARGE, reserved(&budget, LARGE)).unwrap();
    let inside = Place::new(FILE_BYTES - SMALL as u64, SMALL).unwrap();
    assert!(next.adopt(inside, 1, reserved(&budget, SMALL)).is_none(), "inside another one");
    assert_eq!(next.used_bytes(), LARGE as u64);
    drop(last);
    let again = next.adopt(place, LARGE, reserved(&budget, LARGE)).expect("who tried to read it has given it up");
    next.seal();
    drop(again);
    assert_eq!((next.used_bytes(), budget.used_bytes()), (0, (SMALL + LARGE) as u64));
    let short = tempfile::tempfile().unwrap();
    assert!(Vault::open(short.into()).is_err(), "no file of a vault");
}

#[test]
fn free_memory_stays_in_proportion_to_what_is_used() {
    let (vault, budget) = (Vault::create().unwrap(), budget());
    let mut held: Vec<_> = (0..512).map(|_| filled(&vault, &budget, LARGE, 1)).collect();
    assert_eq!(memory_bytes(&vault), 32 << 20);
    held.truncate(400);
    assert_eq!(vault.warm_bytes(), 7 << 20, "112 of 64 KiB");
    held.truncate(100);
    let limit = IDLE_BYTES + (100 * LARGE as u64);
    assert!(vault.warm_bytes() <= limit && vault.warm_bytes() + LARGE as u64 > limit, "{}", vault.warm_bytes());
    assert_eq!(memory_bytes(&vault), vault.used_bytes() + vault.warm_bytes());
    let warm = vault.warm_bytes();
    held.push(filled(&vault, &budget, LARGE, 1));
    assert_eq!(vault.warm_bytes(), warm - LARGE as u64, "warm slots are taken first");
    let small = filled(&vault, &budget, 1, 1);
    held.clear();
    drop(small);
    assert_eq!(vault.used_bytes(), 0);
    assert!(vault.warm_bytes() <= IDLE_BYTES, "{}", vault.warm_bytes());
    assert_eq!(memory_bytes(&vault), vault.warm_bytes());
    assert_eq!(budget.used_bytes(), 0);
}

#[test]
fn a_refusal_of_the_kernel_is_an_answer() {
    // Pages of 2 MiB, of which a machine has none unless it was told to keep some: the kernel has no memory for it.
    let budget = budget();
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_1GB;
    if let Ok(file) = memfd_create(c"vault-of-huge-pages", flags) {
        ftruncate(&file, FILE_BYTES as i64).unwrap();
        let vault = Vault::open(file).unwrap();
        assert!(vault.adopt(Place::new(0, LARGE).unwrap(), LARGE, reserved(&budget, LARGE)).is_none());
        vault.seal();
        assert!(vault.take(reserved(&budget, LARGE), LARGE).is_none());
        assert_eq!((vault.used_bytes(), vault.warm_bytes(), budget.used_bytes()), (0, 0, 0));
        assert_eq!(vault.state.lock().pieces.len(), 1, "it was the memory that was refused, not the mapping");
    }

    // A file that takes no further mapping: what is mapped can be used up, and nothing crashes then.
    let file = memfd_create(c"vault-of-one-piece", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
    ftruncate(&file, FILE_BYTES as i64).unwrap();
    let vault = Vault::open(file).unwrap();
    vault.seal();
    let first = filled(&vault, &budget, LARGE, 1);
    fcntl(&vault.file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_FUTURE_WRITE)).unwrap();
    let rest: Vec<_> = (1..256).map(|_| filled(&vault, &budget, LARGE, 1)).collect();
    assert!(vault.take(reserved(&budget, LARGE), LARGE).is_none(), "a second piece");
    assert!(vault.take(reserved(&budget, SMALL), SMALL).is_none(), "a piece of the other size");
    // Nor are holes made: the pages stay, and are used again.
    drop((first, rest));
    assert_eq!((vault.used_bytes(), memory_bytes(&vault)), (0, 16 << 20));
    let again: Vec<_> = (0..256).map(|_| filled(&vault, &budget, LARGE, 2)).collect();
    assert_eq!((again.len(), budget.used_bytes()), (256, 16 << 20));
}

#[tokio::test]
async fn the_pool_gives_what_a_vault_has() {
    let pool = crate::cache::Pool::new(Budget::new(16 << 20));
    let share = pool.budget().dirty_share(1);
    let vault = Vault::create().unwrap();
    let kept = pool.try_dirty_buffer(Some(&vault), &share, 5000).unwrap();
    let gone = pool.try_dirty_buffer(None, &share, 5000).unwrap();
    assert_eq!((kept.place().is_some(), gone.place(), share.used_bytes()), (true, None, 2 * LARGE as u64));
    drop((kept, gone));
    let unsealed = taken_over(&vault);
    assert!(pool.try_dirty_buffer(Some(&unsealed), &share, 5000).is_none());
    assert_eq!(share.used_bytes(), 0, "a refusal holds nothing");
    let sealing = crate::sync::tokio::spawn({
        let unsealed = Arc::clone(&unsealed);
        async move {
            crate::sync::tokio::time::sleep(std::time::Duration::from_millis(30)).await;
            unsealed.seal();
        }
    });
    assert!(pool.dirty_buffer(Some(&unsealed), &share, 5000).await.place().is_some());
    sealing.await.unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Take(usize),
    Drop(usize),
    /// Another process goes on with what is held.
    TakeOver,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn no_two_buffers_share_a_byte(steps in prop::collection::vec(prop_oneof![
        6 => (1..=LARGE).prop_map(Step::Take),
        4 => any::<usize>().prop_map(Step::Drop),
        1 => Just(Step::TakeOver),
    ], 1..120)) {
        let budget = budget();
        let mut vault = Vault::create().unwrap();
        let mut held: Vec<(Buffer, u8)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Take(length) => held.push((filled(&vault, &budget, length, number as u8), number as u8)),
                Step::Drop(which) if !held.is_empty() => drop(held.swap_remove(which % held.len())),
                Step::Drop(_) => {}
                Step::TakeOver => {
                    let next = taken_over(&vault);
                    let adopt = |(buffer, byte): &(Buffer, u8)| {
                        let reservation = reserved(&budget, buffer.len());
                        (next.adopt(buffer.place().unwrap(), buffer.len(), reservation).unwrap(), *byte)
                    };
                    let adopted: Vec<_> = held.iter().map(adopt).collect();
                    // The process before is gone, and with it its ideas of what is free.
                    std::mem::forget(std::mem::replace(&mut held, adopted));
                    std::mem::forget(std::mem::replace(&mut vault, next));
                    vault.seal();
                    let used: usize = held.iter().map(|(buffer, _)| buffer.capacity()).sum();
                    prop_assert_eq!((vault.used_bytes(), memory_bytes(&vault)), (used as u64, used as u64));
                }
            }
            for (buffer, byte) in &held {
                prop_assert!(buffer.as_ref().iter().all(|found| found == byte));
            }
        }
    }
}
