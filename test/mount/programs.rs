//! Everyday programs on a mount, and what they wrote as a fresh mount and other clients read it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use harness::{
    World,
    tree::{assert_same, md5_of, noise, tree},
};

use crate::world;

const LIMIT: Duration = Duration::from_secs(180);

fn program(world: &World, name: &str, args: &[&str]) -> String {
    let mut command = Command::new(name);
    // git asks who commits, and must not read the settings of whoever runs the test.
    for (key, value) in [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_AUTHOR_NAME", "test"),
        ("GIT_AUTHOR_EMAIL", "test@example.com"),
        ("GIT_COMMITTER_NAME", "test"),
        ("GIT_COMMITTER_EMAIL", "test@example.com"),
    ] {
        command.env(key, value);
    }
    world.run(command.args(args), LIMIT).success()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A tree like those that people have: this project's sources, empty, odd and larger files, an executable, a link.
fn local_tree(world: &World) -> PathBuf {
    let root = world.directory("local");
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    program(world, "cp", &["-r", sources, text(&root.join("src"))]);
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("large.bin"), noise((9 << 20) + 17, 1)).unwrap();
    fs::create_dir_all(root.join("d\u{e9}p \u{f4}t/empty directory")).unwrap();
    fs::write(root.join("d\u{e9}p \u{f4}t/100%25"), b"odd name").unwrap();
    std::os::unix::fs::symlink("src/lib.rs", root.join("link")).unwrap();
    root
}

#[test]
fn git_clones_onto_the_mount_and_finds_nothing_wrong() {
    let world = world();
    let source = local_tree(&world);
    program(&world, "git", &["-C", text(&source), "init", "-q", "-b", "main"]);
    program(&world, "git", &["-C", text(&source), "add", "-A"]);
    program(&world, "git", &["-C", text(&source), "commit", "-q", "-m", "one"]);
    let mount = world.mount(&[]);
    let clone = mount.path("clone");
    program(&world, "git", &["clone", "-q", "--no-hardlinks", text(&source), text(&clone)]);
    assert_eq!(program(&world, "git", &["-C", text(&clone), "status", "--porcelain"]), "");
    program(&world, "git", &["-C", text(&clone), "fsck", "--strict"]);
    fs::write(clone.join("src/lib.rs"), b"changed").unwrap();
    program(&world, "git", &["-C", text(&clone), "commit", "-q", "-a", "-m", "two"]);
    let before = tree(&clone);
    mount.unmount();
    let fresh = world.mount(&[]);
    let clone = fresh.path("clone");
    assert!(tree(&clone) == before, "a fresh mount shows another tree");
    assert_eq!(program(&world, "git", &["-C", text(&clone), "status", "--porcelain"]), "");
    fresh.unmount();
}

#[test]
fn what_cp_and_tar_wrote_is_what_a_fresh_mount_azcopy_and_the_python_sdk_read() {
    let world = world();
    let local = local_tree(&world);
    let archive = world.path("local.tar");
    program(&world, "tar", &["-C", text(&local), "--format=posix", "-cf", text(&archive), "."]);
    let mount = world.mount(&[]);
    program(&world, "cp", &["-r", text(&local), text(&mount.path("copied"))]);
    fs::create_dir(mount.path("unpacked")).unwrap();
    program(&world, "tar", &["-C", text(&mount.path("unpacked")), "-xf", text(&archive)]);
    assert_same(&local, &mount.path("copied"));
    assert_same(&local, &mount.path("unpacked"));
    mount.unmount();
    let fresh = world.mount(&[]);
    assert_same(&local, &fresh.path("copied"));
    assert_same(&local, &fresh.path("unpacked"));
    let times = |root: &Path| fs::metadata(root.join("large.bin")).unwrap().modified().unwrap();
    assert_eq!(times(&local), times(&fresh.path("unpacked")), "tar restores times");
    fresh.unmount();
    let azcopy = download_with_azcopy(&world);
    let python = download_with_python(&world);
    let link = fs::read_link(azcopy.join("copied/link")).unwrap();
    assert_eq!(link, Path::new("src/lib.rs"), "AzCopy knows our links as links");
    for client in [azcopy, python] {
        for copy in ["copied", "unpacked"] {
            same_files(&local, &client.join(copy));
        }
    }
}

/// Every regular file of `local` is in `other` with the same bytes. Clients differ about links and empty directories.
#[track_caller]
fn same_files(local: &Path, other: &Path) {
    let mut compared = 0;
    for (name, what) in tree(local).into_iter().filter(|(_, what)| !what.starts_with(['/', '-'])) {
        assert_eq!(md5_of(&other.join(&name)), what, "{} below {}", name.display(), other.display());
        compared += 1;
    }
    assert!(compared > 50, "only {compared} files were compared");
}

fn clients(path: &str) -> PathBuf {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/test/clients")).join(path);
    assert!(path.exists(), "{} is missing: run `make clients` first", path.display());
    path
}

