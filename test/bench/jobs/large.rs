//! Jobs about large files: streams, places at random, the second look.

use std::{
    fs::{self, File as Local},
    io::{Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::super::{
    data::{File, Unit, large, next},
    stage::{Bench, Measured, Stage},
};

/// What one read(2) and write(2) of the sequential jobs asks for.
const CHUNK_BYTES: usize = 1 << 20;
/// Files of the random job, and of the first byte: no cache holds them.
const HUGE_BYTES: u64 = 4 << 30;
/// How many of them, and how many readers there are.
const HUGE_FILES: u64 = 4;
/// See [`HUGE_FILES`].
pub const RANDOM_READERS: usize = 16;
/// How long the random job takes, and the bytes of one read.
pub const RANDOM_TIME: Duration = Duration::from_secs(4);
/// See [`RANDOM_TIME`].
pub const RANDOM_BYTES: usize = 4096;

/// One large file.
pub fn one(bench: &Bench) -> Vec<File> {
    vec![large("large.bin", 1, bench.large_bytes)]
}

/// One file that a page cache holds with ease.
pub fn quarter(bench: &Bench) -> Vec<File> {
    vec![large("warm.bin", 2, bench.large_bytes / 4)]
}

/// Four of that size.
pub fn four_quarters(bench: &Bench) -> Vec<File> {
    (0..4).map(|index| large(&format!("stream-{index}.bin"), 3 + index, bench.large_bytes / 4)).collect()
}

/// The huge files.
pub fn huge(_: &Bench) -> Vec<File> {
    (0..HUGE_FILES).map(|index| large(&format!("huge-{index}.bin"), 10 + index, HUGE_BYTES)).collect()
}

/// One huge file.
pub fn huge_one(bench: &Bench) -> Vec<File> {
    huge(bench).into_iter().take(1).collect()
}

/// Bytes as MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Reads a file from its beginning to its end, and compares every byte.
pub fn read_whole(local: &mut Local, unit: &Unit, file: &File) -> Result<()> {
    let (mut buffer, mut at) = (vec![0; CHUNK_BYTES], 0);
    loop {
        let count = local.read(&mut buffer).with_context(|| format!("{} at {at}", file.name))?;
        let right = buffer.get(..count).is_some_and(|bytes| unit.agrees(file, at, bytes));
        ensure!(right, "{} has wrong bytes near {at}", file.name);
        at += count as u64;
        if count == 0 {
            break;
        }
    }
    ensure!(at == file.bytes, "{} ended at {at}, not at {}", file.name, file.bytes);
    Ok(())
}

/// Writes a file from its beginning to its end, and fsyncs it.
pub fn write_whole(path: &Path, unit: &Unit, file: &File) -> Result<()> {
    let mut local = Local::create(path)?;
    let mut at = 0;
    while at < file.bytes {
        let piece = unit.piece(file, at, CHUNK_BYTES);
        local.write_all(&piece)?;
        at += piece.len() as u64;
    }
    local.sync_all()?;
    Ok(())
}

/// The first file, by one reader.
pub fn read(stage: &Stage) -> Result<Measured> {
    let files = stage.files();
    let file = files.first().context("no file")?;
    stage.begin()?;
    let mut local = Local::open(stage.mount.path(&file.name))?;
    read_whole(&mut local, &stage.bench.unit, file)?;
    stage.rate(mib(file.bytes), file.bytes)
}

/// All files at once.
pub fn read_four(stage: &Stage) -> Result<Measured> {
    let files = stage.files();
    stage.begin()?;
    let (mount, unit) = (stage.mount, &stage.bench.unit);
    at_once(files, |file| read_whole(&mut Local::open(mount.path(&file.name))?, unit, file))?;
    let bytes = files.iter().map(|file| file.bytes).sum();
    stage.rate(mib(bytes), bytes)
}

/// Runs `work` for each of `all` in a thread of its own; the first error.
pub fn at_once<T: Sync>(all: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = all.iter().map(|item| scope.spawn(|| work(item))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a reader panicked")))
    })
}

/// Open and 4 KiB from the beginning, of each huge file: the median of the times.
pub fn first_byte(stage: &Stage) -> Result<Measured> {
    let files = stage.files();
    let mut times = Vec::new();
    stage.begin()?;
    for file in files {
        let (began, mut buffer) = (Instant::now(), [0; RANDOM_BYTES]);
        let local = Local::open(stage.mount.path(&file.name))?;
        local.read_exact_at(&mut buffer, 0)?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        ensure!(stage.bench.unit.agrees(file, 0, &buffer), "{} begins with wrong bytes", file.name);
    }
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().context("no file")?;
    stage.end(median, (files.len() * RANDOM_BYTES) as u64)
}

/// A place in a huge file for a random number.
pub fn random_place(random: u64) -> u64 {
    random % (HUGE_BYTES - RANDOM_BYTES as u64)
}

/// 16 readers, four to a file, at random places for some seconds.
pub fn random(stage: &Stage) -> Result<Measured> {
    let files = stage.files();
    let open = |file: &File| Local::open(stage.mount.path(&file.name)).map(|local| (local, file.clone()));
    let open: Vec<(Local, File)> = files.iter().map(open).collect::<std::io::Result<_>>()?;
    let readers: Vec<usize> = (0..RANDOM_READERS).collect();
    let reads = std::sync::atomic::AtomicU64::new(0);
    stage.begin()?;
    let (began, unit) = (Instant::now(), &stage.bench.unit);
    at_once(&readers, |reader| {
        let (local, file) = open.get(reader % open.len()).context("no file")?;
        // Other places than the ceiling's readers: nothing is left of theirs, but nobody has to trust that.
        let (mut state, mut buffer) = (*reader as u64 + 1000, [0; RANDOM_BYTES]);
        while began.elapsed() < RANDOM_TIME {
            let at = random_place(next(&mut state));
            local.read_exact_at(&mut buffer, at).with_context(|| format!("{} at {at}", file.name))?;
            ensure!(unit.agrees(file, at, &buffer), "{} has wrong bytes at {at}", file.name);
            reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    })?;
    let reads = reads.into_inner();
    stage.rate(reads as f64, reads * RANDOM_BYTES as u64)
}

/// A file once more through the descriptor that read it: what the kernel has kept.
pub fn again_same(stage: &Stage) -> Result<Measured> {
    again(stage, false)
}

/// A file once more after close and open: the service is asked whether it is still the same.
pub fn again_opened(stage: &Stage) -> Result<Measured> {
    again(stage, true)
}

fn again(stage: &Stage, reopen: bool) -> Result<Measured> {
    let file = stage.files().first().context("no file")?;
    let path = stage.mount.path(&file.name);
    let mut local = Local::open(&path)?;
    read_whole(&mut local, &stage.bench.unit, file)?;
    // What the first reading still asks for behind its back is no part of the second.
    stage.bench.service.wait_idle()?;
    stage.begin()?;
    if reopen {
        local = Local::open(&path)?;
    }
    std::io::Seek::rewind(&mut local)?;
    read_whole(&mut local, &stage.bench.unit, file)?;
    stage.rate(mib(file.bytes), file.bytes)
}

/// A large file, until fsync has returned and the service holds it.
pub fn write(stage: &Stage) -> Result<Measured> {
    write_file(stage, &large("written/large.bin", 20, stage.bench.large_bytes))
}

/// See [`write`].
pub fn write_file(stage: &Stage, file: &File) -> Result<Measured> {
    fs::create_dir(stage.mount.path("written"))?;
    let files = [file.clone()];
    stage.begin()?;
    write_whole(&stage.mount.path(&file.name), &stage.bench.unit, file)?;
    stage.bench.service.wait_for(&files)?;
    let measured = stage.rate(mib(file.bytes), file.bytes)?;
    stage.bench.service.check(&files)?;
    Ok(measured)
}
