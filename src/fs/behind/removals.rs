//! Names that were removed here and that the service still has: nobody here finds them, and nobody makes them again before
//! they are gone there too. Each is deleted in the version that was removed; another one stays, and shows itself again.

use std::{collections::HashMap, sync::Arc, time::Instant};

use super::{
    super::{
        Caller, Error, FileSystem, InodeNumber, Invalidation, Kind, Result,
        inode::{Fate, Inode},
    },
    Behind,
    queue::Debt,
    record::Entry,
};
use crate::{
    blob::{BlobName, Body, Condition, ETag, ErrorKind},
    sync::Mutex,
};

/// One name.
#[derive(Debug)]
pub(super) struct Removal {
    pub(super) chain: u64,
    pub(super) blob: BlobName,
    etag: ETag,
    /// The directory that it was in, which is held in the inode table.
    pub(super) parent: InodeNumber,
    name: Arc<str>,
    pub(super) since: Instant,
    /// Held by who deletes it: one at a time.
    turn: crate::sync::tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Names {
    by_directory: HashMap<InodeNumber, HashMap<Arc<str>, Arc<Removal>>>,
    /// Renames of directories under way: they move what the service has, so a name may not only seem to be gone.
    renames: usize,
}

/// All of a volume.
#[derive(Debug, Default)]
pub(super) struct Removals(Mutex<Names>);

/// While it lasts, no name is removed in the journal alone.
pub(in crate::fs) struct DirectoryRename<'volume>(Option<&'volume Removals>);

impl Drop for DirectoryRename<'_> {
    fn drop(&mut self) {
        if let Some(removals) = self.0 {
            removals.0.lock().renames -= 1;
        }
    }
}

impl Removals {
    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<Removal>> {
        self.0.lock().by_directory.values().flat_map(HashMap::values).cloned().collect()
    }

    fn find(&self, parent: InodeNumber, name: &str) -> Option<Arc<Removal>> {
        self.0.lock().by_directory.get(&parent)?.get(name).cloned()
    }

    fn has(&self, removal: &Removal) -> bool {
        self.find(removal.parent, &removal.name).is_some_and(|there| there.chain == removal.chain)
    }

    /// Puts one in, unless a directory is being renamed.
    fn insert(&self, removal: &Arc<Removal>) -> bool {
        let mut names = self.0.lock();
        if names.renames > 0 {
            return false;
        }
        let directory = names.by_directory.entry(removal.parent).or_default();
        directory.insert(Arc::clone(&removal.name), Arc::clone(removal));
        true
    }

    fn remove(&self, removal: &Removal) {
        let mut names = self.0.lock();
        let Some(directory) = names.by_directory.get_mut(&removal.parent) else { return };
        if directory.remove(&removal.name).is_none() {
            return;
        }
        if directory.is_empty() {
            names.by_directory.remove(&removal.parent);
        }
    }
}

/// The version that goes with a name, and the chain that is owed of it; `None`: its removal is for the service.
fn removable(inode: &Inode) -> Option<(ETag, Option<u64>)> {
    let state = inode.state.lock();
    let suits = inode.kind != Kind::Directory
        && state.fate == Fate::Linked
        && state.attempts.is_empty() // What may have been made is not known by its version.
        && state.staging.is_empty();
    let owed = state.owed.as_deref();
    let etag = match &state.base {
        Some(base) => Some(&base.properties).filter(|properties| !properties.leased).map(|found| found.etag.clone()),
        None => owed.and_then(|owed| owed.over.clone()),
    };
    Some((etag.filter(|_| suits)?, owed.map(|owed| owed.chain)))
}

impl FileSystem {
    /// Removes a file in the journal alone. `false`: the service must be asked, and nothing was done. The file's commit lock is
    /// held.
    pub(in crate::fs) fn owe_removal(self: &Arc<Self>, caller: &Caller, inode: &Arc<Inode>) -> bool {
        let Some(behind) = &self.behind else { return false };
        let Some((parent, name)) = self.table.place(inode.number) else { return false };
        let Ok(blob) = self.blob_name(inode) else { return false };
        let Some((etag, before)) = removable(inode) else { return false };
        let Some(chain) = behind.journal.admit(0, before) else { return false };
        let entry = Entry::Removed { chain, blob: blob.to_string(), etag: etag.0.to_string() };
        let turn = crate::sync::tokio::sync::Mutex::default();
        let removal = Arc::new(Removal { chain, blob, etag, parent, name, since: Instant::now(), turn });
        // The name goes here before the service is asked: where that refuses at once, it must not go after it came back.
        let Ok(turn) = removal.turn.try_lock() else { return false };
        if !behind.removals.insert(&removal) {
            return false;
        }
        // Not forced: as on any file system, it outlives the loss of power once the directory was synced.
        if let Err(error) = behind.journal.append(&entry, &Body::new(), Some(chain)) {
            tracing::debug!(%error, "a removal is not for the journal");
            behind.removals.remove(&removal);
            return false;
        }
        self.table.hold(parent, 1);
        self.release_owed(behind, inode);
        self.forget_name(Some(&caller.view), inode, Fate::Unlinked);
        drop(turn);
        if behind.queue.put_now(chain, Debt::Removal(removal)) {
            self.start_worker();
        }
        true
    }

