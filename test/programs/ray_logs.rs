//! The logs of a Ray cluster: twenty processes append to files that they rotate, while another node lists and reads them, as
//! its history server does. No line is lost, none is torn, and their order stays.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use harness::{World, length};
use nix::libc::{ENOENT, ESTALE};

use crate::{background::Background, script::text, world};

/// Processes that log, as on a node with many actors.
const WORKERS: usize = 20;

/// Lines that each of them logs.
const LINES: (usize, usize) = (1200, 40_000);

/// Ray's workers log through Python's rotating handler: `.log.2` becomes `.log.3`, `.log.1` becomes `.log.2`, `.log`
/// becomes `.log.1`, and a new `.log` begins. Some flush to the disk now and then, like raylet does; the others leave that to
/// the close before each rotation.
const WORKER: &str = "
import logging.handlers, os, sys
path, worker, lines = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
handler = logging.handlers.RotatingFileHandler(path, maxBytes=20_000, backupCount=10_000)
handler.setFormatter(logging.Formatter('%(message)s'))
log = logging.getLogger()
log.addHandler(handler)
for number in range(lines):
    log.error('worker %02d line %07d %s end', worker, number, 'x' * (number * 7 % 60))
    if worker % 2 == 0 and number % 50 == 0:
        os.fsync(handler.stream.fileno())
handler.close()
";

/// The number of a line, which must be whole.
#[track_caller]
fn number_of(line: &str, worker: usize) -> usize {
    let rest = line.strip_prefix(&format!("worker {worker:02} line ")).unwrap_or_else(|| panic!("torn: {line:?}"));
    let (number, rest) = rest.split_at(7);
    let number = number.parse().unwrap_or_else(|_| panic!("torn: {line:?}"));
    assert_eq!(rest, format!(" {} end", "x".repeat(number * 7 % 60)), "torn: {line:?}");
    number
}

/// The numbers in a file: whole lines, one after the other.
#[track_caller]
fn numbers_in(bytes: &[u8], worker: usize, name: &Path) -> Vec<usize> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{}: the last line is torn", name.display());
    let numbers: Vec<usize> = text.lines().map(|line| number_of(line, worker)).collect();
    let gap = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
    assert!(gap.is_none(), "{}: {gap:?} stand beside each other", name.display());
    numbers
}

/// `(worker, how often it was rotated)` of a log's name: `worker-03.log.12`.
fn parse(name: &str) -> Option<(usize, usize)> {
    let (worker, rotated) = name.strip_prefix("worker-")?.split_once(".log")?;
    let rotated = rotated.strip_prefix('.').unwrap_or("0");
    Some((worker.parse().ok()?, rotated.parse().ok()?))
}

/// The logs in a directory, by worker and age.
fn logs(directory: &Path) -> BTreeMap<(usize, usize), PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter_map(|path| Some((parse(path.file_name()?.to_str()?)?, path))).collect()
}

/// Reads every log as another node sees it now. Returns how many lines that were.
fn read_all(directory: &Path) -> usize {
    let mut lines = 0;
    for ((worker, _), path) in logs(directory) {
        match fs::read(&path) {
            Ok(bytes) => lines += numbers_in(&bytes, worker, &path).len(),
            // Rotated between the listing and the opening, or while it was read: the next look finds it.
            Err(error) if matches!(error.raw_os_error(), Some(ENOENT | ESTALE)) => {}
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    lines
}

/// Every line of every worker, in order, and no line twice.
fn check_complete(directory: &Path, lines: usize) -> io::Result<()> {
    let mut by_worker: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    // Oldest first: the highest number behind `.log` was rotated most often.
    for ((worker, _), path) in logs(directory).into_iter().rev() {
        by_worker.entry(worker).or_default().extend(numbers_in(&fs::read(&path)?, worker, &path));
    }
    assert_eq!(by_worker.len(), WORKERS);
    for (worker, numbers) in by_worker {
        assert!(numbers.iter().copied().eq(0..lines), "worker {worker}: lines are lost, or out of order");
    }
    Ok(())
}

fn start_workers(world: &World, directory: &Path, lines: usize) -> Vec<Background> {
    let start = |worker: usize| {
        let mut command = Command::new("python3");
        let log = directory.join(format!("worker-{worker:02}.log"));
        command.args(["-c", WORKER, text(&log), &worker.to_string(), &lines.to_string()]);
        Background::start(&mut command, &world.path(&format!("worker{worker}")))
    };
    (0..WORKERS).map(start).collect()
}

#[test]
fn twenty_appenders_that_rotate_their_logs_lose_and_tear_no_line_while_another_mount_reads_them() {
    let world = world();
    let lines = length().of(LINES.0, LINES.1);
    let (here, there) = (world.mount(&[]), world.mount(&["--metadata-ttl", "200ms"]));
    let session = "log/ray-cluster_default/session_2026-01-01_00-00-00_000000_1/logs";
    fs::create_dir_all(here.path(session)).unwrap();
    // Its absence may be remembered for the metadata TTL.
    let appears = Instant::now() + Duration::from_secs(20);
    while !there.path(session).exists() {
        assert!(Instant::now() < appears, "the other mount does not see the directory");
    }
    let mut workers = start_workers(&world, &here.path(session), lines);
    let mut seen = Vec::new();
    while workers.iter_mut().any(Background::runs) {
        seen.push(read_all(&there.path(session)));
        std::thread::sleep(Duration::from_millis(50));
    }
    for worker in &mut workers {
        assert!(worker.succeeded(), "a worker failed: {}", worker.complained());
    }
    let halfway = seen.iter().filter(|seen| **seen > 0 && **seen < WORKERS * lines).count();
    assert!(halfway > 2, "the other mount saw nothing while they worked: {seen:?}");
    check_complete(&here.path(session), lines).unwrap();
    // A name may be known as absent, or as it was, for the metadata TTL.
    std::thread::sleep(Duration::from_millis(200));
    check_complete(&there.path(session), lines).unwrap();
    here.unmount();
    there.unmount();
    let fresh = world.mount(&[]);
    check_complete(&fresh.path(session), lines).unwrap();
    fresh.unmount();
}
