//! What is mounted where on this node, and by which core: the memory of the node plugin.
//!
//! A volume has one core, and one FUSE session a *view* (owner, group, modes). The view of the staging path serves every
//! pod that sees files alike; a pod with another fsGroup gets a view of its own, mounted in a directory of ours and
//! bound into the pod. Every answer comes from this table and from mountinfo, never from stat(2) on a mount.
//!
//! Callers hold the volume's turn (`csi::in_flight`): operations on one volume never overlap. Statistics need no turn.
//!
//! Without a keeper what is here dies with the process: a mount of an earlier process is *dead* (its file type is ours, and nobody
//! here serves it). Stage and publish replace dead mounts; unstage and unpublish remove them; the start detaches those that no
//! pod has (`leftovers`). With one, what the next process has to know is written down (`record`, `book`), and the mounts that the
//! keeper holds are gone on with (`inherit`).

mod book;
mod ending;
mod inherit;
mod leftovers;
mod publish;
pub mod record;
mod stage;
mod watch;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

pub use book::{Book, Rows};
use ending::Unsaved;
pub use inherit::{Estates, KeptEstates, Makers, Taken};
use inherit::{Heritage, inherited_devices};
pub use leftovers::{Layout, Place};

use super::{
    bind::{self, Answer},
    core::{Core, Refresh, Shared},
    error::{Error, ErrorKind, Result},
    estate::Estate,
    metrics,
    mountinfo::{Mount, MountTable, resolve},
    patience::Patience,
    spec::{Origin, VolumeSpec},
};
use crate::{
    credential::Credential,
    fs::{self, ViewSettings},
    fuse::{self, Session},
    telemetry::metrics::{Labels, Page, table},
};

/// Type of our mounts, as mountinfo shows it.
const OUR_TYPE: &str = "fuse.azblob-csi";

/// How all FUSE types begin.
const FUSE_TYPE: &str = "fuse";

/// How long a mount that another process serves (blobfuse2, while a node migrates) may take to answer once.
const FOREIGN_ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// What a request to mount came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was mounted.
    Mounted,
    /// It was mounted already; a credential that came along was looked at.
    AlreadyServed(Refresh),
    /// A working mount of another driver is there: it is left alone.
    Foreign,
}

/// How a volume is shown to one pod.
#[derive(Clone, Debug, Default)]
pub struct PublishOptions {
    /// Read-only for this pod.
    pub read_only: bool,
    /// The pod's fsGroup.
    pub group: Option<u32>,
    /// No other pod of the node may have it (SINGLE_NODE_SINGLE_WRITER).
    pub exclusive: bool,
    /// Who has it, for metrics.
    pub user: Labels,
}

/// What is known about a published or staged path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Size of the volume, and what of it is in use, as far as that is known.
    pub usage: fs::Usage,
    /// Whether it is mounted and served.
    pub serves: bool,
    /// What is wrong, if something is: with the mount, or with the service.
    pub problem: Option<String>,
}

/// One FUSE session of a volume.
#[derive(Debug)]
struct ViewMount {
    settings: ViewSettings,
    session: Session,
    /// What names it in the estate.
    number: u64,
    /// Who has what the next process needs to go on with it.
    estate: Option<Estate>,
}

/// A path of a pod.
#[derive(Clone, Debug)]
struct Target {
    view: Arc<ViewMount>,
    user: Labels,
    read_only: bool,
    exclusive: bool,
}

impl Target {
    fn new(view: Arc<ViewMount>, options: &PublishOptions) -> Self {
        let user = options.user.clone();
        Self { view, user, read_only: options.read_only, exclusive: options.exclusive }
    }
}

/// A volume that is mounted somewhere on this node.
#[derive(Clone, Debug)]
struct Volume {
    core: Arc<Core>,
    spec: VolumeSpec,
    /// Where it is staged, and the view there; `None` for inline volumes.
    staged: Option<(PathBuf, Arc<ViewMount>)>,
    targets: BTreeMap<PathBuf, Target>,
    /// Since an unstage could not save everything.
    unsaved: Option<Unsaved>,
}

/// Id of a volume as one pod alone has it, at `target`: pods that sign in with their own identities share nothing.
#[must_use]
pub fn id_of_pod(id: &str, target: &Path) -> String {
    let target = resolve(target).unwrap_or_else(|_| target.to_owned());
    format!("{id} at {}", target.display())
}

