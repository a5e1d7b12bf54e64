//! What the link itself gives: bare requests by an HTTP client without files, caches or checks. Each function moves what
//! its job moves, with as many connections as can help, and returns the rate in the job's unit.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::{Client, Method};

use super::{
    http::{block_on, commit, put_block, send},
    link::{CONTAINER, HUGE, LARGE, Link, SMALL_FILES, next},
};

/// Connections and bytes a request of the sequential ceilings: more of either did not help on two cores.
const CONNECTIONS: usize = 32;
const REQUEST_BYTES: usize = 8 << 20;
/// What the random job does: readers and time.
pub const RANDOM_READERS: usize = 16;
/// See [`RANDOM_READERS`].
pub const RANDOM_TIME: Duration = Duration::from_secs(3);
/// See [`RANDOM_READERS`].
pub const RANDOM_BYTES: usize = 4096;

fn mib_per_second(bytes: usize, began: Instant) -> f64 {
    bytes as f64 / f64::from(1 << 20) / began.elapsed().as_secs_f64()
}

/// The large file by parallel ranged GETs, in MiB/s.
pub fn read(link: &Link) -> Result<f64> {
    block_on(async {
        let (client, url, length) = (Client::new(), format!("{}/{LARGE}", link.url()), link.data.len());
        let began = Instant::now();
        let received = AtomicUsize::new(0);
        let starts = stream::iter((0..length).step_by(REQUEST_BYTES)).map(Ok::<usize, anyhow::Error>);
        let fetch = async |at: usize| {
            let range = format!("bytes={at}-{}", (at + REQUEST_BYTES).min(length) - 1);
            let mut answer = send(&client, Method::GET, &url, &[("range", &range)], Bytes::new()).await?;
            while let Some(chunk) = answer.chunk().await? {
                received.fetch_add(chunk.len(), Ordering::Relaxed);
            }
            Ok(())
        };
        starts.try_for_each_concurrent(CONNECTIONS, fetch).await?;
        let received = received.into_inner();
        ensure!(received == length, "{received} bytes arrived of {length}");
        Ok(mib_per_second(received, began))
    })
}

/// 4 KiB from random places by parallel GETs, in requests a second.
pub fn random(link: &Link) -> Result<f64> {
    block_on(async {
        let (client, url) = (Client::new(), format!("{}/{HUGE}", link.url()));
        let began = Instant::now();
        let reader = async |seed: usize| -> Result<usize> {
            let (mut state, mut reads) = (seed as u64 + 1, 0);
            while began.elapsed() < RANDOM_TIME {
                let (at, expected) = link.random_place(next(&mut state), RANDOM_BYTES);
                let range = format!("bytes={at}-{}", at + RANDOM_BYTES as u64 - 1);
                let answer = send(&client, Method::GET, &url, &[("range", &range)], Bytes::new()).await?;
                ensure!(answer.bytes().await? == expected, "wrong bytes at {at}");
                reads += 1;
            }
            Ok(reads)
        };
        let reads: Vec<usize> =
            stream::iter(0..RANDOM_READERS).map(reader).buffer_unordered(RANDOM_READERS).try_collect().await?;
        Ok(reads.iter().sum::<usize>() as f64 / began.elapsed().as_secs_f64())
    })
}

/// The large file by parallel Put Blocks and one Put Block List, in MiB/s.
pub fn write(link: &Link) -> Result<f64> {
    block_on(async {
        let (client, url) = (Client::new(), format!("{}/ceiling.bin", link.url()));
        let began = Instant::now();
        let starts = stream::iter((0..link.data.len()).step_by(REQUEST_BYTES).enumerate()).map(Ok::<_, anyhow::Error>);
        let put = async |(index, at): (usize, usize)| {
            let body = link.data.slice(at..(at + REQUEST_BYTES).min(link.data.len()));
            put_block(&client, &url, index, body).await
        };
        starts.try_for_each_concurrent(CONNECTIONS, put).await?;
        let blocks = link.data.len().div_ceil(REQUEST_BYTES);
        commit(&client, &url, 0..blocks).await?;
        let rate = mib_per_second(link.data.len(), began);
        ensure!(link.emulator.delete(CONTAINER, "ceiling.bin"), "the ceiling's blob was not there");
        Ok(rate)
    })
}

/// Small files one after the other, a Put Blob each, in files a second.
pub fn create(link: &Link) -> Result<f64> {
    block_on(async {
        let client = Client::new();
        let began = Instant::now();
        for index in 0..SMALL_FILES {
            let url = format!("{}/ceiling/{index}", link.url());
            send(&client, Method::PUT, &url, &[("x-ms-blob-type", "BlockBlob")], link.small(index)).await?;
        }
        let rate = SMALL_FILES as f64 / began.elapsed().as_secs_f64();
        for index in 0..SMALL_FILES {
            link.emulator.delete(CONTAINER, &format!("ceiling/{index}"));
        }
        Ok(rate)
    })
}

/// The names and properties of the small files by one List Blobs, in names a second.
pub fn stat(link: &Link) -> Result<f64> {
    block_on(async {
        let client = Client::new();
        let began = Instant::now();
        let url = format!("{}?restype=container&comp=list&prefix=small/", link.url());
        let text = send(&client, Method::GET, &url, &[], Bytes::new()).await?.text().await?;
        let names = text.matches("<Name>").count();
        ensure!(names == SMALL_FILES, "{names} names were listed of {SMALL_FILES}");
        Ok(names as f64 / began.elapsed().as_secs_f64())
    })
}
