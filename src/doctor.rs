//! The doctor: what keeps a volume from being mounted, as a finding with its fix.
//!
//! | file | what it is for |
//! |---|---|
//! | [`diagnose`] | from an error to a finding: what a mount or a stage that failed says |
//! | [`examine`] | asks in order, each question within its own time; what was answered is evidence |
//! | `dns`, `tcp`, `service`, `credential`, `access`, `probes`, `cors`, `kernel`, `cache_directory` | one question each |
//! | [`report`] | the evidence, check by check, for people and for machines |
//!
//! A question that an earlier answer has made meaningless is not asked; the report says why. Nothing is changed in the
//! container unless a write probe was asked for, whose blob is removed. No secret is in a report. Knows no gRPC, no
//! Kubernetes and no file system.

mod access;
mod cache_directory;
mod cors;
mod credential;
pub mod diagnose;
mod dns;
pub mod examine;
mod kernel;
mod probes;
pub mod report;
mod service;
mod tcp;

pub use diagnose::diagnose;
pub use dns::seen_from_here;
pub use examine::{CacheDirectory, Patient, Questions, examine};
pub use report::{Report, Verdict};
