//! Mounts that outlive their process: with a keeper, one that is killed or told to leave is gone on with by the next, and
//! programs notice a pause at most.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use harness::Kept;
use nix::sys::signal::Signal;

use crate::world;

/// Far more than any program here takes on a machine that is shared with a build.
const LIMIT: Duration = Duration::from_secs(240);

/// Another build of the driver, of another version: `make upgrade FROM=REVISION` makes one. Without it upgrades are tried
/// between two sets of flags only.
fn other_build() -> Option<&'static str> {
    let path = std::env::var("AZBLOB_OTHER_BUILD").ok()?;
    Some(Box::leak(path.into_boxed_str()))
}

#[test]
fn calls_wait_for_the_next_process() {
    let mut kept = Kept::new(world(), &[]);
    fs::write(kept.path("file"), vec![7; 3 << 20]).unwrap();
    fs::create_dir(kept.path("d")).unwrap();
    let _ = kept.end(Signal::SIGKILL);
    // Each is asked of nobody, for now.
    let calls: [fn(&Path) -> bool; 6] = [
        |root| fs::read(root.join("file")).unwrap() == vec![7; 3 << 20],
        |root| fs::write(root.join("d/written"), b"later").is_ok(),
        |root| fs::create_dir(root.join("made")).is_ok(),
        |root| fs::rename(root.join("d"), root.join("d")).is_ok(),
        |root| fs::read_dir(root).unwrap().count() >= 2,
        |root| fs::metadata(root.join("missing")).is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT)),
    ];
    let waiting: Vec<_> = calls
        .into_iter()
        .map(|call| {
            let root = kept.root().to_owned();
            thread::spawn(move || call(&root))
        })
        .collect();
    kept.begin();
    for call in waiting {
        assert!(call.join().unwrap());
    }
    kept.unmount();
}

/// A program that runs beside the kills.
struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    fn start(mut command: Command, log: PathBuf) -> Self {
        let out = File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stderr(out.try_clone().unwrap()).stdout(out).spawn().unwrap();
        Self { child, log }
    }

    fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end, which must be a good one. Returns what it printed.
    #[track_caller]
    fn success(mut self) -> String {
        let end = Instant::now() + LIMIT;
        while !self.is_over() {
            assert!(Instant::now() < end, "it does not end: {}", fs::read_to_string(&self.log).unwrap());
            thread::sleep(Duration::from_millis(20));
        }
        let (status, printed) = (self.child.wait().unwrap(), fs::read_to_string(&self.log).unwrap());
        assert!(status.success(), "{status}: {printed}");
        printed
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fio(directory: &Path, engine: &str, jobs: u32, seconds: u32) -> Command {
    let mut fio = Command::new("fio");
    fio.args(["--name=jobs", "--size=4m", "--bs=64k", "--fallocate=none", "--randseed=7", "--output-format=terse"]);
    fio.args(["--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--verify_state_save=0", "--fsync=16"]);
    fio.args(["--rw=randrw", "--time_based"]).arg(format!("--runtime={seconds}s"));
    fio.arg(format!("--ioengine={engine}"))
        .arg(format!("--numjobs={jobs}"))
        .arg(format!("--directory={}", directory.display()));
    fio
}

/// Follows a log that is appended to, and a database that is written to, for as long as `flag` is there.
const PROGRAMS: &str = r#"
import hashlib, mmap, os, random, sqlite3, sys, time
root, seconds = sys.argv[1], float(sys.argv[2])
end = time.monotonic() + seconds
random.seed(7)
db = sqlite3.connect(os.path.join(root, "data.db"), timeout=60, isolation_level=None)
db.execute("create table t (n integer primary key, x text)")
follower = open(os.path.join(root, "followed"), "a+")
log = open(os.path.join(root, "followed"), "ab", buffering=0)
idle = [os.open(os.path.join(root, "idle%d" % n), os.O_RDWR | os.O_CREAT) for n in range(4)]
for n, file in enumerate(idle):
    os.pwrite(file, b"idle %d" % n, 0)
mapped = os.open(os.path.join(root, "mapped"), os.O_RDWR | os.O_CREAT)
os.ftruncate(mapped, 1 << 16)
pages = mmap.mmap(mapped, 1 << 16)
lines, rows, followed, worst, number = 0, 0, 0, 0.0, 0
while time.monotonic() < end:
    began = time.monotonic()
    number += 1
    log.write(b"line %d\n" % lines); lines += 1
    db.execute("insert into t (x) values (?)", ("row %d" % rows,)); rows += 1
    name = os.path.join(root, "made %d" % number)
    os.mkdir(name)
    with open(os.path.join(name, "file"), "xb") as file:
        file.write(bytes([number % 256]) * 5000)
    os.rename(os.path.join(name, "file"), os.path.join(name, "moved"))
    with open(os.path.join(name, "moved"), "rb") as file:
        assert file.read() == bytes([number % 256]) * 5000, name
    os.symlink("moved", os.path.join(name, "link"))
    listed = os.listdir(name)
    assert sorted(listed) == ["link", "moved"], listed
    os.unlink(os.path.join(name, "link")); os.unlink(os.path.join(name, "moved")); os.rmdir(name)
    pages[number % (1 << 16)] = number % 256
    for line in follower:
        assert line == "line %d\n" % followed, (line, followed); followed += 1
    worst = max(worst, time.monotonic() - began)
pages.flush()
os.fsync(log.fileno())
for line in follower:
    assert line == "line %d\n" % followed, (line, followed); followed += 1
assert followed == lines, (followed, lines)
assert db.execute("pragma integrity_check").fetchone() == ("ok",)
assert [x for (x,) in db.execute("select x from t order by n")] == ["row %d" % n for n in range(rows)]
for n, file in enumerate(idle):
    assert os.pread(file, 100, 0) == b"idle %d" % n
for n in range(1, number + 1):
    if n + (1 << 16) > number:
        assert pages[n % (1 << 16)] == n % 256, n
print("rounds %d, slowest %.3f s" % (number, worst))
"#;

fn programs(root: &Path, seconds: u32) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", PROGRAMS]).arg(root).arg(seconds.to_string());
    command
}