/// All volumes of this node.
#[derive(Debug)]
pub struct Registry {
    shared: Shared,
    /// Where mounts of this driver are.
    layout: Arc<dyn Layout>,
    /// Where views are mounted that are not the one of the staging path.
    views_directory: PathBuf,
    patience: Patience,
    /// Files that were in lost+found when their volumes ended.
    left_unsaved: AtomicU64,
    /// Dead mounts that were detached. Guards the numbers only.
    dead: Mutex<BTreeMap<Place, u64>>,
    /// By volume id. Guards the table only: it is cloned out, changed, and put back; nothing awaits inside.
    volumes: Mutex<HashMap<String, Volume>>,
    /// Volumes of an earlier process of which it is not decided yet what becomes of them.
    heritage: Mutex<Vec<Heritage>>,
}

impl Registry {
    /// An empty table. Mounts that an earlier process of this driver left are dead, and are detached where no pod has them; but for
    /// those that its book tells of, which [`Self::inherit`] goes on with. No other process of this driver may run on the node.
    ///
    /// # Errors
    /// When mountinfo cannot be read, or the kernel keeps a mount.
    pub async fn new(shared: Shared, layout: Arc<dyn Layout>, patience: Patience) -> Result<Arc<Self>> {
        let views_directory = resolved(&layout.views())?;
        let (left_unsaved, volumes, dead) = (AtomicU64::new(0), Mutex::default(), Mutex::default());
        let records = shared.keeping.as_ref().map(|keeping| keeping.take_records()).unwrap_or_default();
        let table = mounts()?;
        let inherited = inherited_devices(&table, &records);
        let heritage = Mutex::new(records.into_iter().map(Heritage::new).collect());
        let registry = Self { shared, layout, views_directory, patience, left_unsaved, dead, volumes, heritage };
        registry.sweep(&table, |device| !inherited.contains(device)).await?;
        Ok(Arc::new(registry))
    }

    fn volume(&self, id: &str) -> Option<Volume> {
        self.volumes.lock().get(id).cloned()
    }

    fn update(&self, id: &str, change: impl FnOnce(&mut Volume)) {
        if let Some(volume) = self.volumes.lock().get_mut(id) {
            change(volume);
        }
    }

    /// The id under which what is at `path` is known: of one pod's own, or the volume's.
    fn id_at(&self, id: &str, path: &Path) -> String {
        let own = id_of_pod(id, path);
        if self.volumes.lock().contains_key(&own) { own } else { id.to_owned() }
    }

    /// The condition of `path`, if the volume `id` is staged or published there. Touches no mount.
    ///
    /// # Errors
    /// When the path cannot be looked at, or mountinfo cannot be read.
    pub fn condition(&self, id: &str, path: &Path) -> Result<Option<Condition>> {
        let path = resolve(path).map_err(|error| Error::system("look at", path, error))?;
        let Some(volume) = self.volume(&self.id_at(id, &path)) else { return Ok(None) };
        let staged = volume.staged.as_ref().filter(|(staging, _)| *staging == path).map(|(_, view)| view);
        let Some(view) = staged.or_else(|| volume.targets.get(&path).map(|target| &target.view)) else {
            return Ok(None);
        };
        let usage = volume.core.file_system().usage();
        let broken = if !view.session.is_serving() {
            Some("the file system is no longer served: delete the pod, so that the volume is mounted anew".to_owned())
        } else if mounts()?.at(&path).is_none() {
            Some(format!("{} is no longer mounted: delete the pod, so that it is mounted anew", path.display()))
        } else {
            None
        };
        volume.core.look_again();
        let serves = broken.is_none();
        let problem = broken.or_else(|| volume.core.outage().map(|known| known.to_string()));
        Ok(Some(Condition { usage, serves, problem }))
    }