fn python(world: &World, script: &str) -> Command {
    let mut command = Command::new(clients(".venv/bin/python"));
    command.arg(clients(script)).env("AZURE_STORAGE_CONNECTION_STRING", world.emulator().connection_string());
    command
}

fn download_with_python(world: &World) -> PathBuf {
    let to = world.directory("python");
    world.run(python(world, "download.py").arg(world.container()).arg(&to), LIMIT).success();
    to
}

fn download_with_azcopy(world: &World) -> PathBuf {
    let to = world.directory("azcopy");
    let sas = world.run(&mut python(world, "sas.py"), LIMIT).success();
    let binary = match std::env::consts::ARCH {
        "aarch64" => "azcopy_linux_arm64",
        _ => "azcopy_linux_amd64",
    };
    let mut command = Command::new(clients("node_modules/@azure-tools/azcopy-linux/dist/bin").join(binary));
    for variable in ["HOME", "AZCOPY_LOG_LOCATION", "AZCOPY_JOB_PLAN_LOCATION"] {
        command.env(variable, world.directory("azcopy-state"));
    }
    command.args(["copy", &format!("{}/*?{}", world.url(), sas.trim())]).arg(&to);
    command.args(["--recursive", "--from-to=BlobLocal", "--check-md5=FailIfDifferent", "--output-level=essential"]);
    command.arg("--preserve-symlinks");
    world.run(&mut command, LIMIT).success();
    to
}

#[test]
fn sqlite_keeps_ten_thousand_rows_and_its_integrity() {
    let world = world();
    let mount = world.mount(&[]);
    let sql = "CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
        INSERT INTO t SELECT i, hex(randomblob(40)) FROM n;
        UPDATE t SET text = text || 'x' WHERE id % 7 = 0;
        DELETE FROM t WHERE id % 13 = 0;
        CREATE INDEX by_text ON t(text);
        INSERT INTO t SELECT id + 20000, text FROM t WHERE id % 13 = 1;";
    program(&world, "sqlite3", &[text(&mount.path("db")), sql]);
    let question = "PRAGMA integrity_check; SELECT count(*), sum(length(text)) FROM t;";
    let answer = program(&world, "sqlite3", &[text(&mount.path("db")), question]);
    assert!(answer.starts_with("ok\n10001|"), "{answer}");
    mount.unmount();
    let fresh = world.mount(&[]);
    assert_eq!(program(&world, "sqlite3", &[text(&fresh.path("db")), question]), answer);
    fresh.unmount();
    let names = world.emulator().names(world.container());
    assert_eq!(names, ["db"], "a journal was left behind");
}

#[test]
fn fio_verifies_every_block_of_sequential_and_random_writes() {
    let world = world();
    let mount = world.mount(&[]);
    let run = |name: &str, pattern: &str, block: &str| {
        let args = [
            &format!("--name={name}"),
            &format!("--filename={}", text(&mount.path(name))),
            &format!("--rw={pattern}"),
            &format!("--bs={block}"),
            "--size=256m",
            "--ioengine=psync",
            "--fallocate=none",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--do_verify=1",
            "--end_fsync=1",
            "--output-format=terse",
            // fio otherwise leaves its state in the directory of whoever runs the test.
            "--verify_state_save=0",
        ];
        program(&world, "fio", &args);
    };
    run("sequential", "write", "1m");
    run("random", "randwrite", "64k");
    let before = tree(mount.root());
    mount.unmount();
    let fresh = world.mount(&[]);
    assert!(tree(fresh.root()) == before, "a fresh mount reads other bytes");
    fresh.unmount();
    for name in ["sequential", "random"] {
        assert_eq!(world.emulator().get(world.container(), name).map(|bytes| bytes.len()), Some(256 << 20));
    }
}

/// Each fork of a process duplicates its descriptors, and each exec closes the copies: the kernel then sends a FLUSH for
/// a file that its writer still writes.
#[test]
fn forks_of_the_writer_commit_a_large_file_midway_without_losing_what_is_on_its_way() {
    let world = world();
    // Latency, so that blocks are on their way when the FLUSH comes.
    world.emulator().settings(|settings| settings.latency = Duration::from_millis(5));
    let mount = world.mount(&["--memory", "64MiB"]);
    let bytes = noise(160 << 20, 3);
    let mut file = fs::File::create(mount.path("big")).unwrap();
    let written = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !written.load(Ordering::Relaxed) {
                program(&world, "true", &[]);
            }
        });
        let outcome = file.write_all(&bytes).and_then(|()| file.sync_all());
        written.store(true, Ordering::Relaxed);
        outcome.unwrap();
    });
    drop(file);
    mount.unmount();
    assert!(world.emulator().get(world.container(), "big").as_deref() == Some(&bytes[..]), "other bytes were saved");
}
