//! Who holds and who waits for which bytes. Plain data and its rules; knows nothing of files and waits for nobody.

use std::{
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
    sync::Arc,
};

use super::super::{handle::HandleId, inode::InodeNumber, takeover::Scribe};
use crate::sync::tokio::sync::Notify;

/// Ranges that one inode may have locked. No program comes near; it bounds the memory of one that never unlocks.
const LOCKS_PER_INODE_MAX: usize = 1 << 16;

/// The system call that locks: the two sorts do not see each other on Linux (flock(2), NOTES).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockCall {
    /// flock(2): of an open file, always all of it.
    Flock,
    /// fcntl(2): of a process (or an open file, F_OFD_SETLK), bytes of it.
    Fcntl,
    /// One of them, and it cannot be told which: such a lock excludes both sorts, as on NFS.
    Either,
}

impl LockCall {
    fn meets(self, other: Self) -> bool {
        self == other || self == Self::Either || other == Self::Either
    }
}

/// Who holds a lock: a number that one view's kernel gives to a process or an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The view's.
    pub view: u64,
    /// The kernel's.
    pub id: u64,
}

/// A lock that is held or wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Whose.
    pub owner: Owner,
    /// Taken by which call.
    pub call: LockCall,
    /// The open file that it was taken through.
    pub handle: HandleId,
    /// The bytes.
    pub range: RangeInclusive<u64>,
    /// Whether it excludes everybody, or only those who exclude.
    pub exclusive: bool,
    /// The process, for whom F_GETLK asks.
    pub pid: u32,
}

impl Lock {
    fn overlaps(&self, range: &RangeInclusive<u64>) -> bool {
        self.range.start() <= range.end() && range.start() <= self.range.end()
    }

    fn excludes(&self, wanted: &Self) -> bool {
        self.owner != wanted.owner
            && self.call.meets(wanted.call)
            && (self.exclusive || wanted.exclusive)
            && self.overlaps(&wanted.range)
    }

    /// What is left of it without `range`.
    fn without(self, range: &RangeInclusive<u64>) -> Vec<Self> {
        if !self.overlaps(range) {
            return vec![self];
        }
        let mut left = Vec::new();
        if self.range.start() < range.start() {
            left.push(Self { range: *self.range.start()..=range.start() - 1, ..self.clone() });
        }
        if self.range.end() > range.end() {
            left.push(Self { range: range.end() + 1..=*self.range.end(), ..self });
        }
        left
    }

    /// Whether both are one lock of one sort, side by side.
    fn continues(&self, other: &Self) -> bool {
        let beside = other.range.end().checked_add(1) == Some(*self.range.start());
        beside && self.owner == other.owner && self.call == other.call && self.exclusive == other.exclusive
    }
}

/// Why a lock was not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Somebody holds it.
    Held,
    /// Waiting would never end: those who hold it wait for the caller.
    Deadlock,
    /// The inode has too many.
    TooMany,
}

#[derive(Debug, Default)]
struct InodeLocks {
    held: Vec<Lock>,
    waiting: Vec<(u64, Lock)>,
    freed: Arc<Notify>,
}

impl InodeLocks {
    fn blockers<'locks>(&'locks self, wanted: &'locks Lock) -> impl Iterator<Item = &'locks Lock> {
        self.held.iter().filter(|held| held.excludes(wanted))
    }

    /// Takes locks away, or parts of them, and says so to those who wait.
    fn give_up(&mut self, gone: impl Fn(&Lock) -> bool, range: &RangeInclusive<u64>) {
        let before = std::mem::take(&mut self.held);
        let mut changed = false;
        for lock in before {
            if gone(&lock) && lock.overlaps(range) {
                changed = true;
                self.held.extend(lock.without(range));
            } else {
                self.held.push(lock);
            }
        }
        if changed {
            self.freed.notify_waiters();
        }
    }

