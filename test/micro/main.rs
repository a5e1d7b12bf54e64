//! `cargo bench`: single operations of the core, without kernel, link or service: a hit in the block cache, a page of a
//! directory, a lookup, a write into the dirty extents and a read out of them. For each, the time (by criterion) and the
//! allocations. Everything goes through public calls, as the FUSE threads do; each operation must be answered at once, so a
//! request or a wait is an error and no slow figure.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use azblob_csi::{
    blob::{AzureStore, BlobName, BlobStore, ETag, Location, LocationHints, RequestLimits},
    cache::{Cache, CacheOptions},
    credential::{CredentialSlot, parse_connection_string},
    fs::{Access, Caller, Consistency, FileSystem, HandleId, InodeNumber, ROOT, Resources, Settings, ViewSettings},
};
use blob_emulator::Emulator;
use criterion::{Criterion, Throughput};
use futures::FutureExt as _;

/// Counts allocations of this program.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED_BYTES: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    ALLOCATED_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came; counting touches two atomics and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is also that of the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, address: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(address, layout, size) }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(address, layout) }
    }
}

const CONTAINER: &str = "micro";
/// A file that fits the memory, and a directory that takes two listing pages.
const FILE_BYTES: usize = 64 << 20;
const NAMES: usize = 10_000;
/// What the kernel asks for at a time when it lists: what fits one answer of 128 KiB.
const LISTING_STEP: usize = 800;
/// Dirty bytes that are written over and over: less than what is sent ahead.
const DIRTY_BYTES: u64 = 1 << 20;
const SMALL_BYTES: usize = 4096;
/// How often an operation runs while its allocations are counted.
const COUNTED_RUNS: u64 = 2000;
/// No name or attribute gets old while this runs.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

/// A volume on an emulator, everything of it in memory.
struct Volume {
    fs: Arc<FileSystem>,
    caller: Caller,
    resources: Arc<Resources>,
    store: Arc<dyn BlobStore>,
    emulator: Emulator,
}

impl Volume {
    async fn open() -> Result<Self> {
        let emulator = Emulator::start(blob_emulator::Settings::default())?;
        emulator.create_container(CONTAINER);
        emulator.put(CONTAINER, "file.bin", vec![7; FILE_BYTES], &[])?;
        for index in 0..NAMES {
            emulator.put(CONTAINER, &format!("names/file-{index:05}"), "x", &[])?;
        }
        let account = parse_connection_string("the emulator", &emulator.connection_string())?;
        let url = format!("{}/{CONTAINER}", emulator.endpoint());
        let (location, _) = Location::parse(&url, &LocationHints::from(&account))?;
        let slot = CredentialSlot::new(account.credential.context("no key")?);
        let store: Arc<dyn BlobStore> = Arc::new(AzureStore::new(location, slot, RequestLimits::STANDARD)?);
        let runtime = tokio::runtime::Handle::current();
        let cache = Cache::new(CacheOptions::default(), runtime.clone());
        let resources = Arc::new(Resources { cache, spool: None, runtime });
        let settings = Settings { consistency: Consistency::Exclusive, metadata_ttl: FOR_EVER, ..Settings::default() };
        let fs = FileSystem::open(Arc::clone(&store), Arc::clone(&resources), settings).await?;
        let caller =
            Caller { view: fs.add_view(ViewSettings::default()), uid: 0, gid: 0, pid: std::process::id(), request: 0 };
        Ok(Self { fs, caller, resources, store, emulator })
    }

    async fn lookup(&self, parent: InodeNumber, name: &str) -> Result<InodeNumber> {
        Ok(self.fs.lookup(&self.caller, parent, name.as_ref()).await?.attr.number)
    }

    /// The file, read to its end once.
    async fn read_file(&self) -> Result<HandleId> {
        let access =
            Access { read: true, write: false, append: false, truncate: false, exclusive: false, synchronous: false };
        let number = self.lookup(ROOT, "file.bin").await?;
        let handle = self.fs.open_file(&self.caller, number, access).await?;
        for at in (0..FILE_BYTES).step_by(1 << 20) {
            let read = self.fs.read(handle, at as u64, 1 << 20).await?;
            ensure!(read.len() == 1 << 20, "{} bytes were read at {at}", read.len());
        }
        Ok(handle)
    }

    /// A new file whose first bytes are dirty.
    async fn dirty_file(&self) -> Result<HandleId> {
        let access =
            Access { read: true, write: true, append: false, truncate: false, exclusive: false, synchronous: false };
        let (_, handle) = self.fs.create_file(&self.caller, ROOT, "dirty.bin".as_ref(), 0o644, access).await?;
        self.fs.write(&self.caller, handle, 0, &vec![1; DIRTY_BYTES as usize]).await?;
        Ok(handle)
    }
}

