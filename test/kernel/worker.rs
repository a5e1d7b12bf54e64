//! A program that makes, changes, moves, reads and removes files, and goes on when a call is cut off: with ECONNABORTED or EIO,
//! after which nothing is known but that it was done once or not at all.

use std::{
    cell::Cell,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use harness::tree::noise;

/// Of so many files one is removed again.
const REMOVED_EACH: u64 = 3;
/// Longest file, in bytes.
const LENGTH_MAX: u64 = 200_000;

/// Whether a call ended because the process that had it did.
pub(crate) fn is_cut_off(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::EIO))
}

/// What the file of a round has.
pub(crate) fn bytes_of(round: u64) -> Vec<u8> {
    noise((round * 7919 % LENGTH_MAX) as usize, round)
}

/// Whether the file of a round is there when the round is over.
pub(crate) fn stays(round: u64) -> bool {
    !round.is_multiple_of(REMOVED_EACH)
}

/// The line of a round in the log.
pub(crate) fn line_of(round: u64) -> String {
    format!("round {round}\n")
}

/// See the module's doc.
pub(crate) struct Worker {
    directory: PathBuf,
    log: File,
    logged: u64,
    cut_off: Cell<u32>,
}

/// What a call says that was done already.
type Done = fn(&io::Error) -> bool;

const NEVER: Done = |_| false;
const IS_THERE: Done = |error| error.kind() == io::ErrorKind::AlreadyExists;
const IS_GONE: Done = |error| error.kind() == io::ErrorKind::NotFound;

impl Worker {
    /// One in a directory of its own, which is there.
    pub(crate) fn new(directory: PathBuf) -> Self {
        let log = File::options().append(true).create(true).open(directory.join("log")).unwrap();
        Self { directory, log, logged: 0, cut_off: Cell::default() }
    }

    /// Saves its log; returns how many calls were cut off.
    pub(crate) fn finish(self) -> u32 {
        self.call("fsync", NEVER, || self.log.sync_all());
        self.cut_off.get()
    }

    /// Calls until it is not cut off. `done` says that the call was done before it was cut off: then there is no result.
    fn call<T>(&self, what: &str, done: Done, call: impl Fn() -> io::Result<T>) -> Option<T> {
        let mut is_repeated = false;
        loop {
            match call() {
                Ok(result) => return Some(result),
                Err(error) if is_cut_off(&error) => {
                    eprintln!("{what}: {error}");
                    self.cut_off.set(self.cut_off.get() + 1);
                    is_repeated = true;
                }
                Err(error) if is_repeated && done(&error) => return None,
                Err(error) => panic!("{what} in {}: {error}", self.directory.display()),
            }
        }
    }

    /// Everything that a program does with files, once.
    pub(crate) fn round(&mut self, round: u64) {
        let (bytes, name) = (bytes_of(round), format!("{round}"));
        let (fresh, path) = (self.directory.join(format!("{round}.new")), self.directory.join(&name));
        let options = File::options().read(true).write(true).create(true).to_owned();
        let Some(file) = self.call("open", NEVER, || options.open(&fresh)) else { return };
        let half = bytes.len() / 2;
        self.call("write", NEVER, || file.write_all_at(&bytes[half..], half as u64));
        self.call("write", NEVER, || file.write_all_at(&bytes[..half], 0));
        self.call("fsync", NEVER, || file.sync_all());
        // The descriptor is gone whatever close(2) says, and what it had is saved.
        if let Err(errno) = nix::unistd::close(file) {
            let error = io::Error::from(errno);
            assert!(is_cut_off(&error), "close: {error}");
            self.cut_off.set(self.cut_off.get() + 1);
        }
        self.call("rename", IS_GONE, || fs::rename(&fresh, &path));
        self.check(&path, &bytes);
        self.log(round);
        let directory = self.directory.join(format!("{round}.d"));
        self.call("mkdir", IS_THERE, || fs::create_dir(&directory));
        self.call("rmdir", IS_GONE, || fs::remove_dir(&directory));
        self.check_names(&name, &[&fresh, &directory]);
        if !stays(round) {
            self.call("unlink", IS_GONE, || fs::remove_file(&path));
        }
    }

    fn check(&self, path: &Path, bytes: &[u8]) {
        let read = self.call("read", NEVER, || fs::read(path));
        assert!(read.as_deref() == Some(bytes), "{}: other bytes", path.display());
        let length = self.call("stat", NEVER, || fs::metadata(path)).map(|found| found.len());
        assert_eq!(length, Some(bytes.len() as u64), "{}", path.display());
    }

    /// A line behind the others. Whether one that was cut off is there, the length tells.
    fn log(&mut self, round: u64) {
        let line = line_of(round);
        loop {
            match (&self.log).write(line.as_bytes()) {
                Ok(written) => {
                    assert_eq!(written, line.len());
                    break;
                }
                Err(error) if is_cut_off(&error) => {
                    eprintln!("append: {error}");
                    self.cut_off.set(self.cut_off.get() + 1);
                }
                Err(error) => panic!("append: {error}"),
            }
            let length = self.call("fstat", NEVER, || self.log.metadata()).map(|found| found.len());
            if length == Some(self.logged + line.len() as u64) {
                break;
            }
            assert_eq!(length, Some(self.logged), "part of a line");
        }
        self.logged += line.len() as u64;
    }

    fn check_names(&self, name: &str, absent: &[&Path]) {
        let list = || fs::read_dir(&self.directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
        let names = self.call("readdir", NEVER, list).unwrap_or_default();
        assert_eq!(names.iter().filter(|path| path.ends_with(name)).count(), 1, "{name} in {names:?}");
        let found = names.iter().find(|path| absent.contains(&path.as_path()));
        assert!(found.is_none(), "{found:?} is listed and was moved or removed");
    }
}
