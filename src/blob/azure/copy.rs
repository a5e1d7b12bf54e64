//! Copy Blob, inside the container or from another one. The service may do it at once or leave it pending; we return when *our* copy, known
//! by its id, has succeeded, so that a rename may delete its source (DESIGN 10.9).

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use azure_core::http::{Method, headers::Headers};
use url::Url;

use super::{
    AzureStore,
    call::{Failed, written_since},
    get,
    request::Call,
    response,
    source::Source,
};
use crate::{
    blob::{BlobName, Committed, Condition, CopyOptions, ETag, Error, ErrorKind, Result},
    credential::Credential,
};

/// First look at a pending copy, doubling up to [`POLL_MAX`].
const POLL_FIRST: Duration = Duration::from_millis(100);
/// Longest pause between two looks: a copy of gigabytes inside an account takes seconds.
const POLL_MAX: Duration = Duration::from_secs(2);

/// Largest blob of another account that is copied in the name of a token: only a synchronous copy takes one for its source (REST
/// page "Copy Blob From URL").
pub const TOKEN_COPY_BYTES_MAX: u64 = 256 << 20;

pub(super) async fn copy(
    store: &AzureStore,
    source: &BlobName,
    source_version: &ETag,
    name: &BlobName,
    options: &CopyOptions,
) -> Result<Committed> {
    let call = store.blob_call("Copy Blob", Method::Put, name)?;
    let Some(url) = store.location().blob_url(source) else {
        return Err(store.invalid(call.operation, call.resource, "the source's name cannot be put into a URL"));
    };
    perform(store, call.source(Source::Copied(url.clone())), (&url, source_version), name, options).await
}

/// The same from another container.
pub(super) async fn copy_from(
    store: &AzureStore,
    source: &AzureStore,
    (source_name, source_version): (&BlobName, &ETag),
    name: &BlobName,
    options: &CopyOptions,
) -> Result<Committed> {
    let mut call = store.blob_call("Copy Blob", Method::Put, name)?;
    let location = source.location();
    let Some(url) = location.blob_url(source_name) else {
        return Err(store.invalid(call.operation, call.resource, "the source's name cannot be put into a URL"));
    };
    let is_foreign = store.location().service_url() != location.service_url();
    if is_foreign && matches!(&*source.credentials().current(), Credential::Token(_)) {
        call = call.header("x-ms-requires-sync", "true");
    }
    call = call.source(Source::Foreign {
        url: url.clone(),
        slot: Arc::clone(source.credentials()),
        container: location.container().to_owned(),
        blob: source_name.to_string(),
        needs_sas: is_foreign,
    });
    perform(store, call, (&url, source_version), name, options).await
}

async fn perform(
    store: &AzureStore,
    mut call: Call,
    (url, source_version): (&Url, &ETag),
    name: &BlobName,
    options: &CopyOptions,
) -> Result<Committed> {
    call = call
        .header("x-ms-source-if-match", source_version.0.as_ref())
        .condition(&options.condition)
        .access_tier(options.access_tier.as_deref())
        .commits();
    if let Some(tags) = &options.tags {
        call = call.header("x-ms-tags", tags.as_ref());
    }
    let ends = Instant::now() + store.limits.commits;
    let began = match store.engine().run(&call, &store.limits).await {
        Ok(reply) => started(store, &call, &reply.headers)?,
        Err(failed) => recognise(store, &call, name, url, failed).await?,
    };
    match began {
        Started::Done(committed) => Ok(committed),
        Started::Pending { id } => wait(store, &call, name, &id, ends).await,
    }
}

/// What became of the request.
enum Started {
    Done(Committed),
    Pending { id: String },
}

fn started(store: &AzureStore, call: &Call, headers: &Headers) -> Result<Started> {
    match (response::text(headers, "x-ms-copy-status"), response::text(headers, "x-ms-copy-id")) {
        (Some("pending"), Some(id)) => Ok(Started::Pending { id: id.to_owned() }),
        (Some("success") | None, _) => store.engine().promised(call, response::committed(headers)).map(Started::Done),
        (Some(other), _) => Err(store.engine().damaged(call, format!("unexpected copy status {other}"))),
    }
}

/// After a reply was lost and the next try was refused: the destination says that it was copied from our source since
/// we began, so it was us.
async fn recognise(store: &AzureStore, call: &Call, name: &BlobName, source: &Url, failed: Failed) -> Result<Started> {
    if !(failed.may_be_own_echo() && matches!(failed.error.kind, ErrorKind::Precondition | ErrorKind::Blocked)) {
        return Err(failed.error);
    }
    let head = store.blob_call("Get Blob Properties", Method::Head, name)?;
    let reply = match store.engine().ask(&head, &store.limits).await {
        Ok(reply) => reply,
        Err(error) if error.kind == ErrorKind::NotFound => return Err(failed.error),
        Err(error) => return Err(error), // Not known: no word about anybody's change.
    };
    let from_ours = response::text(&reply.headers, "x-ms-copy-source")
        .and_then(|text| Url::parse(text).ok())
        .is_some_and(|url| url.path() == source.path() || decoded(&url) == decoded(source));
    let written = response::time(&reply.headers, "last-modified").unwrap_or(SystemTime::UNIX_EPOCH);
    if !(from_ours && written_since(failed.began, written, response::time(&reply.headers, "date"))) {
        return Err(failed.error);
    }
    started(store, call, &reply.headers)
}

fn decoded(url: &Url) -> Vec<u8> {
    percent_encoding::percent_decode_str(url.path()).collect()
}

async fn wait(store: &AzureStore, call: &Call, name: &BlobName, id: &str, ends: Instant) -> Result<Committed> {
    let mut pause = POLL_FIRST;
    let gone = |kind| Error {
        source: Some("the copy was replaced or stopped by somebody else".into()),
        ..store.engine().bare(call, kind)
    };
    loop {
        let found = match get::head(store, name, &Condition::None).await {
            Ok(found) => found,
            Err(error) if error.kind == ErrorKind::NotFound => return Err(gone(ErrorKind::Precondition)),
            Err(error) => return Err(error),
        };
        match found.copy.as_ref().map(|(of, status)| (of == id, status.as_str())) {
            Some((true, "success")) => {
                return Ok(Committed { etag: found.etag, last_modified: found.last_modified });
            }
            Some((true, "pending")) => {}
            Some((true, "failed")) => return Err(gone(ErrorKind::Server)),
            _ => return Err(gone(ErrorKind::Precondition)),
        }
        if Instant::now() + pause >= ends {
            abort(store, name, id).await;
            return Err(store.engine().bare(call, ErrorKind::TimedOut));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL_MAX);
    }
}

/// Stops a copy that nobody waits for any more, so that it does not turn up later. Best effort: the caller hears of
/// the timeout in any case, and keeps its source.
async fn abort(store: &AzureStore, name: &BlobName, id: &str) {
    let Ok(call) = store.blob_call("Abort Copy Blob", Method::Put, name) else { return };
    let call = call.query("comp", "copy").query("copyid", id).header("x-ms-copy-action", "abort");
    if let Err(error) = store.engine().ask(&call, &store.limits).await {
        tracing::warn!(%error, "a copy that took too long could not be stopped");
    }
}
