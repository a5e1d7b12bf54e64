//! A volume that another process goes on with: what is written down is enough, and what cannot be believed is never served.
//!
//! The first process is a volume that is left as it stands; the second opens duplicates of the same memory files.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex},
    time::Duration,
};

use azblob_csi::{
    cache::Vault,
    fs::{
        Access, Caller, FileSystem, HandleId, Holder, InodeNumber, Kept, LockCall, LockRequest, ROOT, RenameMode,
        SetXattr, Settings, TAKEOVER_FORMAT, ViewSettings,
    },
    ledger::{Contents, Ledger, Section},
};
use blob_emulator::Operation;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::support::{
    service::Service,
    volume::{CREATE, EXCLUSIVE, READ, Volume, resources},
};

/// In a request's number: it was sent before (FUSE_UNIQUE_RESEND).
const RESENT: u64 = 1 << 63;
const MEMORY_BYTES: u64 = 64 << 20;

#[derive(Debug, Default)]
struct Shelf(Mutex<BTreeMap<String, OwnedFd>>);

impl Holder for Shelf {
    fn hold(&self, key: &str, file: BorrowedFd<'_>) -> io::Result<()> {
        self.0.lock().unwrap().insert(key.to_owned(), file.try_clone_to_owned()?);
        Ok(())
    }

    fn let_go(&self, key: &str) {
        self.0.lock().unwrap().remove(key);
    }
}

/// What a keeper would hold.
struct Estate {
    ledger: OwnedFd,
    vault: OwnedFd,
    shelf: Arc<Shelf>,
}

impl Estate {
    fn contents(&self) -> Contents {
        Ledger::open(self.ledger.try_clone().unwrap()).unwrap().1
    }

    fn kept(&self) -> Kept {
        let (ledger, contents, format) = Ledger::open(self.ledger.try_clone().unwrap()).unwrap();
        let vault = Vault::open(self.vault.try_clone().unwrap()).unwrap();
        let held = self.shelf.0.lock().unwrap();
        let spools = held.iter().map(|(key, file)| (key.clone(), file.try_clone().unwrap())).collect();
        drop(held);
        let holder = Arc::clone(&self.shelf);
        Kept { ledger, format, contents, is_lost: false, vault, holder, spools }
    }

    /// The next process, which goes on with the first view.
    async fn volume(&self, service: &Service) -> Arc<Volume> {
        self.volume_of(service, self.kept()).await
    }

    async fn volume_of(&self, service: &Service, kept: Kept) -> Arc<Volume> {
        let resources = resources(MEMORY_BYTES, Some(std::env::temp_dir()));
        let settings = Settings::default();
        let fs = FileSystem::open_kept(service.store_with(settings.limits), resources, settings, kept).await.unwrap();
        let view = fs.take_over_view(0, ViewSettings::default()).expect("the volume was taken over");
        Arc::new(Volume { fs, caller: Caller { view, uid: 0, gid: 0, pid: std::process::id(), request: 0 } })
    }
}

/// A volume that can be taken over.
async fn kept_volume(service: &Service) -> (Arc<Volume>, Estate) {
    let (ledger, vault) = (Ledger::create(TAKEOVER_FORMAT).unwrap(), Vault::create().unwrap());
    let shelf = Arc::new(Shelf::default());
    let estate = Estate {
        ledger: ledger.as_fd().try_clone_to_owned().unwrap(),
        vault: vault.as_fd().try_clone_to_owned().unwrap(),
        shelf: Arc::clone(&shelf),
    };
    let kept = Kept {
        ledger,
        format: TAKEOVER_FORMAT,
        contents: Contents::new(),
        is_lost: false,
        vault,
        holder: shelf,
        spools: BTreeMap::new(),
    };
    let resources = resources(MEMORY_BYTES, Some(std::env::temp_dir()));
    let settings = Settings::default();
    let fs = FileSystem::open_kept(service.store_with(settings.limits), resources, settings, kept).await.unwrap();
    let caller =
        Caller { view: fs.add_view(ViewSettings::default()), uid: 0, gid: 0, pid: std::process::id(), request: 0 };
    (Arc::new(Volume { fs, caller }), estate)
}

