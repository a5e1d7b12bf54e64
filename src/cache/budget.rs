//! Byte budget of the process: who may hold memory, and who must give it back first.
//!
//! Order: demand reads > dirty data > prefetch. Whoever asks gets a [`Reservation`]; its Drop is what gives the bytes
//! back. Clean cached blocks hold reservations too: when somebody needs memory, the reclaim hook (the block cache)
//! drops the coldest of them. Knows nothing of blobs, blocks, inodes or FUSE.
//!
//! - A *demand* reservation may have every clean byte, prefetched ones included, and waits in turn when all is pinned.
//!   It holds nothing else while it waits (the reader lets go of its blocks first), so waiters cannot block each other.
//! - *Dirty* data has at most [`DIRTY_SHARE`] of the memory. Writers wait for commits, never for each other's reads. One
//!   volume has at most its [`DirtyShare`] of that, and who waits because of it holds nobody else up.
//! - *Prefetch* never waits and never pushes out what somebody prefetched and has not read yet: it is refused, and the
//!   window of its stream shrinks.

use std::{collections::VecDeque, fmt, time::Duration};

use crate::sync::tokio::sync::oneshot;

use crate::sync::{Arc, AtomicU8, AtomicU64, Mutex, Ordering, RwLock, Weak};

/// Smallest budget that works: a handful of blocks for readers, writers and windows. Smaller wishes are raised to it.
pub const MEMORY_BYTES_MIN: u64 = 16 << 20;

/// Part of the budget set aside for what is not pool memory: receive buffers of the FUSE sessions, buffers of HTTP
/// connections, the inode table, stacks. One part in this many (a guess, checked by the peak-RSS test of the mount).
const SET_ASIDE_PART: u64 = 8;

/// Dirty data holds at most one part in this many, so that writers never starve readers.
const DIRTY_SHARE: u64 = 2;

/// Bytes fetched ahead and not yet read hold at most one part in this many: the rest keeps what readers work on.
const PREFETCH_SHARE: u64 = 2;

/// How long a demand read waits for memory at most. Pins last as long as one reply, so a longer wait means that a reply
/// is stuck; the read then goes on over the budget (counted in [`BudgetGauges::overdrafts`]) rather than hang or fail.
const DEMAND_WAIT_MAX: Duration = Duration::from_secs(2);

/// How often a waiter looks again for clean memory: unpinning a block frees nothing by itself and so wakes nobody.
const RECLAIM_INTERVAL: Duration = Duration::from_millis(20);

/// Tries of one non-waiting reservation: between reclaim and retry somebody else may take what was freed.
const RECLAIM_TRIES_MAX: u32 = 4;

/// What memory is wanted for, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// A reader waits for it; also every clean block that was read.
    Demand = 0,
    /// Written and not yet committed.
    Dirty = 1,
    /// Fetched ahead and not yet read.
    Prefetch = 2,
}

/// Somebody who can give clean memory back.
pub trait Reclaim: Send + Sync {
    /// Drops about `bytes` of clean, unpinned memory, coldest first, and returns how many it dropped. May drop
    /// prefetched and unread memory only when `class` is not [`Class::Prefetch`]. Called without any lock held.
    fn reclaim(&self, bytes: u64, class: Class) -> u64;
}

/// How the memory is used right now, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetGauges {
    /// What pool memory may hold in all.
    pub pool_bytes: u64,
    /// Demand reads and clean blocks.
    pub demand_bytes: u64,
    /// Dirty data.
    pub dirty_bytes: u64,
    /// Prefetched and unread.
    pub prefetch_bytes: u64,
    /// Tasks that wait for memory.
    pub waiting: u64,
    /// Demand reads that went over the budget because a wait was too long.
    pub overdrafts: u64,
}

/// The budget of the process. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

struct Inner {
    /// Bytes that reservations may hold in all.
    pool_bytes: u64,
    /// Short sections, nothing awaits and nothing is dropped inside. Innermost lock of the room.
    state: Mutex<State>,
    /// Total of `State::used`, readable without the lock (the pool decides by it what to keep warm).
    used_bytes: AtomicU64,
    overdrafts: AtomicU64,
    reclaimer: RwLock<Option<Weak<dyn Reclaim>>>,
}

