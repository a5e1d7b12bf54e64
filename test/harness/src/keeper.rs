//! A running `azblob-csi keeper`. Dropping it kills the process, whatever happened.

use std::path::Path;

use nix::sys::signal::Signal;

use crate::{
    program::driver,
    role::{Ended, Role},
};

/// See the module's doc.
pub struct Keeper(Role);

impl Keeper {
    /// Starts the driver at `binary` as the keeper of `socket`, and waits for its `ready`. Its log is beside the socket.
    #[track_caller]
    #[must_use]
    pub fn start(binary: &str, socket: &Path, args: &[&str]) -> Self {
        let mut command = driver(binary);
        command.args(["keeper", "--socket"]).arg(socket).args(args);
        let (role, said) = Role::start(&mut command, &socket.with_extension("log"));
        role.wait_until_ready(&said);
        Self(role)
    }

    /// The number of its process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.0.process()
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.0.log()
    }

    /// Waits until it has logged `text`; returns what it logged so far.
    #[track_caller]
    #[must_use]
    pub fn wait_for_log(&self, text: &str) -> String {
        self.0.wait_for_log(text)
    }

    /// What it has resident now, in bytes.
    #[must_use]
    pub fn rss_bytes(&self) -> u64 {
        self.0.memory_bytes("VmRSS")
    }

    /// Ends it with a signal and waits.
    #[track_caller]
    pub fn end_with(mut self, signal: Signal) -> Ended {
        self.0.end_with(signal)
    }
}
