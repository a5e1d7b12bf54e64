//! The jobs, as a table: what is done, over which link, how it is judged. What each does is in `jobs/`: a function that runs
//! on ours and on peers alike, and checks its bytes.

pub mod large;
mod memory;
mod names;
pub mod trees;

use std::time::Duration;

use anyhow::Result;

use super::{
    ceiling,
    data::File,
    driver::Profile,
    marks::Mark,
    service::Link,
    stage::{Bench, Measured, Stage},
};

/// What a node in the region of its account sees of Azure: time to the first byte, and speed of a connection.
const FAR: Link = Link { latency: Duration::from_millis(10), per_connection: Some(60 << 20) };
/// The same at half the way, where a job makes thousands of requests one after the other.
const HALF: Link = Link { latency: Duration::from_millis(5), per_connection: Some(60 << 20) };
/// No link at all: what the processors can do.
const NEAR: Link = Link { latency: Duration::ZERO, per_connection: None };

/// What a job's value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Something a second: more is better.
    PerSecond(&'static str),
    /// Seconds: less is better.
    Seconds,
    /// Milliseconds: less is better.
    Milliseconds,
    /// Something else of which less is better.
    Count(&'static str),
}

/// The work that the bare link does for the same.
pub type Ceiling = fn(&Bench, &[File]) -> Result<f64>;

/// One line of the table.
#[derive(Clone, Copy)]
pub struct Job {
    /// What it is.
    pub name: &'static str,
    /// The way to the service.
    pub link: Link,
    /// What its value counts.
    pub unit: Unit,
    /// What it is about.
    pub profile: Profile,
    /// Flags of our mount. Peers have no such job, unless `with_peers`.
    pub args: &'static [&'static str],
    /// Peers do it as they are.
    pub with_peers: bool,
    /// What the service holds before. Removed after the job.
    pub files: fn(&Bench) -> Vec<File>,
    /// The value of the bare link, in the same unit. `None` where it means nothing.
    pub ceiling: Option<Ceiling>,
    /// The job.
    pub run: fn(&Stage) -> Result<Measured>,
    /// What it has to reach.
    pub marks: &'static [Mark],
}

const MIB: Unit = Unit::PerSecond("MiB/s");
const FILES: Unit = Unit::PerSecond("files/s");
const NAMES: Unit = Unit::PerSecond("names/s");

/// What most jobs are; each says what is different.
const JOB: Job = Job {
    name: "",
    link: FAR,
    unit: MIB,
    profile: Profile::Stream,
    args: &[],
    with_peers: false,
    files: |_| Vec::new(),
    ceiling: None,
    run: memory::idle,
    marks: &[],
};

/// CPU time of the mount for a GiB read and written, in seconds: part of the marks of the jobs that move much.
const CPU_READ: Mark = Mark::CpuPerGib(0.7);
const CPU_WRITTEN: Mark = Mark::CpuPerGib(0.9);
/// Memory of the mount, by default and told to have little, in MiB.
const MEMORY: Mark = Mark::RssMib(640);
const MEMORY_LITTLE: Mark = Mark::RssMib(170);
/// Write-behind. The disk is not waited for: no peer does that either.
const BEHIND: &[&str] = &["-o", "durability=fsync,journal-age=1s"];
const LITTLE: &[&str] = &["--memory", "128MiB"];

/// In the order of the table.
pub fn all() -> Vec<Job> {
    let mut jobs = cold();
    jobs.extend(again_and_written());
    jobs.extend(small());
    jobs.extend(changed_and_many());
    jobs.extend(whole());
    jobs.extend(behind());
    jobs
}

