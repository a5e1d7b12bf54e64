//! What each step may answer, and what the container must hold behind it.
//!
//! The promises that it holds us to:
//! 1. A read answers the bytes of its version with everything written here over them, or ESTALE where that version is
//!    gone from the container; never anything else.
//! 2. A commit that succeeds leaves exactly the file's bytes under its name, and the version it was made over was there
//!    until then. One that fails with ESTALE leaves the container as it was.
//! 3. An open sees what the container holds, unless this node has something of its own under the name.
//! 4. A name operation changes the names it says, and no byte of any other blob.
//! 5. A lost reply, a reset, a refusal or a cut body changes none of this.

#[path = "oracle/directories.rs"]
mod directories;
#[path = "oracle/files.rs"]
mod files;
#[path = "oracle/names.rs"]
mod names;

use std::collections::{BTreeMap, HashMap};

use azblob_csi::fs::{HandleId, InodeNumber};

use super::{
    file::{File, Snapshot, Standing, bytes_of},
    node::Node,
    step::{Action, DIRECTORIES, NODES, Step},
};
use crate::support::{random::Random, service::Service};

/// An open handle.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    pub id: HandleId,
    pub number: InodeNumber,
    pub write: bool,
}

/// One node and what programs on it believe.
pub struct Side {
    pub node: Node,
    pub files: HashMap<InodeNumber, File>,
    pub handles: Vec<Open>,
}

impl Side {
    async fn mount(service: &Service) -> Self {
        Self { node: Node::mount(service).await, files: HashMap::new(), handles: Vec::new() }
    }

    /// What this node itself has under a name.
    pub fn local(&self, path: &str) -> Option<InodeNumber> {
        self.files.iter().find(|(_, file)| file.is_at(path) && file.is_local()).map(|(number, _)| *number)
    }

    /// The file that this node knows under a name, its own or not.
    pub fn known(&self, path: &str) -> Option<InodeNumber> {
        self.files.iter().find(|(_, file)| file.is_at(path)).map(|(number, _)| *number)
    }

    /// Whether this node has a file of its own below a directory.
    pub fn has_local_below(&self, directory: &str) -> bool {
        self.files.values().any(|file| file.is_local() && is_below(file, directory))
    }

    pub fn handle(&self, index: usize) -> Option<Open> {
        (!self.handles.is_empty()).then(|| self.handles[index % self.handles.len()])
    }
}

pub fn is_below(file: &File, directory: &str) -> bool {
    file.path.as_ref().is_some_and(|path| path.starts_with(&format!("{directory}/")))
}

/// Whether a directory is there: its mark, or anything below it.
pub fn has_directory(snapshot: &Snapshot, path: &str) -> bool {
    let below = format!("{path}/");
    snapshot.get(path).is_some_and(|blob| blob.directory) || snapshot.keys().any(|name| name.starts_with(&below))
}

/// The judge.
pub struct Oracle {
    service: Service,
    sides: Vec<Side>,
    random: Random,
    label: String,
}

impl Oracle {
    pub async fn start() -> Self {
        let service = Service::start();
        let mut sides = Vec::new();
        for _ in 0..NODES {
            sides.push(Side::mount(&service).await);
        }
        Self { service, sides, random: Random::new(1), label: String::new() }
    }

    /// Takes a step, and panics where a promise is broken.
    pub async fn judge(&mut self, index: usize, step: &Step) {
        self.label = format!("step {index}: {step:?}");
        if let Some(fault) = &step.fault {
            self.service.emulator().fault(fault.clone());
        }
        self.act(&step.action).await;
        self.sides.iter().for_each(|side| side.node.forget());
        self.service.relent();
    }

