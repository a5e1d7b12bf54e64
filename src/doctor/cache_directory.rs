//! The cache directory: whether it can be written, and whether there is room above what is to stay free. Makes nothing that
//! stays.

use std::{io, path::Path};

use super::examine::{CacheDirectory, Step};
use crate::finding::{Diagnosis, Finding};

pub(super) fn ask(directory: Option<&CacheDirectory>) -> Step<String> {
    let Some(directory) = directory else { return Step::Skipped("no --cache-dir was given".to_owned()) };
    match look(directory) {
        Ok(text) => Step::Done(text),
        Err(known) => Step::Failed(known),
    }
}

fn look(directory: &CacheDirectory) -> Result<String, Diagnosis> {
    let CacheDirectory { path, free_percent_min } = directory;
    let shown = path.display().to_string();
    let unusable = |error: &dyn std::error::Error| {
        Finding::CacheDirectoryUnusable.with(&[("directory", &shown), ("reason", &error.to_string())])
    };
    // The mount makes what is missing: its parent has to let it.
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    if !existing.is_dir() {
        return Err(unusable(&io::Error::from(io::ErrorKind::NotADirectory)));
    }
    tempfile::tempfile_in(existing).map_err(|error| unusable(&error))?;
    let stat = nix::sys::statvfs::statvfs(existing).map_err(|error| unusable(&error))?;
    let (free, all) = (stat.blocks_available() * stat.fragment_size(), stat.blocks() * stat.fragment_size());
    if free < all / 100 * u64::from(*free_percent_min) {
        return Err(Finding::CacheDirectoryFull.with(&[
            ("directory", &shown),
            ("free", &gibibytes(free)),
            ("all", &gibibytes(all)),
            ("floor", &free_percent_min.to_string()),
        ]));
    }
    Ok(format!("{shown} has {} of {} free", gibibytes(free), gibibytes(all)))
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1_u64 << 30) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_judged_before_it_is_used() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("file");
        std::fs::write(&file, "").unwrap();
        let ask =
            |path: &Path, free_percent_min| ask(Some(&CacheDirectory { path: path.to_owned(), free_percent_min }));
        assert!(ask(&scratch.path().join("not/yet"), 0).done().is_some());
        assert_eq!(ask(&file, 0).failed().unwrap().finding, Finding::CacheDirectoryUnusable);
        assert_eq!(ask(scratch.path(), 100).failed().unwrap().finding, Finding::CacheDirectoryFull);
        assert!(std::fs::read_dir(scratch.path()).unwrap().count() == 1, "nothing stays behind");
    }
}