fn cold() -> Vec<Job> {
    let read = Job { files: large::one, ceiling: Some(ceiling::large::read), run: large::read, ..JOB };
    vec![
        Job {
            name: "cold sequential read, 0 ms",
            link: NEAR,
            marks: &[Mark::Best(2.0), Mark::Link(0.45), CPU_READ, MEMORY],
            ..read
        },
        Job { name: "cold sequential read", marks: &[Mark::Best(2.0), Mark::Link(0.7), CPU_READ, MEMORY], ..read },
        Job {
            name: "4 cold streams",
            files: large::four_quarters,
            run: large::read_four,
            marks: &[Mark::Best(2.0), CPU_READ, MEMORY],
            ..read
        },
        Job {
            name: "first byte of a cold 4 GiB file",
            unit: Unit::Milliseconds,
            files: large::huge,
            ceiling: Some(ceiling::large::first_byte),
            run: large::first_byte,
            marks: &[Mark::AtMost(20.0)],
            ..JOB
        },
        Job {
            name: "random 4 KiB reads, 16 jobs, 4 x 4 GiB",
            unit: Unit::PerSecond("reads/s"),
            profile: Profile::Random,
            files: large::huge,
            ceiling: Some(ceiling::large::random),
            run: large::random,
            marks: &[
                Mark::Link(0.85),
                // Its file cache has fetched the whole files before the first read: another job.
                Mark::Peer("blobfuse2_block", 18.0),
                Mark::Peer("rclone", 6.0),
                Mark::Moved(20.0),
                MEMORY,
            ],
            ..JOB
        },
    ]
}

fn again_and_written() -> Vec<Job> {
    let warm = Job { files: large::quarter, ceiling: Some(ceiling::large::page_cache), ..JOB };
    let write = Job { ceiling: Some(ceiling::large::write), run: large::write, ..JOB };
    let write_marks = &[Mark::Best(1.7), Mark::Link(0.6), CPU_WRITTEN, MEMORY];
    vec![
        Job {
            name: "warm re-read, same fd",
            run: large::again_same,
            marks: &[Mark::Link(0.9), Mark::Requests(0)],
            ..warm
        },
        Job {
            name: "warm re-read, after re-open",
            run: large::again_opened,
            marks: &[Mark::Link(0.9), Mark::Requests(1)],
            ..warm
        },
        Job {
            name: "warm re-read, after re-open, exclusive",
            args: &["--consistency", "exclusive"],
            run: large::again_opened,
            marks: &[Mark::Link(0.9), Mark::Requests(0)],
            ..warm
        },
        Job { name: "sequential write + fsync, 0 ms", link: NEAR, marks: write_marks, ..write },
        Job { name: "sequential write + fsync", marks: write_marks, ..write },
    ]
}

fn small() -> Vec<Job> {
    let names = Job { profile: Profile::Names, files: names::small, ..JOB };
    vec![
        Job {
            name: "create 1000 x 4 KiB, durable, 5 ms",
            link: HALF,
            unit: FILES,
            profile: Profile::Durable,
            files: |_| Vec::new(),
            ceiling: Some(ceiling::names::create),
            run: names::create,
            // The mark comes from its block cache. Five times its file cache is more than the bare link does.
            marks: &[Mark::Peer("blobfuse2_block", 5.0), Mark::Peer("rclone", 1.4), Mark::Requests(1001)],
            ..names
        },
        Job {
            name: "stat 1000 names, cold",
            unit: NAMES,
            ceiling: Some(ceiling::names::stat),
            run: names::stat_cold,
            marks: &[Mark::Peer("rclone", 1.0)],
            ..names
        },
        Job {
            name: "stat 1000 names, warm",
            unit: NAMES,
            run: names::stat_warm,
            marks: &[Mark::AtLeast(50_000.0), Mark::Requests(0)],
            ..names
        },
        Job {
            name: "read 1000 small files, cold",
            unit: FILES,
            ceiling: Some(ceiling::names::read),
            run: names::read,
            marks: &[Mark::Best(4.0)],
            ..names
        },
    ]
}

