//! A mount that nobody uses: no requests, and threads that sleep.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::world;

/// How long nothing is done.
const IDLE_TIME: Duration = Duration::from_secs(10);
/// Twice as much as there is without any load, which changes nothing: timers of what was done before run out at their time.
/// A timer that ticks ten times a second is far beyond it.
const WAKEUPS_A_SECOND_MAX: u64 = 2;
/// What is done behind the last close is over when no request came for so long.
const QUIET_TIME: Duration = Duration::from_secs(2);
const QUIET_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn a_mount_that_was_used_and_is_left_alone_makes_no_request_and_hardly_wakes_up() {
    let world = world();
    let (spool, cache) = (world.directory("spool"), world.directory("cache"));
    let directories = ["--spool-dir", spool.to_str().unwrap(), "--cache-dir", cache.to_str().unwrap()];
    let mount = world.mount(&[&directories[..], &["-o", "durability=fsync,journal-age=1s"]].concat());
    fs::create_dir(mount.path("d")).unwrap();
    for number in 0..50 {
        let path = mount.path(&format!("d/{number}"));
        fs::write(&path, format!("bytes {number}")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("bytes {number}"));
    }
    fs::write(mount.path("large"), vec![7; 20 << 20]).unwrap();
    assert_eq!(fs::read_dir(mount.path("d")).unwrap().count(), 50);
    fs::rename(mount.path("d"), mount.path("e")).unwrap();
    (0..20).for_each(|number| fs::remove_file(mount.path(&format!("e/{number}"))).unwrap());
    fs::File::open(mount.path("large")).unwrap().sync_all().unwrap();

    let requests = || world.emulator().counters().total();
    let (mut before, began) = (requests(), Instant::now());
    loop {
        thread::sleep(QUIET_TIME);
        let now = requests();
        if now == before {
            break;
        }
        assert!(began.elapsed() < QUIET_WITHIN, "requests go on: {now}");
        before = now;
    }
    let woken = mount.wakeups();
    thread::sleep(IDLE_TIME);
    let again: u64 =
        mount.wakeups().iter().map(|(thread, count)| count - woken.get(thread).copied().unwrap_or(0)).sum();
    assert_eq!(requests(), before, "requests of a mount that nobody uses");
    println!("{again} wakeups in {IDLE_TIME:?}");
    assert!(again <= WAKEUPS_A_SECOND_MAX * IDLE_TIME.as_secs(), "{again} wakeups in {IDLE_TIME:?}");
    mount.unmount();
}
