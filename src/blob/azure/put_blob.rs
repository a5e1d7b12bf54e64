//! Put Blob: a whole blob in one request.
//!
//! Content-MD5 and not CRC64: the service takes only one of the two, checks either, and stores the MD5 as the blob's
//! own, by which a lost reply is settled and a foreign Set Metadata is recognised (DESIGN 10.3). Blobs written this way
//! are small; blocks carry CRC64.

use std::sync::Arc;

use azure_core::http::Method;
use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};

use super::{AzureStore, response, set};
use crate::blob::{BlobName, Body, Committed, Result, WriteOptions};

/// From this size on, hashing (about 600 MB/s) would hold an async thread for more than a millisecond or two.
const HASH_INLINE_BYTES_MAX: u64 = 1 << 20;

pub(super) async fn put_blob(
    store: &AzureStore,
    name: &BlobName,
    body: Body,
    options: &WriteOptions,
) -> Result<Committed> {
    let digest = md5_of(&body).await;
    let length = body.len();
    let call = store
        .blob_call("Put Blob", Method::Put, name)?
        .header("x-ms-blob-type", "BlockBlob")
        .header("content-md5", encode_md5(digest))
        .content_headers(&options.headers)
        .tags(&options.headers)
        .metadata(&options.metadata)
        .access_tier(options.access_tier.as_deref())
        .condition(&options.condition)
        .body(body)
        .commits();
    match store.engine().run(&call, &store.limits).await {
        Ok(reply) => store.engine().promised(&call, response::committed(&reply.headers)),
        Err(failed) => {
            set::settle(store, name, failed, |found| {
                found.length == length && found.content_md5 == Some(digest) && found.metadata == options.metadata
            })
            .await
        }
    }
}

/// The MD5 of a body; large ones are hashed on a thread for blocking work.
pub(super) async fn md5_of(body: &Body) -> [u8; 16] {
    fn hash(body: &Body) -> [u8; 16] {
        let mut md5 = Md5::new();
        body.pieces().iter().for_each(|piece| md5.update(piece));
        md5.finalize().into()
    }
    if body.len() <= HASH_INLINE_BYTES_MAX {
        return hash(body);
    }
    let shared = Arc::new(body.clone());
    let theirs = Arc::clone(&shared);
    // Fails only when the runtime is shutting down; then the thread may as well be held.
    tokio::task::spawn_blocking(move || hash(&theirs)).await.unwrap_or_else(|_| hash(&shared))
}

pub(super) fn encode_md5(md5: [u8; 16]) -> String {
    STANDARD.encode(md5)
}
