//! Memory stays inside the budget, whatever the size of the file.

use std::{fs, io::Write as _};

use harness::tree::noise;

use crate::world;

/// Big enough that anything kept per byte, per block or per request would show.
const FILE_BYTES: u64 = 4 << 30;

/// What --memory 256MiB may cost at most, code, stacks and all.
const RSS_BYTES_MAX: u64 = 320 << 20;

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
