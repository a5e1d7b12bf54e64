//! A world for one scenario: an emulator with an empty container, a directory, and the binary under test.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use blob_emulator::{Emulator, RequestRecord};
use tempfile::TempDir;

use crate::{
    Mount, account_settings,
    mountinfo::{detach_below, mounts_below},
    program::{Finished, driver, run},
    secret::assert_no_secret,
};

/// The container that every world has.
const CONTAINER: &str = "data";

/// No command line of ours may take longer to fail.
const FAIL_WITHIN: Duration = Duration::from_secs(10);

/// See the module's doc. Dropping it checks the invariants.
pub struct World {
    binary: &'static str,
    emulator: Emulator,
    directory: TempDir,
    mounts: AtomicU32,
    /// Longest life of a mount, where it is not the usual one.
    mounts_live: Option<Duration>,
}

impl World {
    /// A world around the binary at `binary` (`env!("CARGO_BIN_EXE_azblob-csi")`).
    #[must_use]
    pub fn new(binary: &'static str) -> Self {
        let emulator = Emulator::start(account_settings()).unwrap();
        emulator.create_container(CONTAINER);
        Self { binary, emulator, directory: tempfile::tempdir().unwrap(), mounts: AtomicU32::new(0), mounts_live: None }
    }

    /// The same world, whose mounts may live so long.
    #[must_use]
    pub fn with_mounts_of(mut self, life: Duration) -> Self {
        self.mounts_live = Some(life);
        self
    }

