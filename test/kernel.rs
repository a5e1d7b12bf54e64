//! What depends on the kernel that serves programs: a short suite for every kernel that nodes run, from 5.15 on.
//!
//! `cargo test` runs it on this machine's kernel, `make test-kernel` on an older one as well, in a machine of its own
//! (`kernel/machine`). So it starts no program but the driver and itself, and expects of a kernel what its release says.
//!
//! | file | behaviour |
//! |---|---|
//! | `features` | what an older kernel lacks is done without, in silence |
//! | `files` | the life of files and directories, and what the service has of it |
//! | `attributes` | extended attributes, statfs |
//! | `locks` | flock and fcntl between processes |
//! | `mounts` | two of one container, read-only, busy, killed |
//! | `takeover` | with a keeper, where the kernel sends nothing again: killed and gone on with by the next process |
//!
//! `player` is a second process of a test, `worker` a program that goes on when a call is cut off, `mapping` a file in memory.

// Helpers of tests fail the test by panicking, like the tests themselves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "kernel/attributes.rs"]
mod attributes;
#[path = "kernel/features.rs"]
mod features;
#[path = "kernel/files.rs"]
mod files;
#[path = "kernel/locks.rs"]
mod locks;
#[path = "kernel/mapping.rs"]
mod mapping;
#[path = "kernel/mounts.rs"]
mod mounts;
#[path = "kernel/player.rs"]
mod player;
#[path = "kernel/takeover.rs"]
mod takeover;
#[path = "kernel/worker.rs"]
mod worker;

use harness::World;

/// A world around the binary that was just built.
fn world() -> World {
    World::new(env!("CARGO_BIN_EXE_azblob-csi"))
}