#[derive(Default)]
struct State {
    used: [u64; 3],
    demand_waiters: VecDeque<Waiter>,
    dirty_waiters: VecDeque<Waiter>,
}

/// One volume's part of the memory for dirty data. Cloning gives another handle to the same part.
#[derive(Clone, Debug)]
pub struct DirtyShare {
    share: Arc<Share>,
}

#[derive(Debug)]
struct Share {
    limit_bytes: u64,
    /// Changed under the budget's lock only.
    used_bytes: AtomicU64,
}

impl DirtyShare {
    /// What it holds now, in bytes.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.share.used_bytes.load(Ordering::Relaxed)
    }
}

impl Share {
    /// Whether it may hold `bytes` more. As with a class, the first reservation always may.
    fn admits(&self, bytes: u64) -> bool {
        let used = self.used_bytes.load(Ordering::Relaxed);
        used == 0 || used + bytes <= self.limit_bytes
    }
}

/// What somebody asks for.
#[derive(Clone)]
struct Wanted {
    class: Class,
    bytes: u64,
    /// Of dirty data: the volume's part.
    share: Option<Arc<Share>>,
}

impl Wanted {
    fn of(class: Class, bytes: u64) -> Self {
        Self { class, bytes, share: None }
    }

    fn within_share(&self) -> bool {
        self.share.as_ref().is_none_or(|share| share.admits(self.bytes))
    }
}

struct Waiter {
    wanted: Wanted,
    grant: oneshot::Sender<Reservation>,
}

impl State {
    /// Waiters that went away must not hold anybody back.
    fn forget_cancelled(&mut self) {
        for waiters in [&mut self.demand_waiters, &mut self.dirty_waiters] {
            while waiters.front().is_some_and(|waiter| waiter.grant.is_closed()) {
                waiters.pop_front();
            }
        }
    }
}

impl State {
    /// The first writer who waits for the memory of all and not for its own volume's.
    fn first_dirty(&self) -> Option<usize> {
        self.dirty_waiters.iter().position(|waiter| waiter.wanted.within_share())
    }
}

/// Bytes of the budget that somebody holds; dropping it gives them back and serves whoever waits.
pub struct Reservation {
    inner: Arc<Inner>,
    class: AtomicU8,
    bytes: u64,
    share: Option<Arc<Share>>,
}

impl Budget {
    /// A budget for a process that may use `memory_bytes` in all (raised to [`MEMORY_BYTES_MIN`]); one eighth of it is
    /// set aside for what is not pool memory.
    #[must_use]
    pub fn new(memory_bytes: u64) -> Self {
        let memory_bytes = memory_bytes.max(MEMORY_BYTES_MIN);
        let pool_bytes = memory_bytes - memory_bytes / SET_ASIDE_PART;
        Self {
            inner: Arc::new(Inner {
                pool_bytes,
                state: Mutex::default(),
                used_bytes: AtomicU64::new(0),
                overdrafts: AtomicU64::new(0),
                reclaimer: RwLock::new(None),
            }),
        }
    }

    /// Bytes that reservations may hold in all.
    #[must_use]
    pub fn pool_bytes(&self) -> u64 {
        self.inner.pool_bytes
    }

    /// Bytes that reservations hold now.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.inner.used_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that `class` may hold at most.
    #[must_use]
    pub fn limit_bytes(&self, class: Class) -> u64 {
        self.inner.limit(class)
    }

    /// Names who gives clean memory back. There is one; a second call replaces the first.
    pub fn set_reclaimer(&self, reclaimer: Weak<dyn Reclaim>) {
        *self.inner.reclaimer.write() = Some(reclaimer);
    }

    /// A volume's part of the memory for dirty data: one part in `parts`.
    #[must_use]
    pub fn dirty_share(&self, parts: u64) -> DirtyShare {
        let limit_bytes = self.inner.limit(Class::Dirty) / parts.max(1);
        DirtyShare { share: Arc::new(Share { limit_bytes, used_bytes: AtomicU64::new(0) }) }
    }

