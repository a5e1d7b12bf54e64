//! `rm -r` deletes many files at once; every orderly end waits for them, and a kill in the middle tears nothing.

use std::{fs, path::Path, process::Command, time::Duration};

use blob_emulator::{FaultKind, FaultRule, Operation};
use harness::World;
use nix::sys::signal::Signal;

use crate::world;

const CONTENT: &[u8] = b"content";

fn fill(world: &World, files: usize) {
    for index in 0..files {
        world.emulator().put(world.container(), &format!("d/{index:03}"), CONTENT, &[]).unwrap();
    }
}

fn remove(root: &Path, files: std::ops::Range<usize>) {
    for index in files {
        fs::remove_file(root.join(format!("d/{index:03}"))).unwrap();
    }
}

fn names(world: &World) -> Vec<String> {
    world.emulator().names(world.container())
}

#[test]
fn rm_r_deletes_many_files_at_once_and_returns_when_all_are_gone() {
    let world = world();
    fill(&world, 200);
    world.emulator().settings(|settings| settings.latency = Duration::from_millis(20));
    let mount = world.mount(&[]);
    let before = world.emulator().counters();
    world.run(Command::new("rm").arg("-r").arg(mount.path("d")), Duration::from_secs(60));
    assert_eq!(names(&world), [""; 0]);
    let after = world.emulator().counters();
    let deletes = after.of(Operation::DeleteBlob) - before.of(Operation::DeleteBlob);
    assert_eq!(deletes, 200 + 1, "one a file, and one for the directory");
    assert!(after.in_flight_max >= 16, "at most {} at once", after.in_flight_max);
    mount.unmount();
}

#[test]
fn sigterm_waits_for_files_that_are_being_deleted() {
    let world = world();
    fill(&world, 50);
    let mount = world.mount(&[]);
    remove(mount.root(), 0..10);
    world.emulator().settings(|settings| settings.latency = Duration::from_millis(200));
    remove(mount.root(), 10..40);
    let ended = mount.end_with(Signal::SIGTERM);
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let left = names(&world);
    assert_eq!(left.len(), 1 + 10, "{left:?}");
}

#[test]
fn a_kill_while_a_directory_is_emptied_leaves_files_deleted_or_whole() {
    let world = world();
    fill(&world, 50);
    let mount = world.mount(&[]);
    remove(mount.root(), 0..10);
    // Every other Delete gets through, as in the middle of them.
    let busy = FaultKind::Status { status: 503, code: None, retry_after: None };
    let rule = FaultRule::new(busy).on(Operation::DeleteBlob);
    for digit in ["1", "3", "5", "7", "9"] {
        world.emulator().fault(FaultRule { blob: Some(format!("d/*{digit}")), ..rule.clone() });
    }
    remove(mount.root(), 10..40);
    assert_eq!(fs::read_dir(mount.path("d")).unwrap().count(), 10);
    mount.end_with(Signal::SIGKILL);
    world.emulator().clear_faults();
    let fresh = world.mount(&[]);
    let mut shown: Vec<String> = fs::read_dir(fresh.path("d"))
        .unwrap()
        .map(|entry| format!("d/{}", entry.unwrap().file_name().to_string_lossy()))
        .collect();
    shown.sort();
    let held: Vec<String> = names(&world).into_iter().filter(|name| name != "d").collect();
    assert_eq!(shown, held);
    assert!(held.len() >= 10 + 15, "{held:?}");
    for name in &held {
        assert_eq!(fs::read(fresh.path(name)).unwrap(), CONTENT);
    }
    world.run(Command::new("rm").arg("-r").arg(fresh.path("d")), Duration::from_secs(60));
    assert_eq!(names(&world), [""; 0]);
    fresh.unmount();
}
