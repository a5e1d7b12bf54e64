//! The life of files and directories, and what the service has of it at each step.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use blob_emulator::Emulator;
use harness::{World, tree::noise};

use crate::{mapping::Mapping, world};

/// More than one message of the kernel holds, and than one of ours.
const NAMES: usize = 2000;
const MIB: usize = 1 << 20;

fn at_the_service(world: &World, name: &str) -> Option<Vec<u8>> {
    world.emulator().get(world.container(), name)
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn put_names(emulator: &Emulator, container: &str) -> Vec<String> {
    let names: Vec<String> = (0..NAMES).map(|number| format!("name-{number:05}")).collect();
    for name in &names {
        emulator.put(container, &format!("d/{name}"), name.clone().into_bytes(), &[]).unwrap();
    }
    names
}

#[test]
fn a_file_is_made_appended_to_changed_renamed_and_removed() {
    let world = world();
    let mount = world.mount(&[]);
    let mut bytes = noise(300_077, 1);
    fs::write(mount.path("a"), &bytes).unwrap();
    assert!(fs::read(mount.path("a")).unwrap() == bytes);
    let mut appending = OpenOptions::new().append(true).open(mount.path("a")).unwrap();
    appending.write_all(b"at the end").unwrap();
    drop(appending);
    bytes.extend_from_slice(b"at the end");
    let file = OpenOptions::new().read(true).write(true).open(mount.path("a")).unwrap();
    file.write_all_at(b"in the middle", 5000).unwrap();
    bytes[5000..5013].copy_from_slice(b"in the middle");
    let mut part = [0; 20];
    file.read_exact_at(&mut part, 4996).unwrap();
    assert_eq!(part, bytes[4996..5016]);
    drop(file);
    assert!(at_the_service(&world, "a").as_deref() == Some(&bytes[..]));

    fs::rename(mount.path("a"), mount.path("b")).unwrap();
    assert!(fs::read(mount.path("b")).unwrap() == bytes);
    assert_eq!(fs::read(mount.path("a")).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(world.emulator().names(world.container()), ["b"]);
    fs::remove_file(mount.path("b")).unwrap();
    assert_eq!(names(mount.root()), Vec::<String>::new());
    mount.unmount();
    assert_eq!(world.emulator().names(world.container()), Vec::<String>::new());
}

#[test]
fn fsync_returns_when_the_service_has_the_bytes_of_an_open_file() {
    let world = world();
    let mount = world.mount(&[]);
    let mut file = File::create(mount.path("f")).unwrap();
    let mut bytes = Vec::new();
    for (round, length) in [3, 70_000, 2 * MIB].into_iter().enumerate() {
        let more = noise(length, round as u64);
        file.write_all(&more).unwrap();
        bytes.extend_from_slice(&more);
        if round % 2 == 0 { file.sync_all() } else { file.sync_data() }.unwrap();
        assert!(at_the_service(&world, "f").as_deref() == Some(&bytes[..]), "round {round}");
    }
    file.set_len(10).unwrap();
    file.sync_all().unwrap();
    assert_eq!(at_the_service(&world, "f").as_deref(), Some(&bytes[..10]));
    drop(file);
    mount.unmount();
}

#[test]
fn directories_are_made_renamed_and_removed_when_they_are_empty() {
    let world = world();
    let mount = world.mount(&[]);
    fs::create_dir_all(mount.path("a/b")).unwrap();
    fs::write(mount.path("a/b/f"), b"1").unwrap();
    assert_eq!(fs::remove_dir(mount.path("a/b")).unwrap_err().raw_os_error(), Some(libc::ENOTEMPTY));
    fs::rename(mount.path("a"), mount.path("c")).unwrap();
    assert_eq!(fs::read(mount.path("c/b/f")).unwrap(), b"1");
    assert_eq!(names(mount.root()), ["c"]);
    fs::remove_file(mount.path("c/b/f")).unwrap();
    fs::remove_dir(mount.path("c/b")).unwrap();
    fs::remove_dir(mount.path("c")).unwrap();
    assert_eq!(names(mount.root()), Vec::<String>::new());
    mount.unmount();
    assert_eq!(world.emulator().names(world.container()), Vec::<String>::new());
}

/// The second reading is the kernel's own where it can (FOPEN_CACHE_DIR).
#[test]
fn two_thousand_names_are_listed_once_each_twice_over_and_as_they_change() {
    let world = world();
    let mut expected = put_names(world.emulator(), world.container());
    let mount = world.mount(&[]);
    for _ in 0..2 {
        assert_eq!(names(&mount.path("d")), expected);
    }
    for entry in fs::read_dir(mount.path("d")).unwrap().step_by(97) {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert_eq!(entry.metadata().unwrap().len(), name.len() as u64);
        assert_eq!(fs::read_to_string(entry.path()).unwrap(), name);
    }
    fs::remove_file(mount.path("d/name-01000")).unwrap();
    fs::rename(mount.path("d/name-01999"), mount.path("d/other")).unwrap();
    fs::write(mount.path("d/new"), b"").unwrap();
    expected.retain(|name| name != "name-01000" && name != "name-01999");
    expected.extend(["new".to_owned(), "other".to_owned()]);
    assert_eq!(names(&mount.path("d")), expected);
    mount.unmount();
}

#[test]
fn a_private_mapping_shows_the_file_and_a_shared_one_changes_it() {
    let world = world();
    let mut bytes = noise(MIB + 5, 3);
    world.emulator().put(world.container(), "f", bytes.clone(), &[]).unwrap();
    let mount = world.mount(&[]);
    let file = OpenOptions::new().read(true).write(true).open(mount.path("f")).unwrap();
    let private = Mapping::new(&file, bytes.len(), libc::MAP_PRIVATE);
    assert!(private.bytes() == bytes);
    let mut shared = Mapping::new(&file, bytes.len(), libc::MAP_SHARED);
    shared.write(70_000, b"through the mapping");
    bytes[70_000..70_019].copy_from_slice(b"through the mapping");
    shared.save();
    file.sync_all().unwrap();
    assert!(at_the_service(&world, "f").as_deref() == Some(&bytes[..]));
    drop((private, shared, file));
    mount.unmount();
}
