//! Eight jobs of fio at once, whose every block carries a checksum: on the mount that wrote it, and on another.

use std::{process::Command, time::Duration};

use harness::{Mount, World, tree::tree};

use crate::world;

/// Far more than any step takes on a machine that is shared with a build.
const LIMIT: Duration = Duration::from_secs(240);

/// Eight jobs of four files of 8 MiB each, in blocks of 128 KiB; every block that is read is verified.
fn fio(world: &World, mount: &Mount, pattern: &str) {
    let mut fio = Command::new("fio");
    fio.args(["--name=jobs", "--numjobs=8", "--nrfiles=4", "--size=32m", "--bs=128k", "--file_service_type=random"]);
    fio.args(["--ioengine=psync", "--fallocate=none", "--end_fsync=1", "--randseed=7", "--output-format=terse"]);
    // fio otherwise leaves its state in the directory of whoever runs the test.
    fio.args(["--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--verify_state_save=0"]);
    fio.arg(format!("--directory={}", mount.root().display())).arg(format!("--rw={pattern}"));
    world.run(&mut fio, LIMIT).success();
}

#[test]
fn eight_jobs_over_32_files_verify_every_block_here_and_on_a_fresh_mount() {
    let world = world();
    let mount = world.mount(&["--memory", "128MiB"]);
    fio(&world, &mount, "randwrite");
    fio(&world, &mount, "randrw");
    let before = tree(mount.root());
    assert_eq!(world.emulator().names(world.container()).len(), 32);
    mount.unmount();
    let fresh = world.mount(&[]);
    fio(&world, &fresh, "randread");
    assert!(tree(fresh.root()) == before, "a fresh mount reads other bytes");
    fresh.unmount();
}
