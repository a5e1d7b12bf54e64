//! Names that change in the journal alone. A file that the service has never had gets its new name there, and is sent under
//! that one.

use std::{sync::Arc, time::SystemTime};

use super::{
    super::{
        FileSystem, InodeNumber, Kind, RenameMode, Result,
        commit::write_options,
        inode::{Carried, Fate, Inode},
        lookup::Held,
        overlay::Overlay,
    },
    put_of,
    record::{Entry, Expected},
};
use crate::blob::{BlobKind, BlobName, Body, Condition, ETag};

/// A file that only the journal has.
struct Unsent {
    chain: u64,
    layer: Arc<Overlay>,
    carried: Carried,
}

/// What a file that only the journal has is made of; `None` for any other.
fn unsent(inode: &Inode) -> Option<Unsent> {
    let state = inode.state.lock();
    let owed = state.owed.as_ref()?;
    let layer = state.committing.as_ref()?;
    let suits = inode.kind == Kind::File
        && state.fate == Fate::Linked
        && state.base.is_none()
        && !owed.replaces() // Its old name would have to be removed.
        && state.overlay.is_none()
        && state.staging.is_empty()
        && state.attempts.is_empty() // The service may have it under the old name.
        && state.refusal.as_ref().is_none_or(|refusal| refusal.may_pass);
    let mut carried = state.carried_now();
    carried.attributes.ctime = Some(SystemTime::now());
    suits.then(|| Unsent { chain: owed.chain, layer: Arc::clone(layer), carried })
}

/// What the service has under the name of a file that is to be replaced; the outer `None`: that can not be told.
fn version_of(inode: &Inode) -> Option<Option<ETag>> {
    let state = inode.state.lock();
    if state.fate != Fate::Linked || !state.attempts.is_empty() || !state.staging.is_empty() {
        return None;
    }
    match &state.base {
        // Another kind of blob cannot be overwritten, and a leased one says so now.
        Some(base) if base.properties.kind == BlobKind::Block && !base.properties.leased => {
            Some(Some(base.properties.etag.clone()))
        }
        Some(_) => None,
        None => Some(state.owed.as_ref().and_then(|owed| owed.over.clone())),
    }
}

impl FileSystem {
    /// Gives a file that only the journal has its new name there; the caller does the same in the table, and nothing else in
    /// between. `false`: the service must be asked. Both files' commit locks are held.
    ///
    /// # Errors
    /// What keeping an open target readable says.
    pub(in crate::fs) async fn owe_rename(
        self: &Arc<Self>,
        source: &Arc<Inode>,
        target: Option<&Held>,
        (parent, to): (InodeNumber, &BlobName),
        mode: RenameMode,
    ) -> Result<bool> {
        let Some(behind) = &self.behind else { return Ok(false) };
        let Some(Unsent { chain, layer, carried }) = unsent(source) else { return Ok(false) };
        if mode == RenameMode::NoReplace && !self.table.get(parent).is_some_and(|parent| self.judges_names_in(&parent))
        {
            return Ok(false);
        }
        if let Some(target) = target {
            self.preserve(&target.inode).await?;
        }
        let over = match target {
            Some(target) => match version_of(&target.inode) {
                Some(over) => over,
                None => return Ok(false),
            },
            None => None,
        };
        let body: Body = self.body_of(&layer, None, 0..layer.size()).await?;
        let mut options = write_options(source, None, &carried);
        options.condition = over.clone().map_or(Condition::Absent, Condition::Match);
        let Some(expected) = Expected::of(&options.condition) else { return Ok(false) };
        let put = put_of(chain, to, expected, options, &body);
        let ends = target.and_then(|target| target.inode.state.lock().owed.as_ref().map(|owed| owed.chain));
        if behind.journal.admit(0, Some(chain)).is_none() {
            return Ok(false);
        }
        // Not forced: as on any file system, a rename outlives the loss of power once its directory was synced.
        let kept = behind.journal.append(&Entry::Moved { put, ends }, &Body::new(), Some(chain));
        if let Err(error) = kept {
            tracing::debug!(%error, "a new name is not for the journal");
            return Ok(false);
        }
        let mut state = source.state.lock();
        state.attributes.ctime = carried.attributes.ctime;
        if let Some(owed) = &mut state.owed {
            (owed.carried, owed.over) = (carried, over);
        }
        Ok(true)
    }
}
