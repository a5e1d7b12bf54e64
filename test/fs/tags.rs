//! Index tags survive a rewrite, or the rewrite is refused.

use azblob_csi::{
    blob::{BlobName, BlobStore, Body, Condition, ContentHeaders, Metadata, WriteOptions},
    fs::{ROOT, RenameMode},
};
use blob_emulator::{FaultKind, FaultRule, Operation};
use bytes::Bytes;

use crate::support::{
    service::Service,
    volume::{CREATE, READ},
};

const TAGS: &str = "cost%20center=a%26b%3D%3C1%3E&empty=&team=blue";

/// Another client writes a blob with tags.
async fn put_tagged(store: &dyn BlobStore, name: &BlobName, bytes: &'static [u8]) {
    let options = WriteOptions {
        condition: Condition::None,
        metadata: Metadata::default(),
        headers: ContentHeaders { tags: Some(TAGS.into()), ..ContentHeaders::default() },
        access_tier: Some("Cool".to_owned()),
    };
    store.put_blob(name, Body::from(Bytes::from_static(bytes)), &options).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_keeps_index_tags() {
    let service = Service::start();
    let (store, name) = (service.store(), BlobName::new("tagged").unwrap());
    put_tagged(store.as_ref(), &name, b"old").await;
    let volume = service.volume().await;
    let handle = volume.open("tagged", CREATE).await.unwrap();
    for length in [10, 3_000_000, 3_000_100] {
        // Once by Put Blob, then by block lists.
        volume.write(handle, length - 1, b"x").await;
        volume.fs.sync_file(handle).await.unwrap();
        assert_eq!(store.get_tags(&name).await.unwrap().as_deref(), Some(TAGS));
    }
    volume.close(handle).await.unwrap();
    assert_eq!(service.length("tagged"), 3_000_100);
    let before = service.count(Operation::GetBlobTags);
    volume.write_file("plain", b"no tags").await;
    assert_eq!(service.count(Operation::GetBlobTags), before, "blobs without tags are not asked for them");
}

#[tokio::test(flavor = "multi_thread")]
async fn renames_keep_index_tags_and_tier() {
    let service = Service::start();
    let (store, plain) = (service.store(), BlobName::new("tagged").unwrap());
    put_tagged(store.as_ref(), &plain, b"old").await;
    put_tagged(store.as_ref(), &BlobName::new("old/tagged").unwrap(), b"old").await;
    let volume = service.volume().await;
    for (from, to) in [("tagged", "renamed"), ("old", "new")] {
        let (from, to) = ((ROOT, from.as_ref()), (ROOT, to.as_ref()));
        volume.fs.rename(&volume.caller, from, to, RenameMode::Replace).await.unwrap();
    }
    for name in ["renamed", "new/tagged"] {
        let name = BlobName::new(name).unwrap();
        assert_eq!(store.get_tags(&name).await.unwrap().as_deref(), Some(TAGS));
        assert_eq!(store.head(&name, &Condition::None).await.unwrap().access_tier.as_deref(), Some("Cool"));
    }
    assert_eq!(service.names(), ["new/tagged", "renamed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_whose_tags_may_not_be_read_is_not_opened_for_writing() {
    let service = Service::start();
    let (store, name) = (service.store(), BlobName::new("tagged").unwrap());
    put_tagged(store.as_ref(), &name, b"old").await;
    let code = Some("AuthorizationPermissionMismatch".to_owned());
    service
        .fault(FaultRule::new(FaultKind::Status { status: 403, code, retry_after: None }).on(Operation::GetBlobTags));
    let volume = service.volume().await;
    let refused = volume.open("tagged", CREATE).await.unwrap_err();
    assert_eq!(refused.errno, libc::EPERM);
    assert!(refused.to_chain().contains("Storage Blob Data Owner"), "{}", refused.to_chain());
    let handle = volume.open("tagged", READ).await.unwrap();
    assert_eq!(volume.read(handle, 0, 10).await, b"old");
    volume.close(handle).await.unwrap();
}
