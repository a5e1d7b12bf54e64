//! `make bench`: jobs on a link that behaves like one to Azure, and one table.
//!
//! The service is the emulator, in a process of its own. Every run of a job is on a fresh mount, of the real binary or of a
//! peer (`driver.rs` says how one is given), checks its data, and stands beside a ceiling: the same work over the same link
//! by a bare HTTP client that knows nothing of files. Figures are medians. docs/BENCHMARKS.md says what each job is.
//! A job of ours that cannot be measured or finds wrong bytes is "failed" in the table and ends the program with exit code
//! 1; no figure is ever made up.

mod ceiling;
mod data;
mod driver;
mod http;
mod jobs;
mod marks;
mod mount;
mod process;
mod service;
mod stage;
mod table;
mod warmth;

use std::process::ExitCode;

use anyhow::{Context, Result};

use driver::Driver;
use jobs::Job;
use mount::Mount;
use service::Service;
use stage::{Bench, Measured, Stage};
use table::Row;
use warmth::Warmth;

/// Medians are taken over this many runs, unless BENCH_RUNS says otherwise.
const RUNS_DEFAULT: usize = 3;
/// Size of the large files, unless BENCH_MIB says otherwise: seconds at the speeds of a fast link.
const LARGE_MIB_DEFAULT: usize = 2048;
/// Memory that is kept warm, unless BENCH_WARM_MIB says otherwise: what the service, the mount and the page cache take in
/// the job that takes most.
const WARM_MIB_DEFAULT: usize = 5120;

