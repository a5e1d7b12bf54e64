//! What POSIX promises of names, attributes and permissions: pjdfstest as root and as two other users.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

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
    let said = world.run(&mut command, SUITE_LIMIT).stdout;
    let verdict = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, verdict) = (words.next()?, words.next()?);
        let is_case = name.contains("::") && matches!(verdict, "ok" | "FAILED" | "skipped");
        is_case.then(|| (name.to_owned(), verdict.to_owned()))
    };
    (said.lines().filter_map(verdict).collect(), said)
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
