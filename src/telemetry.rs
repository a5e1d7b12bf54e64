//! Logs: one line an event, on stderr, so that stdout stays for what programs read; numbers ([`metrics`]) and the HTTP
//! endpoint that tells them ([`endpoint`]). Knows nothing of what is logged or counted.
//!
//! Levels: ERROR, data or a mount is in danger; WARN, somebody should look; INFO, what happened to volumes; DEBUG, every
//! operation. Secrets never get here: they live in types whose Debug hides them.

pub mod endpoint;
pub mod metrics;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// The environment variable that sets the level where no flag does.
pub const LEVEL_VARIABLE: &str = "AZBLOB_LOG";

/// An error and its causes in one line, each said once: some libraries repeat the texts of their causes in their own.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        below = cause.source();
    }
    text
}

/// Libraries below us, each quiet unless it is named: at INFO they tell of every connection.
const QUIET: &str = "azure_core=warn,fuser=warn,h2=warn,hyper=warn,hyper_util=warn,reqwest=warn,rustls=warn,tower=warn,typespec_client_core=warn";

/// How to log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// The level that was asked for is none.
#[derive(Debug, thiserror::Error)]
#[error(
    "\"{level}\" is not a log level: write error, warn, info, debug or trace, or a list such as info,azblob_csi::fs=debug"
)]
pub struct BadLevel {
    level: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Starts logging for the whole process. `level` is a level or a list of `room=level`. A process that logs already (a
/// test) keeps what it has.
///
/// # Errors
/// [`BadLevel`].
pub fn start(level: &str, format: Format) -> Result<(), BadLevel> {
    let directives = if level.contains('=') { level.to_owned() } else { format!("{QUIET},{level}") };
    let filter =
        EnvFilter::builder().parse(directives).map_err(|source| BadLevel { level: level.to_owned(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Events of the `log` crate (fuser's) come along: the subscriber's feature `tracing-log` bridges them in `try_init`.
    let _started = match format {
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_level_is_refused_with_the_right_ones() {
        let error = start("info,fs=loud", Format::Text).unwrap_err().to_string();
        assert!(error.contains("loud") && error.contains("debug"), "{error}");
    }
}
