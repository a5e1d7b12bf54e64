//! The cache on the node's disk, across the ends of processes: orderly ones, and kill -9.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use blob_emulator::Operation;
use harness::{
    World,
    tree::{md5_of_bytes, noise},
};
use nix::sys::signal::Signal;

use crate::world;

/// Longer than any read here takes on a busy machine.
const READ_WITHIN: Duration = Duration::from_secs(60);

fn reads(world: &World) -> u64 {
    world.emulator().counters().of(Operation::GetBlob)
}

/// MD5 of a file, read by another process: one that waits for a mount that dies must not be ours.
fn md5_of(world: &World, path: &Path) -> String {
    let printed = world.run(Command::new("md5sum").arg(path), READ_WITHIN).success();
    printed.split(' ').next().unwrap().to_owned()
}

/// Bytes of all files below a directory.
fn disk_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

#[test]
fn a_new_mount_reads_from_the_cache_directory() {
    let world = world();
    let bytes = noise(9 << 20, 1);
    world.emulator().put(world.container(), "big", bytes.clone(), &[]).unwrap();
    let cache = world.path("cache");
    let args = ["--cache-dir", cache.to_str().unwrap(), "--cache-free", "0", "--cache-size", "100MiB"];
    let mount = world.mount(&args);
    assert_eq!(md5_of(&world, &mount.path("big")), md5_of_bytes(&bytes));
    mount.unmount();
    let before = reads(&world);
    assert!(before > 0);
    let mount = world.mount(&args);
    assert_eq!(md5_of(&world, &mount.path("big")), md5_of_bytes(&bytes));
    assert_eq!(reads(&world), before, "read from the disk alone");
    // A new version is another one.
    let other = noise(9 << 20, 2);
    world.emulator().put(world.container(), "big", other.clone(), &[]).unwrap();
    assert_eq!(md5_of(&world, &mount.path("big")), md5_of_bytes(&other));
    mount.unmount();
}

#[test]
fn a_kill_in_the_middle_of_filling_leaves_no_wrong_byte() {
    let world = world();
    let bytes = noise(96 << 20, 3);
    world.emulator().put(world.container(), "big", bytes.clone(), &[]).unwrap();
    let cache = world.path("cache");
    let args = ["--cache-dir", cache.to_str().unwrap(), "--cache-free", "0"];
    let (mut partly, mut kills) = (0, 0);
    for round in 0..8 {
        let mount = world.mount(&args);
        let on_disk = disk_bytes(&cache);
        let mut reader = Command::new("cat").arg(mount.path("big")).stdout(Stdio::null()).spawn().unwrap();
        // Until some more of it is on disk, or all is read.
        let (end, more) = (Instant::now() + READ_WITHIN, on_disk + (2 << 20) * (round + 1));
        while disk_bytes(&cache) < more && reader.try_wait().unwrap().is_none() && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        kills += u64::from(reader.try_wait().unwrap().is_none());
        mount.end_with(Signal::SIGKILL);
        reader.wait().unwrap();
        let before = reads(&world);
        let mount = world.mount(&args);
        assert_eq!(md5_of(&world, &mount.path("big")), md5_of_bytes(&bytes), "round {round}");
        partly += u64::from(reads(&world) > before);
        mount.end_with(Signal::SIGKILL);
        if round % 2 == 1 {
            fs::remove_dir_all(&cache).unwrap();
        }
    }
    assert!(kills > 0 && partly > 0, "{kills} kills, {partly} readings that found a part");
}

#[test]
fn the_second_mount_on_a_cache_directory_says_who_has_it_and_works() {
    let world = world();
    world.emulator().put(world.container(), "a", "text", &[]).unwrap();
    let cache = world.path("cache");
    let args = ["--cache-dir", cache.to_str().unwrap(), "--cache-free", "0"];
    let first = world.mount(&args);
    let second = world.mount(&args);
    assert_eq!(fs::read_to_string(second.path("a")).unwrap(), "text");
    let told = second.unmount().log;
    assert!(told.contains("uses") && told.contains("each process needs one of its own"), "{told}");
    assert!(!first.unmount().log.contains("cache directory"));
}

