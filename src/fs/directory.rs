//! What a directory's listing said, page by page, kept to answer names without requests.
//!
//! The difficulties, and what solves each:
//!
//! 1. A directory is a marker blob `d`, a prefix `d/`, or both, and they arrive apart: [`Listing::merge`] keeps one slot
//!    a name and upgrades it.
//! 2. A blob `d` may stand beside blobs `d/...`: the directory takes the name, the blob is shadowed.
//! 3. Names that were made or removed here while a page was under way must not be undone by it: `touched` remembers
//!    when, and a page that was asked for earlier loses.
//! 4. A reader may seek, and a directory may have more names than there is memory for: see [`Listing`].
//!
//! [`Listing`] is one pass over the names, `packed` how it keeps one, [`NameMemory`] how many it may keep, [`Reader`] what
//! somebody was given of them.

mod listing;
mod memory;
mod packed;
mod reader;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

pub use listing::{Cursor, Listing, Names, Slot, Stamp};
pub use memory::NameMemory;
pub use reader::{Given, Reader, Start, digest};

use super::{siblings::Walk, subtree::Descent};
use crate::{blob::Committed, sync::Mutex};

/// Names known to be absent are dropped all at once past this many: a bound on memory (about 100 bytes each), not on
/// correctness.
const ABSENT_NAMES_MAX: usize = 10_000;
/// Local changes are remembered at least this long: no page that was asked for before can arrive later, since the
/// store gives a listing 60 s (DESIGN 10.14).
const TOUCHED_FOR: Duration = Duration::from_secs(120);
const TOUCHED_NAMES_MIN: usize = 4096;
/// Between two unlinks of a program that empties a directory is less, also where it asks somebody for each file's turn.
const UNLINKS_PAUSE_MAX: Duration = Duration::from_secs(5);

/// What is known of a name without asking.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It is there.
    Present(Slot),
    /// It was not there at that time.
    Absent(Instant),
    /// Ask.
    Unknown,
}

#[derive(Debug, Default)]
struct Known {
    listing: Option<Arc<Listing>>,
    /// How many listings were begun.
    listings: u64,
    absent: HashMap<Box<str>, Instant>,
    touched: HashMap<Box<str>, Instant>,
    /// At how many touched names the old ones are swept out; doubles, so that sweeping stays cheap.
    sweep_at: usize,
    /// Made by this mount, and nothing but this mount was seen in it (DESIGN 10.2).
    own: bool,
    /// Names asked for one by one since the last listing began.
    probes: u32,
    /// Files that were removed one after the other, and when the last one was.
    unlinks: u32,
    unlinked: Option<Instant>,
}

/// What only a directory has: its current listing and what was learned beside it.
#[derive(Debug, Default)]
pub struct Directory {
    known: Mutex<Known>,
    /// How its files are opened, and what was fetched ahead of that.
    pub walk: Mutex<Walk>,
    /// In what order the directories in it are listed.
    pub descent: Mutex<Descent>,
}

impl Directory {
    /// Says that this mount has just made the directory, so that it is known to be empty.
    pub fn set_own(&self, memory: &Arc<NameMemory>) {
        let mut known = self.known.lock();
        known.own = true;
        known.listing = Some(Listing::of_new_directory(memory));
    }

    /// Whether this mount made it and its names are still all known, so that O_EXCL may be judged at commit.
    #[must_use]
    pub fn is_own(&self, fresh_for: Duration) -> bool {
        let known = self.known.lock();
        known.own && known.listing.as_ref().is_some_and(|listing| listing.is_current(fresh_for))
    }

    /// How many directories are in it, where all its names are known.
    #[must_use]
    pub fn subdirectories(&self, fresh_for: Duration) -> Option<usize> {
        let known = self.known.lock();
        known.listing.as_ref().filter(|listing| listing.is_current(fresh_for))?.directories()
    }

    /// The listing to read now: the current one while it is fresh, else a new one, which becomes current.
    pub fn listing(&self, fresh_for: Duration, memory: &Arc<NameMemory>) -> Arc<Listing> {
        let mut known = self.known.lock();
        match &known.listing {
            Some(listing) if listing.is_current(fresh_for) => Arc::clone(listing),
            _ => {
                known.listings += 1;
                let listing = Listing::begin(memory, known.listings);
                known.listing = Some(Arc::clone(&listing));
                known.probes = 0;
                listing
            }
        }
    }

    /// The current listing, while it is fresh.
    #[must_use]
    pub fn fresh_listing(&self, fresh_for: Duration) -> Option<Arc<Listing>> {
        self.known.lock().listing.clone().filter(|listing| listing.is_current(fresh_for))
    }

    /// Passes that begin from here on have other offsets than the one of another process that `offset` is of.
    pub fn begin_behind(&self, offset: u64) {
        let mut known = self.known.lock();
        known.listings = known.listings.max(listing::pass_of(offset));
    }

    /// The last listing, however old: a hint of what comes next, to be checked.
    #[must_use]
    pub fn last_listing(&self) -> Option<Arc<Listing>> {
        self.known.lock().listing.clone()
    }

    /// Drops what is known, so that the next question goes to the service.
    pub fn forget(&self) {
        let mut known = self.known.lock();
        known.listing = None;
        known.absent.clear();
        known.own = false;
    }

