//! Two mounts of one container: versions are never mixed, and nobody overwrites the other in silence.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    thread,
    time::{Duration, Instant},
};

use harness::{Mount, World, tree::noise};
use nix::libc::ESTALE;

use crate::world;

const MIB: usize = 1 << 20;
/// Far longer than the metadata TTL of one second: what is not seen by then never is.
const SEEN_WITHIN: Duration = Duration::from_secs(60);

/// Both know the name `f` from the start: a name that was listed as absent may stay so for the metadata TTL.
fn two_mounts_of_a_file(world: &World) -> (Mount, Mount) {
    world.emulator().put(world.container(), "f", &b"first"[..], &[]).unwrap();
    (world.mount(&[]), world.mount(&[]))
}

#[test]
fn an_open_sees_every_close_before_it_whole_and_with_its_size() {
    let world = world();
    let (a, b) = two_mounts_of_a_file(&world);
    // Sizes that grow, shrink and stay: with pages of the version before in B's page cache.
    for (round, length) in [5 * MIB, 7 * MIB + 3, 100, 100, 0, 3 * MIB].into_iter().enumerate() {
        let bytes = noise(length, round as u64);
        fs::write(a.path("f"), &bytes).unwrap();
        let mut seen = Vec::new();
        let mut file = fs::File::open(b.path("f")).unwrap();
        file.read_to_end(&mut seen).unwrap();
        assert_eq!(seen.len(), length, "round {round}");
        assert!(seen == bytes, "round {round}: other bytes");
        assert_eq!(file.metadata().unwrap().len(), length as u64, "round {round}: size of the open file");
        assert_eq!(fs::metadata(b.path("f")).unwrap().len(), length as u64, "round {round}: size by name");
    }
    a.unmount();
    b.unmount();
}

#[test]
fn a_handle_opened_before_gets_old_bytes_or_estale_never_a_mix() {
    let world = world();
    let (a, b) = two_mounts_of_a_file(&world);
    let old = noise(24 * MIB, 1);
    fs::write(a.path("f"), &old).unwrap();
    let mut before = fs::File::open(b.path("f")).unwrap();
    let mut start = vec![0; 2 * MIB];
    before.read_exact(&mut start).unwrap();
    assert!(start == old[..2 * MIB]);
    let new = noise(24 * MIB, 2);
    fs::write(a.path("f"), &new).unwrap();
    // Another handle brings pages of the new version into the same kernel.
    assert!(fs::read(b.path("f")).unwrap() == new);
    let mut stale = 0;
    for offset in (0..24).map(|mib| mib * MIB) {
        before.seek(SeekFrom::Start(offset as u64)).unwrap();
        let mut piece = vec![0; MIB];
        match before.read_exact(&mut piece) {
            Ok(()) => assert!(piece == old[offset..offset + MIB], "new bytes under the old handle at {offset}"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(ESTALE), "{error}");
                stale += 1;
            }
        }
    }
    assert!(stale > 0, "what was never read cannot be known after the blob was replaced");
    drop(before);
    a.unmount();
    b.unmount();
}

#[test]
fn a_new_name_appears_in_the_other_mount_within_the_metadata_ttl() {
    let world = world();
    let a = world.mount(&[]);
    let b = world.mount(&["--metadata-ttl", "1s"]);
    assert!(!b.path("new").exists(), "and its absence is remembered now");
    fs::write(a.path("new"), b"1").unwrap();
    let written = Instant::now();
    while !b.path("new").exists() {
        assert!(written.elapsed() < SEEN_WITHIN, "its absence is remembered for longer than the ttl");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(fs::read(b.path("new")).unwrap(), b"1");
    a.unmount();
    b.unmount();
}

#[test]
fn of_two_rewrites_at_once_exactly_one_close_succeeds() {
    let world = world();
    let (a, b) = two_mounts_of_a_file(&world);
    let open = |path| fs::OpenOptions::new().write(true).truncate(true).open(path).unwrap();
    let (mut one, mut two) = (open(a.path("f")), open(b.path("f")));
    one.write_all(b"by a").unwrap();
    two.write_all(b"by b").unwrap();
    let results = [one.sync_all(), two.sync_all()];
    let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()?.raw_os_error()).collect();
    assert_eq!(failed, [ESTALE], "{results:?}");
    drop((one, two));
    let kept = world.emulator().get(world.container(), "f").unwrap();
    let winner: &[u8] = if results[0].is_ok() { b"by a" } else { b"by b" };
    assert_eq!(kept, winner);
    a.unmount();
    // B may say at its end that it holds bytes that the service will never take.
    b.end_with(nix::sys::signal::Signal::SIGTERM);
}

#[test]
fn a_blob_replaced_by_another_client_is_seen_at_the_next_open() {
    let world = world();
    let put = |bytes: &[u8]| world.emulator().put(world.container(), "f", bytes.to_vec(), &[]).unwrap();
    put(b"one");
    let mount = world.mount(&[]);
    assert_eq!(fs::read(mount.path("f")).unwrap(), b"one");
    put(b"another");
    assert_eq!(fs::read(mount.path("f")).unwrap(), b"another");
    assert_eq!(fs::metadata(mount.path("f")).unwrap().len(), 7);
    mount.unmount();
}
