//! What /proc says of processes and of the machine: CPU time, memory, wakeups. Reads only; a process that is gone counts
//! as nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// Clock ticks a second, of all times in /proc.
fn ticks_per_second() -> f64 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().map_or(100.0, |ticks| ticks as f64)
}

/// Fields of /proc/PID/stat behind the name in parentheses: state is 0, parent 1, utime 11, stime 12 (proc_pid_stat(5)).
fn stat_fields(process: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    text.rsplit(')').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// A process and all that descend from it: a mount command may be a shell with children.
pub fn family(process: u32) -> BTreeSet<u32> {
    let mut family = BTreeSet::from([process]);
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut all: Vec<u32> = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    all.sort_unstable();
    // Children have higher numbers than their parents but where numbers wrap around: then a second look is needed, and
    // nobody starts as many processes within a job.
    for other in all {
        let parent = stat_fields(other).get(1).and_then(|text| text.parse().ok());
        if parent.is_some_and(|parent| family.contains(&parent)) {
            family.insert(other);
        }
    }
    family
}

/// CPU time of processes so far, in seconds.
pub fn cpu_seconds(family: &BTreeSet<u32>) -> f64 {
    let ticks = |&process: &u32| -> f64 {
        let fields = stat_fields(process);
        fields.iter().skip(11).take(2).filter_map(|text| text.parse::<f64>().ok()).sum()
    };
    family.iter().map(ticks).sum::<f64>() / ticks_per_second()
}

fn status_kib(process: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Memory that processes have resident now, in bytes.
pub fn rss_bytes(family: &BTreeSet<u32>) -> u64 {
    family.iter().map(|&process| status_kib(process, "VmRSS:") << 10).sum()
}

/// The most that each of them had resident, in bytes.
pub fn peak_rss_bytes(family: &BTreeSet<u32>) -> u64 {
    family.iter().map(|&process| status_kib(process, "VmHWM:") << 10).sum()
}

/// Forgets the peaks of before (proc_pid_clear_refs(5)).
pub fn forget_peaks(family: &BTreeSet<u32>) {
    for process in family {
        // A process that is gone has none.
        let _ = fs::write(format!("/proc/{process}/clear_refs"), "5");
    }
}

/// How often each thread of processes, by number, went to sleep by itself: as often it was woken.
pub fn wakeups(family: &BTreeSet<u32>) -> BTreeMap<u32, u64> {
    let of_thread = |path: std::path::PathBuf| -> Option<(u32, u64)> {
        let text = fs::read_to_string(path.join("status")).ok()?;
        let count = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()?;
        Some((path.file_name()?.to_str()?.parse().ok()?, count))
    };
    let threads = family.iter().flat_map(|process| fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten());
    threads.flatten().filter_map(|thread| of_thread(thread.path())).collect()
}

/// What the whole machine has spent so far, in seconds of one core.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine {
    /// By anybody here.
    pub busy: f64,
    /// By the host's other guests, while we wanted to run.
    pub stolen: f64,
}

/// See [`Machine`].
///
/// # Errors
/// When /proc/stat cannot be read.
pub fn machine() -> Result<Machine> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("no first line in /proc/stat")?;
    let ticks: Vec<f64> = line.split_whitespace().filter_map(|text| text.parse().ok()).collect();
    let of = |index: usize| ticks.get(index).copied().unwrap_or(0.0) / ticks_per_second();
    // user nice system idle iowait irq softirq steal
    Ok(Machine { busy: of(0) + of(1) + of(2) + of(5) + of(6), stolen: of(7) })
}

/// A number of /proc/meminfo, in bytes.
pub fn memory_bytes(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}
