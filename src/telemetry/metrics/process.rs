//! What the kernel knows of this process, under the names that every Prometheus client uses.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::unistd::{SysconfVar, sysconf};

use super::{
    page::{Labels, Page},
    table,
};

/// Adds version, memory, processor time and descriptors. What /proc does not tell is left out.
pub fn write(page: &mut Page) {
    let none = Labels::default();
    page.count(&table::BUILD_INFO, &none.with("version", env!("CARGO_PKG_VERSION")), 1);
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
        page.count(&table::PROCESS_MEMORY, &none, stat.resident_bytes);
        page.sample(&table::PROCESS_CPU, &none, stat.cpu_seconds);
        if let Some(started) = started(stat.after_boot_seconds) {
            page.sample(&table::PROCESS_START, &none, started);
        }
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        page.count(&table::PROCESS_DESCRIPTORS, &none, descriptors.count() as u64);
    }
}

/// Part of /proc/PID/stat, see proc_pid_stat(5).
struct Stat {
    cpu_seconds: f64,
    after_boot_seconds: f64,
    resident_bytes: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the name, in brackets, and may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = of_system(SysconfVar::CLK_TCK)?;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) as f64 / ticks as f64,
            after_boot_seconds: field(22)? as f64 / ticks as f64,
            resident_bytes: field(24)? * of_system(SysconfVar::PAGE_SIZE)?,
        })
    }
}

fn of_system(variable: SysconfVar) -> Option<u64> {
    u64::try_from(sysconf(variable).ok()??).ok()
}

fn started(after_boot_seconds: f64) -> Option<f64> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let up: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    Some((now - up + after_boot_seconds).round())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_knows_its_own_memory_and_start() {
        let mut page = Page::default();
        write(&mut page);
        let text = page.text();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6 && value("process_open_fds") > 2.0, "{text}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let started = value("process_start_time_seconds");
        assert!(started <= now + 2.0 && started > now - 86_400.0, "{started} {now}");
    }
}
