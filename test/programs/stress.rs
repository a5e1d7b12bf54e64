//! stress-ng: thirty kinds of system calls at once in one volume, each of which checks what it gets.

use std::{process::Command, time::Duration};

use crate::world;

/// All that a volume promises, and what it refuses cleanly. Not: `link` (EPERM), `fiemap` and `verity` (no FUSE file system
/// has them), `io` (sync(2) of the whole machine).
const STRESSORS: &str = "access chdir chmod chown copy-file dentry dir dup fallocate fcntl filename flock fpunch fsize fstat \
    getdent hdd iomix lease locka lockf lockofd mmap rename seal seek sendfile splice symlink sync-file touch utime xattr";
/// Small files and few names: kinds of calls count here, not bytes.
const SIZES: &str = "--chdir-dirs 64 --dir-dirs 64 --dentries 64 --hdd-bytes 8M --iomix-bytes 8M --fallocate-bytes 8M \
    --copy-file-bytes 128M --mmap-bytes 8M --seek-size 8M --sendfile-size 1M --sync-file-bytes 8M";
const RUNS_FOR: &str = "8s";
/// It removes what it made after that, and other tests run beside it.
const ENDS_WITHIN: Duration = Duration::from_secs(200);

#[test]
fn stress_ng_finds_nothing_wrong_and_leaves_nothing() {
    let world = world();
    let mount = world.mount(&[]);
    let mut command = Command::new("stress-ng");
    for stressor in STRESSORS.split_whitespace() {
        command.args([&format!("--{stressor}"), "1"]);
    }
    command.args(SIZES.split_whitespace());
    command.args(["--filename-opts", "posix", "--timeout", RUNS_FOR, "--verify", "--temp-path"]).arg(mount.root());
    let ended = world.run(&mut command, ENDS_WITHIN);
    let told = format!("{}{}", ended.stdout, ended.stderr);
    assert!(ended.status.success() && told.contains("successful run completed"), "{told}");
    let log = mount.unmount().log;
    assert!(!log.contains(" ERROR "), "{log}");
    assert_eq!(world.emulator().names(world.container()), Vec::<String>::new());
}
