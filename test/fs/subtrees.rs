//! A walk through directories is recognised, and the rest listed flat: the same names, in a handful of requests.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use azblob_csi::fs::{InodeNumber, Kind, Settings};
use blob_emulator::Operation;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::support::{
    service::Service,
    volume::{CREATE, Volume},
};

/// What a walk finds: size and what it is, by path.
type Found = BTreeMap<String, (u64, Kind)>;

/// Everything below a directory, as find(1) goes: a directory whole, then what is below it in the order of the listing.
/// `directories`: stops after so many. The kernel forgets a directory when it was left.
async fn walk(volume: &Volume, top: &str, backwards: bool, mut directories: usize) -> Found {
    let mut found = Found::new();
    let mut waiting = vec![(top.to_owned(), volume.lookup(top).await.unwrap().attr.number)];
    while let Some((path, number)) = waiting.pop() {
        if directories == 0 {
            return found;
        }
        directories -= 1;
        let mut below = Vec::new();
        for name in volume.names_in(number).await {
            let attr = volume.lookup_in(number, &name).await.unwrap().attr;
            let path = format!("{path}/{name}");
            if attr.kind == Kind::Directory {
                below.push((path.clone(), attr.number));
            } else {
                volume.fs.forget(&volume.caller.view, attr.number, 1);
            }
            found.insert(path, (attr.size, attr.kind));
        }
        if !backwards {
            below.reverse();
        }
        waiting.extend(below);
    }
    found
}

async fn lasting(service: &Service) -> Arc<Volume> {
    service.volume_with(Settings { metadata_ttl: Duration::from_secs(600), ..Settings::default() }).await
}

