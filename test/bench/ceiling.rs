//! What the link itself gives: the work of each job by bare requests of an HTTP client without files, caches or signatures.
//! As many connections as can help, where the job leaves that open; one request after the other, where the job is a program
//! that waits for each file.

pub mod large;
pub mod names;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Client, Method};

use super::{data::File, http::send, stage::Bench};

/// Connections of parallel work: more did not help on two cores.
const CONNECTIONS: usize = 32;

/// Does `work` for each of `all`, `at_once` at a time.
async fn each<T>(all: impl IntoIterator<Item = T>, at_once: usize, work: impl AsyncFn(T) -> Result<()>) -> Result<()> {
    let work = &work;
    stream::iter(all).map(Ok).try_for_each_concurrent(at_once, |item| work(item)).await
}

/// Whole small files by GETs; their bytes are compared.
async fn get_files(bench: &Bench, client: &Client, files: &[File], at_once: usize) -> Result<()> {
    each(files, at_once, async |file: &File| {
        let url = format!("{}/{}", bench.service.url(), file.name);
        let bytes = send(client, Method::GET, &url, &[], Bytes::new()).await?.bytes().await?;
        ensure!(bench.unit.agrees(file, 0, &bytes), "{} has wrong bytes", file.name);
        Ok(())
    })
    .await
}

/// Whole small files by a Put Blob each.
async fn put_files(bench: &Bench, client: &Client, files: &[File], at_once: usize) -> Result<()> {
    each(files, at_once, async |file: &File| {
        let url = format!("{}/{}", bench.service.url(), file.name);
        let body = Bytes::from(bench.unit.whole(file));
        send(client, Method::PUT, &url, &[("x-ms-blob-type", "BlockBlob")], body).await.map(drop)
    })
    .await
}

async fn delete_files(bench: &Bench, client: &Client, files: &[File], at_once: usize) -> Result<()> {
    each(files, at_once, async |file: &File| {
        let url = format!("{}/{}", bench.service.url(), file.name);
        send(client, Method::DELETE, &url, &[], Bytes::new()).await.map(drop)
    })
    .await
}

/// All names and properties below a prefix by one List Blobs after the other; returns how many there are.
async fn list(bench: &Bench, client: &Client, prefix: &str) -> Result<usize> {
    let (mut names, mut marker) = (0, String::new());
    loop {
        let url = format!("{}?restype=container&comp=list&prefix={prefix}&marker={marker}", bench.service.url());
        let text = send(client, Method::GET, &url, &[], Bytes::new()).await?.text().await?;
        names += text.matches("<Name>").count();
        let next = text.split_once("<NextMarker>").and_then(|(_, rest)| rest.split_once("</NextMarker>"));
        match next {
            Some((next, _)) if !next.is_empty() => {
                marker = percent_encoding::utf8_percent_encode(next, percent_encoding::NON_ALPHANUMERIC).to_string();
            }
            _ => return Ok(names),
        }
    }
}
