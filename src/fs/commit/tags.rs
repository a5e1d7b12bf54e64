//! Index tags: a rewrite drops them unless it sends them again, so they are read first.
//!
//! Tags are no part of a version, they change without a new ETag: they are read at each commit, not at open.

use super::super::{Error, FileSystem, Result, inode::Base};
use crate::{
    blob::{BlobKind, BlobName, ErrorKind},
    sync::Arc,
};

impl FileSystem {
    /// The tags of the blob that is to be rewritten.
    ///
    /// # Errors
    /// EPERM when they may not be read; what the service says.
    pub(in crate::fs) async fn tags_to_keep(&self, name: &BlobName, base: Option<&Base>) -> Result<Option<Arc<str>>> {
        let tagged = |base: &Base| base.properties.tag_count > 0 && base.properties.kind == BlobKind::Block;
        if !base.is_some_and(tagged) {
            return Ok(None);
        }
        match self.store.get_tags(name).await {
            Ok(tags) => Ok(tags),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None), // The commit finds out.
            Err(error) if error.kind == ErrorKind::Denied => {
                let sentence = format!(
                    "{name} has index tags, which a rewrite would lose since they may not be read: grant the role Storage \
                     Blob Data Owner, or a SAS with the permission t"
                );
                Err(Error::from_store(sentence, error).with_errno(libc::EPERM))
            }
            Err(error) => Err(Error::from_store(format!("cannot read the tags of {name}"), error)),
        }
    }
}
