//! The lease that a commit holds where the blob's block ids leave no room for a nonce.
//!
//! Put Block takes no condition, and two writers that stage the same id publish each other's bytes (DESIGN 10.7). Ids of
//! 12 bytes and more carry 8 random bytes of their writer. On a blob with shorter ones, nobody else may stage: a lease is
//! held from the first block to the list. Nothing is sent ahead there.

use std::{future::Future, time::Duration};

use super::{Error, FileSystem, Result};
use crate::{
    blob::{BlobName, BlobStore, ErrorKind, LEASE_DURATION, LeaseId},
    sync::{
        Arc,
        tokio::{self, runtime::Handle},
    },
};

/// A third of its life: two renewals may be late before it ends.
const RENEW_EVERY: Duration = Duration::from_secs(LEASE_DURATION.as_secs() / 3);

/// A lease. Given back by [`HeldLease::release`]; where its holder was cancelled, by a task of its own.
pub(super) struct HeldLease {
    /// The container under the lease.
    pub store: Arc<dyn BlobStore>,
    plain: Arc<dyn BlobStore>,
    name: BlobName,
    lease: LeaseId,
    runtime: Handle,
    released: bool,
}

impl FileSystem {
    /// Takes the lease of a blob. `None` where there is none to take: the store has no leases, or there is no blob yet
    /// (the ids are random then, and somebody else's only where a broken upload with such ids goes on).
    ///
    /// # Errors
    /// EBUSY when somebody else holds it; what the service says.
    pub(super) async fn lease(&self, name: &BlobName) -> Result<Option<HeldLease>> {
        let Some(leases) = self.store.leases() else { return Ok(None) };
        let lease = match leases.acquire(name).await {
            Ok(lease) => lease,
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::from_store(format!("cannot lease {name}"), error)),
        };
        Ok(Some(HeldLease {
            store: leases.under(&lease),
            plain: Arc::clone(&self.store),
            name: name.clone(),
            lease,
            runtime: self.resources.runtime.clone(),
            released: false,
        }))
    }
}

impl HeldLease {
    /// Does `work` and keeps the lease meanwhile.
    ///
    /// # Errors
    /// Those of `work`; that the lease was lost, which is a conflict.
    pub(super) async fn keep_while<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            outcome = work => outcome,
            lost = self.keep() => Err(lost),
        }
    }

    /// Gives it back, so that the next commit finds it free. One that cannot be given back ends by itself.
    pub(super) async fn release(mut self) {
        self.released = true;
        release(self.plain.as_ref(), &self.name, &self.lease).await;
    }

    /// Renews until that fails.
    async fn keep(&self) -> Error {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            let Some(leases) = self.plain.leases() else { continue };
            if let Err(mut error) = leases.renew(&self.name, &self.lease).await {
                if error.kind == ErrorKind::Blocked {
                    error.kind = ErrorKind::Precondition; // Whoever has it now may have written.
                }
                return Error::from_store(format!("the lease of {} was lost", self.name), error);
            }
        }
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        if !self.released {
            let (store, name, lease) = (Arc::clone(&self.plain), self.name.clone(), self.lease.clone());
            self.runtime.spawn(async move { release(store.as_ref(), &name, &lease).await });
        }
    }
}

async fn release(store: &dyn BlobStore, name: &BlobName, lease: &LeaseId) {
    let Some(leases) = store.leases() else { return };
    if let Err(error) = leases.release(name, lease).await {
        tracing::debug!(%error, "a lease ends by itself");
    }
}