/// Measures an operation and counts its allocations. It gets a number that is another each time.
fn operation(
    criterion: &mut Criterion,
    name: &str,
    bytes: usize,
    mut run: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let (mut number, mut failed) = (0, None);
    let mut group = criterion.benchmark_group("core");
    if bytes > 0 {
        group.throughput(Throughput::Bytes(bytes as u64));
    }
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            number += 1;
            if let Err(error) = run(number) {
                failed = Some(error);
            }
        });
    });
    group.finish();
    let before = (ALLOCATIONS.load(Ordering::Relaxed), ALLOCATED_BYTES.load(Ordering::Relaxed));
    for number in 0..COUNTED_RUNS {
        run(number)?;
    }
    let each = |now: u64, before: u64| (now - before) as f64 / COUNTED_RUNS as f64;
    println!(
        "core/{name}: {:.2} allocations of {:.0} bytes in all, each time\n",
        each(ALLOCATIONS.load(Ordering::Relaxed), before.0),
        each(ALLOCATED_BYTES.load(Ordering::Relaxed), before.1)
    );
    failed.map_or(Ok(()), Err)
}

/// A place for `bytes` bytes in `length`, another for each number, on a page of the kernel.
fn place(number: u64, length: u64, bytes: usize) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % ((length - bytes as u64) / 4096 + 1) * 4096
}

fn block_cache(criterion: &mut Criterion, volume: &Volume, handle: HandleId) -> Result<()> {
    let cache = &volume.resources.cache;
    let (name, etag) = (BlobName::new("direct")?, ETag("\"1\"".into()));
    let content = cache.open(&volume.store, "", name, etag, 1 << 20);
    cache.insert(&content, 0, &vec![3; 1 << 20]);
    let stream = cache.stream();
    operation(criterion, "block cache, hit of 4 KiB", SMALL_BYTES, |number| {
        let at = place(number, 1 << 20, SMALL_BYTES);
        let bytes = cache.try_read(&content, at..at + SMALL_BYTES as u64, &stream).context("no hit")?;
        ensure!(black_box(bytes).len() == SMALL_BYTES, "a short hit");
        Ok(())
    })?;
    for (name, bytes) in [("read of 4 KiB", SMALL_BYTES), ("read of 128 KiB", 128 << 10), ("read of 1 MiB", 1 << 20)] {
        operation(criterion, name, bytes, |number| {
            let at = place(number, FILE_BYTES as u64, bytes);
            let read = volume.fs.read(handle, at, bytes as u32).now_or_never().context("the read had to wait")??;
            ensure!(read.with(|bytes| black_box(bytes).len()) == bytes, "a short read");
            Ok(())
        })?;
    }
    Ok(())
}

fn directory(criterion: &mut Criterion, volume: &Volume, names: InodeNumber) -> Result<()> {
    operation(criterion, "lookup of a listed name", 0, |number| {
        let name = format!("file-{:05}", number % NAMES as u64);
        let found = volume.fs.lookup(&volume.caller, names, name.as_ref()).now_or_never();
        let number = found.context("the lookup had to wait")??.attr.number;
        // As the kernel does: else each name would stay in memory for ever.
        volume.fs.forget(&volume.caller.view, number, 1);
        Ok(())
    })?;
    let handle = volume.fs.open_directory(&volume.caller.view, names)?;
    operation(criterion, "800 names of a directory", 0, |number| {
        // The beginning would be a new listing.
        let offset = 3 + number % (NAMES - LISTING_STEP) as u64;
        let entries = volume.fs.read_directory(handle, offset, LISTING_STEP).now_or_never();
        let entries = entries.context("the listing had to wait")??;
        ensure!(black_box(entries).len() == LISTING_STEP, "a short page");
        Ok(())
    })?;
    volume.fs.close_directory(handle);
    Ok(())
}

fn dirty_extents(criterion: &mut Criterion, volume: &Volume, handle: HandleId) -> Result<()> {
    let data = vec![9; SMALL_BYTES];
    operation(criterion, "write of 4 KiB over dirty bytes", SMALL_BYTES, |number| {
        let at = place(number, DIRTY_BYTES, SMALL_BYTES);
        let written = volume.fs.write(&volume.caller, handle, at, &data).now_or_never();
        ensure!(written.context("the write had to wait")?? as usize == SMALL_BYTES, "a short write");
        Ok(())
    })?;
    operation(criterion, "read of 4 KiB of dirty bytes", SMALL_BYTES, |number| {
        let at = place(number, DIRTY_BYTES, SMALL_BYTES);
        let read = volume.fs.read(handle, at, SMALL_BYTES as u32).now_or_never().context("the read had to wait")??;
        ensure!(read.with(|bytes| black_box(bytes).len()) == SMALL_BYTES, "a short read");
        Ok(())
    })
}

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = tokio::runtime::Runtime::new()?;
    let (volume, file, names, dirty) = runtime.block_on(async {
        let volume = Volume::open().await?;
        let file = volume.read_file().await?;
        let names = volume.lookup(ROOT, "names").await?;
        let handle = volume.fs.open_directory(&volume.caller.view, names)?;
        let mut offset = 0;
        while let Some(last) = volume.fs.read_directory(handle, offset, LISTING_STEP).await?.last() {
            offset = last.next_offset;
        }
        volume.fs.close_directory(handle);
        let dirty = volume.dirty_file().await?;
        anyhow::Ok((volume, file, names, dirty))
    })?;
    let _inside = runtime.enter();
    volume.emulator.reset_counters();
    block_cache(&mut criterion, &volume, file)?;
    directory(&mut criterion, &volume, names)?;
    dirty_extents(&mut criterion, &volume, dirty)?;
    let requests = volume.emulator.counters().total();
    ensure!(requests == 0, "{requests} requests were made: that is not what is measured here");
    criterion.final_summary();
    Ok(())
}
