//! Index tags and the tier: a rewrite or a copy drops them unless it sends them again, so they are read first.
//!
//! Tags are no part of a version, they change without a new ETag: they are read at each commit, not at open.

use super::super::{Error, FileSystem, Result, inode::Base};
use crate::{
    blob::{BlobKind, BlobName, BlobProperties, Condition, ErrorKind},
    sync::Arc,
};

impl FileSystem {
    /// The tags of the blob that is to be rewritten.
    ///
    /// # Errors
    /// EPERM when they may not be read; what the service says.
    pub(in crate::fs) async fn tags_to_keep(&self, name: &BlobName, base: Option<&Base>) -> Result<Option<Arc<str>>> {
        match base.filter(|base| base.properties.kind == BlobKind::Block) {
            Some(base) => self.tags_of(name, base.properties.tag_count).await,
            None => Ok(None),
        }
    }

    /// The properties of the version that is to be rewritten or copied, with its tier: where the version was met by a GET, it
    /// is asked for now.
    ///
    /// # Errors
    /// What the service says.
    pub(in crate::fs) async fn with_tier(
        &self,
        name: &BlobName,
        properties: &BlobProperties,
    ) -> Result<BlobProperties> {
        let known = properties.clone();
        if known.tier_known || known.kind != BlobKind::Block {
            return Ok(known);
        }
        match self.store.head(name, &Condition::None).await {
            Ok(found) => Ok(BlobProperties { access_tier: found.access_tier, tier_known: true, ..known }),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(known), // The commit finds out.
            Err(error) => Err(Error::from_store(format!("cannot read the tier of {name}"), error)),
        }
    }

    /// The tags of a blob that has `count` of them.
    ///
    /// # Errors
    /// As [`Self::tags_to_keep`].
    pub(in crate::fs) async fn tags_of(&self, name: &BlobName, count: u32) -> Result<Option<Arc<str>>> {
        if count == 0 {
            return Ok(None);
        }
        match self.store.get_tags(name).await {
            Ok(tags) => Ok(tags),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None), // The commit finds out.
            Err(error) if error.kind == ErrorKind::Denied => {
                let sentence = format!(
                    "{name} has index tags, which a rewrite or rename would lose since they may not be read: grant the role Storage \
                     Blob Data Owner, or a SAS with the permission t"
                );
                Err(Error::from_store(sentence, error).with_errno(libc::EPERM))
            }
            Err(error) => Err(Error::from_store(format!("cannot read the tags of {name}"), error)),
        }
    }
}
