//! A mount with its keeper, whose process can be replaced by the next one.
//!
//! What is open in such a mount is held by programs of their own, never by the test: a process that it starts has duplicates of
//! its files until exec(2), whose end would wait for the very process that is being started.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::{Keeper, Mount, World, mountinfo::detach_below};

/// Requests that are kept for a test that fails: minutes of several programs.
const REQUESTS_KEPT: usize = 100_000;

/// See the module's doc.
pub struct Kept {
    world: World,
    keeper: Option<Keeper>,
    socket: PathBuf,
    point: PathBuf,
    /// Beside those that name the keeper.
    args: Vec<String>,
    /// What the next process is started from, where that is another build.
    binary: Option<&'static str>,
    mount: Option<Mount>,
}

impl Kept {
    /// Mounts the container of `world`, with these arguments, now and whenever a process begins.
    #[track_caller]
    #[must_use]
    pub fn new(world: World, args: &[&str]) -> Self {
        world.emulator().settings(|settings| settings.request_log = REQUESTS_KEPT);
        let (socket, point) = (world.path("keeper.sock"), world.directory("kept"));
        let keeper = Some(Keeper::start(world.binary(), &socket, &[]));
        let mut kept = Self { world, keeper, socket, point, args: Vec::new(), binary: None, mount: None };
        kept.set_args(args);
        kept.begin();
        kept
    }

    /// Has processes from the next on begin with these arguments.
    pub fn set_args(&mut self, args: &[&str]) {
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
    }

    /// Has processes from the next on be of another build of the driver, or of the usual one.
    pub fn set_binary(&mut self, binary: Option<&'static str>) {
        self.binary = binary;
    }

    /// Starts the next process.
    #[track_caller]
    pub fn begin(&mut self) {
        let mut args = vec!["--keeper", self.socket.to_str().unwrap()];
        args.extend(self.args.iter().map(String::as_str));
        self.mount = Some(match self.binary {
            Some(binary) => self.world.mount_at_from(binary, &self.point, &args),
            None => self.world.mount_at(&self.point, &args),
        });
    }

    /// Kills the keeper.
    #[track_caller]
    pub fn end_keeper(&mut self) {
        let _ = self.keeper.take().unwrap().end_with(Signal::SIGKILL);
    }

    /// Starts another keeper.
    #[track_caller]
    pub fn begin_keeper(&mut self) {
        self.keeper = Some(Keeper::start(self.world.binary(), &self.socket, &[]));
    }

    /// Kills the keeper, starts another, and waits until that has got everything.
    #[track_caller]
    pub fn replace_keeper(&mut self) {
        self.end_keeper();
        let _ = self.mount.as_ref().unwrap().wait_for_log("the keeper is gone");
        self.begin_keeper();
        let _ = self.mount.as_ref().unwrap().wait_for_log("a keeper holds the mounts again");
    }

    /// Ends the process, and leaves the mount. Returns its log.
    #[track_caller]
    pub fn end(&mut self, signal: Signal) -> String {
        self.mount.take().unwrap().leave(signal)
    }

    /// Ends the process and starts the next one.
    #[track_caller]
    pub fn replace(&mut self, signal: Signal) {
        check(&self.end(signal));
        self.begin();
    }

    /// Where it is mounted.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.point
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    /// What it is in.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Ends it as an operator does.
    #[track_caller]
    pub fn unmount(mut self) {
        let ended = self.mount.take().unwrap().unmount();
        check(&ended.log);
    }
}

/// Nobody else writes to the container: nothing may seem to be another client's.
#[track_caller]
fn check(log: &str) {
    let complaint = ["panicked", "lost+found", "another client"].into_iter().find(|word| log.contains(word));
    assert_eq!(complaint, None, "{log}");
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Where a test failed between two processes, the mount has no owner who would take it away.
        if self.mount.is_none() {
            detach_below(&self.point);
        }
    }
}
