//! A whole version as a file, for who reads it without us.
//!
//! Whoever reads the file itself checks nothing, so all of it is checked before it is given away. That takes a while for
//! large versions: they are given away at the first occasion after that.

use std::fs::File;

use crate::sync::{Arc, Ordering, tokio::task::spawn_blocking};

use super::{
    super::content::Content,
    DiskTier, Inner,
    file::{FileId, VersionFile},
};

/// Versions of up to so many bytes are checked while somebody waits: some milliseconds. The others behind his back.
const CHECKED_AT_ONCE_BYTES_MAX: u64 = 8 << 20;

impl DiskTier {
    /// The bytes of a content as a file of just its length, when all of them are on disk and were found to be right.
    /// `None` also while that is being found out. The file stays as it is when the version is evicted.
    pub async fn whole(&self, content: &Content) -> Option<File> {
        let (key, directory) = (content.key()?, self.inner.directory()?);
        let (id, length) = (FileId::of(&key), content.length());
        // A version has at least as many bytes on disk as it is long, when nothing is missing.
        if length == 0 || directory.table.lock().bytes_of(id) < length {
            return None;
        }
        let permit = Arc::clone(&self.inner.reads).acquire_owned().await.ok()?;
        let inner = Arc::clone(&self.inner);
        let found = spawn_blocking(move || {
            let file = directory.version(id, &key, length).ok()??;
            if file.is_verified() || length <= CHECKED_AT_ONCE_BYTES_MAX && inner.is_right(&file) {
                directory.touch(id, &file);
                return file.data().try_clone().ok();
            }
            if length > CHECKED_AT_ONCE_BYTES_MAX && file.begin_verifying() {
                let checking = inner.runtime.clone();
                drop(checking.spawn_blocking(move || {
                    let _permit = permit;
                    inner.is_right(&file)
                }));
            }
            None
        });
        found.await.ok().flatten()
    }
}

impl DiskTier {
    /// Bytes of a content that are on disk.
    pub async fn kept_bytes(&self, content: &Content) -> u64 {
        let Some((key, directory)) = content.key().zip(self.inner.directory()) else { return 0 };
        let (id, length) = (FileId::of(&key), content.length());
        if !directory.may_have(id) {
            return 0;
        }
        let Ok(permit) = Arc::clone(&self.inner.reads).acquire_owned().await else { return 0 };
        let counted = spawn_blocking(move || {
            let _permit = permit;
            directory.version(id, &key, length).ok()??.kept_bytes().ok()
        });
        counted.await.ok().flatten().unwrap_or(0)
    }
}

impl Inner {
    fn is_right(&self, file: &VersionFile) -> bool {
        match file.verify() {
            Ok(None) => return true,
            Ok(Some(wrong)) => {
                self.counters.corrupt_pieces.fetch_add(wrong, Ordering::Relaxed);
            }
            Err(error) => {
                self.counters.errors.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%error, "a version in the cache directory cannot be read");
            }
        }
        // It may be mended, and is then checked again.
        file.end_verifying();
        false
    }
}
