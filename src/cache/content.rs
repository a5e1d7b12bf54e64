//! One version of a blob's bytes, and where to fetch them from at the moment.
//!
//! The bytes of a content never change. Where they are found may: a rename moves them to another name, a metadata
//! change gives them another ETag; [`Content::repoint`] follows without touching a cached block. Knows nothing of
//! inodes: whether a new ETag means the same bytes is decided by the caller.

use std::fmt;

use crate::{
    blob::{BlobName, BlobStore, ETag},
    sync::{Arc, AtomicUsize, Ordering, RwLock, Weak},
};

use super::registry::{Key, Registry};

/// Identity of a content in this process; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentId(pub u64);

impl ContentId {
    fn next() -> Self {
        // Of the process, not of one run of the model checker: its atomics must not be shared by two of them.
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Where the bytes of a content are found.
#[derive(Clone, Debug)]
pub struct Source {
    /// The container.
    pub store: Arc<dyn BlobStore>,
    /// The blob.
    pub name: BlobName,
    /// The version; every fetch carries it as If-Match.
    pub etag: ETag,
}

/// One version of a blob's bytes. Everybody who reads that version shares one `Content`; cached blocks keep it alive, so
/// that a file opened again finds them.
pub struct Content {
    id: ContentId,
    length: u64,
    /// Windows that are open on it.
    pub(super) windows: AtomicUsize,
    /// Short sections, nothing awaits inside. Taken before the registry's lock, never after it.
    source: RwLock<Arc<Source>>,
    /// Where others find this content, when it was opened through a registry.
    registered: Option<(Weak<Registry>, Arc<str>)>,
}

impl Content {
    /// A content that nobody else finds (tests, and blobs that must not be shared). `length` is the blob's, in bytes.
    #[must_use]
    pub fn new(store: Arc<dyn BlobStore>, name: BlobName, etag: ETag, length: u64) -> Arc<Self> {
        Arc::new(Self::build(Source { store, name, etag }, length, None))
    }

    pub(super) fn build(source: Source, length: u64, registered: Option<(Weak<Registry>, Arc<str>)>) -> Self {
        Self {
            id: ContentId::next(),
            length,
            windows: AtomicUsize::new(0),
            source: RwLock::new(Arc::new(source)),
            registered,
        }
    }

    /// Identity of these bytes in this process.
    #[must_use]
    pub fn id(&self) -> ContentId {
        self.id
    }

    /// Bytes in it.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Where the bytes are found at the moment.
    #[must_use]
    pub fn source(&self) -> Arc<Source> {
        Arc::clone(&self.source.read())
    }

    /// The version under which the bytes are found at the moment.
    #[must_use]
    pub fn etag(&self) -> ETag {
        self.source.read().etag.clone()
    }

    /// The same bytes are found under another name or ETag from now on (our own rename, our own metadata change, or an
    /// adopted foreign one). Cached blocks and fetches that are waiting for a retry follow.
    pub fn repoint(self: &Arc<Self>, name: BlobName, etag: ETag) {
        let (before, after) = {
            let mut source = self.source.write();
            let before = Arc::clone(&source);
            *source = Arc::new(Source { store: Arc::clone(&before.store), name, etag });
            (before, Arc::clone(&source))
        };
        if let Some((registry, realm)) = &self.registered
            && let Some(registry) = registry.upgrade()
        {
            registry.rename(&Key::of(realm, &before), Key::of(realm, &after), self);
        }
    }

    /// Fetches go through `store` from now on: an equal container opened later, whose credential is fresher.
    pub(super) fn adopt_store(&self, store: &Arc<dyn BlobStore>) {
        let mut source = self.source.write();
        if !Arc::ptr_eq(&source.store, store) {
            *source = Arc::new(Source { store: Arc::clone(store), ..Source::clone(&source) });
        }
    }

    /// What others find it by at the moment, when it was opened through a registry.
    pub(super) fn key(&self) -> Option<Key> {
        let (_, realm) = self.registered.as_ref()?;
        Some(Key::of(realm, &self.source()))
    }

    /// The realm it is shared in, for a content derived from it.
    pub(super) fn realm(&self) -> Option<(Arc<Registry>, Arc<str>)> {
        let (registry, realm) = self.registered.as_ref()?;
        Some((registry.upgrade()?, Arc::clone(realm)))
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        if let Some((registry, realm)) = &self.registered
            && let Some(registry) = registry.upgrade()
        {
            registry.remove_dead(&Key::of(realm, self.source.get_mut()));
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source();
        write!(f, "Content({}: {:?} {:?}, {} bytes)", self.id.0, source.name, source.etag, self.length)
    }
}
