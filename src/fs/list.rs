//! Reading directories: pages of the service become slots of a listing, and slots become entries.

use std::{sync::Arc, time::Instant};

use super::{
    Caller, Entry, Error, FileSystem, HandleId, InodeNumber, Invalidation, Kind, ROOT, Result, View,
    directory::{Cursor, Listing, Names, Slot, Stamp, digest},
    handle::DirectoryHandle,
    inode::Inode,
    lookup::{Found, Held},
    name::{HiddenReason, RESERVED},
    subtree::Ahead,
};
use crate::blob::{BlobProperties, ListEntry, ListPage, ListRequest};

/// Offsets 0 and 1 lead to `.` and `..`; slots follow.
const DOTS: u64 = 2;

/// Inodes that kernels hold without using them may take one part in this many of the budget.
const INODES_PART: u64 = 16;
/// What one takes: under 800 bytes, under 400 for the version it stands for, and about as much again for its texts, its
/// row in the table, and the content that finds its cached bytes.
const INODE_BYTES: u64 = 2 << 10;
/// However small the budget is: what a program works on at a time.
const INODES_MIN: usize = 1024;

/// One entry of a directory, as readdir(3) has it.
#[derive(Clone, Debug)]
pub struct DirectoryEntry {
    /// Its name.
    pub name: Arc<str>,
    /// Its inode number.
    pub number: InodeNumber,
    /// What it is.
    pub kind: Kind,
    /// Where reading goes on behind it.
    pub next_offset: u64,
}

impl FileSystem {
    /// opendir(3).
    ///
    /// # Errors
    /// ENOTDIR, ESTALE.
    pub fn open_directory(&self, view: &View, number: InodeNumber) -> Result<HandleId> {
        let inode = self.directory_inode(number)?;
        self.table.hold(number, 1);
        // Who reads on where somebody else's reading was kept for him is in that listing.
        let listing = inode.directory.as_ref().and_then(|known| known.fresh_listing(self.fresh_for()));
        let stamp = listing.as_ref().map(|listing| listing.stamp(self.fresh_for()));
        let (listing, stamp) = (crate::sync::Mutex::new(listing), crate::sync::Mutex::new(stamp));
        let (view, reader) = (view.id(), crate::sync::Mutex::default());
        Ok(self.handles.add_directory(DirectoryHandle { inode, listing, stamp, view, reader }))
    }

    /// What was there to be read when the handle was opened or read from its beginning, whichever was last. `None` when the
    /// service would have been asked, or names are never believed without asking.
    #[must_use]
    pub fn stamp_of_names(&self, handle: HandleId) -> Option<Stamp> {
        let stamp = *self.handles.directory(handle).ok()?.stamp.lock();
        stamp.filter(|_| !self.fresh_for().is_zero())
    }

    /// closedir(3).
    pub fn close_directory(&self, handle: HandleId) {
        if let Some(handle) = self.handles.remove_directory(handle) {
            self.table.release(handle.inode.number, 1);
        }
    }

    /// Up to `count` entries from `offset` (0: the beginning, which takes a fresh listing). Empty at the end. No lookup
    /// is counted: see [`Self::enter_listed`].
    ///
    /// # Errors
    /// EBADF, ESTALE; what the service says when the next page must be fetched.
    pub async fn read_directory(
        self: &Arc<Self>,
        handle: HandleId,
        offset: u64,
        count: usize,
    ) -> Result<Vec<DirectoryEntry>> {
        let (id, handle) = (handle, self.handles.directory(handle)?);
        let start = self.handles.read_from(id, &handle, offset);
        let mut listing = self.listing_at(&handle, offset);
        let mut entries = self.dots(&handle.inode, offset);
        let mut from = if start.anew || offset <= DOTS { 0 } else { listing.position_of(offset - DOTS) };
        loop {
            match listing.names_from(from, count.saturating_sub(entries.len()).max(1)) {
                Names::ReadAgain(again) => listing = Arc::clone(handle.listing.lock().insert(again)),
                Names::Here(names, true) if names.is_empty() => {
                    self.load_page(&handle.inode, &listing, listing.positions()).await?;
                }
                Names::Here(names, _) => {
                    if names.last().is_some_and(|last| listing.is_last_page(last.position)) {
                        self.load_page_ahead(&handle.inode, &listing);
                    }
                    let behind = names.last().map(|last| last.position + 1);
                    let is_wanted = |name: &str| start.skip.is_empty() || !start.skip.contains(&digest(name));
                    let wanted = names.into_iter().filter(|listed| is_wanted(&listed.name));
                    entries.extend(wanted.map(|listed| DirectoryEntry {
                        name: listed.name,
                        number: listed.number,
                        kind: listed.kind,
                        next_offset: listing.offset_of(listed.position) + DOTS + 1,
                    }));
                    match behind.filter(|_| entries.is_empty()) {
                        // All of them were given by another process.
                        Some(behind) => from = behind,
                        None => break,
                    }
                }
            }
        }
        let given = entries.iter().map(|entry: &DirectoryEntry| (entry.next_offset, &*entry.name));
        self.handles.note_given(id, &handle, given);
        Ok(entries)
    }

