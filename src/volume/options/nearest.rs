//! The known option that looks most like a mistyped one.

use super::{TABLE, normal};

/// The nearest name of the table, if one is near enough to be meant: a third of the letters may differ.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let wanted = normal(name);
    let names = TABLE.iter().flat_map(|row| std::iter::once(row.name).chain(row.also.iter().copied()));
    let (distance, best) =
        names.map(|known| (distance(&wanted, &normal(known)), known)).min_by_key(|(near, _)| *near)?;
    (distance <= 1 + wanted.len() / 3).then_some(best)
}

/// Letters to insert, delete or replace to make one of the other (Levenshtein), by rows of the usual matrix.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        row[0] = left;
        for (column, there) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *there);
            diagonal = row[column + 1];
            left = replaced.min(left + 1).min(diagonal + 1);
            row[column + 1] = left;
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_letters() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("umask", "umask"), 0);
    }

    #[test]
    fn typing_errors_find_their_option_and_strangers_find_none() {
        assert_eq!(nearest("alow_other"), Some("allow_other"));
        assert_eq!(nearest("file-cache-timeut-in-seconds"), Some("file-cache-timeout-in-seconds"));
        assert_eq!(nearest("qqqqqqqqqqqqqqq"), None);
    }
}
