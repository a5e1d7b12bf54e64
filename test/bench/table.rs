//! The table: one row a job, in Markdown, so that it can be kept in docs/BENCHMARKS.md.

use std::fmt::Write as _;

use super::mount::Measured;

/// A job's figures.
pub struct Row {
    /// What was done.
    pub name: &'static str,
    /// What the rates count.
    pub unit: &'static str,
    /// The link's own rate.
    pub ceiling: f64,
    /// The median run of ours.
    pub measured: Measured,
}

/// The whole table.
pub fn print(rows: &[Row]) -> String {
    let mut text = String::from(
        "\n| job | result | raw link | ratio | requests | bytes moved / asked | CPU s | peak RSS |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for Row { name, unit, ceiling, measured } in rows {
        let amplification = measured.amplification.map_or("-".to_owned(), |factor| format!("{factor:.2}"));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {name} | {:.0} {unit} | {ceiling:.0} | {:.2} | {} | {amplification} | {:.2} | {} MiB |",
            measured.rate,
            measured.rate / ceiling,
            measured.requests,
            measured.cpu_seconds,
            measured.peak_rss_bytes >> 20
        );
    }
    text
}
