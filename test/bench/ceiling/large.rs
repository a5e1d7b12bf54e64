//! Ceilings of the jobs about large files.

use std::{
    fs::{self, File as Local},
    io::Seek as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use reqwest::{Client, Method};

use super::{
    super::{
        data::{File, next},
        http::{block_on, commit, put_block, send},
        jobs::large::{RANDOM_BYTES, RANDOM_READERS, RANDOM_TIME, mib, random_place, read_whole},
        stage::Bench,
    },
    CONNECTIONS, each,
};

/// Bytes of a request of the sequential ceilings: larger ones did not help.
const REQUEST_BYTES: u64 = 8 << 20;

/// A file by parallel ranged GETs, in MiB/s.
pub fn read(bench: &Bench, files: &[File]) -> Result<f64> {
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let ranges =
        files.iter().flat_map(|file| (0..file.bytes).step_by(REQUEST_BYTES as usize).map(move |at| (file, at)));
    block_on(async {
        let client = Client::new();
        let (began, received) = (Instant::now(), AtomicU64::new(0));
        each(ranges, CONNECTIONS, async |(file, at): (&File, u64)| {
            let url = format!("{}/{}", bench.service.url(), file.name);
            let range = format!("bytes={at}-{}", (at + REQUEST_BYTES).min(file.bytes) - 1);
            let mut answer = send(&client, Method::GET, &url, &[("range", &range)], Bytes::new()).await?;
            while let Some(chunk) = answer.chunk().await? {
                received.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
            Ok(())
        })
        .await?;
        let (received, seconds) = (received.into_inner(), began.elapsed().as_secs_f64());
        ensure!(received == bytes, "{received} bytes arrived of {bytes}");
        Ok(mib(received) / seconds)
    })
}

/// The first bytes of a file over a connection that is there, in milliseconds.
pub fn first_byte(bench: &Bench, files: &[File]) -> Result<f64> {
    block_on(async {
        let client = Client::new();
        let range = format!("bytes=0-{}", RANDOM_BYTES - 1);
        let mut times = Vec::new();
        // The first of them makes the connection.
        for file in files.first().into_iter().chain(files) {
            let (began, url) = (Instant::now(), format!("{}/{}", bench.service.url(), file.name));
            let answer = send(&client, Method::GET, &url, &[("range", &range)], Bytes::new()).await?;
            let bytes = answer.bytes().await?;
            ensure!(bench.unit.agrees(file, 0, &bytes), "{} begins with wrong bytes", file.name);
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        times.remove(0);
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().context("no file")
    })
}

/// Few bytes from random places by parallel GETs, in requests a second.
pub fn random(bench: &Bench, files: &[File]) -> Result<f64> {
    block_on(async {
        let (client, reads) = (Client::new(), AtomicU64::new(0));
        let began = Instant::now();
        each(0..RANDOM_READERS, RANDOM_READERS, async |reader: usize| {
            let file = files.get(reader % files.len()).context("no file")?;
            let (url, mut state) = (format!("{}/{}", bench.service.url(), file.name), reader as u64 + 1);
            while began.elapsed() < RANDOM_TIME {
                let at = random_place(next(&mut state));
                let range = format!("bytes={at}-{}", at + RANDOM_BYTES as u64 - 1);
                let answer = send(&client, Method::GET, &url, &[("range", &range)], Bytes::new()).await?;
                ensure!(bench.unit.agrees(file, at, &answer.bytes().await?), "wrong bytes at {at}");
                reads.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
        .await?;
        Ok(reads.into_inner() as f64 / began.elapsed().as_secs_f64())
    })
}

/// As many bytes by parallel Put Blocks and one Put Block List, in MiB/s.
pub fn write(bench: &Bench, _: &[File]) -> Result<f64> {
    let file = super::super::data::large("ceiling.bin", 30, bench.large_bytes);
    let rate = block_on(async {
        let (client, url) = (Client::new(), format!("{}/{}", bench.service.url(), file.name));
        let starts = (0..file.bytes).step_by(REQUEST_BYTES as usize).enumerate();
        let blocks = file.bytes.div_ceil(REQUEST_BYTES) as usize;
        let began = Instant::now();
        each(starts, CONNECTIONS, async |(index, at): (usize, u64)| {
            // A piece is shorter where the unit ends: then it is two, and copied.
            let mut pieces: Vec<Bytes> = bench.unit.pieces(&file, at, REQUEST_BYTES).collect();
            let body = match pieces.len() {
                1 => pieces.remove(0),
                _ => Bytes::from(pieces.concat()),
            };
            put_block(&client, &url, index, body).await
        })
        .await?;
        commit(&client, &url, 0..blocks).await?;
        Ok(mib(file.bytes) / began.elapsed().as_secs_f64())
    })?;
    bench.service.check(std::slice::from_ref(&file))?;
    bench.service.delete(&file.name)?;
    Ok(rate)
}

/// The same file on the machine's own file system, once it is in the page cache, in MiB/s.
pub fn page_cache(bench: &Bench, files: &[File]) -> Result<f64> {
    let file = files.first().context("no file")?;
    let path = bench.scratch().join("page-cache.bin");
    super::super::jobs::large::write_whole(&path, &bench.unit, file)?;
    let mut local = Local::open(&path)?;
    read_whole(&mut local, &bench.unit, file)?;
    let began = Instant::now();
    local.rewind()?;
    read_whole(&mut local, &bench.unit, file)?;
    let rate = mib(file.bytes) / began.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(rate)
}
