//! Finds the one [`Content`] of a blob's version, so that all mounts and handles of a version share its blocks.
//!
//! The key is (container, authorization scope, blob, ETag): no pod reads from the cache what only another may read
//! (DESIGN 10.11). Contents are held weakly; handles and cached blocks keep them alive.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use crate::{
    blob::{BlobName, BlobStore, ETag},
    sync::{Arc, Mutex, Weak},
};

use super::{
    content::{Content, Source},
    disk::DiskTier,
};

/// What a content is found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Container and authorization scope, interned.
    pub(super) realm: Arc<str>,
    pub(super) name: BlobName,
    pub(super) etag: ETag,
}

impl Key {
    pub(super) fn of(realm: &Arc<str>, source: &Source) -> Self {
        Self { realm: Arc::clone(realm), name: source.name.clone(), etag: source.etag.clone() }
    }
}

/// The contents that are alive. See the module's doc.
#[derive(Default)]
pub struct Registry {
    /// Short sections; nothing is dropped inside that could take another lock.
    state: Mutex<State>,
    /// Follows contents that move.
    disk: Option<DiskTier>,
}

#[derive(Default)]
struct State {
    contents: HashMap<Key, Weak<Content>>,
    /// One text a volume and identity; they are few and live as long as the process.
    realms: HashSet<Arc<str>>,
}

impl Registry {
    /// A registry whose contents may be on the node's disk as well.
    pub(super) fn new(disk: Option<DiskTier>) -> Self {
        Self { state: Mutex::default(), disk }
    }

    /// The content of version `etag` of blob `name`, shared with everybody who opened it in the same `scope` (a text
    /// that is equal exactly where the service would answer with the same rights). `length` is the blob's, in bytes.
    #[must_use]
    pub fn open(
        self: &Arc<Self>,
        store: &Arc<dyn BlobStore>,
        scope: &str,
        name: BlobName,
        etag: ETag,
        length: u64,
    ) -> Arc<Content> {
        let realm = self.realm(store.identity(), scope);
        self.open_in(realm, Source { store: Arc::clone(store), name, etag }, length)
    }

    /// As [`Self::open`], in a realm that is known already.
    pub(super) fn open_in(self: &Arc<Self>, realm: Arc<str>, source: Source, length: u64) -> Arc<Content> {
        let key = Key::of(&realm, &source);
        let store = Arc::clone(&source.store);
        let fresh = Arc::new(Content::build(source, length, Some((Arc::downgrade(self), realm))));
        let found = {
            let mut state = self.state.lock();
            match state.contents.entry(key) {
                Entry::Occupied(mut entry) => match entry.get().upgrade().filter(|found| found.length() == length) {
                    Some(found) => found,
                    None => {
                        entry.insert(Arc::downgrade(&fresh));
                        Arc::clone(&fresh)
                    }
                },
                Entry::Vacant(entry) => {
                    entry.insert(Arc::downgrade(&fresh));
                    Arc::clone(&fresh)
                }
            }
        };
        // A `fresh` that was not needed is dropped behind the lock: its Drop looks into the registry.
        found.adopt_store(&store);
        found
    }

    fn realm(&self, container: &str, scope: &str) -> Arc<str> {
        // A control character separates: neither a URL nor a scope can hold it.
        let text = format!("{container}\u{1}{scope}");
        let mut state = self.state.lock();
        if let Some(realm) = state.realms.get(text.as_str()) {
            return Arc::clone(realm);
        }
        let realm: Arc<str> = text.into();
        state.realms.insert(Arc::clone(&realm));
        realm
    }

    /// `content` moved from one key to another. A living content that already has the new key keeps it.
    pub(super) fn rename(&self, from: &Key, to: Key, content: &Arc<Content>) {
        if let Some(disk) = &self.disk {
            disk.rename(from.clone(), to.clone(), content.length());
        }
        let mut state = self.state.lock();
        if state.contents.get(from).is_some_and(|entry| std::ptr::eq(entry.as_ptr(), Arc::as_ptr(content))) {
            state.contents.remove(from);
        }
        let entry = state.contents.entry(to).or_default();
        if entry.strong_count() == 0 {
            *entry = Arc::downgrade(content);
        }
    }

    /// Takes the key out if its content is gone.
    pub(super) fn remove_dead(&self, key: &Key) {
        let mut state = self.state.lock();
        if state.contents.get(key).is_some_and(|entry| entry.strong_count() == 0) {
            state.contents.remove(key);
        }
    }

    /// Number of contents that are alive.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.lock().contents.len()
    }
}
