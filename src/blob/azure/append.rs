//! Append Block: bytes at the end of an append blob, and nowhere else.
//!
//! Every append says where the end is (x-ms-blob-condition-appendpos), so that a try that took place although its reply was
//! lost is not done twice: the next one is refused, and the bytes at that place say whether they are ours.

use azure_core::http::Method;
use futures::TryStreamExt;
use md5::{Digest, Md5};

use super::{
    AzureStore,
    call::Failed,
    get,
    put_blob::{encode_md5, md5_of},
    response,
};
use crate::blob::{Appended, BlobName, Body, Committed, Condition, ErrorKind, Result};

pub(super) async fn append_block(store: &AzureStore, name: &BlobName, body: Body, position: u64) -> Result<Appended> {
    let digest = md5_of(&body).await;
    let end = position + body.len();
    let call = store
        .blob_call("Append Block", Method::Put, name)?
        .query("comp", "appendblock")
        .header("content-md5", encode_md5(digest))
        .header("x-ms-blob-condition-appendpos", position.to_string())
        .body(body)
        .commits();
    match store.engine().run(&call, &store.limits).await {
        Ok(reply) => {
            let committed = store.engine().promised(&call, response::committed(&reply.headers))?;
            Ok(Appended { committed, length: end })
        }
        Err(failed) => settle(store, name, position..end, digest, failed).await,
    }
}

/// After a reply was lost and the next try found another end: the bytes at our place are ours.
async fn settle(
    store: &AzureStore,
    name: &BlobName,
    range: std::ops::Range<u64>,
    digest: [u8; 16],
    failed: Failed,
) -> Result<Appended> {
    if !(failed.may_be_own_echo() && failed.error.kind == ErrorKind::Precondition) {
        return Err(failed.error);
    }
    let Ok(found) = get::get(store, name, range.clone(), &Condition::None).await else { return Err(failed.error) };
    let (properties, delivered) = (found.properties, found.range);
    let hashed = found.body.try_fold(Md5::new(), |md5, piece| std::future::ready(Ok(md5.chain_update(piece)))).await;
    if delivered != range || hashed.ok().is_none_or(|md5| <[u8; 16]>::from(md5.finalize()) != digest) {
        return Err(failed.error);
    }
    let committed = Committed { etag: properties.etag, last_modified: properties.last_modified };
    Ok(Appended { committed, length: properties.length })
}
