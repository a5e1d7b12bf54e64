//! Every way in which the service says no, as the errno that a program gets: operations against faults.

use std::time::Duration;

use azblob_csi::{
    blob::RequestLimits,
    fs::{ROOT, RenameMode, Result, SetAttr, Settings},
};
use blob_emulator::{FaultKind, FaultRule};

use crate::support::{
    service::Service,
    volume::{CREATE, READ, Volume},
};

/// Answers, and what they mean to a program. Statuses and codes: REST "Blob Storage error codes".
const ANSWERS: [(u16, &str, i32); 16] = [
    (403, "AuthenticationFailed", libc::EACCES),
    (403, "AuthorizationPermissionMismatch", libc::EACCES),
    (401, "InvalidAuthenticationInfo", libc::EACCES),
    (404, "ContainerNotFound", libc::EIO),
    (409, "ContainerBeingDeleted", libc::EIO),
    (412, "LeaseIdMissing", libc::EBUSY),
    (409, "LeaseAlreadyPresent", libc::EBUSY),
    (409, "SnapshotsPresent", libc::EBUSY),
    (409, "BlobImmutableDueToPolicy", libc::EPERM),
    (409, "BlobImmutableDueToLegalHold", libc::EPERM),
    (409, "BlobArchived", libc::EACCES),
    (413, "RequestBodyTooLarge", libc::EFBIG),
    (503, "ServerBusy", libc::ETIMEDOUT),
    (429, "TooManyRequests", libc::ETIMEDOUT),
    (500, "InternalError", libc::EIO),
    (501, "APINotImplemented", libc::EOPNOTSUPP),
];

fn settings() -> Settings {
    let second = Duration::from_secs(1);
    let limits = RequestLimits { names: second, commits: second, ..RequestLimits::STANDARD };
    Settings { limits, metadata_ttl: Duration::ZERO, ..Settings::default() }
}

