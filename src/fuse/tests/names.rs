//! What the kernel keeps of names and attributes: as long as it may, and never a listing that is not true any more.

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString},
    os::unix::ffi::OsStrExt,
    time::Instant,
};

use super::*;

/// Within a test nothing gets as old.
const LONG: Duration = Duration::from_secs(3600);
/// Short enough to wait for its end.
const SHORT: Duration = Duration::from_millis(200);
/// What is waited for comes long before.
const SHOWN_WITHIN: Duration = Duration::from_secs(30);

const READS: [&str; 2] = ["readdir", "readdirplus"];
const LOOKS: [&str; 2] = ["lookup", "getattr"];

fn settings(metadata_ttl: Duration) -> Settings {
    Settings { metadata_ttl, ..Settings::default() }
}

async fn volume(metadata_ttl: Duration, names: &[&str]) -> Volume {
    let store = Arc::new(MemoryStore::default());
    names.iter().for_each(|name| store.put(name, "bytes"));
    Volume::with(store, settings(metadata_ttl)).await
}

fn list(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A directory that stays open, as a program's that reads it again and again.
struct OpenDirectory(*mut libc::DIR);

// SAFETY: a DIR belongs to no thread; it is used by one at a time.
unsafe impl Send for OpenDirectory {}

impl OpenDirectory {
    fn open(path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a path that ends with a zero byte.
        let directory = unsafe { libc::opendir(path.as_ptr()) };
        assert!(!directory.is_null());
        Self(directory)
    }

    fn next(&mut self) -> Option<String> {
        loop {
            // SAFETY: open, and nobody else reads it.
            let entry = unsafe { libc::readdir(self.0) };
            if entry.is_null() {
                return None;
            }
            // SAFETY: the entry is valid until the next call, and its name ends with a zero byte.
            let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) }.to_str().unwrap().to_owned();
            if name != "." && name != ".." {
                return Some(name);
            }
        }
    }

    fn again(&mut self) -> Vec<String> {
        // SAFETY: open, and nobody else reads it.
        unsafe { libc::rewinddir(self.0) };
        let mut names: Vec<_> = std::iter::from_fn(|| self.next()).collect();
        names.sort();
        names
    }
}

