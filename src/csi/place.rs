//! Where a volume or a snapshot is: a container, or a directory of one that many volumes share. Both are made, marked, read and
//! taken away alike here; what their marks mean is `marks`' matter. A directory is a marker blob (`hdi_isfolder`), as the file system
//! and other tools know it, and a real one where the account has those.

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    error::{Error, ErrorKind, Result},
    marks::Marks,
    request::Account,
};
use crate::{
    blob::{
        self, AzureStore, BlobName, BlobStore as _, Body, Condition, Connections, ContentHeaders, DIRECTORY_MARK, ETag,
        ListEntry, ListRequest, Location, Metadata, RequestLimits, WriteOptions,
    },
    credential::{Credential, CredentialSlot},
    volume,
};

/// Deletes at once where a volume's directory is emptied: as many as the connections of the controller.
const DELETES_AT_ONCE: usize = 16;
/// Modes of a directory that is made on a hierarchical account: whom the volume is for, the pod's spec says.
const DIRECTORY_MODE: u32 = 0o777;
/// Longest name of a directory in characters: the service's limit is 1024 for what lies below it as well.
const DIRECTORY_CHARACTERS_MAX: usize = 512;

/// See the module's doc.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The container.
    pub(super) store: AzureStore,
    location: Location,
    credential: Credential,
    directory: Option<BlobName>,
}

/// The marks of a place that exists, and their version where it has one of its own.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) marks: Marks,
    version: Option<ETag>,
}

impl Place {
    /// `container` of `account`, or `directory` of it. Sends nothing.
    ///
    /// # Errors
    /// `Invalid` for names that cannot be.
    pub(super) fn new(
        account: &Account,
        connections: &Connections,
        container: &str,
        directory: Option<&str>,
    ) -> Result<Self> {
        let location = account.location(container)?;
        let slot = match &account.source {
            Some(source) => CredentialSlot::with_source(account.credential.clone(), source.clone()),
            None => CredentialSlot::new(account.credential.clone()),
        };
        // The provisioner and the resizer ask again for ever, so a call that is short and fails is better than a long one.
        let limits = RequestLimits::mounting();
        let store = AzureStore::with_connections(location.clone(), slot, limits, connections);
        let directory = directory.map(check_directory).transpose()?;
        Ok(Self { store, location, credential: account.credential.clone(), directory })
    }

    /// The service failed while we did `what` to it.
    pub(super) fn failed(&self, what: &str, error: blob::Error) -> Error {
        volume::Error::service(what, &self.location, &self.credential, error).into()
    }

    /// The container, and what lies below it.
    pub(super) fn location(&self) -> &Location {
        &self.location
    }

    /// What the names of its blobs begin with.
    pub(super) fn prefix(&self) -> String {
        self.directory.as_ref().map(|directory| format!("{directory}/")).unwrap_or_default()
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        format!("{}/{}", self.location, self.prefix()).trim_end_matches('/').to_owned()
    }

    /// Whether it is a directory of a shared container.
    pub(super) fn is_directory(&self) -> bool {
        self.directory.is_some()
    }

    /// What it says about itself, or `None` when it does not exist.
    ///
    /// # Errors
    /// Those of the service; `Invalid` where a file has the name of the directory.
    pub(super) async fn find(&self, what: &str) -> Result<Option<Found>> {
        let Some(directory) = &self.directory else {
            return match self.store.container_metadata().await {
                Ok(metadata) => Ok(Some(Found { marks: Marks(metadata), version: None })),
                Err(error) if error.kind == blob::ErrorKind::ContainerNotFound => Ok(None),
                Err(error) => Err(self.failed(what, error)),
            };
        };
        match self.store.head(directory, &Condition::None).await {
            Ok(found) if found.metadata.contains_key(DIRECTORY_MARK) => {
                Ok(Some(Found { marks: Marks(found.metadata), version: Some(found.etag) }))
            }
            Ok(_) => Err(Error::invalid(format!("subDir {directory} is a file of container {}", self.location))),
            Err(error) if matches!(error.kind, blob::ErrorKind::NotFound | blob::ErrorKind::ContainerNotFound) => {
                Ok(None)
            }
            Err(error) => Err(self.failed(what, error)),
        }
    }

    /// Makes it, marked so; false where it exists already. A shared container that is missing is made as well, and is never deleted.
    ///
    /// # Errors
    /// `Unavailable` while a container of the name is being deleted.
    pub(super) async fn make(&self, driver: &str, marks: &Marks) -> Result<bool> {
        let Some(directory) = &self.directory else {
            return self.make_container(&marks.0).await;
        };
        loop {
            match self.make_directory(directory, &marks.0).await {
                Ok(()) => return Ok(true),
                Err(error) if error.kind == blob::ErrorKind::Precondition => return Ok(false),
                Err(error) if error.kind == blob::ErrorKind::ContainerNotFound => {
                    self.make_container(&Marks::by(driver).kept().0).await?;
                }
                Err(error) => return Err(self.failed("create", error)),
            }
        }
    }

