//! The tables as Markdown, for docs/CONFIGURATION.md.

use std::fmt::Write as _;

use super::{Effect, Row, TABLE};
use crate::csi::secrets;

/// The tables of docs/CONFIGURATION.md. A test compares them with the file.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| key | where | default | what it does |\n|---|---|---|---|\n");
    for row in TABLE.iter().filter(|row| matches!(row.effect, Effect::Used | Effect::IdentityOf(_))) {
        line(&mut text, &[&names(row), &row.places.names(), row.default, row.doc]);
    }
    text.push_str("\nAbout the account that is found or made, where neither storageAccount nor a Secret names one:\n\n| key | default | what it does |\n|---|---|---|\n");
    for row in TABLE.iter().filter(|row| row.effect == Effect::Account) {
        line(&mut text, &[&names(row), row.default, row.doc]);
    }
    text.push_str("\nAccepted, logged, without effect:\n\n| key | why |\n|---|---|\n");
    for row in TABLE {
        if let Effect::None(reason) = row.effect {
            line(&mut text, &[&names(row), reason]);
        }
    }
    text.push_str("\nRefused in a StorageClass; logged in volumes that exist already:\n\n| key | why |\n|---|---|\n");
    for row in TABLE {
        if let Effect::Refused(reason) = row.effect {
            line(&mut text, &[&names(row), reason]);
        }
    }
    text.push_str(
        "\nAdded by the kubelet, the provisioner and the snapshotter:\n\n| key | what it says |\n|---|---|\n",
    );
    for row in TABLE.iter().filter(|row| row.effect == Effect::Told) {
        line(&mut text, &[&names(row), row.doc]);
    }
    text.push_str("\nKeys of a Secret:\n\n| key | what it is |\n|---|---|\n");
    for (spellings, doc) in secrets::spellings() {
        let names = spellings.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        line(&mut text, &[&names, doc]);
    }
    text
}

fn names(row: &Row) -> String {
    std::iter::once(&row.key).chain(row.also).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn line(text: &mut String, cells: &[&str]) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}
