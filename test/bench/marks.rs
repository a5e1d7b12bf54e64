//! Marks: what a job has to reach, and whether it did. A mark on a value is how many times faster than something else it has
//! to be, whichever way its unit counts.

use super::{jobs::Unit, stage::Measured};

/// What a job has to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mark {
    /// So many times as fast as the bare link.
    Link(f64),
    /// So many times as fast as the fastest peer.
    Best(f64),
    /// So many times as fast as the fastest peer whose name begins so.
    Peer(&'static str, f64),
    /// The value itself, at least.
    AtLeast(f64),
    /// The value itself, at most.
    AtMost(f64),
    /// Requests of the run, at most.
    Requests(u64),
    /// Bytes moved for a byte asked, at most.
    Moved(f64),
    /// CPU seconds of the mount for a GiB, at most.
    CpuPerGib(f64),
    /// Peak of resident memory in MiB, at most.
    RssMib(u64),
    /// What the job adds to it, in MiB, at most.
    MoreRssMib(u64),
}

/// Whether a mark was reached, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `None`: nothing to compare with, or too little was moved to tell.
    pub reached: Option<bool>,
    /// The mark, and what there is instead.
    pub text: String,
}

/// How many times as fast `ours` is as `theirs`.
pub fn times_as_fast(unit: Unit, ours: f64, theirs: f64) -> f64 {
    match unit {
        Unit::PerSecond(_) => ours / theirs,
        Unit::Seconds | Unit::Milliseconds | Unit::Count(_) => theirs / ours,
    }
}

/// CPU seconds for a GiB, where at least 64 MiB were moved: below that the clock's ticks are the figure.
pub fn cpu_per_gib(measured: &Measured) -> Option<f64> {
    let gib = measured.asked_bytes as f64 / f64::from(1 << 30);
    (gib >= 1.0 / 16.0).then(|| measured.cpu_seconds / gib)
}

/// Bytes moved for a byte asked.
pub fn moved(measured: &Measured) -> Option<f64> {
    (measured.asked_bytes > 0).then(|| measured.moved_bytes as f64 / measured.asked_bytes as f64)
}

impl Mark {
    /// Judges a run of ours. Peers are (name, value).
    pub fn judge(self, unit: Unit, ours: &Measured, link: Option<f64>, peers: &[(String, f64)]) -> Verdict {
        let fastest = |prefix: &str| {
            let ratios = peers.iter().filter(|(name, _)| name.starts_with(prefix));
            // The fastest peer is the one that we beat by least.
            ratios.map(|(_, value)| times_as_fast(unit, ours.value, *value)).min_by(f64::total_cmp)
        };
        match self {
            Self::Link(least) => at_least("raw link", least, link.map(|link| times_as_fast(unit, ours.value, link))),
            Self::Best(least) => at_least("best peer", least, fastest("")),
            Self::Peer(name, least) => at_least(name, least, fastest(name)),
            Self::AtLeast(least) => verdict(format!(">= {least:.0}"), Some(ours.value >= least), ours.value),
            Self::AtMost(most) => at_most("", most, Some(ours.value)),
            Self::Requests(most) => at_most("requests", most as f64, Some(ours.requests as f64)),
            Self::Moved(most) => at_most("moved/asked", most, moved(ours)),
            Self::CpuPerGib(most) => at_most("CPU s/GiB", most, cpu_per_gib(ours)),
            Self::RssMib(most) => at_most("RSS MiB", most as f64, Some((ours.peak_rss_bytes >> 20) as f64)),
            Self::MoreRssMib(most) => at_most("more RSS MiB", most as f64, Some((ours.more_rss_bytes >> 20) as f64)),
        }
    }
}

fn verdict(text: String, reached: Option<bool>, instead: f64) -> Verdict {
    let text = match reached {
        Some(false) => format!("{text} (is {})", short(instead)),
        _ => text,
    };
    Verdict { reached, text }
}

fn at_least(what: &str, least: f64, ratio: Option<f64>) -> Verdict {
    verdict(format!(">= {} x {what}", short(least)), ratio.map(|ratio| ratio >= least), ratio.unwrap_or(0.0))
}

fn at_most(what: &str, most: f64, value: Option<f64>) -> Verdict {
    let text = format!("{what} <= {}", short(most));
    verdict(text.trim().to_owned(), value.map(|value| value <= most), value.unwrap_or(0.0))
}

/// A number with as many digits as tell something.
pub fn short(value: f64) -> String {
    match value {
        value if value == 0.0 || value.fract() == 0.0 && value < 1e6 => format!("{value:.0}"),
        value if value.abs() < 10.0 => format!("{value:.2}"),
        value if value.abs() < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}
