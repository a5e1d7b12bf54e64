//! What one kernel has open. At the end of a session the kernel may drop queued RELEASEs (DESIGN 10.13); whatever it has
//! not released is then released for it, so that no inode stays open for ever.

use std::collections::HashSet;

use futures::StreamExt;

use crate::{
    fs::{FileSystem, HandleId},
    sync::{Arc, Mutex},
};

/// Files released at once at the end of a session: each may have to wait for its commit.
const RELEASES_AT_ONCE: usize = 64;

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
    /// What a kernel had open when another process served it.
    pub(super) fn of((files, directories): (Vec<HandleId>, Vec<HandleId>)) -> Self {
        let state = State { files: files.into_iter().collect(), directories: directories.into_iter().collect() };
        Self { state: Mutex::new(state) }
    }

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
        let releases: Vec<_> = left.files.into_iter().map(|handle| fs.release(handle)).collect();
        let mut released = futures::stream::iter(releases).buffer_unordered(RELEASES_AT_ONCE);
        while let Some(outcome) = released.next().await {
            if let Err(error) = outcome {
                tracing::error!("releasing a file that was open at the end: {}", error.to_chain());
            }
        }
    }
}
