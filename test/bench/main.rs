//! `make bench`: a few jobs on a link that behaves like one to Azure, and one table.
//!
//! The service is the emulator in this process, with 10 ms to the first byte and 60 MiB/s a connection. Every job runs
//! on a fresh mount of the real binary, checks its data, and stands beside a ceiling: the same bytes moved over the same
//! link by a bare HTTP client that knows nothing of files. Figures are medians. docs/BENCHMARKS.md says what each job is.
//! A job that cannot be measured or finds wrong bytes ends the run with exit code 1; no figure is ever made up.

mod ceiling;
mod http;
mod jobs;
mod link;
mod mount;
mod table;

use std::process::ExitCode;

use anyhow::{Context, Result};

use link::Link;
use table::Row;

/// Medians are taken over this many runs, unless BENCH_RUNS says otherwise.
const RUNS_DEFAULT: usize = 3;
/// Size of the large files, unless BENCH_MIB says otherwise: a second or more at the speeds of a fast link.
const FILE_MIB_DEFAULT: usize = 512;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("The benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let runs = number("BENCH_RUNS", RUNS_DEFAULT)?;
    let link = Link::start(number("BENCH_MIB", FILE_MIB_DEFAULT)? << 20)?;
    println!("{}; medians of {runs}; {}", link.describe(), machine());
    let mut rows = Vec::new();
    for job in jobs::ALL {
        let ceiling = median(runs, || (job.ceiling)(&link)).with_context(|| format!("ceiling of {}", job.name))?;
        let mut measured = Vec::new();
        for _ in 0..runs {
            measured.push((job.run)(&link).with_context(|| job.name.to_owned())?);
        }
        measured.sort_by(|one, other| one.rate.total_cmp(&other.rate));
        let row = Row { name: job.name, unit: job.unit, ceiling, measured: measured.swap_remove(measured.len() / 2) };
        eprintln!("measured: {}", row.name);
        rows.push(row);
    }
    print!("{}", table::print(&rows));
    Ok(())
}

fn median(runs: usize, mut measure: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut rates = (0..runs).map(|_| measure()).collect::<Result<Vec<f64>>>()?;
    rates.sort_by(f64::total_cmp);
    Ok(rates[rates.len() / 2])
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
    let load = load.split(' ').next().unwrap_or("?");
    format!("{cores} cores, Linux {}, load {load} at the start", kernel.trim())
}
