//! Claims of the Blob room against the emulator: every operation of [`azblob_csi::blob::BlobStore`], exact names,
//! conditions, and what holds when the network or the service does not. No file system here.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "blob_store/faults.rs"]
mod faults;
#[path = "blob_store/hierarchy.rs"]
mod hierarchy;
#[path = "blob_store/service.rs"]
mod service;
#[path = "blob_store/signing.rs"]
mod signing;

use azblob_csi::blob::{
    BlobKind, BlobStore, BlockId, Body, Condition, ContentHeaders, CopyOptions, ErrorKind, ListEntry, ListRequest,
    ListedBlock, Metadata,
};
use bytes::Bytes;
use service::{Service, absent, body, matching, name, options, read, staged};

/// Names that clients and proxies like to "repair".
const HARD_NAMES: [&str; 16] = [
    "plain",
    "a//b",
    "d/",
    "a/../b",
    "..a",
    "%41",
    "100%25",
    "ünï/日本",
    "sp ace",
    " edges ",
    "tab\tname",
    "q?h#x",
    "p+q&r=s",
    "back\\slash",
    "quote\"'<&>",
    "ctl\u{1}",
];

#[tokio::test]
async fn every_name_is_kept_to_the_letter_by_every_operation() {
    let service = Service::start().await;
    let store = &service.store;
    for text in HARD_NAMES {
        let blob = name(text);
        store.put_blob(&blob, body(text.as_bytes()), &options(absent())).await.unwrap();
        assert_eq!(read(store, text, 0..u64::MAX).await, text.as_bytes(), "{text:?}");
        assert_eq!(store.head(&blob, &Condition::None).await.unwrap().length, text.len() as u64);
    }
    let page = store.list(&ListRequest::default()).await.unwrap();
    let mut listed: Vec<String> = page.entries.iter().map(entry_name).collect();
    let mut expected: Vec<String> = HARD_NAMES.iter().map(ToString::to_string).collect();
    assert!(listed.is_sorted(), "entries come in byte order");
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
    let version = store.head(&name("a//b"), &Condition::None).await.unwrap().etag;
    store.copy(&name("a//b"), &version, &name("copy/%2F\t"), &CopyOptions::under(absent())).await.unwrap();
    assert_eq!(read(store, "copy/%2F\t", 0..9).await, b"a//b");
    for text in HARD_NAMES {
        store.delete(&name(text), &Condition::None).await.unwrap();
        assert_eq!(store.head(&name(text), &Condition::None).await.unwrap_err().kind, ErrorKind::NotFound);
    }
    assert_eq!(store.head(&name(".."), &Condition::None).await.unwrap_err().kind, ErrorKind::Invalid);
}

fn entry_name(entry: &ListEntry) -> String {
    match entry {
        ListEntry::Blob(name, _) => name.as_str().to_owned(),
        ListEntry::Prefix(prefix) => prefix.clone(),
    }
}

#[tokio::test]
async fn a_write_takes_place_only_on_the_version_that_was_meant() {
    let service = Service::start().await;
    let (store, blob) = (&service.store, name("a"));
    let first = store.put_blob(&blob, body(b"one"), &options(absent())).await.unwrap();
    let taken = store.put_blob(&blob, body(b"two"), &options(absent())).await.unwrap_err();
    assert_eq!(taken.kind, ErrorKind::Precondition);
    let second = store.put_blob(&blob, body(b"two"), &options(matching(&first.etag))).await.unwrap();
    for outcome in [
        store.put_blob(&blob, body(b"three"), &options(matching(&first.etag))).await.map(drop),
        store.set_metadata(&blob, &Metadata::new(), &matching(&first.etag)).await.map(drop),
        store.set_headers(&blob, &ContentHeaders::default(), &matching(&first.etag)).await.map(drop),
        store.delete(&blob, &matching(&first.etag)).await,
        store.get(&blob, 0..1, &matching(&first.etag)).await.map(drop),
        store.head(&blob, &matching(&first.etag)).await.map(drop),
        store.copy(&blob, &first.etag, &name("b"), &CopyOptions::under(Condition::None)).await.map(drop),
    ] {
        assert_eq!(outcome.unwrap_err().kind, ErrorKind::Precondition);
    }
    let unchanged = store.get(&blob, 0..1, &Condition::NotMatch(second.etag.clone())).await.err().unwrap();
    assert_eq!(unchanged.kind, ErrorKind::NotModified);
    assert_eq!(read(store, "a", 0..9).await, b"two");
}