    /// Fetches the next page while the reader is in this one. What goes wrong is for the reader to find out.
    fn load_page_ahead(self: &Arc<Self>, directory: &Arc<Inode>, listing: &Arc<Listing>) {
        // Somebody is at it already.
        let Ok(turn) = listing.loading.try_lock() else { return };
        drop(turn);
        let (file_system, directory, listing) = (Arc::clone(self), Arc::clone(directory), Arc::clone(listing));
        self.resources.runtime.spawn(async move {
            let seen = listing.positions();
            if let Err(error) = file_system.load_page(&directory, &listing, seen).await {
                tracing::debug!(%error, "the next page of a directory could not be fetched ahead");
            }
        });
    }

    /// Counts a lookup of an entry that [`Self::read_directory`] returned, without a request. `None` when the name has
    /// gone since, or its attributes are not known: the kernel then looks it up when it needs to.
    pub fn enter_listed(self: &Arc<Self>, caller: &Caller, handle: HandleId, entry: &DirectoryEntry) -> Option<Entry> {
        let handle = self.handles.directory(handle).ok()?;
        let held = match self.known(&handle.inode, &entry.name).ok()? {
            Some(known) => known?,
            // Given up since, by the directory but not by this reader.
            None => self.settle_listed(&handle, &entry.name)?,
        };
        let entry = self.enter(&caller.view, &held.inode);
        drop(held);
        self.give_back_cold_names();
        Some(entry)
    }

    /// Has kernels forget names that nobody uses, once there are more than the memory has room for (DESIGN 10.15).
    pub(super) fn give_back_cold_names(&self) {
        let most = self.cache().budget().pool_bytes() / INODES_PART / INODE_BYTES;
        for (parent, name) in self.table.cold_names(usize::try_from(most).unwrap_or(usize::MAX).max(INODES_MIN)) {
            self.views.invalidate(None, &Invalidation::Entry(parent, name));
        }
    }

    /// The inode of a name by what the reader's own pass says.
    fn settle_listed(self: &Arc<Self>, handle: &DirectoryHandle, name: &str) -> Option<Held> {
        let slot = handle.listing.lock().as_ref()?.slot(name)?;
        let is_fresh = slot.seen.elapsed() < self.fresh_for();
        let known = handle.inode.directory.as_ref()?;
        if !is_fresh || slot.properties.is_none() || known.is_touched_since(name, slot.seen) {
            return None;
        }
        let found = Found { kind: slot.kind, properties: slot.properties, seen: slot.seen, number: Some(slot.number) };
        self.settle(&handle.inode, name, &found).ok()
    }

    fn listing_at(&self, handle: &DirectoryHandle, offset: u64) -> Arc<Listing> {
        let mut current = handle.listing.lock();
        let fresh = || match &handle.inode.directory {
            Some(directory) => {
                let listing = directory.listing(self.fresh_for(), &self.names);
                self.add_uncommitted(&handle.inode, &listing);
                listing
            }
            None => Listing::of_new_directory(&self.names),
        };
        match &*current {
            Some(listing) if offset > 0 => Arc::clone(listing),
            _ => {
                let listing = current.insert(fresh());
                *handle.stamp.lock() = Some(listing.stamp(self.fresh_for()));
                Arc::clone(listing)
            }
        }
    }

