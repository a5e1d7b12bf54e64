//! A mount with a keeper on a kernel that sends nothing again (all before 6.9; `--no-resend` has a later one be like them): its
//! process is killed, or leaves, and the next one goes on.
//!
//! Calls that were under way at a kill fail with ECONNABORTED or EIO, and none hangs. Nothing else fails, then or later.

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use blob_emulator::{FaultKind, FaultRule};
use harness::{Kept, World, length, tree::noise};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    sys::signal::Signal,
};

use crate::{
    locks::range,
    mapping::Mapping,
    player::{HANGS_AFTER, Player, Stage},
    worker::{Worker, bytes_of, is_cut_off, line_of, stays},
    world,
};

const MIB: usize = 1 << 20;
/// More than a reader of a directory has from one call.
const NAMES: usize = 1000;
/// What takes this long is waiting for something.
const WAITS: Duration = Duration::from_millis(500);
/// An answer of the service that does not come before the kill.
const NEVER: Duration = Duration::from_secs(3600);
/// How often what happens in the background is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Programs that work at once.
const WORKERS: u32 = 3;

/// A mount of a container that has been filled.
fn kept(fill: impl FnOnce(&World)) -> Kept {
    let world = world();
    fill(&world);
    Kept::new(world, &["--no-resend"])
}

fn put(world: &World, name: &str, bytes: Vec<u8>) {
    world.emulator().put(world.container(), name, bytes, &[]).unwrap();
}

fn at_the_service(kept: &Kept, name: &str) -> Option<Vec<u8>> {
    kept.world().emulator().get(kept.world().container(), name)
}

/// Names that no reply of the kernel's holds all of.
fn put_names(world: &World, directory: &str) {
    for number in 0..NAMES {
        put(world, &format!("{directory}/{number:0100}"), Vec::new());
    }
}

/// From now on the service does what it is asked for, and its answers do not come.
fn stall(kept: &Kept) {
    let kind = FaultKind::Stall { duration: NEVER, after_bytes: None };
    kept.world().emulator().fault(FaultRule::new(kind));
}

/// Requests that the service has not answered.
fn unanswered(kept: &Kept) -> u64 {
    let emulator = kept.world().emulator();
    // The most at once since the counters were reset.
    emulator.reset_counters();
    emulator.counters().in_flight_max
}

/// Whether somebody holds a lock by flock(2).
fn is_flocked(path: &Path) -> bool {
    matches!(File::open(path).unwrap().try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// fcntl(2) of another process for these bytes, which does not wait.
fn try_range(path: &Path, start: i64, length: i64) -> Result<(), Errno> {
    let file = File::options().read(true).write(true).open(path).unwrap();
    fcntl(&file, FcntlArg::F_SETLK(&range(libc::F_WRLCK, start, length))).map(drop)
}

/// Waits for what becomes true in the background.
#[track_caller]
fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let end = Instant::now() + HANGS_AFTER;
    while !is_true() {
        assert!(Instant::now() < end, "{what} does not come true");
        thread::sleep(LOOK_EVERY);
    }
}

/// Has files, directories, locks and a mapping open while processes come and go.
fn hold_everything(stage: &Stage) {
    let options = File::options().read(true).write(true).create(true).to_owned();
    let mut reader = File::open(stage.path("read")).unwrap();
    let mut begin = [0; 5000];
    reader.read_exact(&mut begin).unwrap();
    let written = options.open(stage.path("written")).unwrap();
    written.write_all_at(&noise(MIB, 1), 0).unwrap();
    let mut appended = File::options().append(true).create(true).open(stage.path("appended")).unwrap();
    appended.write_all(b"one\n").unwrap();
    let unlinked = options.open(stage.path("unlinked")).unwrap();
    unlinked.write_all_at(b"without a name", 0).unwrap();
    fs::remove_file(stage.path("unlinked")).unwrap();
    let mut names = fs::read_dir(stage.path("names")).unwrap();
    let mut seen: Vec<_> = names.by_ref().take(NAMES / 10).map(|entry| entry.unwrap().file_name()).collect();
    let flocked = options.open(stage.path("flocked")).unwrap();
    flocked.lock().unwrap();
    let ranged = options.open(stage.path("ranged")).unwrap();
    fcntl(&ranged, FcntlArg::F_SETLK(&range(libc::F_WRLCK, 0, 5))).unwrap();
    let file = File::options().read(true).write(true).open(stage.path("mapped")).unwrap();
    let mut mapped = Mapping::new(&file, MIB, libc::MAP_SHARED);
    mapped.write(0, b"before");

    stage.pause("open");
    let mut bytes = begin.to_vec();
    reader.read_to_end(&mut bytes).unwrap();
    assert!(bytes == noise(3 * MIB, 7), "other bytes are read");
    written.write_all_at(b"after", MIB as u64).unwrap();
    let mut bytes = vec![0; MIB + 5];
    written.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == [&noise(MIB, 1)[..], b"after"].concat(), "what was accepted is not there");
    appended.write_all(b"two\n").unwrap();
    let mut bytes = [0; 14];
    unlinked.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"without a name");
    seen.extend(names.map(|entry| entry.unwrap().file_name()));
    seen.sort();
    let wanted: Vec<_> = (0..NAMES).map(|number| OsString::from(format!("{number:0100}"))).collect();
    assert!(seen == wanted, "{} names of {NAMES}, each once", seen.len());
    mapped.write(MIB - 5, b"after");
    let mut wanted = noise(MIB, 8);
    wanted[..6].copy_from_slice(b"before");
    wanted[MIB - 5..].copy_from_slice(b"after");
    assert!(mapped.bytes() == wanted, "other bytes are mapped");
    mapped.save();
    file.sync_all().unwrap();

    stage.pause("went on");
    drop(mapped);
    for file in [written, appended, unlinked, ranged, flocked, file, reader] {
        nix::unistd::close(file).unwrap();
    }
}

