//! Listing a subtree flat, ahead of who walks it (`find`, `du`, `ls -R`, `cp -r`).
//!
//! A walker lists one directory after the other, and waits a round trip for each. When the first directories of a parent
//! were listed in the order of its listing, each without being known, all below the parent is listed without a delimiter
//! instead, 5000 blobs a page, and the listings of the directories are made of that: 166 directories cost one request.
//!
//! Names that begin alike stand together, whether a service lists by bytes, by UTF-16 or by path: a directory is whole once a
//! name of another follows it, or the listing ends; what has no name then is an empty directory. What it says is as old as
//! the page on which it began, and is used like a listing of that time. The next page is fetched when most of the last one
//! was used, so a walker who stops costs at most one page. A directory in which something was changed, made, removed or
//! asked for by itself since is listed by itself. `Descent` recognises a walk, `Subtree` is one flat listing.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use super::{
    FileSystem,
    directory::{Cursor, Listing},
    inode::Inode,
};
use crate::{
    blob::{ListEntry, ListPage, ListRequest},
    cache::{Class, Reservation},
    sync::{Arc, Mutex},
};

/// Directories listed in order before the rest is listed flat: two are looked into by hand, too.
const RUN_MIN: u32 = 3;
/// After a walker who was slower than what was listed grows old, so many, at most.
const RUN_MIN_MAX: u32 = 1024;
/// Blobs of a page (List Blobs, `maxresults`).
const PAGE_BLOBS: usize = 5000;
/// What a page takes until its directories are listed: 1200 bytes a blob, measured with the attributes that we write.
const PAGE_BYTES: u64 = 6 << 20;
/// Blobs that may wait for the walker, beside the page that comes.
const WAITING_MAX: usize = 2 * PAGE_BLOBS;
/// Subtrees of a volume at once.
const SUBTREES_MAX: usize = 4;
/// What was listed ahead is not used when it is older, however long names may be believed: local changes are remembered
/// twice as long ([`super::directory`]).
const AGE_MAX: Duration = Duration::from_secs(60);

/// How the directories of one parent are listed.
#[derive(Debug, Default)]
pub struct Descent {
    /// Behind the last one.
    next: usize,
    /// Listed in order so far, from the first, and how many it takes.
    run: u32,
    run_min: u32,
}

impl Descent {
    /// Notes that the directory at `position` is listed, which nothing is known of. `true`: it is a walk.
    fn step(&mut self, listing: &Listing, position: usize) -> bool {
        if position < self.next || listing.directories_between(self.next, position) > 0 {
            (self.next, self.run) = (0, 0);
            if listing.directories_between(0, position) > 0 {
                return false;
            }
        }
        (self.next, self.run) = (position + 1, self.run + 1);
        self.run >= self.run_min.max(RUN_MIN)
    }

    fn slow_down(&mut self) {
        (self.next, self.run) = (0, 0);
        self.run_min = (self.run_min.max(RUN_MIN) * 4).min(RUN_MIN_MAX);
    }
}

/// What a delimited listing of one directory would say, at the time when it began to be listed.
#[derive(Debug)]
pub(super) struct Ahead {
    pub entries: Vec<ListEntry>,
    pub asked: Instant,
}

#[derive(Debug)]
struct Listed {
    began: Option<Instant>,
    used: Instant,
    pages: usize,
    cursor: Cursor,
    /// The directories that the end of the last page is in, outermost first.
    open: Vec<(String, Ahead)>,
    /// By prefix.
    whole: HashMap<String, Ahead>,
    /// Prefixes that were used, or about which it says nothing any more.
    gone: HashSet<String>,
    /// Entries in `open` and `whole`.
    waiting: usize,
    /// One a page, while its entries wait.
    memory: Vec<Reservation>,
    /// Not listed on: a directory came that is larger than a page.
    is_cut: bool,
    is_over: bool,
}

