//! Real programs on real mounts: each does its usual work in a volume with default options, is killed where it claims to
//! survive that, and its work is looked at again through a fresh mount.
//!
//! | file | programs |
//! |---|---|
//! | `everyday` | editors, dd, archivers, Python's standard library, logrotate, inotify: the same as on a local disk |
//! | `git` | git: clone, branches, worktree, stash, gc, fsck |
//! | `backups` | restic and borg with their repositories in a volume |
//! | `builds` | cargo and make: exec, mmap, and times that tell what is new |
//! | `npm` | packages, links to programs, a cache |
//! | `pip` | a virtual environment, a wheel, imports |
//! | `sqlite` | SQLite with and without a write-ahead log, killed and killed with its mount |
//! | `mariadb` | MariaDB, killed and killed with its mount; its backups, restored through another mount |
//! | `pod` | a web application with another user, and the mount options of blobfuse |
//! | `postgres` | PostgreSQL under pgbench, killed and killed with its mount |
//! | `ray_logs` | the logs of a Ray cluster: appended, rotated, and read elsewhere meanwhile |
//! | `stress` | stress-ng: thirty kinds of system calls at once |
//! | `rsync`, `tar`, `azcopy` | copies that keep every attribute |
//! | `watcher` | pipelines that wait for data sets of other clients |
//!
//! `AZBLOB_TEST=long` (`make test-long`) gives the databases minutes instead of seconds.

// Helpers of tests fail the test by panicking, like the tests themselves.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "programs/azcopy.rs"]
mod azcopy;
#[path = "programs/background.rs"]
mod background;
#[path = "programs/backups.rs"]
mod backups;
#[path = "programs/builds.rs"]
mod builds;
#[path = "programs/everyday.rs"]
mod everyday;
#[path = "programs/git.rs"]
mod git;
#[path = "programs/listing.rs"]
mod listing;
#[path = "programs/mariadb.rs"]
mod mariadb;
#[path = "programs/npm.rs"]
mod npm;
#[path = "programs/pip.rs"]
mod pip;
#[path = "programs/pod.rs"]
mod pod;
#[path = "programs/postgres.rs"]
mod postgres;
#[path = "programs/ray_logs.rs"]
mod ray_logs;
#[path = "programs/rsync.rs"]
mod rsync;
#[path = "programs/script.rs"]
mod script;
#[path = "programs/sqlite.rs"]
mod sqlite;
#[path = "programs/stress.rs"]
mod stress;
#[path = "programs/tar.rs"]
mod tar;
#[path = "programs/watcher.rs"]
mod watcher;

use harness::World;

/// A world around the binary that was just built.
fn world() -> World {
    World::new(env!("CARGO_BIN_EXE_azblob-csi"))
}