#[test]
fn what_is_open_is_gone_on_with() {
    if let Some(stage) = Stage::of_this_process() {
        return hold_everything(&stage);
    }
    let mut kept = kept(|world| {
        put(world, "read", noise(3 * MIB, 7));
        put(world, "mapped", noise(MIB, 8));
        put_names(world, "names");
    });
    let mut player = Player::start("takeover::what_is_open_is_gone_on_with", kept.root());
    let are_locked = |kept: &Kept| {
        assert!(is_flocked(&kept.path("flocked")));
        assert_eq!(try_range(&kept.path("ranged"), 4, 1), Err(Errno::EAGAIN));
        assert_eq!(try_range(&kept.path("ranged"), 5, 1), Ok(()));
    };
    player.wait_for("open");
    are_locked(&kept);
    kept.replace(Signal::SIGKILL);
    kept.replace(Signal::SIGKILL);
    are_locked(&kept);
    player.go();
    player.wait_for("went on");
    let mut mapped = noise(MIB, 8);
    mapped[..6].copy_from_slice(b"before");
    mapped[MIB - 5..].copy_from_slice(b"after");
    assert!(at_the_service(&kept, "mapped") == Some(mapped), "fsync has returned");
    kept.replace(Signal::SIGKILL);
    are_locked(&kept);
    player.go();
    player.success();
    assert!(at_the_service(&kept, "written") == Some([&noise(MIB, 1)[..], b"after"].concat()));
    assert_eq!(at_the_service(&kept, "appended").as_deref(), Some(&b"one\ntwo\n"[..]));
    assert!(!is_flocked(&kept.path("flocked")));
    assert_eq!(try_range(&kept.path("ranged"), 0, 0), Ok(()));
    assert!(!kept.path("unlinked").exists());
    kept.unmount();
}

/// How a call ended.
type Ending = io::Result<()>;

