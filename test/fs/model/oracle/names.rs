//! Steps that change or show the names of files.

use azblob_csi::fs::InodeNumber;

use super::{Oracle, has_directory, owned};
use crate::model::{
    file::{Snapshot, Standing},
    step::FILES,
};

impl Oracle {
    /// Whether this node's own version of a name is not the container's any more.
    fn is_overtaken(&self, node: usize, path: &str, now: &Snapshot) -> bool {
        self.sides[node].known(path).is_some_and(|number| {
            let file = &self.sides[node].files[&number];
            (file.is_local() || file.handles > 0) && file.standing(now) != Standing::Current
        })
    }

    /// Whether the directory of a path has gone from the container.
    fn lacks_parent(path: &str, now: &Snapshot) -> bool {
        path.split_once('/').is_some_and(|(directory, _)| !has_directory(now, directory))
    }

    fn local(&self, node: usize, path: &str) -> Option<InodeNumber> {
        self.sides[node].local(path)
    }

    pub async fn unlink(&mut self, node: usize, path: usize) {
        let path = FILES[path];
        let before = self.snapshot();
        let there = self.local(node, path).is_some() || before.contains_key(path);
        let unlinked = self.sides[node].node.unlink(path).await;
        let after = self.snapshot();
        if let Err(error) = unlinked {
            let absent = error.errno == libc::ENOENT && (!there || Self::lacks_parent(path, &before));
            let overtaken = error.errno == libc::ESTALE && self.is_overtaken(node, path, &before);
            if !absent && !overtaken {
                self.fail(error.to_chain());
            }
            return self.unchanged(&before, &after);
        }
        if !there {
            self.fail("a name was removed that is not there");
        }
        let mut expected = owned(&before);
        // A file that was never committed has no blob; what another client has put under its name is not ours to remove.
        let never_committed =
            self.local(node, path).is_some_and(|number| self.sides[node].files[&number].base.is_none());
        if !never_committed || !after.contains_key(path) {
            expected.remove(path);
        }
        self.same(&expected, &after);
        self.lose_name(node, path, &before);
    }

    /// The name was taken from whoever had it on this node: its handles go on, but where the version was gone already.
    fn lose_name(&mut self, node: usize, path: &str, before: &Snapshot) {
        for file in self.side(node).files.values_mut().filter(|file| file.is_at(path)) {
            if file.standing(before) == Standing::Current {
                file.path = None;
            } else {
                file.replaced = true;
            }
        }
        self.side(node).files.retain(|_, file| file.handles > 0 || file.is_local());
    }

    pub async fn rename(&mut self, node: usize, from: usize, to: usize, no_replace: bool) {
        let (from, to) = (FILES[from], FILES[to]);
        let before = self.snapshot();
        let source = self.local(node, from);
        let there = source.is_some() || before.contains_key(from);
        let target_there = self.local(node, to).is_some() || before.contains_key(to);
        let renamed = self.sides[node].node.rename(from, to, no_replace).await;
        let after = self.snapshot();
        if let Err(error) = renamed {
            let absent = error.errno == libc::ENOENT
                && (!there || Self::lacks_parent(from, &before) || Self::lacks_parent(to, &before));
            let taken = error.errno == libc::EEXIST && no_replace && target_there;
            let overtaken = match error.errno {
                libc::ESTALE => self.is_overtaken(node, from, &before) || self.is_overtaken(node, to, &before),
                libc::ENOENT => self.is_overtaken(node, from, &before) && !before.contains_key(from),
                _ => false,
            };
            if !absent && !taken && !overtaken {
                self.fail(error.to_chain());
            }
            return self.partly_saved(node, from, &before, &after);
        }
        if !there || (no_replace && target_there && from != to) {
            self.fail("a rename succeeded that must not");
        }
        if from == to {
            return self.unchanged(&before, &after);
        }
        let bytes = match source {
            Some(number) => self.sides[node].files[&number].content.clone(),
            None => before[from].bytes.clone(),
        };
        let mut expected = owned(&before);
        expected.remove(from);
        expected.insert(to.to_owned(), bytes);
        self.same(&expected, &after);
        self.lose_name(node, to, &before);
        for file in self.side(node).files.values_mut().filter(|file| file.is_at(from)) {
            if file.is_local() || file.standing(&before) != Standing::Gone {
                file.path = Some(to.to_owned());
                file.committed(&after);
            } else {
                file.replaced = true;
            }
        }
    }

    /// A rename that failed has changed nothing, but may have saved the source under its old name.
    fn partly_saved(&mut self, node: usize, from: &str, before: &Snapshot, after: &Snapshot) {
        let mut expected = owned(before);
        let source = self.local(node, from);
        if let Some(number) = source {
            let file = self.sides[node].files[&number].clone();
            let saved = after.get(from).is_some_and(|blob| blob.bytes == file.content);
            if file.standing(before) == Standing::Current && saved {
                expected.insert(from.to_owned(), file.content);
                self.file(node, number).committed(after);
            } else if file.standing(before) == Standing::Gone && file.needs_commit() {
                self.file(node, number).replaced = true;
            }
        }
        self.same(&expected, after);
    }

    pub async fn stat(&mut self, node: usize, path: usize) {
        let path = FILES[path];
        let before = self.snapshot();
        let local = self.local(node, path).map(|number| self.sides[node].files[&number].content.len());
        let size = local.or_else(|| before.get(path).map(|blob| blob.bytes.len()));
        match (self.sides[node].node.stat(path).await, size) {
            (Ok(found), Some(size)) if found == size as u64 => {}
            (Err(error), None) if error.errno == libc::ENOENT => {}
            (Err(error), _) if error.errno == libc::ENOENT && Self::lacks_parent(path, &before) => {}
            (found, size) => self.fail(format!("stat answers {found:?} where {size:?} is right")),
        }
    }

    pub async fn change_mode(&mut self, node: usize, path: usize, mode: u32) {
        let path = FILES[path];
        let before = self.snapshot();
        let local = self.local(node, path);
        let there = local.is_some() || before.contains_key(path);
        let changed = self.sides[node].node.change_mode(path, mode).await;
        let after = self.snapshot();
        self.unchanged(&before, &after);
        match changed {
            Ok(()) if !there => self.fail("the mode of a file was changed that is not there"),
            Ok(()) => {
                let Some(number) = self.sides[node].known(path) else { return };
                let file = self.file(node, number);
                if file.is_local() {
                    file.attributes_dirty = true;
                } else if file.standing(&before) != Standing::Gone {
                    file.committed(&after);
                } else {
                    file.replaced = true;
                }
            }
            Err(error) => {
                let absent = error.errno == libc::ENOENT && (!there || Self::lacks_parent(path, &before));
                let overtaken = error.errno == libc::ESTALE && self.is_overtaken(node, path, &before);
                if !absent && !overtaken {
                    self.fail(error.to_chain());
                }
            }
        }
    }
}
