//! One mount and the threads that serve it.
//!
//! ```text
//! Serving --umount(2) by anybody, abort--> Ended --all replied, released and saved--> Closed
//! ```
//! Nothing acknowledged is lost at the end: umount(2) may drop queued RELEASEs (DESIGN 10.13), so what is dirty is saved
//! before and after, whatever the kernel still told us.

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use fuser::{Config, InitFlags};
use nix::errno::Errno;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    fs::{self, FileSystem, View, ViewSettings},
    sync::{Arc, AtomicBool, Ordering},
};

use super::{
    Error,
    adapter::Adapter,
    connection::Connection,
    dispatch::{Dispatch, InFlight},
    handshake, mount,
    name_copies::NameCopies,
    notifier,
    open_handles::OpenHandles,
    passthrough::Passthrough,
};

/// Threads that read requests. Each answers what memory holds and hands the rest to tasks, so few are needed; more than
/// one so that a copy of 1 MiB holds nobody up.
const THREADS_DEFAULT: usize = 4;

/// How long a detached mount may stay in use before it is cut off.
const DETACHED_GRACE: Duration = Duration::from_secs(10);

/// How long umount(2) is tried while the mount is busy: a process that was just killed still holds it for a moment.
const BUSY_TRIES: u32 = 10;

/// Between two of these tries.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// How a mount is made.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// What `mount` shows as the source, e.g. the container's URL without any secret.
    pub source: String,
    /// Whether other users than the one who mounts may use it.
    pub allow_other: bool,
    /// Read-only for the kernel already.
    pub read_only: bool,
    /// No programs may be run from it.
    pub no_exec: bool,
    /// The kernel does not touch access times.
    pub no_atime: bool,
    /// Threads that read requests.
    pub threads: usize,
    /// INIT features (bits of FUSE's `flags | flags2 << 32`) that are not used although the kernel has them. For tests.
    pub masked_features: u64,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            source: "azblob-csi".to_owned(),
            allow_other: false,
            read_only: false,
            no_exec: false,
            no_atime: false,
            threads: THREADS_DEFAULT,
            masked_features: 0,
        }
    }
}

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Ended,
    Closed,
}

/// A served mount. Dropping it detaches the mount without waiting; [`Session::unmount`] is the orderly end.
#[derive(Debug)]
pub struct Session {
    mount_point: PathBuf,
    fs: Arc<FileSystem>,
    view: Arc<View>,
    connection: Option<Connection>,
    phase: watch::Receiver<Phase>,
    in_flight: Arc<InFlight>,
    open: Arc<OpenHandles>,
    passthrough: Arc<Passthrough>,
    /// The mount point is not ours to detach any more.
    disowned: AtomicBool,
    /// Nobody waits for what is saved after the end any more.
    hurried: watch::Sender<bool>,
}

