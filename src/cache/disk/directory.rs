//! The directory of the tier while it is in use: its lock, the versions in it, the files that are open.
//!
//! Files are made, written, renamed and taken away by the writer alone (`writer.rs`); readers open and read them, and
//! tell the writer what is not to be believed. Every function here may wait for the disk, unless it says otherwise.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    num::NonZeroUsize,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lru::LruCache;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::sync::{Arc, AtomicBool, Mutex, Ordering};

use super::{
    super::registry::Key,
    file::{FileId, VersionFile, make_directory},
    table::Table,
};

/// Below the directory that we were given, so that nothing else in it is ever touched.
const NAME: &str = "blocks";

/// Versions whose files stay open: as many as a node reads at once (a guess), two descriptors each.
const OPEN_MAX: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// What a version's index takes at least: one block of most file systems.
pub(super) const INDEX_BYTES: u64 = 4096;

/// The directory, locked for this process.
pub(super) struct Directory {
    root: PathBuf,
    /// Held, not read: two processes must not evict each other's files behind their tables.
    _lock: Flock<File>,
    /// Short sections, no file is touched inside. Never taken together with `open`.
    pub(super) table: Mutex<Table>,
    open: Mutex<LruCache<FileId, Arc<VersionFile>>>,
    /// Whether the table has all that was there at the start.
    scanned: AtomicBool,
    /// Whether it was given up.
    closed: AtomicBool,
}

