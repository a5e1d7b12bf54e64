//! kill -9 of a mount while programs write: what was acknowledged is whole, nothing half-written is seen.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use harness::length;
use nix::sys::signal::Signal;

use crate::world;

/// Sizes on both sides of what one Put Blob carries.
const SIZES: [usize; 3] = [10_000, 700_000, 9 << 20];

/// Long enough that every writer is in the middle of something, in a short and in a long run.
const WRITE_FOR: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(40));

/// Acknowledged files without which the test says nothing, and how long they may take on a busy machine.
const FILES_MIN: usize = 10;
const WRITE_MAX: Duration = Duration::from_secs(60);

/// Writes file after file, each in parts and with an fsync, and says a name once its fsync has returned.
///
/// A process of its own, not a thread: when this process starts a child, the child closes its copies of all descriptors,
/// and every close of a file commits what is written so far. A half-written file would then be right to be seen. It holds the
/// root: once the dead mount is detached, its path leads to a plain directory, where everything would go well.
const WRITER: &str = "
import itertools, os, sys
root = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
writer, sizes = int(sys.argv[2]), [int(size) for size in sys.argv[3:]]
for number in itertools.count():
    name = f'w{writer}-{number}'
    length = sizes[(writer + number) % len(sizes)]
    data = (f'{name} ' * (length // len(name) + 1)).encode()[:length]
    with open(name, 'wb', buffering=0, opener=lambda name, flags: os.open(name, flags, 0o644, dir_fd=root)) as file:
        for start in range(0, length, 300_000):
            file.write(data[start:start + 300_000])
        os.fsync(file.fileno())
    print(name, flush=True)
";

/// What the writer puts into a file.
fn bytes_of(name: &str) -> Vec<u8> {
    let numbers: Vec<usize> = name[1..].split('-').map(|text| text.parse().unwrap()).collect();
    let length = SIZES[(numbers[0] + numbers[1]) % SIZES.len()];
    format!("{name} ").into_bytes().into_iter().cycle().take(length).collect()
}

fn start_writer(root: &Path, writer: usize, said: &Path) -> Child {
    let mut command = Command::new("python3");
    command.arg("-c").arg(WRITER).arg(root).arg(writer.to_string()).args(SIZES.map(|size| size.to_string()));
    let out = fs::File::create(said).unwrap();
    command.stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn everything_acknowledged_before_kill_9_is_whole_and_nothing_half_written_shows() {
    let world = world();
    // Pace, so that the kill falls into the middle of uploads.
    world.emulator().settings(|settings| {
        settings.latency = Duration::from_millis(2);
        settings.total = Some(200 << 20);
    });
    let mount = world.mount(&[]);
    let said: Vec<_> = (0..3).map(|writer| world.path(&format!("said{writer}"))).collect();
    let writers: Vec<Child> =
        said.iter().enumerate().map(|(writer, said)| start_writer(mount.root(), writer, said)).collect();
    let acknowledged = || -> Vec<String> {
        said.iter()
            .flat_map(|said| fs::read_to_string(said).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    };
    let started = Instant::now();
    let write_for = length().of(WRITE_FOR.0, WRITE_FOR.1);
    while started.elapsed() < write_for || acknowledged().len() < FILES_MIN {
        assert!(started.elapsed() < WRITE_MAX, "too few files to say anything: {}", acknowledged().len());
        thread::sleep(Duration::from_millis(20));
    }
    let ended = mount.end_with(Signal::SIGKILL);
    assert_eq!(ended.code, None);
    for mut writer in writers {
        assert!(!writer.wait().unwrap().success(), "a write to a dead mount fails");
    }
    world.emulator().settings(|settings| settings.total = None);
    let fresh = world.mount(&[]);
    for name in acknowledged() {
        assert!(fs::read(fresh.path(&name)).unwrap() == bytes_of(&name), "{name} is not whole");
    }
    // What was not acknowledged is absent, or whole: committed, but killed before the answer.
    for name in world.emulator().names(world.container()) {
        let found = world.emulator().get(world.container(), &name).unwrap();
        assert!(found == bytes_of(&name), "{name} shows half-written: {} bytes", found.len());
    }
    fresh.unmount();
}
