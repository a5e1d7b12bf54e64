//! A service that is silent, slow or refuses one volume: nothing waits for ever, slowness is no failure, and others go on.

use std::{
    fmt::Debug,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use azblob_csi::{
    blob::RequestLimits,
    cache::Class,
    fs::{HandleId, ROOT, RenameMode, SetAttr, Settings},
};
use blob_emulator::{FaultKind, FaultRule, Operation};

use crate::support::{
    random::Random,
    service::Service,
    volume::{CREATE, READ, Volume, resources},
};

/// Deadlines of the tests: long enough for a busy machine, short enough to wait for.
const NAMES: Duration = Duration::from_secs(2);
const COMMITS: Duration = Duration::from_secs(3);
/// What a busy machine may add to twice the deadline.
const SLACK: Duration = Duration::from_secs(3);
/// Longer than any test lives.
const SILENCE: Duration = Duration::from_secs(600);
const MIB: usize = 1 << 20;

fn settings() -> Settings {
    settings_with(COMMITS)
}

fn settings_with(commits: Duration) -> Settings {
    let limits = RequestLimits { names: NAMES, commits, ..RequestLimits::STANDARD };
    Settings { limits, metadata_ttl: Duration::ZERO, ..Settings::default() }
}

fn silence(service: &Service) {
    service.emulator().fault(FaultRule::new(FaultKind::Stall { duration: SILENCE, after_bytes: None }));
}

/// Runs `work`, which must fail with ETIMEDOUT within twice `deadline`.
async fn times_out<T: Debug>(what: &str, deadline: Duration, work: impl Future<Output = azblob_csi::fs::Result<T>>) {
    let began = Instant::now();
    let outcome = tokio::time::timeout(deadline * 2 + SLACK, work).await;
    let outcome = outcome.unwrap_or_else(|_| panic!("{what} hangs"));
    let errno = outcome.as_ref().err().map(|error| error.errno);
    assert_eq!(errno, Some(libc::ETIMEDOUT), "{what} after {:?}: {outcome:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_twice_its_deadline_when_the_service_is_silent() {
    let service = Service::start();
    for name in ["read", "joined", "looked", "removed", "renamed", "moded", "listed/a", "opened"] {
        service.put(name, &vec![1; 3 * MIB]);
    }
    let volume = service.volume_with(settings()).await;
    let number = async |name: &str| volume.lookup(name).await.unwrap().attr.number;
    let (read, joined) = (volume.open("read", READ).await.unwrap(), volume.open("joined", READ).await.unwrap());
    let listed = volume.fs.open_directory(&volume.caller.view, number("listed").await).unwrap();
    let (moded, opened) = (number("moded").await, number("opened").await);
    let (_, written) = volume.create("written", CREATE).await.unwrap();
    let others = [volume.open("written", CREATE).await.unwrap(), volume.open("written", CREATE).await.unwrap()];
    volume.write(written, 0, b"unsaved").await;
    silence(&service);
    let (fs, caller) = (&volume.fs, &volume.caller);
    let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    let join = async || fs.read(joined, 2 << 20, 4096).await;
    let names = futures::future::join_all([
        Box::pin(times_out("read", NAMES, fs.read(read, 2 << 20, 4096))) as std::pin::Pin<Box<dyn Future<Output = ()>>>,
        Box::pin(times_out("a first reader", NAMES, join())),
        Box::pin(times_out("a reader who joins", NAMES, join())),
        Box::pin(times_out("another who joins", NAMES, join())),
        Box::pin(times_out("lookup", NAMES, volume.lookup("looked"))),
        Box::pin(times_out("open", NAMES, fs.open_file(caller, opened, READ))),
        Box::pin(times_out("readdir", NAMES, fs.read_directory(listed, 0, 10))),
        Box::pin(times_out("readdir beside it", NAMES, fs.read_directory(listed, 0, 10))),
        Box::pin(times_out("unlink", NAMES, fs.unlink(caller, ROOT, "removed".as_ref()))),
        Box::pin(times_out("mkdir", COMMITS, fs.make_directory(caller, ROOT, "made".as_ref(), 0o755))),
        Box::pin(times_out("symlink", COMMITS, fs.make_symlink(caller, ROOT, "link".as_ref(), b"target"))),
        Box::pin(times_out(
            "rename",
            COMMITS,
            fs.rename(caller, (ROOT, "renamed".as_ref()), (ROOT, "new".as_ref()), RenameMode::Replace),
        )),
        Box::pin(times_out("chmod", NAMES, fs.setattr(caller, moded, None, mode))),
        Box::pin(times_out("fsync", COMMITS, fs.sync_file(written))),
        Box::pin(times_out("fsync behind it", COMMITS, fs.sync_file(others[0]))),
        Box::pin(times_out("close behind both", COMMITS, fs.flush(others[1]))),
    ]);
    names.await;
    times_out("the end of the volume", COMMITS, fs.flush_all()).await;
    service.relent();
    let told = fs.sync_file(written).await.unwrap_err();
    assert_eq!(told.errno, libc::ETIMEDOUT, "of the failure that no call on this handle has returned");
    assert_eq!(service.blob("written"), b"unsaved", "what timed out was kept");
    fs.sync_file(written).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_timed_out_and_took_place_is_no_conflict_for_the_next() {
    let service = Service::start();
    service.put("old", &vec![1; 100_000]);
    // What comes after the silence must be done within the deadline: all 20 MiB once more, beside all other tests.
    let commits = COMMITS * 3;
    let volume = service.volume_with(settings_with(commits)).await;
    for (name, size, operation) in [
        ("small", 1000, Operation::PutBlob),
        ("large", 20 * MIB, Operation::PutBlockList),
        ("old", 10, Operation::PutBlob),
    ] {
        let handle = volume.open(name, CREATE).await;
        let handle = match handle {
            Ok(handle) => handle,
            Err(_) => volume.create(name, CREATE).await.unwrap().1,
        };
        let bytes = Random::new(size as u64).bytes(size);
        try_write(&volume, handle, &bytes).await.unwrap();
        // The service does the work and says nothing, for as long as anybody listens.
        service.emulator().fault(FaultRule::new(FaultKind::ReplyLost).on(operation));
        let silence = FaultKind::Stall { duration: SILENCE, after_bytes: None };
        service.emulator().fault(FaultRule::new(silence).on(Operation::GetBlobProperties));
        service.emulator().fault(FaultRule::new(FaultKind::ResetConnection).on(Operation::GetBlockList));
        times_out(name, commits * 2, volume.fs.sync_file(handle)).await;
        service.relent();
        assert_eq!(&service.blob(name)[..size], &bytes, "it took place");
        volume.write(handle, 5, b"later").await;
        assert_eq!(&volume.read(handle, 0, 10).await[5..], b"later");
        volume.fs.sync_file(handle).await.unwrap();
        volume.close(handle).await.unwrap();
        assert_eq!(&service.blob(name)[5..10], b"later");
    }
    assert_eq!(volume.fs.files_set_aside(), 0);
}

async fn try_write(volume: &Volume, handle: HandleId, bytes: &[u8]) -> azblob_csi::fs::Result<()> {
    for (index, part) in bytes.chunks(MIB).enumerate() {
        volume.fs.write(&volume.caller, handle, (index * MIB) as u64, part).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_who_waits_for_memory_ends_and_with_a_spool_need_not_wait() {
    let service = Service::start();
    let bytes = Random::new(3).bytes(40 * MIB);
    let without = service.volume_within(settings(), 16 << 20, None).await;
    let with = service.volume_within(settings(), 16 << 20, Some(std::env::temp_dir())).await;
    let (_, waits) = without.create("waits", CREATE).await.unwrap();
    let (_, spools) = with.create("spools", CREATE).await.unwrap();
    silence(&service);
    let ends = times_out("a write without memory", COMMITS, try_write(&without, waits, &bytes));
    let spooled = tokio::time::timeout(SILENCE, try_write(&with, spools, &bytes));
    let ((), spooled) = Box::pin(futures::future::join(ends, spooled)).await;
    spooled.unwrap().unwrap();
    service.relent();
    with.close(spools).await.unwrap();
    assert!(service.blob("spools") == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_service_slows_a_writer_and_fails_nobody() {
    let service = Service::start();
    let bytes = Random::new(5).bytes(40 * MIB);
    for spool in [None, Some(std::env::temp_dir())] {
        let volume = service.volume_within(Settings::default(), 16 << 20, spool).await;
        service.emulator().settings(|settings| settings.total = Some(8 << 20));
        let (_, handle) = volume.create("slow", CREATE).await.unwrap();
        try_write(&volume, handle, &bytes).await.unwrap();
        volume.close(handle).await.unwrap();
        service.emulator().settings(|settings| settings.total = None);
        assert!(service.blob("slow") == bytes);
        volume.fs.unlink(&volume.caller, ROOT, "slow".as_ref()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_service_is_asked_again_when_it_says_and_until_the_deadline() {
    let service = Service::start();
    let volume = service.volume_with(settings()).await;
    let busy = |times| {
        let retry_after = Some(Duration::from_secs(1));
        let kind = FaultKind::Status { status: 503, code: Some("ServerBusy".to_owned()), retry_after };
        FaultRule { count: times, ..FaultRule::new(kind).on(Operation::PutBlob) }
    };
    let (_, handle) = volume.create("busy", CREATE).await.unwrap();
    volume.write(handle, 0, b"bytes").await;
    service.emulator().fault(busy(Some(1)));
    let began = Instant::now();
    volume.fs.sync_file(handle).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "it was asked again before the time that it named");
    volume.write(handle, 0, b"other").await;
    service.relent();
    service.emulator().fault(busy(None));
    times_out("fsync", COMMITS, volume.fs.sync_file(handle)).await;
    service.relent();
    volume.close(handle).await.ok();
    assert_eq!(service.blob("busy"), b"other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_whose_data_is_refused_leaves_room_and_speed_to_the_others() {
    let service = Service::start();
    let shared = resources(32 << 20, None);
    let half = shared.cache.budget().limit_bytes(Class::Dirty) / 2;
    let refused = service.volume_sharing(settings(), Arc::clone(&shared)).await;
    let other = service.volume_sharing(settings(), Arc::clone(&shared)).await;
    let kind = FaultKind::Status { status: 403, code: Some("AuthenticationFailed".to_owned()), retry_after: None };
    let mut handles = Vec::new();
    for index in 0..64 {
        handles.push(refused.create(&format!("refused{index}"), CREATE).await.unwrap().1);
    }
    service.emulator().fault(FaultRule::new(kind).blob("refused*"));
    let mut errnos = Vec::new();
    for handle in handles {
        let written = refused.fs.write(&refused.caller, handle, 0, &vec![1; 300_000]).await;
        errnos.extend(written.err().map(|error| error.errno));
        if errnos.len() > 2 {
            break;
        }
    }
    assert!(!errnos.is_empty(), "its writers hear of it");
    assert!(errnos.iter().all(|errno| [libc::EACCES, libc::ETIMEDOUT].contains(errno)), "{errnos:?}");
    let held = shared.cache.budget().gauges().dirty_bytes;
    assert!(held <= half, "{held} bytes of {half}");
    let bytes = Random::new(9).bytes(20 * MIB);
    other.write_file("other", &bytes).await;
    assert!(service.blob("other") == bytes);
}
