//! A file of the volume as a file of the node's own disk: for the kernel, which then reads it without us.
//!
//! Only where no blob ever changes. Elsewhere an open inode may follow a blob that grew, or one's own commit, and a reader
//! of the copy would not.

use std::fs::File;

use super::{Consistency, FileSystem, HandleId};

impl FileSystem {
    /// Whether files of this volume may be read past us.
    #[must_use]
    pub fn has_local_copies(&self) -> bool {
        self.settings.consistency == Consistency::Immutable && self.cache().disk().is_some()
    }

    /// The bytes of an open file in a file of the node's disk, when all of them are there and right. Asks no service.
    pub async fn local_copy(&self, handle: HandleId) -> Option<File> {
        if !self.has_local_copies() {
            return None;
        }
        let handle = self.handles.file(handle).ok().filter(|handle| !handle.access.write)?;
        let base = handle.inode.state.lock().base.clone()?;
        self.cache().disk()?.whole(&base.content).await
    }
}