/// fio in eight jobs and one more over mappings, a follower of a log, a database, directories that come and go, a git clone and
/// four idle files, while the process is replaced so often.
#[track_caller]
fn replaced_under_programs(kept: &mut Kept, replacements: u32, mut replace: impl FnMut(&mut Kept, u32)) {
    let directory = |name: &str| {
        let path = kept.path(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let (jobs, mapped, various, cloned) =
        (directory("jobs"), directory("mapped"), directory("various"), kept.path("clone"));
    let origin = kept.world().directory("origin");
    let mut git = Command::new("bash");
    git.arg("-c").arg(format!(
        "set -e; cd {origin}; git init -q .; for n in $(seq 200); do mkdir -p d$((n % 7)); seq $n > d$((n % 7))/f$n; done; \
         git add -A; git -c user.name=t -c user.email=t@t commit -qm one; while [ -e {flag} ]; do rm -rf {cloned}; \
         git clone -q {origin} {cloned}; git -C {cloned} fsck --strict; diff -r -x .git {origin} {cloned}; done",
        origin = origin.display(),
        cloned = cloned.display(),
        flag = kept.world().path("flag").display(),
    ));
    fs::write(kept.world().path("flag"), b"").unwrap();
    let seconds = replacements / 2 + 5;
    let log = |name: &str| kept.world().path(name);
    let running = [
        Program::start(fio(&jobs, "psync", 8, seconds), log("jobs.log")),
        Program::start(fio(&mapped, "mmap", 1, seconds), log("mapped.log")),
        Program::start(programs(&various, seconds), log("various.log")),
        Program::start(git, log("git.log")),
    ];
    let mut pauses = Vec::new();
    for number in 0..replacements {
        // At a moment that no program chose.
        thread::sleep(Duration::from_millis(50 + u64::from(number) * 137 % 400));
        let began = Instant::now();
        replace(kept, number);
        pauses.push(began.elapsed());
    }
    fs::remove_file(kept.world().path("flag")).unwrap();
    for program in running {
        let printed = program.success();
        // git goes on where a call fails that it can do without, and says so.
        let complaint = ["error:", "warning:", "fatal:", "rror on"].into_iter().find(|word| printed.contains(word));
        assert_eq!(complaint, None, "{printed}");
        // fio's figures are no news.
        printed.lines().filter(|line| line.len() < 80).for_each(|line| println!("{line}"));
    }
    pauses.sort();
    let p99 = pauses[(pauses.len() * 99).div_ceil(100) - 1];
    println!("{replacements} processes replaced: median {:?}, p99 {p99:?}", pauses[pauses.len() / 2]);
}

#[test]
fn programs_do_not_notice_that_the_process_is_killed_again_and_again() {
    let mut kept = Kept::new(world(), &["--memory", "128MiB"]);
    replaced_under_programs(&mut kept, harness::length().of(12, 50), |kept, _| kept.replace(Signal::SIGKILL));
    kept.unmount();
}

/// A close is answered once the node's disk has what was written, and the service gets it later, from whichever process.
#[test]
fn programs_do_not_notice_kills_of_a_mount_with_a_journal() {
    let spool = tempfile::tempdir().unwrap();
    let args = ["--memory", "128MiB", "-o", "durability=fsync", "--spool-dir", spool.path().to_str().unwrap()];
    let mut kept = Kept::new(world(), &args);
    replaced_under_programs(&mut kept, harness::length().of(6, 50), |kept, _| kept.replace(Signal::SIGKILL));
    kept.unmount();
}

/// Flags of two installations that follow each other.
const FLAGS: [&[&str]; 2] = [
    &["--memory", "128MiB"],
    &["--memory", "192MiB", "--read-ahead", "1MiB", "--metadata-ttl", "5s", "--log-level", "debug", "-o", "noatime"],
];

#[test]
fn programs_do_not_notice_an_upgrade_nor_the_way_back() {
    let mut kept = Kept::new(world(), FLAGS[0]);
    let other = other_build();
    replaced_under_programs(&mut kept, harness::length().of(6, 20), |kept, number| {
        let is_other = number % 2 == 0;
        kept.set_args(FLAGS[usize::from(is_other)]);
        kept.set_binary(other.filter(|_| is_other));
        kept.replace(Signal::SIGUSR1);
    });
    kept.unmount();
}

#[test]
fn programs_do_not_notice_that_the_keeper_is_killed() {
    let mut kept = Kept::new(world(), &["--memory", "128MiB"]);
    replaced_under_programs(&mut kept, harness::length().of(6, 20), |kept, number| {
        kept.replace_keeper();
        // The next takeover is from what the new keeper was given.
        kept.replace(if number % 2 == 0 { Signal::SIGKILL } else { Signal::SIGUSR1 });
    });
    kept.unmount();
}

#[test]
fn a_mount_whose_keeper_was_killed_with_it_is_mounted_anew() {
    let mut kept = Kept::new(world(), &[]);
    let file = kept.path("file");
    fs::write(&file, b"saved").unwrap();
    // A program of a pod, which has something open over all of this.
    let mut script = Command::new("timeout");
    script.args(["60", "python3", "-c", WITNESS]).arg(kept.root()).arg(kept.world().path("over"));
    let witness = Program::start(script, kept.world().path("witness.log"));
    while !kept.world().path("over.begun").exists() {
        thread::sleep(Duration::from_millis(20));
    }
    kept.end_keeper();
    let _ = kept.end(Signal::SIGKILL);
    kept.begin_keeper();
    kept.begin();
    assert_eq!(fs::read(&file).unwrap(), b"saved");
    fs::write(kept.path("other"), b"new").unwrap();
    fs::write(kept.world().path("over"), b"").unwrap();
    assert_eq!(witness.success(), "ENOTCONN\nENOTCONN\n");
    // What is mounted now outlives its process again.
    kept.replace(Signal::SIGKILL);
    assert_eq!(fs::read(kept.path("other")).unwrap(), b"new");
    kept.unmount();
}

/// Says what becomes of a file and a directory that were open in a mount when nothing was left of it.
const WITNESS: &str = r#"
import errno, os, sys, time
root, over = sys.argv[1:]
file = os.open(os.path.join(root, "file"), os.O_RDWR)
os.chdir(root)
open(over + ".begun", "w").close()
while not os.path.exists(over):
    time.sleep(0.02)
for call in [lambda: os.pwrite(file, b"x", 0), lambda: os.listdir(".")]:
    try:
        call()
        print("works")
    except OSError as error:
        print(errno.errorcode[error.errno])
"#;
