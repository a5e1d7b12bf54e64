//! fsx (the File System eXerciser) on real mounts: a random sequence of reads, writes, mappings, truncations, holes,
//! preallocations, copies, commits and reopenings of one file, each answer held against what it must be.
//!
//! `make test` runs 1,000,000 operations on files of up to 256 KiB and some on files of up to 64 MiB, from fixed seeds;
//! `make test-long` ten million of the former and a million of the latter. Other seeds: `FSX_SEED=12345 cargo test --test fsx`.
//!
//! Most runs divide all block sizes (mount option `test-block-divisor`): small files then have what large ones have,
//! such as blocks that are sent ahead, cut, copied, merged and kept.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use blob_emulator::{FaultKind, FaultRule, Operation};
use harness::{World, length};

/// Far more than an operation takes on a machine that is shared with a build, also where requests fail and are tried again.
const PER_OPERATION: Duration = Duration::from_millis(20);
/// What starting, unmounting and comparing take at most.
const BESIDE: Duration = Duration::from_secs(120);

/// Operations of one process. fsx never unmaps what it has mapped to read: with 300,000 operations it only walks its own
/// mappings in the kernel.
const PROCESS_OPERATIONS: u64 = 10_000;

/// One mount under some exercisers.
struct Run {
    name: &'static str,
    /// Files at once, each under one process after the other.
    files: u64,
    /// Operations on each file.
    operations: u64,
    /// `make test-long` does so many times as many.
    times_when_long: u64,
    /// Largest size of a file, in bytes.
    file_bytes: u64,
    /// Largest operation, in bytes.
    operation_bytes: u64,
    /// Each write through a mapping is followed by msync(2), and so by a commit.
    msync: bool,
    mount: &'static [&'static str],
    faults: Vec<FaultRule>,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            name: "",
            files: 2,
            operations: 0,
            times_when_long: 10,
            file_bytes: 256 << 10,
            operation_bytes: 64 << 10,
            msync: false,
            mount: &["-o", "test-block-divisor=256"],
            faults: Vec::new(),
        }
    }
}

/// Where the first exerciser's dice begin.
fn seed() -> u64 {
    std::env::var("FSX_SEED").map_or(1, |text| text.parse().expect("FSX_SEED is a number"))
}

fn exerciser() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/fsx");
    assert!(path.exists(), "{} is missing: run `make tools` first", path.display());
    path
}

impl Run {
    /// Every kind of operation, none of them on no byte (posix_fallocate(3) refuses that). Commits are rarer than in the
    /// life of most files, so that much is changed between two.
    fn config(&self) -> String {
        let Self { file_bytes, operation_bytes, msync, .. } = self;
        format!(
            "flen = {file_bytes}\nnomsyncafterwrite = {}\n[opsize]\nmin = 1\nmax = {operation_bytes}\n\
             [weights]\nclose_open = 1\ninvalidate = 1\nmapread = 10\nmapwrite = 10\nread = 10\nwrite = 10\n\
             truncate = 5\nfsync = 0.5\nfdatasync = 0.5\nposix_fallocate = 5\npunch_hole = 5\nsendfile = 2\n\
             posix_fadvise = 1\ncopy_file_range = 5\n",
            !msync
        )
    }

    fn go(self) {
        let operations = self.operations * length().of(1, self.times_when_long);
        let seed = seed();
        let limit = BESIDE + PER_OPERATION * u32::try_from(operations).unwrap();
        let world = World::new(env!("CARGO_BIN_EXE_azblob-csi")).with_mounts_of(limit + BESIDE);
        let config = world.path("fsx.toml");
        fs::write(&config, self.config()).unwrap();
        let mount = world.mount(self.mount);
        self.faults.iter().for_each(|rule| world.emulator().fault(rule.clone()));
        let began = Instant::now();
        let processes = operations.div_ceil(PROCESS_OPERATIONS);
        let exercise = |file: u64| {
            for process in 0..processes {
                let count = PROCESS_OPERATIONS.min(operations - process * PROCESS_OPERATIONS);
                let mut fsx = Command::new(exerciser());
                fsx.arg("-f").arg(&config).args(["-S", &(seed + process * self.files + file).to_string()]);
                fsx.args(["-N", &count.to_string()]).arg("-P").arg(world.directory("artifacts"));
                world.run(fsx.arg(mount.path(&format!("file{file}"))), limit).success();
            }
        };
        thread::scope(|scope| {
            for file in 0..self.files {
                let exercise = &exercise;
                scope.spawn(move || exercise(file));
            }
        });
        let took = began.elapsed();
        let all = operations * self.files;
        // Not by a macro: what a test that succeeds prints is kept from the reader.
        let line = format!(
            "fsx, {}: {all} operations in {:.0} s, {:.0}/s, seeds {seed} to {}\n",
            self.name,
            took.as_secs_f64(),
            all as f64 / took.as_secs_f64(),
            seed + processes * self.files - 1
        );
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        world.emulator().clear_faults();
        let names: Vec<String> = (0..self.files).map(|file| format!("file{file}")).collect();
        let last: Vec<Vec<u8>> = names.iter().map(|name| fs::read(mount.path(name)).unwrap()).collect();
        mount.unmount();
        for (name, last) in names.iter().zip(last) {
            assert!(
                world.emulator().get(world.container(), name).as_deref() == Some(&last[..]),
                "{name} was saved otherwise"
            );
        }
    }
}

/// 5 % of all requests are refused for a moment, 1 % end with a reset connection, 2 % of the bodies are cut.
fn faults() -> Vec<FaultRule> {
    let busy = FaultKind::Status { status: 503, code: Some("ServerBusy".to_owned()), retry_after: None };
    vec![
        FaultRule::new(busy).with_probability(0.05),
        FaultRule::new(FaultKind::ResetConnection).with_probability(0.01),
        FaultRule::new(FaultKind::CutBodyAfter { bytes: 1000 }).on(Operation::GetBlob).with_probability(0.02),
    ]
}

#[test]
fn small_files_of_small_blocks() {
    Run { name: "256 KiB, small blocks", operations: 300_000, ..Run::default() }.go();
}

#[test]
fn small_files_that_are_saved_all_the_time() {
    Run { name: "256 KiB, small blocks, msync", operations: 50_000, msync: true, ..Run::default() }.go();
}

#[test]
fn small_files_of_ordinary_blocks() {
    Run { name: "256 KiB", operations: 150_000, mount: &[], ..Run::default() }.go();
}

#[test]
fn large_files_in_little_memory() {
    Run {
        name: "64 MiB, 16 MiB of memory",
        operations: 15_000,
        times_when_long: 34,
        file_bytes: 64 << 20,
        operation_bytes: 512 << 10,
        mount: &["-o", "test-block-divisor=64", "--memory", "16MiB"],
        ..Run::default()
    }
    .go();
}

#[test]
fn small_files_on_a_service_that_fails() {
    Run { name: "256 KiB, faults", operations: 15_000, faults: faults(), ..Run::default() }.go();
}

#[test]
fn large_files_in_little_memory_on_a_service_that_fails() {
    Run {
        name: "64 MiB, 16 MiB of memory, faults",
        operations: 3_000,
        file_bytes: 64 << 20,
        operation_bytes: 512 << 10,
        mount: &["-o", "test-block-divisor=64", "--memory", "16MiB"],
        faults: faults(),
        ..Run::default()
    }
    .go();
}