    /// Reserves without waiting; clean memory is reclaimed for it where the class may. `None` when the class is at its
    /// limit, when somebody more urgent waits, or when all memory is pinned.
    #[must_use]
    pub fn try_reserve(&self, class: Class, bytes: u64) -> Option<Reservation> {
        self.try_wanted(&Wanted::of(class, bytes))
    }

    /// As [`Self::try_reserve`], for dirty data of one volume.
    #[must_use]
    pub fn try_reserve_dirty(&self, share: &DirtyShare, bytes: u64) -> Option<Reservation> {
        self.try_wanted(&Wanted { class: Class::Dirty, bytes, share: Some(Arc::clone(&share.share)) })
    }

    /// Reserves for dirty data of one volume that is in memory already, whether or not it fits: what another process has
    /// left. Everybody else waits until there is room again.
    #[must_use]
    pub fn admit_dirty(&self, share: &DirtyShare, bytes: u64) -> Reservation {
        let wanted = Wanted { class: Class::Dirty, bytes, share: Some(Arc::clone(&share.share)) };
        self.inner.take(&mut self.inner.state.lock(), &wanted);
        self.inner.reservation(&wanted)
    }

    fn try_wanted(&self, wanted: &Wanted) -> Option<Reservation> {
        for _ in 0..RECLAIM_TRIES_MAX {
            match self.inner.admit(wanted) {
                Admission::Granted => return Some(self.inner.reservation(wanted)),
                Admission::Refused => return None,
                Admission::Short(missing) => {
                    if self.inner.reclaim(missing, wanted.class) == 0 {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// Reserves, waiting in turn behind equals. A demand read waits [`DEMAND_WAIT_MAX`] at most; dirty data as long as
    /// it takes (bound it with a deadline); prefetch is served like demand and should use [`Self::try_reserve`].
    ///
    /// Cancel-safe: a dropped future gives its place, or what it was granted, back.
    pub async fn reserve(&self, class: Class, bytes: u64) -> Reservation {
        self.wait_for(Wanted::of(class, bytes)).await
    }

    /// As [`Self::reserve`], for dirty data of one volume.
    pub async fn reserve_dirty(&self, share: &DirtyShare, bytes: u64) -> Reservation {
        self.wait_for(Wanted { class: Class::Dirty, bytes, share: Some(Arc::clone(&share.share)) }).await
    }

    async fn wait_for(&self, wanted: Wanted) -> Reservation {
        if let Some(reservation) = self.try_wanted(&wanted) {
            return reservation;
        }
        let (grant, mut granted) = oneshot::channel();
        {
            let mut state = self.inner.state.lock();
            let waiter = Waiter { wanted: wanted.clone(), grant };
            match wanted.class {
                Class::Dirty => state.dirty_waiters.push_back(waiter),
                Class::Demand | Class::Prefetch => state.demand_waiters.push_back(waiter),
            }
        }
        let started = crate::sync::tokio::time::Instant::now();
        loop {
            self.inner.reclaim_for_waiters();
            if let Ok(Ok(reservation)) = crate::sync::tokio::time::timeout(RECLAIM_INTERVAL, &mut granted).await {
                return reservation;
            }
            if wanted.class != Class::Dirty && started.elapsed() >= DEMAND_WAIT_MAX {
                // A grant that crosses this moment is given back when `granted` is dropped.
                self.inner.overdrafts.fetch_add(1, Ordering::Relaxed);
                let mut state = self.inner.state.lock();
                self.inner.take(&mut state, &wanted);
                drop(state);
                return self.inner.reservation(&wanted);
            }
        }
    }

    /// How the memory is used right now.
    #[must_use]
    pub fn gauges(&self) -> BudgetGauges {
        let state = self.inner.state.lock();
        BudgetGauges {
            pool_bytes: self.inner.pool_bytes,
            demand_bytes: state.used[Class::Demand as usize],
            dirty_bytes: state.used[Class::Dirty as usize],
            prefetch_bytes: state.used[Class::Prefetch as usize],
            waiting: (state.demand_waiters.len() + state.dirty_waiters.len()) as u64,
            overdrafts: self.inner.overdrafts.load(Ordering::Relaxed),
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.gauges().fmt(f)
    }
}

/// What became of one attempt.
enum Admission {
    Granted,
    /// So many clean bytes must go first.
    Short(u64),
    /// No reclaim would help: a limit of the class, or somebody waits before us.
    Refused,
}

impl Inner {
    fn limit(&self, class: Class) -> u64 {
        match class {
            Class::Demand => self.pool_bytes,
            Class::Dirty => self.pool_bytes / DIRTY_SHARE,
            Class::Prefetch => self.pool_bytes / PREFETCH_SHARE,
        }
    }

    fn reservation(self: &Arc<Self>, wanted: &Wanted) -> Reservation {
        Reservation {
            inner: Arc::clone(self),
            class: AtomicU8::new(wanted.class as u8),
            bytes: wanted.bytes,
            share: wanted.share.clone(),
        }
    }

    /// Books what is wanted, whether or not it fits.
    fn take(&self, state: &mut State, wanted: &Wanted) {
        state.used[wanted.class as usize] += wanted.bytes;
        self.used_bytes.fetch_add(wanted.bytes, Ordering::Relaxed);
        if let Some(share) = &wanted.share {
            share.used_bytes.fetch_add(wanted.bytes, Ordering::Relaxed);
        }
    }

    fn admit(&self, wanted: &Wanted) -> Admission {
        let mut state = self.state.lock();
        state.forget_cancelled();
        let somebody_first = match wanted.class {
            Class::Demand => !state.demand_waiters.is_empty(),
            Class::Dirty | Class::Prefetch => !state.demand_waiters.is_empty() || state.first_dirty().is_some(),
        };
        if somebody_first || !self.below_limit(&state, wanted) {
            return Admission::Refused;
        }
        let missing = self.missing(&state, wanted.bytes);
        if missing > 0 {
            return Admission::Short(missing);
        }
        self.take(&mut state, wanted);
        Admission::Granted
    }

    /// Whether class and volume may hold so much more. The first reservation of a class is never refused by its share: a
    /// share smaller than one buffer must not stop the class for ever.
    fn below_limit(&self, state: &State, wanted: &Wanted) -> bool {
        let used = state.used[wanted.class as usize];
        let of_class = wanted.class == Class::Demand || used == 0 || used + wanted.bytes <= self.limit(wanted.class);
        of_class && wanted.within_share()
    }

    /// Bytes that must be freed before `bytes` fit.
    fn missing(&self, state: &State, bytes: u64) -> u64 {
        let used: u64 = state.used.iter().sum();
        (used + bytes).saturating_sub(self.pool_bytes)
    }

    fn reclaim(&self, bytes: u64, class: Class) -> u64 {
        let reclaimer = self.reclaimer.read().as_ref().and_then(Weak::upgrade);
        reclaimer.map_or(0, |reclaimer| reclaimer.reclaim(bytes, class))
    }

    /// Frees clean memory for the waiter whose turn it is, then serves.
    fn reclaim_for_waiters(self: &Arc<Self>) {
        let wanted = {
            let state = self.state.lock();
            self.next_waiter(&state).map(|turn| {
                let wanted = turn.wanted(&state);
                (wanted.class, self.missing(&state, wanted.bytes))
            })
        };
        if let Some((class, missing)) = wanted
            && missing > 0
        {
            // What is dropped serves the waiters itself (Drop of Reservation).
            self.reclaim(missing, class);
        }
        self.serve();
    }

    /// Whose turn it is among those that no limit holds back.
    fn next_waiter(&self, state: &State) -> Option<Turn> {
        if !state.demand_waiters.is_empty() {
            return Some(Turn::Demand);
        }
        let index = state.first_dirty()?;
        self.below_limit(state, &state.dirty_waiters[index].wanted).then_some(Turn::Dirty(index))
    }

    /// Grants waiting requests in order, as far as free memory goes. Grants are sent after the lock is dropped: a
    /// waiter that went away gives its grant back, which takes the lock again.
    fn serve(self: &Arc<Self>) {
        loop {
            let granted = {
                let mut state = self.state.lock();
                match self.next_waiter(&state) {
                    Some(turn) if self.missing(&state, turn.wanted(&state).bytes) == 0 => {
                        let waiter = match turn {
                            Turn::Demand => state.demand_waiters.pop_front(),
                            Turn::Dirty(index) => state.dirty_waiters.remove(index),
                        };
                        waiter.inspect(|waiter| self.take(&mut state, &waiter.wanted))
                    }
                    _ => None,
                }
            };
            let Some(waiter) = granted else { return };
            // Refused grants come back here as a value and are given back by its Drop.
            let _ = waiter.grant.send(self.reservation(&waiter.wanted));
        }
    }
}

/// A waiter whose turn it is.
#[derive(Clone, Copy)]
enum Turn {
    /// The first of the readers.
    Demand,
    /// This one of the writers.
    Dirty(usize),
}

impl Turn {
    fn wanted(self, state: &State) -> &Wanted {
        match self {
            Self::Demand => &state.demand_waiters[0].wanted,
            Self::Dirty(index) => &state.dirty_waiters[index].wanted,
        }
    }
}

impl Reservation {
    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the bytes are held for.
    #[must_use]
    pub fn class(&self) -> Class {
        match self.class.load(Ordering::Relaxed) {
            0 => Class::Demand,
            1 => Class::Dirty,
            _ => Class::Prefetch,
        }
    }

    /// Books the bytes under another class: prefetched data that was read, dirty data that was committed. Never
    /// refused, since no memory changes hands.
    pub fn convert(&self, to: Class) {
        let mut state = self.inner.state.lock();
        let from = self.class.swap(to as u8, Ordering::Relaxed);
        state.used[usize::from(from)] -= self.bytes;
        state.used[to as usize] += self.bytes;
        if let Some(share) = &self.share {
            match (from == Class::Dirty as u8, to == Class::Dirty) {
                (true, false) => drop(share.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed)),
                (false, true) => drop(share.used_bytes.fetch_add(self.bytes, Ordering::Relaxed)),
                _ => {}
            }
        }
        let anybody = !state.dirty_waiters.is_empty();
        drop(state);
        if anybody {
            self.inner.serve();
        }
    }

    /// Cuts `bytes` off into a reservation of their own; all of it when `bytes` is more than is held.
    #[must_use]
    pub fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self {
            inner: Arc::clone(&self.inner),
            class: AtomicU8::new(self.class() as u8),
            bytes,
            share: self.share.clone(),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut state = self.inner.state.lock();
        let class = self.class.load(Ordering::Relaxed);
        state.used[usize::from(class)] -= self.bytes;
        if let Some(share) = self.share.as_ref().filter(|_| class == Class::Dirty as u8) {
            share.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        self.inner.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        let anybody = !state.demand_waiters.is_empty() || !state.dirty_waiters.is_empty();
        drop(state);
        if anybody {
            self.inner.serve();
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes for {:?}", self.bytes, self.class())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_dropped_reservation_gives_its_bytes_back() {
        let budget = Budget::new(16 * MIB);
        assert_eq!(budget.pool_bytes(), 14 * MIB);
        let all = budget.try_reserve(Class::Demand, 14 * MIB).unwrap();
        assert!(budget.try_reserve(Class::Demand, 1).is_none());
        drop(all);
        assert_eq!(budget.used_bytes(), 0);
        assert!(budget.try_reserve(Class::Demand, 14 * MIB).is_some());
    }

    #[test]
    fn dirty_and_prefetch_stay_within_their_shares() {
        let budget = Budget::new(16 * MIB);
        let dirty = budget.try_reserve(Class::Dirty, 7 * MIB).unwrap();
        assert!(budget.try_reserve(Class::Dirty, MIB).is_none());
        let ahead = budget.try_reserve(Class::Prefetch, 6 * MIB).unwrap();
        assert!(budget.try_reserve(Class::Prefetch, 2 * MIB).is_none());
        ahead.convert(Class::Demand);
        assert_eq!(budget.gauges().prefetch_bytes, 0);
        assert_eq!(budget.gauges().demand_bytes, 6 * MIB);
        drop(dirty);
        assert!(budget.try_reserve(Class::Prefetch, 7 * MIB).is_some());
    }

    #[test]
    fn a_split_reservation_is_given_back_part_by_part() {
        let budget = Budget::new(16 * MIB);
        let mut whole = budget.try_reserve(Class::Demand, 3 * MIB).unwrap();
        let part = whole.split(MIB);
        drop(whole);
        assert_eq!(budget.used_bytes(), MIB);
        drop(part);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn a_demand_waiter_is_served_before_a_dirty_one_and_nobody_overtakes_it() {
        let budget = Budget::new(16 * MIB);
        let held = budget.try_reserve(Class::Demand, 14 * MIB).unwrap();
        let dirty = crate::sync::tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(Class::Dirty, 7 * MIB).await }
        });
        let demand = crate::sync::tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(Class::Demand, 14 * MIB).await }
        });
        while budget.gauges().waiting < 2 {
            crate::sync::tokio::task::yield_now().await;
        }
        assert!(budget.try_reserve(Class::Prefetch, 0).is_none());
        drop(held);
        let served = demand.await.unwrap();
        assert_eq!(budget.gauges().dirty_bytes, 0);
        drop(served);
        assert_eq!(dirty.await.unwrap().bytes(), 7 * MIB);
    }

    #[tokio::test]
    async fn a_volume_at_its_share_waits_alone() {
        let budget = Budget::new(16 * MIB);
        let (full, other) = (budget.dirty_share(2), budget.dirty_share(2));
        let held = budget.try_reserve_dirty(&full, 3 * MIB).unwrap();
        assert!(budget.try_reserve_dirty(&full, MIB).is_none(), "half of 7 MiB is the most for one volume");
        let waiting = crate::sync::tokio::spawn({
            let (budget, full) = (budget.clone(), full.clone());
            async move { budget.reserve_dirty(&full, MIB).await }
        });
        while budget.gauges().waiting < 1 {
            crate::sync::tokio::task::yield_now().await;
        }
        let theirs = budget.try_reserve_dirty(&other, 3 * MIB).expect("who waits for its own volume holds nobody up");
        assert!(budget.try_reserve(Class::Prefetch, MIB).is_some());
        drop(theirs);
        assert!(!waiting.is_finished());
        held.convert(Class::Demand);
        assert_eq!(waiting.await.unwrap().bytes(), MIB);
        drop(held);
        assert_eq!(budget.used_bytes(), 0);
        let all = budget.dirty_share(1);
        assert!(budget.try_reserve_dirty(&all, 7 * MIB).is_some());
    }

    #[tokio::test]
    async fn what_is_in_memory_already_is_counted_beyond_every_limit() {
        let budget = Budget::new(16 * MIB);
        let share = budget.dirty_share(2);
        let left = budget.admit_dirty(&share, 20 * MIB);
        assert_eq!((left.bytes(), share.used_bytes(), budget.used_bytes()), (20 * MIB, 20 * MIB, 20 * MIB));
        assert!(budget.try_reserve_dirty(&share, 4096).is_none());
        assert!(budget.try_reserve(Class::Demand, 4096).is_none());
        drop(left);
        assert_eq!((share.used_bytes(), budget.used_bytes()), (0, 0));
        assert!(budget.try_reserve_dirty(&share, 4096).is_some());
    }

    #[tokio::test]
    async fn a_cancelled_waiter_leaves_nothing_behind() {
        let budget = Budget::new(16 * MIB);
        let held = budget.try_reserve(Class::Demand, 14 * MIB).unwrap();
        let waiting =
            crate::sync::tokio::time::timeout(Duration::from_millis(5), budget.reserve(Class::Dirty, MIB)).await;
        assert!(waiting.is_err());
        drop(held);
        assert_eq!(budget.used_bytes(), 0);
        assert_eq!(budget.gauges().waiting, 0);
    }

    #[tokio::test]
    async fn a_demand_read_goes_over_the_budget_rather_than_hang() {
        let budget = Budget::new(16 * MIB);
        let _stuck = budget.try_reserve(Class::Demand, 14 * MIB).unwrap();
        let read = budget.reserve(Class::Demand, MIB).await;
        assert_eq!(read.bytes(), MIB);
        assert_eq!(budget.gauges().overdrafts, 1);
    }
}