    /// Whether a name was removed here and only the service has it still.
    pub(in crate::fs) fn is_removed(&self, parent: InodeNumber, name: &str) -> bool {
        self.behind.as_ref().is_some_and(|behind| behind.removals.find(parent, name).is_some())
    }

    /// Waits until a name that was removed here is gone at the service too.
    ///
    /// # Errors
    /// What the service says where another try can help. Where it can not, the name has shown itself again.
    pub(in crate::fs) async fn finish_removal(self: &Arc<Self>, parent: InodeNumber, name: &str) -> Result<()> {
        let Some(behind) = &self.behind else { return Ok(()) };
        let Some(removal) = behind.removals.find(parent, name) else { return Ok(()) };
        match self.send_removal(behind, &removal).await {
            Err(error) if !error.may_pass() => {
                behind.note_failure(removal.blob.to_string(), &error);
                Ok(())
            }
            other => other,
        }
    }

    /// Before a file without a version gets one: what was removed under its name must be gone.
    ///
    /// # Errors
    /// As [`Self::finish_removal`].
    pub(in crate::fs) async fn finish_removal_before(self: &Arc<Self>, inode: &Inode) -> Result<()> {
        if self.behind.is_none() || inode.state.lock().base.is_some() {
            return Ok(());
        }
        match self.table.place(inode.number) {
            Some((parent, name)) => self.finish_removal(parent, &name).await,
            None => Ok(()),
        }
    }

    /// One try to delete what was removed here.
    ///
    /// # Errors
    /// What the service says; ESTALE where another client has changed the blob.
    pub(super) async fn send_removal(self: &Arc<Self>, behind: &Behind, removal: &Arc<Removal>) -> Result<()> {
        let _one_at_a_time = removal.turn.lock().await;
        if !behind.removals.has(removal) {
            return Ok(());
        }
        let blob = &removal.blob;
        let error = match self.store.delete(blob, &Condition::Match(removal.etag.clone())).await {
            Ok(()) => None,
            Err(error) if error.kind == ErrorKind::NotFound => None,
            Err(error) => Some(Error::from_store(format!("cannot remove {blob}"), error)),
        };
        let Some(error) = error else {
            behind.queue.note_success();
            self.settle_removal(behind, removal, true);
            return Ok(());
        };
        if error.may_pass() {
            behind.report(blob.as_str(), &error);
            if behind.queue.put_back(removal.chain, Debt::Removal(Arc::clone(removal))) {
                self.start_worker();
            }
            return Err(error);
        }
        let fix = error.source.as_ref().and_then(|source| source.remedy());
        tracing::error!(%blob, fix, "what was removed shows itself again: {}", error.to_chain());
        self.settle_removal(behind, removal, false);
        Err(match error.kind() {
            Some(ErrorKind::Precondition) => {
                let message = format!("another client has changed {blob}; it was not removed");
                Error { errno: libc::ESTALE, message, ..error }
            }
            _ => error,
        })
    }

    fn settle_removal(&self, behind: &Behind, removal: &Removal, is_gone: bool) {
        let Removal { chain, parent, name, .. } = removal;
        let directory = self.table.get(*parent);
        let known = directory.as_ref().and_then(|directory| directory.directory.as_ref());
        if is_gone
            && let Some(known) = known
            && self.table.child(*parent, name).is_none()
        {
            known.remove_local(name); // A page that was asked for while the service had it says nothing.
        }
        behind.removals.remove(removal);
        if !is_gone {
            if let Some(known) = known {
                known.forget();
            }
            self.views.invalidate(None, &Invalidation::Entry(*parent, Arc::clone(name)));
        }
        behind.journal.settle(*chain);
        behind.queue.remove(*chain);
        self.table.release(*parent, 1);
    }

    /// From now on, and until what is returned is dropped, names are removed at the service.
    pub(in crate::fs) fn begin_directory_rename(&self) -> DirectoryRename<'_> {
        let removals = self.behind.as_ref().map(|behind| &behind.removals);
        if let Some(removals) = removals {
            removals.0.lock().renames += 1;
        }
        DirectoryRename(removals)
    }
}