    /// `.` and `..`, which no listing has.
    fn dots(&self, inode: &Inode, offset: u64) -> Vec<DirectoryEntry> {
        let parent = self.table.place(inode.number).map_or(ROOT, |(parent, _)| parent);
        let dot = |name: &str, number, next_offset| DirectoryEntry {
            name: Arc::from(name),
            number,
            kind: Kind::Directory,
            next_offset,
        };
        let all = [dot(".", inode.number, 1), dot("..", parent, 2)];
        all.into_iter().skip(usize::try_from(offset).unwrap_or(usize::MAX)).collect()
    }

    /// Puts in what the service cannot list: children that are not committed yet.
    fn add_uncommitted(&self, parent: &Inode, listing: &Listing) {
        let Some(known) = &parent.directory else { return };
        let asked = Instant::now();
        for (name, child) in self.table.children(parent.number) {
            let ours_alone = {
                let state = child.state.lock();
                state.base.is_none() && state.is_dirty()
            };
            if ours_alone && listing.kind(&name).is_none() && !self.is_figures_name(parent.number, &*name) {
                let slot =
                    Slot { name, number: child.number, kind: child.kind, properties: None, seen: Instant::now() };
                known.put_listed(listing, &slot, asked);
            }
        }
    }

    /// The first page of the root, at mount: proves that the container is there and readable, and reads the root's own
    /// attributes.
    pub(super) async fn load_root(self: &Arc<Self>) -> Result<()> {
        let root = self.inode(ROOT)?;
        self.load_first_page(&root).await?;
        if let Some(marker) = self.settings.prefix.strip_suffix('/').filter(|path| !path.is_empty()) {
            let marker = crate::blob::BlobName::new(marker)
                .map_err(|error| Error::new(libc::EINVAL, format!("the prefix is no blob name: {error}")))?;
            if let Ok(properties) = self.store.head(&marker, &crate::blob::Condition::None).await {
                root.state.lock().attributes = self.attributes_of(&properties);
            }
        }
        Ok(())
    }

    /// Makes sure that the first page of a directory's current listing is there.
    pub(super) async fn load_first_page(self: &Arc<Self>, directory: &Arc<Inode>) -> Result<()> {
        let Some(known) = &directory.directory else { return Ok(()) };
        let listing = known.listing(self.fresh_for(), &self.names);
        self.add_uncommitted(directory, &listing);
        if listing.cursor() == Cursor::At(None) { self.load_page(directory, &listing, 0).await } else { Ok(()) }
    }

    /// Fetches the page behind position `seen`, unless another reader has already done so.
    async fn load_page(self: &Arc<Self>, directory: &Arc<Inode>, listing: &Listing, seen: usize) -> Result<()> {
        let turn = crate::sync::tokio::time::timeout(self.store.limits().names, listing.loading.lock()).await;
        let _one_at_a_time =
            turn.map_err(|_| Error::timed_out("another reader's page of the directory does not come"))?;
        if listing.positions() > seen {
            return Ok(());
        }
        let Cursor::At(marker) = listing.cursor() else { return Ok(()) };
        let prefix = self.directory_prefix(directory.number)?;
        if marker.is_none()
            && let Some(Ahead { entries, asked }) = self.listed_ahead(directory, &prefix).await
        {
            listing.date_back(asked);
            listing.begin_page(None);
            self.merge_page(directory, listing, &prefix, &ListPage { entries, next_marker: None }, asked);
            listing.advance(Cursor::Done);
            self.names.settle();
            return Ok(());
        }
        let request = ListRequest { prefix: prefix.clone(), delimited: true, marker, max_results: None };
        let asked = Instant::now();
        let page = self.store.list(&request).await;
        let page = page.map_err(|error| Error::from_store(format!("cannot list {prefix:?}"), error))?;
        listing.begin_page(request.marker);
        self.merge_page(directory, listing, &prefix, &page, asked);
        listing.advance(page.next_marker.map_or(Cursor::Done, |marker| Cursor::At(Some(marker))));
        self.names.settle();
        Ok(())
    }

