//! Two hundred times: random writes with fsync, kill -9 at a random moment, a new mount on what is left. No byte that
//! fsync has acknowledged is missing, and no file shows a state that was never between two fsyncs.
//!
//! Seeds are fixed; `AZBLOB_TEST_SEED=7 cargo test --test mount kills` tries others.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use harness::{Mount, World};
use nix::sys::signal::Signal;

use crate::world;

/// Kills in all, spread over worlds that run side by side.
const KILLS: u64 = 200;
const WORLDS: u64 = 4;
/// Sizes at both sides of what one Put Blob carries would take too long here: `crash` has them.
const FILE_BYTES_MAX: u64 = 300_000;
const WRITE_BYTES_MAX: u64 = 40_000;
/// Longest time between the first acknowledged fsync of a round and the kill.
const KILL_WITHIN_MS: u64 = 120;
/// The first fsync of a round may take so long on a busy machine.
const FIRST_FSYNC_WITHIN: Duration = Duration::from_secs(60);

/// A generator that the writer, in Python, has too (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// One step between two fsyncs: some writes, sometimes a cut first.
fn step(random: &mut Random, bytes: &mut Vec<u8>) {
    if random.below(8) == 0 {
        bytes.resize(random.below(FILE_BYTES_MAX) as usize, 0);
    }
    for _ in 0..1 + random.below(4) {
        let (offset, length) = (random.below(FILE_BYTES_MAX) as usize, 1 + random.below(WRITE_BYTES_MAX) as usize);
        let fill = random.below(256) as u8;
        bytes.resize(bytes.len().max(offset + length), 0);
        bytes[offset..offset + length].fill(fill);
    }
}

/// The same in a process of its own, which outlives the mounts: for each line "path seed" it makes steps until the mount
/// is gone, and says a line for each fsync that has returned. (Not a thread of the test: see `crash`.)
const WRITER: &str = r"
import os, sys
MASK = (1 << 64) - 1
class Random:
    def __init__(self, seed):
        self.state = seed
    def below(self, bound):
        self.state = (self.state + 0x9e3779b97f4a7c15) & MASK
        mixed = self.state
        mixed = ((mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94d049bb133111eb) & MASK
        return (mixed ^ (mixed >> 31)) % bound
size, length_max = int(sys.argv[1]), int(sys.argv[2])
for line in sys.stdin:
    path, seed = line.split()
    random = Random(int(seed))
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        while True:
            if random.below(8) == 0:
                os.ftruncate(file, random.below(size))
            for _ in range(1 + random.below(4)):
                offset, length, fill = random.below(size), 1 + random.below(length_max), random.below(256)
                if os.pwrite(file, bytes([fill]) * length, offset) != length:
                    raise OSError('the mount went away in the middle of a write')
            os.fsync(file)
            print('synced', flush=True)
    except OSError:
        pass
    try:
        os.close(file)
    except (OSError, NameError):
        pass
    print('over', flush=True)
";

struct Writer {
    child: Child,
    ask: ChildStdin,
    said: Receiver<String>,
}

impl Writer {
    fn start() -> Self {
        let mut command = Command::new("python3");
        command.arg("-c").arg(WRITER).arg(FILE_BYTES_MAX.to_string()).arg(WRITE_BYTES_MAX.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (ask, out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (say, said) = channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = say.send(line);
            }
        });
        Self { child, ask, said }
    }

    fn begin(&mut self, mount: &Mount, seed: u64) {
        writeln!(self.ask, "{} {seed}", mount.path("file").display()).unwrap();
        self.ask.flush().unwrap();
        assert_eq!(self.said.recv_timeout(FIRST_FSYNC_WITHIN).as_deref(), Ok("synced"), "the first fsync");
    }

    /// How many fsyncs had returned after the first, once the mount is gone.
    fn acknowledged(&self) -> u64 {
        let mut count = 0;
        loop {
            match self.said.recv_timeout(FIRST_FSYNC_WITHIN).as_deref() {
                Ok("synced") => count += 1,
                Ok("over") => return count,
                other => panic!("the writer says {other:?}"),
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One round: mount, look at what the last round left, write, kill. Returns the file as it must be now, and as it may be
/// when the fsync under way was committed and not acknowledged.
fn round(world: &World, writer: &mut Writer, expected: &mut [Vec<u8>; 2], seed: u64) -> u64 {
    let mount = world.mount(&[]);
    let found = fs::read(mount.path("file")).unwrap_or_default();
    let state = expected.iter().position(|state| *state == found);
    let state = state.unwrap_or_else(|| {
        let sizes = expected.each_ref().map(Vec::len);
        panic!("seed {seed}: the file of {} bytes is neither of two states of {sizes:?} bytes", found.len())
    });
    assert_eq!(world.emulator().get(world.container(), "file").unwrap_or_default(), found, "as another client sees it");
    writer.begin(&mount, seed);
    thread::sleep(Duration::from_millis(Random(seed).below(KILL_WITHIN_MS)));
    mount.end_with(Signal::SIGKILL);
    let steps = 1 + writer.acknowledged();
    let mut bytes = std::mem::take(&mut expected[state]);
    let mut random = Random(seed);
    (0..steps).for_each(|_| step(&mut random, &mut bytes));
    expected[0].clone_from(&bytes);
    step(&mut random, &mut bytes);
    expected[1] = bytes;
    steps
}

#[test]
fn two_hundred_kills_lose_no_synced_byte_and_tear_no_file() {
    let first_seed: u64 = std::env::var("AZBLOB_TEST_SEED").map_or(1, |text| text.parse().unwrap());
    println!("AZBLOB_TEST_SEED={first_seed}");
    let steps: u64 = thread::scope(|scope| {
        let worlds: Vec<_> = (0..WORLDS)
            .map(|number| {
                scope.spawn(move || {
                    let world = world();
                    world.emulator().settings(|settings| settings.latency = Duration::from_millis(2));
                    let mut writer = Writer::start();
                    let mut expected = [Vec::new(), Vec::new()];
                    let rounds = (0..KILLS / WORLDS).map(|count| first_seed * 1_000_000 + number * 1000 + count);
                    rounds.map(|seed| round(&world, &mut writer, &mut expected, seed)).sum::<u64>()
                })
            })
            .collect();
        worlds.into_iter().map(|world| world.join().unwrap()).sum()
    });
    println!("{KILLS} kills after {steps} fsyncs");
    assert!(steps > KILLS * 2, "the kills fell too early to say anything: {steps} fsyncs");
}
