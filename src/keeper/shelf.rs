//! Who holds what: groups of items, each group free or claimed by one connection. Knows nothing of sockets.

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

/// One connection of a client, numbered by the keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientId(pub u64);

/// Something that is held.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its name within the group.
    pub key: String,
    /// What its owner wants to read again.
    pub note: Vec<u8>,
    /// What it stands for. Shared, so that an item is cheap to copy.
    pub descriptors: Arc<Vec<OwnedFd>>,
}

#[derive(Debug)]
enum Owner {
    Client {
        id: ClientId,
        pid: i32,
    },
    /// Since then.
    Nobody(Instant),
}

#[derive(Debug)]
struct Group {
    owner: Owner,
    items: BTreeMap<String, Item>,
}

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    groups: HashMap<String, Group>,
}

impl Shelf {
    /// Gives `group` to a client. Returns how many items it has.
    ///
    /// # Errors
    /// The process that has it.
    pub(super) fn claim(&mut self, group: &str, id: ClientId, pid: i32) -> Result<usize, i32> {
        let owner = Owner::Client { id, pid };
        match self.groups.get_mut(group) {
            Some(Group { owner: Owner::Client { pid, .. }, .. }) => Err(*pid),
            Some(group) => {
                group.owner = owner;
                Ok(group.items.len())
            }
            None => {
                self.groups.insert(group.to_owned(), Group { owner, items: BTreeMap::new() });
                Ok(0)
            }
        }
    }

    /// Frees the group of a client that is gone, and returns how many items it leaves. A group without items is forgotten.
    pub(super) fn free(&mut self, group: &str, id: ClientId, now: Instant) -> usize {
        let Some(found) = self.groups.get_mut(group) else { return 0 };
        if !matches!(found.owner, Owner::Client { id: owner, .. } if owner == id) {
            return 0;
        }
        found.owner = Owner::Nobody(now);
        let held = found.items.len();
        if held == 0 {
            self.groups.remove(group);
        }
        held
    }

    /// How many groups there are, and items in them.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.groups.len(), self.groups.values().map(|group| group.items.len()).sum())
    }

    /// Holds `item`; what had its key before is returned, to be closed.
    pub(super) fn keep(&mut self, group: &str, item: Item) -> Option<Item> {
        self.groups.get_mut(group)?.items.insert(item.key.clone(), item)
    }

    /// Lets an item go.
    pub(super) fn take(&mut self, group: &str, key: &str) -> Option<Item> {
        self.groups.get_mut(group)?.items.remove(key)
    }

    /// All items of `group`, in the order of their keys.
    pub(super) fn items(&self, group: &str) -> Vec<Item> {
        self.groups.get(group).map(|group| group.items.values().cloned().collect()).unwrap_or_default()
    }

    /// Takes out what nobody has come for in `age`: the groups' names and their items.
    pub(super) fn abandoned(&mut self, age: Duration, now: Instant) -> Vec<(String, Vec<Item>)> {
        let is_old = |group: &Group| match group.owner {
            Owner::Nobody(since) => now.duration_since(since) >= age,
            Owner::Client { .. } => false,
        };
        let old = self.groups.extract_if(|_, group| is_old(group));
        old.map(|(name, group)| (name, group.items.into_values().collect())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(60);

    fn item(key: &str) -> Item {
        Item { key: key.to_owned(), note: Vec::new(), descriptors: Arc::default() }
    }

    #[test]
    fn a_group_has_one_owner_and_outlives_it() {
        let mut shelf = Shelf::default();
        let now = Instant::now();
        assert_eq!(shelf.claim("plugin", ClientId(1), 10), Ok(0));
        assert_eq!(shelf.claim("plugin", ClientId(2), 20), Err(10));
        assert_eq!(shelf.claim("other", ClientId(2), 20), Ok(0));
        assert!(shelf.keep("plugin", item("b")).is_none());
        assert!(shelf.keep("plugin", item("a")).is_none());
        assert!(shelf.keep("plugin", item("a")).is_some());
        // A connection that never had it frees nothing.
        assert_eq!(shelf.free("plugin", ClientId(2), now), 0);
        assert_eq!(shelf.claim("plugin", ClientId(3), 30), Err(10));
        assert_eq!(shelf.counts(), (2, 2));
        assert_eq!(shelf.free("plugin", ClientId(1), now), 2);
        assert_eq!(shelf.claim("plugin", ClientId(3), 30), Ok(2));
        let keys: Vec<String> = shelf.items("plugin").into_iter().map(|item| item.key).collect();
        assert_eq!(keys, ["a", "b"]);
        assert!(shelf.take("plugin", "a").is_some() && shelf.take("plugin", "a").is_none());
    }

    #[test]
    fn what_nobody_comes_for_is_let_go_and_what_is_claimed_stays() {
        let mut shelf = Shelf::default();
        let now = Instant::now();
        for (group, id) in [("left", 1), ("taken", 2), ("empty", 3)] {
            shelf.claim(group, ClientId(id), 1).unwrap();
            if group != "empty" {
                shelf.keep(group, item("x"));
            }
            shelf.free(group, ClientId(id), now);
        }
        shelf.claim("taken", ClientId(4), 1).unwrap();
        assert!(shelf.abandoned(AGE, now + AGE / 2).is_empty());
        let gone = shelf.abandoned(AGE, now + AGE);
        assert_eq!(gone.iter().map(|(name, items)| (name.as_str(), items.len())).collect::<Vec<_>>(), [("left", 1)]);
        assert_eq!(shelf.items("taken").len(), 1);
    }
}
