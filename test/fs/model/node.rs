//! One mounted volume, driven as a kernel drives it: a name is looked up component by component, an open that meets a new
//! version is tried again, and lookups are forgotten.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use azblob_csi::fs::{Access, Caller, HandleId, InodeNumber, ROOT, RenameMode, Result, SetAttr, Settings};

use crate::support::{
    service::Service,
    volume::{CREATE, READ, Volume},
};

/// Of a small node.
const MEMORY_BYTES: u64 = 64 << 20;

/// A volume whose names are always asked for, unless its settings say otherwise.
pub struct Node {
    volume: Arc<Volume>,
    looked_up: Mutex<Vec<InodeNumber>>,
}

impl Node {
    pub async fn mount(service: &Service) -> Self {
        let settings = Settings {
            metadata_ttl: std::time::Duration::ZERO,
            excl_strict: true,
            unlinks_waited: 0,
            ..Settings::default()
        };
        Self { volume: service.volume_with(settings).await, looked_up: Mutex::default() }
    }

    /// A volume that behaves as `settings` say, with its own files below `spool`.
    pub async fn mount_within(service: &Service, settings: Settings, spool: &Path) -> Self {
        let volume = service.volume_within(settings, MEMORY_BYTES, Some(spool.to_owned())).await;
        Self { volume, looked_up: Mutex::default() }
    }

    fn caller(&self) -> &Caller {
        &self.volume.caller
    }

    /// The directory and the last name of a path.
    async fn parent<'path>(&self, path: &'path str) -> Result<(InodeNumber, &'path str)> {
        match path.split_once('/') {
            None => Ok((ROOT, path)),
            Some((directory, name)) => Ok((self.find(ROOT, directory).await?, name)),
        }
    }

    /// One lookup.
    async fn find(&self, parent: InodeNumber, name: &str) -> Result<InodeNumber> {
        let number = self.volume.lookup_in(parent, name).await?.attr.number;
        self.looked_up.lock().unwrap().push(number);
        Ok(number)
    }

    /// Forgets the lookups of the steps before, as a kernel under memory pressure does it.
    pub fn forget(&self) {
        for number in self.looked_up.lock().unwrap().drain(..) {
            self.volume.fs.forget(&self.caller().view, number, 1);
        }
    }

    pub async fn create(&self, path: &str, exclusive: bool) -> Result<(InodeNumber, HandleId)> {
        let (parent, name) = self.parent(path).await?;
        let access = Access { exclusive, ..CREATE };
        if !exclusive && self.find(parent, name).await.is_ok() {
            return self.open(path, true).await;
        }
        let made = self.volume.fs.create_file(self.caller(), parent, name.as_ref(), 0o644, access).await?;
        self.looked_up.lock().unwrap().push(made.0.attr.number);
        Ok((made.0.attr.number, made.1))
    }

    pub async fn open(&self, path: &str, write: bool) -> Result<(InodeNumber, HandleId)> {
        let access = if write { CREATE } else { READ };
        let (parent, name) = self.parent(path).await?;
        let number = self.find(parent, name).await?;
        match self.volume.fs.open_file(self.caller(), number, access).await {
            Err(error) if error.errno == libc::ESTALE => {
                let number = self.find(parent, name).await?;
                Ok((number, self.volume.fs.open_file(self.caller(), number, access).await?))
            }
            other => Ok((number, other?)),
        }
    }

    pub async fn write(&self, handle: HandleId, offset: u64, data: &[u8]) -> Result<()> {
        let written = self.volume.fs.write(self.caller(), handle, offset, data).await?;
        assert_eq!(written as usize, data.len(), "a write is taken whole");
        Ok(())
    }

    pub async fn cut(&self, handle: HandleId, number: InodeNumber, size: u64) -> Result<()> {
        let change = SetAttr { size: Some(size), ..SetAttr::default() };
        self.volume.fs.setattr(self.caller(), number, Some(handle), change).await.map(drop)
    }

    pub async fn read(&self, handle: HandleId, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let wanted = (length - bytes.len()) as u32;
            let data = self.volume.fs.read(handle, offset + bytes.len() as u64, wanted).await?;
            if data.is_empty() {
                break;
            }
            data.with(|part| bytes.extend_from_slice(part));
        }
        Ok(bytes)
    }

    pub async fn sync(&self, handle: HandleId) -> Result<()> {
        self.volume.fs.sync_file(handle).await
    }

    pub async fn close(&self, handle: HandleId) -> Result<()> {
        let flushed = self.volume.fs.flush(handle).await;
        self.volume.fs.release(handle).await.ok();
        flushed
    }

    /// With the fsync of the directory: the Delete may be under way when unlink(2) returns.
    pub async fn unlink(&self, path: &str) -> Result<()> {
        let (parent, name) = self.parent(path).await?;
        self.find(parent, name).await?;
        self.volume.fs.unlink(self.caller(), parent, name.as_ref()).await?;
        self.volume.fs.sync_directory(parent).await
    }

    pub async fn rename(&self, from: &str, to: &str, no_replace: bool) -> Result<()> {
        let mode = if no_replace { RenameMode::NoReplace } else { RenameMode::Replace };
        let (parent, name) = self.parent(from).await?;
        let (new_parent, new_name) = self.parent(to).await?;
        let (name, new_name) = (name.as_ref(), new_name.as_ref());
        self.volume.fs.rename(self.caller(), (parent, name), (new_parent, new_name), mode).await
    }

    pub async fn make_directory(&self, path: &str) -> Result<()> {
        self.volume.fs.make_directory(self.caller(), ROOT, path.as_ref(), 0o755).await.map(|made| {
            self.looked_up.lock().unwrap().push(made.attr.number);
        })
    }

    pub async fn remove_directory(&self, path: &str) -> Result<()> {
        self.volume.fs.remove_directory(self.caller(), ROOT, path.as_ref()).await
    }

    pub async fn list(&self, directory: Option<&str>) -> Result<Vec<String>> {
        let number = match directory {
            Some(path) => self.find(ROOT, path).await?,
            None => ROOT,
        };
        Ok(self.volume.names_in(number).await)
    }

    /// The size of a file.
    pub async fn stat(&self, path: &str) -> Result<u64> {
        let (parent, name) = self.parent(path).await?;
        let found = self.volume.lookup_in(parent, name).await?.attr;
        self.looked_up.lock().unwrap().push(found.number);
        Ok(found.size)
    }

    pub async fn change_mode(&self, path: &str, mode: u32) -> Result<()> {
        let (parent, name) = self.parent(path).await?;
        let number = self.find(parent, name).await?;
        let change = SetAttr { mode: Some(mode), ..SetAttr::default() };
        self.volume.fs.setattr(self.caller(), number, None, change).await.map(drop)
    }

    /// All bytes of a file.
    pub async fn contents(&self, path: &str) -> Result<Vec<u8>> {
        let (_, handle) = self.open(path, false).await?;
        let bytes = self.read(handle, 0, 1 << 20).await;
        self.close(handle).await?;
        bytes
    }

    /// fsync(2) of the root: everything is on the service.
    pub async fn settle(&self) -> Result<()> {
        self.volume.fs.sync_directory(ROOT).await
    }

    /// The end of a session: everything that can be saved is.
    pub async fn flush(&self) {
        self.volume.fs.flush_all().await.ok();
    }
}