    async fn make_container(&self, metadata: &Metadata) -> Result<bool> {
        match self.store.create_container(metadata).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind == blob::ErrorKind::Precondition => Ok(false),
            // The name is taken by a container that is being deleted, which takes the service half a minute or more.
            Err(error) if error.kind == blob::ErrorKind::ContainerNotFound => {
                let name = self.location.container();
                let text = format!("Container {name:?} is being deleted; it is made as soon as it is gone");
                Err(Error::new(ErrorKind::Unavailable, text))
            }
            Err(error) => Err(self.failed("create", error)),
        }
    }

    async fn make_directory(&self, directory: &BlobName, metadata: &Metadata) -> blob::Result<()> {
        if let Some(hierarchy) = self.store.hierarchy()
            && self.is_hierarchical().await
        {
            return hierarchy.create_directory(directory, DIRECTORY_MODE, metadata, &Condition::Absent).await.map(drop);
        }
        let mut metadata = metadata.clone();
        metadata.insert(DIRECTORY_MARK.to_owned(), "true".to_owned());
        let options = WriteOptions {
            condition: Condition::Absent,
            metadata,
            headers: ContentHeaders::default(),
            access_tier: None,
        };
        self.store.put_blob(directory, Body::new(), &options).await.map(drop)
    }

    /// Whether the account has real directories. Who may not ask counts as flat, where marker blobs are right.
    pub(super) async fn is_hierarchical(&self) -> bool {
        self.store.account_info().await.is_ok_and(|info| info.hierarchical)
    }

    /// Replaces the marks of what was `found`.
    ///
    /// # Errors
    /// `Unavailable` when somebody else changed them meanwhile; `NotFound` when it is gone.
    pub(super) async fn mark(&self, what: &str, found: &Found, marks: Marks) -> Result<Found> {
        let changed = match (&self.directory, &found.version) {
            (Some(directory), Some(version)) => {
                let condition = Condition::Match(version.clone());
                self.store.set_metadata(directory, &marks.0, &condition).await.map(|done| Some(done.etag))
            }
            _ => self.store.set_container_metadata(&marks.0).await.map(|()| None),
        };
        match changed {
            Ok(version) => Ok(Found { marks, version }),
            Err(error) if error.kind == blob::ErrorKind::Precondition => {
                let text = format!("{} was changed by somebody else meanwhile; try again", self.shown());
                Err(Error::new(ErrorKind::Unavailable, text))
            }
            Err(error) => Err(self.failed(what, error)),
        }
    }

    /// Takes it away with all that lies below it; below a directory, directories of other volumes of `driver` stay. Doing it
    /// again goes on where it broke off.
    ///
    /// # Errors
    /// Those of the service.
    pub(super) async fn remove(&self, driver: &str) -> Result<()> {
        let Some(directory) = &self.directory else {
            return match self.store.delete_container().await {
                Ok(()) => Ok(()),
                Err(error) if error.kind == blob::ErrorKind::ContainerNotFound => Ok(()),
                Err(error) => Err(self.failed("delete", error)),
            };
        };
        let is_hierarchical = self.is_hierarchical().await;
        let mut others: Vec<String> = Vec::new();
        let mut marker = None;
        loop {
            let request = ListRequest { prefix: self.prefix(), marker, ..ListRequest::default() };
            let page = self.store.list(&request).await.map_err(|error| self.failed("list", error))?;
            let mut doomed = Vec::new();
            for entry in page.entries {
                let ListEntry::Blob(name, properties) = entry else { continue };
                let marks = Marks(properties.metadata.clone());
                if marks.is_by(driver) && marks.names_volume() && properties.metadata.contains_key(DIRECTORY_MARK) {
                    tracing::warn!(directory = %name, "kept: it is a volume of its own");
                    others.push(name.to_string());
                }
                let is_other =
                    |other: &String| *name.as_str() == **other || name.as_str().starts_with(&format!("{other}/"));
                if !others.iter().any(is_other) {
                    doomed.push(name);
                }
            }
            // A directory of a hierarchical account goes in one step, unless it holds another volume.
            if !is_hierarchical {
                stream::iter(doomed.into_iter().map(|name| self.delete_blob(name)))
                    .buffer_unordered(DELETES_AT_ONCE)
                    .try_collect::<()>()
                    .await?;
            }
            marker = page.next_marker;
            if marker.is_none() {
                break;
            }
        }
        if let (true, Some(hierarchy)) = (is_hierarchical, self.store.hierarchy()) {
            if let Some(other) = others.first() {
                let text =
                    format!("{} holds {other}, which is a volume of its own: delete that one first", self.shown());
                return Err(Error::new(ErrorKind::NotReady, text));
            }
            return match hierarchy.delete_directory(directory, true).await {
                Err(error) if error.kind != blob::ErrorKind::NotFound => Err(self.failed("delete", error)),
                _ => Ok(()),
            };
        }
        self.delete_blob(directory.clone()).await
    }

    async fn delete_blob(&self, name: BlobName) -> Result<()> {
        match self.store.delete(&name, &Condition::None).await {
            Err(error) if error.kind != blob::ErrorKind::NotFound => Err(self.failed("delete blobs of", error)),
            _ => Ok(()),
        }
    }
}

/// A directory's name as the attribute `subDir` may have it.
fn check_directory(text: &str) -> Result<BlobName> {
    let bad = |reason: &str| Error::invalid(format!("subDir {text:?} cannot be a volume's directory: {reason}"));
    let text = text.trim_matches('/');
    if text.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(bad("each of its parts needs a name of its own"));
    }
    if text.chars().any(|c| c.is_control() || c == '#' || c == '\\') {
        return Err(bad("control characters, # and \\ are not possible"));
    }
    if text.split('/').next() == Some(crate::fs::RESERVED) {
        return Err(bad("the driver keeps its own blobs there"));
    }
    if text.chars().count() > DIRECTORY_CHARACTERS_MAX {
        return Err(bad("it is too long"));
    }
    BlobName::new(text).map_err(|error| bad(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_a_name_that_every_tool_can_show() {
        assert_eq!(check_directory("/apps/data/").unwrap().as_str(), "apps/data");
        for bad in ["", "/", "a//b", "../a", "a/./b", "a#b", "a\\b", "a\nb", ".azblob/x", &"x".repeat(513)] {
            assert!(check_directory(bad).is_err(), "{bad:?}");
        }
    }
}
