//! Memory stays inside the budget, whatever the size of the file and the number of names.

use std::{fs, io::Write as _, process::Command};

use harness::{length, tree::noise};

use crate::world;

/// Big enough that anything kept per byte, per block or per request would show.
const FILE_BYTES: u64 = 4 << 30;

/// What --memory 256MiB may cost at most, code, stacks and all.
const RSS_BYTES_MAX: u64 = 320 << 20;

/// Names below one root: half of them in one directory, the others by thousands.
const NAMES: (usize, usize) = (60_000, 2_000_000);
/// What --memory 128MiB may cost at most while names are walked. The short run has less to hold; the long one shows
/// whether names are given back.
const NAMES_RSS_BYTES_MAX: u64 = 170 << 20;

#[test]
fn find_over_more_names_than_memory_holds_stays_within_128_mib() {
    let world = world();
    let names = length().of(NAMES.0, NAMES.1);
    for number in 0..names / 2 {
        world.emulator().put(world.container(), &format!("flat/{number:07}"), &b""[..], &[]).unwrap();
        let name = format!("deep/{:04}/{:04}", number / 1000, number % 1000);
        world.emulator().put(world.container(), &name, &b""[..], &[]).unwrap();
    }
    let mount = world.mount(&["--memory", "128MiB"]);
    for _ in 0..2 {
        let found = Command::new("find").arg(mount.root()).args(["-type", "f", "-printf", "."]).output().unwrap();
        assert_eq!((found.stdout.len(), String::from_utf8_lossy(&found.stderr).as_ref()), (names, ""));
    }
    let peak = mount.peak_rss_bytes();
    println!("peak RSS: {} MiB for {names} names", peak >> 20);
    assert!(peak < NAMES_RSS_BYTES_MAX, "{} MiB for {names} names", peak >> 20);
    mount.unmount();
}

#[test]
fn writing_and_reading_4_gib_with_256_mib_stays_under_320_mib() {
    let world = world();
    let mount = world.mount(&["--memory", "256MiB"]);
    let piece = noise(8 << 20, 1);
    let mut file = fs::File::create(mount.path("big")).unwrap();
    for _ in 0..FILE_BYTES / piece.len() as u64 {
        file.write_all(&piece).unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    let written = mount.peak_rss_bytes();
    let mut file = fs::File::open(mount.path("big")).unwrap();
    let mut seen = vec![0; piece.len()];
    for number in 0..FILE_BYTES / piece.len() as u64 {
        std::io::Read::read_exact(&mut file, &mut seen).unwrap();
        assert!(seen == piece, "piece {number} differs");
    }
    drop(file);
    let peak = mount.peak_rss_bytes();
    let mib = |bytes: u64| bytes >> 20;
    println!("peak RSS: {} MiB after writing, {} MiB after reading", mib(written), mib(peak));
    assert!(peak < RSS_BYTES_MAX, "{} MiB, after writing {} MiB", mib(peak), mib(written));
    mount.unmount();
}
