//! Reads beside what changes the version under them.

use std::{sync::Arc, time::Duration};

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