    fn merge_page(&self, directory: &Inode, listing: &Listing, prefix: &str, page: &ListPage, asked: Instant) {
        for entry in &page.entries {
            match entry {
                ListEntry::Blob(name, properties) => {
                    let component = name.as_str().strip_prefix(prefix).unwrap_or(name.as_str());
                    let marker = Kind::of(&properties.metadata) == Kind::Directory;
                    if component.is_empty() && marker {
                        continue; // `d/` with a directory mark: this directory itself, as some tools write it.
                    }
                    self.merge_blob(directory, listing, component, name.as_str(), properties, asked);
                }
                ListEntry::Prefix(full) => {
                    let component = full.strip_prefix(prefix).unwrap_or(full);
                    let component = component.strip_suffix('/').unwrap_or(component);
                    self.merge_prefix(directory, listing, component, full, asked);
                }
            }
        }
    }

    fn merge_blob(
        &self,
        directory: &Inode,
        listing: &Listing,
        component: &str,
        blob: &str,
        properties: &BlobProperties,
        asked: Instant,
    ) {
        let kind = Kind::of(&properties.metadata);
        let shown = match self.naming.show(component) {
            Ok(shown) => shown,
            Err(reason) => return self.hide(blob, reason),
        };
        let taken_by_directory = kind != Kind::Directory && listing.kind(&shown) == Some(Kind::Directory);
        let shown = match self.naming.show_shadowed(component) {
            _ if !taken_by_directory => shown,
            Ok(shadowed) => shadowed,
            Err(reason) => return self.hide(blob, reason),
        };
        self.put_listed(directory, listing, &shown, kind, Some(properties), asked);
    }

    fn merge_prefix(&self, directory: &Inode, listing: &Listing, component: &str, full: &str, asked: Instant) {
        if directory.number == ROOT && component == RESERVED {
            return;
        }
        let shown = match self.naming.show(component) {
            Ok(shown) => shown,
            Err(reason) => return self.hide(full, reason),
        };
        match listing.slot(&shown) {
            Some(slot) if slot.kind == Kind::Directory => {}
            Some(slot) => {
                // The blob of that name came first in the page; the directory takes the name.
                self.put_listed(directory, listing, &shown, Kind::Directory, None, asked);
                match (self.naming.show_shadowed(component), slot.properties) {
                    (Ok(shadowed), Some(properties)) => {
                        self.put_listed(directory, listing, &shadowed, slot.kind, Some(&properties), asked);
                    }
                    _ => self.hide(full.trim_end_matches('/'), HiddenReason::Shadowed),
                }
            }
            None => self.put_listed(directory, listing, &shown, Kind::Directory, None, asked),
        }
    }

    fn put_listed(
        &self,
        directory: &Inode,
        listing: &Listing,
        shown: &str,
        kind: Kind,
        properties: Option<&BlobProperties>,
        asked: Instant,
    ) {
        let Some(known) = &directory.directory else { return };
        if self.hides_figures_name(directory.number, shown) {
            return;
        }
        // Looked at first: a Delete that ends in between touches its name.
        if self.is_removed(directory.number, shown) || self.is_being_deleted(directory, shown) {
            return;
        }
        let there = self.table.child(directory.number, shown);
        if let Some(child) = there.as_ref().filter(|child| child.state.lock().is_local()) {
            let (number, kind) = (child.number, child.kind);
            let (name, seen) = (Arc::from(shown), Instant::now());
            return known.put_listed(listing, &Slot { name, number, kind, properties: None, seen }, asked);
        }
        let number =
            there.filter(|child| child.kind == kind).map_or_else(|| self.table.next_number(), |child| child.number);
        let properties = properties.map(|properties| Arc::new(properties.clone()));
        known.put_listed(listing, &Slot { name: Arc::from(shown), number, kind, properties, seen: asked }, asked);
    }

    /// The marker of a directory, as [`Found`] for the table.
    pub(super) fn found_marker(properties: BlobProperties, seen: Instant) -> Found {
        Found { kind: Kind::Directory, properties: Some(Arc::new(properties)), seen, number: None }
    }
}
