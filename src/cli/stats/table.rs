//! Rows as a table for people: 120 characters wide, with its head again on each screenful, as vmstat(8) does. And as JSON for
//! programs. Knows nothing of how rows come about.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::figures::{Name, Row};

/// The name's column.
const NAME_WIDTH: usize = 34;

/// A column behind the name: what it is of, what it shows, in which unit, how wide, and how it is written.
type Column = (&'static str, &'static str, &'static str, usize, fn(&Row) -> String);

const COLUMNS: [Column; 12] = [
    ("programs", "reads", "/s", 6, |row| count(row.per_second(row.happened.reads))),
    ("programs", "writes", "/s", 6, |row| count(row.per_second(row.happened.writes))),
    ("programs", "read", "B/s", 6, |row| bytes(row.per_second(row.happened.read_bytes))),
    ("programs", "wrote", "B/s", 6, |row| bytes(row.per_second(row.happened.written_bytes))),
    ("programs", "p50", "", 6, |row| time(row.happened.latency_seconds(0.5))),
    ("programs", "p99", "", 6, |row| time(row.happened.latency_seconds(0.99))),
    ("cache", "hits", "%", 5, |row| percent(row.happened.hit_ratio())),
    ("service", "reqs", "/s", 6, |row| count(row.per_second(row.happened.requests))),
    ("service", "throttled", "/s", 9, |row| count(row.per_second(row.happened.throttled))),
    ("service", "in", "B/s", 6, |row| bytes(row.per_second(row.happened.fetched_bytes))),
    ("service", "out", "B/s", 6, |row| bytes(row.per_second(row.happened.sent_bytes))),
    ("memory", "dirty", "B", 6, |row| bytes(row.dirty_bytes)),
];

/// The table while it is printed.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Lines since the head stood there last; `None` before it did.
    below_head: Option<usize>,
}

impl Table {
    /// The lines of one report. `screen_lines` is how high the screen is.
    pub(super) fn report(&mut self, rows: &[Row], screen_lines: usize) -> String {
        let mut text = String::new();
        // Reports of several volumes stand apart.
        let gap = usize::from(rows.len() != 1 && self.below_head.is_some());
        let lines = rows.len().max(1) + gap;
        let fits = |below: usize| below + lines + HEAD_LINES <= screen_lines;
        if gap > 0 {
            text.push('\n');
        }
        if self.below_head.is_none_or(|below| !fits(below)) {
            text.push_str(&head());
            self.below_head = Some(0);
        }
        for row in rows {
            push_line(&mut text, &label(&row.name), COLUMNS.map(|(.., write)| write(row)));
        }
        if rows.is_empty() {
            text.push_str("(no volume is mounted)\n");
        }
        self.below_head = self.below_head.map(|below| below + lines);
        text
    }
}

const HEAD_LINES: usize = 3;

fn head() -> String {
    let mut groups = format!("{:NAME_WIDTH$}", "");
    let mut columns = COLUMNS.iter().peekable();
    let mut width = 0;
    while let Some((group, .., cell, _)) = columns.next() {
        width += 1 + cell;
        if columns.peek().is_none_or(|(next, ..)| next != group) {
            // One blank is between columns, the rest of the group's width is its name's.
            let dashes = width - 1;
            let _ = write!(groups, " {group:-^dashes$}");
            width = 0;
        }
    }
    groups.push('\n');
    push_line(&mut groups, "volume", COLUMNS.map(|(_, what, ..)| what.to_owned()));
    push_line(&mut groups, "", COLUMNS.map(|(.., unit, _, _)| unit.to_owned()));
    groups
}