    /// Adds every volume that is mounted here, in order, to a page of metrics.
    pub fn write_metrics(&self, page: &mut Page) {
        let mut volumes: Vec<_> = self.volumes.lock().iter().map(|(id, volume)| (id.clone(), volume.clone())).collect();
        volumes.sort_by(|(one, _), (other, _)| one.cmp(other));
        page.count(&table::VOLUMES, &Labels::default(), volumes.len() as u64);
        metrics::write_shared(page, &self.shared.resources.cache);
        let is_held = self.shared.keeping.as_ref().is_some_and(|keeping| keeping.is_held());
        page.count(&table::KEEPER_HELD, &Labels::default(), u64::from(is_held));
        page.count(&table::LEFT_UNSAVED, &Labels::default(), self.left_unsaved.load(Ordering::Relaxed));
        for (place, count) in &*self.dead.lock() {
            page.count(&table::DEAD_MOUNTS, &Labels::default().with("place", place.name()), *count);
        }
        for (id, volume) in volumes {
            let labels = volume.spec.labels.with("volume", id);
            let mounts = volume.views().iter().filter(|view| view.session.is_serving()).count();
            let core = &volume.core;
            metrics::write_volume(page, &labels, core.file_system(), mounts, core.credential_expires());
            page.count(&table::ABNORMAL, &labels, u64::from(core.outage().is_some()));
            for target in volume.targets.values().filter(|target| target.user != Labels::default()) {
                let labels = target.user.names().fold(labels.clone(), |all, (name, value)| all.with(name, value));
                page.count(&table::PUBLISHED, &labels, 1);
            }
        }
    }

    /// Whether the volume `id` is staged or published anywhere here.
    #[must_use]
    pub fn knows(&self, id: &str) -> bool {
        self.volumes.lock().contains_key(id)
    }

    /// Takes note of the new size, in bytes, of the volume at `path`.
    pub fn expand(&self, id: &str, path: &Path, capacity: u64) {
        let path = resolve(path).unwrap_or_else(|_| path.to_owned());
        if let Some(volume) = self.volume(&self.id_at(id, &path)) {
            volume.core.file_system().set_capacity(capacity);
            self.note(&self.id_at(id, &path));
        }
    }

    /// Takes note of what the volume `id` is to be made of by the next process, if it signs with `credential` now.
    pub fn renew_origin(&self, id: &str, credential: &Credential, renewed: impl FnOnce(&Origin) -> Option<Origin>) {
        let Some(volume) = self.volume(id).filter(|volume| volume.core.signs_with(credential)) else { return };
        if let Some(origin) = volume.spec.origin.as_ref().and_then(renewed) {
            self.update(id, |volume| volume.spec.origin = Some(origin));
            self.note(id);
        }
    }

    /// Whether the next process goes on with all that is mounted: nothing has to be saved, or end, before this one does.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        let is_held = self.shared.keeping.as_ref().is_some_and(|keeping| keeping.is_held());
        is_held && self.volumes.lock().values().all(Volume::is_kept)
    }

    /// Comes to a point where another process can go on with what a keeper holds, at the latest when `patience` is over. Returns
    /// whether there is anything: the process must end next, and drop nothing on the way.
    pub async fn hand_over(&self, patience: Duration) -> bool {
        let kept: Vec<Volume> = self.volumes.lock().values().filter(|volume| volume.is_kept()).cloned().collect();
        let views = kept.iter().flat_map(Volume::views);
        let handed = futures::future::join_all(views.map(|view| view.session.hand_over(patience))).await;
        tracing::info!(mounts = handed.len(), "left to the next process");
        !handed.is_empty()
    }

    /// How a volume is signed for and shown, if it is mounted here: a request that brings new secrets builds on it.
    #[must_use]
    pub fn spec(&self, id: &str) -> Option<VolumeSpec> {
        self.volume(id).map(|volume| volume.spec)
    }

    /// Saves what is dirty in every volume that ends with the process, each for at most `deadline`, and moves the rest to lost+found:
    /// the process ends. Mounts stay: their users may go on until then.
    pub async fn flush_all(&self, deadline: Duration) {
        let cores: Vec<Arc<Core>> = {
            let volumes = self.volumes.lock();
            let ending = volumes.values().filter(|volume| !volume.is_kept());
            ending.map(|volume| Arc::clone(&volume.core)).collect()
        };
        let flushes = cores.iter().map(|core| async move {
            match tokio::time::timeout(deadline, core.flush()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(container = %core.location(), "not everything could be saved: {error}");
                }
                Err(_) => tracing::error!(container = %core.location(), "not everything could be saved in time"),
            }
            if let Err(error) = core.set_aside().await {
                tracing::error!("{error}");
            }
        });
        futures::future::join_all(flushes).await;
    }

    /// Ends the process's part without unmounting anything: sessions are leaked, so that mounts in use end with the
    /// process and not before it.
    pub fn abandon(&self) {
        for (_, volume) in self.volumes.lock().drain() {
            std::mem::forget(volume);
        }
    }
}

