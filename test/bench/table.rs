//! The table: one row a job, in Markdown, so that it can be kept in docs/BENCHMARKS.md.

use std::fmt::Write as _;

use super::{
    jobs::{Job, Unit},
    marks::{cpu_per_gib, moved, short, times_as_fast},
    stage::Measured,
};

/// A job's figures.
pub struct Row {
    /// What was done.
    pub job: Job,
    /// The link's own value.
    pub link: Option<f64>,
    /// The median run of ours, or why there is none.
    pub ours: Result<Measured, String>,
    /// The same of each peer, by name. Empty where peers have no such job.
    pub peers: Vec<(String, Result<Measured, String>)>,
}

impl Row {
    /// Values of the peers that did the job.
    pub fn peer_values(&self) -> Vec<(String, f64)> {
        let done = |(name, run): &(String, Result<Measured, String>)| Some((name.clone(), run.as_ref().ok()?.value));
        self.peers.iter().filter_map(done).collect()
    }

    fn verdicts(&self) -> String {
        let Ok(ours) = &self.ours else { return "**no result**".to_owned() };
        let peers = self.peer_values();
        let words = self.job.marks.iter().map(|mark| {
            let verdict = mark.judge(self.job.unit, ours, self.link, &peers);
            match verdict.reached {
                Some(true) => format!("yes: {}", verdict.text),
                Some(false) => format!("**no**: {}", verdict.text),
                None => format!("?: {}", verdict.text),
            }
        });
        words.collect::<Vec<_>>().join("; ")
    }
}

/// A value with its unit.
fn value(unit: Unit, value: f64) -> String {
    match unit {
        Unit::PerSecond(what) | Unit::Count(what) => format!("{} {what}", short(value)),
        Unit::Seconds => format!("{} s", short(value)),
        Unit::Milliseconds => format!("{} ms", short(value)),
    }
}

/// The whole table. Rows are in pairs of "what it does" and "what it costs", one line each.
pub fn print(rows: &[Row], peers: &[String]) -> String {
    let mut text = String::from("\n| job | result | raw link |");
    for peer in peers {
        let _ = write!(text, " {peer} |");
    }
    text.push_str(" requests | moved / asked | CPU s (a GiB) | peak RSS (more) | disturbed | marks |\n|");
    text.push_str(&"---|".repeat(9 + peers.len()));
    text.push('\n');
    for row in rows {
        line(&mut text, row, peers);
    }
    text
}

/// How much faster than something of value `other`, with that value.
fn compared(row: &Row, ours: &Measured, other: f64) -> String {
    let ratio = times_as_fast(row.job.unit, ours.value, other);
    format!("{} (x {})", short(other), short(ratio))
}

// Writing to a String cannot fail.
fn line(text: &mut String, row: &Row, peers: &[String]) {
    let _ = match &row.ours {
        Ok(ours) => write!(text, "| {} | {} |", row.job.name, value(row.job.unit, ours.value)),
        Err(_) => write!(text, "| {} | failed |", row.job.name),
    };
    let cell = |other: Option<f64>| match (&row.ours, other) {
        (Ok(ours), Some(other)) => compared(row, ours, other),
        (Err(_), Some(other)) => short(other),
        (_, None) => "-".to_owned(),
    };
    let _ = write!(text, " {} |", cell(row.link));
    for peer in peers {
        let run = row.peers.iter().find(|(name, _)| name == peer).map(|(_, run)| run);
        let _ = match run {
            Some(Ok(theirs)) => write!(text, " {} |", cell(Some(theirs.value))),
            Some(Err(_)) => write!(text, " failed |"),
            None => write!(text, " - |"),
        };
    }
    let _ = match &row.ours {
        Ok(ours) => writeln!(text, "{} {} |", costs(ours), row.verdicts()),
        Err(_) => writeln!(text, " - | - | - | - | - | {} |", row.verdicts()),
    };
}

fn costs(ours: &Measured) -> String {
    format!(
        " {} | {} | {:.2}{} | {} (+{}) MiB | {} |",
        ours.requests,
        moved(ours).map_or("-".to_owned(), short),
        ours.cpu_seconds,
        cpu_per_gib(ours).map_or(String::new(), |seconds| format!(" ({seconds:.2})")),
        ours.peak_rss_bytes >> 20,
        ours.more_rss_bytes >> 20,
        ours.disturbed.map_or("-".to_owned(), |share| format!("{:.0} %", share * 100.0))
    )
}

/// What peers cost, a line for each job and peer: the table above has room for ours only.
pub fn print_peers(rows: &[Row]) -> String {
    let mut text = String::from(
        "\n| job | peer | result | requests | moved / asked | CPU s (a GiB) | peak RSS (more) | disturbed |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        for (name, run) in &row.peers {
            let _ = match run {
                Ok(run) => {
                    writeln!(text, "| {} | {name} | {} |{}", row.job.name, value(row.job.unit, run.value), costs(run))
                }
                Err(reason) => writeln!(text, "| {} | {name} | failed: {reason} | | | | | |", row.job.name),
            };
        }
    }
    text
}