/// A flat listing of all below a directory.
#[derive(Debug)]
pub(super) struct Subtree {
    prefix: String,
    top: Arc<Inode>,
    listed: Mutex<Listed>,
    loading: crate::sync::tokio::sync::Mutex<()>,
}

/// What a flat listing has of a directory.
enum Found {
    /// This; `true`: it is time for the next page.
    Whole(Ahead, bool),
    /// Nothing so far: so many pages were listed.
    Load(usize),
    /// Something too old.
    Stale,
    /// Nothing, and it will not.
    Never,
}

/// Those of one volume.
#[derive(Debug, Default)]
pub(super) struct Subtrees {
    subtrees: Mutex<Vec<Arc<Subtree>>>,
}

impl Subtrees {
    /// The innermost that `prefix` lies in, and that somebody still walks.
    fn around(&self, prefix: &str, age_max: Duration) -> Option<Arc<Subtree>> {
        let (left, walked): (Vec<_>, Vec<_>) = self.all().into_iter().partition(|subtree| subtree.is_left(age_max));
        if !left.is_empty() {
            self.subtrees.lock().retain(|subtree| !left.iter().any(|left| Arc::ptr_eq(left, subtree)));
        }
        let around =
            walked.into_iter().filter(|subtree| prefix.starts_with(&subtree.prefix) && prefix != subtree.prefix);
        around.max_by_key(|subtree| subtree.prefix.len())
    }

    fn all(&self) -> Vec<Arc<Subtree>> {
        self.subtrees.lock().clone()
    }

    fn begin(&self, prefix: String, top: Arc<Inode>) -> Option<Arc<Subtree>> {
        let mut subtrees = self.subtrees.lock();
        if subtrees.len() >= SUBTREES_MAX {
            return None;
        }
        let subtree = Arc::new(Subtree::new(prefix, top));
        subtrees.push(Arc::clone(&subtree));
        Some(subtree)
    }

    fn is_empty(&self) -> bool {
        self.subtrees.lock().is_empty()
    }

    fn spoil(&self, prefix: &str) {
        for subtree in self.all().into_iter().filter(|subtree| prefix.starts_with(&subtree.prefix)) {
            subtree.listed.lock().drop_directory(prefix);
        }
    }

    /// Gives all up: names have moved.
    pub(super) fn end_all(&self) {
        let all = std::mem::take(&mut *self.subtrees.lock());
        all.iter().for_each(|subtree| subtree.end());
    }
}

impl Subtree {
    fn new(prefix: String, top: Arc<Inode>) -> Self {
        let listed = Listed {
            began: None,
            used: Instant::now(),
            pages: 0,
            cursor: Cursor::At(None),
            open: Vec::new(),
            whole: HashMap::new(),
            gone: HashSet::new(),
            waiting: 0,
            memory: Vec::new(),
            is_cut: false,
            is_over: false,
        };
        Self { prefix, top, listed: Mutex::new(listed), loading: crate::sync::tokio::sync::Mutex::new(()) }
    }

    fn is_left(&self, age_max: Duration) -> bool {
        let listed = self.listed.lock();
        listed.is_over || listed.used.elapsed() >= age_max
    }

    fn end(&self) {
        let mut listed = self.listed.lock();
        listed.is_over = true;
        (listed.open, listed.whole, listed.gone) = Default::default();
        (listed.memory, listed.waiting) = Default::default();
    }

    /// Takes out what it has of the directory with `prefix`.
    fn take(&self, prefix: &str, age_max: Duration) -> Found {
        let mut listed = self.listed.lock();
        if listed.is_over || listed.gone.contains(prefix) {
            return Found::Never;
        }
        let ahead = match listed.whole.remove(prefix) {
            Some(ahead) => ahead,
            None if listed.cursor == Cursor::Done => {
                Ahead { entries: Vec::new(), asked: listed.began.unwrap_or(listed.used) }
            }
            None if listed.waiting < WAITING_MAX && !listed.is_cut => return Found::Load(listed.pages),
            None => return Found::Never,
        };
        listed.gone.insert(prefix.to_owned());
        listed.note_used(ahead.entries.len());
        if ahead.asked.elapsed() >= age_max {
            return Found::Stale;
        }
        let more = listed.cursor != Cursor::Done && !listed.is_cut && listed.waiting < PAGE_BLOBS / 2;
        Found::Whole(ahead, more)
    }
}

