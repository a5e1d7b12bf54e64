//! The Data Lake endpoint (`dfs`) of a hierarchical account: requests about paths. The same credential, signature, tries
//! and deadlines as for blobs; one file an operation. Rules: REST pages "Path - Create", "Path - Delete",
//! "Path - Update", "Path - Get Properties".

mod access;
mod directory;
mod rename;

use async_trait::async_trait;
use azure_core::http::{Method, headers::Headers};

use super::{AzureStore, get, new_call, request::Call, response};
use crate::blob::{AccessControl, BlobName, Committed, Condition, ETag, HierarchicalStore, Metadata, Result};

pub(super) use access::root_has_access_control;

/// A call about a path. `None` is the root.
fn path_call(store: &AzureStore, operation: &'static str, method: Method, path: Option<&BlobName>) -> Result<Call> {
    let location = store.location();
    let resource = match path {
        Some(path) => format!("{}/{path}", location.container()),
        None => location.container().to_owned(),
    };
    match location.path_url(path) {
        Some(url) => Ok(new_call(operation, method, resource, url, path.is_none())),
        None => Err(store.invalid(operation, resource, "a path cannot have a part of only dots")),
    }
}

/// The version that an answer names; where it names none, that of a HEAD.
async fn version_of(store: &AzureStore, name: &BlobName, headers: &Headers) -> Result<Committed> {
    if let Ok(committed) = response::committed(headers) {
        return Ok(committed);
    }
    let found = get::head(store, name, &Condition::None).await?;
    Ok(Committed { etag: found.etag, last_modified: found.last_modified })
}

#[async_trait]
impl HierarchicalStore for AzureStore {
    async fn rename(
        &self,
        source: &BlobName,
        source_version: Option<&ETag>,
        name: &BlobName,
        destination: &Condition,
    ) -> Result<Option<Committed>> {
        rename::rename(self, source, source_version, name, destination).await
    }

    async fn create_directory(
        &self,
        name: &BlobName,
        mode: u32,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<Committed> {
        directory::create(self, name, mode, metadata, condition).await
    }

    async fn delete_directory(&self, name: &BlobName, recursive: bool) -> Result<()> {
        directory::delete(self, name, recursive).await
    }

    async fn set_mode(&self, name: &BlobName, mode: u32, condition: &Condition) -> Result<Committed> {
        access::set_mode(self, name, mode, condition).await
    }

    async fn access_control(&self, name: &BlobName) -> Result<AccessControl> {
        access::get(self, name).await
    }

    async fn set_access_list(&self, name: &BlobName, list: &str, condition: &Condition) -> Result<Committed> {
        access::set_list(self, name, list, condition).await
    }
}