impl Directory {
    /// Makes the directory where it is missing, and locks it.
    ///
    /// # Errors
    /// What the disk says, or a sentence that names the process which has it.
    pub(super) fn open(parent: &Path) -> io::Result<Self> {
        let root = parent.join(NAME);
        make_directory(&root, true)?;
        // It may have been made by somebody whose umask was not ours.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700))?;
        let path = root.join("lock");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(file, errno)| match errno {
            Errno::EWOULDBLOCK => in_use(parent, file),
            errno => errno.into(),
        })?;
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self {
            root,
            _lock: lock,
            table: Mutex::default(),
            open: Mutex::new(LruCache::new(OPEN_MAX)),
            scanned: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        })
    }

    /// Finds what an earlier process left, one directory after the other. At most `count` versions are kept.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn scan(&self, count: usize) -> io::Result<()> {
        for shard in fs::read_dir(&self.root)? {
            let shard = shard?;
            if self.closed.load(Ordering::Relaxed) {
                return Ok(());
            }
            if shard.file_type()?.is_dir() {
                for entry in fs::read_dir(shard.path())? {
                    self.find(&entry?.path(), count)?;
                }
            }
        }
        self.scanned.store(true, Ordering::Release);
        Ok(())
    }

    fn find(&self, path: &Path, count: usize) -> io::Result<()> {
        let Some(id) = FileId::from_path(path) else { return Ok(()) };
        let of = |extension: &str| fs::symlink_metadata(id.path(&self.root, extension));
        match (of("data"), of("index")) {
            (Ok(data), Ok(index)) => {
                let bytes = (data.blocks() + index.blocks()) * 512;
                let mut table = self.table.lock();
                if table.len() < count || table.contains(id) {
                    table.found(id, bytes.max(INDEX_BYTES), u32::try_from(index.mtime()).unwrap_or(0));
                    return Ok(());
                }
            }
            // Half of a version: its making was cut off, or its removal. Not one that is being made right now.
            (data, index) => {
                let there = [data, index].into_iter().flatten().find_map(|found| found.modified().ok());
                if there.is_none_or(|time| time.elapsed().is_ok_and(|age| age < Duration::from_secs(60))) {
                    return Ok(());
                }
            }
        }
        id.remove(&self.root);
        Ok(())
    }

    /// Whether a version may be on disk. Never waits.
    pub(super) fn may_have(&self, id: FileId) -> bool {
        !self.scanned.load(Ordering::Acquire) || self.table.lock().contains(id)
    }

    /// Whether everything that was there at the start is known. Never waits.
    pub(super) fn is_scanned(&self) -> bool {
        self.scanned.load(Ordering::Acquire)
    }

    /// The files of a version, for a reader or the writer; `None` when they are not there or not to be believed.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn version(&self, id: FileId, key: &Key, length: u64) -> io::Result<Option<Arc<VersionFile>>> {
        if let Some(found) = self.open.lock().get(&id) {
            // A blob of the same version has the same length; who says otherwise is wrong about something.
            return Ok((found.length() == length).then(|| Arc::clone(found)));
        }
        let Some(file) = VersionFile::open(&self.root, id, key, length)?.map(Arc::new) else { return Ok(None) };
        self.open.lock().put(id, Arc::clone(&file));
        Ok(Some(file))
    }

    /// New files for a version. The writer's alone.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn create(&self, id: FileId, key: &Key, length: u64) -> io::Result<Option<Arc<VersionFile>>> {
        self.table.lock().remove(id);
        let Some(file) = VersionFile::create(&self.root, id, key, length)?.map(Arc::new) else { return Ok(None) };
        self.open.lock().put(id, Arc::clone(&file));
        self.table.lock().add(id, INDEX_BYTES, now_seconds());
        Ok(Some(file))
    }

    /// Takes a version away. The writer's alone. Returns the bytes that it had.
    pub(super) fn remove(&self, id: FileId) -> u64 {
        self.open.lock().pop(&id);
        let bytes = self.table.lock().remove(id);
        id.remove(&self.root);
        bytes
    }

    /// Version `from` becomes `to`; see [`VersionFile::become_version`]. The writer's alone.
    ///
    /// # Errors
    /// What the disk says; neither version is there then.
    pub(super) fn rename(&self, change: &Rename) -> io::Result<()> {
        let (from, to) = (FileId::of(&change.from), FileId::of(&change.to));
        if from == to || !self.may_have(from) {
            return Ok(());
        }
        let Some(file) = self.version(from, &change.from, change.from_length)? else { return Ok(()) };
        let bytes = {
            self.open.lock().pop(&from);
            self.open.lock().pop(&to);
            let mut table = self.table.lock();
            table.remove(to);
            table.remove(from)
        };
        let moved = file.become_version(&change.to, change.length, &change.unchanged).and_then(|()| {
            let path = to.path(&self.root, "data");
            if let Some(shard) = path.parent().filter(|shard| !shard.exists()) {
                make_directory(shard, false)?;
            }
            to.remove(&self.root);
            fs::rename(from.path(&self.root, "data"), path)?;
            fs::rename(from.path(&self.root, "index"), to.path(&self.root, "index"))
        });
        match moved {
            Ok(()) => self.table.lock().add(to, bytes, now_seconds()),
            Err(_) => [from, to].into_iter().for_each(|id| id.remove(&self.root)),
        }
        moved
    }

    /// Notes that a version was read, now and then on disk.
    pub(super) fn touch(&self, id: FileId, file: &VersionFile) {
        if self.table.lock().touch(id, now_seconds()) {
            // A time that is not written down costs a wrong order of eviction after a restart.
            let _ = file.index().set_modified(SystemTime::now());
        }
    }

    /// Room on the file system: bytes that are free, and all.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn room(&self) -> io::Result<(u64, u64)> {
        let stat = nix::sys::statvfs::statvfs(&self.root)?;
        Ok((stat.blocks_available() * stat.fragment_size(), stat.blocks() * stat.fragment_size()))
    }

    /// Where the bytes of a version are.
    pub(super) fn data_path(&self, id: FileId) -> PathBuf {
        id.path(&self.root, "data")
    }

    /// Nobody is to work on it any more (a scan that is under way ends).
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

/// A version that goes on as another one.
#[derive(Debug)]
pub(in super::super) struct Rename {
    pub(in super::super) from: Key,
    pub(in super::super) from_length: u64,
    pub(in super::super) to: Key,
    pub(in super::super) length: u64,
    /// Bytes that are equal at equal offsets in both.
    pub(in super::super) unchanged: Vec<std::ops::Range<u64>>,
}

fn in_use(parent: &Path, mut file: File) -> io::Error {
    let mut text = String::new();
    let _ = file.read_to_string(&mut text);
    let holder = text.trim().parse::<u32>().map_or_else(|_| "another process".to_owned(), |id| format!("process {id}"));
    let text = format!("{holder} uses {} as its cache directory: each process needs one of its own", parent.display());
    io::Error::new(io::ErrorKind::ResourceBusy, text)
}

/// Seconds since the epoch.
pub(super) fn now_seconds() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}
