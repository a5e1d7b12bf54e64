//! How a name becomes an inode: from what is known, else with one round trip; and how a foreign version is met.
//!
//! Order of belief for a name: what is ours and not committed; what we learned last of listing, single answers and own
//! changes, while it is fresh; the service. A lookup costs at most one round trip: HEAD of the blob and a listing of one
//! entry below it go out together, since a directory may be either.

use std::{ffi::OsStr, sync::Arc, time::Instant};

use super::{
    Caller, Entry, Error, FileSystem, InodeNumber, Invalidation, Kind, ROOT, Result, View,
    attributes::Attributes,
    directory::{Answer, Slot},
    figures::only_readable,
    inode::{Base, Fate, Inode},
    name::{HiddenReason, NAME_BYTES_MAX, RESERVED},
};
use crate::{
    blob::{self, BlobName, BlobProperties, Condition, ETag, ErrorKind, ListRequest},
    cache::Content,
};

/// After so many names of one directory were asked for one by one, its first page of names is fetched instead: one
/// request then answers up to 5000 names. A guess until the metadata benchmark exists.
const PROBES_BEFORE_LISTING: u32 = 3;

/// An inode with a reference of its own in the table, given back on drop.
#[derive(Debug)]
pub(super) struct Held {
    file_system: Arc<FileSystem>,
    pub inode: Arc<Inode>,
}

impl Held {
    /// Takes over one reference that is already counted.
    pub(super) fn adopt(file_system: &Arc<FileSystem>, inode: Arc<Inode>) -> Self {
        Self { file_system: Arc::clone(file_system), inode }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.file_system.table.release(self.inode.number, 1);
    }
}

/// What the service, or our knowledge, says that a name is.
#[derive(Debug)]
pub(super) struct Found {
    pub kind: Kind,
    /// The blob, where there is one (a bare prefix has none).
    pub properties: Option<Arc<BlobProperties>>,
    /// When it was asked for.
    pub seen: Instant,
    /// The number set aside for the name by a listing.
    pub number: Option<InodeNumber>,
}

/// A question to the service about the version under a name.
#[derive(Debug)]
pub(super) struct Question {
    parent: InodeNumber,
    name: Arc<str>,
    pub blob: BlobName,
    asked: Instant,
}

impl Question {
    /// Notes the answer that the inode's version is the one under the name.
    pub(super) fn note_current(&self, inode: &Inode) {
        let mut state = inode.state.lock();
        state.checked = state.checked.max(Some(self.asked));
    }
}

impl FileSystem {
    /// What `name` in `parent` leads to, counted as one lookup of the caller's kernel.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, ENAMETOOLONG; ESTALE when `parent` is gone; what the service says when it must be asked.
    pub async fn lookup(self: &Arc<Self>, caller: &Caller, parent: InodeNumber, name: &OsStr) -> Result<Entry> {
        if self.is_figures_name(parent, name) {
            return Ok(self.figures_entry(&caller.view));
        }
        let held = self.resolve(parent, name).await?;
        self.table.note_asked(held.inode.number);
        self.give_back_cold_names();
        Ok(self.enter(&caller.view, &held.inode))
    }

    /// Gives back `count` lookups of a view's kernel.
    pub fn forget(&self, view: &View, number: InodeNumber, count: u64) {
        let taken = view.forget_lookups(number, count);
        if taken > 0 {
            self.table.release(number, taken);
        }
    }

    /// Counts a lookup of `inode` by the view's kernel, and tells it what it may keep.
    pub(super) fn enter(&self, view: &View, inode: &Inode) -> Entry {
        if self.table.hold(inode.number, 1) {
            view.count_lookup(inode.number);
        }
        Entry { attr: self.attr(view, inode), ttl: self.ttl(inode) }
    }

