//! Steps on directories.

use std::collections::BTreeSet;

use super::{Oracle, has_directory, is_below, owned};
use crate::model::{
    file::{Snapshot, Standing},
    step::DIRECTORIES,
};

impl Oracle {
    pub async fn make_directory(&mut self, node: usize, path: usize) {
        let path = DIRECTORIES[path];
        let before = self.snapshot();
        // What another client has removed stays while this node has something of its own in it.
        let there = has_directory(&before, path) || self.sides[node].has_local_below(path);
        let made = self.sides[node].node.make_directory(path).await;
        let after = self.snapshot();
        match made {
            Ok(()) if has_directory(&before, path) => self.fail("mkdir made what was there"),
            Ok(()) => {
                assert!(after.get(path).is_some_and(|blob| blob.directory), "{path} has no mark");
                self.unchanged(&before, &after);
            }
            Err(error) if error.errno == libc::EEXIST && there => {
                self.unchanged(&before, &after);
            }
            Err(error) => self.fail(error.to_chain()),
        }
    }

    pub async fn remove_directory(&mut self, node: usize, path: usize) {
        let path = DIRECTORIES[path];
        let before = self.snapshot();
        let filled = before.keys().any(|name| name.starts_with(&format!("{path}/")));
        let local = self.sides[node].has_local_below(path);
        let removed = self.sides[node].node.remove_directory(path).await;
        let after = self.snapshot();
        match removed {
            Ok(()) if filled || local || !has_directory(&before, path) => self.fail("rmdir removed what it must not"),
            Ok(()) => {
                let mut expected = owned(&before);
                expected.remove(path);
                self.same(&expected, &after);
                assert!(!after.contains_key(path), "{path} is still there");
            }
            Err(error) => {
                let right = match error.errno {
                    libc::ENOTEMPTY => filled || local,
                    libc::ENOENT => !has_directory(&before, path),
                    _ => false,
                };
                if !right {
                    self.fail(error.to_chain());
                }
                self.unchanged(&before, &after);
            }
        }
    }

    pub async fn rename_directory(&mut self, node: usize, from: usize, to: usize) {
        let (from, to) = (DIRECTORIES[from], DIRECTORIES[to]);
        let before = self.snapshot();
        let below = |path: &str| before.keys().any(|name| name.starts_with(&format!("{path}/")));
        let target_filled = below(to) || self.sides[node].has_local_below(to);
        let overtaken = self.sides[node]
            .files
            .values()
            .any(|file| is_below(file, from) && file.is_local() && file.standing(&before) != Standing::Current);
        let renamed = self.sides[node].node.rename(from, to, false).await;
        let after = self.snapshot();
        match renamed {
            Ok(()) if target_filled || !has_directory(&before, from) => self.fail("a rename succeeded that must not"),
            Ok(()) => self.directory_moved(node, (from, to), &before, &after),
            Err(error) => {
                let right = match error.errno {
                    libc::ENOTEMPTY => target_filled,
                    libc::ENOENT => !has_directory(&before, from),
                    libc::ESTALE => overtaken,
                    _ => false,
                };
                if !right {
                    self.fail(error.to_chain());
                }
                self.children_saved(node, from, &before, &after);
            }
        }
    }

    /// Everything below has the new name, with what this node had not committed yet.
    fn directory_moved(&mut self, node: usize, (from, to): (&str, &str), before: &Snapshot, after: &Snapshot) {
        let mut expected = owned(before);
        for file in self.sides[node].files.values().filter(|file| is_below(file, from) && file.is_local()) {
            let Some(path) = &file.path else { continue };
            match file.standing(before) {
                Standing::Gone if !file.needs_commit() => {}
                Standing::Gone => self.fail("a directory moved with a file that another client has replaced"),
                _ => drop(expected.insert(path.clone(), file.content.clone())),
            }
        }
        let moved = |name: String| match name.strip_prefix(from) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{to}{rest}"),
            _ => name,
        };
        let expected = expected.into_iter().map(|(name, bytes)| (moved(name), bytes)).collect();
        self.same(&expected, after);
        assert!(!has_directory(after, from), "{from} is still there");
        for file in self.side(node).files.values_mut().filter(|file| is_below(file, from)) {
            let Some(path) = file.path.clone() else { continue };
            let standing = file.standing(before);
            file.path = Some(moved(path));
            if standing == Standing::Gone && !file.is_local() {
                file.replaced = true;
            } else if standing != Standing::Gone {
                file.committed(after);
            }
        }
    }

    /// A rename that failed has moved nothing, but may have saved files under their old names.
    fn children_saved(&mut self, node: usize, from: &str, before: &Snapshot, after: &Snapshot) {
        let mut expected = owned(before);
        for file in self.side(node).files.values_mut().filter(|file| is_below(file, from) && file.needs_commit()) {
            let Some(path) = file.path.clone() else { continue };
            if file.replaced {
                continue;
            }
            let saved = after.get(&path).is_some_and(|blob| blob.bytes == file.content);
            match file.standing(before) {
                Standing::Gone => file.replaced = after.get(&path).is_some() || file.base.is_some(),
                _ if saved => {
                    expected.insert(path, file.content.clone());
                    file.committed(after);
                }
                _ => {}
            }
        }
        self.same(&expected, after);
    }

    pub async fn list(&mut self, node: usize, directory: Option<usize>) {
        let path = directory.map(|index| DIRECTORIES[index]);
        let before = self.snapshot();
        let listed = match self.sides[node].node.list(path).await {
            Ok(names) => names,
            Err(error) => {
                if error.errno != libc::ENOENT || path.is_none_or(|path| has_directory(&before, path)) {
                    self.fail(error.to_chain());
                }
                return;
            }
        };
        let prefix = path.map(|path| format!("{path}/")).unwrap_or_default();
        let first = |name: &str| {
            let rest = name.strip_prefix(&prefix)?;
            Some(rest.split('/').next().unwrap_or_default().to_owned())
        };
        let committed: BTreeSet<String> = before.keys().filter_map(|name| first(name)).collect();
        let local: BTreeSet<String> = self.sides[node]
            .files
            .values()
            .filter(|file| file.is_local())
            .filter_map(|file| first(file.path.as_deref()?).filter(|name| !name.is_empty()))
            .collect();
        let found: BTreeSet<String> = listed.iter().cloned().collect();
        assert_eq!(found.len(), listed.len(), "{}: a name is listed twice: {listed:?}", self.label);
        let missing: Vec<_> = committed.difference(&found).collect();
        let invented: Vec<_> =
            found.iter().filter(|name| !committed.contains(*name) && !local.contains(*name)).collect();
        if !missing.is_empty() || !invented.is_empty() {
            self.fail(format!("the listing lacks {missing:?} and invents {invented:?}"));
        }
    }
}
