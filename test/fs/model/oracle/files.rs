//! Steps on files that are open, and opening them.

use azblob_csi::fs::{HandleId, InodeNumber, Result};

use super::{Open, Oracle, has_directory, owned};
use crate::model::{
    file::{File, Snapshot, Standing},
    step::FILES,
};

impl Oracle {
    /// Whether the directory of a path is there; `None` where this node alone has something in it, so that both answers
    /// are right.
    fn has_parent(&self, node: usize, path: &str, before: &Snapshot) -> Option<bool> {
        let Some((directory, _)) = path.split_once('/') else { return Some(true) };
        match has_directory(before, directory) {
            true => Some(true),
            false if self.sides[node].has_local_below(directory) => None,
            false => Some(false),
        }
    }

    pub async fn create(&mut self, node: usize, path: usize, exclusive: bool) {
        let path = FILES[path];
        let before = self.snapshot();
        let there = self.sides[node].local(path).is_some() || before.contains_key(path);
        let made = self.sides[node].node.create(path, exclusive).await;
        let after = self.snapshot();
        match (made, self.has_parent(node, path, &before)) {
            (Err(error), Some(false) | None) if error.errno == libc::ENOENT => self.unchanged(&before, &after),
            (Err(error), _) if error.errno == libc::EEXIST && exclusive && there => self.unchanged(&before, &after),
            (Err(error), _) => self.fail(error.to_chain()),
            (Ok(_), _) if exclusive && there => self.fail("O_EXCL made a file that was there"),
            (Ok(opened), _) => {
                let mut expected = owned(&before);
                if exclusive {
                    expected.insert(path.to_owned(), Vec::new());
                }
                self.same(&expected, &after);
                self.opened(node, path, opened, true, &after);
            }
        }
    }

    pub async fn open(&mut self, node: usize, path: usize, write: bool) {
        let path = FILES[path];
        let before = self.snapshot();
        let there = self.sides[node].local(path).is_some() || before.contains_key(path);
        let opened = self.sides[node].node.open(path, write).await;
        self.unchanged(&before, &self.snapshot());
        match opened {
            Ok(_) if !there => self.fail("a file was opened that is not there"),
            Ok(opened) => self.opened(node, path, opened, write, &before),
            Err(error) => {
                let may_be_gone = self.has_parent(node, path, &before) != Some(true);
                if error.errno != libc::ENOENT || (there && !may_be_gone) {
                    self.fail(error.to_chain());
                }
            }
        }
    }

    /// Notes a handle; the inode behind it must be the one that the name leads to.
    fn opened(&mut self, node: usize, path: &str, opened: (InodeNumber, HandleId), write: bool, now: &Snapshot) {
        let (number, id) = opened;
        let local = self.sides[node].local(path);
        if local.is_some_and(|local| local != number) {
            self.fail("a file that is ours was not the one that was opened");
        }
        let known = self.sides[node].files.get(&number).cloned();
        let fits = known
            .as_ref()
            .is_none_or(|known| known.is_at(path) && (known.is_local() || known.standing(now) != Standing::Gone));
        if !fits {
            self.fail("an old version was opened under the name of a new one");
        }
        let side = self.side(node);
        // Whoever had the name before and has nothing of its own has lost it to what the container holds.
        for (_, other) in side.files.iter_mut().filter(|(other, file)| **other != number && file.is_at(path)) {
            other.replaced = true;
        }
        let file = side.files.entry(number).or_insert_with(|| match now.get(path) {
            Some(blob) => File::of(path, blob),
            None => File::new(path),
        });
        file.handles += 1;
        file.writers += u32::from(write);
        side.handles.push(Open { id, number, write });
    }

    pub async fn write(&mut self, node: usize, handle: usize, offset: u64, length: usize) {
        let Some(open) = self.sides[node].handle(handle).filter(|open| open.write) else { return };
        let data = self.random.bytes(length);
        let before = self.snapshot();
        let written = self.sides[node].node.write(open.id, offset, &data).await;
        self.unchanged(&before, &self.snapshot());
        match written {
            Ok(()) => self.file(node, open.number).write(offset, &data),
            Err(error) => self.refused_by_version(node, open.number, &before, &error),
        }
    }

