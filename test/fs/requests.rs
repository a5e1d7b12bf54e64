//! How many requests everyday sequences cost: guards against a round trip that an earlier answer made needless.

use azblob_csi::fs::{InodeNumber, ROOT, SetAttr, SetTime};
use blob_emulator::Operation;

use crate::support::{
    service::Service,
    volume::{EXCLUSIVE, Volume},
};

const FILES: usize = 20;

/// Requests since `before`, by operation.
fn since(service: &Service, before: &[(Operation, u64)]) -> Vec<(Operation, u64)> {
    let now = before.iter().map(|(operation, count)| (*operation, service.count(*operation) - count));
    now.filter(|(_, count)| *count > 0).collect()
}

fn counts(service: &Service) -> Vec<(Operation, u64)> {
    Operation::ALL.iter().map(|operation| (*operation, service.count(*operation))).collect()
}

/// As cp and tar make a file: O_EXCL, data, attributes by the handle.
async fn make(volume: &Volume, parent: InodeNumber, name: &str) {
    let (number, handle) = volume.create_in(parent, name, EXCLUSIVE).await.unwrap();
    volume.write(handle, 0, name.as_bytes()).await;
    let change = SetAttr {
        mode: Some(0o640),
        uid: Some(7),
        mtime: Some(SetTime::At(std::time::SystemTime::UNIX_EPOCH)),
        ..SetAttr::default()
    };
    volume.fs.setattr(&volume.caller, number, Some(handle), change).await.unwrap();
    volume.close(handle).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_is_made_costs_one_put_an_entry() {
    let service = Service::start();
    let volume = service.volume().await;
    let before = counts(&service);
    let top = volume.make_directory(ROOT, "top").await;
    for index in 0..FILES {
        let below = volume.make_directory(top, &format!("d{index}")).await;
        volume.lookup_in(below, "file").await.unwrap_err();
        make(&volume, below, "file").await;
    }
    let entries = 1 + 2 * FILES as u64;
    assert_eq!(since(&service, &before), [(Operation::PutBlob, entries)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_is_removed_costs_one_delete_an_entry_and_one_look_a_directory() {
    let service = Service::start();
    for index in 0..FILES {
        service.put(&format!("top/file{index}"), b"x");
    }
    let volume = service.volume().await;
    let top = volume.lookup("top").await.unwrap().attr.number;
    volume.names_in(top).await;
    let before = counts(&service);
    for index in 0..FILES {
        volume.fs.unlink(&volume.caller, top, format!("file{index}").as_ref()).await.unwrap();
    }
    volume.fs.sync_directory(top).await.unwrap();
    // A marker, since the directory was there by its files alone: it stays until rmdir.
    let expected = [(Operation::PutBlob, 1), (Operation::DeleteBlob, FILES as u64)];
    let mut found = since(&service, &before);
    found.sort_by_key(|(operation, _)| *operation != Operation::PutBlob);
    assert_eq!(found, expected);
    let before = counts(&service);
    volume.fs.remove_directory(&volume.caller, ROOT, "top".as_ref()).await.unwrap();
    let mut found = since(&service, &before);
    found.sort_by_key(|(operation, _)| *operation != Operation::ListBlobs);
    assert_eq!(found, [(Operation::ListBlobs, 1), (Operation::DeleteBlob, 1)]);
}