impl Session {
    /// Mounts a view of `fs` on `mount_point` and serves it; returns when it answers. Requests run on the volume's
    /// runtime.
    ///
    /// # Errors
    /// [`Error`], without a mount left behind.
    pub async fn mount(
        fs: Arc<FileSystem>,
        view: ViewSettings,
        mount_point: &Path,
        options: SessionOptions,
    ) -> Result<Self, Error> {
        let view = fs.add_view(view);
        let mounted = tokio::task::spawn_blocking({
            let (fs, view, path) = (Arc::clone(&fs), Arc::clone(&view), mount_point.to_owned());
            move || start(fs, view, &path, &options)
        });
        match mounted.await {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(error)) => {
                fs.remove_view(&view);
                Err(error)
            }
            Err(join) => {
                fs.remove_view(&view);
                Err(Error::Handshake(mount_point.to_owned(), std::io::Error::other(join)))
            }
        }
    }

    /// Where it is mounted, without links.
    #[must_use]
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// The view that it serves.
    #[must_use]
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Whether the mount is there and answers. False once somebody unmounted or aborted it.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        *self.phase.borrow() == Phase::Serving
    }

    /// Operations that panicked so far.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.in_flight.panics()
    }

    /// How often the kernel has asked for these operations.
    #[cfg(test)]
    pub(super) fn asked(&self, operations: &[&str]) -> u64 {
        self.in_flight.asked(operations)
    }

    /// Opens after which the kernel reads from the node's disk without us.
    #[must_use]
    pub fn handed_over(&self) -> u64 {
        self.passthrough.handed_over()
    }

    /// Whether it serves the superblock `device` (`major:minor`, as mountinfo shows it).
    #[must_use]
    pub fn is_on(&self, device: &str) -> bool {
        self.connection.is_some_and(|connection| connection.is_on(device))
    }

    /// Waits until the mount is no longer served, whoever ended it. Cancel-safe.
    pub async fn ended(&self) {
        let mut phase = self.phase.clone();
        // The sender lives as long as the session's threads, and says Closed last.
        let _ = phase.wait_for(|phase| *phase > Phase::Serving).await;
    }

    /// Saves everything, unmounts and waits for the end. A mount that is in use leaves the tree at once and is cut off
    /// when its users do not let go within [`DETACHED_GRACE`]; what they wrote until then is saved.
    ///
    /// # Errors
    /// [`Error::Unsaved`] when the service did not take everything (the mount is gone nevertheless; where it was the
    /// volume's last, the rest is in lost+found),
    /// [`Error::Unmount`] when the kernel keeps it.
    pub async fn unmount(&self) -> Result<(), Error> {
        self.unmount_within(Duration::MAX).await
    }

    /// The same, where saving may take no longer than `saving` in all. What is not saved then counts as unsaved.
    ///
    /// # Errors
    /// As [`Self::unmount`].
    pub async fn unmount_within(&self, saving: Duration) -> Result<(), Error> {
        let begun = Instant::now();
        let set_aside = self.fs.files_set_aside();
        let before = self.save_within(saving).await;
        if let Err(error) = &before {
            tracing::error!(mount = %self.mount_point.display(), "saving before unmounting: {}", error.to_chain());
        }
        let path = self.mount_point.clone();
        let unmounted = tokio::task::spawn_blocking(move || unmount_or_detach(&path)).await;
        match unmounted {
            Ok(Err(errno)) if self.is_serving() => return Err(Error::Unmount(self.mount_point.clone(), errno.into())),
            _ => {}
        }
        if tokio::time::timeout(DETACHED_GRACE, self.closed()).await.is_err() {
            self.cut_off().await;
        }
        // What was written between the first saving and the end, and what earlier failed for a moment only.
        let saved = self.save_within(saving.saturating_sub(begun.elapsed())).await;
        if saved.is_err() {
            self.hurried.send_replace(true);
            let _ = tokio::time::timeout(DETACHED_GRACE, self.closed()).await;
        }
        let unsaved = |what: String, error| Err(Error::Unsaved(self.mount_point.clone(), what, error));
        if self.fs.has_views() {
            return saved
                .or_else(|error| unsaved("it is tried again while the volume is in use".to_owned(), Some(error)));
        }
        // Nobody will save anything of this volume any more.
        let left = self.fs.set_aside_all().await;
        let moved = self.fs.files_set_aside() - set_aside;
        if left.kept == 0 && moved == 0 {
            let count = self.fs.debts().count();
            return match saved {
                Err(error) if count > 0 => {
                    let what = format!(
                        "{count} names that were removed wait in the spool directory's journal for the next mount"
                    );
                    unsaved(what, Some(error))
                }
                _ => Ok(()),
            };
        }
        let lost = if left.kept > 0 { format!(", {} are lost", left.kept) } else { String::new() };
        let what = format!("{moved} files are in lost+found of the spool directory, as the log says{lost}");
        unsaved(what, before.and(saved).err())
    }

    async fn save_within(&self, limit: Duration) -> fs::Result<()> {
        let too_long = || fs::Error::new(libc::ETIMEDOUT, "the service does not take everything in time");
        tokio::time::timeout(limit, self.fs.flush_all()).await.unwrap_or_else(|_| Err(too_long()))
    }

    /// Says that the mount was taken down by somebody else, and that another may come in its place: from now on a drop
    /// leaves the path alone. The session may not have noticed yet, or go on for those who hold files of it open.
    pub fn disown(&self) {
        self.disowned.store(true, Ordering::Release);
    }

    /// Whether [`Self::disown`] was called.
    #[must_use]
    pub fn is_disowned(&self) -> bool {
        self.disowned.load(Ordering::Acquire)
    }

    async fn closed(&self) {
        let mut phase = self.phase.clone();
        let _ = phase.wait_for(|phase| *phase == Phase::Closed).await;
    }

    async fn cut_off(&self) {
        tracing::warn!(mount = %self.mount_point.display(), "still in use after unmounting: cutting its users off");
        match self.connection.map(Connection::abort) {
            Some(Ok(())) => {
                let _ = tokio::time::timeout(DETACHED_GRACE, self.closed()).await;
            }
            Some(Err(error)) => tracing::warn!(%error, "cannot abort the FUSE connection; it ends with its users"),
            None => {}
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_serving()
            && !self.is_disowned()
            && let Err(errno) = mount::unmount(&self.mount_point, true)
        {
            tracing::warn!(mount = %self.mount_point.display(), %errno, "cannot detach the mount");
        }
    }
}