fn main() -> ExitCode {
    let done = match std::env::args().any(|argument| argument == service::ARGUMENT) {
        true => service::serve().map(|()| true),
        false => run(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("The benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all jobs of ours could be measured.
fn run() -> Result<bool> {
    let ours_runs = number("BENCH_RUNS", RUNS_DEFAULT)?;
    let runs = Runs { ours: ours_runs, peers: number("BENCH_PEER_RUNS", ours_runs)? };
    let large_mib = number("BENCH_MIB", LARGE_MIB_DEFAULT)?;
    let (ours, peers) = (Driver::ours()?, Driver::peers());
    let warmth = Warmth::new((number("BENCH_WARM_MIB", WARM_MIB_DEFAULT)? as u64) << 20);
    let bench = Bench {
        service: Service::start()?,
        unit: data::Unit::new(),
        large_bytes: (large_mib as u64) << 20,
        scratch: tempfile::tempdir()?,
    };
    println!("Large files of {large_mib} MiB; medians of {}, of peers {}; {}", runs.ours, runs.peers, machine());
    let names: Vec<String> = peers.iter().map(|peer| peer.name().to_owned()).collect();
    let mut rows = Vec::new();
    for job in chosen_jobs() {
        let row = measure(&bench, &warmth, job, &ours, &peers, runs);
        bench.service.delete("")?;
        let row = row?;
        if let Err(reason) = &row.ours {
            eprintln!("{} failed: {reason}", job.name);
        }
        // Whoever waits sees how it goes; the table comes at the end.
        eprint!("{}", table::print(std::slice::from_ref(&row), &names).lines().skip(3).collect::<String>() + "\n");
        rows.push(row);
    }
    print!("{}{}", table::print(&rows, &names), memory(&rows));
    if !peers.is_empty() {
        print!("{}", table::print_peers(&rows));
    }
    println!("At the end: {}", machine());
    Ok(rows.iter().all(|row| row.ours.is_ok()))
}

/// All jobs, or those whose names contain a word of `BENCH_JOBS=word,...`.
fn chosen_jobs() -> Vec<Job> {
    let chosen = std::env::var("BENCH_JOBS").unwrap_or_default().to_lowercase();
    let words: Vec<&str> = chosen.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let is_chosen = |job: &Job| words.is_empty() || words.iter().any(|word| job.name.to_lowercase().contains(word));
    jobs::all().into_iter().filter(is_chosen).collect()
}

/// How often each is run.
#[derive(Clone, Copy)]
struct Runs {
    /// Ours and the bare link.
    ours: usize,
    /// Each peer.
    peers: usize,
}

/// Everybody does the job once in each round, so that what disturbs the machine for a while disturbs all of them.
fn measure(bench: &Bench, warmth: &Warmth, job: Job, ours: &Driver, peers: &[Driver], runs: Runs) -> Result<Row> {
    let files = (job.files)(bench);
    // Flags of ours mean nothing to others.
    let peers: Vec<&Driver> = peers.iter().filter(|_| job.args.is_empty() || job.with_peers).collect();
    let (mut link, mut own, mut others) = (Vec::new(), Samples::Taken(Vec::new()), Vec::new());
    others.resize_with(peers.len(), || Samples::Taken(Vec::new()));
    for round in 0..runs.ours.max(runs.peers) {
        if let Some(ceiling) = job.ceiling.filter(|_| round < runs.ours) {
            ready(bench, warmth, job, &files)?;
            let _melting = warmth.melt();
            link.push(ceiling(bench, &files).with_context(|| format!("ceiling of {}", job.name))?);
        }
        if round < runs.ours {
            own.take(|| one_run(bench, warmth, job, ours, &files));
        }
        if round < runs.peers {
            peers.iter().zip(&mut others).for_each(|(peer, samples)| {
                samples.take(|| one_run(bench, warmth, job, peer, &files));
            });
        }
    }
    let peers = peers.iter().zip(others).map(|(peer, samples)| (peer.name().to_owned(), samples.median())).collect();
    Ok(Row { job, link: median(link, |value| *value), ours: own.median(), peers })
}

/// What somebody's runs gave, or why one of them failed; it is not run again then.
enum Samples {
    Taken(Vec<Measured>),
    Failed(String),
}

impl Samples {
    fn take(&mut self, run: impl FnOnce() -> Result<Measured>) {
        if let Self::Taken(samples) = self {
            match run() {
                Ok(measured) => samples.push(measured),
                Err(error) => *self = Self::Failed(format!("{error:#}")),
            }
        }
    }

    fn median(self) -> Result<Measured, String> {
        match self {
            Self::Taken(samples) => median(samples, |run| run.value).ok_or_else(|| "not run".to_owned()),
            Self::Failed(reason) => Err(reason),
        }
    }
}

/// The service as the job wants it, whatever the last run left or took.
fn ready(bench: &Bench, warmth: &Warmth, job: Job, files: &[data::File]) -> Result<()> {
    bench.service.delete("")?;
    bench.service.put(files)?;
    warmth.take();
    bench.service.set_link(job.link)
}

/// A job on a fresh mount.
fn one_run(bench: &Bench, warmth: &Warmth, job: Job, driver: &Driver, files: &[data::File]) -> Result<Measured> {
    ready(bench, warmth, job, files)?;
    let mount = Mount::start(driver, &bench.service, job.profile, job.args)?;
    let _melting = warmth.melt();
    (job.run)(&Stage::new(bench, &mount, files))
}

/// The middle one; of two, the better is not chosen.
fn median<T>(mut all: Vec<T>, value: impl Fn(&T) -> f64) -> Option<T> {
    all.sort_by(|one, other| value(one).total_cmp(&value(other)));
    let middle = all.len().checked_sub(1)? / 2;
    Some(all.swap_remove(middle))
}

/// The most memory over all jobs of a mount with the default budget.
fn memory(rows: &[Row]) -> String {
    let peaks = rows.iter().filter(|row| row.job.args.is_empty()).filter_map(|row| row.ours.as_ref().ok());
    let peak = peaks.map(|run| run.peak_rss_bytes >> 20).max().unwrap_or(0);
    format!("\nPeak of resident memory over all jobs with the default budget: {peak} MiB.\n")
}

fn number(variable: &str, default: usize) -> Result<usize> {
    let Ok(text) = std::env::var(variable) else { return Ok(default) };
    let number: usize = text.parse().with_context(|| format!("{variable}={text} is no number"))?;
    anyhow::ensure!(number > 0, "{variable} must be at least 1");
    Ok(number)
}

/// What ran it: figures of different machines do not compare.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let gib = process::memory_bytes("MemTotal") >> 30;
    format!("{cores} cores, {gib} GiB, Linux {}, load {load}", kernel.trim())
}
