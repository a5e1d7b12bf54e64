//! `azblob-csi keeper`, the real process: what it holds, what it costs, how it ends.

use std::{
    fs::{self, File},
    io::Read as _,
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use azblob_csi::keeper::{Claim, Item};
use harness::{Ended, Keeper, program, run};
use nix::sys::signal::Signal;

const BINARY: &str = env!("CARGO_BIN_EXE_azblob-csi");
const LIMIT: Duration = Duration::from_secs(60);
/// Volumes of a full node.
const VOLUMES: usize = 200;
/// Issue and documentation promise it.
const RSS_BYTES_MAX: u64 = 10 << 20;

struct Scratch {
    directory: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("keeper.sock")
    }
}

/// A pipe's end for writing as an item, and the one for reading.
fn pipe_item(key: &str) -> (Item, File) {
    // Not for the processes that tests start meanwhile.
    let (read_end, write_end) = std::io::pipe().unwrap();
    (item(key, vec![write_end.into()]), OwnedFd::from(read_end).into())
}

fn item(key: &str, descriptors: Vec<OwnedFd>) -> Item {
    Item { key: key.to_owned(), note: vec![7; 300], descriptors: Arc::new(descriptors) }
}

fn claim(socket: &Path, group: &str) -> (Claim, Vec<Item>) {
    Claim::new(socket, group, LIMIT).unwrap()
}

/// Waits until nobody has the other end of a pipe any more.
fn wait_for_end(mut read_end: File) {
    assert_eq!(read_end.read(&mut [0]).unwrap(), 0);
}

fn keeper(socket: &Path) -> Command {
    let mut command = program::driver(BINARY);
    command.args(["keeper", "--socket"]).arg(socket);
    command
}

#[test]
fn what_two_hundred_volumes_give_it_is_held_in_less_than_10_mib() {
    let scratch = Scratch::new();
    let keeper = Keeper::start(BINARY, &scratch.socket(), &[]);
    let idle = keeper.rss_bytes();
    let mut read_ends = Vec::new();
    // A group, and so a connection, for each volume; and one that has as many again.
    let (one, _) = claim(&scratch.socket(), "one");
    let claims: Vec<Claim> = (0..VOLUMES)
        .map(|number| {
            let (claim, held) = claim(&scratch.socket(), &format!("volume {number}"));
            assert!(held.is_empty());
            for claim in [&claim, &one] {
                let (kept, read_end) = pipe_item(&format!("{number}"));
                claim.keep(kept).unwrap();
                read_ends.push(read_end);
            }
            claim
        })
        .collect();
    drop(claims);
    // Each is taken over, and given anew.
    let _claims: Vec<Claim> = (0..VOLUMES)
        .map(|number| {
            let (claim, items) = claim(&scratch.socket(), &format!("volume {number}"));
            assert_eq!((items.len(), items[0].descriptors.len(), items[0].note.len()), (1, 1, 300), "{number}");
            items.into_iter().for_each(|item| claim.keep(item).unwrap());
            claim
        })
        .collect();
    let full = keeper.rss_bytes();
    println!("resident: {} KiB when idle, {} KiB with {} items", idle >> 10, full >> 10, 2 * VOLUMES);
    assert!(full < RSS_BYTES_MAX, "{} KiB", full >> 10);
}

#[test]
fn what_nobody_comes_for_is_let_go_after_the_time_that_was_told() {
    let scratch = Scratch::new();
    let keeper = Keeper::start(BINARY, &scratch.socket(), &["--abandon-after", "1s"]);
    let (served, _) = claim(&scratch.socket(), "served");
    let (left, _) = claim(&scratch.socket(), "left");
    let (kept, mut read_end_served) = pipe_item("pipe");
    served.keep(kept).unwrap();
    let (kept, read_end) = pipe_item("pipe");
    left.keep(kept).unwrap();
    drop(left);
    wait_for_end(read_end);
    let log = keeper.wait_for_log("let go");
    assert!(log.contains("left") && log.contains("no process has come for it in 1 s"), "{log}");
    assert!(claim(&scratch.socket(), "left").1.is_empty());
    // What has a process is held, however long that takes.
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&read_end_served, flags).unwrap();
    assert_eq!(read_end_served.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn it_ends_when_it_is_told_to_and_what_it_held_goes_with_it() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let scratch = Scratch::new();
        let keeper = Keeper::start(BINARY, &scratch.socket(), &[]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&scratch.socket()), 0o600);
        let (left, _) = claim(&scratch.socket(), "left");
        let (kept, read_end) = pipe_item("pipe");
        left.keep(kept).unwrap();
        drop(left);
        let Ended { code, log } = keeper.end_with(signal);
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("the keeper listens") && log.contains("group=\"left\""), "{log}");
        assert!(log.contains("lets go of what it holds groups=1 items=1"), "{log}");
        wait_for_end(read_end);
        assert!(!scratch.socket().exists());
    }
}

#[test]
fn a_living_keeper_is_not_replaced_and_a_killed_one_is() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    let first = Keeper::start(BINARY, &socket, &[]);
    let (held, _) = claim(&socket, "held");
    let (kept, mut read_end) = pipe_item("pipe");
    held.keep(kept).unwrap();
    let refused = run(&mut keeper(&socket), LIMIT);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("another keeper serves this socket"), "{}", refused.stderr);
    assert_eq!(first.end_with(Signal::SIGKILL).code, None);
    assert!(socket.exists());
    // What the dead one held is given to the next by whoever lives.
    let next = Keeper::start(BINARY, &socket, &[]);
    let _log = next.wait_for_log("group=\"held\"");
    while !held.is_held() {
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(held);
    let (again, items) = claim(&socket, "held");
    assert_eq!(items.len(), 1);
    again.drop("pipe").unwrap();
    drop(items);
    assert_eq!(read_end.read(&mut [0]).unwrap(), 0);
}
