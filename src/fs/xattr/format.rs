//! How `user.*` attributes stand in blob metadata. Pure; knows nothing of inodes.
//!
//! Metadata names are HTTP header names that compare without case, values are printable ASCII. So an attribute takes
//! one of two forms, and other tools see the first as what they would have written themselves:
//!
//! | attribute | metadata |
//! |---|---|
//! | `user.author` = `Jane` | `author: Jane` |
//! | a name that is no lower-case identifier, or one that this file system or AzCopy uses; a value that is empty, binary or padded | `xattr_` + the name with every byte but `a-z0-9` as `_` and two hex digits; `0s` + the value in base64 (`0s` is how getfattr and setfattr mark base64) |
//!
//! Every plain name that another tool has set is an attribute too.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::super::attributes::{Attributes, Kind, is_reserved};
use crate::blob::{METADATA_ENTRIES_MAX, Metadata};

/// Head of metadata names in the second form.
const ENCODED: &str = "xattr_";
/// Head of values in the second form.
const BASE64: &str = "0s";
/// All metadata of a blob, names and values ("Setting and retrieving properties and metadata for Blob resources").
const METADATA_BYTES_MAX: usize = 8 << 10;

/// Changes of metadata that are not committed: what a name will have, `None` where it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataChanges(BTreeMap<String, Option<String>>);

impl MetadataChanges {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What each name will have.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Option<String>)> {
        self.0.iter()
    }

    /// Makes them in `metadata`.
    pub fn apply(&self, metadata: &mut Metadata) {
        for (name, value) in &self.0 {
            match value {
                Some(value) => drop(metadata.insert(name.clone(), value.clone())),
                None => drop(metadata.remove(name)),
            }
        }
    }

    /// What is left of them once `sent` is on the service.
    pub fn forget(&mut self, sent: &Self) {
        self.0.retain(|name, value| sent.0.get(name) != Some(value));
    }

    /// Takes the attribute `name` (without `user.`) away, in whichever form it is there.
    pub fn remove(&mut self, name: &[u8]) {
        self.0.insert(encoded_name(name), None);
        if let Some(plain) = plain_name(name) {
            self.0.insert(plain.to_owned(), None);
        }
    }

    /// Sets the attribute `name` (without `user.`).
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        self.remove(name);
        match plain_name(name).zip(plain_value(value)) {
            Some((name, value)) => self.0.insert(name.to_owned(), Some(value.to_owned())),
            None => self.0.insert(encoded_name(name), Some(format!("{BASE64}{}", STANDARD.encode(value)))),
        };
    }
}

impl FromIterator<(String, Option<String>)> for MetadataChanges {
    fn from_iter<T: IntoIterator<Item = (String, Option<String>)>>(changes: T) -> Self {
        Self(changes.into_iter().collect())
    }
}

/// The value of the attribute `name` (without `user.`).
#[must_use]
pub fn get(metadata: &Metadata, name: &[u8]) -> Option<Vec<u8>> {
    let encoded = metadata.get(&encoded_name(name)).map(|value| decoded_value(value));
    encoded.or_else(|| metadata.get(plain_name(name)?).map(|value| value.as_bytes().to_vec()))
}

/// The names of all attributes, without `user.`.
#[must_use]
pub fn names(metadata: &Metadata) -> BTreeSet<Vec<u8>> {
    let name = |name: &String| match name.strip_prefix(ENCODED) {
        Some(encoded) => decoded_name(encoded),
        None => plain_name(name.as_bytes()).map(|name| name.as_bytes().to_vec()),
    };
    metadata.keys().filter_map(name).collect()
}

/// Whether a blob can hold `metadata` and still take any owner, mode and times: changing those must never fail for
/// want of room.
#[must_use]
pub fn fits(metadata: &Metadata, kind: Kind) -> bool {
    let mut full = metadata.clone();
    Attributes::longest().write_to(kind, &mut full);
    let bytes: usize = full.iter().map(|(name, value)| name.len() + value.len()).sum();
    bytes <= METADATA_BYTES_MAX && full.len() <= METADATA_ENTRIES_MAX
}

