//! `azblob-csi warmup`: reads files of a mounted volume, many at once, so that they are in the cache directory of whoever
//! serves the mount. Knows nothing of that process but two things of its files: reading one fills the cache, and
//! `user.azblob.cached` says how much of one is there already.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, BufRead, BufReader, IsTerminal as _, Read as _},
    os::{
        fd::AsRawFd as _,
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Failure;

const EXAMPLES: &str = "\
Examples:
  azblob-csi warmup /mnt/models
  azblob-csi warmup /mnt/data/train /mnt/data/labels.csv --jobs 16
  find /mnt/logs -name '*.parquet' | azblob-csi warmup --from -

Started again after it was stopped, it goes on where it was: what is on the disk is not read again. It reads no more than the
cache directory takes: behind a disk that is slower than the link it waits.
";

/// What is read with one call, and may wait to be written to disk before its reader waits as well.
const READ_BYTES: usize = 4 << 20;

/// Between two looks whether the disk has caught up.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How long the disk may take nothing until a reader no longer waits for it: the cache directory is full, or its size is.
const STANDSTILL_MAX: Duration = Duration::from_secs(3);

/// Between two lines where no terminal shows a bar.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Paths found and not yet taken by a reader.
const FOUND_MAX: usize = 1024;

/// Fill the cache directory of a mount with files, before programs read them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Files and directories inside of mounted volumes; directories with everything below them.
    #[arg(required_unless_present = "from")]
    paths: Vec<PathBuf>,
    /// A file with one more path a line; - is the standard input.
    #[arg(long, value_name = "LIST")]
    from: Option<PathBuf>,
    /// Files read at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
}

/// What has been done so far.
#[derive(Default)]
struct Done {
    files: AtomicU64,
    read_bytes: AtomicU64,
    /// Files that were in the cache directory already.
    there: AtomicU64,
    /// Files that were read and are not wholly on disk.
    not_kept: AtomicU64,
    failed: AtomicU64,
}

/// Reads everything.
///
/// # Errors
/// [`Failure`] when something could not be read, or no list is there; the rest is read nevertheless.
pub fn run(args: Args) -> Result<(), Failure> {
    let list: Option<Box<dyn BufRead + Send>> = match &args.from {
        None => None,
        Some(path) if path.as_os_str() == "-" => Some(Box::new(BufReader::new(io::stdin()))),
        Some(path) => {
            let cannot = |error| Failure::new(format!("cannot read {}: {error}", path.display()));
            Some(Box::new(BufReader::new(File::open(path).map_err(cannot)?)))
        }
    };
    let (done, bar) = (Done::default(), progress_bar());
    let (found, taken) = mpsc::sync_channel(FOUND_MAX);
    let taken = Mutex::new(taken);
    let (over, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let (done, bar, taken) = (&done, &bar, &taken);
        scope.spawn(move || {
            let walker = Walker { found, done, bar };
            args.paths.into_iter().for_each(|path| walker.walk(path));
            list.into_iter().for_each(|list| walker.walk_list(list));
        });
        for _ in 0..args.jobs {
            let over = over.clone();
            scope.spawn(move || {
                read_all(taken, done, bar);
                drop(over);
            });
        }
        drop(over);
        while bar.is_hidden() && ended.recv_timeout(LINE_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{}", done.line());
        }
    });
    bar.finish_and_clear();
    eprintln!("{}", done.line());
    match done.failed.into_inner() {
        0 => Ok(()),
        failed => Err(Failure::new(format!("{failed} files or directories could not be read"))),
    }
}

fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let template = "{bar:30} {bytes} of {total_bytes} ({bytes_per_sec}, {eta} left) {msg}";
    // A template that does not parse shows the usual bar.
    match ProgressStyle::with_template(template) {
        Ok(style) if io::stderr().is_terminal() => bar.with_style(style),
        _ => bar,
    }
}

impl Done {
    fn line(&self) -> String {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut line = format!(
            "{} files, {} read, {} files were there",
            of(&self.files),
            HumanBytes(of(&self.read_bytes)),
            of(&self.there)
        );
        if of(&self.not_kept) > 0 {
            line.push_str(&format!(
                ", {} files are not wholly in a cache directory (there is none, or it is full or slow: --cache-dir, --cache-size)",
                of(&self.not_kept)
            ));
        }
        line
    }

