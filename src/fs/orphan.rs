//! Orphans: hidden copies of large files whose name went while they were open. `.azblob/orphan/<owner>/<id>` below the
//! volume's root; never listed. The owner is one mount of one volume, and says once a day that it lives, by touching
//! what it still needs. So what nobody has touched for a week belongs to a process that is gone, and is deleted by
//! whoever looks.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use super::{
    Error, FileSystem, Result,
    inode::{Base, Inode},
    name::RESERVED,
};
use crate::blob::{BlobName, BlobProperties, Condition, CopyOptions, ErrorKind, ListEntry, ListRequest};

/// First look after a mount: soon, and not among the requests that mounting takes.
const SWEEP_FIRST: Duration = Duration::from_secs(5 * 60);
/// Between two looks, and so between two touches of what is in use.
const SWEEP_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Age from which an orphan of somebody else has no owner any more: seven touches were missed.
const ABANDONED_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// A name for this mount of this volume that no other has; with the machine's, for people.
pub(super) fn new_owner() -> String {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let usual = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.');
    let machine: String = machine.chars().filter(usual).take(63).collect();
    format!("{machine}-{}", uuid::Uuid::new_v4().simple())
}

impl FileSystem {
    /// Copies the blob of an open file, whose name is about to go, to a hidden name, where its handles go on reading it.
    pub(super) async fn orphan(&self, inode: &Inode, base: &Base) -> Result<()> {
        let blob = self.blob_name(inode)?;
        let orphan =
            self.name_at(&format!("{RESERVED}/orphan/{}/{}", self.orphan_owner, uuid::Uuid::new_v4().simple()))?;
        let absent = CopyOptions::under(Condition::Absent);
        let copied = self.store.copy(&blob, &base.properties.etag, &orphan, &absent).await;
        let committed =
            copied.map_err(|error| Error::from_store(format!("cannot keep {blob}, which is open"), error))?;
        base.content.repoint(orphan.clone(), committed.etag);
        inode.state.lock().orphan = Some(orphan);
        Ok(())
    }

    /// Looks after orphans soon and then daily, as long as the volume lives.
    pub(super) fn sweep_regularly(self: &Arc<Self>) {
        if self.settings.read_only {
            return;
        }
        let volume = Arc::downgrade(self);
        self.resources.runtime.spawn(async move {
            let mut pause = SWEEP_FIRST;
            loop {
                crate::sync::tokio::time::sleep(pause).await;
                let Some(volume) = Weak::upgrade(&volume) else { return };
                match volume.sweep_orphans(SystemTime::now()).await {
                    Ok(0) => {}
                    Ok(deleted) => tracing::info!(deleted, "hidden copies that nobody needs any more are gone"),
                    Err(error) => tracing::warn!("hidden copies are looked at again tomorrow: {}", error.to_chain()),
                }
                pause = SWEEP_EVERY;
            }
        });
    }

    /// Touches the orphans that this mount needs, and deletes those that nobody does: our own leftovers, and what was not
    /// touched for a week before `now`. Returns how many it deleted.
    ///
    /// # Errors
    /// What the service says to the listing. A single orphan that cannot be touched or deleted is logged.
    pub async fn sweep_orphans(self: &Arc<Self>, now: SystemTime) -> Result<u64> {
        let in_use = self.orphans_in_use();
        let prefix = format!("{}{RESERVED}/orphan/", self.settings.prefix);
        let (mut deleted, mut marker) = (0, None);
        loop {
            let request = ListRequest { prefix: prefix.clone(), delimited: false, marker, max_results: None };
            let page = self.store.list(&request).await;
            let page = page.map_err(|error| Error::from_store(format!("cannot list {prefix:?}"), error))?;
            for entry in page.entries {
                let ListEntry::Blob(name, properties) = entry else { continue };
                let age = now.duration_since(properties.last_modified).unwrap_or_default();
                let owner = name.as_str().strip_prefix(&prefix).and_then(|rest| rest.split('/').next());
                let is_own = owner == Some(self.orphan_owner.as_str());
                match in_use.get(&name) {
                    Some(inode) if age >= SWEEP_EVERY => self.touch_orphan(inode, &name, &properties).await,
                    Some(_) => {}
                    // A day: the copy of an unlink that is under way is not known yet.
                    None if age >= ABANDONED_AFTER || (is_own && age >= SWEEP_EVERY) => {
                        deleted += u64::from(self.delete_orphan(&name, &properties).await);
                    }
                    None => {}
                }
            }
            match page.next_marker {
                Some(next) => marker = Some(next),
                None => return Ok(deleted),
            }
        }
    }

    fn orphans_in_use(&self) -> HashMap<BlobName, Arc<Inode>> {
        let orphan = |inode: Arc<Inode>| {
            let name = inode.state.lock().orphan.clone();
            name.map(|name| (name, inode))
        };
        self.table.all().into_iter().filter_map(orphan).collect()
    }

    /// A new Last-Modified under a new ETag; the bytes stay.
    async fn touch_orphan(&self, inode: &Inode, name: &BlobName, properties: &BlobProperties) {
        let condition = Condition::Match(properties.etag.clone());
        match self.store.set_metadata(name, &properties.metadata, &condition).await {
            Ok(committed) => {
                let base = inode.state.lock().base.clone();
                if let Some(base) = base {
                    base.content.repoint(name.clone(), committed.etag);
                }
            }
            Err(error) => tracing::warn!(%error, "a hidden copy that is in use cannot be touched"),
        }
    }

    async fn delete_orphan(&self, name: &BlobName, properties: &BlobProperties) -> bool {
        match self.store.delete(name, &Condition::Match(properties.etag.clone())).await {
            Ok(()) => true,
            // Touched or deleted by somebody else since it was listed.
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Precondition) => false,
            Err(error) => {
                tracing::warn!(%error, "a hidden copy that nobody needs stays");
                false
            }
        }
    }
}
