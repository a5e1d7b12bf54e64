//! Delete Blob.

use azure_core::http::Method;

use super::AzureStore;
use crate::blob::{BlobName, Condition, ErrorKind, Result};

pub(super) async fn delete(store: &AzureStore, name: &BlobName, condition: &Condition) -> Result<()> {
    let call = store.blob_call("Delete Blob", Method::Delete, name)?.condition(condition);
    match store.engine().run(&call, &store.limits).await {
        Ok(_) => Ok(()),
        // It was there (or the first try would have said so) and is gone: our earlier try did it. A 412 here means that
        // somebody has made a new blob since, or changed the old one before: we cannot tell, so the caller hears it.
        Err(failed) if failed.may_be_own_echo() && failed.error.kind == ErrorKind::NotFound => Ok(()),
        Err(failed) => Err(failed.error),
    }
}