    /// Puts `lock` in the place of what its owner has in its range.
    fn put(&mut self, lock: Lock) {
        let (owner, range) = (lock.owner, lock.range.clone());
        self.give_up(|held| held.owner == owner, &range);
        self.held.push(lock);
        self.held.sort_by_key(|held| (held.owner.view, held.owner.id, *held.range.start()));
        self.held.dedup_by(|next, held| {
            let one = next.continues(held);
            if one {
                held.range = *held.range.start()..=*next.range.end();
            }
            one
        });
    }
}

/// The locks of a volume.
#[derive(Debug, Default)]
pub struct LockTable {
    inodes: HashMap<InodeNumber, InodeLocks>,
    closed_views: HashSet<u64>,
    next_ticket: u64,
    scribe: Option<Arc<Scribe>>,
}

/// All bytes.
pub const EVERYTHING: RangeInclusive<u64> = 0..=u64::MAX;

impl LockTable {
    /// An empty table, written down by `scribe`.
    #[must_use]
    pub fn new(scribe: Option<&Arc<Scribe>>) -> Self {
        Self { scribe: scribe.cloned(), ..Self::default() }
    }

    /// Takes the locks of another process over.
    pub fn take_over(&mut self, left: Vec<(InodeNumber, Vec<Lock>)>) {
        for (number, held) in left {
            self.inodes.entry(number).or_default().held = held;
        }
    }

    /// Writes down what an inode's locks are now.
    fn note(&self, number: InodeNumber) {
        if let Some(scribe) = &self.scribe {
            scribe.note_locks(number, self.inodes.get(&number).map_or(&[], |locks| &locks.held));
        }
    }

    /// Takes `wanted`, if nobody's lock is in the way.
    ///
    /// # Errors
    /// [`Refused::Held`], [`Refused::TooMany`]. As on Linux, a failed flock(2) has then lost the lock that it was to
    /// change.
    pub fn try_lock(&mut self, number: InodeNumber, wanted: &Lock) -> Result<(), Refused> {
        let locks = self.inodes.entry(number).or_default();
        if wanted.call == LockCall::Flock {
            locks.give_up(|held| held.owner == wanted.owner && held.exclusive != wanted.exclusive, &EVERYTHING);
        }
        let refused = match locks.blockers(wanted).next() {
            Some(_) => Some(Refused::Held),
            None => (locks.held.len() >= LOCKS_PER_INODE_MAX).then_some(Refused::TooMany),
        };
        if refused.is_none() {
            locks.put(wanted.clone());
        }
        self.note(number);
        self.tidy(number);
        refused.map_or(Ok(()), Err)
    }

    /// Says that `wanted` is waited for. Returns a ticket for [`Self::stop_waiting`], and what is notified when something
    /// is given up.
    ///
    /// # Errors
    /// [`Refused::Deadlock`].
    pub fn wait(&mut self, number: InodeNumber, wanted: &Lock) -> Result<(u64, Arc<Notify>), Refused> {
        if wanted.call != LockCall::Flock && self.would_deadlock(number, wanted) {
            return Err(Refused::Deadlock);
        }
        self.next_ticket += 1;
        let locks = self.inodes.entry(number).or_default();
        locks.waiting.push((self.next_ticket, wanted.clone()));
        Ok((self.next_ticket, Arc::clone(&locks.freed)))
    }

    /// Ends a wait.
    pub fn stop_waiting(&mut self, number: InodeNumber, ticket: u64) {
        if let Some(locks) = self.inodes.get_mut(&number) {
            locks.waiting.retain(|(waiting, _)| *waiting != ticket);
        }
        self.tidy(number);
    }

    /// Somebody else's lock that keeps `wanted` from being granted.
    #[must_use]
    pub fn blocker(&self, number: InodeNumber, wanted: &Lock) -> Option<Lock> {
        self.inodes.get(&number)?.blockers(wanted).next().cloned()
    }

    /// Gives up what an owner has in a range.
    pub fn unlock(&mut self, number: InodeNumber, owner: Owner, range: &RangeInclusive<u64>) {
        self.give_up(number, |held| held.owner == owner, range);
    }