/// `count` directories of `files` files each in `top`, with markers.
fn fill(service: &Service, count: usize, files: usize) -> Found {
    let mut expected = Found::new();
    for directory in 0..count {
        let path = format!("top/d{directory:03}");
        service.put_with(&path, b"", &[("hdi_isfolder", "true")]);
        expected.insert(path.clone(), (4096, Kind::Directory));
        for file in 0..files {
            let name = format!("{path}/f{file:03}");
            service.put(&name, &vec![b'x'; file % 7]);
            expected.insert(name, ((file % 7) as u64, Kind::File));
        }
    }
    expected
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_through_166_directories_costs_a_handful_of_listings() {
    let service = Service::start();
    let expected = fill(&service, 166, 18);
    let volume = lasting(&service).await;
    volume.lookup("top").await.unwrap();
    let before = (service.requests(), service.count(Operation::ListBlobs));
    assert_eq!(walk(&volume, "top", false, usize::MAX).await, expected);
    // The top, two directories, and the rest.
    assert_eq!((service.requests() - before.0, service.count(Operation::ListBlobs) - before.1), (4, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_over_many_pages_costs_one_listing_a_page_and_stops_with_the_walker() {
    let service = Service::start();
    let expected = fill(&service, 300, 40);
    let volume = lasting(&service).await;
    let before = service.count(Operation::ListBlobs);
    walk(&volume, "top", false, 20).await;
    let stopped = service.count(Operation::ListBlobs) - before;
    assert!(stopped <= 1 + 2 + 2, "{stopped} listings for 19 of 300 directories");
    let volume = lasting(&service).await;
    let before = service.count(Operation::ListBlobs);
    assert_eq!(walk(&volume, "top", false, usize::MAX).await, expected);
    let listings = service.count(Operation::ListBlobs) - before;
    assert!(listings <= 1 + 2 + 3, "{listings} listings for 12,300 blobs");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_into_directories_out_of_order_causes_no_listing_of_all() {
    let service = Service::start();
    let expected = fill(&service, 20, 3);
    let volume = lasting(&service).await;
    let before = service.count(Operation::ListBlobs);
    assert_eq!(walk(&volume, "top", true, usize::MAX).await, expected);
    assert_eq!(service.count(Operation::ListBlobs) - before, 1 + 20, "the top and each directory");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_may_be_old_nothing_is_listed_ahead() {
    let service = Service::start();
    let expected = fill(&service, 20, 3);
    let volume = service.volume_with(Settings { metadata_ttl: Duration::ZERO, ..Settings::default() }).await;
    assert_eq!(walk(&volume, "top", false, usize::MAX).await, expected);
    service.put("top/d019/late", b"late");
    let number = volume.lookup("top").await.unwrap().attr.number;
    let number = volume.lookup_in(number, "d019").await.unwrap().attr.number;
    assert!(volume.names_in(number).await.contains(&"late".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_here_after_a_subtree_was_listed_is_shown() {
    let service = Service::start();
    fill(&service, 30, 3);
    let volume = lasting(&service).await;
    walk(&volume, "top", false, 8).await;
    let top = volume.lookup("top").await.unwrap().attr.number;
    let (fs, caller) = (&volume.fs, &volume.caller);
    // None of these directories was listed by itself; the kernel forgets each inode once it is done with it.
    let at = async |name: &str| volume.lookup_in(top, name).await.unwrap().attr.number;
    let forget = |number: InodeNumber| fs.forget(&caller.view, number, u64::MAX);
    let made = at("d010").await;
    let (file, handle) = volume.create_in(made, "new", CREATE).await.unwrap();
    volume.write(handle, 0, b"12345").await;
    volume.close(handle).await.unwrap();
    [file, made].into_iter().for_each(&forget);
    let grown = at("d011").await;
    volume.write_in(grown, "f000", b"longer").await;
    [volume.lookup_in(grown, "f000").await.unwrap().attr.number, grown].into_iter().for_each(&forget);
    let emptied = at("d012").await;
    fs.unlink(caller, emptied, "f001".as_ref()).await.unwrap();
    forget(emptied);
    let (from, to) = (at("d013").await, at("d014").await);
    let moved = ((from, "f002".as_ref()), (to, "moved".as_ref()));
    fs.rename(caller, moved.0, moved.1, azblob_csi::fs::RenameMode::Replace).await.unwrap();
    [from, to].into_iter().for_each(&forget);
    fs.make_directory(caller, at("d015").await, "below".as_ref(), 0o755).await.unwrap();
    let expected: Found = walk(&*lasting(&service).await, "top", true, usize::MAX).await;
    assert_eq!(walk(&volume, "top", false, usize::MAX).await, expected);
    assert_eq!(expected["top/d010/new"].0, 5);
    let old = ((top, "d020".as_ref()), (top, "d0199".as_ref()));
    fs.rename(caller, old.0, old.1, azblob_csi::fs::RenameMode::Replace).await.unwrap();
    assert_eq!(volume.names_in(at("d0199").await).await, ["f000", "f001", "f002"]);
}

/// Names that sort around `/`, that hide, and that are directories by a marker, by what is below, or both.
fn any_tree() -> impl Strategy<Value = Vec<(Vec<usize>, bool)>> {
    vec((vec(0..PARTS.len(), 1..4), any::<bool>()), 1..60)
}

const PARTS: [&str; 9] = ["a", "a-b", "a0", "b", "b!", "c", "\u{e9}", "\u{1f600}", ""];

fn compare(tree: &[(Vec<usize>, bool)], hierarchical: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let service = if hierarchical { Service::start_hierarchical() } else { Service::start() };
        for index in 0..3 {
            service.put(&format!("top/0{index}/file"), b"so that it is a walk");
        }
        for (parts, marker) in tree {
            let parts: Vec<&str> = parts.iter().map(|part| PARTS[*part]).collect();
            let path = format!("top/{}", parts.join("/"));
            let path = if hierarchical { path.replace("//", "/").trim_end_matches('/').to_owned() } else { path };
            if path == "top" {
                continue; // A file there would be no directory to walk through.
            }
            // A hierarchical account refuses a file where a directory is.
            let _ = match marker {
                true if !hierarchical => service.emulator().put("volume", &path, &b""[..], &[("hdi_isfolder", "true")]),
                _ => service.emulator().put("volume", &path, path.clone().into_bytes(), &[]),
            };
        }
        let walked = walk(&*lasting(&service).await, "top", false, usize::MAX).await;
        let listed = walk(&*lasting(&service).await, "top", true, usize::MAX).await;
        assert_eq!(walked, listed);
    });
}

#[test]
fn a_subtree_that_was_listed_flat_is_what_its_directories_say_each() {
    for hierarchical in [false, true] {
        let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[3; 32]));
        let drawn = runner.run(&any_tree(), |tree| {
            compare(&tree, hierarchical);
            Ok(())
        });
        if let Err(failure) = drawn {
            panic!("{failure}");
        }
    }
}