fn push_line(text: &mut String, name: &str, cells: [String; COLUMNS.len()]) {
    let mut line = format!("{name:NAME_WIDTH$}");
    for ((.., width, _), cell) in COLUMNS.iter().zip(cells) {
        // Writing to a String cannot fail.
        let _ = write!(line, " {cell:>width$}");
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// What a person calls a volume: its claim where that is known. What no terminal should get is left out; what is too long
/// loses its middle, since handles begin alike and end alike.
fn label(name: &Name) -> String {
    let Name { namespace, pvc, volume, pod } = name;
    let mut label = match (namespace.as_str(), pvc.as_str()) {
        (_, "") => volume.clone(),
        ("", pvc) => pvc.to_owned(),
        (namespace, pvc) => format!("{namespace}/{pvc}"),
    };
    if !pod.is_empty() {
        let _ = write!(label, " {pod}");
    }
    let letters: Vec<char> = label.chars().filter(|letter| !letter.is_control()).collect();
    if letters.len() <= NAME_WIDTH {
        return letters.into_iter().collect();
    }
    let (head, tail) = (NAME_WIDTH / 3, NAME_WIDTH - NAME_WIDTH / 3 - 1);
    letters[..head].iter().chain(&['…']).chain(&letters[letters.len() - tail..]).collect()
}

/// At most six letters.
fn count(number: f64) -> String {
    match number {
        0.0 => "0".to_owned(),
        ..0.095 => format!("{number:.2}"),
        ..9.95 => format!("{number:.1}"),
        ..99_999.5 => format!("{number:.0}"),
        _ => scaled(number / 1000.0, 1000.0, ["k", "M", "G"]),
    }
}

/// At most five letters. K is 1024.
fn bytes(number: f64) -> String {
    match number {
        ..1023.5 => format!("{number:.0}"),
        _ => scaled(number / 1024.0, 1024.0, ["K", "M", "G"]),
    }
}

/// The number in the first unit in which it is short, or in one of the many that have no sign here.
fn scaled(mut number: f64, step: f64, units: [&str; 3]) -> String {
    for unit in units {
        match number {
            ..9.95 => return format!("{number:.1}{unit}"),
            _ if number < step - 0.5 => return format!("{number:.0}{unit}"),
            _ => number /= step,
        }
    }
    format!("{number:.1}T")
}

fn percent(ratio: Option<f64>) -> String {
    // 100 is said only of all.
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.0}", (100.0 * ratio).floor()))
}

fn time(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else { return "-".to_owned() };
    let (number, unit) = match seconds {
        ..0.000_999_5 => (seconds * 1e6, "us"),
        ..0.999_5 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    if number < 9.95 { format!("{number:.1}{unit}") } else { format!("{number:.0}{unit}") }
}

/// One report for programs: the same figures, unrounded. What is not known is null.
pub(super) fn json(rows: &[Row], time: &str, seconds: f64) -> Value {
    let known = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
    let volume = |row: &Row| {
        let (happened, rate) = (&row.happened, |count| row.per_second(count));
        json!({
            "volume": row.name.volume,
            "namespace": known(&row.name.namespace),
            "pvc": known(&row.name.pvc),
            "pod": known(&row.name.pod),
            "reads_per_second": rate(happened.reads),
            "writes_per_second": rate(happened.writes),
            "read_bytes_per_second": rate(happened.read_bytes),
            "written_bytes_per_second": rate(happened.written_bytes),
            "latency_p50_seconds": happened.latency_seconds(0.5),
            "latency_p99_seconds": happened.latency_seconds(0.99),
            "cache_hit_ratio": happened.hit_ratio(),
            "backend_requests_per_second": rate(happened.requests),
            "backend_throttled_per_second": rate(happened.throttled),
            "backend_fetched_bytes_per_second": rate(happened.fetched_bytes),
            "backend_sent_bytes_per_second": rate(happened.sent_bytes),
            "dirty_bytes": row.dirty_bytes,
        })
    };
    json!({ "time": time, "seconds": seconds, "volumes": rows.iter().map(volume).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{super::figures::Counters, *};

    const WIDTH_MAX: usize = 120;

    fn row(volume: &str, happened: Counters, dirty_bytes: f64) -> Row {
        let name = Name { volume: volume.to_owned(), ..Name::default() };
        Row { name, elapsed: Duration::from_secs(2), happened, dirty_bytes }
    }

    #[test]
    fn a_row_says_what_happened_in_a_second() {
        let happened = Counters {
            reads: 3.0,
            writes: 25_000.0,
            read_bytes: 8192.0,
            written_bytes: 300e6,
            hit_bytes: 999.0,
            miss_bytes: 1.0,
            requests: 500_000.0,
            throttled: 0.1,
            fetched_bytes: 2.0,
            sent_bytes: 4e13,
            ..Counters::default()
        };
        let text = Table::default().report(&[row("data", happened, 1e6)], 24);
        let cells: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
        let meant = ["data", "1.5", "12500", "4.0K", "143M", "-", "-", "99", "250k", "0.05", "1", "18.2T", "977K"];
        assert_eq!(cells, meant, "{text}");
    }

    #[test]
    fn heads_fit_their_columns_and_are_there_again_on_each_screenful() {
        let (mut table, quiet) = (Table::default(), row("data", Counters::default(), 0.0));
        let printed: String = (0..60).map(|_| table.report(std::slice::from_ref(&quiet), 24)).collect();
        let heads: Vec<usize> =
            printed.lines().enumerate().filter(|(_, line)| line.starts_with("volume")).map(|(at, _)| at).collect();
        assert_eq!(heads, [1, 25, 49], "{printed}");
        let [groups, names, units] = printed.lines().take(3).collect::<Vec<_>>()[..] else { panic!() };
        assert!(groups.contains("programs") && groups.chars().count() <= WIDTH_MAX, "{groups}");
        assert_eq!(names.chars().count(), groups.chars().count(), "{printed}");
        assert!(units.contains("B/s"), "{units}");
    }

    #[test]
    fn reports_of_several_volumes_stand_apart_and_none_is_said_to_be_none() {
        let rows = ["one", "two", "three"].map(|name| row(name, Counters::default(), 0.0));
        let mut table = Table::default();
        let first = table.report(&rows, 24);
        let second = table.report(&rows, 24);
        assert_eq!((first.lines().count(), second.lines().count()), (6, 4));
        assert!(second.starts_with("\none"), "{second}");
        assert_eq!(table.report(&[], 24), "\n(no volume is mounted)\n");
    }

    #[test]
    fn a_volume_is_called_after_its_claim_and_loses_its_middle_where_it_is_long() {
        let name = |namespace: &str, pvc: &str, pod: &str| Name {
            namespace: namespace.to_owned(),
            pvc: pvc.to_owned(),
            volume: "group#account#container#\u{1b}[31mpvc-0b5c0e2e-8b5a-4c1f-9d3c-2d1e6f7a8b9c#ns#".to_owned(),
            pod: pod.to_owned(),
        };
        assert_eq!(label(&name("shop", "data", "")), "shop/data");
        assert_eq!(label(&name("shop", "data", "shop/web-0")), "shop/data shop/web-0");
        let handle = label(&name("", "", ""));
        assert_eq!(handle, "group#accou…-9d3c-2d1e6f7a8b9c#ns#");
        assert_eq!(handle.chars().count(), NAME_WIDTH);
    }

    #[test]
    fn times_have_their_unit() {
        let told = [None, Some(0.0), Some(0.00005), Some(0.0012), Some(0.0999), Some(2.5), Some(60.0)].map(time);
        assert_eq!(told, ["-", "0.0us", "50us", "1.2ms", "100ms", "2.5s", "60s"]);
    }

    #[test]
    fn programs_get_the_same_figures_unrounded() {
        let happened = Counters { reads: 3.0, hit_bytes: 1.0, miss_bytes: 2.0, ..Counters::default() };
        let report = json(&[row("data", happened, 7.0)], "2026-11-22T08:00:00Z", 2.0);
        let volume = &report["volumes"][0];
        assert_eq!((&volume["reads_per_second"], &volume["dirty_bytes"]), (&json!(1.5), &json!(7.0)));
        assert_eq!((&volume["cache_hit_ratio"], &volume["pvc"]), (&json!(1.0 / 3.0), &Value::Null));
        assert_eq!((&report["time"], &report["seconds"]), (&json!("2026-11-22T08:00:00Z"), &json!(2.0)));
    }

    proptest! {
        #[test]
        fn no_figure_and_no_name_is_wider_than_its_column(number in 0.0..1e18_f64, name in "\\PC{0,80}") {
            let happened = Counters {
                reads: number, writes: number, read_bytes: number, written_bytes: number, requests: number,
                throttled: number, fetched_bytes: number, sent_bytes: number, hit_bytes: number, miss_bytes: 1.0,
                ..Counters::default()
            };
            // What is beyond a million terabytes a second no network brings.
            let happened = if number > 1e15 { Counters::default() } else { happened };
            let text = Table::default().report(&[row(&name, happened, number.min(1e15))], 24);
            for line in text.lines() {
                prop_assert!(line.chars().count() <= WIDTH_MAX, "{}", line);
            }
        }
    }
}
