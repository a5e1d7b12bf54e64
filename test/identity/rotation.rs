//! Keys, SAS and tokens are replaced under load, and no program hears of it: no error, no remount.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use azblob_csi::credential::AccountKey;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use blob_emulator::subject_of;
use harness::{Mount, World, assert_no_secret};

use crate::{CLIENT, ISSUER, Realm, TENANT};

/// How often each kind of credential is replaced.
const ROTATIONS: usize = 10;
const READERS: usize = 8;
const WRITERS: usize = 4;
/// Between two rotations: long enough that each worker comes round.
const BETWEEN: Duration = Duration::from_millis(700);
/// Between two rounds of a worker: what counts is that requests are under way all the time, not how many.
const PAUSE: Duration = Duration::from_millis(10);
/// Files that are read; never changed.
const SHARED_BYTES: usize = 300_000;
/// A file of several blocks, of which a part is changed: the service copies the rest from the version before.
const LARGE_BYTES: usize = 9 << 20;

/// Replaces a file as Kubernetes and careful programs do.
fn swap(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

fn new_key() -> String {
    STANDARD.encode([uuid::Uuid::new_v4().into_bytes(); 4].concat())
}

/// A service SAS for the container, signed with this key.
pub fn container_sas(world: &World, key: &str, permissions: &str, expiry: &str) -> String {
    const VERSION: &str = "2020-12-06";
    let account = world.emulator().account();
    let resource = format!("/blob/{account}/{}", world.container());
    let lines = [permissions, "", expiry, &resource, "", "", "", VERSION, "c", "", "", "", "", "", "", ""].join("\n");
    let signature = AccountKey::parse("test", account, key).unwrap().sign(&lines);
    let signature: String = url::form_urlencoded::byte_serialize(signature.as_bytes()).collect();
    format!("sv={VERSION}&sr=c&sp={permissions}&se={expiry}&sig={signature}")
}

fn shared_bytes(number: usize) -> Vec<u8> {
    (0..SHARED_BYTES).map(|at| (at * (number + 3) / 11) as u8).collect()
}

/// Puts the files for the readers there.
fn prepare(world: &World) {
    for number in 0..READERS {
        world.emulator().put(world.container(), &format!("shared{number}"), shared_bytes(number), &[]).unwrap();
    }
}

/// The mount as the kernel knows it: its line in mountinfo (with the id of the mount), and the number of a file.
fn identity_of(mount: &Mount) -> (String, u64, u64) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let point = mount.root().to_str().unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(4) == Some(point)).unwrap().to_owned();
    let file = fs::metadata(mount.path("shared0")).unwrap();
    (line, file.dev(), file.ino())
}

/// std drops what close(2) says.
fn write_synced(path: &Path, text: &str) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.sync_all().unwrap();
}

fn read_round(mount: &Mount, reader: usize, round: u64) {
    // Names that nobody has asked for make requests, whatever is cached.
    assert!(fs::metadata(mount.path(&format!("missing{reader}-{round}"))).is_err());
    let number = (reader + round as usize) % READERS;
    assert!(fs::read(mount.path(&format!("shared{number}"))).unwrap() == shared_bytes(number));
}

fn write_round(mount: &Mount, writer: usize, round: u64) {
    let (own, moved) = (mount.path(&format!("own{writer}")), mount.path(&format!("moved{writer}")));
    let text = format!("{writer} {round} ").repeat(1000);
    write_synced(&own, &text);
    fs::rename(&own, &moved).unwrap();
    assert!(fs::read_to_string(&moved).unwrap() == text);
    if writer == 0 && round.is_multiple_of(4) {
        let file = fs::OpenOptions::new().write(true).open(mount.path("large")).unwrap();
        file.write_all_at(&round.to_le_bytes(), 4 << 20).unwrap();
        file.sync_all().unwrap();
    }
}

