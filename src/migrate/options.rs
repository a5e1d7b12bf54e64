//! Mount options, one by one: which do something here, which do not, and which would fail the mount.

use crate::volume::options::MountOptions;

/// The options of a text (or of the items of a list), each with its value: `-o a=b` and `--x v` are one.
pub(super) fn split<'a>(items: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut words = items.into_iter().flat_map(str::split_whitespace).peekable();
    while let Some(word) = words.next() {
        let takes_next = word == "-o" || (word.starts_with("--") && !word.contains('='));
        match words.next_if(|next| takes_next && !next.starts_with('-')) {
            Some(value) => found.push(format!("{word} {value}")),
            None => found.push(word.to_owned()),
        }
    }
    found
}

/// Those of `options` that do something here. What is left out, and why, goes to `notes`.
pub(super) fn effective(options: Vec<String>, notes: &mut Vec<String>) -> Vec<String> {
    let keep = |option: &String| match MountOptions::parse([option]) {
        Ok((_, warnings)) if warnings.is_empty() => true,
        Ok((_, warnings)) => {
            notes.extend(warnings.into_iter().map(|warning| format!("{warning}; left out")));
            false
        }
        Err(error) => {
            notes.push(format!("{error}; left out"));
            false
        }
    };
    options.into_iter().filter(keep).collect()
}

/// Says what of `options` does nothing, or would fail the mount, and changes none.
pub(super) fn judge(options: &[String], notes: &mut Vec<String>) {
    for option in options {
        match MountOptions::parse([option]) {
            Ok((_, warnings)) => notes.extend(warnings),
            Err(error) => notes.push(format!("{error}; the mount will fail until it is taken out")),
        }
    }
}
