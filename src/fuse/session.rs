//! One mount and the threads that serve it.
//!
//! ```text
//! Serving --umount(2) by anybody, abort--> Ended --all replied, released and saved--> Closed
//! ```
//! Nothing acknowledged is lost at the end: umount(2) may drop queued RELEASEs (DESIGN 10.13), so what is dirty is saved
//! before and after, whatever the kernel still told us.

use std::{
    os::fd::AsFd as _,
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
    gate::Gate,
    handshake, mount,
    name_copies::NameCopies,
    notifier::{self, Tell, Voice},
    open_handles::OpenHandles,
    origin::{Connected, Keep, Origin},
    passthrough::Passthrough,
    receive::Buffers,
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
    /// What a server before this one has read and not answered is not sent again, although the kernel could.
    pub no_resend: bool,
    /// Tells the kernel for a mount that is to outlive this process.
    pub teller: Option<Arc<dyn Tell>>,
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
            no_resend: false,
            teller: None,
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
    gate: Arc<Gate>,
    /// Whether the kernel sends again what we leave unanswered.
    can_resend: bool,
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
        Box::pin(Self::start(fs, view, mount_point, options, Origin::New(None))).await
    }

    /// As [`Self::mount`], and `keep` is given what the next process needs to go on, before anything is served.
    ///
    /// # Errors
    /// [`Error`], without a mount left behind; [`Error::Handshake`] with what `keep` says.
    pub async fn mount_kept(
        fs: Arc<FileSystem>,
        view: ViewSettings,
        mount_point: &Path,
        options: SessionOptions,
        keep: Keep,
    ) -> Result<Self, Error> {
        let view = fs.add_view(view);
        Box::pin(Self::start(fs, view, mount_point, options, Origin::New(Some(keep)))).await
    }

    /// Goes on with a mount of another process; `fs` has taken over what that has written down.
    ///
    /// # Errors
    /// [`Error::Handshake`]: this version cannot serve what was agreed on. The mount is as it was.
    pub async fn take_over(
        fs: Arc<FileSystem>,
        view: ViewSettings,
        options: SessionOptions,
        connected: Connected,
    ) -> Result<Self, Error> {
        let view = fs.take_over_view(connected.view, view.clone()).unwrap_or_else(|| fs.add_view(view));
        let mount_point = connected.mount_point.clone();
        Box::pin(Self::start(fs, view, &mount_point, options, Origin::Left(connected))).await
    }

    async fn start(
        fs: Arc<FileSystem>,
        view: Arc<View>,
        mount_point: &Path,
        options: SessionOptions,
        origin: Origin,
    ) -> Result<Self, Error> {
        let mounted = tokio::task::spawn_blocking({
            let (fs, view, path) = (Arc::clone(&fs), Arc::clone(&view), mount_point.to_owned());
            move || start(fs, view, &path, &options, origin)
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

    /// Comes to a point where another process can go on, and leaves the mount: at once, or when `patience` is over. What was
    /// read and not begun is sent to that process again, or begun here where the kernel cannot; what is not read waits. The
    /// process must end next, without dropping what is under way: a reply that is dropped is an I/O error.
    pub async fn hand_over(&self, patience: Duration) {
        self.disown();
        let done = async {
            match self.can_resend {
                true => self.gate.close(),
                false => self.gate.drain(&self.mount_point).await,
            }
            self.in_flight.idle().await;
        };
        if tokio::time::timeout(patience, done).await.is_err() {
            tracing::info!(mount = %self.mount_point.display(), "left with operations under way");
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
fn start(
    fs: Arc<FileSystem>,
    view: Arc<View>,
    path: &Path,
    options: &SessionOptions,
    origin: Origin,
) -> Result<Session, Error> {
    let placed = origin.place(path, options)?;
    let (mount_point, is_made, is_kept) = (placed.mount_point.clone(), placed.is_made(), placed.is_kept());
    // What the kernel has of the node's files could not be counted by the next process.
    let masked_features = options.masked_features | if is_kept { InitFlags::FUSE_PASSTHROUGH.bits() } else { 0 };
    let runtime = fs.resources().runtime.clone();
    let in_flight = Arc::new(InFlight::default());
    let open = Arc::new(OpenHandles::of(fs.handles_of(&view)));
    let buffers = Arc::new(Buffers::new(is_kept));
    let threads = options.threads.max(1);
    let (passthrough, gate) = (Arc::new(Passthrough::default()), Arc::new(Gate::new(threads)));
    // FOPEN_CACHE_DIR and this came with one version of the protocol.
    let is_new = masked_features & InitFlags::FUSE_CACHE_SYMLINKS.bits() == 0;
    let copies = Arc::new(NameCopies::new(Arc::clone(&view), runtime.clone(), is_new));
    let adapter = Adapter {
        fs: Arc::clone(&fs),
        view: Arc::clone(&view),
        dispatch: Dispatch::new(runtime.clone(), Arc::clone(&in_flight), Arc::clone(fs.meter()), Arc::clone(&gate)),
        open: Arc::clone(&open),
        passthrough: Arc::clone(&passthrough),
        copies: Arc::clone(&copies),
        masked_features,
        access_times: !options.no_atime,
        buffers: Arc::clone(&buffers),
    };
    let mut config = Config::default();
    config.n_threads = Some(threads);
    let undo = |source| {
        if is_made {
            let _ = mount::unmount(&mount_point, true);
        }
        Error::Handshake(mount_point.clone(), source)
    };
    let (served, connected) = placed.greet(adapter, config, view.id()).map_err(undo)?;
    let can_resend = is_kept && connected.agreement.can_resend() && !options.no_resend;
    if is_kept {
        settle_requests(&served, &connected, (&fs, &view), can_resend, is_made).map_err(undo)?;
    }
    let connection = tune(&mount_point);
    let voice = voice(options.teller.as_ref().filter(|_| is_kept), &connected, &served);
    let notifier = runtime.spawn(notifier::notify(view.invalidations(), voice, copies));
    let (phase_out, phase) = watch::channel(Phase::Serving);
    let written = fs.longest_written(&view);
    let ended = buffers.start(threads, written, || serve(served, &mount_point)).map_err(undo)?;
    let (hurried, hurry) = watch::channel(false);
    let session = Session {
        mount_point,
        fs,
        view,
        connection,
        phase,
        in_flight,
        open,
        passthrough,
        gate,
        can_resend,
        disowned: AtomicBool::new(false),
        hurried,
    };
    runtime.spawn(close(session.ending(notifier, hurry), ended, phase_out));
    Ok(session)
}

/// Decides what becomes of requests that a server has read and not answered: of the one before, and of this one.
fn settle_requests(
    served: &fuser::Session<Adapter>,
    connected: &Connected,
    (fs, view): (&Arc<FileSystem>, &View),
    can_resend: bool,
    is_made: bool,
) -> std::io::Result<()> {
    if !can_resend {
        handshake::serve_beside(served, connected.device.as_fd())?;
        fs.finish_closes(view);
        return Ok(());
    }
    // Before anything is read here, which would be sent once more as well.
    if !is_made && let Err(error) = handshake::resend(connected.device.as_fd()) {
        let mount = connected.mount_point.display();
        tracing::warn!(%mount, %error, "what was under way cannot be sent again: it waits");
    }
    Ok(())
}

/// Who tells the kernel what changed: somebody whom nobody kills, for a mount that outlives its server.
fn voice(teller: Option<&Arc<dyn Tell>>, connected: &Connected, served: &fuser::Session<Adapter>) -> Voice {
    match (teller, connected.device.try_clone()) {
        (Some(teller), Ok(device)) => Voice::Other(Arc::new(device), Arc::clone(teller)),
        _ => Voice::Own(served.notifier()),
    }
}

/// Starts the threads; what is returned says when they have ended.
fn serve(served: fuser::Session<Adapter>, mount_point: &Path) -> std::io::Result<tokio::sync::oneshot::Receiver<()>> {
    let (ended_out, ended) = tokio::sync::oneshot::channel();
    let shown = mount_point.to_owned();
    thread::Builder::new().name("fuse".to_owned()).spawn(move || {
        if let Err(error) = served.run() {
            tracing::warn!(mount = %shown.display(), %error, "the FUSE session ended with an error");
        }
        let _ = ended_out.send(());
    })?;
    Ok(ended)
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
