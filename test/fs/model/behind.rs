//! One node with write-behind, which is killed again and again: whatever it has answered holds, here at once and at the service
//! in the end. Nobody else writes, so everything is known: a map of names is the whole model.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use azblob_csi::fs::{Durability, METADATA_TTL_DEFAULT, Settings};
use blob_emulator::FaultRule;
use harness::length;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use tokio::runtime::Runtime;

use super::{
    file::bytes_of,
    node::Node,
    number_from_environment,
    step::{DIRECTORIES, FILES, any_fault},
};
use crate::support::{random::Random, service::Service};

/// Cases of a short and of a long run; each is up to `STEPS_MAX` steps.
const CASES: (u32, u32) = (60, 3000);
const STEPS_MAX: usize = 60;
/// Longer than a killed process takes to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// What happens; paths are indexes.
#[derive(Clone, Debug)]
enum Action {
    Write {
        path: usize,
        offset: u64,
        length: usize,
        sync: bool,
    },
    Unlink {
        path: usize,
    },
    Rename {
        from: usize,
        to: usize,
        no_replace: bool,
    },
    MakeDirectory {
        path: usize,
    },
    RemoveDirectory {
        path: usize,
    },
    RenameDirectory {
        from: usize,
    },
    ChangeMode {
        path: usize,
    },
    /// The service has everything.
    Settle,
    Kill,
}

fn any_action() -> BoxedStrategy<Action> {
    let file = || 0..FILES.len();
    let directory = || 0..DIRECTORIES.len();
    prop_oneof![
        8 => (file(), prop_oneof![3 => Just(0), 1 => 0..5000u64], 0..5000usize, prop::bool::weighted(0.1))
            .prop_map(|(path, offset, length, sync)| Action::Write { path, offset, length, sync }),
        6 => file().prop_map(|path| Action::Unlink { path }),
        8 => (file(), file(), prop::bool::weighted(0.2))
            .prop_map(|(from, to, no_replace)| Action::Rename { from, to, no_replace }),
        3 => directory().prop_map(|path| Action::MakeDirectory { path }),
        1 => directory().prop_map(|path| Action::RemoveDirectory { path }),
        1 => directory().prop_map(|from| Action::RenameDirectory { from }),
        1 => file().prop_map(|path| Action::ChangeMode { path }),
        2 => Just(Action::Settle),
        3 => Just(Action::Kill),
    ]
    .boxed()
}

/// What is closed is sent at once, soon, or only when somebody waits for it; names are remembered or always asked for.
fn any_settings() -> BoxedStrategy<Settings> {
    let linger = prop_oneof![Just(0), Just(5), Just(3_600_000u64)].prop_map(Duration::from_millis);
    let ttl = prop_oneof![Just(Duration::ZERO), Just(METADATA_TTL_DEFAULT)];
    (linger, ttl)
        .prop_map(|(linger, metadata_ttl)| Settings {
            durability: Durability::Fsync,
            linger,
            metadata_ttl,
            ..Settings::default()
        })
        .boxed()
}

/// Whether it succeeded, which must be `right`.
fn outcome(what: azblob_csi::fs::Result<()>, right: bool) -> Result<bool, String> {
    match (what, right) {
        (Ok(()), true) | (Err(_), false) => Ok(right),
        (Ok(()), false) => Err("it must fail".to_owned()),
        (Err(error), true) => Err(error.to_chain()),
    }
}

/// One process: a core on a runtime that ends with it.
struct Process {
    runtime: Runtime,
    node: Node,
}

impl Process {
    fn start(service: &Service, spool: &Path, settings: Settings) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let node = runtime.block_on(Node::mount_within(service, settings, spool));
        Self { runtime, node }
    }

    /// All that runs stops where it is.
    fn kill(self) {
        self.runtime.shutdown_timeout(STOPS_WITHIN);
    }
}