#[tokio::test]
async fn a_range_delivers_what_lies_in_the_blob_and_no_more() {
    let service = Service::start().await;
    let (store, blob) = (&service.store, name("a"));
    store.put_blob(&blob, body(b"0123456789"), &options(absent())).await.unwrap();
    store.put_blob(&name("empty"), Body::new(), &options(absent())).await.unwrap();
    for (asked, delivered) in [(0..4, 0..4), (3..7, 3..7), (8..100, 8..10), (0..u64::MAX, 0..10), (4..4, 4..4)] {
        let download = store.get(&blob, asked.clone(), &Condition::None).await.unwrap();
        assert_eq!((download.range.clone(), download.properties.length), (delivered.clone(), 10), "{asked:?}");
        let bytes = read(store, "a", asked).await;
        assert_eq!(bytes, b"0123456789"[delivered.start as usize..delivered.end as usize]);
    }
    for (text, at) in [("a", 10), ("a", 1 << 40), ("empty", 0), ("empty", 5)] {
        let download = store.get(&name(text), at..at + 10, &Condition::None).await.unwrap();
        assert!(download.range.is_empty());
        assert!(read(store, text, at..at + 10).await.is_empty());
    }
}

#[tokio::test]
async fn properties_are_the_same_by_write_head_get_and_list() {
    let service = Service::start().await;
    let (store, blob) = (&service.store, name("dir/a"));
    let mut written = options(absent());
    written.metadata = Metadata::from([("permissions".into(), "33188".into()), ("hdi_isfolder".into(), "true".into())]);
    written.headers.content_type = Some("text/plain".into());
    written.headers.content_language = Some("de".into());
    written.headers.cache_control = Some("no-cache".into());
    let committed = store.put_blob(&blob, body(b"0123456789"), &written).await.unwrap();
    let by_head = store.head(&blob, &Condition::None).await.unwrap();
    let by_get = store.get(&blob, 2..4, &Condition::None).await.unwrap().properties;
    let page = store.list(&ListRequest { prefix: "dir/".into(), ..ListRequest::default() }).await.unwrap();
    let ListEntry::Blob(_, by_list) = &page.entries[0] else { panic!("a blob is listed as a prefix") };
    for found in [&by_head, &by_get, by_list] {
        assert_eq!((&found.etag, found.length, found.kind), (&committed.etag, 10, BlobKind::Block));
        assert_eq!(found.last_modified, committed.last_modified);
        assert_eq!((&found.metadata, &found.headers), (&written.metadata, &written.headers));
        assert!(found.content_md5.is_some() && !found.leased && found.tag_count == 0);
    }
    let changed = Metadata::from([("permissions".into(), "33261".into())]);
    let version = store.set_metadata(&blob, &changed, &matching(&committed.etag)).await.unwrap();
    let headers = ContentHeaders { content_type: Some("text/html".into()), ..ContentHeaders::default() };
    store.set_headers(&blob, &headers, &matching(&version.etag)).await.unwrap();
    let found = store.head(&blob, &Condition::None).await.unwrap();
    assert_eq!((found.metadata, found.headers), (changed, headers));
    assert_eq!(found.content_md5, by_head.content_md5, "Set Blob Properties must not lose the MD5");
}

#[tokio::test]
async fn blocks_become_a_blob_only_by_their_list() {
    let service = Service::start().await;
    let (store, blob) = (&service.store, name("a"));
    let ids: Vec<BlockId> = (0..3).map(|index| BlockId(Bytes::from(format!("nonce-{index:08}")))).collect();
    let pieces: Body = [Bytes::from_static(b"1st "), Bytes::from_static(b"piece,")].into_iter().collect();
    store.put_block(&blob, &ids[0], pieces).await.unwrap();
    store.put_block(&blob, &ids[1], body(b" second")).await.unwrap();
    assert_eq!(store.head(&blob, &Condition::None).await.unwrap_err().kind, ErrorKind::NotFound);
    let committed = store.put_block_list(&blob, &staged(&ids[..2]), &options(absent())).await.unwrap();
    assert_eq!(read(store, "a", 0..100).await, b"1st piece, second");
    let list = store.get_block_list(&blob).await.unwrap();
    assert_eq!((&list.etag, list.length), (&committed.etag, 17));
    let found: Vec<_> = list.committed.iter().map(|block| (block.id.clone(), block.length)).collect();
    assert_eq!(found, [(ids[0].clone(), 10), (ids[1].clone(), 7)]);
    let unknown =
        store.put_block_list(&blob, &staged(&ids[2..]), &options(matching(&committed.etag))).await.unwrap_err();
    assert_eq!(unknown.kind, ErrorKind::Invalid);
    let short = store.put_block(&blob, &BlockId(Bytes::from_static(b"short")), body(b"x")).await.unwrap_err();
    assert_eq!(short.kind, ErrorKind::BlockIdLength);
    let reordered = [ListedBlock::Committed(ids[1].clone()), ListedBlock::Committed(ids[0].clone())];
    store.put_block_list(&blob, &reordered, &options(matching(&committed.etag))).await.unwrap();
    assert_eq!(read(store, "a", 0..100).await, b" second1st piece,");
}

