//! Lease Blob: who holds the lease is the only one who may write the blob, stage blocks for it or delete it.
//!
//! We propose the id ourselves, so that an acquire whose reply was lost is repeated without harm: the service gives a
//! lease again to whom it belongs.

use azure_core::http::Method;

use super::{AzureStore, request::Call};
use crate::blob::{BlobName, ErrorKind, LEASE_DURATION, LeaseId, Result};

fn lease_call(store: &AzureStore, name: &BlobName, action: &str) -> Result<Call> {
    let call = store.blob_call("Lease Blob", Method::Put, name)?;
    Ok(call.query("comp", "lease").header("x-ms-lease-action", action))
}

pub(super) async fn acquire(store: &AzureStore, name: &BlobName) -> Result<LeaseId> {
    let lease = LeaseId(uuid::Uuid::new_v4().to_string().into());
    let call = lease_call(store, name, "acquire")?
        .header("x-ms-lease-duration", LEASE_DURATION.as_secs().to_string())
        .header("x-ms-proposed-lease-id", lease.0.as_ref());
    store.engine().ask(&call, &store.limits).await?;
    Ok(lease)
}

pub(super) async fn renew(store: &AzureStore, name: &BlobName, lease: &LeaseId) -> Result<()> {
    let call = lease_call(store, name, "renew")?.header("x-ms-lease-id", lease.0.as_ref());
    store.engine().ask(&call, &store.limits).await.map(drop)
}

pub(super) async fn release(store: &AzureStore, name: &BlobName, lease: &LeaseId) -> Result<()> {
    let call = lease_call(store, name, "release")?.header("x-ms-lease-id", lease.0.as_ref());
    match store.engine().run(&call, &store.limits).await {
        Ok(_) => Ok(()),
        // An earlier try may have released it; and where it is not ours any more, there is nothing to release.
        Err(failed) if failed.may_be_own_echo() && failed.error.kind == ErrorKind::Blocked => Ok(()),
        Err(failed) => Err(failed.error),
    }
}
