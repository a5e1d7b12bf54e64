//! The memory that names of a volume's directories may take: a part of the process's budget.
//!
//! Listings count what they hold here. Past the limit the coldest are given up, whole where nobody reads them, else the
//! pages that were read already: `find` over millions of names works in a few MiB. Correctness never depends on
//! what is kept: what was given up is asked for again.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};

use super::listing::Listing;
use crate::{
    cache::{Budget, Class, Reservation},
    sync::Mutex,
};

/// Names hold at most one part in this many of the budget: the rest is for bytes. 200,000 names in the smallest common
/// budget, 128 MiB.
const NAMES_PART: u64 = 4;
/// What is reserved at a time: reserving has a price, names come by the thousand.
const STEP_BYTES: u64 = 256 << 10;

/// See the module's doc.
#[derive(Debug)]
pub struct NameMemory {
    budget: Budget,
    limit_bytes: u64,
    used_bytes: AtomicU64,
    /// Counts questions: who was asked longest ago goes first.
    clock: AtomicU64,
    listings: Mutex<Vec<Weak<Listing>>>,
    /// `STEP_BYTES` each.
    reserved: Mutex<Vec<Reservation>>,
}

impl NameMemory {
    /// A volume's part of `budget`.
    #[must_use]
    pub fn new(budget: &Budget) -> Arc<Self> {
        Arc::new(Self {
            budget: budget.clone(),
            limit_bytes: budget.pool_bytes() / NAMES_PART,
            used_bytes: AtomicU64::new(0),
            clock: AtomicU64::new(0),
            listings: Mutex::default(),
            reserved: Mutex::default(),
        })
    }

    /// Bytes that names take now.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// The next tick of its clock.
    pub(super) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a listing among those that may be given up.
    pub(super) fn watch(&self, listing: &Arc<Listing>) {
        let mut listings = self.listings.lock();
        if listings.len() == listings.capacity() {
            listings.retain(|listing| listing.strong_count() > 0);
        }
        listings.push(Arc::downgrade(listing));
    }

    /// A listing that held `before` bytes holds `after` now.
    pub(super) fn recount(&self, before: u64, after: u64) {
        self.used_bytes.fetch_add(after, Ordering::Relaxed);
        self.give_back(before);
    }

    /// A listing has gone.
    pub(super) fn give_back(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Reserves what names take, or gives names up. To be called when names were added, without any lock held.
    pub fn settle(&self) {
        if !self.reserve() {
            self.give_up();
            self.reserve();
        }
    }

    /// Brings the reservations in line with what is used; `false`: there is no memory for it.
    fn reserve(&self) -> bool {
        let used = self.used_bytes();
        let mut reserved = self.reserved.lock();
        let steps = used.div_ceil(STEP_BYTES) as usize;
        reserved.truncate(steps);
        if used > self.limit_bytes {
            return false;
        }
        while reserved.len() < steps {
            let Some(step) = self.budget.try_reserve(Class::Demand, STEP_BYTES) else { return false };
            reserved.push(step);
        }
        true
    }

    /// Gives names up until three quarters of what may be used are, so that it is not soon to be done again.
    fn give_up(&self) {
        let mut listings: Vec<Arc<Listing>> = self.listings.lock().iter().filter_map(Weak::upgrade).collect();
        listings.sort_by_cached_key(|listing| listing.used());
        let reserved = self.reserved.lock().len() as u64 * STEP_BYTES;
        let enough = self.limit_bytes.min(reserved.max(STEP_BYTES)) / 4 * 3;
        for listing in listings {
            if self.used_bytes() <= enough {
                return;
            }
            // Two references are ours and the directory's: a third is a reader's, or that of who fetches a page.
            listing.give_up(Arc::strong_count(&listing) > 2);
        }
    }
}
