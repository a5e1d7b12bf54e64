//! A service that is silent, or refuses the key: system calls and unmounting end in time, and nothing is dropped.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use blob_emulator::{FaultKind, FaultRule};
use nix::{errno::Errno, sys::signal::Signal, unistd::close};

use crate::world;

/// Longer than any test lives.
const SILENCE: Duration = Duration::from_secs(600);
/// RELEASE comes after close(2) has returned.
const RELEASED_WITHIN: Duration = Duration::from_secs(20);

/// The one file in lost+found, once it is there.
fn lost_file(spool: &Path) -> Option<Vec<u8>> {
    let account = fs::read_dir(spool.join("lost+found")).ok()?.next()?.ok()?.path();
    let container = fs::read_dir(account).ok()?.next()?.ok()?.path();
    let mut found: Vec<_> = fs::read_dir(container).ok()?.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    let [file, record] = found.as_slice() else { return None };
    assert_eq!(record.display().to_string(), format!("{}.json", file.display()));
    Some(fs::read(file).unwrap())
}

#[test]
fn a_revoked_key_is_eacces_at_close_and_the_file_is_in_lost_and_found() {
    let world = world();
    let spool = world.directory("spool");
    let mount = world.mount(&["--spool-dir", spool.to_str().unwrap()]);
    let mut file = File::create(mount.path("unsaved")).unwrap();
    file.write_all(b"bytes of a program").unwrap();
    let _new_key = world.emulator().rotate_key();
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(Errno::EACCES as i32));
    assert_eq!(close(file), Err(Errno::EACCES), "the data is not saved yet");
    let closed = Instant::now();
    while lost_file(&spool).is_none() {
        assert!(closed.elapsed() < RELEASED_WITHIN, "nothing in lost+found: {}", mount.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(lost_file(&spool).unwrap(), b"bytes of a program");
    let ended = mount.end_with(Signal::SIGTERM);
    assert!(ended.log.contains("the changes are in lost+found"), "{}", ended.log);
}

#[test]
fn unmounting_from_a_silent_service_ends_and_sets_aside_what_is_unsaved() {
    let world = world();
    let spool = world.directory("spool");
    let deadlines = ["-o", "io_deadline=2s,commit_deadline=3s", "--spool-dir", spool.to_str().unwrap()];
    let mount = world.mount(&deadlines);
    let mut file = File::create(mount.path("unsaved")).unwrap();
    file.write_all(b"bytes of a program").unwrap();
    let silence = FaultKind::Stall { duration: SILENCE, after_bytes: None };
    world.emulator().fault(FaultRule::new(silence));
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(Errno::ETIMEDOUT as i32));
    let began = Instant::now();
    let ended = mount.end_with(Signal::SIGTERM);
    // Twice the deadline, and twice the grace for those who still have files open.
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(ended.log.contains("not everything could be saved"), "{}", ended.log);
    assert_eq!(lost_file(&spool).expect("a file in lost+found"), b"bytes of a program");
    drop(file);
}
