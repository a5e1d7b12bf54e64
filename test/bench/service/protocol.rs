//! What the two sides of the service say to each other. Plain data.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::data::File;

/// Way to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Time to the first byte of an answer.
    pub latency: Duration,
    /// Speed of a connection, in bytes a second and direction. `None`: what the machine gives.
    pub per_connection: Option<u64>,
}

/// What the service says first.
#[derive(Debug, Serialize, Deserialize)]
pub struct Started {
    /// URL of the account.
    pub endpoint: String,
    /// Its name.
    pub account: String,
    /// Its key.
    pub key: String,
}

/// Requests and bytes since they were set to zero.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Requests.
    pub requests: u64,
    /// Bytes of bodies, both ways, as sent: what a client gave up half way counts by half.
    pub bytes: u64,
}

/// What a comparison found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Checked {
    /// Blobs below the prefix.
    pub entries: usize,
    /// The first file that is missing or has other bytes.
    pub wrong: Option<String>,
}

/// From the jobs to the service.
#[derive(Debug, Serialize, Deserialize)]
pub enum Question {
    /// Be so fast.
    Link(Link),
    /// Hold these.
    Put(Vec<File>),
    /// Forget all with this prefix.
    Delete(String),
    /// What was asked?
    Counts,
    /// Count from zero.
    Reset,
    /// Do you hold these below this prefix?
    Check {
        /// The prefix.
        prefix: String,
        /// The files.
        files: Vec<File>,
        /// Whether bytes are compared, or lengths only.
        bytes: bool,
    },
}

/// And back.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Done,
    /// To [`Question::Counts`].
    Counts(Counts),
    /// To [`Question::Check`].
    Checked(Checked),
    /// Not done.
    Failed(String),
}
