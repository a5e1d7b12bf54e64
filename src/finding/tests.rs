//! The table is whole, and the page in docs/ is printed from it.

use std::collections::HashSet;

use super::*;

#[test]
fn every_finding_has_one_row_and_every_name_is_its_own() {
    for finding in Finding::ALL {
        let rows = TABLE.iter().filter(|row| row.finding == *finding).count();
        assert_eq!(rows, 1, "{}", finding.name());
    }
    let names: HashSet<_> = Finding::ALL.iter().map(|finding| finding.name()).collect();
    assert_eq!(names.len(), Finding::ALL.len());
    assert_eq!(TABLE.len(), Finding::ALL.len());
}

#[test]
fn a_sentence_is_filled_in_once_and_what_is_not_known_stands_in_capitals() {
    let facts = [("principal", "{account}"), ("operation", "List Blobs"), ("account", "acme"), ("container", "logs")];
    let text = Finding::RoleMissing.with(&facts).to_string();
    assert!(text.starts_with("{account} lacks the role for List Blobs: assign it"), "{text}");
    assert!(text.contains("--assignee ASSIGNEE") && text.contains("/subscriptions/SUBSCRIPTION/"), "{text}");
    assert!(text.ends_with("/storageAccounts/acme/blobServices/default/containers/logs"), "{text}");
}

#[test]
fn no_sentence_ends_with_a_full_stop_and_none_is_said_twice() {
    let mut said = HashSet::new();
    for row in TABLE {
        assert!(!row.cause.ends_with('.') && !row.fix.ends_with('.'), "{}", row.finding.name());
        assert!(!row.symptom.is_empty() && !row.cause.is_empty() && !row.fix.is_empty(), "{}", row.finding.name());
        assert!(row.cause == "{reason}" || said.insert(row.cause), "{}: {}", row.finding.name(), row.cause);
    }
}

/// The page between its marks. With AZBLOB_UPDATE_DOCS=1 it is written, not compared.
#[test]
fn the_troubleshooting_page_shows_this_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/TROUBLESHOOTING.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- findings -->\n", "<!-- end of findings -->");
    let (before, rest) = page.split_once(begin).unwrap();
    let (shown, after) = rest.split_once(end).unwrap();
    let right = markdown();
    if std::env::var_os("AZBLOB_UPDATE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{begin}{right}{end}{after}")).unwrap();
        return;
    }
    assert!(
        shown == right,
        "docs/TROUBLESHOOTING.md is old: run this test with AZBLOB_UPDATE_DOCS=1 cargo test --lib finding"
    );
}
