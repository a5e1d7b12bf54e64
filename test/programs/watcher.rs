//! Programs that wait for data sets to appear, as pipeline operators do: they list a directory again and again, and start a
//! job for each new or changed file. Each is met once, whole, and with what it says in its name.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use harness::World;
use nix::libc::ESTALE;

use crate::world;

/// Data sets, each uploaded by another client or by a program on another node.
const SETS: usize = 60;

/// How old what the watcher sees may be.
const TTL: &str = "200ms";

/// The watcher looks this often.
const POLL: Duration = Duration::from_millis(50);

/// What makes a file another than it was: size and time of change.
type Version = (u64, i64, i64);

/// A data set says its length and version in each line. Versions differ in length: to the service, two uploads within one
/// second have one time.
fn data_set(number: usize, version: usize) -> String {
    let lines = 1000 + number * 50 + version;
    (0..lines).map(|line| format!("set {number} version {version} line {line} of {lines}\n")).collect()
}

/// What the watcher saw of a file each time that it was another.
type Seen = BTreeMap<String, BTreeMap<Version, String>>;

/// One look at the directory; what is new or changed is read, as a job would.
fn look(directory: &Path, seen: &mut Seen) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if !name.ends_with(".csv") {
            continue;
        }
        let metadata = entry.metadata().unwrap();
        let version = (metadata.size(), metadata.mtime(), metadata.mtime_nsec());
        let versions = seen.entry(name).or_default();
        if versions.contains_key(&version) {
            continue;
        }
        match fs::read_to_string(entry.path()) {
            Ok(text) => drop(versions.insert(version, text)),
            // Replaced between the opening and the reading: the next look finds the new one.
            Err(error) if error.raw_os_error() == Some(ESTALE) => {}
            Err(error) => panic!("{}: {error}", entry.path().display()),
        }
    }
}

/// Uploads every data set, half by another client and half through a mount, then changes each third.
fn upload(world: &World, mount: &Path) {
    let put = |number: usize, version: usize| {
        let (name, data) = (format!("processed/set-{number:02}.csv"), data_set(number, version));
        if number.is_multiple_of(2) {
            world.emulator().put(world.container(), &name, data.into_bytes(), &[]).unwrap();
        } else {
            // As careful programs do: the name appears once the file is whole.
            let part = mount.join(format!("{name}.part"));
            fs::write(&part, data).unwrap();
            fs::rename(&part, mount.join(name)).unwrap();
        }
    };
    (0..SETS).for_each(|number| put(number, 1));
    (0..SETS).step_by(3).for_each(|number| put(number, 2));
}

#[test]
fn a_watcher_meets_every_new_and_changed_data_set_whole() {
    let world = world();
    world.emulator().put(world.container(), "processed/README", &b"here"[..], &[]).unwrap();
    let (here, there) = (world.mount(&[]), world.mount(&["--metadata-ttl", TTL]));
    let uploaded = AtomicBool::new(false);
    let mut seen = Seen::new();
    let last = |seen: &Seen, number: usize, version: usize| {
        let versions = seen.get(&format!("set-{number:02}.csv"));
        versions.is_some_and(|versions| versions.values().any(|text| *text == data_set(number, version)))
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            upload(&world, here.root());
            uploaded.store(true, Ordering::Release);
        });
        let began = Instant::now();
        loop {
            let all_there = uploaded.load(Ordering::Acquire);
            look(&there.path("processed"), &mut seen);
            let complete = (0..SETS).all(|number| last(&seen, number, if number % 3 == 0 { 2 } else { 1 }));
            if all_there && complete {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "not all data sets were met: {:?}", seen.keys());
            thread::sleep(POLL);
        }
    });
    for (number, versions) in (0..SETS).map(|number| (number, &seen[&format!("set-{number:02}.csv")])) {
        for text in versions.values() {
            assert!([1, 2].iter().any(|version| *text == data_set(number, *version)), "set {number} was met half");
        }
    }
    there.unmount();
    here.unmount();
}
