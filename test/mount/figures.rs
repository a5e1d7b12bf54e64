//! `.azblob-stats` in the root of a mount: found by its name and by nothing else, read whole, never written.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
    time::Duration,
};

use harness::run;

use crate::world;

const NAME: &str = ".azblob-stats";
const LIMIT: Duration = Duration::from_secs(60);

/// The number of a figure.
fn figure(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn errno<T>(outcome: io::Result<T>) -> Option<i32> {
    outcome.err().and_then(|error| error.raw_os_error())
}

#[test]
fn the_file_of_figures_is_a_snapshot_at_each_open_and_asks_the_service_nothing() {
    let world = world();
    world.emulator().put(world.container(), "blob", vec![7; 300_000], &[]).unwrap();
    let mount = world.mount(&["-o", "stats_file"]);
    let path = mount.path(NAME);
    let mut early = File::open(&path).unwrap();
    assert_eq!(fs::read(mount.path("blob")).unwrap().len(), 300_000);
    fs::write(mount.path("new"), [8; 5000]).unwrap();

    let requests = world.emulator().counters().total();
    let late = fs::read_to_string(&path).unwrap();
    assert_eq!(figure(&late, "azblob_csi_read_bytes_total"), 300_000.0);
    assert_eq!(figure(&late, "azblob_csi_written_bytes_total"), 5000.0);
    assert!(late.contains("azblob_csi_operations_total{operation=\"create\"} 1\n"), "{late}");
    assert!(late.contains("azblob_csi_operation_duration_seconds_count{operation=\"create\"} 1\n"), "{late}");
    assert!(!late.contains("_bucket") && !late.contains('#') && !late.contains("blob\"") && late.len() < 16 << 10);
    let mut text = String::new();
    early.read_to_string(&mut text).unwrap();
    assert_eq!(figure(&text, "azblob_csi_read_bytes_total"), 0.0, "as it was when it was opened: {text}");

    // Every way to read it, piece by piece, and past its end.
    let file = File::open(&path).unwrap();
    let mut piece = [0; 10];
    file.read_exact_at(&mut piece, 5).unwrap();
    assert_eq!(&piece, b"b_csi_capa", "{}", String::from_utf8_lossy(&piece));
    assert_eq!(file.read_at(&mut piece, 1 << 40).unwrap(), 0);
    file.sync_all().unwrap();
    for script in ["cat f", "cp f /dev/stdout", "dd if=f bs=7 status=none", "head -c 100000 f", "grep -h '' f"] {
        let script = format!("set -e; ln -s '{}' f; {script}; rm f", path.display());
        let directory = world.directory("tools");
        let said = run(Command::new("sh").args(["-c", &script]).current_dir(directory), LIMIT).success();
        assert_eq!(figure(&said, "azblob_csi_written_bytes_total"), 5000.0, "{script}");
    }
    let stat = fs::metadata(&path).unwrap();
    assert!(stat.is_file() && stat.len() == 0 && stat.permissions().mode() & 0o222 == 0, "{stat:?}");
    run(Command::new("ls").arg("-l").arg(&path), LIMIT).success();
    assert_eq!(world.emulator().counters().total(), requests, "none of this is a request");
    mount.unmount();
}

#[test]
fn who_walks_the_volume_never_meets_the_file_of_figures() {
    let world = world();
    let mount = world.mount(&["-o", "stats_file"]);
    fs::create_dir(mount.path("d")).unwrap();
    fs::write(mount.path("d/a"), "1").unwrap();
    assert!(fs::read_to_string(mount.path(NAME)).unwrap().contains("azblob_csi_"));
    assert_eq!(names(mount.root()), ["d"]);
    let found = run(Command::new("find").arg(mount.root()).args(["-name", ".azblob*"]), LIMIT).success();
    assert_eq!(found, "");
    let copy = world.path("copy");
    run(Command::new("cp").arg("-a").arg(mount.root()).arg(&copy), LIMIT).success();
    assert_eq!(names(&copy), ["d"]);
    assert!(!mount.path("d").join(NAME).exists(), "it is in the root alone");
    fs::write(mount.path("d").join(NAME), "a file like any other").unwrap();
    mount.unmount();
    assert_eq!(world.emulator().names(world.container()), ["d", "d/.azblob-stats", "d/a"]);
}

#[test]
fn the_file_of_figures_cannot_be_changed_moved_or_replaced() {
    let world = world();
    let mount = world.mount(&["-o", "stats_file"]);
    let (path, other) = (mount.path(NAME), mount.path("other"));
    fs::write(&other, "1").unwrap();
    let eperm = Some(libc::EPERM);
    assert_eq!(errno(OpenOptions::new().write(true).open(&path)), eperm);
    assert_eq!(errno(OpenOptions::new().append(true).open(&path)), eperm);
    assert_eq!(errno(File::create(&path)), eperm);
    assert_eq!(errno(File::create_new(&path)), Some(libc::EEXIST));
    assert_eq!(errno(fs::set_permissions(&path, fs::Permissions::from_mode(0o666))), eperm);
    assert_eq!(errno(fs::remove_file(&path)), eperm);
    assert_eq!(errno(fs::rename(&path, mount.path("moved"))), eperm);
    assert_eq!(errno(fs::rename(&other, &path)), eperm);
    assert_eq!(errno(fs::create_dir(&path)), Some(libc::EEXIST));
    assert_eq!(errno(fs::remove_dir(&path)), Some(libc::ENOTDIR));
    assert_eq!(errno(fs::hard_link(&path, mount.path("link"))), eperm);
    assert_eq!(errno(nix::unistd::truncate(&path, 0).map_err(io::Error::from)), eperm);
    assert!(fs::read_to_string(&path).unwrap().contains("azblob_csi_written_bytes_total 1\n"));
    assert_eq!(names(mount.root()), ["other"]);
    mount.unmount();
    assert_eq!(world.emulator().names(world.container()), ["other"]);
}

#[test]
fn a_blob_of_that_name_is_hidden_with_a_word_and_is_there_again_without_the_option() {
    let world = world();
    world.emulator().put(world.container(), NAME, "a user's own", &[]).unwrap();
    let mount = world.mount(&["-o", "stats_file"]);
    assert!(fs::read_to_string(mount.path(NAME)).unwrap().contains("azblob_csi_"));
    assert_eq!(names(mount.root()), [""; 0]);
    let log = mount.wait_for_log("mount without -o stats_file");
    assert!(log.contains(NAME), "{log}");
    assert_eq!(errno(fs::remove_file(mount.path(NAME))), Some(libc::EPERM));
    mount.unmount();
    let mount = world.mount(&[]);
    assert_eq!(fs::read_to_string(mount.path(NAME)).unwrap(), "a user's own");
    assert_eq!(names(mount.root()), [NAME]);
    fs::remove_file(mount.path(NAME)).unwrap();
    assert!(!mount.path(NAME).exists());
    mount.unmount();
}