    /// Gives up what was taken through a handle.
    pub fn close(&mut self, number: InodeNumber, handle: HandleId) {
        self.give_up(number, |held| held.handle == handle, &EVERYTHING);
    }

    /// Gives up what a view's programs have, and ends their waits.
    pub fn close_view(&mut self, view: u64) {
        self.closed_views.insert(view);
        let numbers: Vec<_> = self.inodes.keys().copied().collect();
        for number in numbers {
            if let Some(locks) = self.inodes.get(&number) {
                locks.freed.notify_waiters();
            }
            self.give_up(number, |held| held.owner.view == view, &EVERYTHING);
        }
    }

    /// Whether a view has ended.
    #[must_use]
    pub fn is_closed(&self, view: u64) -> bool {
        self.closed_views.contains(&view)
    }

    fn give_up(&mut self, number: InodeNumber, gone: impl Fn(&Lock) -> bool, range: &RangeInclusive<u64>) {
        if let Some(locks) = self.inodes.get_mut(&number) {
            locks.give_up(gone, range);
            self.note(number);
        }
        self.tidy(number);
    }

    fn tidy(&mut self, number: InodeNumber) {
        if self.inodes.get(&number).is_some_and(|locks| locks.held.is_empty() && locks.waiting.is_empty()) {
            self.inodes.remove(&number);
        }
    }