    /// The inode that `name` in `parent` leads to.
    pub(super) async fn resolve(self: &Arc<Self>, parent: InodeNumber, name: &OsStr) -> Result<Held> {
        let directory = self.directory_inode(parent)?;
        let shown = self.checked_name(parent, name)?;
        if self.is_removed(parent, &shown) {
            return Err(no_entry(&shown));
        }
        let found = loop {
            if let Some(known) = self.known(&directory, &shown)? {
                return known.ok_or_else(|| no_entry(&shown));
            }
            if self.wait_deleted(&directory, &shown).await
                && let Some(known) = self.known(&directory, &shown)?
            {
                return known.ok_or_else(|| no_entry(&shown));
            }
            self.spoil_listed_ahead(&directory, &shown);
            let asked = Instant::now();
            let touched = || directory.directory.as_ref().is_some_and(|known| known.is_touched_since(&shown, asked));
            if directory.directory.as_ref().is_some_and(|known| known.count_probe() > PROBES_BEFORE_LISTING) {
                self.load_first_page(&directory).await?;
                if let Some(known) = self.known(&directory, &shown)? {
                    return known.ok_or_else(|| no_entry(&shown));
                }
            }
            match self.probe(parent, &shown, asked).await? {
                Some(found) => break found,
                None if self.keeps_something(parent, &shown) => {
                    break Found { kind: Kind::Directory, properties: None, seen: asked, number: None };
                }
                // Another view has made it meanwhile.
                None if touched() => {}
                None => {
                    self.note_absent(&directory, &shown, asked);
                    return Err(no_entry(&shown));
                }
            }
        };
        if let (Some(child), Some(properties)) = (self.table.child(parent, &shown), &found.properties) {
            self.follow_growth(&child, properties).await?;
        }
        self.settle(&directory, &shown, &found)
    }

    /// Whether a directory that the service does not know (another client has removed it) holds something of ours that is
    /// to be committed: it stays until then, so that the commit still has a name to go to.
    fn keeps_something(&self, parent: InodeNumber, name: &str) -> bool {
        let child = self.table.child(parent, name);
        child.is_some_and(|child| child.kind == Kind::Directory && !self.written_below(&child).is_empty())
    }

    /// The name as a `str`, refused where no blob can have it.
    fn checked_name(&self, parent: InodeNumber, name: &OsStr) -> Result<String> {
        let component = self.naming.component(name)?;
        if parent == ROOT && component.text == RESERVED {
            return Err(no_entry(RESERVED));
        }
        if self.is_figures_name(parent, name) {
            return Err(only_readable());
        }
        name.to_str().map(str::to_owned).ok_or_else(|| no_entry("a name that is not UTF-8"))
    }

    /// The inode of a directory.
    pub(super) fn directory_inode(&self, number: InodeNumber) -> Result<Arc<Inode>> {
        let inode = self.inode(number)?;
        if inode.directory.is_none() {
            return Err(Error::new(libc::ENOTDIR, "a parent is not a directory"));
        }
        Ok(inode)
    }

    /// What we know of a name without asking: `Some(Some)` its inode, `Some(None)` that there is none, `None` nothing.
    pub(super) fn known(self: &Arc<Self>, parent: &Arc<Inode>, name: &str) -> Result<Option<Option<Held>>> {
        let Some(directory) = &parent.directory else { return Ok(None) };
        let child = self.table.child(parent.number, name);
        let checked = child.as_ref().and_then(|child| child.state.lock().checked);
        let fresh = checked.filter(|checked| checked.elapsed() < self.fresh_for());
        if let Some(child) = &child
            && (child.state.lock().is_local() || (child.directory.is_some() && fresh.is_some()))
        {
            return Ok(self.hold(child).map(Some));
        }
        match directory.answer(name, self.fresh_for()) {
            Answer::Present(slot) if fresh.is_none_or(|fresh| fresh < slot.seen) => {
                if let (Some(child), Some(properties)) = (&child, &slot.properties)
                    && self.may_have_grown(child, properties)
                {
                    return Ok(None); // Whether it only grew must be asked.
                }
                let found =
                    Found { kind: slot.kind, properties: slot.properties, seen: slot.seen, number: Some(slot.number) };
                // A name whose properties we do not have (ours once, or a bare prefix) is a directory or must be asked for. A
                // hierarchical account lists directories without their metadata.
                let bare = found.kind == Kind::Directory && self.paths().is_none();
                if found.properties.is_none() && !bare {
                    return Ok(None);
                }
                self.settle(parent, name, &found).map(|held| Some(Some(held)))
            }
            Answer::Absent(since) if fresh.is_none_or(|fresh| fresh < since) => Ok(Some(None)),
            _ => Ok(child.filter(|_| fresh.is_some()).and_then(|child| self.hold(&child)).map(Some)),
        }
    }

    pub(super) fn hold(self: &Arc<Self>, inode: &Arc<Inode>) -> Option<Held> {
        self.table.hold(inode.number, 1).then(|| Held::adopt(self, Arc::clone(inode)))
    }

