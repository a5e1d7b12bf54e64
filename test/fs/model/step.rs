//! What can be done in one step, and how steps are drawn. Few names and small files: collisions are what is looked for.

use blob_emulator::{FaultKind, FaultRule};
use proptest::prelude::*;

/// Paths that files may have.
pub const FILES: [&str; 6] = ["a", "b", "c", "d/x", "d/y", "e/x"];
/// Paths that directories may have.
pub const DIRECTORIES: [&str; 2] = ["d", "e"];
/// How many nodes there are.
pub const NODES: usize = 2;

/// What happens. Nodes, paths and handles are indexes; a handle's counts among those that are open, round and round.
#[derive(Clone, Debug)]
pub enum Action {
    Create { node: usize, path: usize, exclusive: bool },
    Open { node: usize, path: usize, write: bool },
    Write { node: usize, handle: usize, offset: u64, length: usize },
    Cut { node: usize, handle: usize, size: u64 },
    Read { node: usize, handle: usize, offset: u64, length: usize },
    Sync { node: usize, handle: usize },
    Close { node: usize, handle: usize },
    Unlink { node: usize, path: usize },
    Rename { node: usize, from: usize, to: usize, no_replace: bool },
    MakeDirectory { node: usize, path: usize },
    RemoveDirectory { node: usize, path: usize },
    RenameDirectory { node: usize, from: usize, to: usize },
    List { node: usize, directory: Option<usize> },
    Stat { node: usize, path: usize },
    ChangeMode { node: usize, path: usize, mode: u32 },
    ForeignPut { path: usize, length: usize },
    ForeignDelete { path: usize },
    Remount { node: usize },
    Crash { node: usize },
}

/// An action, and what goes wrong on the way.
#[derive(Clone, Debug)]
pub struct Step {
    pub action: Action,
    pub fault: Option<FaultRule>,
}

/// Draws a step.
pub fn any_step() -> BoxedStrategy<Step> {
    (any_action(), prop::option::weighted(0.25, any_fault())).prop_map(|(action, fault)| Step { action, fault }).boxed()
}

fn any_action() -> BoxedStrategy<Action> {
    prop_oneof![
        8 => on_handles(),
        7 => on_files(),
        3 => on_directories(),
        1 => by_strangers(),
        1 => of_the_whole(),
    ]
    .boxed()
}

fn on_handles() -> BoxedStrategy<Action> {
    let at = || (0..NODES, 0..8usize);
    prop_oneof![
        4 => (at(), 0..200_000u64, 1..90_000usize)
            .prop_map(|((node, handle), offset, length)| Action::Write { node, handle, offset, length }),
        1 => (at(), 0..200_000u64).prop_map(|((node, handle), size)| Action::Cut { node, handle, size }),
        4 => (at(), 0..200_000u64, 1..200_000usize)
            .prop_map(|((node, handle), offset, length)| Action::Read { node, handle, offset, length }),
        2 => at().prop_map(|(node, handle)| Action::Sync { node, handle }),
        3 => at().prop_map(|(node, handle)| Action::Close { node, handle }),
    ]
    .boxed()
}

fn on_files() -> BoxedStrategy<Action> {
    let at = || (0..NODES, 0..FILES.len());
    prop_oneof![
        3 => (at(), any::<bool>()).prop_map(|((node, path), exclusive)| Action::Create { node, path, exclusive }),
        4 => (at(), any::<bool>()).prop_map(|((node, path), write)| Action::Open { node, path, write }),
        2 => at().prop_map(|(node, path)| Action::Unlink { node, path }),
        3 => (at(), 0..FILES.len(), prop::bool::weighted(0.2))
            .prop_map(|((node, from), to, no_replace)| Action::Rename { node, from, to, no_replace }),
        1 => at().prop_map(|(node, path)| Action::Stat { node, path }),
        1 => (at(), 0..0o1000u32).prop_map(|((node, path), mode)| Action::ChangeMode { node, path, mode }),
    ]
    .boxed()
}

fn on_directories() -> BoxedStrategy<Action> {
    let at = || (0..NODES, 0..DIRECTORIES.len());
    prop_oneof![
        3 => at().prop_map(|(node, path)| Action::MakeDirectory { node, path }),
        1 => at().prop_map(|(node, path)| Action::RemoveDirectory { node, path }),
        2 => at().prop_map(|(node, from)| Action::RenameDirectory { node, from, to: 1 - from }),
        2 => (0..NODES, prop::option::of(0..DIRECTORIES.len()))
            .prop_map(|(node, directory)| Action::List { node, directory }),
    ]
    .boxed()
}

fn by_strangers() -> BoxedStrategy<Action> {
    prop_oneof![
        3 => (0..FILES.len(), 0..150_000usize).prop_map(|(path, length)| Action::ForeignPut { path, length }),
        1 => (0..FILES.len()).prop_map(|path| Action::ForeignDelete { path }),
    ]
    .boxed()
}

fn of_the_whole() -> BoxedStrategy<Action> {
    prop_oneof![
        1 => (0..NODES).prop_map(|node| Action::Remount { node }),
        1 => (0..NODES).prop_map(|node| Action::Crash { node }),
    ]
    .boxed()
}

/// Once, behind up to four requests: what the store must mend without a word.
pub fn any_fault() -> BoxedStrategy<FaultRule> {
    let kind = prop_oneof![
        3 => Just(FaultKind::ReplyLost),
        1 => Just(FaultKind::ResetConnection),
        1 => Just(FaultKind::Status { status: 503, code: None, retry_after: None }),
        1 => (0..50_000u64).prop_map(|bytes| FaultKind::CutBodyAfter { bytes }),
    ];
    (kind, 0..4u64).prop_map(|(kind, skip)| FaultRule::new(kind).after(skip).times(1)).boxed()
}
