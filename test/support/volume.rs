//! A volume without FUSE: the file system core on the service, driven by its own calls as the kernel would.

use std::{path::PathBuf, sync::Arc};

use azblob_csi::{
    cache::{Cache, CacheOptions},
    fs::{
        Access, Caller, Entry, FileSystem, HandleId, InodeNumber, ROOT, ReadData, Resources, Result, Settings,
        ViewSettings,
    },
};
use tokio::runtime::Handle;

use super::service::Service;

/// The kernel asks for no more at a time (fs.fuse.max_pages_limit), so neither do we.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Names asked for at a time when listing.
const LISTING_STEP: usize = 128;
/// Small enough that a test of 30 MiB meets its limits.
const MEMORY_BYTES: u64 = 64 << 20;

/// Opens a file to read and write it, making it if need be.
pub const CREATE: Access =
    Access { read: true, write: true, append: false, truncate: false, exclusive: false, synchronous: false };
/// Opens a file to read it.
pub const READ: Access = Access { write: false, ..CREATE };
/// Makes a file that must not exist.
pub const EXCLUSIVE: Access = Access { exclusive: true, ..CREATE };
/// Makes a file or empties it.
const REPLACE: Access = Access { truncate: true, ..CREATE };

/// A volume with one view.
pub struct Volume {
    /// The core.
    pub fs: Arc<FileSystem>,
    /// Root, through the volume's view.
    pub caller: Caller,
}

impl Service {
    /// Opens the container as a volume, as another node would: nothing is shared with other volumes.
    pub async fn volume(&self) -> Arc<Volume> {
        self.volume_with(Settings::default()).await
    }

    /// Opens the container as a volume that behaves as `settings` say.
    pub async fn volume_with(&self, settings: Settings) -> Arc<Volume> {
        self.volume_within(settings, MEMORY_BYTES, Some(std::env::temp_dir())).await
    }

    /// Opens the container as a volume with so much memory, and a directory for dirty bytes beyond it.
    pub async fn volume_within(&self, settings: Settings, memory_bytes: u64, spool: Option<PathBuf>) -> Arc<Volume> {
        self.volume_sharing(settings, resources(memory_bytes, spool)).await
    }

    /// Opens the container as a volume that shares memory and spool with others of the process.
    pub async fn volume_sharing(&self, settings: Settings, resources: Arc<Resources>) -> Arc<Volume> {
        let fs = FileSystem::open(self.store_with(settings.limits), resources, settings).await.unwrap();
        Arc::new(Volume::over(fs))
    }
}

/// What the volumes of one process share.
pub fn resources(memory_bytes: u64, spool: Option<PathBuf>) -> Arc<Resources> {
    let runtime = Handle::current();
    let cache = Cache::new(CacheOptions { memory_bytes, ..CacheOptions::default() }, runtime.clone());
    Arc::new(Resources { cache, spool, runtime })
}

impl Volume {
    fn over(fs: Arc<FileSystem>) -> Self {
        let caller =
            Caller { view: fs.add_view(ViewSettings::default()), uid: 0, gid: 0, pid: std::process::id(), request: 0 };
        Self { fs, caller }
    }

    /// The same volume through another view.
    pub fn second_view(&self) -> Self {
        Self::over(Arc::clone(&self.fs))
    }

    /// Looks a name up in the root.
    pub async fn lookup(&self, name: &str) -> Result<Entry> {
        self.lookup_in(ROOT, name).await
    }

    /// Looks a name up in a directory.
    pub async fn lookup_in(&self, parent: InodeNumber, name: &str) -> Result<Entry> {
        self.fs.lookup(&self.caller, parent, name.as_ref()).await
    }

    /// Makes a directory.
    pub async fn make_directory(&self, parent: InodeNumber, name: &str) -> InodeNumber {
        self.fs.make_directory(&self.caller, parent, name.as_ref(), 0o755).await.unwrap().attr.number
    }

    /// Makes a file in the root, or opens it.
    pub async fn create(&self, name: &str, access: Access) -> Result<(InodeNumber, HandleId)> {
        self.create_in(ROOT, name, access).await
    }

    /// Makes a file, or opens it.
    pub async fn create_in(&self, parent: InodeNumber, name: &str, access: Access) -> Result<(InodeNumber, HandleId)> {
        let made = self.fs.create_file(&self.caller, parent, name.as_ref(), 0o644, access).await?;
        Ok((made.0.attr.number, made.1))
    }

    /// Opens a file of the root. As the kernel does, it looks the name up again when the version has changed.
    pub async fn open(&self, name: &str, access: Access) -> Result<HandleId> {
        let number = self.lookup(name).await?.attr.number;
        match self.fs.open_file(&self.caller, number, access).await {
            Err(error) if error.errno == libc::ESTALE => {
                let number = self.lookup(name).await?.attr.number;
                self.fs.open_file(&self.caller, number, access).await
            }
            other => other,
        }
    }

    /// Writes all of `data`.
    pub async fn write(&self, handle: HandleId, offset: u64, data: &[u8]) {
        for (index, part) in data.chunks(REQUEST_BYTES_MAX).enumerate() {
            let at = offset + (index * REQUEST_BYTES_MAX) as u64;
            let written = self.fs.write(&self.caller, handle, at, part).await.unwrap();
            assert_eq!(written as usize, part.len(), "a write is taken whole");
        }
    }

    /// Up to `length` bytes; fewer only at the end of the file.
    pub async fn read(&self, handle: HandleId, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let wanted = (length - bytes.len()).min(REQUEST_BYTES_MAX) as u32;
            let data = self.fs.read(handle, offset + bytes.len() as u64, wanted).await.unwrap();
            if data.is_empty() {
                break;
            }
            data.with(|part| bytes.extend_from_slice(part));
        }
        bytes
    }

    /// close(2), and the last of a handle.
    pub async fn close(&self, handle: HandleId) -> Result<()> {
        let flushed = self.fs.flush(handle).await;
        self.fs.release(handle).await.ok();
        flushed
    }

    /// All bytes of a file of the root.
    pub async fn read_file(&self, name: &str) -> Vec<u8> {
        let handle = self.open(name, READ).await.unwrap();
        let mut bytes = Vec::new();
        loop {
            let data: ReadData = self.fs.read(handle, bytes.len() as u64, REQUEST_BYTES_MAX as u32).await.unwrap();
            if data.is_empty() {
                break;
            }
            data.with(|part| bytes.extend_from_slice(part));
        }
        self.close(handle).await.unwrap();
        bytes
    }

    /// Makes or replaces a file of the root.
    pub async fn write_file(&self, name: &str, bytes: &[u8]) {
        self.write_in(ROOT, name, bytes).await;
    }

    /// Makes or replaces a file.
    pub async fn write_in(&self, parent: InodeNumber, name: &str, bytes: &[u8]) {
        let (_, handle) = self.create_in(parent, name, REPLACE).await.unwrap();
        self.write(handle, 0, bytes).await;
        self.close(handle).await.unwrap();
    }

    /// The names in a directory, without `.` and `..`, in the order in which they come.
    pub async fn names_in(&self, directory: InodeNumber) -> Vec<String> {
        let handle = self.fs.open_directory(&self.caller.view, directory).unwrap();
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            let entries = self.fs.read_directory(handle, offset, LISTING_STEP).await.unwrap();
            let Some(last) = entries.last() else { break };
            offset = last.next_offset;
            names.extend(entries.iter().map(|entry| entry.name.to_string()).filter(|name| name != "." && name != ".."));
        }
        self.fs.close_directory(handle);
        names
    }
}