/// That a name is not there is what was wanted.
fn gone(ending: Ending) -> Ending {
    ending.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn has_all_names(directory: &Path) -> Ending {
    let names = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    assert_eq!(names.len(), NAMES);
    Ok(())
}

fn reads(file: &File, at: usize) -> Ending {
    let mut bytes = [0; 100];
    file.read_exact_at(&mut bytes, at as u64)?;
    assert!(bytes == noise(at + 100, 7)[at..], "other bytes at {at}");
    Ok(())
}

/// Makes calls that wait for the service, all at once, says how each ended, and makes each again.
fn call_and_call_again(stage: &Stage) {
    let options = File::options().read(true).write(true).create(true).to_owned();
    let [synced, closed, held, waits] =
        ["synced", "closed", "lock", "lock"].map(|name| options.open(stage.path(name)).unwrap());
    for dirty in [&synced, &closed] {
        dirty.write_all_at(&noise(MIB, 9), 0).unwrap();
    }
    let read = File::open(stage.path("read")).unwrap();
    held.lock().unwrap();
    let path = |name| stage.path(name);
    // Each in a directory of its own, which is known: the kernel makes one change of a directory at a time.
    for directory in ["mkdir", "rmdir", "rename", "open", "names"] {
        fs::metadata(path(directory)).unwrap();
    }
    stage.pause("ready");
    let call = |name: &str, call: &mut dyn FnMut() -> Ending| {
        stage.say("calling");
        let errno = call().err().map_or(0, |error| error.raw_os_error().unwrap_or(-1));
        stage.say(&format!("ended {errno} {name}"));
    };
    let mut closed = Some(closed);
    thread::scope(|scope| {
        let (call, read, synced, waits, closed) = (&call, &read, &synced, &waits, &mut closed);
        scope.spawn(move || call("read", &mut || reads(read, 12 * MIB)));
        scope.spawn(move || call("fsync", &mut || synced.sync_all()));
        scope.spawn(move || call("close", &mut || Ok(closed.take().map_or(Ok(()), nix::unistd::close)?)));
        scope.spawn(move || call("mkdir", &mut || fs::create_dir(path("mkdir/made"))));
        scope.spawn(move || call("rmdir", &mut || fs::remove_dir(path("rmdir/removed"))));
        scope.spawn(move || call("rename", &mut || fs::rename(path("rename/old"), path("rename/new"))));
        scope.spawn(move || call("open", &mut || File::open(path("open/file")).map(drop)));
        scope.spawn(move || call("readdir", &mut || has_all_names(&path("names"))));
        scope.spawn(move || call("flock", &mut || waits.lock()));
    });
    // A call that was cut off was done, or was not.
    let either = |ending: Ending, done: io::ErrorKind| {
        ending.unwrap_or_else(|error| assert_eq!(error.kind(), done, "{error}"));
    };
    reads(&read, 12 * MIB).unwrap();
    synced.write_all_at(b"again", 0).unwrap();
    synced.sync_all().unwrap();
    either(fs::create_dir(path("mkdir/made")), io::ErrorKind::AlreadyExists);
    either(fs::remove_dir(path("rmdir/removed")), io::ErrorKind::NotFound);
    either(fs::rename(path("rename/old"), path("rename/new")), io::ErrorKind::NotFound);
    assert_eq!(fs::read(path("rename/new")).unwrap(), b"old");
    assert_eq!(fs::read(path("open/file")).unwrap(), b"other");
    has_all_names(&path("names")).unwrap();
    held.unlock().unwrap();
    waits.lock().unwrap();
}

/// Calls of [`call_and_call_again`].
const CALLS: usize = 9;

#[test]
fn calls_under_way_at_the_kill_end_and_the_next_ones_work() {
    if let Some(stage) = Stage::of_this_process() {
        return call_and_call_again(&stage);
    }
    let mut kept = kept(|world| {
        put(world, "read", noise(13 * MIB, 7));
        put(world, "rename/old", b"old".to_vec());
        put(world, "open/file", b"other".to_vec());
        put_names(world, "names");
    });
    for directory in ["mkdir", "rmdir", "rmdir/removed"] {
        fs::create_dir(kept.path(directory)).unwrap();
    }
    let mut player = Player::start("takeover::calls_under_way_at_the_kill_end_and_the_next_ones_work", kept.root());
    player.wait_for("ready");
    stall(&kept);
    player.go();
    for _ in 0..CALLS {
        player.wait_for("calling");
    }
    wait_until("that calls wait for the service", || unanswered(&kept) >= CALLS as u64 / 2);
    player.is_silent_for(WAITS);
    let _ = kept.end(Signal::SIGKILL);
    kept.world().emulator().clear_faults();
    kept.begin();
    let ended: Vec<String> = (0..CALLS).map(|_| player.wait_for("ended")).collect();
    println!("under way at the kill, errno and call: {ended:?}");
    player.success();
    let errno = |ended: &String| ended.split_once(' ').unwrap().0.parse::<i32>().unwrap();
    let is_cut_off = |ended: &&String| [libc::ECONNABORTED, libc::EIO].contains(&errno(ended));
    assert_eq!(ended.iter().find(|ended| errno(ended) != 0 && !is_cut_off(ended)), None);
    // Half a second after they began, most had been read; nobody can have answered those.
    assert!(ended.iter().filter(is_cut_off).count() >= CALLS / 2, "{ended:?}");
    for name in ["synced", "closed"] {
        let mut wanted = noise(MIB, 9);
        if name == "synced" {
            wanted[..5].copy_from_slice(b"again");
        }
        // What was not saved at a close is saved when the kernel has told of the close.
        wait_until("that what was accepted is saved", || at_the_service(&kept, name).as_ref() == Some(&wanted));
    }
    kept.unmount();
}

/// Makes calls that nobody has read when they are made.
fn call_nobody(stage: &Stage) {
    let options = File::options().read(true).write(true).create(true).to_owned();
    let file = options.open(stage.path("file")).unwrap();
    file.write_all_at(b"before", 0).unwrap();
    let read = File::open(stage.path("read")).unwrap();
    stage.pause("ready");
    let path = |name| stage.path(name);
    let (file, read) = (&file, &read);
    let calling = |call: Box<dyn FnOnce() -> Ending + Send>| {
        stage.say("calling");
        call().unwrap();
    };
    let calling = &calling;
    thread::scope(|scope| {
        scope.spawn(move || calling(Box::new(|| file.write_all_at(b"after", 6))));
        scope.spawn(move || calling(Box::new(|| reads(read, 12 * MIB))));
        scope.spawn(move || calling(Box::new(move || fs::create_dir(path("made")))));
        scope.spawn(move || calling(Box::new(move || fs::write(path("made too"), b"made"))));
        scope.spawn(move || calling(Box::new(move || fs::rename(path("old"), path("new")))));
        scope.spawn(move || calling(Box::new(move || gone(fs::metadata(path("missing")).map(drop)))));
        scope.spawn(move || calling(Box::new(move || has_all_names(&path("names")))));
    });
    file.sync_all().unwrap();
}

#[test]
fn calls_while_no_process_serves_wait_for_the_next_one() {
    if let Some(stage) = Stage::of_this_process() {
        return call_nobody(&stage);
    }
    let mut kept = kept(|world| {
        put(world, "read", noise(13 * MIB, 7));
        put(world, "old", b"old".to_vec());
        put_names(world, "names");
    });
    let mut player = Player::start("takeover::calls_while_no_process_serves_wait_for_the_next_one", kept.root());
    player.wait_for("ready");
    let _ = kept.end(Signal::SIGKILL);
    player.go();
    for _ in 0..7 {
        player.wait_for("calling");
    }
    player.is_silent_for(WAITS);
    kept.begin();
    player.success();
    for (name, wanted) in [("file", &b"beforeafter"[..]), ("made too", b"made"), ("new", b"old")] {
        assert_eq!(at_the_service(&kept, name).as_deref(), Some(wanted), "{name}");
    }
    assert_eq!(at_the_service(&kept, "old"), None);
    kept.unmount();
}

/// Has a file mapped and locked whose last user goes with the mapping.
fn unmap(stage: &Stage) {
    let file = File::options().read(true).write(true).open(stage.path("mapped")).unwrap();
    let mut mapped = Mapping::new(&file, MIB, libc::MAP_SHARED);
    file.lock().unwrap();
    nix::unistd::close(file).unwrap();
    mapped.write(0, b"changed");
    stage.pause("mapped");
    drop(mapped);
    stage.pause("unmapped");
}

#[test]
fn the_last_close_of_a_file_is_not_forgotten_with_the_process_that_was_told_of_it() {
    if let Some(stage) = Stage::of_this_process() {
        return unmap(&stage);
    }
    let mut kept = kept(|world| put(world, "mapped", noise(MIB, 8)));
    let test = "takeover::the_last_close_of_a_file_is_not_forgotten_with_the_process_that_was_told_of_it";
    let mut player = Player::start(test, kept.root());
    player.wait_for("mapped");
    stall(&kept);
    player.go();
    player.wait_for("unmapped");
    wait_until("that it is being saved", || unanswered(&kept) > 0);
    let _ = kept.end(Signal::SIGKILL);
    kept.world().emulator().clear_faults();
    kept.begin();
    wait_until("that nobody has the lock", || !is_flocked(&kept.path("mapped")));
    let mut wanted = noise(MIB, 8);
    wanted[..7].copy_from_slice(b"changed");
    wait_until("that it is saved", || at_the_service(&kept, "mapped").as_ref() == Some(&wanted));
    player.go();
    player.success();
    kept.unmount();
}

/// Works in directories of its own until it is told to stop.
fn work(stage: &Stage) {
    let stop = stage.root().with_file_name("stop");
    thread::scope(|scope| {
        for number in 0..WORKERS {
            let (directory, stop) = (stage.path(&format!("{number}")), &stop);
            scope.spawn(move || {
                let (mut worker, mut round) = (Worker::new(directory), 0);
                stage.say("ready");
                while !stop.exists() {
                    worker.round(round);
                    round += 1;
                }
                stage.say(&format!("worked {number} {round} {}", worker.finish()));
            });
        }
    });
}

/// Ends the process again and again under programs that work; returns how many calls of theirs were cut off.
fn replaced_under_work(test: &str, times: u32, signal: Signal) -> u32 {
    let mut kept = kept(|_| {});
    for number in 0..WORKERS {
        fs::create_dir(kept.path(&format!("{number}"))).unwrap();
    }
    let mut player = Player::start(test, kept.root());
    for _ in 0..WORKERS {
        player.wait_for("ready");
    }
    for number in 0..times {
        // At a moment that no program chose.
        thread::sleep(Duration::from_millis(100 + u64::from(number) * 137 % 300));
        kept.replace(signal);
    }
    thread::sleep(WAITS);
    fs::write(kept.world().path("stop"), b"").unwrap();
    let mut all = 0;
    for _ in 0..WORKERS {
        let said = player.wait_for("worked");
        let figures: Vec<u64> = said.split(' ').map(|figure| figure.parse().unwrap()).collect();
        let [number, rounds, cut_off] = figures[..] else { panic!("{said}") };
        println!("worker {number}: {rounds} rounds, {cut_off} calls cut off by {times} processes that ended");
        assert!(rounds > 0, "worker {number} did nothing");
        assert!(cut_off <= u64::from(times), "it makes one call at a time");
        for round in 0..rounds {
            let found = at_the_service(&kept, &format!("{number}/{round}"));
            let wanted = stays(round).then(|| bytes_of(round));
            assert!(found == wanted, "the service has something else of round {round}");
        }
        let log = at_the_service(&kept, &format!("{number}/log")).map(|log| String::from_utf8(log).unwrap());
        assert_eq!(log, Some((0..rounds).map(line_of).collect::<String>()), "each line once");
        all += cut_off as u32;
    }
    player.success();
    kept.unmount();
    all
}

#[test]
fn programs_that_call_again_go_on_under_kills() {
    if let Some(stage) = Stage::of_this_process() {
        return work(&stage);
    }
    let test = "takeover::programs_that_call_again_go_on_under_kills";
    replaced_under_work(test, length().of(10, 50), Signal::SIGKILL);
}

#[test]
fn programs_do_not_notice_that_a_process_leaves() {
    if let Some(stage) = Stage::of_this_process() {
        return work(&stage);
    }
    let test = "takeover::programs_do_not_notice_that_a_process_leaves";
    let cut_off = replaced_under_work(test, length().of(6, 50), Signal::SIGUSR1);
    assert_eq!(cut_off, 0, "a process that leaves answers what it has read");
}

/// Saves a file, and says how that ended.
fn save(stage: &Stage) {
    let file = File::create(stage.path("file")).unwrap();
    file.write_all_at(b"saved", 0).unwrap();
    stage.pause("ready");
    let saved = file.sync_all();
    assert!(saved.as_ref().is_err_and(is_cut_off) || saved.is_ok(), "{saved:?}");
    stage.say(if saved.is_ok() { "ended well" } else { "ended badly" });
    file.write_all_at(b" twice", 5).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_process_that_leaves_waits_for_the_answer_of_what_is_under_way() {
    if let Some(stage) = Stage::of_this_process() {
        return save(&stage);
    }
    let mut kept = kept(|_| {});
    let test = "takeover::a_process_that_leaves_waits_for_the_answer_of_what_is_under_way";
    let mut player = Player::start(test, kept.root());
    player.wait_for("ready");
    // Less than a process that leaves is willing to wait.
    let kind = FaultKind::Stall { duration: Duration::from_secs(1), after_bytes: None };
    kept.world().emulator().fault(FaultRule::new(kind));
    player.go();
    wait_until("that it is being saved", || unanswered(&kept) > 0);
    let _ = kept.end(Signal::SIGUSR1);
    player.wait_for("ended well");
    kept.world().emulator().clear_faults();
    kept.begin();
    player.success();
    assert_eq!(at_the_service(&kept, "file").as_deref(), Some(&b"saved twice"[..]));
    kept.unmount();
}
