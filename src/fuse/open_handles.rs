//! What one kernel has open. At the end of a session the kernel may drop queued RELEASEs (DESIGN 10.13); whatever it has
//! not released is then released for it, so that no inode stays open for ever.

use std::collections::HashSet;

use crate::{
    fs::{FileSystem, HandleId},
    sync::{Arc, Mutex},
};

/// The handles of one session.
#[derive(Debug, Default)]
pub(super) struct OpenHandles {
    /// Short sections, nothing awaits inside.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: HashSet<HandleId>,
    directories: HashSet<HandleId>,
}

impl OpenHandles {
    pub(super) fn add_file(&self, handle: HandleId) {
        self.state.lock().files.insert(handle);
    }

    pub(super) fn add_directory(&self, handle: HandleId) {
        self.state.lock().directories.insert(handle);
    }

    pub(super) fn remove_file(&self, handle: HandleId) {
        self.state.lock().files.remove(&handle);
    }

    pub(super) fn remove_directory(&self, handle: HandleId) {
        self.state.lock().directories.remove(&handle);
    }

    /// Releases everything that is still open; no request may come any more.
    pub(super) async fn release_all(&self, fs: &Arc<FileSystem>) {
        let left = std::mem::take(&mut *self.state.lock());
        for handle in left.directories {
            fs.close_directory(handle);
        }
        for handle in left.files {
            if let Err(error) = fs.release(handle).await {
                tracing::error!("releasing a file that was open at the end: {}", error.to_chain());
            }
        }
    }
}