impl Listed {
    fn note_used(&mut self, entries: usize) {
        self.used = Instant::now();
        self.waiting -= entries;
        self.memory.truncate(self.waiting.div_ceil(PAGE_BLOBS));
    }

    fn drop_directory(&mut self, prefix: &str) {
        if !self.gone.insert(prefix.to_owned()) {
            return;
        }
        if let Some(ahead) = self.whole.remove(prefix) {
            self.waiting -= ahead.entries.len();
        }
    }

    /// Takes a page in that was asked for at `asked`. `top`: the prefix of the whole.
    fn take_in(&mut self, top: &str, page: ListPage, asked: Instant) {
        self.began.get_or_insert(asked);
        self.pages += 1;
        for entry in page.entries {
            let ListEntry::Blob(name, properties) = entry else { continue };
            self.leave(name.as_str());
            self.enter(top, name.as_str(), asked);
            // (Names of the top itself are known: it was listed.)
            self.put(ListEntry::Blob(name, properties));
        }
        match page.next_marker {
            Some(next) => self.cursor = Cursor::At(Some(next)),
            None => {
                self.leave("");
                self.cursor = Cursor::Done;
            }
        }
        // Larger than a page: to list such directories by themselves costs no more.
        self.is_cut |= self.open.iter().any(|(_, ahead)| ahead.entries.len() >= PAGE_BLOBS);
    }

    fn put(&mut self, entry: ListEntry) {
        if let Some((_, ahead)) = self.open.last_mut() {
            ahead.entries.push(entry);
            self.waiting += 1;
        }
    }

    /// Closes the directories that `name` is not in.
    fn leave(&mut self, name: &str) {
        while let Some((prefix, ahead)) = self.open.pop_if(|(prefix, _)| name.is_empty() || !name.starts_with(&*prefix))
        {
            if self.gone.contains(&prefix) {
                self.waiting -= ahead.entries.len();
            } else {
                self.whole.insert(prefix, ahead);
            }
        }
    }

    /// Opens the directories that `name` is in.
    fn enter(&mut self, top: &str, name: &str, asked: Instant) {
        loop {
            let outer = self.open.last().map_or(top.len(), |(prefix, _)| prefix.len());
            let Some(at) = name.get(outer..).and_then(|rest| rest.find('/')) else { return };
            let prefix = &name[..=outer + at];
            self.put(ListEntry::Prefix(prefix.to_owned()));
            self.open.push((prefix.to_owned(), Ahead { entries: Vec::new(), asked }));
        }
    }
}

impl FileSystem {
    /// What was listed ahead of a directory that nothing is known of, with its prefix; listed now where somebody walks. `None`:
    /// it must be listed by itself.
    pub(super) async fn listed_ahead(self: &Arc<Self>, directory: &Arc<Inode>, prefix: &str) -> Option<Ahead> {
        let age_max = self.fresh_for().min(AGE_MAX);
        if age_max.is_zero() {
            return None;
        }
        let around = self.subtrees.around(prefix, age_max);
        let subtree = around.or_else(|| self.begin_subtree(directory, age_max))?;
        loop {
            match subtree.take(prefix, age_max) {
                Found::Whole(ahead, more) => {
                    if more {
                        let (volume, subtree) = (Arc::clone(self), Arc::clone(&subtree));
                        let pages = subtree.listed.lock().pages;
                        self.resources.runtime.spawn(async move { volume.load_subtree(&subtree, pages).await });
                    }
                    return Some(ahead);
                }
                Found::Load(pages) => self.load_subtree(&subtree, pages).await,
                Found::Stale => {
                    subtree.end();
                    if let Some(top) = &subtree.top.directory {
                        top.descent.lock().slow_down();
                    }
                    return None;
                }
                Found::Never => return None,
            }
        }
    }

