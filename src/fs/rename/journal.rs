//! What is written down of a directory's rename while it is under way: a blob under `.azblob/rename/`, named after both
//! names. If the rename breaks off, it says that what lies under the new name is an unfinished rename's and no stranger's,
//! so that the same rename may be done again, by whatever mount. Nothing is done about it unasked.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::super::{Error, FileSystem, Result, name::RESERVED};
use crate::blob::{
    BlobName, Body, Condition, ContentHeaders, ErrorKind, ListEntry, ListRequest, Metadata, WriteOptions,
};

/// Unfinished renames that a mount names in its log; the others are counted.
const NAMED_MAX: u32 = 10;

/// The record of one rename.
#[derive(Debug)]
pub(super) struct Journal<'volume> {
    volume: &'volume FileSystem,
    blob: BlobName,
    text: String,
}

impl<'volume> Journal<'volume> {
    /// The record of a rename of the directory `from` to `to`; nothing is written yet.
    pub(super) fn of(volume: &'volume FileSystem, from: &BlobName, to: &BlobName) -> Result<Self> {
        let text = format!("{from}\n{to}\n");
        let digest = Sha256::digest(text.as_bytes());
        let id: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { volume, blob: volume.name_at(&format!("{RESERVED}/rename/{id}"))?, text })
    }

    /// Whether such a rename was begun and did not end.
    pub(super) async fn is_open(&self) -> Result<bool> {
        match self.volume.store.head(&self.blob, &Condition::None).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::from_store("cannot look for an unfinished rename", error)),
        }
    }

    /// Writes it down.
    pub(super) async fn begin(&self) -> Result<()> {
        let options = WriteOptions {
            condition: Condition::None,
            metadata: Metadata::new(),
            headers: ContentHeaders { content_type: Some("text/plain".to_owned()), ..ContentHeaders::default() },
            access_tier: None,
        };
        let body = Body::from(Bytes::from(self.text.clone()));
        let written = self.volume.store.put_blob(&self.blob, body, &options).await;
        written.map(drop).map_err(|error| Error::from_store("cannot write down the rename of a directory", error))
    }

    /// Forgets it: the rename is complete, or undone. One that stays does no harm but a line in the log.
    pub(super) async fn end(&self) {
        if let Err(error) = self.volume.delete_blob(&self.blob).await {
            tracing::warn!("the record of a finished rename stays: {}", error.to_chain());
        }
    }
}

impl FileSystem {
    /// Says in the log which renames of directories were begun and did not end.
    pub(in crate::fs) async fn report_unfinished_renames(self: &Arc<Self>) {
        let Ok(prefix) = self.name_at(&format!("{RESERVED}/rename/")) else { return };
        let prefix = prefix.as_str().to_owned();
        let request = ListRequest { prefix, delimited: false, marker: None, max_results: Some(NAMED_MAX) };
        // A mount that may not list here has said so already, and one that is read-only need not know.
        let Ok(page) = self.store.list(&request).await else { return };
        for entry in page.entries {
            let ListEntry::Blob(name, properties) = entry else { continue };
            let content = self.content(&name, &properties.etag, properties.length);
            let Ok(text) = self.cache().read(&content, 0..properties.length, &self.cache().stream()).await else {
                continue;
            };
            let text = String::from_utf8_lossy(&text.to_vec()).into_owned();
            let [from, to] = text.lines().collect::<Vec<_>>()[..] else { continue };
            tracing::warn!(
                from,
                to,
                "a rename of this directory was begun and did not end: every blob is under one of both names. Unless \
                 another node is at it, rename it once more (mv -T) to complete it"
            );
        }
    }
}
