//! Leases: being the only one who may write a blob, for a while. The contract only.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{BlobName, BlobStore, Result};

/// How long a lease holds without a renewal: the longest that the service gives with an end (REST page "Lease Blob"). If
/// its holder dies, others wait so long.
pub const LEASE_DURATION: Duration = Duration::from_secs(60);

/// The id of a lease: whoever names it may write.
#[derive(Clone, PartialEq, Eq)]
pub struct LeaseId(pub Arc<str>);

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A container whose blobs can be leased. What [`BlobStore`] promises (each change reported once, deadlines, retries) holds
/// here too.
#[async_trait]
pub trait Leases: Send + Sync + fmt::Debug {
    /// Takes the lease of a blob for [`LEASE_DURATION`].
    ///
    /// # Errors
    /// `NotFound`; `Blocked` when somebody else has it.
    async fn acquire(&self, name: &BlobName) -> Result<LeaseId>;

    /// Makes it hold for [`LEASE_DURATION`] from now on.
    ///
    /// # Errors
    /// `NotFound`; `Blocked` when it is somebody else's now, or was broken.
    async fn renew(&self, name: &BlobName, lease: &LeaseId) -> Result<()>;

    /// Gives it back.
    ///
    /// # Errors
    /// `NotFound`; `Blocked` when it was not ours any more.
    async fn release(&self, name: &BlobName, lease: &LeaseId) -> Result<()>;

    /// The same container, every change of a blob under this lease. Where the lease was lost, changes are refused with
    /// `Precondition`, as after anybody else's change.
    fn under(&self, lease: &LeaseId) -> Arc<dyn BlobStore>;
}