    /// The binary under test.
    pub(crate) fn binary(&self) -> &'static str {
        self.binary
    }

    /// The service, to look into and to turn its knobs.
    #[must_use]
    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// Name of its container.
    #[must_use]
    pub fn container(&self) -> &'static str {
        CONTAINER
    }

    /// URL of its container.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}/{CONTAINER}", self.emulator.endpoint())
    }

    /// A path in its directory; nothing is made.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A new, empty directory in it.
    #[must_use]
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Lets other users into its directory: mounts for several users, servers that refuse to be root.
    pub fn open_to_other_users(&self) {
        fs::set_permissions(self.directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    }

    /// The binary, with an environment that holds the emulator's key and nothing of the caller's.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = driver(self.binary);
        command.args(args).env("AZURE_STORAGE_KEY", self.emulator.key());
        command
    }

    /// The binary, with this environment and neither a key nor anything of the caller's.
    #[must_use]
    pub fn command_as(&self, args: &[&str], environment: &[(&str, String)]) -> Command {
        let mut command = driver(self.binary);
        for name in ["https_proxy", "http_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command.args(args).envs(environment.iter().map(|(name, value)| (*name, value)));
        command
    }

    /// Mounts the container at `url`, with extra arguments, on a fresh mount point, with this environment in place of the
    /// account's key.
    #[track_caller]
    #[must_use]
    pub fn mount_as(&self, url: &str, args: &[&str], environment: &[(&str, String)]) -> Mount {
        let number = self.mounts.fetch_add(1, Ordering::Relaxed);
        let mount_point = self.directory(&format!("mnt{number}"));
        let mut all = vec!["mount"];
        all.extend(args);
        all.extend([url, mount_point.to_str().unwrap()]);
        let log = self.path(&format!("mnt{number}.log"));
        Mount::start(self.command_as(&all, environment), mount_point, &log, self.mounts_live)
    }

    /// Mounts its container, with extra arguments, on a fresh mount point.
    #[track_caller]
    #[must_use]
    pub fn mount(&self, args: &[&str]) -> Mount {
        self.mount_url(&self.url(), args)
    }

    /// Mounts the container at `url`, with extra arguments, on a fresh mount point.
    #[track_caller]
    #[must_use]
    pub fn mount_url(&self, url: &str, args: &[&str]) -> Mount {
        let number = self.mounts.fetch_add(1, Ordering::Relaxed);
        self.start(url, &self.directory(&format!("mnt{number}")), args, number)
    }

    /// Mounts its container, with extra arguments, on the mount point of a mount that has ended: for programs that keep
    /// their own absolute path.
    #[track_caller]
    #[must_use]
    pub fn mount_at(&self, mount_point: &Path, args: &[&str]) -> Mount {
        let number = self.mounts.fetch_add(1, Ordering::Relaxed);
        self.start(&self.url(), mount_point, args, number)
    }

    /// As [`Self::mount_at`], by another build of the driver.
    #[track_caller]
    #[must_use]
    pub fn mount_at_from(&self, binary: &str, mount_point: &Path, args: &[&str]) -> Mount {
        let number = self.mounts.fetch_add(1, Ordering::Relaxed);
        self.start_from(binary, &self.url(), mount_point, args, number)
    }

    #[track_caller]
    fn start(&self, url: &str, mount_point: &Path, args: &[&str], number: u32) -> Mount {
        self.start_from(self.binary, url, mount_point, args, number)
    }

    #[track_caller]
    fn start_from(&self, binary: &str, url: &str, mount_point: &Path, args: &[&str], number: u32) -> Mount {
        let mut command = driver(binary);
        command.arg("mount").args(args).arg(url).arg(mount_point).env("AZURE_STORAGE_KEY", self.emulator.key());
        let log = self.path(&format!("mnt{number}.log"));
        Mount::start(command, mount_point.to_owned(), &log, self.mounts_live)
    }

    /// Runs the binary with arguments that must fail: exit code 1, soon, one sentence, no panic.
    #[track_caller]
    pub fn fails(&self, command: &mut Command) -> String {
        let finished = run(command, FAIL_WITHIN);
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        assert!(finished.stdout.is_empty(), "nothing belongs on stdout: {finished:?}");
        assert!(!finished.stderr.contains("panicked"), "{finished:?}");
        self.assert_no_secret(&finished.stderr);
        assert_eq!(mounts_below(self.directory.path()), Vec::<String>::new(), "a failed mount left something behind");
        finished.stderr
    }

    /// Runs another program to its end.
    #[track_caller]
    pub fn run(&self, command: &mut Command, limit: Duration) -> Finished {
        run(command, limit)
    }

    /// Fails when a secret of this world stands in `text`.
    #[track_caller]
    pub fn assert_no_secret(&self, text: &str) {
        assert_no_secret(text, &self.emulator.key());
    }

    fn check(&self, directory: &Path) {
        let left = mounts_below(directory);
        assert_eq!(left, Vec::<String>::new(), "mounts were left behind");
        for entry in fs::read_dir(directory).unwrap().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                let text = fs::read(entry.path()).unwrap();
                let text = String::from_utf8_lossy(&text);
                self.assert_no_secret(&text);
                assert!(!text.contains("panicked at"), "a panic stands in {}: {text}", entry.path().display());
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            detach_below(self.directory.path());
            for entry in fs::read_dir(self.directory.path()).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "log") {
                    print_tail(&entry.path());
                }
            }
            print_refused(&self.emulator.requests());
        } else {
            self.check(self.directory.path());
        }
    }
}

/// The end of a log, for a test that failed: the log of a long test is megabytes.
fn print_tail(path: &Path) {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(30);
    eprintln!("--- {} ({} lines) ---\n{}", path.display(), lines.len(), lines[from..].join("\n"));
}

/// What was asked of the blobs that the service has refused a change of, where the requests were kept (`request_log`): a refusal
/// that nobody expected is explained by what came before it.
fn print_refused(requests: &[RequestRecord]) {
    let is_refused = |record: &&RequestRecord| matches!(record.status, 409 | 412);
    let blobs: BTreeSet<&str> = requests.iter().filter(is_refused).map(|record| record.blob.as_str()).collect();
    for blob in blobs.into_iter().filter(|blob| !blob.is_empty()) {
        eprintln!("--- requests for {blob} ---");
        for record in requests.iter().filter(|record| record.blob == blob) {
            let RequestRecord { number, operation, range, status, code, bytes_in, bytes_out, .. } = record;
            eprintln!("{number} {operation} {range} {status} {code} in {bytes_in} out {bytes_out}");
        }
    }
}
