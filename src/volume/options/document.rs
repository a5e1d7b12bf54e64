//! The table as text: Markdown for docs/CONFIGURATION.md, and the list for `--help`.

use std::fmt::Write as _;

use super::{Effect, Row, TABLE};

/// The tables of docs/CONFIGURATION.md. A test compares them with the file.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| option | default | what it does |\n|---|---|---|\n");
    for row in TABLE.iter().filter(|row| matches!(row.effect, Effect::Sets(_))) {
        line(&mut text, &[&spellings(row), row.default, row.doc]);
    }
    text.push_str("\nAccepted, logged once, without effect:\n\n| option | why |\n|---|---|\n");
    for row in TABLE {
        if let Effect::None(reason) = row.effect {
            line(&mut text, &[&spellings(row), reason]);
        }
    }
    text.push_str("\nRefused:\n\n| option | why |\n|---|---|\n");
    for row in TABLE {
        if let Effect::Refused(reason) = row.effect {
            line(&mut text, &[&spellings(row), reason]);
        }
    }
    text
}

/// The options that do something, for `--help`.
#[must_use]
pub fn options_help() -> String {
    let mut text = String::from("Mount options (-o):\n");
    for row in TABLE.iter().filter(|row| matches!(row.effect, Effect::Sets(_))) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {}{}\n      {}", row.name, row.takes.placeholder(), row.doc);
    }
    text.push_str("Those of blobfuse are accepted too; docs/CONFIGURATION.md lists them.");
    text
}

fn spellings(row: &Row) -> String {
    let value = row.takes.placeholder();
    std::iter::once(&row.name).chain(row.also).map(|name| format!("`{name}{value}`")).collect::<Vec<_>>().join(", ")
}

fn line(text: &mut String, cells: &[&str]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}
