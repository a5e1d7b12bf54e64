//! Path - Create and Path - Delete of directories.

use azure_core::http::Method;
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{path_call, version_of};
use crate::blob::{
    BlobName, Committed, Condition, DIRECTORY_MARK, ErrorKind, MODE_BITS, Metadata, Result,
    azure::{AzureStore, response, set},
};

pub(super) async fn create(
    store: &AzureStore,
    name: &BlobName,
    mode: u32,
    metadata: &Metadata,
    condition: &Condition,
) -> Result<Committed> {
    let mut call = path_call(store, "Path - Create", Method::Put, Some(name))?
        .query("resource", "directory")
        .header("x-ms-permissions", format!("{:04o}", mode & MODE_BITS))
        .header("x-ms-umask", "0000")
        .condition(condition);
    let properties = encoded(metadata);
    if !properties.is_empty() {
        call = call.header("x-ms-properties", properties);
    }
    match store.engine().run(&call, &store.limits).await {
        Ok(reply) => version_of(store, name, &reply.headers).await,
        Err(failed) => {
            let unmarked = |all: &Metadata| {
                let mut all = all.clone();
                all.remove(DIRECTORY_MARK);
                all
            };
            set::settle(store, name, failed, |found| unmarked(&found.metadata) == unmarked(metadata)).await
        }
    }
}

/// `name=value,name=value` with the values in base64. The service marks directories itself.
fn encoded(metadata: &Metadata) -> String {
    let own = metadata.iter().filter(|(name, _)| *name != DIRECTORY_MARK);
    own.map(|(name, value)| format!("{name}={}", STANDARD.encode(value))).collect::<Vec<_>>().join(",")
}

pub(super) async fn delete(store: &AzureStore, name: &BlobName, recursive: bool) -> Result<()> {
    let mut continuation: Option<String> = None;
    loop {
        let mut call = path_call(store, "Path - Delete", Method::Delete, Some(name))?
            .query("recursive", if recursive { "true" } else { "false" });
        if recursive {
            // For a caller whom access lists bind, each request looks at some of the paths, and the last one deletes all.
            call = call.query("paginated", "true").commits();
        }
        if let Some(token) = &continuation {
            call = call.query("continuation", token);
        }
        let reply = match store.engine().run(&call, &store.limits).await {
            Ok(reply) => reply,
            // It was there, or the first try would have said so: an earlier try has deleted it.
            Err(failed) if failed.may_be_own_echo() && failed.error.kind == ErrorKind::NotFound => return Ok(()),
            Err(failed) => return Err(failed.error),
        };
        match response::text(&reply.headers, "x-ms-continuation") {
            Some(token) => continuation = Some(token.to_owned()),
            None => return Ok(()),
        }
    }
}