fn changed_and_many() -> Vec<Job> {
    let names = Job { profile: Profile::Names, files: names::small, ..JOB };
    vec![
        Job {
            name: "unlink 1000",
            unit: FILES,
            ceiling: Some(ceiling::names::unlink),
            run: names::unlink,
            // A Delete each. Before the directory is listed, three names are asked for one by one (as a blob, and as a
            // directory), and the first unlink keeps the directory, which is only a prefix here, by a marker.
            marks: &[Mark::Peer("rclone", 1.0), Mark::Requests(1008)],
            ..names
        },
        Job {
            name: "rm -r of 1000 files",
            unit: FILES,
            ceiling: Some(ceiling::names::remove),
            run: names::remove,
            marks: &[Mark::Peer("rclone", 3.0)],
            ..names
        },
        Job {
            name: "rename a directory of 1000 files",
            unit: Unit::Seconds,
            ceiling: Some(ceiling::names::rename),
            run: names::rename,
            marks: &[Mark::Peer("blobfuse2", 12.0), Mark::Peer("rclone", 4.0)],
            ..names
        },
        Job {
            name: "ls -l of 100,000 names, cold",
            unit: Unit::Seconds,
            files: names::many,
            ceiling: Some(ceiling::names::list_many),
            run: names::list_many,
            marks: &[Mark::Best(4.0), Mark::MoreRssMib(100)],
            ..names
        },
    ]
}

fn whole() -> Vec<Job> {
    let seconds = Job { unit: Unit::Seconds, profile: Profile::Names, ..JOB };
    vec![
        Job {
            name: "find + md5sum of 3000 files, cold",
            files: trees::stored,
            ceiling: Some(ceiling::names::read_tree),
            run: trees::md5sum,
            marks: &[Mark::Best(4.0), Mark::Requests(3200)],
            ..seconds
        },
        Job {
            name: "cp -r of 3000 files in 166 directories",
            ceiling: Some(ceiling::names::create_tree),
            run: trees::copy,
            marks: &[Mark::Peer("blobfuse2_block", 5.0), Mark::Peer("blobfuse2_file", 2.0), Mark::Peer("rclone", 1.0)],
            ..seconds
        },
        Job {
            name: "git clone of 2000 files",
            run: trees::clone,
            marks: &[Mark::Peer("blobfuse2_block", 5.0), Mark::Peer("blobfuse2_file", 2.5), Mark::Peer("rclone", 1.0)],
            ..seconds
        },
        Job {
            name: "4 GiB read, --memory 128MiB",
            args: LITTLE,
            files: large::huge_one,
            ceiling: Some(ceiling::large::read),
            run: large::read,
            marks: &[MEMORY_LITTLE],
            ..JOB
        },
        Job {
            name: "4 GiB written, --memory 128MiB",
            args: LITTLE,
            run: memory::write_huge,
            marks: &[MEMORY_LITTLE],
            ..JOB
        },
        Job {
            name: "idle for 20 s",
            unit: Unit::Count("wakeups/s"),
            profile: Profile::Names,
            files: names::small,
            run: memory::idle,
            marks: &[Mark::Requests(0), Mark::AtMost(2.0)],
            ..JOB
        },
    ]
}

/// The two largest of the small ones with write-behind: until the program has ended, and until the service has everything.
fn behind() -> Vec<Job> {
    let seen = &[Mark::Peer("rclone", 2.0)];
    let kept = &[Mark::Peer("rclone", 3.0)];
    let job = Job { unit: Unit::Seconds, profile: Profile::Names, args: BEHIND, with_peers: true, ..JOB };
    vec![
        Job { name: "cp -r, write-behind, until it ends", run: trees::copy_seen, marks: seen, ..job },
        Job { name: "cp -r, write-behind, until all is kept", run: trees::copy, marks: kept, ..job },
        Job { name: "git clone, write-behind, until it ends", run: trees::clone_seen, marks: seen, ..job },
        Job { name: "git clone, write-behind, until all is kept", run: trees::clone, marks: kept, ..job },
    ]
}
