//! Mounts as a whole: two of one container, read-only, busy, killed.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
};

use harness::{mountinfo::mounts_below, tree::noise};
use nix::{
    errno::Errno,
    mount::{MntFlags, umount, umount2},
};

use crate::world;

fn errno(error: &std::io::Error) -> Option<i32> {
    error.raw_os_error()
}

#[test]
fn an_open_sees_every_close_on_the_other_mount() {
    let world = world();
    world.emulator().put(world.container(), "f", &b"first"[..], &[]).unwrap();
    let (one, two) = (world.mount(&[]), world.mount(&[]));
    // Sizes that grow, shrink and stay, with pages of the version before in the second mount's page cache.
    for (round, length) in [100_000, 2 << 20, 2 << 20, 5, 0, 70_000].into_iter().enumerate() {
        let bytes = noise(length, round as u64);
        let mut file = File::create(one.path("f")).unwrap();
        file.write_all(&bytes).unwrap();
        // What close(2) says counts, and nobody hears it of a value that is dropped.
        nix::unistd::close(file).unwrap();
        let kept = world.emulator().get(world.container(), "f").unwrap();
        assert!(kept == bytes, "round {round}: the service has {} bytes of {length}", kept.len());
        let read = fs::read(two.path("f")).unwrap();
        assert_eq!(read.len(), length, "round {round}");
        assert!(read == bytes, "round {round}");
        assert_eq!(fs::metadata(two.path("f")).unwrap().len(), length as u64, "round {round}");
    }
    one.unmount();
    two.unmount();
}

#[test]
fn a_read_only_mount_reads_and_refuses_every_change() {
    let world = world();
    world.emulator().put(world.container(), "f", &b"text"[..], &[]).unwrap();
    let mount = world.mount(&["-o", "ro"]);
    assert_eq!(fs::read(mount.path("f")).unwrap(), b"text");
    let refusals = [
        fs::write(mount.path("new"), b"x"),
        fs::remove_file(mount.path("f")),
        fs::rename(mount.path("f"), mount.path("g")),
        fs::create_dir(mount.path("d")),
        File::options().append(true).open(mount.path("f")).map(drop),
    ];
    for refused in refusals {
        assert_eq!(errno(&refused.unwrap_err()), Some(libc::EROFS));
    }
    mount.unmount();
    assert_eq!(world.emulator().get(world.container(), "f").as_deref(), Some(&b"text"[..]));
}

#[test]
fn a_mount_in_use_is_busy_and_its_end_saves_what_is_open() {
    let world = world();
    let mount = world.mount(&[]);
    let mut file = File::create(mount.path("f")).unwrap();
    file.write_all(b"kept").unwrap();
    assert_eq!(umount(mount.root()), Err(Errno::EBUSY));
    file.write_all(b", still").unwrap();
    mount.unmount();
    assert_eq!(world.emulator().get(world.container(), "f").as_deref(), Some(&b"kept, still"[..]));
    assert!(file.write_all(b"too late").and_then(|()| file.sync_all()).is_err(), "a write after the end succeeds");
}

#[test]
fn the_mount_of_a_killed_process_answers_enotconn_until_it_is_detached() {
    let world = world();
    let mut mount = world.mount(&[]);
    let file = File::create(mount.path("f")).unwrap();
    file.write_all_at(b"acknowledged", 0).unwrap();
    file.sync_all().unwrap();
    mount.kill();
    assert_eq!(errno(&fs::metadata(mount.path("f")).unwrap_err()), Some(libc::ENOTCONN));
    assert_eq!(errno(&fs::read_dir(mount.root()).unwrap_err()), Some(libc::ENOTCONN));
    assert_eq!(errno(&file.write_all_at(b"more", 0).unwrap_err()), Some(libc::ENOTCONN));
    drop(file);
    umount2(mount.root(), MntFlags::MNT_DETACH).unwrap();
    assert_eq!(mounts_below(mount.root()), Vec::<String>::new());
    let again = world.mount_at(mount.root(), &[]);
    assert_eq!(fs::read(again.path("f")).unwrap(), b"acknowledged");
    again.unmount();
}
