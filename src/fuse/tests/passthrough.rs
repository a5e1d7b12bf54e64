//! Files that the kernel reads from the node's disk: right bytes, and the ordinary way where it cannot be.

use fuser::InitFlags;

use super::*;
use crate::{cache::DiskOptions, fs::Consistency};

struct Disk {
    volume: Volume,
    /// Deleted with it.
    _directory: tempfile::TempDir,
    blocks: PathBuf,
}

impl Disk {
    /// A volume that never changes, with a cache directory, and one file of these bytes.
    async fn new(bytes: &[u8], consistency: Consistency) -> Self {
        let store = Arc::new(MemoryStore::default());
        let writer = Volume::over(Arc::clone(&store)).await;
        let (mount, copy) = (writer.mount().await, bytes.to_vec());
        mount.step(move |root| fs::write(root.join("f"), copy).unwrap()).await;
        mount.unmount().await;
        let directory = tempfile::tempdir().unwrap();
        // Enough that nothing is dropped on its way to the disk.
        let options = CacheOptions { memory_bytes: 1 << 30, ..CacheOptions::default() };
        let disk = DiskOptions { free_percent_min: 0, ..DiskOptions::new(directory.path().to_owned(), None) };
        let cache = Cache::with_disk(options, Some(disk), Handle::current());
        let resources = Arc::new(Resources { cache, spool: Some(std::env::temp_dir()), runtime: Handle::current() });
        let settings = Settings { consistency, ..Settings::default() };
        let fs = FileSystem::open(Arc::clone(&store) as _, resources, settings).await.unwrap();
        let blocks = directory.path().join("blocks");
        Self { volume: Volume { store, fs }, _directory: directory, blocks }
    }

    async fn read(&self, mount: &Mounted) -> Vec<u8> {
        mount.step(|root| fs::read(root.join("f")).unwrap()).await
    }

    /// Reads it until all of it is on disk.
    async fn fill(&self, mount: &Mounted, bytes: &[u8]) {
        let disk = self.volume.fs.resources().cache.disk().unwrap().clone();
        while disk.gauges().bytes < bytes.len() as u64 {
            assert!(self.read(mount).await == bytes);
            disk.flush().await;
        }
    }

    /// Opens and reads until the kernel reads by itself; false when it does not within some tries.
    async fn is_handed_over(&self, mount: &Mounted, bytes: &[u8]) -> bool {
        for _ in 0..50 {
            let before = mount.session.handed_over();
            assert!(self.read(mount).await == bytes);
            if mount.session.handed_over() > before {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    fn data_file(&self) -> PathBuf {
        let shards =
            fs::read_dir(&self.blocks).unwrap().map(|shard| shard.unwrap().path()).filter(|path| path.is_dir());
        let files = shards.flat_map(|shard| fs::read_dir(shard).unwrap().map(|file| file.unwrap().path()));
        files.into_iter().find(|path| path.extension().is_some_and(|text| text == "data")).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_whole_on_disk_is_read_by_the_kernel_itself() {
    for length in [3 * MIB + 777, 20 * MIB + 1] {
        let bytes = pattern(length);
        let disk = Disk::new(&bytes, Consistency::Immutable).await;
        let mount = disk.volume.mount().await;
        disk.fill(&mount, &bytes).await;
        assert!(disk.is_handed_over(&mount, &bytes).await, "{length} bytes");
        let gauges = disk.volume.fs.resources().cache.gauges();
        assert!(disk.read(&mount).await == bytes);
        let after = disk.volume.fs.resources().cache.gauges();
        assert_eq!((after.hits, after.misses), (gauges.hits, gauges.misses), "nobody asked us");
        mount.unmount().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_of_one_file_are_all_of_one_kind() {
    let bytes = pattern(3 * MIB + 777);
    let disk = Disk::new(&bytes, Consistency::Immutable).await;
    let mount = disk.volume.mount().await;
    // Opened while nothing is on disk: it stays so for all that come while it is open.
    let held = mount.step(|root| fs::File::open(root.join("f")).unwrap()).await;
    disk.fill(&mount, &bytes).await;
    assert!(disk.read(&mount).await == bytes);
    assert_eq!(mount.session.handed_over(), 0);
    mount.step(move |_| drop(held)).await;
    assert!(disk.is_handed_over(&mount, &bytes).await);
    // And the other way round, also when the copy is gone meanwhile.
    let held = mount.step(|root| fs::File::open(root.join("f")).unwrap()).await;
    fs::remove_dir_all(&disk.blocks).unwrap();
    let before = mount.session.handed_over();
    assert!(disk.read(&mount).await == bytes);
    assert_eq!(mount.session.handed_over(), before + 1);
    let wanted = bytes.clone();
    mount
        .step(move |_| {
            let mut tail = vec![0; 1000];
            held.read_exact_at(&mut tail, (wanted.len() - 1000) as u64).unwrap();
            assert!(tail == wanted[wanted.len() - 1000..]);
            assert_eq!(held.read_at(&mut tail, wanted.len() as u64).unwrap(), 0, "it ends where the blob ends");
        })
        .await;
    assert!(disk.read(&mount).await == bytes);
    mount.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_kernel_and_a_volume_that_may_change_are_read_through_us() {
    let bytes = pattern(2 * MIB + 5);
    for (consistency, masked) in [
        (Consistency::Immutable, InitFlags::FUSE_PASSTHROUGH.bits()),
        (Consistency::Immutable, u64::MAX),
        (Consistency::CloseToOpen, 0),
    ] {
        let disk = Disk::new(&bytes, consistency).await;
        let mount = disk.volume.mount_with(masked).await;
        disk.fill(&mount, &bytes).await;
        for _ in 0..3 {
            assert!(disk.read(&mount).await == bytes);
        }
        assert_eq!(mount.session.handed_over(), 0);
        mount.unmount().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_is_not_given_to_the_kernel() {
    let bytes = pattern(3 * MIB);
    let disk = Disk::new(&bytes, Consistency::Immutable).await;
    let mount = disk.volume.mount().await;
    disk.fill(&mount, &bytes).await;
    fs::OpenOptions::new().write(true).open(disk.data_file()).unwrap().write_all_at(b"wrong", 2_000_000).unwrap();
    assert!(disk.read(&mount).await == bytes);
    assert_eq!(mount.session.handed_over(), 0);
    assert_eq!(disk.volume.fs.resources().cache.gauges().disk.unwrap().corrupt_pieces, 1);
    mount.unmount().await;
}
