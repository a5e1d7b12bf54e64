//! Path - Create with x-ms-rename-source.

use std::time::Instant;

use azure_core::http::Method;

use super::path_call;
use crate::blob::{
    BlobName, BlobProperties, Committed, Condition, ETag, Error, ErrorKind, Result,
    azure::{
        AzureStore,
        call::{Failed, written_since},
        get, response,
        source::Source,
    },
};

pub(super) async fn rename(
    store: &AzureStore,
    source: &BlobName,
    source_version: Option<&ETag>,
    name: &BlobName,
    destination: &Condition,
) -> Result<Option<Committed>> {
    let location = store.location();
    let renamed = Source::Renamed { path: location.rename_source(source), url: location.path_url(Some(source)) };
    let mut call = path_call(store, "Path - Create", Method::Put, Some(name))?.source(renamed).condition(destination);
    if let Some(ETag(version)) = source_version {
        call = call.header("x-ms-source-if-match", version.as_ref());
    }
    match store.engine().run(&call, &store.limits).await {
        Ok(reply) => Ok(response::committed(&reply.headers).ok()),
        Err(failed) => recognise(store, source, source_version, name, failed).await.map_err(|error| {
            // Without a condition nothing else is refused as existing (page "Path - Create").
            match error.code.as_deref() {
                Some("PathAlreadyExists") if *destination == Condition::None => {
                    Error { kind: ErrorKind::NotEmpty, ..error }
                }
                _ => error,
            }
        }),
    }
}

/// After a reply was lost and the next try was refused: if the source is gone and the new name has its version (or one
/// that was written since we began), it was us.
async fn recognise(
    store: &AzureStore,
    source: &BlobName,
    source_version: Option<&ETag>,
    name: &BlobName,
    failed: Failed,
) -> Result<Option<Committed>> {
    let refused = matches!(failed.error.kind, ErrorKind::NotFound | ErrorKind::Precondition | ErrorKind::NotEmpty);
    if !failed.ambiguous || !refused || !is_gone(store, source).await {
        return Err(failed.error);
    }
    let Ok((found, now)) = get::head_with_date(store, name, &Condition::None).await else {
        return Err(failed.error);
    };
    if !is_ours(&found, source_version, failed.began, now) {
        return Err(failed.error);
    }
    Ok(Some(Committed { etag: found.etag, last_modified: found.last_modified }))
}

async fn is_gone(store: &AzureStore, source: &BlobName) -> bool {
    let found = get::head(store, source, &Condition::None).await;
    found.is_err_and(|error| error.kind == ErrorKind::NotFound)
}

/// A directory has no version to compare: the caller knew nothing there, or something empty.
fn is_ours(found: &BlobProperties, version: Option<&ETag>, began: Instant, now: Option<std::time::SystemTime>) -> bool {
    version.is_none_or(|version| found.etag == *version || written_since(began, found.last_modified, now))
}
