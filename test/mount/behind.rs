//! Write-behind on a real mount: kill -9 in the middle of hundreds of closes, and orderly ends.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use harness::{Mount, World};
use nix::sys::signal::Signal;

use crate::world;

/// Files of one round; the kill falls among their closes.
const FILES: usize = 200;
const ROUNDS: u64 = 8;
/// The mount's answer to one close, on any machine, and what the journal of a round takes to be sent.
const LATENCY: Duration = Duration::from_millis(10);

/// In a process of its own, which outlives the mount: makes files, some by way of a temporary name, overwrites and removes
/// some, and says a line for each call that has returned. It holds the root: once the dead mount is detached, its path leads
/// to a plain directory, where everything would go well.
const WRITER: &str = r"
import os, sys
root, count = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY), int(sys.argv[2])
def put(name, data):
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=root)
    if os.write(file, data) != len(data):
        raise OSError('the mount went away in the middle of a write')
    os.close(file)
try:
    for number in range(count):
        data = b'%06d' % number * (1 + number % 700)
        name = 'f%d' % number
        if number % 10 == 3:
            put('tmp', data)
            os.rename('tmp', name, src_dir_fd=root, dst_dir_fd=root)
        else:
            put(name, data)
        print('closed', number, flush=True)
        if number % 10 == 7:
            put(name, data + b'again')
            print('again', number, flush=True)
        if number % 10 == 9:
            os.unlink(name, dir_fd=root)
            print('gone', number, flush=True)
except OSError:
    pass
print('over', flush=True)
";

fn content(number: usize) -> Vec<u8> {
    format!("{number:06}").repeat(1 + number % 700).into_bytes()
}

/// What the writer was told before the mount died.
#[derive(Default)]
struct Told {
    closed: Vec<usize>,
    again: Vec<usize>,
    gone: Vec<usize>,
}

fn write_until_killed(mount: Mount, kill_after: usize) -> Told {
    let mut command = Command::new("python3");
    command.args(["-c", WRITER]).arg(mount.root()).arg(FILES.to_string());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut told = Told::default();
    let mut note = |line: &str| {
        let Some((what, number)) = line.split_once(' ') else { return false };
        let number = number.parse().unwrap();
        match what {
            "closed" => told.closed.push(number),
            "again" => told.again.push(number),
            "gone" => told.gone.push(number),
            _ => panic!("the writer says {line}"),
        }
        true
    };
    for _ in 0..kill_after {
        assert!(note(&lines.next().unwrap()), "the writer ended before the kill");
    }
    mount.end_with(Signal::SIGKILL);
    for line in lines {
        note(&line);
    }
    child.wait().unwrap();
    told
}

fn check(world: &World, told: &Told, seed: u64) {
    let container = world.container();
    for &number in &told.closed {
        let name = format!("f{number}");
        let found = world.emulator().get(container, &name);
        let again = [content(number), b"again".to_vec()].concat();
        if told.gone.contains(&number) {
            assert_eq!(found, None, "{name} was removed (round {seed})");
            continue;
        }
        let Some(found) = found else {
            // Its unlink may have taken place without being acknowledged.
            assert!(number % 10 == 9, "{name} was closed and is lost (round {seed})");
            continue;
        };
        let as_closed = found == content(number) && !told.again.contains(&number);
        assert!(as_closed || (number % 10 == 7 && found == again), "{name} is torn or old (round {seed})");
    }
    // What was under way when the mount died is whole or absent.
    for name in world.emulator().names(container) {
        let Some(number) = name.strip_prefix('f').map(|number| number.parse().unwrap()) else { continue };
        let found = world.emulator().get(container, &name).unwrap();
        // A file that was made and not yet written may have been emptied by its open.
        let whole = found == content(number) || found == [content(number), b"again".to_vec()].concat();
        assert!(whole, "{name}: {} bytes (round {seed})", found.len());
    }
}

/// One kill; returns how many files were closed before it.
fn killed_after(closes: usize, seed: u64) -> usize {
    let world = world();
    world.emulator().settings(|settings| settings.latency = LATENCY);
    let spool = tempfile::tempdir().unwrap();
    let args = ["-o", "durability=fsync", "--spool-dir", spool.path().to_str().unwrap()];
    let told = write_until_killed(world.mount(&args), closes);
    // The next mount of the volume sends what is owed before it serves.
    let mount = world.mount(&args);
    check(&world, &told, seed);
    for &number in told.closed.iter().filter(|number| !told.gone.contains(number)) {
        let seen = fs::read(mount.path(&format!("f{number}"))).unwrap_or_default();
        let stored = world.emulator().get(world.container(), &format!("f{number}")).unwrap_or_default();
        assert!(seen == stored, "f{number}");
    }
    mount.unmount();
    assert!(!spool.path().join("lost+found").exists(), "nobody else wrote");
    told.closed.len()
}

#[test]
fn kill_9_among_two_hundred_closes_loses_and_tears_no_file() {
    // Scoped: where one of them fails, the mounts of the others end before the test does.
    let closed: usize = thread::scope(|scope| {
        let rounds: Vec<_> =
            (0..ROUNDS).map(|round| scope.spawn(move || killed_after(10 + 20 * round as usize, round))).collect();
        rounds.into_iter().map(|round| round.join().unwrap()).sum()
    });
    println!("{ROUNDS} kills after {closed} closes");
}

#[test]
fn sigterm_and_umount_wait_until_the_service_has_everything() {
    for signal in [true, false] {
        let world = world();
        world.emulator().settings(|settings| settings.latency = LATENCY);
        let spool = tempfile::tempdir().unwrap();
        let mount = world.mount(&["-o", "durability=fsync", "--spool-dir", spool.path().to_str().unwrap()]);
        for number in 0..FILES {
            fs::write(mount.path(&format!("f{number}")), content(number)).unwrap();
        }
        if !signal {
            nix::mount::umount(mount.root()).unwrap();
        }
        let ended = mount.end_with(Signal::SIGTERM);
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        for number in 0..FILES {
            let found = world.emulator().get(world.container(), &format!("f{number}"));
            assert!(found.as_deref() == Some(&content(number)[..]), "f{number}");
        }
        let left = fs::read_dir(spool.path().join("journal")).unwrap();
        let left: usize = left.map(|volume| fs::read_dir(volume.unwrap().path()).unwrap().count()).sum();
        assert_eq!(left, 0, "an orderly end leaves no journal");
    }
}
