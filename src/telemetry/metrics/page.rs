//! One answer to a scraper: samples by metric, in Prometheus' text format 0.0.4. Knows nothing of where numbers come from.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use super::{
    Distribution,
    table::{self, Family, Kind},
};

/// The media type of the page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Names and values that tell one series from another. An empty value is the same as none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<(&'static str, String)>);

impl Labels {
    /// The same with one more.
    #[must_use]
    pub fn with(&self, name: &'static str, value: impl Into<String>) -> Self {
        let mut labels = self.clone();
        labels.set(name, value);
        labels
    }

    /// Adds one, or gives it another value.
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.retain(|(known, _)| *known != name);
        let value = value.into();
        if !value.is_empty() {
            self.0.push((name, value));
        }
    }

    /// The value of one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// All of them.
    pub fn names(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Those that `family` has: a series is told apart by what the table says, and by nothing else.
    fn of(&self, family: &Family) -> Self {
        Self(self.0.iter().filter(|(name, _)| family.labels.contains(name)).cloned().collect())
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        for (at, (name, value)) in self.0.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            write!(f, "{before}{name}=\"{}\"", escaped(value))?;
        }
        f.write_str("}")
    }
}

/// A label's value, as the format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The page while it is written. Families come out in the order of the table, whatever order they are written in.
#[derive(Debug, Default)]
pub struct Page {
    /// Lines by metric name.
    lines: BTreeMap<&'static str, String>,
}

impl Page {
    /// Adds one sample of a gauge or counter.
    pub fn sample(&mut self, family: &'static Family, labels: &Labels, value: f64) {
        let labels = labels.of(family);
        // Writing to a String cannot fail.
        let _ = writeln!(self.lines.entry(family.name).or_default(), "{}{labels} {value}", family.name);
    }

    /// Adds one sample of a gauge or counter that counts whole things.
    pub fn count(&mut self, family: &'static Family, labels: &Labels, value: u64) {
        self.sample(family, labels, value as f64);
    }

    /// Adds one series of a histogram.
    pub fn distribution(&mut self, family: &'static Family, labels: &Labels, value: &Distribution) {
        let (labels, name) = (labels.of(family), family.name);
        let lines = self.lines.entry(name).or_default();
        for (end, count) in value.cumulative() {
            let end = if end.is_infinite() { "+Inf".to_owned() } else { end.to_string() };
            let _ = writeln!(lines, "{name}_bucket{} {count}", labels.with("le", end));
        }
        let _ = writeln!(lines, "{name}_sum{labels} {}", value.sum.as_secs_f64());
        let _ = writeln!(lines, "{name}_count{labels} {}", value.count());
    }

    /// The samples alone, and of histograms only what is counted and summed up: `name value` for people and scripts.
    #[must_use]
    pub fn short_text(&self) -> String {
        let mut text = String::new();
        for family in table::FAMILIES {
            let (Some(lines), bucket) = (self.lines.get(family.name), format!("{}_bucket{{", family.name)) else {
                continue;
            };
            lines.split_inclusive('\n').filter(|line| !line.starts_with(&bucket)).for_each(|line| text.push_str(line));
        }
        text
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for family in table::FAMILIES {
            let Some(lines) = self.lines.get(family.name) else { continue };
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let _ = write!(text, "# HELP {0} {1}\n# TYPE {0} {kind}\n{lines}", family.name, family.help);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::Histogram, *};

    #[test]
    fn a_label_is_escaped_and_only_those_of_the_table_are_written() {
        let labels = Labels::default().with("volume", "g#acme#\"a\\b\"").with("pvc", "").with("blob", "secret.txt");
        let mut page = Page::default();
        page.sample(&table::CREDENTIAL_EXPIRY, &labels, 4_070_908_800.0);
        let line = "azblob_csi_credential_expiry_timestamp_seconds{volume=\"g#acme#\\\"a\\\\b\\\"\"} 4070908800\n";
        assert!(page.text().ends_with(line), "{}", page.text());
    }

    #[test]
    fn families_keep_the_order_of_the_table_and_are_introduced_once() {
        let mut page = Page::default();
        let histogram = Histogram::new(super::super::CALL_BOUNDS);
        histogram.observe(Duration::from_millis(1500));
        let labels = Labels::default().with("operation", "node_stage_volume").with("success", "true");
        page.distribution(&table::CALL_DURATION, &labels, &histogram.snapshot());
        page.count(&table::VOLUMES, &Labels::default(), 2);
        page.distribution(&table::CALL_DURATION, &labels.with("success", "false"), &histogram.snapshot());
        let text = page.text();
        assert_eq!(text.matches("# TYPE ").count(), 2);
        assert!(text.find("azblob_csi_volumes 2\n") > text.find("# TYPE blob_csi_driver_operation_duration_seconds"));
        let bucket = "_bucket{operation=\"node_stage_volume\",success=\"true\",le=\"5\"} 1\n";
        assert!(text.contains(bucket) && text.contains("le=\"1\"} 0\n") && text.contains("le=\"+Inf\"} 1\n"), "{text}");
    }
}
