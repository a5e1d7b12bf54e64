//! What holds when replies are lost, bodies break off, and the service is busy or away. Faults come from the
//! emulator's rules.

use std::time::{Duration, Instant};

use azblob_csi::blob::{
    BlobStore, BlockId, Condition, ContentHeaders, CopyOptions, Error, ErrorKind, ListRequest, Metadata, RequestLimits,
};
use blob_emulator::{FaultKind, FaultRule, Operation};
use bytes::Bytes;
use futures::StreamExt;

use crate::service::{Service, absent, body, matching, name, options, read, staged};

/// What ends by itself in a second or ten has ended by then, on any machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes without a period that a shifted resume could hide behind.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

#[tokio::test]
async fn a_body_that_breaks_off_goes_on_at_its_byte() {
    let service = Service::start().await;
    let bytes = pattern(3 << 20);
    service.store.put_blob(&name("a"), body(&bytes), &options(absent())).await.unwrap();
    for at in [0, 1, 65_536, 1_000_003] {
        service.fault(FaultRule::new(FaultKind::CutBodyAfter { bytes: at }).on(Operation::GetBlob).times(3));
        assert!(read(&service.store, "a", 7..3 << 20).await == bytes[7..], "cut after {at} bytes");
    }
}

#[tokio::test]
async fn a_broken_body_of_a_replaced_blob_is_an_error_and_never_a_mix() {
    let service = Service::start().await;
    let (store, blob) = (&service.store, name("a"));
    store.put_blob(&blob, body(&[b'o'; 1 << 20]), &options(absent())).await.unwrap();
    service.fault(FaultRule::new(FaultKind::CutBodyAfter { bytes: 1000 }).on(Operation::GetBlob).times(1));
    let mut download = store.get(&blob, 0..1 << 20, &Condition::None).await.unwrap();
    let first = download.body.next().await.unwrap().unwrap();
    store.put_blob(&blob, body(&[b'n'; 1 << 20]), &options(Condition::None)).await.unwrap();
    let mut old = first.to_vec();
    let error = loop {
        match download.body.next().await.unwrap() {
            Ok(piece) => old.extend_from_slice(&piece),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, ErrorKind::Precondition);
    assert!(old.iter().all(|&byte| byte == b'o') && old.len() <= 1000);
    assert!(download.body.next().await.is_none(), "an error ends the body");
}

#[tokio::test]
async fn a_body_without_progress_ends_in_an_error() {
    let service = Service::start().await;
    service.store.put_blob(&name("a"), body(&[1; 1000]), &options(absent())).await.unwrap();
    service.fault(FaultRule::new(FaultKind::CutBodyAfter { bytes: 0 }).on(Operation::GetBlob));
    let store = service.store.with_limits(RequestLimits { names: Duration::from_secs(2), ..RequestLimits::STANDARD });
    let mut download = store.get(&name("a"), 0..1000, &Condition::None).await.unwrap();
    let end = tokio::time::timeout(PATIENCE, download.body.next()).await.expect("an end at the deadline");
    let error = end.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
}

#[tokio::test]
async fn every_mutation_whose_reply_was_lost_is_reported_as_done_once() {
    let service = Service::start().await;
    let (store, blob) = (&service.store, name("a"));
    let lose = |operation| service.fault(FaultRule::new(FaultKind::ReplyLost).on(operation).times(1));

    lose(Operation::PutBlob);
    let created = store.put_blob(&blob, body(b"created"), &options(absent())).await.unwrap();
    assert_eq!(created.etag, store.head(&blob, &Condition::None).await.unwrap().etag);
    lose(Operation::PutBlob);
    let replaced = store.put_blob(&blob, body(b"replaced"), &options(matching(&created.etag))).await.unwrap();

    lose(Operation::SetBlobMetadata);
    let metadata = Metadata::from([("k".into(), "v".into())]);
    let described = store.set_metadata(&blob, &metadata, &matching(&replaced.etag)).await.unwrap();
    lose(Operation::SetBlobProperties);
    let headers = ContentHeaders { content_type: Some("text/plain".into()), ..ContentHeaders::default() };
    let typed = store.set_headers(&blob, &headers, &matching(&described.etag)).await.unwrap();

    lose(Operation::CopyBlob);
    let copied = store.copy(&blob, &typed.etag, &name("copy"), &CopyOptions::under(absent())).await.unwrap();
    assert_eq!(copied.etag, store.head(&name("copy"), &Condition::None).await.unwrap().etag);

    let ids = [BlockId(Bytes::from_static(b"nonce-0001")), BlockId(Bytes::from_static(b"nonce-0002"))];
    for id in &ids {
        lose(Operation::PutBlock);
        store.put_block(&blob, id, body(b"block,")).await.unwrap();
    }
    lose(Operation::PutBlockList);
    let committed = store.put_block_list(&blob, &staged(&ids), &options(matching(&typed.etag))).await.unwrap();
    let found = store.head(&blob, &Condition::None).await.unwrap();
    assert_eq!((&found.etag, found.length), (&committed.etag, 12));
    assert_eq!(read(store, "a", 0..99).await, b"block,block,");

    lose(Operation::DeleteBlob);
    store.delete(&blob, &matching(&committed.etag)).await.unwrap();
    assert_eq!(store.head(&blob, &Condition::None).await.unwrap_err().kind, ErrorKind::NotFound);

    let other = service.store_for("other");
    lose(Operation::CreateContainer);
    other.create_container(&metadata).await.unwrap();
    lose(Operation::DeleteContainer);
    other.delete_container().await.unwrap();
}

#[tokio::test]
async fn after_a_lost_reply_a_foreign_change_is_still_the_foreigners() {
    let service = Service::start().await;
    let (store, blob) = (&service.store, name("a"));
    let first = store.put_blob(&blob, body(b"first"), &options(absent())).await.unwrap();
    store.put_blob(&blob, body(b"foreign"), &options(matching(&first.etag))).await.unwrap();
    // The try that gets no answer was refused, and so is the next one: nothing of ours is there.
    for operation in [Operation::PutBlob, Operation::SetBlobMetadata, Operation::CopyBlob, Operation::DeleteBlob] {
        service.fault(FaultRule::new(FaultKind::ReplyLost).on(operation).times(1));
        let outcome: Result<(), Error> = match operation {
            Operation::PutBlob => store.put_blob(&blob, body(b"ours"), &options(matching(&first.etag))).await.map(drop),
            Operation::SetBlobMetadata => {
                let metadata = Metadata::from([("ours".into(), "1".into())]);
                store.set_metadata(&blob, &metadata, &matching(&first.etag)).await.map(drop)
            }
            Operation::CopyBlob => {
                store.copy(&blob, &first.etag, &name("b"), &CopyOptions::under(absent())).await.map(drop)
            }
            _ => store.delete(&blob, &matching(&first.etag)).await,
        };
        assert_eq!(outcome.unwrap_err().kind, ErrorKind::Precondition, "{operation:?}");
    }
    assert_eq!(read(store, "a", 0..99).await, b"foreign");
    assert_eq!(store.delete(&name("never"), &Condition::None).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_busy_service_is_asked_again_when_it_says() {
    let service = Service::start().await;
    let retry_after = Some(Duration::from_secs(1));
    let busy = |status| FaultKind::Status { status, code: None, retry_after };
    for status in [503, 429, 500] {
        service.fault(FaultRule::new(busy(status)).times(1));
        let began = Instant::now();
        service.store.list(&ListRequest::default()).await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(1), "{status}");
    }
}

#[tokio::test]
async fn every_call_ends_within_its_deadline() {
    let service = Service::start().await;
    let limits =
        RequestLimits { names: Duration::from_secs(1), commits: Duration::from_secs(1), ..RequestLimits::STANDARD };
    let store = service.store.with_limits(limits);
    for (fault, kind) in [
        (FaultKind::Status { status: 503, code: Some("ServerBusy".into()), retry_after: None }, ErrorKind::Throttled),
        (FaultKind::Status { status: 500, code: None, retry_after: None }, ErrorKind::Server),
        (FaultKind::ResetConnection, ErrorKind::Unreachable),
        (FaultKind::Stall { duration: Duration::from_secs(600), after_bytes: None }, ErrorKind::TimedOut),
    ] {
        service.fault(FaultRule::new(fault));
        let (blob, absent) = (name("a"), options(absent()));
        let call = store.put_blob(&blob, body(b"x"), &absent);
        let error = tokio::time::timeout(PATIENCE, call).await.expect("an end at the deadline").unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
    }
}

#[tokio::test]
async fn a_try_that_the_deadline_cuts_short_leaves_the_word_to_the_one_before() {
    let service = Service::start().await;
    service.store.put_blob(&name("a"), body(&[1; 1000]), &options(absent())).await.unwrap();
    let limits =
        RequestLimits { names: Duration::from_secs(1), commits: Duration::from_secs(1), ..RequestLimits::STANDARD };
    let store = service.store.with_limits(limits);
    let stall = || FaultRule::new(FaultKind::Stall { duration: Duration::from_secs(600), after_bytes: None });

    let busy = FaultKind::Status { status: 503, code: Some("ServerBusy".into()), retry_after: None };
    service.faults(&[FaultRule::new(busy).on(Operation::PutBlob).times(2), stall().on(Operation::PutBlob)]);
    let error = store.put_blob(&name("b"), body(b"x"), &options(absent())).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Throttled, "{error}");

    service.fault(FaultRule::new(FaultKind::CutBodyAfter { bytes: 0 }).on(Operation::GetBlob).times(1));
    let mut download = store.get(&name("a"), 0..1000, &Condition::None).await.unwrap();
    service.fault(stall().on(Operation::GetBlob));
    let error = download.body.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
}

#[tokio::test]
async fn an_endpoint_that_is_away_is_an_error_that_says_how() {
    let away = Service::away().with_limits(RequestLimits::mounting());
    let error = tokio::time::timeout(PATIENCE, away.container_metadata()).await.expect("an end").unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.remedy().unwrap().contains("Nobody listens at 127.0.0.1"), "{:?}", error.remedy());
    let nowhere = Service::at("https://acme.blob.invalid/logs").with_limits(RequestLimits::mounting());
    let error = tokio::time::timeout(PATIENCE, nowhere.container_metadata()).await.expect("an end").unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.remedy().unwrap().contains("does not resolve"), "{error:?}");
}

