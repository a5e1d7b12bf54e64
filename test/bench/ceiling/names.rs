//! Ceilings of the jobs about names and small files.

use std::time::Instant;

use anyhow::{Result, ensure};
use bytes::Bytes;
use reqwest::{Client, Method};

use super::{
    super::{
        data::{self, File},
        http::{block_on, send},
        jobs::trees,
        stage::Bench,
    },
    CONNECTIONS, delete_files, each, get_files, list, put_files,
};

/// Seconds that some work takes.
fn seconds(work: impl AsyncFnOnce(&Client) -> Result<()>) -> Result<f64> {
    block_on(async {
        let client = Client::new();
        let began = Instant::now();
        work(&client).await?;
        Ok(began.elapsed().as_secs_f64())
    })
}

/// A Put Blob after the other, in files a second.
pub fn create(bench: &Bench, _: &[File]) -> Result<f64> {
    let files = data::small("ceiling");
    let seconds = seconds(async |client| put_files(bench, client, &files, 1).await)?;
    bench.service.delete("ceiling/")?;
    Ok(files.len() as f64 / seconds)
}

/// Names by one listing, in names a second.
pub fn stat(bench: &Bench, files: &[File]) -> Result<f64> {
    let seconds = seconds(async |client| {
        let names = list(bench, client, "small/").await?;
        ensure!(names == files.len(), "{names} names were listed of {}", files.len());
        Ok(())
    })?;
    Ok(files.len() as f64 / seconds)
}

/// One listing and parallel GETs, in files a second.
pub fn read(bench: &Bench, files: &[File]) -> Result<f64> {
    let seconds = seconds(async |client| {
        list(bench, client, "small/").await?;
        get_files(bench, client, files, CONNECTIONS).await
    })?;
    Ok(files.len() as f64 / seconds)
}

/// A Delete Blob after the other, in files a second.
pub fn unlink(bench: &Bench, files: &[File]) -> Result<f64> {
    let seconds = seconds(async |client| delete_files(bench, client, files, 1).await)?;
    bench.service.put(files)?;
    Ok(files.len() as f64 / seconds)
}

/// One listing and parallel Delete Blobs, in files a second.
pub fn remove(bench: &Bench, files: &[File]) -> Result<f64> {
    let seconds = seconds(async |client| {
        list(bench, client, "small/").await?;
        delete_files(bench, client, files, CONNECTIONS).await
    })?;
    bench.service.put(files)?;
    Ok(files.len() as f64 / seconds)
}

/// One listing, parallel Copy Blobs, then parallel Delete Blobs, in seconds.
pub fn rename(bench: &Bench, files: &[File]) -> Result<f64> {
    let seconds = seconds(async |client| {
        list(bench, client, "small/").await?;
        each(files, CONNECTIONS, async |file: &File| {
            let from = format!("{}/{}", bench.service.url(), file.name);
            let to = format!("{}/ceiling/{}", bench.service.url(), file.name);
            send(client, Method::PUT, &to, &[("x-ms-copy-source", &from)], Bytes::new()).await.map(drop)
        })
        .await?;
        delete_files(bench, client, files, CONNECTIONS).await
    })?;
    bench.service.delete("ceiling/")?;
    bench.service.put(files)?;
    Ok(seconds)
}

/// The names of a large directory, page after page, in seconds.
pub fn list_many(bench: &Bench, files: &[File]) -> Result<f64> {
    seconds(async |client| {
        let names = list(bench, client, "many/").await?;
        ensure!(names == files.len(), "{names} names were listed of {}", files.len());
        Ok(())
    })
}

/// One listing and parallel GETs of a tree, in seconds.
pub fn read_tree(bench: &Bench, files: &[File]) -> Result<f64> {
    seconds(async |client| {
        list(bench, client, "tree/").await?;
        get_files(bench, client, files, CONNECTIONS).await
    })
}

/// A Put Blob after the other, as cp(1) closes one file before it opens the next, in seconds.
pub fn create_tree(bench: &Bench, _: &[File]) -> Result<f64> {
    let files = trees::copied("ceiling");
    let seconds = seconds(async |client| put_files(bench, client, &files, 1).await)?;
    bench.service.delete("ceiling/")?;
    Ok(seconds)
}