impl Drop for OpenDirectory {
    fn drop(&mut self) {
        // SAFETY: open until now.
        unsafe { libc::closedir(self.0) };
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_read_again_without_asking_us() {
    let volume = volume(LONG, &["d/a", "d/b", "d/c"]).await;
    let mount = volume.mount().await;
    for round in 0..4 {
        let before = mount.session.asked(&READS);
        mount.step(|root| assert_eq!(list(&root.join("d")), ["a", "b", "c"])).await;
        let asked = mount.session.asked(&READS) - before;
        // `names_that_are_never_believed_are_asked_for_each_time` shows that this counts.
        assert!(round == 0 || asked == 0, "{asked} requests in round {round}");
    }
    mount.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_never_believed_are_asked_for_each_time() {
    let volume = volume(Duration::ZERO, &["d/a"]).await;
    let mount = volume.mount().await;
    for names in [&["a"][..], &["a", "b"], &["a", "b"]] {
        if names.len() == 2 {
            volume.store.put("d/b", "bytes");
        }
        let before = mount.session.asked(&READS);
        mount.step(move |root| assert_eq!(list(&root.join("d")), names)).await;
        assert!(mount.session.asked(&READS) > before);
    }
    mount.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_removed_and_renamed_here_shows_at_once_also_to_who_has_it_open_and_in_other_views() {
    let volume = volume(LONG, &["d/a", "d/b", "e/x"]).await;
    let (mount, other) = (volume.mount().await, volume.mount().await);
    let second = other.place.path().join("d");
    mount
        .step(move |root| {
            let directory = root.join("d");
            let (mut open, mut open_there) = (OpenDirectory::open(&directory), OpenDirectory::open(&second));
            let mut check = |names: &[&str]| {
                for _ in 0..2 {
                    assert_eq!(list(&directory), names);
                    assert_eq!(open.again(), names, "through an open handle");
                    assert_eq!(list(&second), names, "in the other view");
                }
                // Its kernel is told by a task of its own.
                let deadline = Instant::now() + SHOWN_WITHIN;
                while open_there.again() != names {
                    assert!(Instant::now() < deadline, "{:?} through an open handle there", open_there.again());
                }
            };
            check(&["a", "b"]);
            fs::write(root.join("d/c"), "new").unwrap();
            check(&["a", "b", "c"]);
            fs::remove_file(root.join("d/a")).unwrap();
            check(&["b", "c"]);
            fs::rename(root.join("d/b"), root.join("d/0")).unwrap();
            check(&["0", "c"]);
            fs::rename(root.join("e/x"), root.join("d/x")).unwrap();
            fs::create_dir(root.join("d/sub")).unwrap();
            check(&["0", "c", "sub", "x"]);
            fs::remove_dir(root.join("d/sub")).unwrap();
            fs::rename(root.join("d/c"), root.join("e/c")).unwrap();
            check(&["0", "x"]);
            let file = fs::File::create(root.join("d/open")).unwrap();
            check(&["0", "open", "x"]);
            drop(file);
            check(&["0", "open", "x"]);
        })
        .await;
    mount.unmount().await;
    other.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_change_shows_when_names_are_not_believed_any_more_also_to_who_has_it_open() {
    let volume = volume(SHORT, &["d/a", "d/b"]).await;
    let mount = volume.mount().await;
    let store = Arc::clone(&volume.store);
    mount
        .step(move |root| {
            let directory = root.join("d");
            let mut open = OpenDirectory::open(&directory);
            for round in 0..6 {
                assert_eq!(open.again(), list(&directory));
                let (removed, made) = (["a", "c"][round % 2], ["c", "a"][round % 2]);
                store.remove(&format!("d/{removed}"));
                store.put(&format!("d/{made}"), "bytes");
                let mut names = vec!["b", made];
                names.sort_unstable();
                let deadline = Instant::now() + SHOWN_WITHIN;
                while open.again() != names || list(&directory) != names {
                    assert!(Instant::now() < deadline, "{:?}, open {:?}", list(&directory), open.again());
                }
            }
        })
        .await;
    mount.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_open_finds_out_shows_in_the_next_listing() {
    let volume = volume(LONG, &["d/a", "d/b"]).await;
    let mount = volume.mount().await;
    let store = Arc::clone(&volume.store);
    mount
        .step(move |root| {
            let directory = root.join("d");
            for _ in 0..3 {
                assert_eq!(list(&directory), ["a", "b"]);
            }
            store.remove("d/a");
            fs::File::open(directory.join("a")).unwrap_err();
            assert_eq!(list(&directory), ["b"]);
        })
        .await;
    mount.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_while_reading_leaves_nothing_out() {
    const FILES: usize = 4000;
    let names: Vec<String> = (0..FILES).map(|at| format!("d/{at:05}")).collect();
    let volume = volume(LONG, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mount = volume.mount().await;
    mount
        .step(|root| {
            let directory = root.join("d");
            assert_eq!(list(&directory).len(), FILES);
            assert_eq!(list(&directory).len(), FILES);
            let mut open = OpenDirectory::open(&directory);
            let mut removed = BTreeSet::new();
            while let Some(name) = open.next() {
                fs::remove_file(directory.join(&name)).unwrap();
                assert!(removed.insert(name), "read twice");
                if removed.len() == FILES / 2 {
                    assert_eq!(list(&directory).len(), FILES / 2);
                }
            }
            assert_eq!(removed.len(), FILES, "not every name was read");
            assert_eq!(list(&directory), Vec::<String>::new());
            fs::remove_dir(directory).unwrap();
        })
        .await;
    mount.unmount().await;
}

/// Readers, rewinders and writers at once, by two views, with names that get old meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn no_reader_misses_a_name_that_is_there_all_the_time_or_sees_one_twice() {
    const STAY: usize = 600;
    const ROUNDS: usize = 40;
    let names: Vec<String> = (0..STAY).map(|at| format!("d/stay-{at:04}")).collect();
    let volume = volume(SHORT / 4, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (mount, other) = (volume.mount().await, volume.mount().await);
    let roots = [mount.place.path().join("d"), other.place.path().join("d")];
    let store = Arc::clone(&volume.store);
    mount
        .step(move |_| {
            std::thread::scope(|scope| {
                for (number, root) in roots.iter().cycle().take(4).enumerate() {
                    scope.spawn(move || {
                        let mut open = OpenDirectory::open(root);
                        for _ in 0..ROUNDS {
                            for names in [list(root), open.again()] {
                                let stay = names.iter().filter(|name| name.starts_with("stay")).count();
                                let once: BTreeSet<_> = names.iter().collect();
                                assert_eq!((stay, once.len()), (STAY, names.len()), "reader {number}");
                            }
                        }
                    });
                }
                for round in 0..ROUNDS {
                    fs::write(roots[round % 2].join(format!("new-{round}")), "new").unwrap();
                    store.put(&format!("d/theirs-{round}"), "theirs");
                    if round >= 5 {
                        fs::remove_file(roots[0].join(format!("new-{}", round - 5))).unwrap();
                    }
                }
            });
            let deadline = Instant::now() + SHOWN_WITHIN;
            for root in &roots {
                while list(root).len() != STAY + ROUNDS + 5 {
                    assert!(Instant::now() < deadline, "{} names", list(root).len());
                }
            }
        })
        .await;
    mount.unmount().await;
    other.unmount().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_believes_names_and_attributes_as_long_as_the_volume_does() {
    const STATS: u64 = 50;
    for (metadata_ttl, is_asked) in [(LONG, false), (Duration::ZERO, true)] {
        let volume = volume(metadata_ttl, &["d/f"]).await;
        let mount = volume.mount().await;
        let look =
            |root: PathBuf| (0..STATS).for_each(|_| assert_eq!(fs::metadata(root.join("d/f")).unwrap().len(), 5));
        mount.step(look).await;
        let before = mount.session.asked(&LOOKS);
        mount.step(look).await;
        let asked = mount.session.asked(&LOOKS) - before;
        assert_eq!(asked >= STATS, is_asked, "{asked} with {metadata_ttl:?}");
        assert!(is_asked || asked == 0, "{asked} with {metadata_ttl:?}");
        mount.unmount().await;
    }
}