/// What every operation says while the service answers everything so.
async fn every_operation(service: &Service, volume: &Volume, rule: FaultRule) -> Vec<(&'static str, Result<()>)> {
    service.put("read", &[b'0'; 3 << 20]); // What an open brings along is not all of it.
    for name in ["written", "removed", "renamed", "moded", "cut", "opened", "listed/a"] {
        service.put(name, b"0123456789");
    }
    let number = async |name: &str| volume.lookup(name).await.unwrap().attr.number;
    let (reader, writer) = (volume.open("read", READ).await.unwrap(), volume.open("written", CREATE).await.unwrap());
    let (moded, cut, opened) = (number("moded").await, number("cut").await, number("opened").await);
    let listed = volume.fs.open_directory(&volume.caller.view, number("listed").await).unwrap();
    volume.write(writer, 3, b"new").await;
    service.emulator().fault(rule);
    let (fs, caller) = (&volume.fs, &volume.caller);
    let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let size = SetAttr { size: Some(3), ..SetAttr::default() };
    let names = ((ROOT, "renamed".as_ref()), (ROOT, "new".as_ref()));
    let (read, sync, remove, rename, chmod, truncate, open, make, list) = futures::join!(
        fs.read(reader, 2 << 20, 10),
        fs.sync_file(writer),
        fs.unlink(caller, ROOT, "removed".as_ref()),
        fs.rename(caller, names.0, names.1, RenameMode::Replace),
        fs.setattr(caller, moded, None, mode),
        fs.setattr(caller, cut, None, size),
        fs.open_file(caller, opened, READ),
        fs.make_directory(caller, ROOT, "made".as_ref(), 0o755),
        fs.read_directory(listed, 0, 10),
    );
    let lookup = volume.lookup("never seen").await;
    service.relent();
    vec![
        ("read", read.map(drop)),
        ("fsync", sync),
        ("unlink", remove),
        ("rename", rename),
        ("chmod", chmod.map(drop)),
        ("truncate", truncate.map(drop)),
        ("open", open.map(drop)),
        ("mkdir", make.map(drop)),
        ("readdir", list.map(drop)),
        ("lookup", lookup.map(drop)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_of_every_operation_is_the_right_errno() {
    let service = Service::start();
    let mut wrong = Vec::new();
    for (status, code, errno) in ANSWERS {
        let volume = service.volume_with(settings()).await;
        let kind = FaultKind::Status { status, code: Some(code.to_owned()), retry_after: None };
        for (operation, outcome) in Box::pin(every_operation(&service, &volume, FaultRule::new(kind))).await {
            let found = outcome.as_ref().err().map(|error| error.errno);
            if found != Some(errno) {
                wrong.push(format!("{operation} under {status} {code}: {outcome:?}, not errno {errno}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_are_etimedout_at_the_deadline() {
    let service = Service::start();
    for kind in [FaultKind::ResetConnection, FaultKind::ReplyLost] {
        let volume = service.volume_with(settings()).await;
        let rule = FaultRule::new(kind.clone());
        for (operation, outcome) in Box::pin(every_operation(&service, &volume, rule)).await {
            match outcome {
                Err(error) => assert_eq!(error.errno, libc::ETIMEDOUT, "{operation} under {kind:?}: {error:?}"),
                Ok(()) => panic!("{operation} succeeds under {kind:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_blob_says_how_to_rehydrate_it() {
    let service = Service::start();
    service.put("cooling", &[7; 3 << 20]);
    service.put("cold", b"0123456789");
    let volume = service.volume_with(settings()).await;
    let handle = volume.open("cooling", READ).await.unwrap();
    service.refuse(blob_emulator::Operation::GetBlob, 409, "BlobArchived", None);
    let read = volume.fs.read(handle, 2 << 20, 10).await.unwrap_err();
    let opened = volume.open("cold", READ).await.unwrap_err();
    for error in [read, opened] {
        assert_eq!(error.errno, libc::EACCES);
        assert!(error.to_chain().contains("rehydrate"), "{}", error.to_chain());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_to_any_change_is_recognised_and_is_no_conflict() {
    use blob_emulator::Operation as On;
    let service = Service::start();
    service.put("old", &[7; 100]);
    let volume = service.volume().await;
    let large: Vec<u8> = (0..20_000_000u32).map(|position| (position % 251) as u8).collect();
    let (fs, caller) = (&volume.fs, &volume.caller);
    let lose = |operation| {
        service.relent();
        service.emulator().fault(FaultRule::new(FaultKind::ReplyLost).on(operation).times(1));
    };
    lose(On::PutBlob);
    volume.write_file("new", b"first").await;
    lose(On::PutBlob);
    volume.write_file("new", b"second").await;
    lose(On::PutBlob);
    let handle = volume.open("old", CREATE).await.unwrap();
    volume.write(handle, 50, b"changed").await;
    volume.close(handle).await.unwrap();
    lose(On::PutBlockList);
    volume.write_file("large", &large).await;
    lose(On::PutBlock);
    let handle = volume.open("large", CREATE).await.unwrap();
    volume.write(handle, 9 << 20, b"changed").await;
    volume.fs.sync_file(handle).await.unwrap();
    lose(On::PutBlockList);
    volume.write(handle, 1 << 20, b"again").await;
    volume.close(handle).await.unwrap();
    lose(On::SetBlobMetadata);
    let number = volume.lookup("new").await.unwrap().attr.number;
    let mode = SetAttr { mode: Some(0o640), ..SetAttr::default() };
    assert_eq!(fs.setattr(caller, number, None, mode).await.unwrap().0.mode, 0o640);
    lose(On::PutBlob);
    fs.make_directory(caller, ROOT, "directory".as_ref(), 0o755).await.unwrap();
    lose(On::PutBlob);
    fs.make_symlink(caller, ROOT, "link".as_ref(), b"new").await.unwrap();
    lose(On::CopyBlob);
    fs.rename(caller, (ROOT, "new".as_ref()), (ROOT, "moved".as_ref()), RenameMode::Replace).await.unwrap();
    lose(On::DeleteBlob);
    fs.rename(caller, (ROOT, "moved".as_ref()), (ROOT, "again".as_ref()), RenameMode::NoReplace).await.unwrap();
    lose(On::DeleteBlob);
    fs.unlink(caller, ROOT, "link".as_ref()).await.unwrap();
    lose(On::DeleteBlob);
    fs.remove_directory(caller, ROOT, "directory".as_ref()).await.unwrap();
    service.relent();
    // Whatever was recognised is ours: the next change is no conflict either.
    let handle = volume.open("again", CREATE).await.unwrap();
    volume.write(handle, 0, b"S").await;
    volume.close(handle).await.unwrap();
    assert_eq!(service.names(), ["again", "large", "old"]);
    assert_eq!(service.blob("again"), b"Second");
    assert_eq!(&service.blob("old")[48..60], b"\x07\x07changed\x07\x07\x07");
    let mut expected = large;
    expected[9 << 20..][..7].copy_from_slice(b"changed");
    expected[1 << 20..][..5].copy_from_slice(b"again");
    assert!(service.blob("large") == expected);
}