    /// Whether those in the way of `wanted` wait, through however many others, for its owner.
    fn would_deadlock(&self, number: InodeNumber, wanted: &Lock) -> bool {
        let in_the_way = |number: &InodeNumber, wanted: &Lock| -> Vec<Owner> {
            let locks = self.inodes.get(number);
            locks.map(|locks| locks.blockers(wanted).map(|held| held.owner).collect()).unwrap_or_default()
        };
        let mut seen = HashSet::new();
        let mut next = in_the_way(&number, wanted);
        while let Some(owner) = next.pop() {
            if owner == wanted.owner {
                return true;
            }
            if !seen.insert(owner) {
                continue;
            }
            for (number, locks) in &self.inodes {
                for (_, waiting) in locks.waiting.iter().filter(|(_, waiting)| waiting.owner == owner) {
                    next.extend(in_the_way(number, waiting));
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: InodeNumber = InodeNumber(7);
    const OTHER: InodeNumber = InodeNumber(8);

    fn lock(owner: u64, call: LockCall, range: RangeInclusive<u64>, exclusive: bool) -> Lock {
        Lock { owner: Owner { view: 0, id: owner }, call, handle: HandleId(owner), range, exclusive, pid: owner as u32 }
    }

    fn write(owner: u64, range: RangeInclusive<u64>) -> Lock {
        lock(owner, LockCall::Fcntl, range, true)
    }

    #[test]
    fn the_two_calls_do_not_see_each_other_but_what_may_be_either_meets_both() {
        let mut table = LockTable::default();
        table.try_lock(FILE, &lock(1, LockCall::Flock, EVERYTHING, true)).unwrap();
        table.try_lock(FILE, &write(2, EVERYTHING)).unwrap();
        assert_eq!(table.try_lock(FILE, &lock(3, LockCall::Either, EVERYTHING, true)), Err(Refused::Held));
        table.unlock(FILE, Owner { view: 0, id: 1 }, &EVERYTHING);
        table.unlock(FILE, Owner { view: 0, id: 2 }, &EVERYTHING);
        table.try_lock(FILE, &lock(3, LockCall::Either, EVERYTHING, true)).unwrap();
        assert_eq!(table.try_lock(FILE, &write(2, 5..=5)), Err(Refused::Held));
        assert_eq!(table.blocker(FILE, &write(2, 5..=5)).unwrap().pid, 3);
    }

    #[test]
    fn a_circle_of_waits_is_a_deadlock_and_a_chain_is_none() {
        let mut table = LockTable::default();
        for (number, owner) in [(FILE, 1), (OTHER, 2)] {
            table.try_lock(number, &write(owner, 0..=9)).unwrap();
        }
        table.wait(OTHER, &write(1, 0..=0)).unwrap();
        table.wait(FILE, &write(3, 0..=0)).unwrap();
        assert_eq!(table.wait(FILE, &write(2, 9..=20)).unwrap_err(), Refused::Deadlock);
        table.wait(FILE, &lock(2, LockCall::Flock, EVERYTHING, true)).unwrap();
    }

    #[test]
    fn a_failed_change_of_a_flock_has_lost_the_lock() {
        let mut table = LockTable::default();
        table.try_lock(FILE, &lock(1, LockCall::Flock, EVERYTHING, false)).unwrap();
        table.try_lock(FILE, &lock(2, LockCall::Flock, EVERYTHING, false)).unwrap();
        assert_eq!(table.try_lock(FILE, &lock(1, LockCall::Flock, EVERYTHING, true)), Err(Refused::Held));
        table.try_lock(FILE, &lock(2, LockCall::Flock, EVERYTHING, true)).unwrap();
    }

    #[test]
    fn what_is_closed_is_free_and_nothing_is_remembered_of_it() {
        let mut table = LockTable::default();
        table.try_lock(FILE, &write(1, 0..=9)).unwrap();
        table.close(FILE, HandleId(2));
        assert!(table.blocker(FILE, &write(2, 0..=9)).is_some());
        table.close(FILE, HandleId(1));
        assert!(table.inodes.is_empty());
        table.try_lock(FILE, &write(1, 0..=9)).unwrap();
        table.close_view(0);
        assert!(table.inodes.is_empty() && table.is_closed(0) && !table.is_closed(1));
    }

    proptest! {
        /// Against a model that keeps each byte's holders.
        #[test]
        fn ranges_are_taken_split_and_joined_like_single_bytes(
            steps in prop::collection::vec((0..3u64, 0..16u64, 0..16u64, 0..3u8), 1..60),
        ) {
            let mut table = LockTable::default();
            let mut bytes: Vec<[Option<bool>; 3]> = vec![[None; 3]; 16];
            for (owner, one, two, action) in steps {
                let (start, end) = (one.min(two), one.max(two));
                let touched = start as usize..=end as usize;
                if action == 2 {
                    table.unlock(FILE, Owner { view: 0, id: owner }, &(start..=end));
                    bytes[touched].iter_mut().for_each(|byte| byte[owner as usize] = None);
                    continue;
                }
                let exclusive = action == 1;
                let in_the_way = |byte: &[Option<bool>; 3]| {
                    (0..3).any(|other| other != owner as usize && byte[other].is_some_and(|held| held || exclusive))
                };
                let free = !bytes[touched.clone()].iter().any(in_the_way);
                let taken = table.try_lock(FILE, &lock(owner, LockCall::Fcntl, start..=end, exclusive));
                prop_assert_eq!(taken.is_ok(), free);
                if free {
                    bytes[touched].iter_mut().for_each(|byte| byte[owner as usize] = Some(exclusive));
                }
                let held = table.inodes.get(&FILE).map_or(&[][..], |locks| &locks.held[..]);
                for (at, byte) in bytes.iter().enumerate() {
                    for owner in 0..3u64 {
                        let of_owner = held.iter().filter(|lock| lock.owner.id == owner && lock.range.contains(&(at as u64)));
                        let found: Vec<bool> = of_owner.map(|lock| lock.exclusive).collect();
                        prop_assert_eq!(found, byte[owner as usize].into_iter().collect::<Vec<_>>());
                    }
                }
                let runs = (0..3).map(|owner| {
                    let kinds: Vec<_> = bytes.iter().map(|byte| byte[owner]).collect();
                    (0..16).filter(|&at| kinds[at].is_some() && (at == 0 || kinds[at - 1] != kinds[at])).count()
                });
                prop_assert_eq!(held.len(), runs.sum::<usize>(), "neighbours are one lock");
            }
        }
    }
}