#[test]
fn warmup_fills_the_cache_directory_and_skips_what_is_there() {
    let world = world();
    for (at, length) in [1, 70_000, 3 << 20, 5 << 20, 23 << 20].into_iter().enumerate() {
        world.emulator().put(world.container(), &format!("d/{at}"), noise(length, at as u64), &[]).unwrap();
    }
    let cache = world.path("cache");
    let mount = world.mount(&["--cache-dir", cache.to_str().unwrap(), "--cache-free", "0"]);
    let root = mount.path("d");
    let warm = |args: &[&str]| world.run(&mut world.command(args), READ_WITHIN);
    let first = warm(&["warmup", root.to_str().unwrap()]);
    assert!(first.stderr.contains("5 files") && first.stderr.contains("0 files were there"), "{}", first.stderr);
    assert!(!first.stderr.contains("not wholly"), "{}", first.stderr);
    let before = reads(&world);
    let second = warm(&["warmup", root.to_str().unwrap(), "--jobs", "2"]);
    assert!(second.stderr.contains("0 B read, 5 files were there"), "{}", second.stderr);
    assert_eq!(reads(&world), before);
    mount.unmount();
    let mount = world.mount(&["--cache-dir", cache.to_str().unwrap(), "--cache-free", "0"]);
    let before = reads(&world);
    assert_eq!(md5_of(&world, &mount.path("d/4")), md5_of_bytes(&noise(23 << 20, 4)));
    assert_eq!(reads(&world), before);
    mount.unmount();
}

#[test]
fn a_volume_warms_itself_up_and_goes_on_where_it_was() {
    let world = world();
    for (at, length) in [1, 70_000, 3 << 20, 9 << 20].into_iter().enumerate() {
        world.emulator().put(world.container(), &format!("d/e/{at}"), noise(length, at as u64), &[]).unwrap();
    }
    for other in ["single", "d-other", "other/x"] {
        world.emulator().put(world.container(), other, noise(70_000, 9), &[]).unwrap();
    }
    let cache = world.path("cache");
    let args = |size| {
        let cache = ["--cache-dir", cache.to_str().unwrap(), "--cache-free", "0", "--cache-size", size];
        [cache.as_slice(), &["-o", "warmup=d:/single:missing", "--log-level", "info"]].concat()
    };
    let mount = world.mount(&args("100MiB"));
    let log = mount.wait_for_log("the warm-up is over");
    assert!(log.contains("files=5 there=0 "), "{log}");
    let before = reads(&world);
    assert_eq!(md5_of(&world, &mount.path("d/e/3")), md5_of_bytes(&noise(9 << 20, 3)));
    assert_eq!(md5_of(&world, &mount.path("single")), md5_of_bytes(&noise(70_000, 9)));
    assert_eq!(reads(&world), before);
    for other in ["d-other", "other/x"] {
        md5_of(&world, &mount.path(other));
    }
    assert_eq!(reads(&world), before + 2, "what was not named was not fetched");
    mount.unmount();
    let mount = world.mount(&args("100MiB"));
    let log = mount.wait_for_log("the warm-up is over");
    assert!(log.contains("files=5 there=5 bytes=0"), "{log}");
    assert_eq!(reads(&world), before + 2);
    mount.unmount();
    fs::remove_dir_all(&cache).unwrap();
    let mount = world.mount(&args("4MiB"));
    let log = mount.wait_for_log("the cache has no room");
    assert!(log.contains("--cache-size"), "{log}");
    assert!(disk_bytes(&cache) <= 4 << 20);
    mount.unmount();
}

#[test]
fn warmup_says_what_it_could_not_do() {
    let world = world();
    world.emulator().put(world.container(), "a", noise(70_000, 1), &[]).unwrap();
    // Without a cache directory it fills memory, and says so.
    let mount = world.mount(&[]);
    let list = world.path("list");
    fs::write(&list, format!("{}\n", mount.path("a").display())).unwrap();
    let told = world.run(&mut world.command(&["warmup", "--from", list.to_str().unwrap()]), READ_WITHIN);
    assert!(told.stderr.contains("1 files are not wholly in a cache directory"), "{}", told.stderr);
    let missing = mount.path("missing");
    let ended = world.run(&mut world.command(&["warmup", missing.to_str().unwrap()]), READ_WITHIN);
    let told = ended.stderr;
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("missing") && told.contains("1 files or directories could not be read"), "{told}");
    mount.unmount();
}
