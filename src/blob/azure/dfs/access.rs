//! Path - Update with `action=setAccessControl`, and Path - Get Properties with `action=getAccessControl`.

use azure_core::http::Method;

use super::{path_call, version_of};
use crate::blob::{
    AccessControl, BlobName, Committed, Condition, MODE_BITS, Result,
    azure::{AzureStore, request::Call, response, set},
};

pub(super) async fn set_mode(
    store: &AzureStore,
    name: &BlobName,
    mode: u32,
    condition: &Condition,
) -> Result<Committed> {
    let mode = mode & MODE_BITS;
    let call = update(store, name, condition)?.header("x-ms-permissions", format!("{mode:04o}"));
    match store.engine().run(&call, &store.limits).await {
        Ok(reply) => version_of(store, name, &reply.headers).await,
        Err(failed) => set::settle(store, name, failed, |found| found.mode == Some(mode)).await,
    }
}

pub(super) async fn set_list(
    store: &AzureStore,
    name: &BlobName,
    list: &str,
    condition: &Condition,
) -> Result<Committed> {
    let call = update(store, name, condition)?.header("x-ms-acl", list);
    // Under a condition, a try that got lost meets its own change: rare enough to be told as somebody else's.
    let reply = store.engine().ask(&call, &store.limits).await?;
    version_of(store, name, &reply.headers).await
}

fn update(store: &AzureStore, name: &BlobName, condition: &Condition) -> Result<Call> {
    let call = path_call(store, "Path - Update", Method::Patch, Some(name))?;
    Ok(call.query("action", "setAccessControl").condition(condition))
}

pub(super) async fn get(store: &AzureStore, name: &BlobName) -> Result<AccessControl> {
    let call = path_call(store, "Path - Get Properties", Method::Head, Some(name))?.query("action", "getAccessControl");
    let reply = store.engine().ask(&call, &store.limits).await?;
    let text = |header| response::text(&reply.headers, header).unwrap_or_default().to_owned();
    Ok(AccessControl {
        owner: text("x-ms-owner"),
        group: text("x-ms-group"),
        permissions: text("x-ms-permissions"),
        list: text("x-ms-acl"),
    })
}

/// Whether the container's root has an access list: only hierarchical accounts know such a thing.
pub(in crate::blob::azure) async fn root_has_access_control(store: &AzureStore) -> Result<bool> {
    let call = path_call(store, "Path - Get Properties", Method::Head, None)?.query("action", "getAccessControl");
    let reply = store.engine().ask(&call, &store.limits).await?;
    Ok(response::text(&reply.headers, "x-ms-permissions").is_some())
}
