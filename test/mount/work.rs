//! Longer work on a mount: what `programs` does once is done again, changed, and done from the mount itself.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use harness::{World, tree::tree};

use crate::world;

/// Far more than any step takes on a machine that is shared with a build.
const LIMIT: Duration = Duration::from_secs(180);

fn run(world: &World, directory: &Path, program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    // git must not read the settings of whoever runs the test.
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").current_dir(directory);
    world.run(command.args(args), LIMIT).success()
}

fn git(world: &World, directory: &Path, args: &[&str]) -> String {
    let who = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "gc.auto=0"];
    run(world, directory, "git", &[&who[..], args].concat())
}

/// The project's sources, with a link, an executable and odd modes.
fn sources(world: &World) -> std::path::PathBuf {
    let root = world.directory("local");
    run(world, Path::new(env!("CARGO_MANIFEST_DIR")), "cp", &["-r", "src", "proto", root.to_str().unwrap()]);
    std::os::unix::fs::symlink("src/lib.rs", root.join("link")).unwrap();
    fs::write(root.join("run ünï.sh"), b"#!/bin/sh\necho ran\n").unwrap();
    for (name, mode) in [("run ünï.sh", 0o755), ("src/lib.rs", 0o600), ("src/fs", 0o2750)] {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    root
}

#[test]
fn rsync_finds_nothing_to_do_after_its_own_copy_and_a_fresh_mount() {
    let world = world();
    let from = format!("{}/", sources(&world).display());
    let mount = world.mount(&[]);
    run(&world, mount.root(), "rsync", &["-a", &from, "copy"]);
    // Lists whatever differs in bytes (--checksum), size, time, mode, owner or link.
    let compare = ["-a", "--checksum", "--itemize-changes", "--dry-run", &from, "copy"];
    assert_eq!(run(&world, mount.root(), "rsync", &compare), "");
    assert_eq!(run(&world, &mount.path("copy"), "./run ünï.sh", &[]), "ran\n");
    mount.unmount();
    let fresh = world.mount(&[]);
    assert_eq!(run(&world, fresh.root(), "rsync", &compare), "");
    fs::write(fresh.path("copy/src/lib.rs"), b"changed").unwrap();
    assert!(run(&world, fresh.root(), "rsync", &compare).contains("src/lib.rs"), "the comparison sees a change");
    fresh.unmount();
}

#[test]
fn git_moves_packs_and_checks_out_and_a_fresh_mount_shows_the_same() {
    let world = world();
    let source = sources(&world);
    git(&world, &source, &["init", "--quiet"]);
    git(&world, &source, &["add", "--all"]);
    git(&world, &source, &["commit", "--quiet", "--message", "one"]);
    let mount = world.mount(&[]);
    git(&world, mount.root(), &["clone", "--quiet", "--no-hardlinks", source.to_str().unwrap(), "clone"]);
    let clone = mount.path("clone");
    git(&world, &clone, &["mv", "src", "moved sources"]);
    git(&world, &clone, &["commit", "--quiet", "--message", "two"]);
    git(&world, &clone, &["gc", "--quiet"]);
    git(&world, &clone, &["checkout", "--quiet", "HEAD~1"]);
    git(&world, &clone, &["checkout", "--quiet", "-"]);
    git(&world, &clone, &["fsck", "--strict"]);
    assert_eq!(git(&world, &clone, &["status", "--porcelain"]), "");
    let before = tree(&clone);
    mount.unmount();
    let fresh = world.mount(&[]);
    assert!(tree(&fresh.path("clone")) == before, "a fresh mount shows another tree");
    git(&world, &fresh.path("clone"), &["fsck", "--strict"]);
    fresh.unmount();
}