    /// Notes that a directory is listed, and begins a flat listing where that is a walk.
    fn begin_subtree(self: &Arc<Self>, directory: &Inode, age_max: Duration) -> Option<Arc<Subtree>> {
        let (parent, name) = self.table.place(directory.number)?;
        let top = self.table.get(parent)?;
        let known = top.directory.as_ref()?;
        let listing = known.last_listing().filter(|listing| listing.is_complete())?;
        let position = listing.position(&name)?;
        if listing.positions() > PAGE_BLOBS || !known.descent.lock().step(&listing, position) {
            return None;
        }
        // A flat listing begins at the beginning: what is known already comes again.
        let listings = self
            .table
            .children(parent)
            .into_iter()
            .filter_map(|(_, child)| child.directory.as_ref().and_then(super::directory::Directory::last_listing));
        if listings.map(|listing| listing.positions()).sum::<usize>() > PAGE_BLOBS {
            return None;
        }
        let subtree = self.subtrees.begin(self.directory_prefix(parent).ok()?, top)?;
        tracing::debug!(
            prefix = subtree.prefix,
            "directories are listed one after the other: listing all below at once"
        );
        self.drop_subtree_when_left(&subtree, age_max);
        Some(subtree)
    }

    /// What nobody came for takes no memory for long.
    fn drop_subtree_when_left(self: &Arc<Self>, subtree: &Arc<Subtree>, age_max: Duration) {
        let (volume, subtree) = (Arc::downgrade(self), Arc::downgrade(subtree));
        self.resources.runtime.spawn(async move {
            loop {
                crate::sync::tokio::time::sleep(age_max).await;
                let (Some(volume), Some(subtree)) = (volume.upgrade(), subtree.upgrade()) else { return };
                if subtree.is_left(age_max) {
                    subtree.end();
                    volume.subtrees.around("", age_max);
                    return;
                }
            }
        });
    }

    /// Fetches the page behind the first `pages`, unless somebody has. What goes wrong is for who lists by himself to find out.
    async fn load_subtree(self: &Arc<Self>, subtree: &Subtree, pages: usize) {
        let turn = crate::sync::tokio::time::timeout(self.store.limits().names, subtree.loading.lock()).await;
        let Ok(_one_at_a_time) = turn else { return subtree.end() };
        let marker = {
            let listed = subtree.listed.lock();
            match &listed.cursor {
                Cursor::At(marker) if listed.pages == pages && !listed.is_over => marker.clone(),
                _ => return,
            }
        };
        let Some(memory) = self.cache().budget().try_reserve(Class::Prefetch, PAGE_BYTES) else { return subtree.end() };
        let request = ListRequest { prefix: subtree.prefix.clone(), delimited: false, marker, max_results: None };
        let asked = Instant::now();
        match self.store.list(&request).await {
            Ok(page) => {
                let mut listed = subtree.listed.lock();
                if !listed.is_over {
                    listed.memory.push(memory);
                    listed.take_in(&subtree.prefix, page, asked);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a subtree could not be listed ahead");
                subtree.end();
            }
        }
    }

    /// Something was made, changed, removed or asked for by itself in a directory: what was listed ahead of it, or is on its
    /// way, says nothing any more.
    pub(super) fn spoil_listed_ahead(&self, directory: &Inode, name: &str) {
        if self.subtrees.is_empty() {
            return;
        }
        let Ok(prefix) = self.directory_prefix(directory.number) else { return };
        self.subtrees.spoil(&prefix);
        if let Ok(component) = self.naming.component(name.as_ref()) {
            self.subtrees.spoil(&format!("{prefix}{}/", component.text));
        }
    }
}
