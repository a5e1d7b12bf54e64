//! `azblob-csi mount` as a user sees it: the real binary, a real FUSE mount, a Blob service on loopback.
//!
//! | file | claim |
//! |---|---|
//! | `posix` | pjdfstest passes |
//! | `programs` | git, cp, tar, sqlite3 and fio work; what they wrote is what other clients read |
//! | `azurite` | the same on a service that we did not write |
//! | `fio` | eight jobs at once verify every block they wrote |
//! | `names` | every blob is reachable under its name, or hidden for a reason |
//! | `removing` | rm -r deletes many at once, and every end waits for them |
//! | `versions` | two mounts never mix versions or overwrite each other in silence |
//! | `tail` | readers follow a log that grows elsewhere |
//! | `overwrites` | an overwrite is seen whole, with its size, or not at all |
//! | `work` | rsync and longer work of git, with modes and times |
//! | `xattrs` | extended attributes, as programs use them |
//! | `failures` | what cannot be mounted says why and how to mend it, soon, and leaves nothing behind |
//! | `crash`, `kills` | what was acknowledged survives kill -9, two hundred times |
//! | `conflicts` | eight writers on two mounts lose no update without ESTALE |
//! | `silence` | a service that is silent or refuses: everything ends, and nothing is dropped |
//! | `locks` | flock and fcntl between programs |
//! | `idle` | who does nothing makes no request and lets the processors sleep |
//! | `keeper` | the keeper is small, holds what others give it and lets go of what nobody comes for |
//! | `takeover` | with a keeper, nobody notices that the process is killed or replaced |
//! | `memory` | memory stays inside the budget |
//! | `figures` | `.azblob-stats` tells what a volume does, and is met by nobody who does not ask for it |
//! | `stats` | what a mount does is shown by `azblob-csi stats` as it happens |
//! | `data` | fallocate, holes, O_DIRECT, mappings, O_SYNC, O_APPEND and truncation are as on a local disk |
//! | `hierarchy` | the same on an account with a hierarchical namespace |
//! | `disk` | what was read survives the process on the node's disk, and is never wrong |
//! | `ending` | every orderly end saves first |

// Helpers of tests fail the test by panicking, like the tests themselves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "mount/azurite.rs"]
mod azurite;
#[path = "mount/behind.rs"]
mod behind;
#[path = "mount/conflicts.rs"]
mod conflicts;
#[path = "mount/crash.rs"]
mod crash;
#[path = "mount/data.rs"]
mod data;
#[path = "mount/disk.rs"]
mod disk;
#[path = "mount/ending.rs"]
mod ending;
#[path = "mount/failures.rs"]
mod failures;
#[path = "mount/figures.rs"]
mod figures;
#[path = "mount/fio.rs"]
mod fio;
#[path = "mount/hierarchy.rs"]
mod hierarchy;
#[path = "mount/idle.rs"]
mod idle;
#[path = "mount/keeper.rs"]
mod keeper;
#[path = "mount/kills.rs"]
mod kills;
#[path = "mount/locks.rs"]
mod locks;
#[path = "mount/memory.rs"]
mod memory;
#[path = "mount/names.rs"]
mod names;
#[path = "mount/overwrites.rs"]
mod overwrites;
#[path = "mount/posix.rs"]
mod posix;
#[path = "mount/programs.rs"]
mod programs;
#[path = "mount/removing.rs"]
mod removing;
#[path = "mount/silence.rs"]
mod silence;
#[path = "mount/stats.rs"]
mod stats;
#[path = "mount/tail.rs"]
mod tail;
#[path = "mount/takeover.rs"]
mod takeover;
#[path = "mount/versions.rs"]
mod versions;
#[path = "mount/work.rs"]
mod work;
#[path = "mount/xattrs.rs"]
mod xattrs;

use harness::World;

/// A world around the binary that was just built.
fn world() -> World {
    World::new(env!("CARGO_BIN_EXE_azblob-csi"))
}
