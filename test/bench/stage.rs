//! Where a job runs: the service, the data, a mount, and the clock that says what the run cost.

use std::{cell::Cell, collections::BTreeSet, path::Path, time::Instant};

use anyhow::Result;
use nix::sys::resource::{UsageWho, getrusage};

use super::{
    data::{File, Unit},
    mount::Mount,
    process::{self, Machine},
    service::Service,
};

/// Shortest run whose CPU times tell something.
const TELLS_SECONDS_MIN: f64 = 0.2;

/// What a run cost.
#[derive(Clone, Debug)]
pub struct Measured {
    /// In the job's unit: a rate, or a time.
    pub value: f64,
    /// Requests that the service answered.
    pub requests: u64,
    /// Bytes of bodies that the service sent and received.
    pub moved_bytes: u64,
    /// Bytes that the job read or wrote; 0 where it is about names only.
    pub asked_bytes: u64,
    /// CPU time of the mount, in seconds.
    pub cpu_seconds: f64,
    /// Most memory that the mount had resident, in bytes.
    pub peak_rss_bytes: u64,
    /// How much of that came with this job, in bytes.
    pub more_rss_bytes: u64,
    /// Share of the machine, during the run, that neither the mount nor the service nor the job had, but somebody had.
    /// `None`: the run was too short to tell.
    pub disturbed: Option<f64>,
}

/// What every job and every ceiling has.
pub struct Bench {
    /// The service.
    pub service: Service,
    /// What files hold.
    pub unit: Unit,
    /// Bytes of the large files.
    pub large_bytes: u64,
    /// A directory for local files, on the machine's own file system.
    pub scratch: tempfile::TempDir,
}

impl Bench {
    /// Everything that is not the mount: its CPU time is no disturbance.
    fn own_cpu_seconds(&self) -> f64 {
        let children = getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0.0, |usage| {
            let of = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
            of(usage.user_time()) + of(usage.system_time())
        });
        children + process::cpu_seconds(&BTreeSet::from([std::process::id(), self.service.process()]))
    }

    /// A directory for local files.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }
}

/// One run of one job on one mount.
pub struct Stage<'a> {
    /// What all runs share.
    pub bench: &'a Bench,
    /// The mount, fresh.
    pub mount: &'a Mount,
    files: &'a [File],
    clock: Cell<Option<Clock>>,
}

struct Clock {
    began: Instant,
    cpu: f64,
    own: f64,
    rss: u64,
    machine: Machine,
}

impl<'a> Stage<'a> {
    /// A stage whose clock does not run yet.
    pub fn new(bench: &'a Bench, mount: &'a Mount, files: &'a [File]) -> Self {
        Self { bench, mount, files, clock: Cell::new(None) }
    }

    /// What the service held before the job.
    pub fn files(&self) -> &'a [File] {
        self.files
    }

    /// The preparation is over: what follows is measured.
    ///
    /// # Errors
    /// When the service or /proc cannot be asked.
    pub fn begin(&self) -> Result<()> {
        let family = self.mount.processes();
        process::forget_peaks(&family);
        self.bench.service.reset()?;
        self.clock.set(Some(Clock {
            cpu: process::cpu_seconds(&family),
            own: self.bench.own_cpu_seconds(),
            rss: process::rss_bytes(&family),
            machine: process::machine()?,
            began: Instant::now(),
        }));
        Ok(())
    }

    /// Seconds since [`Stage::begin`].
    pub fn seconds(&self) -> f64 {
        let clock = self.clock.take();
        let seconds = clock.as_ref().map_or(0.0, |clock| clock.began.elapsed().as_secs_f64());
        self.clock.set(clock);
        seconds
    }

    /// The job is over, and did so many units: its value is the rate.
    ///
    /// # Errors
    /// As [`Stage::begin`].
    pub fn rate(&self, units: f64, asked_bytes: u64) -> Result<Measured> {
        let seconds = self.seconds();
        self.end(units / seconds, asked_bytes)
    }

    /// The job is over: its value is the time, in seconds.
    ///
    /// # Errors
    /// As [`Stage::begin`].
    pub fn time(&self, asked_bytes: u64) -> Result<Measured> {
        let seconds = self.seconds();
        self.end(seconds, asked_bytes)
    }

    /// The job is over and has a value of its own.
    ///
    /// # Errors
    /// As [`Stage::begin`].
    pub fn end(&self, value: f64, asked_bytes: u64) -> Result<Measured> {
        let family = self.mount.processes();
        let clock = self.clock.take();
        let Some(clock) = clock else { anyhow::bail!("the job did not begin") };
        let seconds = clock.began.elapsed().as_secs_f64();
        let cpu_seconds = process::cpu_seconds(&family) - clock.cpu;
        let (machine, own) = (process::machine()?, self.bench.own_cpu_seconds() - clock.own);
        let foreign = (machine.busy - clock.machine.busy) - own - cpu_seconds;
        let lost = foreign.max(0.0) + (machine.stolen - clock.machine.stolen);
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let counts = self.bench.service.counts()?;
        let peak = process::peak_rss_bytes(&family);
        Ok(Measured {
            value,
            requests: counts.requests,
            moved_bytes: counts.bytes,
            asked_bytes,
            cpu_seconds,
            peak_rss_bytes: peak,
            more_rss_bytes: peak.saturating_sub(clock.rss),
            // Times in /proc are in hundredths of a second: what is shorter than some of them cannot be judged.
            disturbed: (seconds >= TELLS_SECONDS_MIN).then(|| (lost / (seconds * cores)).min(1.0)),
        })
    }
}
