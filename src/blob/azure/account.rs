//! Flat or hierarchical: what an account is, by the first of three ways that the credential may go.
//!
//! 1. Get Account Information, asked on the container's own URL, which also a service SAS may read.
//! 2. The access list of the container's root: a flat account has none and answers 400.
//! 3. A listing with permissions, which only a hierarchical account tells of its entries.

use azure_core::http::Method;

use super::{AzureStore, call::ReplyBody, dfs, response};
use crate::blob::{AccountInfo, ErrorKind, RequestLimits, Result};

pub(super) async fn account_info(store: &AzureStore) -> Result<AccountInfo> {
    let call = store
        .container_call("Get Account Information", Method::Get)?
        .query("restype", "account")
        .query("comp", "properties")
        .buffered();
    match store.engine().ask(&call, &store.limits).await {
        Ok(reply) => {
            let hierarchical = response::text(&reply.headers, "x-ms-is-hns-enabled");
            Ok(AccountInfo { hierarchical: hierarchical.is_some_and(|value| value.eq_ignore_ascii_case("true")) })
        }
        // The service hides this question from bearer tokens whose roles are of the data plane alone: 404, code
        // ResourceNotFound (seen in public issues of the SDKs for .NET, Python and C++). A container that is not there is
        // told by the next question.
        Err(error) if may_be_known_otherwise(error.kind) || error.status == Some(404) => {
            // Short: nothing that answers at all needs longer, and somebody waits for a mount.
            let store = store.with_limits(RequestLimits::mounting());
            let hierarchical = match dfs::root_has_access_control(&store).await {
                Ok(known) => known,
                Err(error) if error.status == Some(400) => false,
                Err(_) => listing_has_permissions(&store).await?,
            };
            Ok(AccountInfo { hierarchical })
        }
        Err(error) => Err(error),
    }
}

fn may_be_known_otherwise(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Denied | ErrorKind::Unsupported | ErrorKind::Invalid)
}

/// Whether a listing tells permissions. Servers that do not know the question may ignore it; an empty container tells
/// nothing. Both count as flat, on which directories and renames take more requests but are right.
async fn listing_has_permissions(store: &AzureStore) -> Result<bool> {
    let call = store
        .container_call("List Blobs", Method::Get)?
        .query("restype", "container")
        .query("comp", "list")
        .query("include", "permissions")
        .query("maxresults", "1")
        .buffered();
    let reply = match store.engine().ask(&call, &store.limits).await {
        Ok(reply) => reply,
        Err(error) if may_be_known_otherwise(error.kind) => return Ok(false),
        Err(error) => return Err(error),
    };
    let ReplyBody::Whole(body) = reply.body else { return Ok(false) };
    Ok(String::from_utf8_lossy(&body).contains("<Permissions>"))
}
