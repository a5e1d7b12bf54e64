//! What a hierarchical namespace adds to a container: directories are things of their own, every path has its parents,
//! and every path has an owner and an access list. Must not know which endpoint asks.
//!
//! 1. A name has neither empty parts nor `.` and `..`: the former are dropped, the latter refused. (The naming page warns
//!    of both without an outcome; this is what paths of the Data Lake endpoint do.)
//! 2. Whoever makes a path makes its missing parents (page "Path - Create"); a rename does not.
//! 3. A path is a file or a directory. Over the other sort, and through a file, nothing is made: 409.
//! 4. The Blob endpoint shows a directory as an empty block blob with the metadata `hdi_isfolder=true`, and a blob that
//!    is put that way is a directory.

use time::OffsetDateTime;

use crate::{
    access::Access,
    blob::{Blob, ContentHeaders, Kind},
    call::{Call, Metadata},
    data::Data,
    error::{Code, ServiceError},
    lease::Lease,
    state::{Container, Stamps},
};

/// The metadata by which the Blob endpoint marks a directory.
pub(crate) const DIRECTORY_MARK: &str = "hdi_isfolder";

/// What a path of a hierarchical account has beside what every blob has.
#[derive(Clone)]
pub(crate) struct Node {
    /// A directory, else a file.
    pub(crate) directory: bool,
    pub(crate) access: Access,
    /// Made by the Data Lake endpoint: its data have no blocks that the Blob endpoint could list or keep.
    pub(crate) data_lake: bool,
}

/// The name without empty parts.
///
/// # Errors
/// `InvalidUri` for a part `.` or `..`.
pub(crate) fn normal_name(name: &str) -> Result<String, ServiceError> {
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| matches!(*part, "." | "..")) {
        return Err(Code::InvalidUri.into());
    }
    Ok(parts.join("/"))
}

/// The directory that a path is in; `None` for one at the root.
pub(crate) fn parent(name: &str) -> Option<&str> {
    name.rsplit_once('/').map(|(parent, _)| parent)
}

impl Blob {
    /// Whether it is a directory of a hierarchical account.
    pub(crate) fn is_directory(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.directory)
    }
}

impl Container {
    /// The access of a directory by its path; the root's for `None`.
    fn access_of(&self, directory: Option<&str>) -> Access {
        let of_path = |path| Some(self.blobs.get(path)?.node.as_ref()?.access.clone());
        directory.and_then(of_path).or_else(|| self.root_access.clone()).unwrap_or_else(Access::root)
    }

    /// Whether some path is below this one.
    pub(crate) fn has_below(&self, path: &str) -> bool {
        let prefix = format!("{path}/");
        self.blobs.range(prefix.clone()..).next().is_some_and(|(name, _)| name.starts_with(&prefix))
    }

    /// Whether a part of the path above `name` is a file.
    pub(crate) fn leads_through_file(&self, name: &str) -> bool {
        let mut above = parent(name);
        while let Some(path) = above {
            if self.blobs.get(path).is_some_and(|blob| !blob.is_directory()) {
                return true;
            }
            above = parent(path);
        }
        false
    }

    /// Makes the directories above `name` that are missing.
    pub(crate) fn make_parents(&mut self, stamps: &mut Stamps, now: OffsetDateTime, name: &str) {
        let Some(above) = parent(name) else { return };
        if !self.blobs.contains_key(above) {
            self.make_parents(stamps, now, above);
            let access = Access::inherited(&self.access_of(parent(above)), true, None, None);
            self.blobs.insert(above.to_owned(), new_directory(stamps, now, access, Metadata::new()));
        }
    }

    /// What something new at `name` is allowed, inherited from where it is.
    pub(crate) fn access_of_new(&self, name: &str, directory: bool, mode: Option<u32>, umask: Option<u32>) -> Access {
        Access::inherited(&self.access_of(parent(name)), directory, mode, umask)
    }

    /// Gives a blob that was just put its place in the hierarchy: parents, owner, access list.
    pub(crate) fn adopt(&mut self, stamps: &mut Stamps, now: OffsetDateTime, name: &str, old: Option<Node>) {
        self.make_parents(stamps, now, name);
        let inherited = |container: &Self, directory| container.access_of_new(name, directory, None, None);
        let marked = |blob: &Blob| blob.metadata.get(DIRECTORY_MARK).is_some_and(|mark| mark == "true");
        let directory = self.blobs.get(name).is_some_and(|blob| marked(blob) && blob.data.len() == 0);
        // A file that is put again keeps what it was allowed.
        let access = old.map_or_else(|| inherited(self, directory), |old| old.access);
        if let Some(blob) = self.blobs.get_mut(name) {
            if directory {
                blob.metadata.remove(DIRECTORY_MARK);
            }
            blob.node = Some(Node { directory, access, data_lake: false });
        }
    }
}

/// A directory without content.
pub(crate) fn new_directory(stamps: &mut Stamps, now: OffsetDateTime, access: Access, metadata: Metadata) -> Blob {
    let (etag, modified) = stamps.change(now);
    Blob {
        kind: Kind::Block(Vec::new()),
        data: Data::default(),
        headers: ContentHeaders::default(),
        metadata,
        etag,
        modified,
        created: modified,
        tier: None,
        tier_changed: None,
        tags: Vec::new(),
        lease: Lease::default(),
        copy: None,
        node: Some(Node { directory: true, access, data_lake: false }),
    }
}

/// Whether the Blob endpoint may put bytes at a path: not through a file, and not over a directory.
///
/// # Errors
/// 409 `ResourceTypeMismatch`.
pub(crate) fn check_put(container: &Container, call: &Call) -> Result<(), ServiceError> {
    if !call.hierarchical {
        return Ok(());
    }
    let name = call.blob_name();
    let over_directory = container.blobs.get(name).is_some_and(Blob::is_directory);
    let marks = call.header("x-ms-meta-hdi_isfolder")?.is_some_and(|mark| mark == "true");
    if container.leads_through_file(name) || (over_directory && !marks) {
        return Err(Code::ResourceTypeMismatch.into());
    }
    Ok(())
}

/// Whether the Blob endpoint may delete a path: not a directory with something in it.
///
/// # Errors
/// 409 `DirectoryIsNotEmpty`.
pub(crate) fn check_delete(container: &Container, call: &Call) -> Result<(), ServiceError> {
    let name = call.blob_name();
    if container.blobs.get(name).is_some_and(Blob::is_directory) && container.has_below(name) {
        return Err(Code::DirectoryIsNotEmpty.into());
    }
    Ok(())
}

/// What the Blob endpoint shows of a blob's metadata.
pub(crate) fn shown_metadata(blob: &Blob) -> Metadata {
    let mut metadata = blob.metadata.clone();
    if blob.is_directory() {
        metadata.insert(DIRECTORY_MARK.to_owned(), "true".to_owned());
    }
    metadata
}
