//! A keeper and its clients, over a real socket.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use super::{Claim, Error, Item, Keeper, Settings};

const LONG: Duration = Duration::from_secs(60);
const NO_PATIENCE: Duration = Duration::ZERO;

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

/// Serves until the test process ends.
fn keep(socket: &Path, abandon_age: Duration) {
    let keeper = Keeper::listen(Settings { socket: socket.to_owned(), abandon_age }).unwrap();
    thread::spawn(move || keeper.serve());
}

/// A pipe's end for writing as an item, and the one for reading.
fn pipe_item(key: &str, note: &str) -> (Item, File) {
    let (read_end, write_end) = nix::unistd::pipe().unwrap();
    (item(key, note, vec![write_end]), read_end.into())
}

fn item(key: &str, note: &str, descriptors: Vec<OwnedFd>) -> Item {
    Item { key: key.to_owned(), note: note.as_bytes().to_vec(), descriptors: Arc::new(descriptors) }
}

fn names(items: &[Item]) -> Vec<(&str, &[u8], usize)> {
    items.iter().map(|item| (item.key.as_str(), item.note.as_slice(), item.descriptors.len())).collect()
}

#[test]
fn what_one_process_gave_the_next_one_takes() {
    let scratch = Scratch::new();
    keep(&scratch.socket(), LONG);
    let (claim, before) = Claim::new(&scratch.socket(), "mount", NO_PATIENCE).unwrap();
    assert!(before.is_empty() && claim.is_held());
    let (kept, mut read_end) = pipe_item("pipe", "first");
    claim.keep(kept).unwrap();
    let (newer, _read_end_of_newer) = pipe_item("pipe", "newer");
    claim.keep(newer).unwrap();
    let mut rest = Vec::new();
    // What was replaced is closed, here and there.
    read_end.read_to_end(&mut rest).unwrap();
    let (kept, mut read_end) = pipe_item("other", "");
    claim.keep(kept).unwrap();
    claim.keep(item("gone", "", Vec::new())).unwrap();
    claim.drop("gone").unwrap();
    drop(claim);
    let (_claim, items) = Claim::new(&scratch.socket(), "mount", LONG).unwrap();
    assert_eq!(names(&items), [("other", b"".as_slice(), 1), ("pipe", b"newer", 1)]);
    File::from(items[0].descriptors[0].try_clone().unwrap()).write_all(b"alive").unwrap();
    let mut word = [0; 5];
    read_end.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"alive");
}

#[test]
fn a_group_is_one_processs_at_a_time() {
    let scratch = Scratch::new();
    keep(&scratch.socket(), LONG);
    let (claim, _) = Claim::new(&scratch.socket(), "mount", NO_PATIENCE).unwrap();
    let busy = Claim::new(&scratch.socket(), "mount", NO_PATIENCE).unwrap_err();
    let own = i32::try_from(std::process::id()).unwrap();
    assert!(matches!(&busy, Error::Busy { group, pid } if group == "mount" && *pid == own), "{busy}");
    Claim::new(&scratch.socket(), "another", NO_PATIENCE).unwrap();
    let waiting = thread::spawn({
        let socket = scratch.socket();
        move || Claim::new(&socket, "mount", LONG).map(drop)
    });
    drop(claim);
    waiting.join().unwrap().unwrap();
}

#[test]
fn what_nobody_comes_for_is_closed() {
    let scratch = Scratch::new();
    keep(&scratch.socket(), Duration::from_millis(50));
    let (claim, _) = Claim::new(&scratch.socket(), "mount", NO_PATIENCE).unwrap();
    let (kept, mut read_end) = pipe_item("pipe", "");
    claim.keep(kept).unwrap();
    drop(claim);
    // Ends once the last descriptor of the other end is closed.
    assert_eq!(read_end.read(&mut [0]).unwrap(), 0);
    assert!(Claim::new(&scratch.socket(), "mount", NO_PATIENCE).unwrap().1.is_empty());
}

#[test]
fn a_living_keeper_is_not_replaced_and_a_dead_ones_socket_is() {
    let scratch = Scratch::new();
    let settings = || Settings { socket: scratch.socket(), abandon_age: LONG };
    let unreachable = Claim::new(&scratch.socket(), "mount", NO_PATIENCE).unwrap_err();
    assert!(unreachable.to_string().contains("azblob-csi keeper --socket"), "{unreachable}");
    let living = Keeper::listen(settings()).unwrap();
    let error = Keeper::listen(settings()).unwrap_err().to_string();
    assert!(error.contains("another keeper") && error.contains("keeper.sock"), "{error}");
    living.stop();
    living.serve().unwrap();
    drop(living);
    assert!(!scratch.socket().exists());
    // As kill -9 leaves it.
    drop(std::os::unix::net::UnixListener::bind(scratch.socket()).unwrap());
    Keeper::listen(settings()).unwrap();
    std::fs::write(scratch.socket(), "a file").unwrap();
    let error = Keeper::listen(settings()).unwrap_err().to_string();
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(std::fs::read(scratch.socket()).unwrap(), b"a file");
}

#[test]
fn who_says_nothing_or_nonsense_keeps_nobody_else_waiting() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    let scratch = Scratch::new();
    keep(&scratch.socket(), LONG);
    let stranger = || {
        let stranger = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let address = UnixAddr::new(&scratch.socket()).unwrap();
        connect(std::os::fd::AsRawFd::as_raw_fd(&stranger), &address).unwrap();
        stranger
    };
    let (_silent, nonsense) = (stranger(), stranger());
    nix::unistd::write(&nonsense, &[0xff; 30]).unwrap();
    // Let go: the conversation ends.
    assert_eq!(nix::unistd::read(&nonsense, &mut [0; 10]).unwrap_or(0), 0);
    let claims: Vec<_> =
        (0..20).map(|number| Claim::new(&scratch.socket(), &format!("{number}"), NO_PATIENCE).unwrap()).collect();
    assert!(claims.iter().all(|(claim, items)| claim.is_held() && items.is_empty()));
}

#[test]
fn a_directory_that_is_made_for_the_socket_is_nobody_elses() {
    let scratch = Scratch::new();
    let directory = scratch.directory.path().join("made/here");
    let socket = directory.join("keeper.sock");
    keep(&socket, LONG);
    Claim::new(&socket, "mount", LONG).unwrap();
    let mode = |path: &Path| std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777;
    assert_eq!((mode(&directory), mode(&socket)), (0o700, 0o600));
}