    /// Forgets what is in the directory; that nothing is in it stays known.
    pub fn forget_entries(&self) {
        let empty = self.known.lock().listing.as_ref().is_some_and(|listing| listing.positions() == 0);
        if !empty {
            self.forget();
        }
    }

    /// The directory was renamed with all below it: its names stay, and their blobs have the versions that `renewed` says,
    /// by the name as it is shown.
    pub fn renew(&self, renewed: impl Fn(&str) -> Option<Committed>) {
        if let Some(listing) = &self.known.lock().listing {
            listing.renew(renewed);
        }
    }

    /// What is known of `name` and not older than `fresh_for`.
    #[must_use]
    pub fn answer(&self, name: &str, fresh_for: Duration) -> Answer {
        let known = self.known.lock();
        if let Some(listing) = known.listing.as_ref().filter(|listing| is_fresh(listing.started(), fresh_for)) {
            match listing.slot(name) {
                Some(slot) => return Answer::Present(slot),
                None if listing.is_complete() => return Answer::Absent(listing.started()),
                None => {}
            }
        }
        match known.absent.get(name) {
            Some(since) if is_fresh(*since, fresh_for) => Answer::Absent(*since),
            _ => Answer::Unknown,
        }
    }

    /// Counts a name that had to be asked for alone; returns how many there were.
    pub fn count_probe(&self) -> u32 {
        let mut known = self.known.lock();
        known.probes += 1;
        known.probes
    }

    /// Remembers that the service, asked at `asked`, did not know `name`.
    pub fn note_absent(&self, name: &str, asked: Instant) {
        let mut known = self.known.lock();
        if known.touched.get(name).is_some_and(|touched| *touched >= asked) {
            return;
        }
        if known.absent.len() >= ABSENT_NAMES_MAX {
            known.absent.clear();
        }
        known.absent.insert(name.into(), asked);
        if let Some(listing) = known.listing.as_ref().filter(|listing| listing.is_older(name, asked)) {
            listing.remove(name);
        }
    }

    /// Remembers what the service said of a single name, where the listing says something older.
    pub fn note_present(&self, slot: &Slot) {
        let mut known = self.known.lock();
        if known.touched.get(&*slot.name).is_some_and(|touched| *touched >= slot.seen) {
            return;
        }
        known.absent.remove(&*slot.name);
        if let Some(listing) = known.listing.as_ref().filter(|listing| listing.is_older(&slot.name, slot.seen)) {
            listing.put(slot);
        }
    }

    /// Notes that a file was removed, and that all is well.
    pub fn note_unlink(&self) {
        let mut known = self.known.lock();
        let goes_on = known.unlinked.is_some_and(|last| is_fresh(last, UNLINKS_PAUSE_MAX));
        known.unlinks = if goes_on { known.unlinks.saturating_add(1) } else { 1 };
        known.unlinked = Some(Instant::now());
    }

    /// Whether so many files were removed in a row, with nothing made or changed in between.
    #[must_use]
    pub fn is_emptied(&self, count: u32) -> bool {
        let known = self.known.lock();
        let goes_on = known.unlinked.is_some_and(|last| is_fresh(last, UNLINKS_PAUSE_MAX));
        count == 0 || (known.unlinks >= count && goes_on)
    }

    /// The row of unlinks is over.
    pub fn end_unlinks(&self) {
        self.known.lock().unlinks = 0;
    }

    /// Puts a name in that was made or changed here.
    pub fn put_local(&self, slot: &Slot) {
        let mut known = self.known.lock();
        known.unlinks = 0;
        known.touch(&slot.name);
        if let Some(listing) = &known.listing {
            listing.put(slot);
        }
    }

    /// Puts a name into a listing as it was at `asked`, unless it was made, changed or removed here since: then `put_local` or
    /// [`Self::remove_local`] has said, or says, how it is. One step, so that neither can come in between.
    pub fn put_listed(&self, listing: &Listing, slot: &Slot, asked: Instant) {
        let known = self.known.lock();
        if known.touched.get(&*slot.name).is_none_or(|touched| *touched < asked) {
            listing.put(slot);
        }
    }

    /// Takes a name out that was removed here.
    pub fn remove_local(&self, name: &str) {
        let mut known = self.known.lock();
        known.touch(name);
        known.absent.insert(name.into(), Instant::now());
        if let Some(listing) = &known.listing {
            listing.remove(name);
        }
    }

    /// Whether `name` was made, changed or removed here after `asked`, so that an answer to a question of that time
    /// says nothing about it.
    #[must_use]
    pub fn is_touched_since(&self, name: &str, asked: Instant) -> bool {
        self.known.lock().touched.get(name).is_some_and(|touched| *touched >= asked)
    }
}

impl Known {
    fn touch(&mut self, name: &str) {
        let now = Instant::now();
        if self.touched.len() >= self.sweep_at.max(TOUCHED_NAMES_MIN) {
            self.touched.retain(|_, touched| now.duration_since(*touched) < TOUCHED_FOR);
            self.sweep_at = self.touched.len() * 2;
        }
        self.absent.remove(name);
        self.touched.insert(name.into(), now);
    }
}

fn is_fresh(since: Instant, fresh_for: Duration) -> bool {
    since.elapsed() < fresh_for
}
