//! Jobs about what a mount costs: memory that it was told to do with, and doing nothing.

use std::{thread, time::Duration};

use anyhow::Result;

use super::{
    super::{
        data::large,
        process,
        stage::{Measured, Stage},
    },
    large::write_file,
    names::stat_all,
};

/// Twice what most memory that is told to be little has room for, 16 times over.
const WRITTEN_BYTES: u64 = 4 << 30;
/// How long nothing is done.
const IDLE_TIME: Duration = Duration::from_secs(20);
/// How long a mount may tidy up before that.
const SETTLE_TIME: Duration = Duration::from_secs(2);

/// A file that is many times larger than the memory.
pub fn write_huge(stage: &Stage) -> Result<Measured> {
    write_file(stage, &large("written/huge.bin", 21, WRITTEN_BYTES))
}

/// Nothing, on a mount that has done something: wakeups a second of all its threads.
pub fn idle(stage: &Stage) -> Result<Measured> {
    stat_all(stage)?;
    thread::sleep(SETTLE_TIME);
    stage.begin()?;
    let before = process::wakeups(&stage.mount.processes());
    thread::sleep(IDLE_TIME);
    let after = process::wakeups(&stage.mount.processes());
    // Threads that ended meanwhile were asleep since they had nothing to do; new ones count whole.
    let woken: u64 = after.iter().map(|(thread, count)| count - before.get(thread).copied().unwrap_or(0)).sum();
    stage.end(woken as f64 / IDLE_TIME.as_secs_f64(), 0)
}
