//! The disk tier below the cache: restarts, damage, budgets, disks that refuse.

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::*;

/// A process: its memory is gone when it ends, its directory is not.
struct Process {
    harness: Harness,
}

impl Process {
    /// Waits until the one before it has let go of the directory, and until the directory is known.
    async fn start(store: &Arc<FakeStore>, options: &DiskOptions) -> Self {
        loop {
            let process = Self::start_beside(store, options);
            if process.gauges().on {
                until(|| process.gauges().scanned).await;
                return process;
            }
            drop(process);
            crate::sync::tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    fn start_beside(store: &Arc<FakeStore>, options: &DiskOptions) -> Self {
        let memory = CacheOptions { memory_bytes: 64 * MIB, ..CacheOptions::default() };
        let cache = Cache::with_disk(memory, Some(options.clone()), Handle::current());
        let container = Arc::new(Container(Arc::clone(store)));
        Self { harness: Harness { store: Arc::clone(store), container, cache } }
    }

    fn open(&self, text: &str, length: u64) -> Arc<Content> {
        self.harness.cache.open(&self.harness.container, "key", name(text), etag("\"1\""), length)
    }

    fn gauges(&self) -> DiskGauges {
        self.harness.cache.gauges().disk.unwrap()
    }

    /// Until what was fetched is handed over, which happens behind the readers, and then written.
    async fn flush(&self) {
        until(|| !self.harness.cache.disk().unwrap().is_fetching()).await;
        self.harness.cache.disk().unwrap().flush().await;
    }

    /// Reads blob `text` with these bytes, and checks them. Returns how many requests that took.
    async fn read(&self, text: &str, seed: u64, length: u64, range: Range<u64>) -> usize {
        let before = self.harness.store.request_count();
        let content = self.open(text, length);
        let found = self.harness.read(&content, range.clone()).await.unwrap();
        assert!(found == self.harness.store.bytes(seed, range.clone()), "{text} {range:?}");
        self.harness.store.request_count() - before
    }

    async fn end(self) {
        self.flush().await;
    }
}

fn options(directory: &TempDir) -> DiskOptions {
    DiskOptions { free_percent_min: 0, ..DiskOptions::new(directory.path().join("cache"), Some(1 << 30)) }
}

/// Files with this extension below the tier's directory.
fn files(options: &DiskOptions, extension: &str) -> Vec<PathBuf> {
    let shards = fs::read_dir(options.directory.join("blocks")).into_iter().flatten();
    let shards = shards.map(|shard| shard.unwrap().path()).filter(|path| path.is_dir());
    let entries = shards.flat_map(|shard| fs::read_dir(shard).unwrap().map(|entry| entry.unwrap().path()));
    entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

fn only_file(options: &DiskOptions, extension: &str) -> PathBuf {
    let found = files(options, extension);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn disk_bytes(options: &DiskOptions) -> u64 {
    let all = files(options, "data").into_iter().chain(files(options, "index"));
    all.map(|path| fs::metadata(path).unwrap().blocks() * 512).sum()
}

/// A file system of its own, so that it can be full.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(bytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let flags = nix::mount::MsFlags::empty();
        let size = format!("size={bytes}");
        nix::mount::mount(Some("tmpfs"), directory.path(), Some("tmpfs"), flags, Some(size.as_str())).unwrap();
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_before_a_restart_is_read_without_a_request() {
    let (store, directory) = (FakeStore::new(), tempfile::tempdir().unwrap());
    let options = options(&directory);
    let length = 3 * MIB + 70_001;
    store.put("a", "\"1\"", length, 7);
    let first = Process::start(&store, &options).await;
    assert!(first.read("a", 7, length, 0..length).await > 0);
    first.end().await;
    let second = Process::start(&store, &options).await;
    assert_eq!(second.read("a", 7, length, 0..length).await, 0);
    assert_eq!(second.gauges().read_bytes, length);
    second.harness.assert_at_rest();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_the_disk_is_not_let_go_behind_a_reader() {
    let (store, directory) = (FakeStore::new(), tempfile::tempdir().unwrap());
    let options = options(&directory);
    // More than half of the memory, but not more than all of it.
    let length = 48 * MIB;
    store.put("a", "\"1\"", length, 7);
    let process = Process::start(&store, &options).await;
    let (content, stream) = (process.open("a", length), process.harness.cache.stream());
    for at in 0..length / MIB {
        process.harness.cache.read(&content, at * MIB..(at + 1) * MIB, &stream).await.unwrap();
    }
    process.flush().await;
    let gauges = process.gauges();
    assert_eq!((gauges.written_bytes, gauges.dropped_bytes), (length, 0), "{gauges:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_not_on_disk_is_fetched() {
    let (store, directory) = (FakeStore::new(), tempfile::tempdir().unwrap());
    let options = options(&directory);
    store.put("a", "\"1\"", 8 * MIB, 3);
    let first = Process::start(&store, &options).await;
    // Two pieces in the middle of a block, and one in the next.
    let middle = 2 * MIB + 4 * PIECE_BYTES;
    first.read("a", 3, 8 * MIB, middle..middle + 2 * PIECE_BYTES).await;
    first.read("a", 3, 8 * MIB, 3 * MIB + 5..3 * MIB + 6).await;
    first.end().await;
    let second = Process::start(&store, &options).await;
    store.requests.lock().clear();
    second.read("a", 3, 8 * MIB, 2 * MIB..4 * MIB).await;
    let gaps = [2 * MIB..middle, middle + 2 * PIECE_BYTES..3 * MIB, 3 * MIB + PIECE_BYTES..4 * MIB];
    assert_eq!(store.requests.lock().as_slice(), gaps);
    second.flush().await;
    let third = {
        second.end().await;
        Process::start(&store, &options).await
    };
    assert_eq!(third.read("a", 3, 8 * MIB, 2 * MIB..4 * MIB).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_piece_is_fetched_again_and_the_others_are_not() {
    let (store, directory) = (FakeStore::new(), tempfile::tempdir().unwrap());
    let options = options(&directory);
    store.put("a", "\"1\"", MIB, 5);
    let first = Process::start(&store, &options).await;
    first.read("a", 5, MIB, 0..MIB).await;
    first.end().await;
    let data = fs::OpenOptions::new().read(true).write(true).open(only_file(&options, "data")).unwrap();
    let mut byte = [0];
    data.read_exact_at(&mut byte, 6 * PIECE_BYTES + 77).unwrap();
    data.write_all_at(&[byte[0] ^ 0x10], 6 * PIECE_BYTES + 77).unwrap();
    let second = Process::start(&store, &options).await;
    store.requests.lock().clear();
    assert_eq!(second.read("a", 5, MIB, 0..MIB).await, 1);
    assert_eq!(store.requests.lock().as_slice(), std::slice::from_ref(&(6 * PIECE_BYTES..7 * PIECE_BYTES)));
    assert_eq!(second.gauges().corrupt_pieces, 1);
    second.end().await;
    assert_eq!(Process::start(&store, &options).await.read("a", 5, MIB, 0..MIB).await, 0);
}

/// Bytes in the right place of the wrong file, or in the wrong place of the right one, are not shown.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_another_place_or_version_are_never_shown() {
    let (store, directory) = (FakeStore::new(), tempfile::tempdir().unwrap());
    let options = options(&directory);
    store.put("a", "\"1\"", MIB, 5);
    let first = Process::start(&store, &options).await;
    first.read("a", 5, MIB, 0..MIB).await;
    first.end().await;
    // A whole version under another one's name: the file system lost its way, or two hashes are one.
    let (data, index) = (only_file(&options, "data"), only_file(&options, "index"));
    let bytes = fs::read(&data).unwrap();
    store.put("b", "\"1\"", MIB, 6);
    let second = Process::start(&store, &options).await;
    second.read("b", 6, MIB, 0..MIB).await;
    second.end().await;
    let other = files(&options, "data").into_iter().find(|path| *path != data).unwrap();
    fs::copy(&data, &other).unwrap();
    fs::copy(&index, other.with_extension("index")).unwrap();
    // Pieces 1 and 2 of the first one change places, words and all.
    let file = fs::OpenOptions::new().write(true).open(&data).unwrap();
    let piece = |at: usize| &bytes[at * PIECE_BYTES as usize..(at + 1) * PIECE_BYTES as usize];
    file.write_all_at(piece(2), PIECE_BYTES).unwrap();
    file.write_all_at(piece(1), 2 * PIECE_BYTES).unwrap();
    let words = fs::read(&index).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&index).unwrap();
    file.write_all_at(&words[3584 + 16..3584 + 24], 3584 + 8).unwrap();
    file.write_all_at(&words[3584 + 8..3584 + 16], 3584 + 16).unwrap();
    let third = Process::start(&store, &options).await;
    assert!(third.read("a", 5, MIB, 0..MIB).await > 0);
    assert!(third.read("b", 6, MIB, 0..MIB).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_written_files_are_fetched_again() {
    let store = FakeStore::new();
    store.put("a", "\"1\"", MIB, 9);
    type Harm = fn(&Path, &Path);
    let harms: [Harm; 6] = [
        |data, _| fs::remove_file(data).unwrap(),
        |_, index| fs::remove_file(index).unwrap(),
        |data, _| fs::OpenOptions::new().write(true).open(data).unwrap().set_len(MIB / 2).unwrap(),
        |_, index| fs::OpenOptions::new().write(true).open(index).unwrap().set_len(20).unwrap(),
        |_, index| fs::OpenOptions::new().write(true).open(index).unwrap().write_all_at(&[9], 40).unwrap(),
        // The machine lost its power: the words are there, the bytes are not.
        |data, _| fs::OpenOptions::new().write(true).open(data).unwrap().write_all_at(&[0; 300_000], 0).unwrap(),
    ];
    for (number, harm) in harms.into_iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let options = options(&directory);
        let first = Process::start(&store, &options).await;
        first.read("a", 9, MIB, 0..MIB).await;
        first.end().await;
        harm(&only_file(&options, "data"), &only_file(&options, "index"));
        let second = Process::start(&store, &options).await;
        assert!(second.read("a", 9, MIB, 0..MIB).await > 0, "harm {number}");
        second.end().await;
        let third = Process::start(&store, &options).await;
        assert_eq!(third.read("a", 9, MIB, 0..MIB).await, 0, "after harm {number}");
        assert_eq!(third.gauges().errors, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_holds_and_what_was_used_longest_ago_goes_first() {
    let (store, directory) = (FakeStore::new(), tempfile::tempdir().unwrap());
    let options = DiskOptions { size_bytes: 8 * MIB, ..options(&directory) };
    let process = Process::start(&store, &options).await;
    for at in 0..30_u64 {
        let text = format!("{at}");
        store.put(&text, "\"1\"", MIB, at);
        process.read(&text, at, MIB, 0..MIB).await;
        process.flush().await;
        assert!(process.gauges().bytes <= 8 * MIB, "{:?}", process.gauges());
        assert!(disk_bytes(&options) <= 8 * MIB + 64 * 1024, "{} bytes on disk", disk_bytes(&options));
    }
    assert!(process.gauges().evictions >= 20, "{:?}", process.gauges());
    process.end().await;
    let second = Process::start(&store, &options).await;
    assert_eq!(second.read("29", 29, MIB, 0..MIB).await, 0);
    assert!(second.read("1", 1, MIB, 0..MIB).await > 0);
    second.flush().await;
    assert_eq!(second.gauges().bytes, disk_bytes(&options));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_large_blob_does_not_push_itself_out() {
    let (store, directory) = (FakeStore::new(), tempfile::tempdir().unwrap());
    let options = DiskOptions { size_bytes: 8 * MIB, ..options(&directory) };
    store.put("a", "\"1\"", 32 * MIB, 1);
    let process = Process::start(&store, &options).await;
    for block in 0..32 {
        process.read("a", 1, 32 * MIB, block * MIB..(block + 1) * MIB).await;
        process.flush().await;
    }
    assert!(process.gauges().bytes <= 8 * MIB);
    process.end().await;
    let second = Process::start(&store, &options).await;
    // Not from the first byte: what is fetched ahead of a bulk reader lies behind what the disk has.
    assert_eq!(second.read("a", 1, 32 * MIB, 1..6 * MIB).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_harmless() {
    let (store, disk) = (FakeStore::new(), SmallDisk::new(3 * MIB));
    let options = DiskOptions { free_percent_min: 0, ..DiskOptions::new(disk.path().to_owned(), Some(1 << 30)) };
    let process = Process::start(&store, &options).await;
    for at in 0..10_u64 {
        let text = format!("{at}");
        store.put(&text, "\"1\"", MIB, at);
        process.read(&text, at, MIB, 0..MIB).await;
        process.flush().await;
    }
    let gauges = process.gauges();
    assert!(gauges.errors > 0 && gauges.on && gauges.dropped_bytes > 0, "{gauges:?}");
    // What was written in part is not believed further than it is right.
    process.end().await;
    let second = Process::start(&store, &options).await;
    for at in 0..10_u64 {
        second.read(&format!("{at}"), at, MIB, 0..MIB).await;
    }
    second.harness.assert_at_rest();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_disk_stays_free() {
    let (store, disk) = (FakeStore::new(), SmallDisk::new(16 * MIB));
    let options = DiskOptions { free_percent_min: 50, ..DiskOptions::new(disk.path().to_owned(), None) };
    let process = Process::start(&store, &options).await;
    for at in 0..30_u64 {
        let text = format!("{at}");
        store.put(&text, "\"1\"", MIB, at);
        process.read(&text, at, MIB, 0..MIB).await;
        process.flush().await;
    }
    let used = disk_bytes(&options);
    assert!((5 * MIB..=10 * MIB).contains(&used), "{used} bytes on a disk of 16 MiB");
    assert_eq!(process.gauges().errors, 0);
    // Somebody else fills the disk: what was ours goes.
    fs::write(disk.path().join("other"), vec![1; 7 << 20]).unwrap();
    process.flush().await;
    assert!(disk_bytes(&options) <= 2 * MIB, "{:?}", process.gauges());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_leaves_the_directory_alone_and_reads_all_the_same() {
    let (store, directory) = (FakeStore::new(), tempfile::tempdir().unwrap());
    let options = options(&directory);
    store.put("a", "\"1\"", MIB, 4);
    let first = Process::start(&store, &options).await;
    let second = Process::start_beside(&store, &options);
    assert!(!second.gauges().on);
    second.read("a", 4, MIB, 0..MIB).await;
    second.flush().await;
    assert_eq!(files(&options, "data").len(), 0);
    assert!(first.gauges().on);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_goes_away_is_harmless() {
    let (store, directory) = (FakeStore::new(), tempfile::tempdir().unwrap());
    let options = options(&directory);
    let process = Process::start(&store, &options).await;
    for at in 0..3_u64 {
        store.put(&format!("{at}"), "\"1\"", MIB, at);
        process.read(&format!("{at}"), at, MIB, 0..MIB).await;
    }
    process.flush().await;
    fs::remove_dir_all(&options.directory).unwrap();
    for at in 0..6_u64 {
        store.put(&format!("{at}"), "\"1\"", MIB, at);
        process.harness.cache.shared.blocks.indices(&process.open(&format!("{at}"), MIB)).into_iter().for_each(
            |index| {
                drop(process.harness.cache.shared.blocks.remove(process.open(&format!("{at}"), MIB).id(), index));
            },
        );
        process.read(&format!("{at}"), at, MIB, 0..MIB).await;
        process.flush().await;
    }
    assert!(!process.gauges().on, "given up until the next try: {:?}", process.gauges());
    process.harness.assert_at_rest();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_somebody_deletes_are_fetched_again() {
    let (store, directory) = (FakeStore::new(), tempfile::tempdir().unwrap());
    let options = options(&directory);
    store.put("a", "\"1\"", MIB, 4);
    let first = Process::start(&store, &options).await;
    first.read("a", 4, MIB, 0..MIB).await;
    first.end().await;
    let second = Process::start(&store, &options).await;
    fs::remove_file(only_file(&options, "data")).unwrap();
    assert!(second.read("a", 4, MIB, 0..MIB).await > 0);
    second.flush().await;
    assert!(second.gauges().on);
    second.end().await;
    assert_eq!(Process::start(&store, &options).await.read("a", 4, MIB, 0..MIB).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_changes_of_name_and_etag_keep_what_is_on_disk() {
    let (store, directory) = (FakeStore::new(), tempfile::tempdir().unwrap());
    let options = options(&directory);
    store.put("a", "\"1\"", MIB, 4);
    let first = Process::start(&store, &options).await;
    first.read("a", 4, MIB, 0..MIB).await;
    first.flush().await;
    let content = first.open("a", MIB);
    store.put("b", "\"1\"", MIB, 4);
    content.repoint(name("b"), etag("\"1\""));
    first.end().await;
    let second = Process::start(&store, &options).await;
    assert_eq!(second.read("b", 4, MIB, 0..MIB).await, 0);
    assert!(second.read("a", 4, MIB, 0..MIB).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_keeps_on_disk_what_it_did_not_change() {
    let (store, directory) = (FakeStore::new(), tempfile::tempdir().unwrap());
    let options = options(&directory);
    let (before, after) = (MIB + 1000, 2 * MIB + 5);
    store.put("a", "\"1\"", before, 4);
    let first = Process::start(&store, &options).await;
    first.read("a", 4, before, 0..before).await;
    first.flush().await;
    let old = first.open("a", before);
    store.put("a", "\"2\"", after, 4);
    // 100 bytes of piece 3 were written over; the file grew.
    let unchanged = [0..3 * PIECE_BYTES + 50, 3 * PIECE_BYTES + 150..before];
    let _new = first.harness.cache.derive(&old, etag("\"2\""), after, &unchanged);
    first.harness.cache.forget(&old);
    first.end().await;
    let second = Process::start(&store, &options).await;
    store.requests.lock().clear();
    let content = second.harness.cache.open(&second.harness.container, "key", name("a"), etag("\"2\""), after);
    assert_eq!(second.harness.read(&content, 0..after).await.unwrap(), store.bytes(4, 0..after));
    let mut requests = store.requests.lock().clone();
    requests.sort_by_key(|range| range.start);
    assert_eq!(requests, [3 * PIECE_BYTES..4 * PIECE_BYTES, MIB..after]);
    second.flush().await;
    assert_eq!(second.gauges().versions, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_scope_reads_nothing_from_disk_and_nobody_else_may_look() {
    let (store, directory) = (FakeStore::new(), tempfile::tempdir().unwrap());
    let options = options(&directory);
    store.put("a", "\"1\"", MIB, 4);
    let process = Process::start(&store, &options).await;
    process.read("a", 4, MIB, 0..MIB).await;
    process.flush().await;
    let before = store.request_count();
    let other = process.harness.cache.open(&process.harness.container, "other", name("a"), etag("\"1\""), MIB);
    process.harness.read(&other, 0..MIB).await.unwrap();
    assert!(store.request_count() > before);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&options.directory.join("blocks")), 0o700);
    assert!(files(&options, "data").iter().chain(&files(&options, "index")).all(|path| mode(path) == 0o600));
}
