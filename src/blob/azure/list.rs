//! List Blobs, with metadata, flat or folded at `/`. Ours because `azure_storage_blob` 1.1 has no delimiter.

mod parse;
mod texts;

use azure_core::http::Method;

pub(super) use parse::resolve;
pub(super) use texts::texts;

use super::{AzureStore, call::ReplyBody};
use crate::blob::{ListPage, ListRequest, Result};

pub(super) async fn list(store: &AzureStore, request: &ListRequest) -> Result<ListPage> {
    let mut call = store
        .container_call("List Blobs", Method::Get)?
        .query("restype", "container")
        .query("comp", "list")
        .query("include", if is_hierarchical(store) { "metadata,permissions" } else { "metadata" })
        .buffered();
    if !request.prefix.is_empty() {
        call = call.query("prefix", &request.prefix);
    }
    if request.delimited {
        call = call.query("delimiter", "/");
    }
    if let Some(marker) = &request.marker {
        call = call.query("marker", marker);
    }
    if let Some(most) = request.max_results {
        call = call.query("maxresults", &most.to_string());
    }
    let reply = store.engine().ask(&call, &store.limits).await?;
    let ReplyBody::Whole(body) = reply.body else { return Err(store.engine().damaged(&call, "no body")) };
    parse::page(&body).map_err(|reason| store.engine().damaged(&call, reason))
}

/// Whether the account is known to be hierarchical: a flat one refuses to be asked for permissions.
fn is_hierarchical(store: &AzureStore) -> bool {
    store.shared.account_info.get().is_some_and(|info| info.hierarchical)
}
