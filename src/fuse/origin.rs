//! Where a mount comes from: it is made, or another process has left it. Either way a server greets the kernel there.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use fuser::Config;

use super::{
    adapter::Adapter,
    error::Error,
    handshake::{self, Agreement},
    mount,
    session::SessionOptions,
};

/// What must be known of a mount to go on with it: all but what the volume itself has written down.
#[derive(Debug)]
pub struct Connected {
    /// The kernel's end.
    pub device: OwnedFd,
    /// What was agreed on.
    pub agreement: Agreement,
    /// The number of the view.
    pub view: u64,
    /// Where it is mounted, as the kernel names it.
    pub mount_point: PathBuf,
}

/// Is given a mount before it is served, so that it outlives this process.
pub type Keep = Box<dyn FnOnce(&Connected) -> std::io::Result<()> + Send>;

/// Where a mount comes from.
pub(super) enum Origin {
    /// It is made, and perhaps kept.
    New(Option<Keep>),
    /// Another process has made it.
    Left(Connected),
}

/// A mount that is there and that nobody serves.
pub(super) struct Placed {
    /// Where, without links.
    pub(super) mount_point: PathBuf,
    end: End,
}

enum End {
    Made(OwnedFd, Option<Keep>),
    Left(Connected),
}

impl Origin {
    /// The mount; a new one is made.
    pub(super) fn place(self, path: &Path, options: &SessionOptions) -> Result<Placed, Error> {
        match self {
            Self::New(keep) => {
                let mount_point = mount::check_mount_point(path)?;
                let device = mount::mount_at(&mount_point, options)?;
                Ok(Placed { mount_point, end: End::Made(device, keep) })
            }
            // Not looked at: a stat(2) there would wait for us.
            Self::Left(connected) => {
                Ok(Placed { mount_point: connected.mount_point.clone(), end: End::Left(connected) })
            }
        }
    }
}

impl Placed {
    /// It was made here, just now.
    pub(super) fn is_made(&self) -> bool {
        matches!(self.end, End::Made(..))
    }

    /// It outlives this process.
    pub(super) fn is_kept(&self) -> bool {
        !matches!(self.end, End::Made(_, None))
    }

    /// A server that the kernel has agreed with, now or when another process made the mount. A new one is given away to be
    /// kept.
    pub(super) fn greet(
        self,
        adapter: Adapter,
        config: Config,
        view: u64,
    ) -> std::io::Result<(fuser::Session<Adapter>, Connected)> {
        match self.end {
            End::Left(connected) => {
                let served = handshake::resume(adapter, &connected.device, config, &connected.agreement)?;
                Ok((served, connected))
            }
            End::Made(device, keep) => {
                let (served, agreement) = handshake::shake(adapter, &device, config)?;
                let connected = Connected { device, agreement, view, mount_point: self.mount_point };
                if let Some(keep) = keep {
                    keep(&connected)?;
                }
                Ok((served, connected))
            }
        }
    }
}