struct World {
    service: Service,
    spool: tempfile::TempDir,
    process: Option<Process>,
    files: BTreeMap<&'static str, Vec<u8>>,
    directories: BTreeSet<&'static str>,
    random: Random,
    settings: Settings,
}

impl World {
    fn start(settings: Settings) -> Self {
        let (service, spool) = (Service::start(), tempfile::tempdir().unwrap());
        let process = Some(Process::start(&service, spool.path(), settings.clone()));
        let (files, directories) = (BTreeMap::new(), BTreeSet::new());
        Self { service, spool, process, files, directories, random: Random::new(1), settings }
    }

    fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }

    fn has_parent(&self, path: &str) -> bool {
        path.split_once('/').is_none_or(|(parent, _)| self.directories.contains(parent))
    }

    /// Does it, and says in words where the answer is wrong.
    fn act(&mut self, action: &Action) -> Result<(), String> {
        let Process { runtime: run, node } = self.process.as_ref().unwrap();
        match *action {
            Action::Write { path, offset, length, sync } => self.write(FILES[path], offset, length, sync)?,
            Action::Unlink { path } => {
                let right = self.files.contains_key(FILES[path]);
                if outcome(run.block_on(node.unlink(FILES[path])), right)? {
                    self.files.remove(FILES[path]);
                }
            }
            Action::Rename { from, to, no_replace } => {
                let (from, to) = (FILES[from], FILES[to]);
                let is_free = from == to || !no_replace || !self.files.contains_key(to);
                let right = self.files.contains_key(from) && self.has_parent(to) && is_free;
                if outcome(run.block_on(node.rename(from, to, no_replace)), right)? {
                    let bytes = self.files.remove(from).unwrap();
                    self.files.insert(to, bytes);
                }
            }
            Action::MakeDirectory { path } => {
                let right = !self.directories.contains(DIRECTORIES[path]);
                if outcome(run.block_on(node.make_directory(DIRECTORIES[path])), right)? {
                    self.directories.insert(DIRECTORIES[path]);
                }
            }
            Action::RemoveDirectory { path } => {
                let path = DIRECTORIES[path];
                let is_empty = !self.files.keys().any(|file| file.starts_with(&format!("{path}/")));
                let right = self.directories.contains(path) && is_empty;
                if outcome(run.block_on(node.remove_directory(path)), right)? {
                    self.directories.remove(path);
                }
            }
            Action::RenameDirectory { from } => self.rename_directory(DIRECTORIES[from], DIRECTORIES[1 - from])?,
            Action::ChangeMode { path } => {
                let right = self.files.contains_key(FILES[path]);
                outcome(run.block_on(node.change_mode(FILES[path], 0o640)), right)?;
            }
            Action::Settle => {
                run.block_on(node.settle()).map_err(|error| error.to_chain())?;
                self.check_service()?;
            }
            Action::Kill => {
                self.process.take().unwrap().kill();
                self.process = Some(Process::start(&self.service, self.spool.path(), self.settings.clone()));
                // What was left behind is sent before anything is served.
                self.check_service()?;
            }
        }
        self.process().node.forget();
        self.check_names()
    }

    fn write(&mut self, path: &'static str, offset: u64, length: usize, sync: bool) -> Result<(), String> {
        let Process { runtime, node } = self.process.as_ref().unwrap();
        let bytes = self.random.bytes(length);
        let written = runtime.block_on(async {
            let (number, handle) = node.create(path, false).await?;
            if offset == 0 {
                node.cut(handle, number, 0).await?;
            }
            node.write(handle, offset, &bytes).await?;
            if sync {
                node.sync(handle).await?;
            }
            node.close(handle).await
        });
        if outcome(written, self.has_parent(path))? {
            let content = self.files.entry(path).or_default();
            let (start, end) = (offset as usize, offset as usize + length);
            let kept = if offset == 0 { 0 } else { content.len() };
            content.truncate(kept);
            if length > 0 {
                content.resize(kept.max(end), 0);
                content[start..end].copy_from_slice(&bytes);
            }
        }
        Ok(())
    }

    /// Only where the names below stay among those that are looked at: `d/x` and `e/x`.
    fn rename_directory(&mut self, from: &'static str, to: &'static str) -> Result<(), String> {
        let Process { runtime, node } = self.process();
        let mut below = self.files.keys().filter(|path| path.starts_with(&format!("{from}/")));
        if below.any(|path| !path.ends_with("/x")) || self.directories.contains(to) {
            return Ok(());
        }
        if outcome(runtime.block_on(node.rename(from, to, false)), self.directories.contains(from))? {
            self.directories.remove(from);
            self.directories.insert(to);
            let (old, new) = if from == "d" { ("d/x", "e/x") } else { ("e/x", "d/x") };
            if let Some(bytes) = self.files.remove(old) {
                self.files.insert(new, bytes);
            }
        }
        Ok(())
    }

    /// What a program sees is exactly the model.
    fn check_names(&self) -> Result<(), String> {
        let Process { runtime, node } = self.process();
        for path in FILES {
            let found = runtime.block_on(node.contents(path));
            match (found, self.files.get(path)) {
                (Ok(found), Some(right)) if found == *right => {}
                (Err(error), None) if error.errno == libc::ENOENT => {}
                (found, right) => {
                    let (found, right) = (found.map(|bytes| bytes.len()), right.map(Vec::len));
                    return Err(format!("{path}: {found:?} is read where {right:?} bytes are right"));
                }
            }
        }
        let listed: BTreeSet<String> =
            runtime.block_on(node.list(None)).map_err(|error| error.to_chain())?.into_iter().collect();
        let files = self.files.keys().filter(|path| !path.contains('/')).copied();
        let right: BTreeSet<String> = files.chain(self.directories.iter().copied()).map(str::to_owned).collect();
        if listed == right { Ok(()) } else { Err(format!("{listed:?} is listed where {right:?} is right")) }
    }

    fn check_service(&self) -> Result<(), String> {
        let snapshot = self.service.snapshot();
        let mut found = bytes_of(&snapshot);
        found.retain(|name, _| !DIRECTORIES.contains(name));
        let right: BTreeMap<&str, &[u8]> = self.files.iter().map(|(path, bytes)| (*path, bytes.as_slice())).collect();
        if found == right {
            return Ok(());
        }
        let names = |map: &BTreeMap<&str, &[u8]>| {
            map.iter().map(|(name, bytes)| format!("{name} ({})", bytes.len())).collect::<Vec<_>>().join(", ")
        };
        Err(format!("the container holds {}, not {}", names(&found), names(&right)))
    }
}

