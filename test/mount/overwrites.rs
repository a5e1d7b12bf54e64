//! Overwrites that are seen whole or not at all: by another mount whatever their sizes, and by nobody when the writer dies.

use std::{
    fs::{self, File, OpenOptions},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::world;

const MIB: usize = 1 << 20;

/// A writer gets its first bytes down within a fraction of it.
const WRITING_MAX: Duration = Duration::from_secs(30);

#[test]
fn each_overwrite_is_seen_with_its_own_size_and_no_byte_of_the_ones_before() {
    let world = world();
    world.emulator().put(world.container(), "shared", vec![0xff; 3 * MIB], &[]).unwrap();
    let (writer, reader) = (world.mount(&[]), world.mount(&[]));
    assert_eq!(fs::read(reader.path("shared")).unwrap().len(), 3 * MIB);
    // Longer, shorter, equally long, empty: neither size nor pages of the version before may shine through.
    for (round, length) in [5 * MIB, 7 * MIB + 3, MIB - 1, MIB - 1, 0, 9 * MIB].into_iter().enumerate() {
        fs::write(writer.path("shared"), vec![round as u8; length]).unwrap();
        for look in ["cold", "with pages cached by the kernel"] {
            let size = File::open(reader.path("shared")).unwrap().metadata().unwrap().len();
            assert_eq!(size, length as u64, "round {round}, {look}");
            let bytes = fs::read(reader.path("shared")).unwrap();
            let others = bytes.iter().filter(|byte| **byte != round as u8).count();
            assert_eq!((bytes.len(), others), (length, 0), "round {round}, {look}");
        }
    }
    writer.unmount();
    reader.unmount();
}

#[test]
fn only_one_of_two_mounts_makes_a_lock_file() {
    let world = world();
    let (a, b) = (world.mount(&[]), world.mount(&[]));
    for round in 0..4 {
        let name = format!("lock{round}");
        let make = |path| OpenOptions::new().write(true).create_new(true).open(path).map(drop);
        let (first, second) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        make(first.path(&name)).unwrap();
        assert_eq!(make(second.path(&name)).unwrap_err().raw_os_error(), Some(libc::EEXIST));
    }
    a.unmount();
    b.unmount();
}

#[test]
fn an_overwrite_whose_mount_is_killed_before_its_close_leaves_the_old_version() {
    let world = world();
    let old = vec![0x11; 4 * MIB];
    world.emulator().put(world.container(), "file", old.clone(), &[]).unwrap();
    let mount = world.mount(&[]);
    // A process of its own: a descriptor here would be closed, and so committed, by any child that this process starts.
    let mut writer = Command::new("dd")
        .args(["if=/dev/zero", "bs=64k", "conv=notrunc", &format!("of={}", mount.path("file").display())])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let written = || fs::read_to_string(format!("/proc/{}/io", writer.id())).unwrap_or_default();
    let deadline = Instant::now() + WRITING_MAX;
    while !written()
        .lines()
        .any(|line| line.strip_prefix("wchar: ").is_some_and(|bytes| bytes.parse::<usize>().unwrap() > 32 * MIB))
    {
        assert!(Instant::now() < deadline, "dd does not get on");
        thread::sleep(Duration::from_millis(5));
    }
    mount.end_with(Signal::SIGKILL);
    assert!(!writer.wait().unwrap().success(), "its next write fails");
    assert!(world.emulator().get(world.container(), "file").unwrap() == old, "half an overwrite is seen");
    let fresh = world.mount(&[]);
    assert!(fs::read(fresh.path("file")).unwrap() == old);
    fresh.unmount();
}
