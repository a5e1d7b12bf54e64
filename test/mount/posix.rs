//! What POSIX promises of names, attributes and permissions: pjdfstest as root and as two other users.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use blob_emulator::{FaultKind, FaultRule, Operation};
use harness::{Mount, World};

use crate::world;

/// The suite takes some 20 s; ten times that is a hang.
const SUITE_LIMIT: Duration = Duration::from_secs(240);

#[test]
fn every_applicable_case_of_pjdfstest_passes() {
    let world = world();
    let mount = world.mount(&["-o", "allow_other"]);
    check_suite(&world, &mount);
    mount.unmount();
}

#[test]
fn every_applicable_case_of_pjdfstest_passes_where_nothing_expires() {
    let world = world();
    let mount = world.mount(&["-o", "allow_other", "--consistency", "exclusive"]);
    check_suite(&world, &mount);
    mount.unmount();
}

#[test]
fn a_read_moves_the_access_time_as_relatime_does_and_noatime_turns_that_off() {
    let world = world();
    for (options, moves) in [("rw", true), ("noatime", false)] {
        world.emulator().put(world.container(), options, &b"text"[..], &[]).unwrap();
        let mount = world.mount(&["-o", options]);
        let path = mount.path(options);
        let times = || fs::metadata(&path).map(|found| (found.accessed().unwrap(), found.modified().unwrap())).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"text");
        let (read, written) = times();
        assert_eq!(read > written, moves, "{options}: {read:?} {written:?}");
        assert_eq!(fs::read(&path).unwrap(), b"text");
        assert_eq!(times().0, read, "{options}: a second read soon after does not count");
        mount.unmount();
    }
}

#[test]
fn a_hard_link_and_an_exchange_of_names_are_refused_with_one_line_each() {
    let world = world();
    let mount = world.mount(&[]);
    for name in ["a", "b"] {
        fs::write(mount.path(name), name).unwrap();
    }
    for _ in 0..3 {
        let linked = fs::hard_link(mount.path("a"), mount.path("c")).unwrap_err();
        assert_eq!(linked.raw_os_error(), Some(nix::libc::EPERM));
        let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
        let (here, a, b) = (nix::fcntl::AT_FDCWD, mount.path("a"), mount.path("b"));
        assert_eq!(nix::fcntl::renameat2(here, &a, here, &b, flags), Err(nix::errno::Errno::EINVAL));
    }
    let log = mount.unmount().log;
    assert_eq!((log.matches("hard link").count(), log.matches("exchange").count()), (1, 1), "{log}");
}

#[test]
fn a_rename_that_broke_off_is_named_at_the_next_mount_and_mv_completes_it() {
    let world = world();
    for index in 0..3 {
        world.emulator().put(world.container(), &format!("a/{index}"), &b"bytes"[..], &[]).unwrap();
    }
    let mount = world.mount(&[]);
    let refused = FaultKind::Status { status: 403, code: Some("AuthorizationFailure".to_owned()), retry_after: None };
    world.emulator().fault(FaultRule::new(refused).on(Operation::DeleteBlob).blob("a/1"));
    fs::rename(mount.path("a"), mount.path("z")).unwrap_err();
    world.emulator().clear_faults();
    let log = mount.unmount().log;
    assert!(log.contains("rename it again (mv -T)"), "{log}");
    let mount = world.mount(&[]);
    let log = mount.log();
    assert!(log.contains("was begun and did not end") && log.contains("from=\"a\" to=\"z\""), "{log}");
    world.run(Command::new("mv").arg("-T").args([mount.path("a"), mount.path("z")]), SUITE_LIMIT).success();
    mount.unmount();
    assert_eq!(world.emulator().names(world.container()), ["z/0", "z/1", "z/2"]);
}

/// What failed, and nothing else, is what may fail; and of what needs the file system read-only, nothing does.
fn check_suite(world: &World, mount: &Mount) {
    let_everybody_in(mount.root());
    let (verdicts, said) = pjdfstest(world, mount, "config.toml", &[]);
    assert!(verdicts.len() > 350, "only {} cases: {said}", verdicts.len());
    let failed: BTreeSet<_> = names(&verdicts, "FAILED");
    let excluded = exclusions();
    let unexpected: Vec<_> = failed.difference(&excluded).collect();
    assert!(unexpected.is_empty(), "these failed: {unexpected:?}\n{said}");
    let passing: Vec<_> = excluded.difference(&failed).collect();
    assert!(passing.is_empty(), "these pass: take them out of test/pjdfstest/exclusions.txt: {passing:?}");
    let (verdicts, said) = pjdfstest(world, mount, "remount.toml", &["erofs"]);
    assert!(names(&verdicts, "ok").len() >= 12, "{said}");
    assert_eq!(names(&verdicts, "FAILED"), BTreeSet::new(), "{said}");
}

fn names(verdicts: &BTreeMap<String, String>, verdict: &str) -> BTreeSet<String> {
    verdicts.iter().filter(|(_, found)| *found == verdict).map(|(name, _)| name.clone()).collect()
}

/// Runs the suite: the verdict on each case, and all that it said.
fn pjdfstest(world: &World, mount: &Mount, config: &str, patterns: &[&str]) -> (BTreeMap<String, String>, String) {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/pjdfstest");
    assert!(tool.exists(), "pjdfstest is not installed: run `make tools`");
    let mut command = Command::new(tool);
    command.arg("-c").arg(settings(config)).arg("-p").arg(mount.root());
    command.arg("-s").arg(world.directory("second")).args(patterns).env("NO_COLOR", "1").env("RUST_BACKTRACE", "0");
    command.env("PATH", format!("{}:{}", without_helpers(world).display(), std::env::var("PATH").unwrap()));
    let said = world.run(&mut command, SUITE_LIMIT).stdout;
    let verdict = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, verdict) = (words.next()?, words.next()?);
        let is_case = name.contains("::") && matches!(verdict, "ok" | "FAILED" | "skipped");
        is_case.then(|| (name.to_owned(), verdict.to_owned()))
    };
    (said.lines().filter_map(verdict).collect(), said)
}

/// A directory whose `mount` asks no helper: where fuse3 is installed, its own runs the program that the mount's type names,
/// to mount anew where a remount was asked for.
fn without_helpers(world: &World) -> PathBuf {
    let (directory, text) = (world.directory("bin"), "#!/bin/sh\nPATH=${PATH#*:} exec mount -i \"$@\"\n");
    fs::write(directory.join("mount"), text).unwrap();
    fs::set_permissions(directory.join("mount"), Permissions::from_mode(0o755)).unwrap();
    directory
}

fn settings(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("test/pjdfstest").join(name)
}

/// The cases that may fail.
fn exclusions() -> BTreeSet<String> {
    let text = fs::read_to_string(settings("exclusions.txt")).unwrap();
    text.lines().filter(|line| line.contains("::")).map(str::to_owned).collect()
}

/// The other users must get to the mount: the directories of tests are for their owner alone.
fn let_everybody_in(path: &Path) {
    let scratch = std::env::temp_dir();
    for directory in path.ancestors().skip(1).take_while(|directory| directory.starts_with(&scratch)) {
        let mode = fs::metadata(directory).unwrap().permissions().mode();
        fs::set_permissions(directory, Permissions::from_mode(mode | 0o011)).unwrap();
    }
}
