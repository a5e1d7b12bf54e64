//! Tokens in use: refreshed ahead of their end, replaced when refused, and not asked for when nobody uses them.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use blob_emulator::{FaultKind, FaultRule, IdentityService};
use harness::length;

use crate::{PRINCIPAL, Realm};

/// Life of the tokens in these tests.
const LIFE: Duration = Duration::from_secs(3);

/// How long readers and writers run in a short and in a long test.
const SHORT: Duration = Duration::from_secs(12);
const LONG: Duration = Duration::from_secs(120);

/// Between two rounds of a worker: what counts is time, not the number of requests.
const PAUSE: Duration = Duration::from_millis(20);

#[test]
fn tokens_of_three_seconds_are_refreshed_ahead_and_no_refusal_reaches_a_program() {
    let realm = Realm::new();
    realm.services.token_life(LIFE);
    let mount = realm.mount(&["--metadata-ttl", "0s", "--log-level", "info,azblob_csi::credential=debug"], &PRINCIPAL);
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        for worker in 0..4 {
            let (mount, over, done) = (&mount, &over, &done);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(fs::read(mount.path("file")).unwrap(), crate::CONTENT);
                    let own = mount.path(&format!("own{worker}"));
                    fs::write(&own, format!("{worker}")).unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(PAUSE);
                }
            });
        }
        thread::sleep(length().of(SHORT, LONG));
        over.store(true, Ordering::Relaxed);
    });
    let lives = began.elapsed().as_secs_f64() / LIFE.as_secs_f64();
    let refused = realm.requests(IdentityService::Storage).iter().filter(|request| request.status == 401).count();
    // By the log: the services remember only so many requests. One more was for the mounting.
    let asked = mount.unmount().log.matches("a token from").count();
    println!("{lives:.1} lives, {asked} token requests, {} rounds, {refused} refusals", done.load(Ordering::Relaxed));
    assert!(done.load(Ordering::Relaxed) > 0);
    assert_eq!(refused, 0, "no token was shown after its end");
    assert!(asked as f64 <= 2.0 * lives.ceil(), "{asked} token requests in {lives:.1} lives");
    assert!(asked as f64 >= lives.floor(), "{asked} token requests in {lives:.1} lives");
}

#[test]
fn a_refused_token_is_replaced_once_and_no_program_hears_of_it() {
    let realm = Realm::new();
    let mount = realm.mount(&[], &PRINCIPAL);
    realm.services.clear_requests();
    let refuse = || {
        let code = Some("InvalidAuthenticationInfo".to_owned());
        FaultRule::new(FaultKind::Status { status: 401, code, retry_after: None })
    };
    realm.world.emulator().fault(refuse().times(1));
    assert_eq!(fs::read(mount.path("file")).unwrap(), crate::CONTENT);
    assert_eq!(realm.requests(IdentityService::Authority).len(), 1);
    // A service that refuses every token is not a reason to ask for one with each request.
    realm.world.emulator().fault(refuse());
    for _ in 0..8 {
        assert_eq!(fs::read(mount.path("file")).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    }
    assert_eq!(realm.requests(IdentityService::Authority).len(), 1);
    realm.world.emulator().clear_faults();
    assert_eq!(fs::read(mount.path("file")).unwrap(), crate::CONTENT);
    mount.unmount();
}

#[test]
fn a_mount_that_nobody_uses_asks_for_no_token() {
    let realm = Realm::new();
    realm.services.token_life(Duration::from_secs(1));
    let mount = realm.mount(&[], &PRINCIPAL);
    realm.services.clear_requests();
    // Three lives.
    thread::sleep(Duration::from_secs(3));
    assert_eq!(realm.requests(IdentityService::Authority).len(), 0);
    assert_eq!(fs::read(mount.path("file")).unwrap(), crate::CONTENT);
    mount.unmount();
}
