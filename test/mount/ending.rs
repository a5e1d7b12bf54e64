//! Every orderly end saves first, and the process's output is clean.

use std::{
    fs,
    io::Write as _,
    time::{Duration, Instant},
};

use blob_emulator::{FaultKind, FaultRule};
use harness::tree::noise;
use nix::sys::signal::Signal;

use crate::world;

#[test]
fn a_signal_saves_open_files_and_unmounts() {
    let world = world();
    let mount = world.mount(&[]);
    let bytes = noise(3 << 20, 1);
    let mut file = fs::File::create(mount.path("open.bin")).unwrap();
    file.write_all(&bytes).unwrap();
    // Still open and never synced: SIGINT comes from a terminal while a program writes.
    let ended = mount.end_with(Signal::SIGINT);
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(world.emulator().get(world.container(), "open.bin").as_deref() == Some(&bytes[..]));
}

#[test]
fn unmounting_from_outside_ends_the_process_with_success() {
    let world = world();
    let mount = world.mount(&[]);
    fs::write(mount.path("a"), b"kept").unwrap();
    nix::mount::umount(mount.root()).unwrap();
    let ended = mount.end_with(Signal::SIGTERM);
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(world.emulator().get(world.container(), "a").as_deref(), Some(&b"kept"[..]));
}

#[test]
fn being_told_to_end_while_saving_after_an_unmount_from_outside_is_no_reason_to_stop_saving() {
    let world = world();
    let mount = world.mount(&["-o", "io_deadline=2s,commit_deadline=2s"]);
    let stall = |duration| FaultRule::new(FaultKind::Stall { duration, after_bytes: None });
    world.emulator().fault(stall(Duration::from_secs(600)));
    fs::write(mount.path("a"), b"kept").unwrap();
    world.emulator().clear_faults();
    // Slow, not silent.
    world.emulator().fault(stall(Duration::from_millis(700)));
    nix::mount::umount(mount.root()).unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while !mount.log().contains("unmounted from outside") && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    let ended = mount.end_with(Signal::SIGTERM);
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(world.emulator().get(world.container(), "a").as_deref(), Some(&b"kept"[..]));
}

#[test]
fn the_most_talkative_log_holds_no_secret() {
    let world = world();
    let mount = world.mount(&["--log-level", "trace"]);
    fs::write(mount.path("a"), noise(100_000, 2)).unwrap();
    fs::read(mount.path("a")).unwrap();
    fs::rename(mount.path("a"), mount.path("b")).unwrap();
    let log = mount.unmount().log;
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log is not talkative: {log}");
    world.assert_no_secret(&log);
}

#[test]
fn a_read_only_mount_reads_and_refuses_changes() {
    let world = world();
    world.emulator().put(world.container(), "a", &b"text"[..], &[]).unwrap();
    let mount = world.mount(&["-o", "ro"]);
    assert_eq!(fs::read(mount.path("a")).unwrap(), b"text");
    let refused = fs::write(mount.path("b"), b"x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(nix::libc::EROFS));
    mount.unmount();
    assert_eq!(world.emulator().names(world.container()), ["a"]);
}

#[test]
fn a_prefix_is_the_root_of_its_mount() {
    let world = world();
    world.emulator().put(world.container(), "in/side", &b"1"[..], &[]).unwrap();
    world.emulator().put(world.container(), "outside", &b"2"[..], &[]).unwrap();
    let mount = world.mount(&["-o", "subdirectory=in"]);
    let names: Vec<_> = fs::read_dir(mount.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["side"]);
    fs::write(mount.path("new"), b"3").unwrap();
    mount.unmount();
    assert_eq!(world.emulator().names(world.container()), ["in/new", "in/side", "outside"]);
}
