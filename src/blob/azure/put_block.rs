//! Put Block and Put Block From URL: staging, which changes nothing that a reader sees. Staging the same bytes under
//! the same id twice is the same as once, so an ambiguous try is simply repeated.

use std::{ops::Range, sync::atomic::Ordering};

use azure_core::http::Method;
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    AzureStore,
    put_blob::{encode_md5, md5_of},
    request::{Call, encode_block_id},
    source::Source,
};
use crate::blob::{BlobName, BlockId, Body, ETag, ErrorKind, Result};

/// Name of the operation in the REST reference.
pub(super) const FROM_URL: &str = "Put Block From URL";

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
    let location = store.location();
    let Some(url) = location.blob_url(source) else {
        return Err(store.engine().bare(&call, ErrorKind::Unsupported));
    };
    let read = Source::Read { url, container: location.container().to_owned(), blob: source.as_str().to_owned() };
    let call =
        call.header("x-ms-source-range", format!("bytes={}-{}", source_range.start, source_range.end - 1)).source(read);
    store.engine().ask(&call, &store.limits).await.map(drop)
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
