//! Two mounts, four writers on each, twenty files opened at random: every close that succeeds is one client's whole
//! version over what it had read, so no update is lost, and whoever would have overwritten one got ESTALE.

use std::{
    collections::BTreeMap,
    fs,
    process::{Child, Command, Stdio},
};

use harness::World;

use crate::world;

const FILES: usize = 20;
const WRITERS_PER_MOUNT: usize = 4;
const ROUNDS: usize = 40;

/// Reads a file, adds a line of its own, and writes all of it again with a filling that follows from the lines; says
/// what became of it. Writers of one mount take turns at a file (two descriptors of one machine would overwrite each
/// other on any file system); those of the other mount are not asked.
const WRITER: &str = r"
import errno, fcntl, os, random, sys
root, locks, writer, files, rounds = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
random.seed(writer)
def whole(lines):
    text = ''.join(line + '\n' for line in lines).encode()
    return text + b'.' * (len(lines) * 7919 % 200_000) + b'end'
for number in range(rounds):
    name = f'file{random.randrange(files)}'
    token = f'{writer}-{number}'
    with open(os.path.join(locks, name), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = 'ok'
        try:
            file = os.open(os.path.join(root, name), os.O_RDWR)
            try:
                old = b''
                while piece := os.pread(file, 1 << 20, len(old)):
                    old += piece
                lines = [line for line in old.decode().split('\n')[:-1]]
                if old != whole(lines):
                    outcome = 'torn'
                new = whole(lines + [token])
                os.ftruncate(file, 0)
                half = len(new) // 2
                os.pwrite(file, new[:half], 0)
                os.pwrite(file, new[half:], half)
                if random.randrange(2):
                    os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            outcome = 'stale' if error.errno == errno.ESTALE else repr(error)
        print(name, token, outcome, flush=True)
";

fn start(world: &World, root: &std::path::Path, mount: usize, writer: usize) -> (Child, std::path::PathBuf) {
    let said = world.path(&format!("said-{mount}-{writer}"));
    let mut command = Command::new("python3");
    command.arg("-c").arg(WRITER).arg(root).arg(world.directory(&format!("locks{mount}")));
    command.arg(format!("{mount}.{writer}")).arg(FILES.to_string()).arg(ROUNDS.to_string());
    let out = fs::File::create(&said).unwrap();
    (command.stdin(Stdio::null()).stdout(out).spawn().unwrap(), said)
}

fn whole(lines: &[&str]) -> Vec<u8> {
    let mut bytes: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
    bytes.resize(bytes.len() + lines.len() * 7919 % 200_000, b'.');
    bytes.extend(b"end");
    bytes
}

#[test]
fn no_update_of_eight_writers_on_two_mounts_is_lost_without_estale() {
    let world = world();
    for index in 0..FILES {
        world.emulator().put(world.container(), &format!("file{index}"), whole(&[]), &[]).unwrap();
    }
    let mounts = [world.mount(&[]), world.mount(&[])];
    let mut writers = Vec::new();
    for (number, mount) in mounts.iter().enumerate() {
        writers.extend((0..WRITERS_PER_MOUNT).map(|writer| start(&world, mount.root(), number, writer)));
    }
    let mut saved: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut stale = 0;
    for (mut child, said) in writers {
        assert!(child.wait().unwrap().success());
        for line in fs::read_to_string(said).unwrap().lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[2..] {
                ["ok"] => saved.entry(words[0].to_owned()).or_default().push(words[1].to_owned()),
                ["stale"] => stale += 1,
                _ => panic!("{line}"),
            }
        }
    }
    println!("{} saved, {stale} stale", saved.values().map(Vec::len).sum::<usize>());
    assert!(stale > 0, "the writers never met");
    for (name, mut tokens) in saved {
        let found = world.emulator().get(world.container(), &name).unwrap();
        let text = String::from_utf8(found.clone()).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.pop();
        assert!(found == whole(&lines), "{name} is no whole version");
        let mut kept: Vec<String> = lines.into_iter().map(str::to_owned).collect();
        kept.sort();
        tokens.sort();
        assert_eq!(kept, tokens, "{name}: what succeeded is there, and nothing else");
    }
    for mount in mounts {
        mount.unmount();
    }
}
