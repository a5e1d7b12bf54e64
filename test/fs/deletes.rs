//! Unlinks that are answered while their Deletes are under way: who must not see a difference, and who hears of failures.
//!
//! A service that answers 503 to a Delete is the gate: the store tries again until it relents.

use std::{collections::BTreeSet, pin::Pin, sync::Arc, time::Duration};

use azblob_csi::fs::{InodeNumber, ROOT, RenameMode, Result, Settings};
use blob_emulator::Operation;
use futures::poll;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::support::{
    service::Service,
    volume::{CREATE, EXCLUSIVE, READ, Volume},
};

/// Deletes of a volume under way at once.
const UNDER_WAY_MAX: usize = 32;

fn settings(metadata_ttl: Duration) -> Settings {
    Settings { metadata_ttl, unlinks_waited: 0, ..Settings::default() }
}

/// A directory `d` of so many files, as another client made them, in a volume where the first unlink starts a run.
async fn filled(service: &Service, files: usize) -> (Arc<Volume>, InodeNumber) {
    for index in 0..files {
        service.put(&format!("d/{index:02}"), b"content");
    }
    let volume = service.volume_with(settings(Duration::ZERO)).await;
    let directory = volume.lookup("d").await.unwrap().attr.number;
    (volume, directory)
}

async fn unlink(volume: &Volume, directory: InodeNumber, name: &str) -> Result<()> {
    volume.fs.unlink(&volume.caller, directory, name.as_ref()).await
}

/// Deletes are tried in vain from now on.
fn hold(service: &Service) {
    service.refuse(Operation::DeleteBlob, 503, "ServerBusy", None);
}

