//! Reads beside what changes the version under them.

use std::{sync::Arc, time::Duration};

use azblob_csi::fs::{ROOT, RenameMode};
use blob_emulator::{FaultKind, FaultRule, Operation};

use crate::support::{
    service::Service,
    volume::{CREATE, READ},
};

/// So many that a commit keeps most of them on the service, and nothing of those is in memory.
const BYTES: usize = 20 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_meets_our_own_commit_waits_for_its_answer_and_is_not_stale() {
    let service = Service::start();
    service.put("log", &vec![b'a'; BYTES]);
    let volume = service.volume().await;
    let (writer, reader) = (volume.open("log", CREATE).await.unwrap(), volume.open("log", READ).await.unwrap());
    volume.write(writer, BYTES as u64, b"more").await;
    // The service has the new version long before we hear of it.
    let late = FaultKind::Stall { duration: Duration::from_millis(500), after_bytes: None };
    service.emulator().fault(FaultRule::new(late).on(Operation::PutBlockList));
    let committing = {
        let volume = Arc::clone(&volume);
        tokio::spawn(async move { volume.fs.sync_file(writer).await })
    };
    while service.blob("log").len() == BYTES {
        tokio::task::yield_now().await;
    }
    assert!(!committing.is_finished(), "the answer was not late");
    assert_eq!(volume.read(reader, 1 << 20, 5).await, b"aaaaa");
    committing.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_below_a_directory_goes_on_while_the_directory_is_renamed() {
    let service = Service::start();
    service.put("old/file", &vec![b'a'; BYTES]);
    let volume = service.volume().await;
    let directory = volume.lookup("old").await.unwrap().attr.number;
    let file = volume.lookup_in(directory, "file").await.unwrap().attr.number;
    let reader = volume.fs.open_file(&volume.caller, file, READ).await.unwrap();
    // The old name is gone long before the rename ends.
    let late = FaultKind::Stall { duration: Duration::from_millis(500), after_bytes: None };
    service.emulator().fault(FaultRule::new(late).on(Operation::DeleteBlob));
    let renaming = {
        let volume = Arc::clone(&volume);
        tokio::spawn(async move {
            let (old, new) = ((ROOT, "old".as_ref()), (ROOT, "new".as_ref()));
            volume.fs.rename(&volume.caller, old, new, RenameMode::Replace).await
        })
    };
    while service.find("old/file").is_some() {
        tokio::task::yield_now().await;
    }
    assert!(!renaming.is_finished(), "the answer was not late");
    assert_eq!(volume.read(reader, 1 << 20, 5).await, b"aaaaa");
    renaming.await.unwrap().unwrap();
    assert_eq!(volume.read(reader, 9 << 20, 5).await, b"aaaaa");
}