/// Mounts, shakes hands and starts the threads. Blocks for as long as the kernel takes.
fn start(fs: Arc<FileSystem>, view: Arc<View>, path: &Path, options: &SessionOptions) -> Result<Session, Error> {
    let mount_point = mount::check_mount_point(path)?;
    let device = mount::mount_at(&mount_point, options)?;
    let runtime = fs.resources().runtime.clone();
    let in_flight = Arc::new(InFlight::default());
    let (open, passthrough) = (Arc::new(OpenHandles::default()), Arc::new(Passthrough::default()));
    // FOPEN_CACHE_DIR and this came with one version of the protocol.
    let is_new = options.masked_features & InitFlags::FUSE_CACHE_SYMLINKS.bits() == 0;
    let copies = Arc::new(NameCopies::new(Arc::clone(&view), runtime.clone(), is_new));
    let adapter = Adapter {
        fs: Arc::clone(&fs),
        view: Arc::clone(&view),
        dispatch: Dispatch::new(runtime.clone(), Arc::clone(&in_flight), Arc::clone(fs.meter())),
        open: Arc::clone(&open),
        passthrough: Arc::clone(&passthrough),
        copies: Arc::clone(&copies),
        masked_features: options.masked_features,
        access_times: !options.no_atime,
    };
    let mut config = Config::default();
    config.n_threads = Some(options.threads.max(1));
    let undo = |source| {
        let _ = mount::unmount(&mount_point, true);
        Error::Handshake(mount_point.clone(), source)
    };
    let (served, _) = handshake::shake(adapter, &device, config).map_err(undo)?;
    let connection = tune(&mount_point);
    let notifier = runtime.spawn(notifier::notify(view.invalidations(), served.notifier(), copies));
    let (phase_out, phase) = watch::channel(Phase::Serving);
    let (ended_out, ended) = tokio::sync::oneshot::channel();
    let shown = mount_point.clone();
    let thread = thread::Builder::new().name("fuse".to_owned()).spawn(move || {
        if let Err(error) = served.run() {
            tracing::warn!(mount = %shown.display(), %error, "the FUSE session ended with an error");
        }
        let _ = ended_out.send(());
    });
    thread.map_err(undo)?;
    let disowned = AtomicBool::new(false);
    let (hurried, hurry) = watch::channel(false);
    let session = Session { mount_point, fs, view, connection, phase, in_flight, open, passthrough, disowned, hurried };
    runtime.spawn(close(session.ending(notifier, hurry), ended, phase_out));
    Ok(session)
}

fn tune(mount_point: &Path) -> Option<Connection> {
    let connection = match Connection::find(mount_point) {
        Ok(found) => found?,
        Err(error) => {
            tracing::warn!(%error, "cannot read /proc/self/mountinfo");
            return None;
        }
    };
    if let Err(error) = connection.tune() {
        tracing::warn!(%error, "cannot set the mount's read_ahead_kb: sequential reads will be slow (is /sys read-only?)");
    }
    Some(connection)
}

/// What must be done when a session's threads have ended.
struct Ending {
    fs: Arc<FileSystem>,
    view: Arc<View>,
    in_flight: Arc<InFlight>,
    open: Arc<OpenHandles>,
    notifier: JoinHandle<()>,
    mount_point: PathBuf,
    hurry: watch::Receiver<bool>,
}

impl Session {
    fn ending(&self, notifier: JoinHandle<()>, hurry: watch::Receiver<bool>) -> Ending {
        Ending {
            fs: Arc::clone(&self.fs),
            view: Arc::clone(&self.view),
            in_flight: Arc::clone(&self.in_flight),
            open: Arc::clone(&self.open),
            notifier,
            mount_point: self.mount_point.clone(),
            hurry,
        }
    }
}

/// Waits for the end of the threads, whoever caused it, and closes the view: also when nobody calls `unmount`.
async fn close(mut ending: Ending, ended: tokio::sync::oneshot::Receiver<()>, phase: watch::Sender<Phase>) {
    // A sender that is gone has panicked: the threads are over as well.
    let _ = ended.await;
    let _ = phase.send(Phase::Ended);
    ending.notifier.abort();
    // Nobody is left to be told that a lock is free.
    ending.fs.end_locks(&ending.view);
    ending.in_flight.idle().await;
    ending.open.release_all(&ending.fs).await;
    tokio::select! {
        saved = ending.fs.flush_all() => {
            if let Err(error) = saved {
                tracing::error!(mount = %ending.mount_point.display(), "saving after the end: {}", error.to_chain());
            }
        }
        // A session that is dropped ends nothing early.
        () = hurried(&mut ending.hurry) => {}
    }
    ending.fs.remove_view(&ending.view);
    let _ = phase.send(Phase::Closed);
}

async fn hurried(hurry: &mut watch::Receiver<bool>) {
    if hurry.wait_for(|hurried| *hurried).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// # Errors
/// What the kernel says; a mount that somebody else took away is no error.
fn unmount_or_detach(mount_point: &Path) -> Result<(), Errno> {
    for _ in 0..BUSY_TRIES {
        match mount::unmount(mount_point, false) {
            Err(Errno::EBUSY) => thread::sleep(BUSY_PAUSE),
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
    mount::unmount(mount_point, true)
}
