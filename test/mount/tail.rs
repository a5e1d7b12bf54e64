//! `tail` on one mount follows a log that is appended to through another.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::world;

/// What `tail` says, line by line.
struct Tail {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Tail {
    fn start(arguments: &[&str], path: &std::path::Path) -> Self {
        let mut command = Command::new("tail");
        command.args(["-s", "0.1", "-n", "+1"]).args(arguments).arg(path);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (said, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        Self { child, lines }
    }

    fn expect(&self, line: &str) {
        // Far more than the metadata TTL and the pause of tail: a bound for what never comes.
        assert_eq!(self.lines.recv_timeout(Duration::from_secs(30)).unwrap(), line);
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn tail_follows_an_appender_on_another_mount() {
    let world = world();
    world.emulator().put(world.container(), "log", &b"line 0\n"[..], &[]).unwrap();
    let (a, b) = (world.mount(&[]), world.mount(&["--metadata-ttl", "200ms"]));
    let by_descriptor = Tail::start(&["-f"], &b.path("log"));
    let by_name = Tail::start(&["-F"], &b.path("log"));
    for tail in [&by_descriptor, &by_name] {
        tail.expect("line 0");
    }
    let mut log = fs::OpenOptions::new().append(true).open(a.path("log")).unwrap();
    for number in 1..60 {
        // Longer and longer lines: at first the file is one Put Blob, then blocks, the last of which is written again.
        let line = format!("line {number} {}", "x".repeat(number * 200));
        writeln!(log, "{line}").unwrap();
        log.sync_all().unwrap();
        for tail in [&by_descriptor, &by_name] {
            tail.expect(&line);
        }
    }
    drop((by_descriptor, by_name, log));
    a.unmount();
    b.unmount();
}

#[test]
fn tail_follows_an_append_blob_of_another_client() {
    let world = world();
    let append = |text: &str| world.emulator().append(world.container(), "log", &[text.as_bytes()]).unwrap();
    append("one\n");
    let mount = world.mount(&["--metadata-ttl", "200ms"]);
    let tail = Tail::start(&["-f"], &mount.path("log"));
    tail.expect("one");
    append("two\n");
    tail.expect("two");
    append("three\n");
    tail.expect("three");
    drop(tail);
    let mut log = fs::OpenOptions::new().append(true).open(mount.path("log")).unwrap();
    writeln!(log, "ours").unwrap();
    log.sync_all().unwrap();
    drop(log);
    assert_eq!(world.emulator().get(world.container(), "log").unwrap(), b"one\ntwo\nthree\nours\n");
    mount.unmount();
}
