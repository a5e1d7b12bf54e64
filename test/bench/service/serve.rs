//! The service's side: the emulator, and answers to the questions of the jobs. Reads its stdin to the end.

use std::io::{BufRead as _, Write as _};

use anyhow::{Context, Result};
use blob_emulator::{Emulator, Settings};

use super::{
    super::data::{File, Unit},
    CONTAINER,
    protocol::{Answer, Checked, Counts, Question, Started},
};

/// What tells this program that it is the service.
pub const ARGUMENT: &str = "--serve";
/// What is compared at once: a copy of it is made.
const COMPARE_BYTES: u64 = 16 << 20;

/// Runs the service until its stdin ends.
///
/// # Errors
/// When it cannot be started, or whoever asks is gone.
pub fn serve() -> Result<()> {
    // Everybody has the key and signs; the bare client of the ceilings does not, and is let in as well.
    let emulator = Emulator::start(Settings { auth: false, ..Settings::default() })?;
    emulator.create_container(CONTAINER);
    let mut out = std::io::stdout();
    let started =
        Started { endpoint: emulator.endpoint(), account: emulator.account().to_owned(), key: emulator.key() };
    writeln!(out, "{}", serde_json::to_string(&started)?)?;
    let unit = Unit::new();
    for line in std::io::stdin().lock().lines() {
        let answer = serde_json::from_str(&line?)
            .context("no question")
            .and_then(|question| answer(&emulator, &unit, question))
            .unwrap_or_else(|error| Answer::Failed(format!("{error:#}")));
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
        out.flush()?;
    }
    Ok(())
}

fn answer(emulator: &Emulator, unit: &Unit, question: Question) -> Result<Answer> {
    match question {
        Question::Link(link) => emulator.settings(|settings| {
            settings.latency = link.latency;
            settings.per_connection = link.per_connection;
        }),
        Question::Put(files) => {
            for file in &files {
                put(emulator, unit, file)?;
            }
        }
        Question::Delete(prefix) => {
            for name in emulator.names(CONTAINER).iter().filter(|name| name.starts_with(&prefix)) {
                emulator.delete(CONTAINER, name);
            }
        }
        Question::Counts => {
            let counters = emulator.counters();
            let received: u64 = counters.operations.values().map(|operation| operation.bytes_in).sum();
            return Ok(Answer::Counts(Counts { requests: counters.total(), bytes: received + counters.bytes_sent }));
        }
        Question::Reset => emulator.reset_counters(),
        Question::Check { prefix, files, bytes } => {
            let entries = emulator.names(CONTAINER).iter().filter(|name| name.starts_with(&prefix)).count();
            let wrong = files.iter().find_map(|file| wrong(emulator, unit, file, bytes));
            return Ok(Answer::Checked(Checked { entries, wrong }));
        }
    }
    Ok(Answer::Done)
}

fn put(emulator: &Emulator, unit: &Unit, file: &File) -> Result<()> {
    let mut pieces = unit.pieces(file, 0, file.bytes);
    match (pieces.next(), pieces.next()) {
        (first, None) => emulator.put(CONTAINER, &file.name, first.unwrap_or_default(), &[])?,
        _ => emulator.put_blocks(CONTAINER, &file.name, unit.pieces(file, 0, file.bytes))?,
    };
    Ok(())
}

/// What is wrong with a file, if anything is.
fn wrong(emulator: &Emulator, unit: &Unit, file: &File, bytes: bool) -> Option<String> {
    let length = emulator.length(CONTAINER, &file.name);
    let Some(length) = length else { return Some(format!("{} is not there", file.name)) };
    if length != file.bytes {
        return Some(format!("{} has {length} bytes, not {}", file.name, file.bytes));
    }
    let mut at = 0;
    while bytes && at < length {
        let bytes = emulator.read(CONTAINER, &file.name, at..(at + COMPARE_BYTES).min(length))?;
        if !unit.agrees(file, at, &bytes) {
            return Some(format!("{} has wrong bytes near {at}", file.name));
        }
        at += bytes.len() as u64;
    }
    None
}
