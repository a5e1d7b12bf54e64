//! Locks between views of one volume, without FUSE.

use std::{future::pending, time::Duration};

use azblob_csi::fs::{Error, HandleId, InodeNumber, LockCall, LockRequest};

use crate::support::{service::Service, volume::CREATE, volume::Volume};

/// Stands for "for ever" where something must happen.
const HANG: Duration = Duration::from_secs(30);

fn exclusive(number: InodeNumber, handle: HandleId, owner: u64, call: LockCall) -> LockRequest {
    LockRequest { number, handle, owner, call, range: 0..=i64::MAX as u64, exclusive: true, pid: owner as u32 }
}

/// A lock of a file that is open through this view, under its own owner.
async fn open(view: &Volume, name: &str, owner: u64, call: LockCall) -> LockRequest {
    let handle = view.open(name, CREATE).await.unwrap();
    exclusive(view.lookup(name).await.unwrap().attr.number, handle, owner, call)
}

async fn wait(view: &Volume, request: &LockRequest) -> Result<(), i32> {
    let waiting = view.fs.lock_waiting(&view.caller, request, pending());
    let ended = tokio::time::timeout(HANG, waiting).await.expect("the lock is free, and nobody says so");
    ended.map_err(|error| error.errno)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_view_locks_keeps_the_programs_of_another_out_until_it_is_given_up() {
    let service = Service::start();
    service.put("file", b"x");
    let (one, two) = (service.volume().await, service.volume().await);
    let beside = one.second_view();
    for call in [LockCall::Flock, LockCall::Fcntl] {
        // The same number through another view is another owner.
        let (mine, theirs) = (open(&one, "file", 1, call).await, open(&beside, "file", 1, call).await);
        let elsewhere = open(&two, "file", 1, call).await;
        one.fs.lock(&one.caller, &mine).unwrap();
        assert_eq!(beside.fs.lock(&beside.caller, &theirs).unwrap_err().errno, libc::EAGAIN);
        assert_eq!(beside.fs.lock_in_the_way(&beside.caller, &theirs).unwrap().pid, 1);
        two.fs.lock(&two.caller, &elsewhere).unwrap(); // Another node knows nothing of it.
        let waiting = async { wait(&beside, &theirs).await.unwrap() };
        let unlocking = async {
            tokio::task::yield_now().await;
            match call {
                LockCall::Fcntl => one.fs.unlock_all(&one.caller, mine.number, mine.owner),
                _ => one.fs.unlock_handle(mine.number, mine.handle),
            }
        };
        tokio::join!(waiting, unlocking);
        assert_eq!(one.fs.lock(&one.caller, &mine).unwrap_err().errno, libc::EAGAIN);
        beside.fs.unlock(&beside.caller, theirs.number, theirs.owner, &theirs.range);
        one.fs.lock(&one.caller, &mine).unwrap();
        one.fs.unlock(&one.caller, mine.number, mine.owner, &mine.range);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_given_up_leaves_nothing_and_a_deadlock_is_told() {
    let service = Service::start();
    for name in ["a", "b"] {
        service.put(name, b"x");
    }
    let volume = service.volume().await;
    let first = [open(&volume, "a", 1, LockCall::Fcntl).await, open(&volume, "b", 1, LockCall::Fcntl).await];
    let second = [open(&volume, "a", 2, LockCall::Fcntl).await, open(&volume, "b", 2, LockCall::Fcntl).await];
    volume.fs.lock(&volume.caller, &first[0]).unwrap();
    volume.fs.lock(&volume.caller, &second[1]).unwrap();
    let interrupted = volume.fs.lock_waiting(&volume.caller, &first[1], async { Error::new(libc::EINTR, "") }).await;
    assert_eq!(interrupted.unwrap_err().errno, libc::EINTR);
    // No one waits any more, so the other way round is no deadlock yet.
    let (fs, caller) = (&volume.fs, &volume.caller);
    let crossing = async {
        tokio::task::yield_now().await;
        let refused = wait(&volume, &first[1]).await;
        assert_eq!(refused, Err(libc::EDEADLK));
        fs.unlock_all(caller, first[0].number, 1);
    };
    let (waited, ()) = tokio::join!(wait(&volume, &second[0]), crossing);
    waited.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_view_ends_its_waits_and_frees_its_locks() {
    let service = Service::start();
    service.put("file", b"x");
    let one = service.volume().await;
    let gone = one.second_view();
    let mine = open(&one, "file", 1, LockCall::Flock).await;
    let theirs = open(&gone, "file", 2, LockCall::Flock).await;
    let other = open(&gone, "file", 3, LockCall::Fcntl).await;
    gone.fs.lock(&gone.caller, &other).unwrap();
    one.fs.lock(&one.caller, &mine).unwrap();
    let ending = async {
        tokio::task::yield_now().await;
        one.fs.end_locks(&gone.caller.view);
    };
    let (waited, ()) = tokio::join!(wait(&gone, &theirs), ending);
    assert_eq!(waited, Err(libc::ENOTCONN));
    let same = LockRequest { call: LockCall::Fcntl, ..mine };
    one.fs.lock(&one.caller, &same).unwrap();
}