    pub async fn cut(&mut self, node: usize, handle: usize, size: u64) {
        let Some(open) = self.sides[node].handle(handle).filter(|open| open.write) else { return };
        let before = self.snapshot();
        let cut = self.sides[node].node.cut(open.id, open.number, size).await;
        self.unchanged(&before, &self.snapshot());
        match cut {
            Ok(()) => self.file(node, open.number).cut(size),
            Err(error) => self.refused_by_version(node, open.number, &before, &error),
        }
    }

    /// ESTALE is right where the version is gone from the container, and nowhere else.
    fn refused_by_version(&mut self, node: usize, number: InodeNumber, now: &Snapshot, error: &azblob_csi::fs::Error) {
        let file = self.file(node, number);
        let gone = file.replaced || (file.path.is_some() && file.standing(now) != Standing::Current);
        if error.errno != libc::ESTALE || !gone {
            self.fail(error.to_chain());
        }
    }

    pub async fn read(&mut self, node: usize, handle: usize, offset: u64, length: usize) {
        let Some(open) = self.sides[node].handle(handle) else { return };
        let before = self.snapshot();
        let read = self.sides[node].node.read(open.id, offset, length).await;
        match read {
            Ok(bytes) => {
                let fits = self.file(node, open.number).slice(offset, length) == bytes;
                if !fits {
                    self.fail(format!("a read of {} bytes answers others", bytes.len()));
                }
            }
            Err(error) => self.refused_by_version(node, open.number, &before, &error),
        }
    }

    pub async fn sync(&mut self, node: usize, handle: usize) {
        let Some(open) = self.sides[node].handle(handle) else { return };
        let before = self.snapshot();
        let synced = self.sides[node].node.sync(open.id).await;
        self.saved(node, open.number, &before, synced, true);
    }

    pub async fn close(&mut self, node: usize, handle: usize) {
        let Some(open) = self.sides[node].handle(handle) else { return };
        let before = self.snapshot();
        let closed = self.sides[node].node.close(open.id).await;
        self.saved(node, open.number, &before, closed, open.write);
        let side = self.side(node);
        side.handles.retain(|other| other.id != open.id);
        let file = self.file(node, open.number);
        file.handles -= 1;
        file.writers -= u32::from(open.write);
        if file.handles == 0 && (file.path.is_none() || file.replaced || !file.is_local()) {
            self.side(node).files.remove(&open.number);
        }
    }

    /// Judges a commit: all of the file under its name, or ESTALE and nothing.
    fn saved(&mut self, node: usize, number: InodeNumber, before: &Snapshot, saved: Result<()>, commits: bool) {
        let after = self.snapshot();
        let file = self.file(node, number).clone();
        let orphaned = file
            .path
            .as_ref()
            .and_then(|path| path.split_once('/'))
            .is_some_and(|(parent, _)| !has_directory(before, parent));
        let (path, must_commit) = match &file.path {
            Some(path) if commits && file.needs_commit() && !file.replaced => (path.clone(), true),
            _ => (String::new(), false),
        };
        match saved {
            Ok(()) if must_commit => {
                if file.standing(before) == Standing::Gone {
                    self.fail("a commit succeeded over another client's version");
                }
                let mut expected = owned(before);
                expected.insert(path, file.content);
                self.same(&expected, &after);
                self.file(node, number).committed(&after);
            }
            Ok(()) => self.unchanged(before, &after),
            Err(error) => {
                let conflict = file.replaced || file.standing(before) != Standing::Current || orphaned;
                if error.errno != libc::ESTALE || file.path.is_none() || !conflict {
                    self.fail(error.to_chain());
                }
                self.unchanged(before, &after);
                self.file(node, number).replaced = true;
            }
        }
    }
}
