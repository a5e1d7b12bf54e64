//! Real mounts over a container in memory. Everything that touches the mount runs in blocking threads under a time
//! limit, and the mount is detached when a test fails.

mod memory;
mod names;
mod passthrough;

use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::runtime::Handle;

use super::*;
use crate::{
    cache::{Cache, CacheOptions},
    fs::{FileSystem, Resources, Settings, ViewSettings},
    sync::Arc,
};
use memory::MemoryStore;

/// No step here takes more than a fraction of it; a hang must not hold the run up.
const STEP_MAX: Duration = Duration::from_secs(60);

const MIB: usize = 1 << 20;

struct Volume {
    store: Arc<MemoryStore>,
    fs: Arc<FileSystem>,
}

struct Mounted {
    session: Session,
    place: tempfile::TempDir,
}

impl Volume {
    async fn new() -> Self {
        Self::over(Arc::new(MemoryStore::default())).await
    }

    async fn over(store: Arc<MemoryStore>) -> Self {
        Self::with(store, Settings::default()).await
    }

    async fn with(store: Arc<MemoryStore>, settings: Settings) -> Self {
        let options = CacheOptions { memory_bytes: 64 << 20, ..CacheOptions::default() };
        let cache = Cache::new(options, Handle::current());
        let resources = Arc::new(Resources { cache, spool: Some(std::env::temp_dir()), runtime: Handle::current() });
        let fs = FileSystem::open(Arc::clone(&store) as _, resources, settings).await.unwrap();
        Self { store, fs }
    }

    async fn mount(&self) -> Mounted {
        self.mount_with(0).await
    }

    async fn mount_with(&self, masked_features: u64) -> Mounted {
        let place = tempfile::tempdir().unwrap();
        let source = "a test".to_owned();
        let options = SessionOptions { source, allow_other: true, masked_features, ..SessionOptions::default() };
        let mounting = Session::mount(Arc::clone(&self.fs), ViewSettings::default(), place.path(), options);
        let session = tokio::time::timeout(STEP_MAX, mounting).await.unwrap().unwrap();
        Mounted { session, place }
    }
}

impl Mounted {
    /// Runs a step on the mount, off the runtime.
    async fn step<T: Send + 'static>(&self, work: impl FnOnce(PathBuf) -> T + Send + 'static) -> T {
        let root = self.place.path().to_owned();
        let step = tokio::task::spawn_blocking(move || work(root));
        tokio::time::timeout(STEP_MAX, step).await.expect("the mount hangs").unwrap()
    }

    async fn unmount(&self) {
        tokio::time::timeout(STEP_MAX, self.session.unmount()).await.expect("unmounting hangs").unwrap();
        assert!(!self.session.is_serving());
        assert!(!mounted_on(self.place.path()), "a mount was left behind");
    }
}

fn mounted_on(path: &Path) -> bool {
    let shown = format!(" {} ", path.display());
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().any(|line| line.contains(&shown))
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_programs_write_is_what_other_clients_read_and_the_next_mount_shows() {
    let volume = Volume::new().await;
    let mount = volume.mount().await;
    mount
        .step(|root| {
            fs::create_dir(root.join("d")).unwrap();
            fs::write(root.join("d/small"), b"hello").unwrap();
            fs::write(root.join("d/large"), pattern(9 * MIB + 5)).unwrap();
            fs::write(root.join("empty"), b"").unwrap();
            std::os::unix::fs::symlink("d/small", root.join("link")).unwrap();
            assert_eq!(fs::read(root.join("link")).unwrap(), b"hello");
            assert_eq!(fs::read(root.join("d/large")).unwrap(), pattern(9 * MIB + 5));
            fs::set_permissions(root.join("d/small"), fs::Permissions::from_mode(0o600)).unwrap();
            fs::rename(root.join("d/small"), root.join("d/moved")).unwrap();
            assert_eq!(
                fs::hard_link(root.join("empty"), root.join("hard")).unwrap_err().raw_os_error(),
                Some(libc::EPERM)
            );
        })
        .await;
    assert_eq!(volume.store.bytes("d/moved").unwrap(), &b"hello"[..]);
    assert_eq!(volume.store.bytes("d/large").unwrap(), pattern(9 * MIB + 5));
    assert_eq!(volume.store.bytes("d/small"), None);
    mount.unmount().await;

    let again = Volume::over(Arc::clone(&volume.store)).await;
    let mount = again.mount().await;
    mount
        .step(|root| {
            let mut names: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, ["d", "empty", "link"]);
            assert_eq!(fs::metadata(root.join("d/moved")).unwrap().mode() & 0o7777, 0o600);
            assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("d/small"));
            assert_eq!(fs::read(root.join("d/large")).unwrap(), pattern(9 * MIB + 5));
            fs::remove_file(root.join("d/moved")).unwrap();
            fs::remove_file(root.join("d/large")).unwrap();
            fs::remove_dir(root.join("d")).unwrap();
            assert!(!root.join("d").exists());
        })
        .await;
    mount.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_read_and_written_anywhere() {
    let store = Arc::new(MemoryStore::default());
    store.put("f", pattern(5 * MIB));
    let volume = Volume::over(store).await;
    let mount = volume.mount().await;
    mount
        .step(|root| {
            let mut file = fs::OpenOptions::new().read(true).write(true).open(root.join("f")).unwrap();
            let mut part = vec![0; 100_000];
            file.read_exact_at(&mut part, 3 * MIB as u64 - 7).unwrap();
            assert_eq!(part, &pattern(5 * MIB)[3 * MIB - 7..][..100_000]);
            file.write_all_at(b"changed", 2 * MIB as u64 - 3).unwrap();
            file.set_len(4 * MIB as u64).unwrap();
            file.seek(SeekFrom::End(0)).unwrap();
            file.write_all(b"tail").unwrap();
            file.sync_all().unwrap();
            let mut all = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut all).unwrap();
            let mut expected = pattern(5 * MIB);
            expected.truncate(4 * MIB);
            expected[2 * MIB - 3..][..7].copy_from_slice(b"changed");
            expected.extend_from_slice(b"tail");
            assert_eq!(all, expected);
        })
        .await;
    assert_eq!(volume.store.bytes("f").unwrap().len(), 4 * MIB + 4);
    mount.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_thousands_lists_whole_with_attributes_from_the_listing() {
    let store = Arc::new(MemoryStore::default());
    for at in 0..12_000 {
        store.put(&format!("many/{at:05}"), vec![0; at % 7]);
    }
    let volume = Volume::over(store).await;
    for masked_features in [0, u64::MAX] {
        let mount = volume.mount_with(masked_features).await;
        assert_sizes(&mount).await;
        mount.unmount().await;
    }
    assert!(volume.store.requests("head") < 10, "{} HEADs", volume.store.requests("head"));
}