#[tokio::test]
async fn a_listing_is_folded_and_paged_in_byte_order() {
    let service = Service::start().await;
    let store = &service.store;
    for text in ["a", "b/1", "b/2", "b/c/3", "b.", "z"] {
        store.put_blob(&name(text), body(b"x"), &options(absent())).await.unwrap();
    }
    let mut request = ListRequest { delimited: true, max_results: Some(2), ..ListRequest::default() };
    let mut found = Vec::new();
    loop {
        let page = store.list(&request).await.unwrap();
        assert!(page.entries.len() <= 2);
        found.extend(page.entries.iter().map(entry_name));
        request.marker = page.next_marker;
        if request.marker.is_none() {
            break;
        }
    }
    assert_eq!(found, ["a", "b.", "b/", "z"]);
    let inner = ListRequest { prefix: "b/".into(), delimited: true, ..ListRequest::default() };
    let page = store.list(&inner).await.unwrap();
    assert_eq!(page.entries.iter().map(entry_name).collect::<Vec<_>>(), ["b/1", "b/2", "b/c/"]);
}

#[tokio::test]
async fn a_block_is_staged_from_a_range_of_the_version_that_was_meant() {
    let service = Service::start().await;
    let (store, source, target) = (&service.store, name("src/ü"), name("target"));
    let version = store.put_blob(&source, body(b"0123456789"), &options(absent())).await.unwrap().etag;
    let id = BlockId(Bytes::from_static(b"nonce-00000000"));
    store.put_block_from_url(&target, &id, &source, 2..6, &version).await.unwrap();
    store.put_block_list(&target, &staged(std::slice::from_ref(&id)), &options(absent())).await.unwrap();
    assert_eq!(read(store, "target", 0..100).await, b"2345");
    store.put_blob(&source, body(b"changed..."), &options(Condition::None)).await.unwrap();
    let refused = store.put_block_from_url(&target, &id, &source, 2..6, &version).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Precondition, "{refused}");
}

#[tokio::test]
async fn a_container_is_made_described_and_deleted_once() {
    let service = Service::start().await;
    let other = service.store_for("other");
    assert_eq!(other.container_metadata().await.unwrap_err().kind, ErrorKind::ContainerNotFound);
    assert_eq!(other.list(&ListRequest::default()).await.unwrap_err().kind, ErrorKind::ContainerNotFound);
    let missing = other.head(&name("a"), &Condition::None).await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::ContainerNotFound, "{missing}");
    let owner = Metadata::from([("owner".into(), "azblob-csi".into())]);
    other.create_container(&owner).await.unwrap();
    assert_eq!(other.container_metadata().await.unwrap(), owner);
    assert_eq!(other.create_container(&owner).await.unwrap_err().kind, ErrorKind::Precondition);
    other.delete_container().await.unwrap();
    assert_eq!(other.delete_container().await.unwrap_err().kind, ErrorKind::ContainerNotFound);
    assert!(!service.store.account_info().await.unwrap().hierarchical);
}

#[tokio::test]
async fn a_connection_is_used_again_after_every_kind_of_answer() {
    let service = Service::start().await;
    let (store, blob) = (&service.store, name("a"));
    for _ in 0..20 {
        store.put_blob(&blob, body(&[7; 100_000]), &options(Condition::None)).await.unwrap();
        assert_eq!(read(store, "a", 10..50_000).await.len(), 49_990);
        store.head(&blob, &Condition::None).await.unwrap();
        store.head(&name("missing"), &Condition::None).await.unwrap_err();
        store.get(&name("missing"), 0..9, &Condition::None).await.err().unwrap();
        store.put_blob(&blob, body(b"x"), &options(absent())).await.unwrap_err();
        store.list(&ListRequest::default()).await.unwrap();
        store.delete(&blob, &Condition::None).await.unwrap();
    }
    assert_eq!(service.connections(), 1);
}

#[tokio::test]
async fn a_kept_block_is_not_replaced_by_a_foreign_staged_one_of_the_same_id() {
    let service = Service::start().await;
    let (store, blob) = (&service.store, name("a"));
    let ids = [BlockId(Bytes::from_static(b"000000")), BlockId(Bytes::from_static(b"nonce1"))];
    store.put_block(&blob, &ids[0], body(b"kept,")).await.unwrap();
    let first = store.put_block_list(&blob, &staged(&ids[..1]), &options(absent())).await.unwrap();
    store.put_block(&blob, &ids[0], body(b"foreign,")).await.unwrap();
    store.put_block(&blob, &ids[1], body(b"new")).await.unwrap();
    let list = [ListedBlock::Committed(ids[0].clone()), ListedBlock::Staged(ids[1].clone())];
    store.put_block_list(&blob, &list, &options(matching(&first.etag))).await.unwrap();
    assert_eq!(read(store, "a", 0..99).await, b"kept,new");
}
