//! Commits of attributes alone: Set Metadata, which moves the ETag and not a byte.

use std::{sync::Arc, time::Instant};

use super::{
    super::{
        Error, FileSystem, Kind, Result,
        inode::{Base, Carried, Inode},
    },
    ADOPTIONS_MAX, write_options,
};
use crate::blob::{BlobName, BlobProperties, Body, Committed, Condition, ErrorKind, Metadata};

/// Requests without an answer that are kept; each took a process with it, or a whole deadline.
const SETTING_MAX: usize = 8;

/// Keeps what is about to be sent, so that it is known again where the answer does not come.
fn note_setting(setting: &mut Vec<Metadata>, metadata: &Metadata) {
    if setting.last() == Some(metadata) {
        return;
    }
    if setting.len() == SETTING_MAX {
        setting.remove(0);
    }
    setting.push(metadata.clone());
}

impl FileSystem {
    pub(super) async fn commit_attributes(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<()> {
        let name = self.blob_name(inode)?;
        let failed = |error| Error::from_store(format!("cannot save the attributes of {name}"), error);
        for _ in 0..ADOPTIONS_MAX {
            let (base, carried) = {
                let state = inode.state.lock();
                (state.base.clone(), state.carried())
            };
            let mut options = write_options(inode, base.as_deref(), &carried);
            if self.scribe.is_some() {
                note_setting(&mut inode.state.lock().setting, &options.metadata);
            }
            let result = match &base {
                Some(_) => self.store.set_metadata(&name, &options.metadata, &options.condition).await,
                // A directory that was a bare prefix gets its marker now.
                None => self.store.put_blob(&name, Body::new(), &options).await,
            };
            match result {
                Ok(committed) => {
                    let metadata = std::mem::take(&mut options.metadata);
                    self.finish_attributes(inode, &name, base.as_deref(), &committed, metadata, &carried);
                    self.settle_owed(inode);
                    return Ok(());
                }
                // A directory that only the journal has is one, whoever made it: it has our attributes from now on.
                Err(error) if error.kind == ErrorKind::Precondition && inode.is_owed_directory() => {
                    if !self.adopt_directory(inode, &name).await? {
                        return Err(self.conflict(inode, &name, failed(error)));
                    }
                }
                Err(error) if error.kind == ErrorKind::Precondition => {
                    if !self.adopt_same_bytes(inode).await? {
                        return Err(self.conflict(inode, &name, failed(error)));
                    }
                }
                // Another client has removed it: there is nothing left to carry the attributes.
                Err(error) if error.kind == ErrorKind::NotFound => {
                    return Err(self.conflict(inode, &name, failed(error)));
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Err(Error::new(libc::ESTALE, format!("{name} was changed again and again during its commit")))
    }

    /// Takes the marker that somebody else has made as ours, with our attributes to be written to it. `false`: there is none.
    async fn adopt_directory(&self, inode: &Inode, name: &BlobName) -> Result<bool> {
        let found = match self.store.head(name, &Condition::None).await {
            Ok(found) => found,
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(Error::from_store(format!("cannot check {name}"), error)),
        };
        if Kind::of(&found.metadata) != Kind::Directory {
            return Ok(false);
        }
        inode.state.lock().base = Some(Arc::new(self.base_of(name, &found)));
        Ok(true)
    }

    fn finish_attributes(
        &self,
        inode: &Arc<Inode>,
        name: &BlobName,
        base: Option<&Base>,
        committed: &Committed,
        metadata: Metadata,
        carried: &Carried,
    ) {
        let base = match base {
            Some(base) => {
                // Set Metadata changes the ETag and not a byte: what is cached moves along (DESIGN 10.3).
                base.content.repoint(name.clone(), committed.etag.clone());
                base.with_attributes(committed, metadata)
            }
            None => self.base_of(name, &BlobProperties::written(committed, metadata)),
        };
        let mut state = inode.state.lock();
        state.base = Some(Arc::new(base));
        state.setting.clear();
        state.note_carried(carried);
        state.checked = Some(Instant::now());
        drop(state);
        self.publish(inode);
    }
}