    /// Asks the service what `name` in `parent` is: HEAD and a listing of one entry, together.
    pub(super) async fn probe(&self, parent: InodeNumber, name: &str, asked: Instant) -> Result<Option<Found>> {
        let component = self.naming.component(name.as_ref())?;
        let full = format!("{}{}", self.directory_prefix(parent)?, component.text);
        let blob = BlobName::new(full.as_str())
            .map_err(|error| Error::new(libc::ENAMETOOLONG, format!("cannot look up {name:?}: {error}")))?;
        let head = self.store.head(&blob, &Condition::None);
        let found = |kind, properties: Option<BlobProperties>| {
            Some(Found { kind, properties: properties.map(Arc::new), seen: asked, number: None })
        };
        if component.blob_only {
            return match head.await {
                Ok(properties) => Ok(found(Kind::of(&properties.metadata), Some(properties))),
                Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(Error::from_store(format!("cannot look up {full:?}"), error)),
            };
        }
        let below = ListRequest { prefix: format!("{full}/"), delimited: false, marker: None, max_results: Some(1) };
        let (head, below) = futures::join!(head, self.store.list(&below));
        let failed = |error| Error::from_store(format!("cannot look up {full:?}"), error);
        let has_children = below.map(|page| !page.entries.is_empty() || page.next_marker.is_some());
        match head {
            Ok(properties) if Kind::of(&properties.metadata) == Kind::Directory => {
                Ok(found(Kind::Directory, Some(properties)))
            }
            Ok(properties) => {
                // (In a hierarchy nothing is below a file, and asking for it is an error.)
                if self.paths().is_none() && has_children.map_err(failed)? {
                    self.hide(&full, HiddenReason::Shadowed);
                    return Ok(found(Kind::Directory, None));
                }
                Ok(found(Kind::of(&properties.metadata), Some(properties)))
            }
            Err(error) if error.kind == ErrorKind::NotFound => {
                Ok(if has_children.map_err(failed)? { found(Kind::Directory, None) } else { None })
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Counts and logs a blob that cannot be shown, unless it is shown under an escape.
    pub(super) fn hide(&self, blob: &str, reason: HiddenReason) {
        if !self.naming.escape || reason == HiddenReason::Unrepresentable {
            self.hidden.record(blob, reason);
        }
    }

    /// Brings the table in line with what was found under a name, and returns the inode that has it now.
    pub(super) fn settle(self: &Arc<Self>, parent: &Arc<Inode>, name: &str, found: &Found) -> Result<Held> {
        let held = self.settle_inode(parent, name, found)?;
        if let (Some(directory), Some(_)) = (&parent.directory, &found.properties)
            && found.kind == held.inode.kind
        {
            directory.note_present(&Slot {
                name: Arc::from(name),
                number: held.inode.number,
                kind: found.kind,
                properties: found.properties.clone(),
                seen: found.seen,
            });
        }
        Ok(held)
    }

    fn settle_inode(self: &Arc<Self>, parent: &Arc<Inode>, name: &str, found: &Found) -> Result<Held> {
        loop {
            let gone = || Error::new(libc::ESTALE, "the directory is gone");
            let Some(child) = self.table.child(parent.number, name) else {
                // A number set aside by a listing may meanwhile belong to an inode that lost the name but is still open.
                let free = found.number.filter(|number| self.table.get(*number).is_none());
                let number = free.unwrap_or_else(|| self.table.next_number());
                let inode = self.make_inode(number, found, parent.number, name)?;
                let inode = self.table.link(parent.number, name, inode).ok_or_else(gone)?;
                return Ok(Held::adopt(self, inode));
            };
            if self.observe(&child, found) {
                match self.hold(&child) {
                    Some(held) => return Ok(held),
                    None => continue,
                }
            }
            // Somebody else's version: the name moves to a new inode, the old one stays what it was (DESIGN 10.1).
            self.detach(parent.number, name, &child);
            let fresh =
                Found { number: None, kind: found.kind, properties: found.properties.clone(), seen: found.seen };
            let inode = self.make_inode(self.table.next_number(), &fresh, parent.number, name)?;
            let inode = self.table.link(parent.number, name, inode).ok_or_else(gone)?;
            return Ok(Held::adopt(self, inode));
        }
    }

    /// Takes the name from an inode whose blob is now somebody else's version, or gone.
    pub(super) fn detach(&self, parent: InodeNumber, name: &str, inode: &Inode) {
        inode.state.lock().fate = Fate::Replaced;
        self.table.unlink(inode.number);
        self.views.invalidate(None, &Invalidation::Entry(parent, Arc::from(name)));
    }

    fn make_inode(&self, number: InodeNumber, found: &Found, parent: InodeNumber, name: &str) -> Result<Arc<Inode>> {
        let Some(properties) = &found.properties else {
            let inode = Inode::new(number, found.kind, None, Attributes::default(), self.scribe.as_ref());
            inode.state.lock().checked = Some(found.seen);
            return Ok(inode);
        };
        let component = self.naming.component(name.as_ref())?;
        let blob = BlobName::new(format!("{}{}", self.directory_prefix(parent)?, component.text))
            .map_err(|error| Error::new(libc::ENAMETOOLONG, error.to_string()))?;
        let base = Arc::new(self.base_of(&blob, properties));
        let attributes = self.attributes_of(properties);
        let inode = Inode::new(number, found.kind, Some(base), attributes, self.scribe.as_ref());
        inode.state.lock().checked = Some(found.seen);
        Ok(inode)
    }

    /// The version that `properties` of `blob` describe, sharing cached bytes with all who know the same version.
    pub(super) fn base_of(&self, blob: &BlobName, properties: &BlobProperties) -> Base {
        let content = self.content(blob, &properties.etag, properties.length);
        Base::new(properties.clone(), content)
    }

    /// The bytes of a version, shared with all who know the same one.
    pub(super) fn content(&self, blob: &BlobName, etag: &ETag, length: u64) -> Arc<Content> {
        self.cache().open(&self.store, &self.settings.scope, blob.clone(), etag.clone(), length)
    }

    /// Holds what was found against what the inode stands for. `true`: the inode still has the name (same version, same
    /// bytes under a new ETag, or a local change that is not committed). `false`: another version has it.
    pub(super) fn observe(&self, inode: &Arc<Inode>, found: &Found) -> bool {
        let mut state = inode.state.lock();
        if state.fate != Fate::Linked {
            return false;
        }
        // What was asked before our own last commit or check says nothing; what is ours stays until it is committed.
        if state.is_local() || state.checked.is_some_and(|checked| checked > found.seen) {
            return inode.kind == found.kind || state.is_local();
        }
        if inode.kind != found.kind {
            return false;
        }
        let Some(properties) = &found.properties else {
            if inode.kind != Kind::Directory {
                return false;
            }
            (state.base, state.checked) = (None, Some(found.seen));
            return true;
        };
        let unchanged = state.base.as_ref().is_some_and(|base| base.properties.etag == properties.etag);
        if unchanged {
            state.checked = Some(found.seen);
            return true;
        }
        let same_bytes = state.base.as_ref().is_some_and(|base| has_same_bytes(base, properties));
        let pages_at_stake = inode.kind == Kind::File;
        if pages_at_stake && !same_bytes {
            return false;
        }
        let content = state.base.as_ref().filter(|_| same_bytes).map(|base| Arc::clone(&base.content));
        drop(state);
        let Ok(blob) = self.blob_name(inode) else { return false };
        let base = match content {
            Some(content) => {
                content.repoint(blob, properties.etag.clone());
                Base::new(BlobProperties::clone(properties), content)
            }
            None => self.base_of(&blob, properties),
        };
        let mut state = inode.state.lock();
        state.base = Some(Arc::new(base));
        state.attributes = self.attributes_of(properties);
        state.checked = Some(found.seen);
        drop(state);
        self.views.invalidate(None, &Invalidation::Attributes(inode.number));
        true
    }

    /// Whether the inode's version is older than we may show without asking.
    pub(super) fn must_revalidate(&self, inode: &Inode) -> bool {
        let state = inode.state.lock();
        let fresh = state.checked.is_some_and(|checked| checked.elapsed() < self.fresh_for());
        state.fate == Fate::Linked && state.base.is_some() && !state.is_local() && !fresh
    }

    /// Asks the service whether the inode's version is still the one under its name.
    ///
    /// # Errors
    /// ESTALE when it is not: the name then leads to the new version, or nowhere, and the old inode is detached.
    pub(super) async fn revalidate(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<()> {
        match self.successor(inode).await? {
            None => Ok(()),
            Some(_) => Err(replaced_elsewhere()),
        }
    }

    /// As [`Self::revalidate`], but a new version under the name is returned, so that it is not asked for again.
    pub(super) async fn successor(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<Option<Held>> {
        let Some(etag) = inode.state.lock().base.as_ref().map(|base| base.properties.etag.clone()) else {
            return Ok(None);
        };
        let question = self.question(inode)?;
        let answer = self.store.head(&question.blob, &Condition::NotMatch(etag)).await;
        self.successor_in(inode, &question, answer).await
    }

    /// What must be known of a name before its version is asked for.
    ///
    /// # Errors
    /// ESTALE when the inode has no name any more.
    pub(super) fn question(&self, inode: &Inode) -> Result<Question> {
        let (parent, name) = self.table.place(inode.number).ok_or_else(replaced_elsewhere)?;
        Ok(Question { parent, name, blob: self.blob_name(inode)?, asked: Instant::now() })
    }

    /// What an answer to a question about an inode's version says (`NotModified`: it is current); as [`Self::successor`].
    pub(super) async fn successor_in(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        question: &Question,
        answer: blob::Result<BlobProperties>,
    ) -> Result<Option<Held>> {
        let Question { parent, name, blob, asked } = question;
        let (parent, asked) = (*parent, *asked);
        match answer {
            Err(error) if error.kind == ErrorKind::NotModified => {
                question.note_current(inode);
                Ok(None)
            }
            Err(error) if error.kind == ErrorKind::NotFound => {
                if inode.state.lock().is_local() {
                    return Ok(None);
                }
                self.detach(parent, name, inode);
                if let Ok(directory) = self.directory_inode(parent) {
                    self.note_absent(&directory, name, asked);
                }
                Err(replaced_elsewhere())
            }
            Err(error) => Err(Error::from_store(format!("cannot check {blob}"), error)),
            Ok(properties) if self.follow_growth(inode, &properties).await? => Ok(None),
            Ok(properties) => {
                let kind = Kind::of(&properties.metadata);
                let found = Found { kind, properties: Some(Arc::new(properties)), seen: asked, number: None };
                let directory = self.directory_inode(parent)?;
                let held = self.settle(&directory, name, &found)?;
                Ok((held.inode.number != inode.number).then_some(held))
            }
        }
    }

    /// Remembers that the service did not know a name, and takes an inode that had it off it.
    fn note_absent(&self, parent: &Arc<Inode>, name: &str, asked: Instant) {
        let Some(directory) = &parent.directory else { return };
        if directory.is_touched_since(name, asked) {
            return;
        }
        directory.note_absent(name, asked);
        if let Some(child) = self.table.child(parent.number, name)
            && !child.state.lock().is_local()
        {
            self.detach(parent.number, name, &child);
        }
    }

    /// Mirrors an inode's committed facts into its parent's listing, so that the name is known when the inode is not.
    pub(super) fn publish(&self, inode: &Arc<Inode>) {
        let Some((parent, name)) = self.table.place(inode.number) else { return };
        let Some(parent) = self.table.get(parent) else { return };
        self.spoil_listed_ahead(&parent, &name);
        let Some(directory) = &parent.directory else { return };
        let properties = {
            let state = inode.state.lock();
            state.base.as_deref().filter(|_| !state.is_dirty()).map(|base| Arc::new(base.properties.clone()))
        };
        let seen = Instant::now();
        directory.put_local(&Slot { name, number: inode.number, kind: inode.kind, properties, seen });
    }
}

/// Whether a foreign ETag stands for the same bytes: equal length and equal MD5 (DESIGN 10.3).
pub(super) fn has_same_bytes(base: &Base, properties: &BlobProperties) -> bool {
    base.properties.length == properties.length
        && base.properties.content_md5.is_some()
        && base.properties.content_md5 == properties.content_md5
}

fn replaced_elsewhere() -> Error {
    Error::new(libc::ESTALE, "another client has replaced the blob")
}

/// A longer name than a program can create is not just absent, unless another client has made it.
fn no_entry(name: &str) -> Error {
    let errno = if name.len() > NAME_BYTES_MAX { libc::ENAMETOOLONG } else { libc::ENOENT };
    Error::new(errno, format!("there is no {name:?}"))
}