fn asked_again(volume: &Volume, request: u64) -> Caller {
    Caller { request: request | RESENT, ..volume.caller.clone() }
}

fn asked(volume: &Volume, request: u64) -> Caller {
    Caller { request, ..volume.caller.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_handles_and_what_is_not_saved_go_on() {
    let service = Service::start();
    let (first, estate) = kept_volume(&service).await;
    let directory = first.make_directory(ROOT, "d").await;
    let (number, handle) = first.create_in(directory, "file", CREATE).await.unwrap();
    first.write(handle, 0, &vec![3; 300_000]).await;
    first.write(handle, 100_000, b"in the middle").await;
    let (_, saved) = first.create("saved", CREATE).await.unwrap();
    first.write(saved, 0, b"on the service").await;
    first.fs.flush(saved).await.unwrap();
    let second = estate.volume(&service).await;
    assert_eq!(second.lookup_in(ROOT, "d").await.unwrap().attr.number, directory);
    assert_eq!(second.lookup_in(directory, "file").await.unwrap().attr.number, number);
    assert_eq!(second.read(handle, 100_000, 13).await, b"in the middle");
    assert_eq!(second.read(saved, 0, 100).await, b"on the service");
    assert_eq!(second.fs.getattr(&second.caller, number).await.unwrap().0.size, 300_000);
    second.write(handle, 300_000, b"end").await;
    second.fs.flush(handle).await.unwrap();
    let mut wanted = vec![3; 300_000];
    wanted[100_000..100_013].copy_from_slice(b"in the middle");
    wanted.extend(b"end");
    assert_eq!(service.blob("d/file"), wanted);
    // Numbers are never given twice.
    let (fresh, other) = second.create("fresh", CREATE).await.unwrap();
    assert!(fresh.0 > number.0 && other.0 > saved.0.max(handle.0));
    let third = estate.volume(&service).await;
    let (again, _) = third.create("again", CREATE).await.unwrap();
    assert!(again.0 > fresh.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_memory_had_is_saved_by_the_next_process() {
    let service = Service::start();
    let (first, estate) = kept_volume(&service).await;
    let (_, handle) = first.create("file", CREATE).await.unwrap();
    first.write(handle, 0, b"never closed").await;
    let second = estate.volume(&service).await;
    // Its program is gone with its kernel: nobody takes the view on.
    drop(first);
    second.fs.release(handle).await.unwrap();
    assert_eq!(service.blob("file"), b"never closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_sent_again_are_not_done_twice() {
    let service = Service::start();
    let (first, estate) = kept_volume(&service).await;
    let at = |volume: &Arc<Volume>, request| asked(volume, request);
    first.fs.make_directory(&at(&first, 2), ROOT, "d".as_ref(), 0o755).await.unwrap();
    first.fs.create_file(&at(&first, 4), ROOT, "new".as_ref(), 0o644, EXCLUSIVE).await.unwrap();
    first.create("gone", CREATE).await.unwrap();
    first.fs.unlink(&at(&first, 6), ROOT, "gone".as_ref()).await.unwrap();
    let (_, moved) = first.create("from", CREATE).await.unwrap();
    first.write(moved, 0, b"moved").await;
    first.fs.flush(moved).await.unwrap();
    let rename = |volume, caller| rename(volume, caller, ("from", "to"), RenameMode::NoReplace);
    rename(&first, at(&first, 8)).await.unwrap();
    let refused = first.fs.make_directory(&at(&first, 10), ROOT, "d".as_ref(), 0o755).await.unwrap_err();
    assert_eq!(refused.errno, libc::EEXIST);
    let append = Access { append: true, ..CREATE };
    let (_, log) = first.create("log", append).await.unwrap();
    first.fs.write(&at(&first, 12), log, 0, b"line\n").await.unwrap();
    let second = estate.volume(&service).await;
    let again = |request| asked_again(&second, request);
    second.fs.make_directory(&again(2), ROOT, "d".as_ref(), 0o755).await.unwrap();
    let (entry, handle) = second.fs.create_file(&again(4), ROOT, "new".as_ref(), 0o644, EXCLUSIVE).await.unwrap();
    assert_eq!(second.lookup("new").await.unwrap().attr.number, entry.attr.number);
    second.write(handle, 0, b"its handle works").await;
    second.fs.unlink(&again(6), ROOT, "gone".as_ref()).await.unwrap();
    rename(&second, again(8)).await.unwrap();
    assert_eq!(service.blob("to"), b"moved");
    // What failed fails again, and what is new is judged anew.
    let refused = second.fs.make_directory(&again(10), ROOT, "d".as_ref(), 0o755).await.unwrap_err();
    assert_eq!(refused.errno, libc::EEXIST);
    let refused = second.fs.make_directory(&asked(&second, 14), ROOT, "d".as_ref(), 0o755).await.unwrap_err();
    assert_eq!(refused.errno, libc::EEXIST);
    second.fs.write(&again(12), log, 0, b"line\n").await.unwrap();
    second.fs.write(&asked(&second, 16), log, 0, b"next\n").await.unwrap();
    second.fs.flush(log).await.unwrap();
    assert_eq!(service.blob("log"), b"line\nnext\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_did_for_the_process_before_is_recognised() {
    let service = Service::start();
    let (first, estate) = kept_volume(&service).await;
    let (_, handle) = first.create("file", CREATE).await.unwrap();
    first.write(handle, 0, b"put by a process that did not hear of it").await;
    // The state as it is while the request is on its way; its answer comes after the end of the process.
    let before = estate.contents();
    first.fs.flush(handle).await.unwrap();
    first.fs.make_directory(&asked(&first, 2), ROOT, "d".as_ref(), 0o755).await.unwrap();
    let sent = estate.contents();
    let begun = |contents: &Contents| contents.keys().filter(|(section, _)| section.0 == 9).count();
    assert!(begun(&sent) > begun(&before));
    // Of the directory, only that it was begun.
    let mut contents = before;
    let making = sent.iter().filter(|((section, _), _)| section.0 == 9);
    contents.extend(making.map(|(key, row)| (*key, without_outcome(row))));
    let second = estate.volume_of(&service, Kept { contents, ..estate.kept() }).await;
    second.fs.flush(handle).await.unwrap();
    assert_eq!(service.blob("file"), b"put by a process that did not hear of it");
    second.fs.make_directory(&asked_again(&second, 2), ROOT, "d".as_ref(), 0o755).await.unwrap();
}

/// The row without its fields 5 to 7: how the request ended, and what it made.
fn without_outcome(row: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut rest = row;
    while let Some((&tag, tail)) = rest.split_first() {
        let (field, wire) = (tag >> 3, tag & 7);
        let mut length = 0;
        while wire == 0 && tail[length] & 0x80 != 0 {
            length += 1;
        }
        let whole = if wire == 2 { 1 + usize::from(tail[0]) } else { length + 1 };
        if !(5..=7).contains(&field) {
            kept.extend(&rest[..1 + whole]);
        }
        rest = &tail[whole..];
    }
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_attributes_and_readers_of_directories_go_on() {
    let service = Service::start();
    for index in 0..600 {
        service.put(&format!("d/{index:03}"), b"");
    }
    let (first, estate) = kept_volume(&service).await;
    let directory = first.lookup("d").await.unwrap().attr.number;
    let (number, handle) = first.create("file", CREATE).await.unwrap();
    let wanted =
        |owner| LockRequest { number, handle, owner, call: LockCall::Fcntl, range: 0..=9, exclusive: true, pid: 1 };
    first.fs.lock(&first.caller, &wanted(1)).unwrap();
    first.fs.set_xattr(&first.caller, number, b"user.kind", b"kept", SetXattr::Any).await.unwrap();
    let reader = first.fs.open_directory(&first.caller.view, directory).unwrap();
    let read = first.fs.read_directory(reader, 0, 300).await.unwrap();
    // Whoever reads and removes what he has read must see the rest.
    for entry in read.iter().filter(|entry| !entry.name.starts_with('.')).take(100) {
        first.fs.unlink(&first.caller, directory, entry.name.as_ref().as_ref()).await.unwrap();
    }
    let second = estate.volume(&service).await;
    assert_eq!(second.fs.lock(&second.caller, &wanted(2)).unwrap_err().errno, libc::EAGAIN);
    second.fs.lock(&second.caller, &wanted(1)).unwrap();
    assert_eq!(second.fs.get_xattr(number, b"user.kind").await.unwrap(), b"kept");
    // Not where the last reply ended: the kernel had room for some of it only.
    let (mut offset, mut names) = (read[200].next_offset, Vec::new());
    loop {
        let more = second.fs.read_directory(reader, offset, 256).await.unwrap();
        let Some(last) = more.last() else { break };
        offset = last.next_offset;
        names.extend(more.iter().map(|entry| entry.name.to_string()));
    }
    let wanted: Vec<String> = (199..600).map(|index| format!("{index:03}")).collect();
    assert_eq!(names, wanted);
}

/// Reads on from `offset`, as a kernel does that has room for so many entries.
async fn read_on(
    volume: &Volume,
    reader: HandleId,
    mut offset: u64,
    room: usize,
    replies: usize,
) -> (Vec<String>, u64) {
    let mut names = Vec::new();
    for _ in 0..replies {
        let more = volume.fs.read_directory(reader, offset, 50).await.unwrap();
        let Some(last) = more.iter().take(room).next_back() else { break };
        offset = last.next_offset;
        names.extend(more.iter().take(room).map(|entry| entry.name.to_string()));
    }
    (names, offset)
}

/// What is not committed comes in another order than the service's, and the next process asks the service.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_is_given_each_name_once_by_all_processes_together() {
    for (room, replies) in [(1, 1), (1, 4), (2, 2), (3, 1), (3, 3), (5, 2), (50, 1)] {
        let service = Service::start();
        let (first, estate) = kept_volume(&service).await;
        let directory = first.make_directory(ROOT, "d").await;
        let mut wanted = vec![".".to_owned(), "..".to_owned()];
        for name in ["moved", "link", "z", "a", "m", "b"] {
            let (_, handle) = first.create_in(directory, name, CREATE).await.unwrap();
            first.write(handle, 0, name.as_bytes()).await;
            if name != "m" {
                first.fs.flush(handle).await.unwrap();
            }
            wanted.push(name.to_owned());
        }
        let reader = first.fs.open_directory(&first.caller.view, directory).unwrap();
        let (mut names, mut offset) = read_on(&first, reader, 0, room, replies).await;
        let mut process = first;
        for _ in 0..2 {
            process = estate.volume(&service).await;
            // A reply that never came.
            read_on(&process, reader, offset, room, 1).await;
            process = estate.volume(&service).await;
            let (more, at) = read_on(&process, reader, offset, room, 1).await;
            names.extend(more);
            offset = at;
        }
        names.extend(read_on(&process, reader, offset, room, 50).await.0);
        names.sort();
        wanted.sort();
        assert_eq!(names, wanted, "{replies} replies of {room}");
        // From the beginning, all of it again.
        let (mut again, _) = read_on(&process, reader, 0, 50, 2).await;
        again.sort();
        assert_eq!(again, wanted);
        process.fs.close_directory(reader);
        assert!(!estate.contents().keys().any(|(section, _)| *section == Section(13)), "nothing is left of it");
    }
}

/// What a process leaves that is killed while the service does the last step, `operation`, of what it was asked for.
async fn cut_off(
    (service, estate): (&Service, &Estate),
    operation: Operation,
    asked: impl Future<Output = azblob_csi::fs::Result<()>> + Send + 'static,
) -> Kept {
    let before = service.count(operation);
    service.refuse(operation, 503, "ServerBusy", None);
    let asked = tokio::spawn(asked);
    while service.count(operation) == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let contents = estate.contents();
    service.relent();
    asked.await.unwrap().unwrap();
    Kept { contents, ..estate.kept() }
}

/// unlink(2) and the last close of a file are sent again in any order, or not at all, and the Delete was done.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_unlinked_while_it_was_open_is_unlinked() {
    for (hierarchical, length) in [(false, 16), (false, 2 << 20), (true, 16), (true, 2 << 20)] {
        for order in ["unlink first", "close first", "close alone"] {
            let service = if hierarchical { Service::start_hierarchical() } else { Service::start() };
            let (first, estate) = kept_volume(&service).await;
            let (_, handle) = first.create("journal", CREATE).await.unwrap();
            let wanted: Vec<u8> = (0..length).map(|byte: u32| byte as u8).collect();
            first.write(handle, 0, &wanted).await;
            first.fs.flush(handle).await.unwrap();
            let unlink = {
                let first = Arc::clone(&first);
                async move { first.fs.unlink(&asked(&first, 7), ROOT, "journal".as_ref()).await }
            };
            let is_moved = hierarchical && length > 1 << 20;
            let last = if is_moved { Operation::RenamePath } else { Operation::DeleteBlob };
            let kept = cut_off((&service, &estate), last, unlink).await;
            let second = estate.volume_of(&service, kept).await;
            assert_eq!(second.read(handle, 0, wanted.len()).await, wanted, "{order}, {length}, {hierarchical}");
            second.write(handle, 0, b"nobody wants this").await;
            let (caller, name) = (asked_again(&second, 7), "journal".as_ref());
            if order == "unlink first" {
                second.fs.unlink(&caller, ROOT, name).await.unwrap();
            }
            second.fs.release(handle).await.unwrap();
            if order == "close first" {
                second.fs.unlink(&caller, ROOT, name).await.unwrap();
            }
            assert_eq!(second.lookup("journal").await.unwrap_err().errno, libc::ENOENT);
            assert_eq!(second.fs.files_set_aside(), 0, "{order}, {length}, {hierarchical}");
        }
    }
}

/// rename(2) in the root; not bound to the volume, so that it can be broken off.
fn rename(
    volume: &Volume,
    caller: Caller,
    (from, to): (&'static str, &'static str),
    mode: RenameMode,
) -> impl Future<Output = azblob_csi::fs::Result<()>> + use<> {
    let fs = Arc::clone(&volume.fs);
    async move { fs.rename(&caller, (ROOT, from.as_ref()), (ROOT, to.as_ref()), mode).await }
}

/// rename(2) of a file that is written was done, and nobody noted it: a writer goes on under the new name.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_renamed_while_it_was_open_is_renamed() {
    for (hierarchical, is_sent_again) in [(false, true), (false, false), (true, true), (true, false)] {
        let service = if hierarchical { Service::start_hierarchical() } else { Service::start() };
        let (first, estate) = kept_volume(&service).await;
        let (number, log) = first.create("log", CREATE).await.unwrap();
        first.write(log, 0, b"before").await;
        first.fs.flush(log).await.unwrap();
        let (_, replaced) = first.create("log.1", CREATE).await.unwrap();
        first.write(replaced, 0, b"the one before").await;
        first.fs.flush(replaced).await.unwrap();
        let rename = |volume, caller| rename(volume, caller, ("log", "log.1"), RenameMode::Replace);
        let last = if hierarchical { Operation::RenamePath } else { Operation::DeleteBlob };
        let kept = cut_off((&service, &estate), last, rename(&first, asked(&first, 9))).await;
        let second = estate.volume_of(&service, kept).await;
        assert_eq!(second.read(log, 0, 100).await, b"before");
        second.write(log, 6, b", and after").await;
        second.fs.flush(log).await.unwrap();
        if is_sent_again {
            rename(&second, asked_again(&second, 9)).await.unwrap();
        }
        assert_eq!(service.blob("log.1"), b"before, and after");
        assert_eq!(second.lookup("log.1").await.unwrap().attr.number, number);
        assert_eq!(second.lookup("log").await.unwrap_err().errno, libc::ENOENT);
        second.fs.release(log).await.unwrap();
        second.fs.release(replaced).await.unwrap();
        assert_eq!(second.fs.files_set_aside(), 0);
    }
}

/// What is at the new name may be somebody else's, and what was at the old one gone by his hand.
#[tokio::test(flavor = "multi_thread")]
async fn another_clients_blob_is_not_taken_for_what_was_renamed() {
    let service = Service::start();
    let (first, estate) = kept_volume(&service).await;
    let (number, handle) = first.create("from", CREATE).await.unwrap();
    first.write(handle, 0, b"ours").await;
    first.fs.flush(handle).await.unwrap();
    let rename = |volume, caller| rename(volume, caller, ("from", "to"), RenameMode::Replace);
    let kept = cut_off((&service, &estate), Operation::DeleteBlob, rename(&first, asked(&first, 9))).await;
    service.put("to", b"hers");
    let second = estate.volume_of(&service, kept).await;
    assert_eq!(rename(&second, asked_again(&second, 9)).await.unwrap_err().errno, libc::ENOENT);
    assert_eq!(second.read_file("to").await, b"hers");
    assert_ne!(second.lookup("to").await.unwrap().attr.number, number);
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_that_were_answered_are_done_by_the_next_process() {
    let service = Service::start();
    for index in 0..20 {
        service.put(&format!("d/{index:02}"), b"");
    }
    let (first, estate) = kept_volume(&service).await;
    let directory = first.lookup("d").await.unwrap().attr.number;
    for index in 0..12 {
        first.fs.unlink(&first.caller, directory, format!("{index:02}").as_ref()).await.unwrap();
    }
    service.refuse(Operation::DeleteBlob, 503, "ServerBusy", None);
    for index in 12..20 {
        first.fs.unlink(&first.caller, directory, format!("{index:02}").as_ref()).await.unwrap();
    }
    // The first process ends here; its Deletes would go on in this one.
    let contents = estate.contents();
    assert!(contents.keys().any(|(section, _)| section.0 == 11), "Deletes are under way");
    service.relent();
    let second = estate.volume_of(&service, Kept { contents, ..estate.kept() }).await;
    second.fs.remove_directory(&second.caller, ROOT, "d".as_ref()).await.unwrap();
    assert!(service.names().iter().all(|name| !name.starts_with("d/")));
}

/// Bytes of state that an inode takes, with its name and lookup: the promise of the documentation.
#[tokio::test(flavor = "multi_thread")]
async fn an_inode_takes_less_than_a_kibibyte_of_state() {
    let service = Service::start();
    for index in 0..2000 {
        service.put(&format!("d/a-name-as-long-as-names-are-{index:04}"), b"content");
    }
    let (first, estate) = kept_volume(&service).await;
    let directory = first.lookup("d").await.unwrap().attr.number;
    for index in 0..2000 {
        first.lookup_in(directory, &format!("a-name-as-long-as-names-are-{index:04}")).await.unwrap();
    }
    let bytes: usize = estate.contents().values().map(|row| row.len() + 32).sum();
    println!("{} bytes of state an inode", bytes / 2000);
    assert!(bytes < 2000 << 10, "{} bytes an inode", bytes / 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_is_an_error_for_old_handles_and_no_other() {
    let service = Service::start();
    let (first, estate) = kept_volume(&service).await;
    let (number, handle) = first.create("file", CREATE).await.unwrap();
    first.write(handle, 0, b"saved").await;
    first.fs.flush(handle).await.unwrap();
    let second = estate.volume_of(&service, Kept { is_lost: true, ..estate.kept() }).await;
    assert_eq!(second.fs.read(handle, 0, 5).await.map(drop).unwrap_err().errno, libc::EIO);
    // The kernel looks the path up again.
    assert_eq!(second.fs.getattr(&second.caller, number).await.map(drop).unwrap_err().errno, libc::ESTALE);
    let open = second.open("file", READ).await.unwrap();
    assert!(open.0 > handle.0);
    assert_eq!(second.read(open, 0, 10).await, b"saved");
    second.fs.release(handle).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_volume_is_not_taken_for_this_one() {
    let service = Service::start();
    let (_first, estate) = kept_volume(&service).await;
    let settings = Settings { prefix: "elsewhere".to_owned(), ..Settings::default() };
    let resources = resources(MEMORY_BYTES, None);
    let store = service.store_with(settings.limits);
    let refused = FileSystem::open_kept(store, resources, settings, estate.kept()).await.unwrap_err();
    assert_eq!(refused.errno, libc::EINVAL);
    assert!(refused.message.contains("unmount it first"), "{}", refused.message);
}

/// What a row may have become.
#[derive(Clone, Debug)]
enum Damage {
    Gone,
    Cut(usize),
    Flipped(usize, u8),
    Moved(u64),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        Just(Damage::Gone),
        any::<usize>().prop_map(Damage::Cut),
        (any::<usize>(), 1_u8..).prop_map(|(at, bits)| Damage::Flipped(at, bits)),
        any::<u64>().prop_map(Damage::Moved),
    ]
}

fn damaged(contents: &Contents, damages: &[(usize, Damage)]) -> Contents {
    let mut contents = contents.clone();
    for (which, damage) in damages {
        let Some(key) = contents.keys().nth(which % contents.len().max(1)).copied() else { break };
        let Some(mut row) = contents.remove(&key) else { continue };
        let (mut section, mut number) = key;
        match *damage {
            Damage::Gone => continue,
            Damage::Cut(at) => row.truncate(at % row.len().max(1)),
            Damage::Flipped(at, bits) => {
                let at = at % row.len().max(1);
                if let Some(byte) = row.get_mut(at) {
                    *byte ^= bits;
                }
            }
            Damage::Moved(to) if to.is_multiple_of(2) => number = to % 5000,
            Damage::Moved(to) => section = Section((to % 14) as u16),
        }
        contents.insert((section, number), row);
    }
    contents
}

/// Rows that are missing, cut, garbled or under other keys (whose check sums are right: nobody wrote this): the next process
/// does not panic, and a file that it can read has bytes that were written to it.
#[test]
fn a_damaged_state_never_crashes_the_next_process_nor_makes_bytes_up() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let service = Service::start();
    let (first, estate) = runtime.block_on(kept_volume(&service));
    let (handles, contents): (Vec<HandleId>, Contents) = runtime.block_on(async {
        let directory = first.make_directory(ROOT, "d").await;
        let mut handles = Vec::new();
        for index in 0..6_u8 {
            let (_, handle) = first.create_in(directory, &format!("file {index}"), CREATE).await.unwrap();
            first.write(handle, 0, &vec![index + 1; 40_000]).await;
            if index % 2 == 0 {
                first.fs.flush(handle).await.unwrap();
                first.write(handle, 70_000, &vec![index + 1; 40_000]).await;
            }
            handles.push(handle);
        }
        (handles, estate.contents())
    });
    let mut runner = TestRunner::new_with_rng(
        Config { cases: harness::length().of(150, 3000), failure_persistence: None, ..Config::default() },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let damages = vec((any::<usize>(), damage()), 1..4);
    let outcome = runner.run(&damages, |damages| {
        runtime.block_on(async {
            let contents = damaged(&contents, &damages);
            // A ledger and a vault of its own: what one case writes is not the next one's.
            let ledger = Ledger::create(TAKEOVER_FORMAT).unwrap();
            let kept = Kept { contents, ledger, ..estate.kept() };
            let resources = resources(MEMORY_BYTES, None);
            let settings = Settings { read_only: true, ..Settings::default() };
            let opened = FileSystem::open_kept(service.store_with(settings.limits), resources, settings, kept).await;
            let Ok(fs) = opened else { return };
            let Some(view) = fs.take_over_view(0, ViewSettings::default()) else { return };
            let caller = Caller { view, uid: 0, gid: 0, pid: 1, request: 0 };
            for (index, handle) in handles.iter().enumerate() {
                let Ok(data) = fs.read(*handle, 0, 110_000).await else { continue };
                let fill = index as u8 + 1;
                let bytes = data.with(<[u8]>::to_vec);
                // A handle may have come to another inode, whose bytes are its own.
                let own = bytes.iter().find(|byte| **byte != 0).copied().unwrap_or(fill);
                assert!(bytes.iter().all(|byte| [0, own].contains(byte)) && (1..=6).contains(&own), "{damages:?}");
            }
            let _ = fs.lookup(&caller, ROOT, "d".as_ref()).await;
            for number in 1..40 {
                let _ = fs.getattr(&caller, InodeNumber(number)).await;
            }
        });
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