/// Runs readers and writers while `rotate` is called ten times; nothing fails, and the mount stays what it was.
fn assert_unnoticed(mount: &Mount, what: &str, mut rotate: impl FnMut(usize)) {
    fs::write(mount.path("large"), vec![7; LARGE_BYTES]).unwrap();
    let before = identity_of(mount);
    let (over, reads, writes) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let work = |done: &AtomicU64, round: &dyn Fn(u64)| {
        for number in 0.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            round(number);
            done.fetch_add(1, Ordering::Relaxed);
            thread::sleep(PAUSE);
        }
    };
    thread::scope(|scope| {
        for reader in 0..READERS {
            let (reads, work) = (&reads, &work);
            scope.spawn(move || work(reads, &|round| read_round(mount, reader, round)));
        }
        for writer in 0..WRITERS {
            let (writes, work) = (&writes, &work);
            scope.spawn(move || work(writes, &|round| write_round(mount, writer, round)));
        }
        for rotation in 0..ROTATIONS {
            thread::sleep(BETWEEN);
            rotate(rotation);
        }
        thread::sleep(BETWEEN);
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(identity_of(mount), before, "the mount is another one");
    let (reads, writes) = (reads.into_inner(), writes.into_inner());
    println!("{ROTATIONS} rotations of {what}: {reads} rounds of {READERS} readers, {writes} of {WRITERS} writers");
    assert!(reads > ROTATIONS as u64 && writes > ROTATIONS as u64);
}

/// A file with a secret, and the mount that signs with it.
fn mount_with(world: &World, variables: &[(&'static str, &PathBuf)]) -> Mount {
    let variables: Vec<_> = variables.iter().map(|(name, file)| (*name, file.display().to_string())).collect();
    let log = "info,azblob_csi::credential=trace,azblob_csi::blob=trace";
    world.mount_as(&world.url(), &["--metadata-ttl", "0s", "--log-level", log], &variables)
}

#[test]
fn keys_are_rotated_under_load_in_any_order() {
    let world = World::new(env!("CARGO_BIN_EXE_azblob-csi"));
    prepare(&world);
    let (one, two) = (world.path("key1"), world.path("key2"));
    let mut keys = [new_key(), new_key()];
    let mut all = keys.to_vec();
    world.emulator().set_keys(keys.clone());
    swap(&one, &keys[0]);
    swap(&two, &keys[1]);
    let mount = mount_with(&world, &[("AZURE_STORAGE_KEY_FILE", &one), ("AZURE_STORAGE_KEY2_FILE", &two)]);
    assert_unnoticed(&mount, "keys", |rotation| {
        let new = [new_key(), new_key()];
        all.extend(new.clone());
        match rotation % 3 {
            // Both at once; the Secret first, as it has to be when no key stays good.
            0 => {
                swap(&one, &new[0]);
                swap(&two, &new[1]);
                keys = new;
                world.emulator().set_keys(keys.clone());
            }
            // The first key in the service; the Secret follows when the second one is in use already.
            1 => {
                keys[0].clone_from(&new[0]);
                world.emulator().set_keys(keys.clone());
                thread::sleep(BETWEEN);
                swap(&one, &keys[0]);
            }
            // The Secret is long ahead of the service.
            _ => {
                keys[1].clone_from(&new[1]);
                swap(&two, &keys[1]);
                thread::sleep(BETWEEN);
                world.emulator().set_keys(keys.clone());
            }
        }
    });
    // Neither arguments nor a core tell.
    let process = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", mount.process())).unwrap();
    let limits = process("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    let arguments = process("cmdline");
    let log = mount.unmount().log;
    for key in &all {
        assert_no_secret(&log, key);
        assert_no_secret(&arguments, key);
    }
}

#[test]
fn sas_tokens_are_rotated_under_load() {
    let world = World::new(env!("CARGO_BIN_EXE_azblob-csi"));
    prepare(&world);
    let file = world.path("sas");
    let mut keys = [new_key(), new_key()];
    world.emulator().set_keys(keys.clone());
    let sas = |key: &str| container_sas(&world, key, "racwdl", "2099-01-01T00:00:00Z");
    swap(&file, &sas(&keys[0]));
    let mount = mount_with(&world, &[("AZURE_STORAGE_SAS_TOKEN_FILE", &file)]);
    assert_unnoticed(&mount, "SAS", |rotation| {
        // A new one, signed with the other key; then the key of the old one ends, and the old one with it.
        let (old, new) = (rotation % 2, (rotation + 1) % 2);
        swap(&file, &sas(&keys[new]));
        keys[old] = new_key();
        world.emulator().set_keys(keys.clone());
    });
    let log = mount.unmount().log;
    for key in &keys {
        assert_no_secret(&log, key);
    }
}

#[test]
fn federated_tokens_are_rotated_under_load() {
    let realm = Realm::new();
    prepare(&realm.world);
    let (cluster, file) = realm.federated();
    let environment =
        [("AZURE_CLIENT_ID", CLIENT), ("AZURE_TENANT_ID", TENANT), ("AZURE_FEDERATED_TOKEN_FILE", &*file)];
    // Each token of Entra ID and each one of the cluster ends before the test does.
    realm.services.token_life(Duration::from_secs(1));
    let token =
        |account: &str| cluster.token("apps", account, "api://AzureADTokenExchange", time::Duration::seconds(4));
    swap(Path::new(&file), &token("reader"));
    let log = "info,azblob_csi::credential=trace,azblob_csi::blob=trace";
    let mount = realm.mount(&["--metadata-ttl", "0s", "--log-level", log], &environment);
    assert_unnoticed(&mount, "tokens", |rotation| {
        // Another service account each time, whose forerunner was trusted for the last time.
        let account = format!("reader{rotation}");
        let application = realm.services.tenant(TENANT).application(CLIENT);
        let _ = application.federated(ISSUER, &subject_of("apps", &account));
        swap(Path::new(&file), &token(&account));
    });
    let log = mount.unmount().log;
    realm.assert_no_secret(&log);
}

#[test]
fn a_file_that_changes_is_used_without_a_refusal() {
    let world = World::new(env!("CARGO_BIN_EXE_azblob-csi"));
    prepare(&world);
    let file = world.path("sas");
    let sas = |permissions| container_sas(&world, &world.emulator().key(), permissions, "2099-01-01T00:00:00Z");
    swap(&file, &sas("rl"));
    let mount = mount_with(&world, &[("AZURE_STORAGE_SAS_TOKEN_FILE", &file)]);
    let file_of_volume = fs::File::create(mount.path("new")).unwrap();
    assert_eq!(file_of_volume.sync_all().unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    drop(file_of_volume);
    swap(&file, &sas("racwdl"));
    let log = mount.wait_for_log("the credential was replaced");
    assert!(log.contains(&file.display().to_string()), "{log}");
    write_synced(&mount.path("new"), "x");
    // What makes no sense is not used, and ends nothing.
    swap(&file, "no sas");
    let _ = mount.wait_for_log("is not used");
    write_synced(&mount.path("new"), "y");
    assert_eq!(world.emulator().get(world.container(), "new").unwrap(), b"y");
    mount.unmount();
}

#[test]
fn a_refused_key_costs_one_request_more_while_nobody_knows_a_better_one() {
    let world = World::new(env!("CARGO_BIN_EXE_azblob-csi"));
    let file = world.path("key");
    swap(&file, &world.emulator().key());
    let mount = mount_with(&world, &[("AZURE_STORAGE_KEY_FILE", &file)]);
    let old = world.emulator().key();
    let new = world.emulator().rotate_key();
    let asked = world.emulator().requests().len();
    for number in 0..20 {
        let error = fs::metadata(mount.path(&format!("refused{number}"))).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{error}");
    }
    let requests = world.emulator().requests().len() - asked;
    assert!(requests <= 2 * 20, "{requests} requests for 20 names");
    swap(&file, &new);
    let _ = mount.wait_for_log("the credential was replaced");
    write_synced(&mount.path("a"), "x");
    let log = mount.unmount().log;
    assert_no_secret(&log, &old);
    assert_no_secret(&log, &new);
}