/// The name in its first form: an identifier in lower case that nobody else uses.
fn plain_name(name: &[u8]) -> Option<&str> {
    let name = str::from_utf8(name).ok()?;
    let first = name.bytes().next()?;
    let identifier = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    (identifier && !first.is_ascii_digit() && !is_reserved(name) && !name.starts_with(ENCODED)).then_some(name)
}

/// The value in its first form. Blanks at the ends would be lost, and a tab is no character of a header.
fn plain_value(value: &[u8]) -> Option<&str> {
    let text = str::from_utf8(value).ok()?;
    let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    (printable && !text.is_empty() && text.trim() == text).then_some(text)
}

fn encoded_name(name: &[u8]) -> String {
    let mut encoded = ENCODED.to_owned();
    for byte in name {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => encoded.push(char::from(*byte)),
            _ => encoded.push_str(&format!("_{byte:02x}")),
        }
    }
    encoded
}

fn decoded_name(encoded: &str) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'_' {
            let digits = str::from_utf8(tail.get(..2)?).ok()?;
            name.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            name.push(*first);
        }
    }
    (!name.is_empty()).then_some(name)
}

/// What does not decode was written by somebody else, and is shown as it is.
fn decoded_value(value: &str) -> Vec<u8> {
    let decoded = value.strip_prefix(BASE64).and_then(|value| STANDARD.decode(value).ok());
    decoded.unwrap_or_else(|| value.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(pairs: &[(&str, &str)]) -> Metadata {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_other_tools_would_write_is_written_as_they_would() {
        let mut changes = MetadataChanges::default();
        changes.set(b"author", b"Jane Doe");
        let mut written = Metadata::new();
        changes.apply(&mut written);
        assert_eq!(written, metadata(&[("author", "Jane Doe")]));
        assert_eq!(get(&metadata(&[("author", "x")]), b"author").unwrap(), b"x");
    }

    #[test]
    fn every_name_and_value_survives_and_headers_can_carry_it() {
        let long = [b'n'; 250];
        let names: [&[u8]; 9] =
            [b"a", b"Author", b"modtime", b"hdi_isfolder", b"1st", b"rsync.%stat", b"\xff\x00z", b"xattr_a", &long];
        let values: [&[u8]; 7] = [b"v", b"", b" padded ", b"\0\xff\n", b"0sMQ==", "ü".as_bytes(), b"two words"];
        for name in names {
            for value in values {
                let mut changes = MetadataChanges::default();
                changes.set(name, value);
                let mut written = metadata(&[("other", "stays"), ("modtime", "1")]);
                changes.apply(&mut written);
                assert_eq!(get(&written, name).as_deref(), Some(value), "{name:?}");
                assert!(super::names(&written).contains(name), "{name:?} in {written:?}");
                assert_eq!(super::names(&written).len(), 2, "{written:?}");
                assert_eq!(written.get("modtime").map(String::as_str), Some("1"));
                for (name, value) in &written {
                    assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{name}");
                    assert!(value.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{value}");
                }
                changes.remove(name);
                changes.apply(&mut written);
                assert_eq!(get(&written, name), None, "{name:?}");
            }
        }
    }

    #[test]
    fn the_file_systems_own_metadata_is_no_attribute() {
        let own = metadata(&[("permissions", "33188"), ("posix_owner", "0"), ("is_symlink", "true"), ("modtime", "1")]);
        assert!(names(&own).is_empty());
        assert_eq!(get(&own, b"permissions"), None);
    }

    #[test]
    fn changes_that_were_sent_are_forgotten_and_later_ones_stay() {
        let mut changes = MetadataChanges::default();
        changes.set(b"a", b"1");
        changes.set(b"b", b"1");
        let sent = changes.clone();
        changes.set(b"b", b"2");
        changes.forget(&sent);
        let mut left = Metadata::new();
        changes.apply(&mut left);
        assert_eq!(left, metadata(&[("b", "2")]));
        let sent = changes.clone();
        changes.forget(&sent);
        assert!(changes.is_empty());
    }

    #[test]
    fn room_is_kept_for_owner_mode_and_times() {
        let mut full = Metadata::new();
        full.insert("a".to_owned(), "v".repeat(METADATA_BYTES_MAX - 1));
        assert!(!fits(&full, Kind::File));
        full.insert("a".to_owned(), "v".repeat(METADATA_BYTES_MAX - 512));
        assert!(fits(&full, Kind::File));
    }
}