impl Volume {
    fn is_kept(&self) -> bool {
        self.views().iter().all(|view| view.is_kept())
    }

    /// Its FUSE sessions, each once.
    fn views(&self) -> Vec<&Arc<ViewMount>> {
        let all = self.staged.iter().map(|(_, view)| view).chain(self.targets.values().map(|target| &target.view));
        let mut views: Vec<&Arc<ViewMount>> = Vec::new();
        for view in all {
            if !views.iter().any(|known| Arc::ptr_eq(known, view)) {
                views.push(view);
            }
        }
        views
    }
}

impl ViewMount {
    /// Mounts a view of `core` at the existing directory `path`.
    async fn mount(core: &Core, spec: &VolumeSpec, settings: ViewSettings, path: &Path) -> Result<Arc<Self>> {
        let options = fuse::SessionOptions {
            source: core.location().to_string(),
            read_only: settings.read_only || spec.session.read_only,
            ..spec.session.clone()
        };
        let (fs, view, estate) = (Arc::clone(core.file_system()), settings.clone(), core.estate().cloned());
        let session = match &estate {
            Some(estate) => Session::mount_kept(fs, view, path, options, estate.keep_mount()).await,
            None => Session::mount(fs, view, path, options).await,
        };
        let session = session.map_err(|error| session_failed("mount", path, error))?;
        let number = session.view().id();
        Ok(Arc::new(Self { settings, session, number, estate }))
    }

    /// Whether the next process can go on with it.
    fn is_kept(&self) -> bool {
        self.estate.as_ref().is_some_and(Estate::is_held)
    }

    /// Whether it serves and is what a process sees at its path.
    fn is_live(&self, table: &MountTable) -> bool {
        self.session.is_serving() && table.at(self.session.mount_point()).is_some_and(|mount| mount.fs_type == OUR_TYPE)
    }

    /// Ends the session, for which saving may take `saving`, and removes its directory. Where another has its place since, it
    /// ends with those who hold files open.
    async fn end(&self, saving: Duration) -> Result<()> {
        if self.session.is_disowned() {
            self.forget();
            return Ok(());
        }
        let path = self.session.mount_point();
        match self.session.unmount_within(saving).await {
            Ok(()) => {}
            Err(error @ fuse::Error::Unsaved(..)) => tracing::error!("{}", chain(&error)),
            Err(error) => return Err(session_failed("unmount", path, error)),
        }
        self.forget();
        remove_path(path).await
    }

    /// Takes it back from the keeper.
    fn forget(&self) {
        if let Some(estate) = &self.estate {
            estate.forget_mount(self.number);
        }
    }
}

/// A dead mount is ours by type and served by nobody here; a foreign one is another driver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    DeadOrOurs,
    ForeignFuse,
    Other,
}

impl Found {
    fn at(mount: Option<&Mount>) -> Self {
        match mount.map(|mount| mount.fs_type.as_str()) {
            None => Self::Nothing,
            Some(OUR_TYPE) => Self::DeadOrOurs,
            Some(fs_type) if fs_type.starts_with(FUSE_TYPE) => Self::ForeignFuse,
            Some(_) => Self::Other,
        }
    }
}

fn mounts() -> Result<MountTable> {
    MountTable::read().map_err(|error| Error::new(ErrorKind::Mount, "Cannot read /proc/self/mountinfo").because(error))
}

fn resolved(path: &Path) -> Result<PathBuf> {
    resolve(path).map_err(|error| Error::system("look at", path, error))
}

/// Unmounts whatever is at `path`, then removes the directory. Both may be gone already.
async fn remove_path(path: &Path) -> Result<()> {
    bind::unmount(path).await.map_err(|error| Error::system("unmount", path, error))?;
    bind::remove_directory(path).await.map_err(|error| Error::system("remove the directory", path, error))
}

fn session_failed(what: &str, path: &Path, error: fuse::Error) -> Error {
    Error::new(ErrorKind::Mount, format!("Cannot {what} {}", path.display())).because(error)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Looks at a credential that came with a request for a volume that works already. Never fails.
async fn refresh(core: &Core, credential: Option<&Credential>) -> Refresh {
    match credential {
        Some(credential) => core.refresh(credential).await,
        None => Refresh::Unchanged,
    }
}