/// `work` waits for a Delete: it is not done before the service relents, and is then.
async fn waits<T>(service: &Service, what: &str, work: impl Future<Output = Result<T>>) -> T {
    hold(service);
    let mut work: Pin<Box<dyn Future<Output = Result<T>>>> = Box::pin(work);
    let tried = service.count(Operation::DeleteBlob);
    while service.count(Operation::DeleteBlob) < tried + 2 {
        assert!(poll!(&mut work).is_pending(), "{what} does not wait");
        tokio::task::yield_now().await;
    }
    service.relent();
    work.await.unwrap_or_else(|error| panic!("{what}: {}", error.to_chain()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_unlinks_of_a_directory_wait_and_those_behind_them_do_not() {
    let service = Service::start();
    for index in 0..20 {
        service.put(&format!("d/{index:02}"), b"content");
    }
    let volume = service.volume().await;
    let directory = volume.lookup("d").await.unwrap().attr.number;
    let waited = Settings::default().unlinks_waited as usize;
    for index in 0..waited {
        unlink(&volume, directory, &format!("{index:02}")).await.unwrap();
        assert!(service.find(&format!("d/{index:02}")).is_none());
    }
    hold(&service);
    for index in waited..15 {
        unlink(&volume, directory, &format!("{index:02}")).await.unwrap();
        assert!(service.find(&format!("d/{index:02}")).is_some());
    }
    service.relent();
    // Something made in between: the row begins anew.
    volume.write_in(directory, "new", b"new").await;
    for index in 15..20 {
        unlink(&volume, directory, &format!("{index:02}")).await.unwrap();
        assert!(service.find(&format!("d/{index:02}")).is_none());
    }
    volume.fs.sync_directory(directory).await.unwrap();
    assert_eq!(service.names(), ["d", "d/new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_name_is_gone_for_all_views_while_its_delete_is_under_way() {
    let service = Service::start();
    let (volume, directory) = filled(&service, 20).await;
    let other = volume.second_view();
    let reader = volume.fs.open_directory(&volume.caller.view, directory).unwrap();
    volume.fs.read_directory(reader, 0, 5).await.unwrap();
    hold(&service);
    for index in 0..10 {
        unlink(&volume, directory, &format!("{index:02}")).await.unwrap();
    }
    assert_eq!(service.names().len(), 21, "nothing is deleted yet");
    let left: Vec<String> = (10..20).map(|index| format!("{index:02}")).collect();
    // Listed anew each time, since nothing known is fresh.
    assert_eq!(volume.names_in(directory).await, left);
    assert_eq!(other.names_in(directory).await, left);
    service.relent();
    for view in [&*volume, &other] {
        assert_eq!(view.lookup_in(directory, "03").await.unwrap_err().errno, libc::ENOENT);
        assert_eq!(view.names_in(directory).await, left);
    }
    volume.fs.close_directory(reader);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_so_many_deletes_are_under_way_and_the_next_unlink_waits() {
    let service = Service::start();
    let (volume, directory) = filled(&service, UNDER_WAY_MAX + 5).await;
    volume.names_in(directory).await;
    hold(&service);
    for index in 0..UNDER_WAY_MAX {
        unlink(&volume, directory, &format!("{index:02}")).await.unwrap();
    }
    let next = format!("{UNDER_WAY_MAX:02}");
    waits(&service, "one too many", unlink(&volume, directory, &next)).await;
    for index in UNDER_WAY_MAX + 1..UNDER_WAY_MAX + 5 {
        unlink(&volume, directory, &format!("{index:02}")).await.unwrap();
    }
    volume.fs.remove_directory(&volume.caller, ROOT, "d".as_ref()).await.unwrap();
    assert!(service.names().is_empty(), "{:?}", service.names());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_could_see_a_difference_waits_for_the_deletes() {
    let service = Service::start();
    let (volume, directory) = filled(&service, 20).await;
    let (fs, caller) = (&volume.fs, &volume.caller);
    let mut removed = (0..).map(|index| format!("{index:02}"));
    let mut remove = async || {
        let name = removed.next().unwrap();
        hold(&service);
        unlink(&volume, directory, &name).await.unwrap();
        name
    };
    let name = remove().await;
    let absent =
        async |name: &str| volume.lookup_in(directory, name).await.map_or_else(|_| Ok(()), |_| panic!("{name}"));
    waits(&service, "a lookup", absent(&name)).await;
    let name = remove().await;
    let (_, handle) = waits(&service, "a create", volume.create_in(directory, &name, CREATE)).await;
    volume.write(handle, 0, b"new").await;
    volume.close(handle).await.unwrap();
    assert_eq!(service.blob(&format!("d/{name}")), b"new");
    let name = remove().await;
    let (_, handle) = waits(&service, "an exclusive create", volume.create_in(directory, &name, EXCLUSIVE)).await;
    volume.close(handle).await.unwrap();
    let name = remove().await;
    waits(&service, "mkdir", fs.make_directory(caller, directory, name.as_ref(), 0o755)).await;
    let name = remove().await;
    service.put("other", b"other");
    let onto = (directory, name.as_ref());
    waits(&service, "a rename", fs.rename(caller, (ROOT, "other".as_ref()), onto, RenameMode::NoReplace)).await;
    assert_eq!(service.blob(&format!("d/{name}")), b"other");
    remove().await;
    waits(&service, "fsync", fs.sync_directory(directory)).await;
    remove().await;
    waits(&service, "fsync of a directory above", fs.sync_directory(ROOT)).await;
    remove().await;
    waits(&service, "the end of the session", fs.flush_all()).await;
    let name = remove().await;
    let moved = fs.rename(caller, (ROOT, "d".as_ref()), (ROOT, "e".as_ref()), RenameMode::Replace);
    waits(&service, "a rename of the directory", moved).await;
    assert!(service.find(&format!("e/{name}")).is_none());
    let left = volume.names_in(directory).await;
    assert_eq!(left.len(), 20 - 5, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rmdir_waits_for_the_deletes_below_it() {
    let service = Service::start();
    let (volume, directory) = filled(&service, 5).await;
    hold(&service);
    for index in 0..5 {
        unlink(&volume, directory, &format!("{index:02}")).await.unwrap();
    }
    waits(&service, "rmdir", volume.fs.remove_directory(&volume.caller, ROOT, "d".as_ref())).await;
    assert!(service.names().is_empty(), "{:?}", service.names());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_fails_behind_its_unlink_is_told_once_and_its_name_is_back() {
    let service = Service::start();
    let (volume, directory) = filled(&service, 20).await;
    volume.names_in(directory).await;
    for (index, teller) in ["unlink", "rmdir", "fsync"].into_iter().enumerate() {
        let refused = format!("{index:02}");
        service.refuse(Operation::DeleteBlob, 403, "AuthorizationPermissionMismatch", Some(1));
        unlink(&volume, directory, &refused).await.unwrap();
        // (A lookup waits for the Delete.)
        volume.lookup_in(directory, &refused).await.unwrap_or_else(|error| panic!("{teller}: {}", error.to_chain()));
        let told = match teller {
            "unlink" => unlink(&volume, directory, "19").await,
            "rmdir" => volume.fs.remove_directory(&volume.caller, ROOT, "d".as_ref()).await,
            _ => volume.fs.sync_directory(directory).await,
        };
        assert_eq!(told.unwrap_err().errno, libc::EACCES, "{teller}");
        volume.fs.sync_directory(directory).await.unwrap();
        assert!(volume.names_in(directory).await.contains(&refused));
    }
    assert!(service.find("d/19").is_some(), "who is told of another's failure has done nothing");
    unlink(&volume, directory, "19").await.unwrap();
    volume.fs.sync_directory(directory).await.unwrap();
    assert_eq!(service.names().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failure_unlinks_of_the_directory_wait_again() {
    let service = Service::start();
    for index in 0..30 {
        service.put(&format!("d/{index:02}"), b"content");
    }
    let volume = service.volume().await;
    let directory = volume.lookup("d").await.unwrap().attr.number;
    for index in 0..10 {
        unlink(&volume, directory, &format!("{index:02}")).await.unwrap();
    }
    service.refuse(Operation::DeleteBlob, 403, "AuthorizationPermissionMismatch", Some(1));
    unlink(&volume, directory, "10").await.unwrap();
    assert_eq!(volume.fs.sync_directory(directory).await.unwrap_err().errno, libc::EACCES);
    service.refuse(Operation::DeleteBlob, 403, "AuthorizationPermissionMismatch", Some(1));
    assert_eq!(unlink(&volume, directory, "11").await.unwrap_err().errno, libc::EACCES);
    unlink(&volume, directory, "11").await.unwrap();
    assert!(service.find("d/11").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_gone_already_or_comes_again_is_no_failure() {
    let service = Service::start();
    let (volume, directory) = filled(&service, 10).await;
    volume.names_in(directory).await;
    let known = service.volume_with(settings(Duration::from_secs(600))).await;
    let same = known.lookup("d").await.unwrap().attr.number;
    known.names_in(same).await;
    service.remove("d/03");
    unlink(&known, same, "03").await.unwrap();
    known.fs.sync_directory(same).await.unwrap();
    // Another client makes it again once it is gone.
    unlink(&volume, directory, "04").await.unwrap();
    volume.fs.sync_directory(directory).await.unwrap();
    service.put("d/04", b"theirs");
    assert!(volume.names_in(directory).await.contains(&"04".to_owned()));
    let number = volume.lookup_in(directory, "04").await.unwrap().attr.number;
    let handle = volume.fs.open_file(&volume.caller, number, READ).await.unwrap();
    assert_eq!(volume.read(handle, 0, 10).await, b"theirs");
    // An open file is kept: its unlink waits.
    hold(&service);
    let removed = unlink(&volume, directory, "04");
    waits(&service, "the unlink of an open file", removed).await;
    assert_eq!(volume.read(handle, 0, 10).await, b"theirs");
    volume.close(handle).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hierarchical_account_deletes_behind_the_unlinks_as_well() {
    let service = Service::start_hierarchical();
    let (volume, directory) = filled(&service, 20).await;
    hold(&service);
    for index in 0..10 {
        unlink(&volume, directory, &format!("{index:02}")).await.unwrap();
    }
    assert_eq!(volume.names_in(directory).await.len(), 10);
    service.relent();
    volume.fs.sync_directory(directory).await.unwrap();
    assert_eq!(service.names().iter().filter(|name| name.starts_with("d/")).count(), 10);
}

/// What one program may do with a few names of one directory.
#[derive(Clone, Debug)]
enum Step {
    Unlink(usize),
    Write(usize),
    Rename(usize, usize),
    List,
    Lookup(usize),
    /// The directory moves there and back.
    Move,
    Remove,
    /// The next Delete gets no answer, or is told to come again.
    Trouble(bool),
}

const NAMES: usize = 5;

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..NAMES).prop_map(Step::Unlink),
        4 => (0..NAMES).prop_map(Step::Write),
        2 => (0..NAMES, 0..NAMES).prop_map(|(from, to)| Step::Rename(from, to)),
        2 => Just(Step::List),
        2 => (0..NAMES).prop_map(Step::Lookup),
        1 => Just(Step::Move),
        1 => Just(Step::Remove),
        1 => any::<bool>().prop_map(Step::Trouble),
    ]
}

/// A directory as a local disk would have it, beside the volume.
struct Beside {
    service: Service,
    volume: Arc<Volume>,
    directory: InodeNumber,
    names: BTreeSet<String>,
}

impl Beside {
    async fn take(&mut self, step: &Step) {
        let (fs, caller, directory) = (&self.volume.fs, &self.volume.caller, self.directory);
        let name = |index: &usize| format!("name-{index}");
        match step {
            Step::Unlink(index) => {
                let there = self.names.remove(&name(index));
                assert_eq!(unlink(&self.volume, directory, &name(index)).await.is_ok(), there, "{step:?}");
            }
            Step::Write(index) => {
                self.volume.write_in(directory, &name(index), name(index).as_bytes()).await;
                self.names.insert(name(index));
            }
            Step::Rename(from, to) => {
                let (old, new) = (name(from), name(to));
                let (old, new) = ((directory, old.as_ref()), (directory, new.as_ref()));
                let moved = fs.rename(caller, old, new, RenameMode::Replace).await;
                assert_eq!(moved.is_ok(), self.names.contains(&name(from)), "{step:?}");
                if self.names.remove(&name(from)) {
                    self.names.insert(name(to));
                }
            }
            Step::List => {
                let listed = self.volume.names_in(directory).await;
                assert_eq!((listed.len(), BTreeSet::from_iter(listed)), (self.names.len(), self.names.clone()));
            }
            Step::Lookup(index) => {
                let found = self.volume.lookup_in(directory, &name(index)).await.is_ok();
                assert_eq!(found, self.names.contains(&name(index)), "{step:?}");
            }
            Step::Move => {
                for (from, to) in [("d", "e"), ("e", "d")] {
                    let (from, to) = ((ROOT, from.as_ref()), (ROOT, to.as_ref()));
                    fs.rename(caller, from, to, RenameMode::Replace).await.unwrap();
                }
            }
            Step::Remove => {
                let removed = fs.remove_directory(caller, ROOT, "d".as_ref()).await;
                assert_eq!(removed.is_ok(), self.names.is_empty(), "{step:?}");
                if removed.is_ok() {
                    assert_eq!(self.service.names(), [""; 0], "{step:?}");
                    self.directory = self.volume.make_directory(ROOT, "d").await;
                }
            }
            Step::Trouble(true) => self.service.refuse(Operation::DeleteBlob, 503, "ServerBusy", Some(1)),
            Step::Trouble(false) => {
                let lost = blob_emulator::FaultRule::new(blob_emulator::FaultKind::ReplyLost);
                self.service.fault(lost.on(Operation::DeleteBlob).times(1));
            }
        }
    }
}

fn run(steps: &[Step], metadata_ttl: Duration) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let service = Service::start();
        let volume = service.volume_with(settings(metadata_ttl)).await;
        let directory = volume.make_directory(ROOT, "d").await;
        let mut beside = Beside { service, volume, directory, names: BTreeSet::new() };
        for step in steps {
            beside.take(step).await;
        }
        beside.volume.fs.flush_all().await.unwrap();
        let expected: Vec<String> = beside.names.iter().map(|name| format!("d/{name}")).collect();
        let mut found = beside.service.names();
        found.retain(|name| name != "d");
        assert_eq!(found, expected);
    });
}

#[test]
fn a_program_that_removes_names_finds_what_a_local_disk_would_show() {
    let config = Config { cases: 60, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    let drawn = runner.run(&(vec(any_step(), 1..60), any::<bool>()), |(steps, fresh)| {
        run(&steps, if fresh { Duration::from_secs(600) } else { Duration::ZERO });
        Ok(())
    });
    if let Err(failure) = drawn {
        panic!("{failure}");
    }
}