/// As made by the test above.
async fn assert_sizes(mount: &Mounted) {
    let sizes = mount
        .step(|root| {
            let entries = fs::read_dir(root.join("many")).unwrap().map(Result::unwrap);
            let mut all: Vec<_> = entries.map(|entry| (entry.file_name(), entry.metadata().unwrap().len())).collect();
            all.sort();
            all
        })
        .await;
    assert_eq!(sizes.len(), 12_000);
    for (at, (name, size)) in sizes.iter().enumerate() {
        assert_eq!((name.to_str().unwrap(), *size), (format!("{at:05}").as_str(), (at % 7) as u64));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_of_one_volume_see_each_others_changes_at_once() {
    let volume = Volume::new().await;
    let (one, two) = (volume.mount().await, volume.mount().await);
    let second = two.place.path().to_owned();
    one.step(move |first| {
        fs::write(first.join("f"), b"old bytes").unwrap();
        assert_eq!(fs::read(second.join("f")).unwrap(), b"old bytes");
        fs::write(first.join("f"), b"new").unwrap();
        // The notification is on its way when the write returns; a reopen asks anyway.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while fs::read(second.join("f")).unwrap() != b"new" {
            assert!(std::time::Instant::now() < deadline, "the other view keeps the old bytes");
        }
        fs::remove_file(second.join("f")).unwrap();
        while first.join("f").exists() {
            assert!(std::time::Instant::now() < deadline, "the other view keeps the name");
        }
    })
    .await;
    one.unmount().await;
    two.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unmounting_saves_what_an_open_file_holds() {
    let volume = Volume::new().await;
    let mount = volume.mount().await;
    let file = mount
        .step(|root| {
            let mut file = fs::File::create(root.join("f")).unwrap();
            file.write_all(b"not closed").unwrap();
            file
        })
        .await;
    let unmounting = tokio::time::timeout(STEP_MAX, mount.session.unmount());
    // Closing after the mount has left the tree: the descriptor still works until then.
    let closing = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tokio::task::spawn_blocking(move || drop(file)).await.unwrap();
    };
    let (unmounted, ()) = tokio::join!(unmounting, closing);
    unmounted.expect("unmounting hangs").unwrap();
    assert!(!mounted_on(mount.place.path()));
    assert_eq!(volume.store.bytes("f").unwrap(), &b"not closed"[..]);
    assert_eq!(volume.fs.gauges().1, 0, "a handle outlived its session");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unmount_by_somebody_else_is_noticed_and_loses_nothing() {
    let volume = Volume::new().await;
    let mount = volume.mount().await;
    mount
        .step(|root| {
            fs::write(root.join("f"), b"kept").unwrap();
            nix::mount::umount(&root).unwrap();
        })
        .await;
    tokio::time::timeout(STEP_MAX, mount.session.ended()).await.expect("the end goes unnoticed");
    mount.unmount().await;
    assert_eq!(volume.store.bytes("f").unwrap(), &b"kept"[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_session_leaves_no_mount() {
    let volume = Volume::new().await;
    let mount = volume.mount().await;
    mount.step(|root| fs::write(root.join("f"), b"x").unwrap()).await;
    let Mounted { session, place } = mount;
    drop(session);
    assert!(!mounted_on(place.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_reads_ahead_in_full_requests() {
    let volume = Volume::new().await;
    let mount = volume.mount().await;
    let device = fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .find(|line| line.contains(&format!(" {} ", mount.place.path().display())))
        .and_then(|line| line.split(' ').nth(2).map(str::to_owned))
        .unwrap();
    let kib = fs::read_to_string(format!("/sys/class/bdi/{device}/read_ahead_kb")).unwrap();
    assert_eq!(kib.trim(), "1024");
    mount.unmount().await;
}