    async fn act(&mut self, action: &Action) {
        match *action {
            Action::Create { node, path, exclusive } => self.create(node, path, exclusive).await,
            Action::Open { node, path, write } => self.open(node, path, write).await,
            Action::Write { node, handle, offset, length } => self.write(node, handle, offset, length).await,
            Action::Cut { node, handle, size } => self.cut(node, handle, size).await,
            Action::Read { node, handle, offset, length } => self.read(node, handle, offset, length).await,
            Action::Sync { node, handle } => self.sync(node, handle).await,
            Action::Close { node, handle } => self.close(node, handle).await,
            Action::Unlink { node, path } => self.unlink(node, path).await,
            Action::Rename { node, from, to, no_replace } => self.rename(node, from, to, no_replace).await,
            Action::MakeDirectory { node, path } => self.make_directory(node, path).await,
            Action::RemoveDirectory { node, path } => self.remove_directory(node, path).await,
            Action::RenameDirectory { node, from, to } => self.rename_directory(node, from, to).await,
            Action::List { node, directory } => self.list(node, directory).await,
            Action::Stat { node, path } => self.stat(node, path).await,
            Action::ChangeMode { node, path, mode } => self.change_mode(node, path, mode).await,
            Action::ForeignPut { path, length } => {
                let bytes = self.random.bytes(length);
                self.service.put(super::step::FILES[path], &bytes);
            }
            Action::ForeignDelete { path } => self.service.remove(super::step::FILES[path]),
            Action::Remount { node } => self.remount(node, true).await,
            Action::Crash { node } => self.remount(node, false).await,
        }
    }

    /// Saves what can be saved, and lets a third node read all of it.
    pub async fn finish(&mut self) {
        self.label = "the end".to_owned();
        for node in 0..NODES {
            self.remount(node, true).await;
        }
        let fresh = Node::mount(&self.service).await;
        for (path, blob) in self.snapshot().iter().filter(|(_, blob)| !blob.directory) {
            let (_, handle) = fresh.open(path, false).await.unwrap();
            let read = fresh.read(handle, 0, blob.bytes.len() + 1).await.unwrap();
            assert!(read == blob.bytes, "{path} reads differently on a third node");
            fresh.close(handle).await.unwrap();
        }
    }

    /// Ends a node, flushed or crashed, and mounts it again.
    async fn remount(&mut self, node: usize, flush: bool) {
        let before = self.snapshot();
        if flush {
            self.sides[node].node.flush().await;
        }
        let after = self.snapshot();
        let mut expected: BTreeMap<String, Vec<u8>> = owned(&before);
        if flush {
            for file in self.sides[node].files.values().filter(|file| file.needs_commit() && !file.replaced) {
                let Some(path) = &file.path else { continue };
                let saved = after.get(path).is_some_and(|blob| blob.bytes == file.content);
                match file.standing(&before) {
                    // A directory that went with its name takes what was not saved in it along.
                    Standing::Current if !saved => {
                        let orphaned = path.split_once('/').is_some_and(|(parent, _)| !has_directory(&before, parent));
                        assert!(orphaned, "{}: {path} was not saved at the end", self.label);
                    }
                    Standing::Gone if file.dirty => continue,
                    _ if saved => drop(expected.insert(path.clone(), file.content.clone())),
                    _ => {}
                }
            }
        }
        self.same(&expected, &after);
        self.sides[node] = Side::mount(&self.service).await;
    }

    pub fn snapshot(&self) -> Snapshot {
        self.service.snapshot()
    }

    /// The container holds exactly these files. Marks of directories do not count: a bare prefix is a directory as well,
    /// and gets its mark when it would go without one.
    pub fn same(&self, expected: &BTreeMap<String, Vec<u8>>, after: &Snapshot) {
        let is_file = |name: &str| !DIRECTORIES.contains(&name);
        let expected = expected.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        let expected: BTreeMap<&str, &[u8]> = expected.filter(|(name, _)| is_file(name)).collect();
        let mut found = bytes_of(after);
        found.retain(|name, _| is_file(name));
        let names = |map: &BTreeMap<&str, &[u8]>| {
            map.iter().map(|(name, bytes)| format!("{name} ({})", bytes.len())).collect::<Vec<_>>().join(", ")
        };
        assert!(found == expected, "{}: the container holds {}, not {}", self.label, names(&found), names(&expected));
    }

    pub fn unchanged(&self, before: &Snapshot, after: &Snapshot) {
        self.same(&owned(before), after);
    }

    pub fn fail(&self, what: impl std::fmt::Display) -> ! {
        panic!("{}: {what}", self.label)
    }

    pub fn side(&mut self, node: usize) -> &mut Side {
        &mut self.sides[node]
    }

    pub fn file(&mut self, node: usize, number: InodeNumber) -> &mut File {
        self.sides[node].files.get_mut(&number).unwrap()
    }
}

pub fn owned(snapshot: &Snapshot) -> BTreeMap<String, Vec<u8>> {
    snapshot.iter().map(|(name, blob)| (name.clone(), blob.bytes.clone())).collect()
}
