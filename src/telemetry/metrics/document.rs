//! The table of metrics as Markdown, for docs/METRICS.md.

use std::fmt::Write as _;

use super::table::{FAMILIES, Kind, Where};

/// The table of docs/METRICS.md. A test compares it with the file.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| metric | type | labels | pages | what it says |\n|---|---|---|---|---|\n");
    for family in FAMILIES {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let place = match family.place {
            Where::Driver => "node, controller",
            Where::Mounts => "node, mount",
            Where::All => "all",
        };
        let labels = family.labels.join(", ");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{}` | {kind} | {labels} | {place} | {} |", family.name, family.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands between the two marks in docs/METRICS.md is [`markdown`]; `AZBLOB_UPDATE_DOCS=1` writes it.
    #[test]
    fn the_page_of_metrics_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (before, rest) = page.split_once("<!-- table -->\n").unwrap();
        let (shown, after) = rest.split_once("<!-- end of table -->").unwrap();
        if std::env::var_os("AZBLOB_UPDATE_DOCS").is_some() {
            let page = format!("{before}<!-- table -->\n{}<!-- end of table -->{after}", markdown());
            std::fs::write(path, page).unwrap();
            return;
        }
        assert_eq!(shown, markdown(), "AZBLOB_UPDATE_DOCS=1 cargo test --lib metrics::document writes it");
    }
}