    fn fail(&self, path: &Path, error: &io::Error) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        eprintln!("azblob-csi: {}: {error}", path.display());
    }
}

/// A file to be read.
struct Found {
    path: PathBuf,
    length: u64,
}

/// Finds files, no faster than they are read.
struct Walker<'a> {
    found: SyncSender<Found>,
    done: &'a Done,
    bar: &'a ProgressBar,
}

impl Walker<'_> {
    fn walk_list(&self, mut list: Box<dyn BufRead + Send>) {
        let mut line = Vec::new();
        loop {
            line.clear();
            match list.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => {
                    let name = line.strip_suffix(b"\n").unwrap_or(&line);
                    if !name.is_empty() {
                        self.walk(PathBuf::from(std::ffi::OsString::from_vec(name.to_vec())));
                    }
                }
                Err(error) => return self.done.fail(Path::new("the list"), &error),
            }
        }
    }

    fn walk(&self, path: PathBuf) {
        let (named, mut left) = (path.clone(), vec![path]);
        while let Some(path) = left.pop() {
            // Links are not followed below what was named: what they lead to is found under its own name.
            let kind = if path == named { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
            match kind {
                Ok(kind) if kind.is_dir() => {
                    match fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
                        Ok(entries) => left.extend(entries.into_iter().rev().map(|entry| entry.path())),
                        Err(error) => self.done.fail(&path, &error),
                    }
                }
                Ok(kind) if kind.is_file() => {
                    self.bar.inc_length(kind.len());
                    if self.found.send(Found { path, length: kind.len() }).is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(error) => self.done.fail(&path, &error),
            }
        }
    }
}

fn read_all(taken: &Mutex<Receiver<Found>>, done: &Done, bar: &ProgressBar) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        // Whoever panics with the lock held has taken nothing.
        let next = taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
        let Ok(Found { path, length }) = next else { return };
        if let Err(error) = read_file(&path, length, &mut buffer, done, bar) {
            done.fail(&path, &error);
        }
        done.files.fetch_add(1, Ordering::Relaxed);
    }
}

fn read_file(path: &Path, length: u64, buffer: &mut [u8], done: &Done, bar: &ProgressBar) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    // Before it is opened: that brings the first bytes along, all of a small file.
    let kept = kept_bytes(path);
    if kept == Some(length) {
        done.there.fetch_add(1, Ordering::Relaxed);
        bar.inc(length);
        return Ok(());
    }
    let mut file = File::open(path)?;
    let mut disk = kept.map(|kept| Disk { kept, since: Instant::now(), stands: false });
    let mut at = 0;
    loop {
        let read = file.read(buffer)? as u64;
        if read == 0 {
            break;
        }
        at += read;
        done.read_bytes.fetch_add(read, Ordering::Relaxed);
        bar.inc(read);
        // Memory is not what is to be filled.
        // SAFETY: advice on a descriptor that is open; no memory is involved.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        if let Some(disk) = &mut disk {
            disk.wait(path, at.saturating_sub(READ_BYTES as u64));
        }
    }
    let whole = disk.is_some_and(|mut disk| disk.wait(path, at));
    if at > 0 && !whole {
        done.not_kept.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// How much of a file is on disk, as far as was seen.
struct Disk {
    kept: u64,
    since: Instant,
    /// It takes no more: nobody waits again.
    stands: bool,
}

impl Disk {
    /// Waits until so many bytes are on disk; false when it takes no more.
    fn wait(&mut self, path: &Path, wanted: u64) -> bool {
        self.since = Instant::now();
        while self.kept < wanted && !self.stands {
            let kept = kept_bytes(path).unwrap_or(0);
            if kept > self.kept {
                (self.kept, self.since) = (kept, Instant::now());
            } else {
                self.stands = self.since.elapsed() > STANDSTILL_MAX;
                thread::sleep(LOOK_INTERVAL);
            }
        }
        self.kept >= wanted
    }
}

/// How many bytes of a file are in the cache directory; `None` where there is no such directory.
fn kept_bytes(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut value = [0_u8; 32];
    let name = c"user.azblob.cached";
    // SAFETY: path and name end with NUL, and the value has the length that is told.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    let text = value.get(..usize::try_from(length).ok()?)?;
    std::str::from_utf8(text).ok()?.parse().ok()
}
