//! AzCopy with `--preserve-posix-properties`: what it uploads a mount shows with the same attributes, and what a mount wrote
//! it downloads as if it had uploaded it itself.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use harness::{World, tree::assert_same};

use crate::{
    listing::{ALL_FIELDS, ODD_TREE, assert_same_lines, listing, part_of},
    script::{script, text},
    world,
};

const LIMIT: Duration = Duration::from_secs(120);

fn client(path: &str) -> PathBuf {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/test/clients")).join(path);
    assert!(path.exists(), "{} is missing: run `make clients` first", path.display());
    path
}

/// A shared access signature that may do everything with blobs.
fn signature(world: &World) -> String {
    let mut command = Command::new(client(".venv/bin/python"));
    command.arg(client("sas.py")).arg("rlcwd");
    command.env("AZURE_STORAGE_CONNECTION_STRING", world.emulator().connection_string());
    world.run(&mut command, LIMIT).success().trim().to_owned()
}

fn azcopy(world: &World, arguments: &[&str]) {
    let binary = match std::env::consts::ARCH {
        "aarch64" => "azcopy_linux_arm64",
        _ => "azcopy_linux_amd64",
    };
    let mut command = Command::new(client("node_modules/@azure-tools/azcopy-linux/dist/bin").join(binary));
    for variable in ["HOME", "AZCOPY_LOG_LOCATION", "AZCOPY_JOB_PLAN_LOCATION"] {
        command.env(variable, world.directory("azcopy-state"));
    }
    command.arg("copy").args(arguments).args(["--recursive", "--output-level=essential"]);
    command.args(["--preserve-posix-properties", "--preserve-symlinks", "--include-directory-stub"]);
    world.run(&mut command, LIMIT).success();
}

fn download(world: &World, directory: &str, sas: &str) -> PathBuf {
    let to = world.directory(&format!("from-{directory}"));
    azcopy(world, &[&format!("{}/{directory}/*?{sas}", world.url()), text(&to), "--from-to=BlobLocal"]);
    to
}

#[test]
fn azcopy_and_the_mount_agree_about_modes_owners_times_links_and_pipes_both_ways() {
    let world = world();
    let (source, sas) = (world.directory("source"), signature(&world));
    script(&world, &source, ODD_TREE, &[]);
    let expected = listing(&world, &source);
    let everything = format!("{}/*", source.display());
    azcopy(&world, &[&everything, &format!("{}/theirs?{sas}", world.url()), "--from-to=LocalBlob"]);
    let mount = world.mount(&[]);
    assert_same_lines(&listing(&world, &mount.path("theirs")), &expected, "what AzCopy uploaded");
    assert_same(&source, &mount.path("theirs"));
    script(&world, mount.root(), "rsync -aH --modify-window=-1 \"$1/\" ours/", &[text(&source)]);
    mount.unmount();
    let (theirs, ours) = (download(&world, "theirs", &sas), download(&world, "ours", &sas));
    // AzCopy gives directories no attributes, links no time, and loses setuid when it sets the owner: so the measure
    // is what it makes of its own upload.
    let (theirs, ours) = (listing(&world, &theirs), listing(&world, &ours));
    let files = |listing: &[String]| part_of(listing, "fp", ALL_FIELDS);
    assert_same_lines(&files(&ours), &files(&theirs), "files and pipes that AzCopy downloaded");
    assert_same_lines(&part_of(&ours, "dl", 2), &part_of(&theirs, "dl", 2), "directories and links that it downloaded");
    let plain = |listing: &[String]| {
        let mut files = files(listing);
        files.retain(|line| !line.starts_with("tool|"));
        files
    };
    assert_same_lines(&plain(&ours), &plain(&expected), "files that went through the mount and AzCopy");
    assert!(plain(&ours).len() > 300);
}
