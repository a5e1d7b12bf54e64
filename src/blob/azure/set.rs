//! Set Blob Metadata and Set Blob Properties: what changes the ETag but not the bytes.

use azure_core::http::Method;

use super::{
    AzureStore,
    call::{Failed, written_since},
    get,
    request::Call,
    response,
};
use crate::blob::{BlobName, BlobProperties, Committed, Condition, ContentHeaders, ErrorKind, Metadata, Result};

/// How often an unconditional Set Blob Properties starts again after a change in between.
const UNCONDITIONAL_TRIES_MAX: u32 = 5;

pub(super) async fn set_metadata(
    store: &AzureStore,
    name: &BlobName,
    metadata: &Metadata,
    condition: &Condition,
) -> Result<Committed> {
    let call = store
        .blob_call("Set Blob Metadata", Method::Put, name)?
        .query("comp", "metadata")
        .metadata(metadata)
        .condition(condition);
    set(store, name, &call, |found| found.metadata == *metadata).await
}

pub(super) async fn set_headers(
    store: &AzureStore,
    name: &BlobName,
    headers: &ContentHeaders,
    condition: &Condition,
) -> Result<Committed> {
    let mut tries = 1;
    loop {
        let outcome = set_headers_once(store, name, headers, condition).await;
        // The write carries If-Match in any case (see below). Where the caller asked for no condition, a change in
        // between is not theirs to hear of.
        let changed = outcome.as_ref().is_err_and(|error| error.kind == ErrorKind::Precondition);
        if !changed || *condition != Condition::None || tries == UNCONDITIONAL_TRIES_MAX {
            return outcome;
        }
        tries += 1;
    }
}

async fn set_headers_once(
    store: &AzureStore,
    name: &BlobName,
    headers: &ContentHeaders,
    condition: &Condition,
) -> Result<Committed> {
    // The service clears each header that is left out, the MD5 of the content too: say again what is known of it, for
    // the version that it was read from.
    let before = get::head(store, name, condition).await?;
    let mut call = store
        .blob_call("Set Blob Properties", Method::Put, name)?
        .query("comp", "properties")
        .content_headers(headers)
        .condition(&Condition::Match(before.etag));
    if let Some(md5) = before.content_md5 {
        call = call.header("x-ms-blob-content-md5", super::put_blob::encode_md5(md5));
    }
    set(store, name, &call, |found| {
        let mut wanted = ContentHeaders { tags: None, ..headers.clone() };
        if wanted.content_type.is_none() {
            // The service fills in its default.
            wanted.content_type.clone_from(&found.headers.content_type);
        }
        found.headers == wanted
    })
    .await
}

async fn set(
    store: &AzureStore,
    name: &BlobName,
    call: &Call,
    holds: impl Fn(&BlobProperties) -> bool + Send,
) -> Result<Committed> {
    let failed = match store.engine().run(call, &store.limits).await {
        Ok(reply) => return store.engine().promised(call, response::committed(&reply.headers)),
        Err(failed) => failed,
    };
    settle(store, name, failed, holds).await
}

/// After a reply was lost: the blob holds what we wrote and was written since, so it was us.
pub(super) async fn settle(
    store: &AzureStore,
    name: &BlobName,
    failed: Failed,
    holds: impl Fn(&BlobProperties) -> bool + Send,
) -> Result<Committed> {
    if !(failed.may_be_own_echo() && failed.error.kind == ErrorKind::Precondition) {
        return Err(failed.error);
    }
    match get::head_with_date(store, name, &Condition::None).await {
        Ok((found, now)) if holds(&found) && written_since(failed.began, found.last_modified, now) => {
            Ok(Committed { etag: found.etag, last_modified: found.last_modified })
        }
        Err(error) if error.kind != ErrorKind::NotFound => Err(error), // Not known: no word about anybody's change.
        _ => Err(failed.error),
    }
}
