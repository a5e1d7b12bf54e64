//! Get Account Information: flat or hierarchical. Asked on the container's own URL, which also a service SAS may read.

use azure_core::http::Method;

use super::{AzureStore, response};
use crate::blob::{AccountInfo, Result};

pub(super) async fn account_info(store: &AzureStore) -> Result<AccountInfo> {
    let call = store
        .container_call("Get Account Information", Method::Get)?
        .query("restype", "account")
        .query("comp", "properties")
        .buffered();
    let reply = store.engine().ask(&call, &store.limits).await?;
    let hierarchical = response::text(&reply.headers, "x-ms-is-hns-enabled");
    Ok(AccountInfo { hierarchical: hierarchical.is_some_and(|value| value.eq_ignore_ascii_case("true")) })
}