#[tokio::test]
async fn a_pending_copy_is_waited_for() {
    let service = Service::start().await;
    let (store, blob) = (&service.store, name("a"));
    let version = store.put_blob(&blob, body(b"bytes"), &options(absent())).await.unwrap().etag;
    let complete_after = Some(Duration::from_millis(400));
    service.fault(FaultRule::new(FaultKind::LeaveCopyPending { complete_after }).times(1));
    let began = Instant::now();
    let copied = store.copy(&blob, &version, &name("b"), &CopyOptions::under(absent())).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert_eq!(copied.etag, store.head(&name("b"), &Condition::None).await.unwrap().etag);
    service.fault(FaultRule::new(FaultKind::LeaveCopyPending { complete_after: None }).times(1));
    let limits = RequestLimits { commits: Duration::from_secs(1), ..RequestLimits::STANDARD };
    let error =
        store.with_limits(limits).copy(&blob, &version, &name("c"), &CopyOptions::under(absent())).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_service_without_put_block_from_url_is_asked_once() {
    let service = Service::start().await;
    let version = service.store.put_blob(&name("a"), body(b"bytes"), &options(absent())).await.unwrap().etag;
    let kind = FaultKind::Status { status: 501, code: Some("APINotImplemented".into()), retry_after: None };
    service.fault(FaultRule::new(kind).on(Operation::PutBlockFromURL));
    let id = BlockId(Bytes::from_static(b"nonce-0001"));
    for _ in 0..3 {
        let error = service.store.put_block_from_url(&name("b"), &id, &name("a"), 0..2, &version).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
    }
    assert_eq!(service.requests_of(Operation::PutBlockFromURL), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_share_a_gate_keep_its_bound_together() {
    let service = Service::start().await;
    service.store.put_blob(&name("a"), body(&pattern(1 << 20)), &options(absent())).await.unwrap();
    service.wait_before_answers(Duration::from_millis(5));
    let (one, two) = service.two_stores_with_gate(4);
    let tasks: Vec<_> = (0..40)
        .map(|index| {
            let store = if index % 2 == 0 { one.clone() } else { two.clone() };
            tokio::spawn(async move { read(&store, "a", 0..1 << 20).await.len() })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 1 << 20);
    }
    // The gate of four may find out that more help, up to four times as many.
    assert!(service.in_flight_max() <= 16, "{}", service.in_flight_max());
}

#[tokio::test]
async fn a_read_that_is_far_later_than_all_others_is_asked_for_again_and_the_first_answer_counts() {
    let service = Service::start().await;
    let bytes = pattern(100_000);
    service.store.put_blob(&name("a"), body(&bytes), &options(absent())).await.unwrap();
    for _ in 0..80 {
        read(&service.store, "a", 0..4096).await;
    }
    // Longer than a try may take: only a second request brings the answer within this one's deadline.
    let stall = FaultKind::Stall { duration: Duration::from_secs(300), after_bytes: None };
    service.fault(FaultRule::new(stall).on(Operation::GetBlob).times(1));
    let patient = RequestLimits { names: Duration::from_secs(25), ..RequestLimits::STANDARD };
    let store = service.store.with_limits(patient);
    assert!(read(&store, "a", 7..100_000).await == bytes[7..]);
    // No hedge for what may be done twice, nor where all answers are slow: it is at most one in fifty.
    service.fault(FaultRule::new(FaultKind::Stall { duration: Duration::from_millis(60), after_bytes: None }));
    let before = service.requests_of(Operation::GetBlob);
    for _ in 0..20 {
        read(&store, "a", 0..4096).await;
    }
    assert!(service.requests_of(Operation::GetBlob) - before <= 20 + 2);
}

#[tokio::test]
async fn a_service_that_does_not_check_crc64_gets_md5_and_is_asked_once() {
    let service = Service::start().await;
    let kind = FaultKind::Status { status: 500, code: Some("FeatureNotSupported".into()), retry_after: None };
    service.fault(FaultRule::new(kind).on(Operation::PutBlock).times(1));
    let ids = [BlockId(Bytes::from_static(b"nonce-0001")), BlockId(Bytes::from_static(b"nonce-0002"))];
    for id in &ids {
        service.store.put_block(&name("a"), id, body(b"block,")).await.unwrap();
    }
    assert_eq!(service.requests_of(Operation::PutBlock), 3);
    service.store.put_block_list(&name("a"), &staged(&ids), &options(absent())).await.unwrap();
    assert_eq!(read(&service.store, "a", 0..99).await, b"block,block,");
}
