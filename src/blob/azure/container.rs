//! The container itself: its metadata, its making and its end.

use azure_core::http::Method;

use super::{AzureStore, response};
use crate::blob::{ErrorKind, Metadata, Result};

pub(super) async fn metadata(store: &AzureStore) -> Result<Metadata> {
    // Get Container Properties and not Get Container Metadata: the same headers, and a HEAD is what SAS tools allow.
    let call = store.container_call("Get Container Properties", Method::Head)?.query("restype", "container");
    let reply = store.engine().ask(&call, &store.limits).await?;
    Ok(response::metadata(&reply.headers))
}

pub(super) async fn create(store: &AzureStore, wanted: &Metadata) -> Result<()> {
    let call = store.container_call("Create Container", Method::Put)?.query("restype", "container").metadata(wanted);
    match store.engine().run(&call, &store.limits).await {
        Ok(_) => Ok(()),
        // Ours, if it says what we wrote: nobody else writes our metadata into a container of this name.
        Err(failed) if failed.may_be_own_echo() && failed.error.kind == ErrorKind::Precondition => {
            match metadata(store).await {
                Ok(found) if found == *wanted => Ok(()),
                _ => Err(failed.error),
            }
        }
        Err(failed) => Err(failed.error),
    }
}

/// Replaces the container's metadata. Doing it twice comes to the same, so a try that got lost is simply repeated.
pub(super) async fn set_metadata(store: &AzureStore, wanted: &Metadata) -> Result<()> {
    let call = store
        .container_call("Set Container Metadata", Method::Put)?
        .query("restype", "container")
        .query("comp", "metadata")
        .metadata(wanted);
    store.engine().ask(&call, &store.limits).await.map(drop)
}

pub(super) async fn delete(store: &AzureStore) -> Result<()> {
    let call = store.container_call("Delete Container", Method::Delete)?.query("restype", "container");
    match store.engine().run(&call, &store.limits).await {
        Ok(_) => Ok(()),
        // Gone, or on its way: our earlier try did it.
        Err(failed) if failed.may_be_own_echo() && failed.error.kind == ErrorKind::ContainerNotFound => Ok(()),
        Err(failed) => Err(failed.error),
    }
}
