//! Appends that nobody synchronises: others see a log while it is being written.
//!
//! A program that logs writes a line and neither closes nor synchronises; without this nobody elsewhere would see a byte
//! of its log before it rotates. So what was appended (O_APPEND) is saved once it is `append-age` old, as a local disk
//! writes back what is old (vm.dirty_expire_centisecs). A file that is written in any other way shows itself whole, at
//! its close or fsync: half a file must not look like one. A timer runs only while something is unsaved.

use std::sync::Arc;

use super::{
    FileSystem,
    inode::{Fate, Inode},
};

impl FileSystem {
    /// Has what was appended to an inode saved when it is old enough. A failure is told by the next fsync or close.
    pub(super) fn save_by_age(self: &Arc<Self>, inode: &Arc<Inode>) {
        let age = self.settings.append_age;
        if age.is_zero() || std::mem::replace(&mut inode.state.lock().is_aging, true) {
            return;
        }
        let (volume, inode) = (Arc::downgrade(self), Arc::downgrade(inode));
        self.resources.runtime.spawn(async move {
            crate::sync::tokio::time::sleep(age).await;
            // A file that is closed meanwhile is saved or set aside by that.
            let (Some(volume), Some(inode)) = (volume.upgrade(), inode.upgrade()) else { return };
            let unsaved = {
                let mut state = inode.state.lock();
                state.is_aging = false;
                state.overlay.is_some() && state.fate == Fate::Linked
            };
            if unsaved && let Err(error) = volume.commit_unheard(&inode).await {
                tracing::warn!(inode = inode.number.0, "appended and not saved yet: {}", error.to_chain());
            }
        });
    }
}
