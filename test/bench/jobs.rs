//! The jobs: what is done on a mount, and that its bytes are right. One function a job; each is cold, on a fresh mount.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::fs::FileExt as _,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    ceiling::{self, RANDOM_BYTES, RANDOM_READERS, RANDOM_TIME},
    link::{CONTAINER, HUGE, LARGE, Link, SMALL_BYTES, SMALL_FILES, next, small_name},
    mount::{Measured, Mount, measure},
};

/// One line of the table.
pub struct Job {
    /// What it is.
    pub name: &'static str,
    /// What its rate counts.
    pub unit: &'static str,
    /// The link's own rate for the same work.
    pub ceiling: fn(&Link) -> Result<f64>,
    /// Ours.
    pub run: fn(&Link) -> Result<Measured>,
}

/// In the order of the table.
pub const ALL: &[Job] = &[
    Job { name: "cold sequential read", unit: "MiB/s", ceiling: ceiling::read, run: sequential_read },
    Job { name: "random 4 KiB reads, 16 readers", unit: "reads/s", ceiling: ceiling::random, run: random_read },
    Job { name: "sequential write + fsync", unit: "MiB/s", ceiling: ceiling::write, run: sequential_write },
    Job { name: "create 1000 x 4 KiB, durable", unit: "files/s", ceiling: ceiling::create, run: create },
    Job { name: "stat 1000 names, cold", unit: "names/s", ceiling: ceiling::stat, run: stat_cold },
    Job { name: "stat 1000 names, again", unit: "names/s", ceiling: ceiling::stat, run: stat_warm },
];

/// What one read(2) and write(2) of the sequential jobs asks for.
const CHUNK_BYTES: usize = 1 << 20;

fn nothing(_: &Mount) -> Result<()> {
    Ok(())
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn sequential_read(link: &Link) -> Result<Measured> {
    measure(link, nothing, |mount, ()| {
        let mut file = File::open(mount.path(LARGE))?;
        let (mut buffer, mut at) = (vec![0; CHUNK_BYTES], 0);
        loop {
            let count = file.read(&mut buffer)?;
            ensure!(link.data.get(at..at + count) == buffer.get(..count), "wrong bytes near {at}");
            at += count;
            if count == 0 {
                break;
            }
        }
        ensure!(at == link.data.len(), "the file ended at {at}, not at {}", link.data.len());
        Ok((mib(at), at as u64))
    })
}

fn random_read(link: &Link) -> Result<Measured> {
    let open = |mount: &Mount| File::open(mount.path(HUGE)).context("cannot open");
    measure(link, open, |_, file| {
        let began = Instant::now();
        let reader = |seed: usize| -> Result<usize> {
            // Other places than the ceiling's readers: nothing is left of theirs, but nobody has to trust that.
            let (mut state, mut reads, mut buffer) = (seed as u64 + 1000, 0, [0; RANDOM_BYTES]);
            while began.elapsed() < RANDOM_TIME {
                let (at, expected) = link.random_place(next(&mut state), RANDOM_BYTES);
                file.read_exact_at(&mut buffer, at)?;
                ensure!(expected == buffer[..], "wrong bytes at {at}");
                reads += 1;
            }
            Ok(reads)
        };
        let reads: Vec<Result<usize>> = std::thread::scope(|scope| {
            let reader = &reader;
            let threads: Vec<_> = (0..RANDOM_READERS).map(|seed| scope.spawn(move || reader(seed))).collect();
            let ended = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a reader panicked")));
            ended.collect()
        });
        let reads = reads.into_iter().sum::<Result<usize>>()?;
        Ok((reads as f64, (reads * RANDOM_BYTES) as u64))
    })
}

fn sequential_write(link: &Link) -> Result<Measured> {
    let measured = measure(link, nothing, |mount, ()| {
        let mut file = File::create(mount.path("written.bin"))?;
        for chunk in link.data.chunks(CHUNK_BYTES) {
            file.write_all(chunk)?;
        }
        file.sync_all()?;
        Ok((mib(link.data.len()), link.data.len() as u64))
    })?;
    let stored = link.emulator.get(CONTAINER, "written.bin").context("the blob is not there")?;
    ensure!(stored == link.data, "the blob has other bytes than were written");
    link.emulator.delete(CONTAINER, "written.bin");
    Ok(measured)
}

fn create(link: &Link) -> Result<Measured> {
    let make = |mount: &Mount| fs::create_dir(mount.path("created")).context("cannot make the directory");
    let measured = measure(link, make, |mount, ()| {
        for index in 0..SMALL_FILES {
            fs::write(mount.path(&format!("created/{index}")), link.small(index))?;
        }
        // Close has told whether each is in the container; the check below looks for itself.
        Ok((SMALL_FILES as f64, (SMALL_FILES * SMALL_BYTES) as u64))
    })?;
    for index in 0..SMALL_FILES {
        let name = format!("created/{index}");
        let stored = link.emulator.get(CONTAINER, &name).with_context(|| format!("{name} is not there"))?;
        ensure!(stored == link.small(index), "{name} has other bytes than were written");
        link.emulator.delete(CONTAINER, &name);
    }
    link.emulator.delete(CONTAINER, "created");
    Ok(measured)
}

fn stat_all(mount: &Mount) -> Result<(f64, u64)> {
    for index in 0..SMALL_FILES {
        let length = fs::metadata(mount.path(&small_name(index)))?.len();
        ensure!(length == SMALL_BYTES as u64, "{} has {length} bytes", small_name(index));
    }
    Ok((SMALL_FILES as f64, 0))
}

fn stat_cold(link: &Link) -> Result<Measured> {
    measure(link, nothing, |mount, ()| stat_all(mount))
}

fn stat_warm(link: &Link) -> Result<Measured> {
    measure(link, stat_all, |mount, _| stat_all(mount))
}
