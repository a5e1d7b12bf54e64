//! The bare HTTP client: no retries, no signatures, no checks. Knows the service's requests, and nothing of the jobs.

use anyhow::{Context, Result};
use bytes::Bytes;
use reqwest::{Client, Method, Response};

/// Runs requests to their end, with threads of their own.
///
/// # Errors
/// Those of the work.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Runtime::new().context("cannot start threads")?.block_on(work)
}

/// One request; an answer that is no success is an error.
///
/// # Errors
/// What the connection or the service says.
pub async fn send(
    client: &Client,
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Response> {
    // Without a body the client says no length, which the service wants of every PUT.
    let length = (method == Method::PUT).then(|| body.len());
    let mut request = client.request(method, url).header("x-ms-version", "2021-12-02").body(body);
    if let Some(length) = length {
        request = request.header("content-length", length);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(request.send().await?.error_for_status()?)
}

/// Eight digits in base64 have a `=` and no other character that a URL would change.
fn block_id(index: usize) -> String {
    base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("{index:08}"))
}

/// Stages a block under a number.
///
/// # Errors
/// As [`send`].
pub async fn put_block(client: &Client, url: &str, index: usize, body: Bytes) -> Result<()> {
    let url = format!("{url}?comp=block&blockid={}", block_id(index).replace('=', "%3D"));
    send(client, Method::PUT, &url, &[], body).await.map(drop)
}

/// Commits blocks, by their numbers.
///
/// # Errors
/// As [`send`].
pub async fn commit(client: &Client, url: &str, blocks: impl Iterator<Item = usize>) -> Result<()> {
    let ids: String = blocks.map(|index| format!("<Latest>{}</Latest>", block_id(index))).collect();
    let list = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{ids}</BlockList>");
    send(client, Method::PUT, &format!("{url}?comp=blocklist"), &[], Bytes::from(list)).await.map(drop)
}
