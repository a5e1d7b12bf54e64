//! Which certificate authorities are trusted, as every role that speaks to Azure takes it.

use std::path::PathBuf;

use super::Failure;
use crate::{credential::Trust, finding::Diagnosis};

/// The flag.
#[derive(Debug, clap::Args)]
pub(super) struct TrustArgs {
    /// PEM file with certificate authorities to trust beside the machine's, for endpoints and identity services alike. In
    /// place of the machine's: SSL_CERT_FILE.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl TrustArgs {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, or holds no certificate.
    pub(super) fn read(&self) -> Result<Trust, Failure> {
        self.find().map_err(Failure::from)
    }

    /// The same with its finding.
    pub(super) fn find(&self) -> Result<Trust, Diagnosis> {
        let Some(file) = &self.ca_file else { return Ok(Trust::default()) };
        Trust::with_file(file).map_err(|error| error.diagnosis())
    }
}