fn run(steps: &[(Action, Option<FaultRule>)], settings: Settings) -> Result<(), TestCaseError> {
    let mut world = World::start(settings);
    let last = [(Action::Settle, None), (Action::Kill, None)];
    for (index, (action, fault)) in steps.iter().chain(&last).enumerate() {
        if let Some(fault) = fault {
            world.service.emulator().fault(fault.clone());
        }
        let done = world.act(action);
        world.service.relent();
        done.map_err(|why| TestCaseError::fail(format!("step {index}, {action:?}: {why}")))?;
    }
    let set_aside = world.spool.path().join("lost+found").exists();
    prop_assert!(!set_aside, "nobody else wrote, and something is in lost+found");
    Ok(())
}

#[test]
fn a_node_with_write_behind_keeps_its_word_however_often_it_is_killed() {
    let cases = number_from_environment("PROPTEST_CASES").unwrap_or(length().of(CASES.0, CASES.1));
    let seed = [number_from_environment("AZBLOB_TEST_SEED").unwrap_or(1).to_be_bytes(); 8].concat();
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let step = (any_action(), prop::option::weighted(0.15, any_fault()));
    let drawn = runner.run(&(vec(step, 1..STEPS_MAX), any_settings()), |(steps, settings)| run(&steps, settings));
    if let Err(failure) = drawn {
        panic!("{failure}");
    }
}
