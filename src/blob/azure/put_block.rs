//! Put Block and Put Block From URL: staging, which changes nothing that a reader sees. Staging the same bytes under
//! the same id twice is the same as once, so an ambiguous try is simply repeated.

use std::{ops::Range, sync::atomic::Ordering, time::Duration};

use azure_core::http::Method;
use base64::{Engine, engine::general_purpose::STANDARD};
use url::Url;

use super::{
    AzureStore,
    put_blob::{encode_md5, md5_of},
    request::{Call, encode_block_id},
};
use crate::{
    blob::{BlobName, BlockId, Body, ETag, Error, ErrorKind, Result},
    credential::{Credential, READ_PERMISSION, blob_sas},
};

/// Name of the operation in the REST reference.
pub(super) const FROM_URL: &str = "Put Block From URL";

/// How long a source stays readable by the SAS that we make: the longest deadline, and 15 minutes for a clock that is
/// behind (the service refuses requests of clocks that are further off anyway).
const SOURCE_SAS_LIFETIME: Duration = Duration::from_secs(20 * 60);

pub(super) async fn put_block(store: &AzureStore, name: &BlobName, id: &BlockId, body: Body) -> Result<()> {
    let without_crc64 = &store.shared.no_crc64;
    if !without_crc64.load(Ordering::Relaxed) {
        let call = put_block_call(store, name, id, &body)?.header("x-ms-content-crc64", encode_crc64(body.crc64()));
        match store.engine().ask(&call, &store.limits).await {
            // Azurite knows MD5 only.
            Err(error) if error.kind == ErrorKind::Unsupported => without_crc64.store(true, Ordering::Relaxed),
            outcome => return outcome.map(drop),
        }
    }
    let digest = encode_md5(md5_of(&body).await);
    let call = put_block_call(store, name, id, &body)?.header("content-md5", digest);
    store.engine().ask(&call, &store.limits).await.map(drop)
}

fn put_block_call(store: &AzureStore, name: &BlobName, id: &BlockId, body: &Body) -> Result<Call> {
    let call = store.blob_call("Put Block", Method::Put, name)?;
    Ok(call.query("comp", "block").query("blockid", &encode_block_id(id)).body(body.clone()).commits())
}

pub(super) async fn put_block_from_url(
    store: &AzureStore,
    name: &BlobName,
    id: &BlockId,
    source: &BlobName,
    source_range: Range<u64>,
    source_version: &ETag,
) -> Result<()> {
    let call = store
        .blob_call(FROM_URL, Method::Put, name)?
        .query("comp", "block")
        .query("blockid", &encode_block_id(id))
        .header("x-ms-source-if-match", source_version.0.as_ref())
        .commits();
    if source_range.is_empty() {
        return Err(store.invalid(FROM_URL, call.resource, "a block has at least one byte"));
    }
    let Some(url) = readable_url(store, source)? else {
        return Err(store.engine().bare(&call, ErrorKind::Unsupported));
    };
    let call = call
        .header("x-ms-source-range", format!("bytes={}-{}", source_range.start, source_range.end - 1))
        .header("x-ms-copy-source", url.as_str());
    store.engine().ask(&call, &store.limits).await.map(drop)
}

/// URL of a blob that the service itself may read with: signed by our key or our SAS. An anonymous source is public.
fn readable_url(store: &AzureStore, source: &BlobName) -> Result<Option<Url>> {
    let location = store.location();
    let Some(mut url) = location.blob_url(source) else { return Ok(None) };
    match &*store.credentials().current() {
        Credential::SharedKey(key) => {
            let token = blob_sas(key, location.container(), source.as_str(), READ_PERMISSION, SOURCE_SAS_LIFETIME)
                .map_err(|error| Error {
                    kind: ErrorKind::Denied,
                    operation: FROM_URL,
                    resource: format!("{}/{source}", location.container()),
                    host: location.host().to_owned(),
                    status: None,
                    code: None,
                    request_id: None,
                    source: Some(Box::new(error)),
                })?;
            token.apply(&mut url);
        }
        Credential::Sas(token) => token.apply(&mut url),
        // A token goes in a header of its own, anew for every try: `CredentialPolicy`.
        Credential::Token(_) | Credential::Anonymous => {}
    }
    Ok(Some(url))
}

/// Little-endian in base64.
fn encode_crc64(sum: u64) -> String {
    STANDARD.encode(sum.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_sent_with_the_lowest_byte_first() {
        assert_eq!(encode_crc64(0xae8b_1486_0a79_9888), "iJh5CoYUi64=");
    }
}
