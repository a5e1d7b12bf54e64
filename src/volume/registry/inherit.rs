//! What an earlier process had mounted and a keeper holds is gone on with, instead of being detached.
//!
//! ```text
//! records of the book ── each a task ──► spec (Makers) ──► core and sessions (Estates) ──► the registry's tables
//!                                           └─ whatever fails ─► the volume's mounts are dead: detached, as without a keeper
//! ```
//! Calls are served meanwhile. One for a volume that is not settled yet waits for it ([`Registry::settled`]), all others do not.

use std::{collections::BTreeSet, fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{
    Core, Error, ErrorKind, MountTable, OUR_TYPE, Registry, Result, Shared, Target, ViewMount, Volume, VolumeSpec,
    mounts,
    record::{self, TargetRecord, ViewRecord, VolumeRecord},
};
use crate::{
    fs::FileSystem,
    fuse::{Session, SessionOptions},
    telemetry::chain,
    volume::{PublishOptions, core, estate::Found, spec::Origin},
};

/// A takeover that has not come to anything by then never will. Requests of programs wait meanwhile, and the kubelet waits two
/// minutes for an answer.
const TAKEOVER_DEADLINE: Duration = Duration::from_secs(90);
/// Between two tries to find out what a volume is, of a service or an API server that is away.
const AGAIN_PAUSE: Duration = Duration::from_secs(1);

/// Makes a volume of what it was made of.
#[async_trait]
pub trait Makers: Send + Sync {
    /// The volume that `origin` describes, in this process.
    ///
    /// # Errors
    /// `Unavailable` for what may pass; everything else is final.
    async fn make(&self, origin: &Origin) -> Result<VolumeSpec>;
}

/// Goes on with the file system and the mounts that another process served.
#[async_trait]
pub trait Estates: fmt::Debug + Send + Sync {
    /// Core and sessions of `spec`, as the process that wrote `record` left them. What cannot be served again is left out.
    ///
    /// # Errors
    /// Where nothing of it is held, or what is held cannot be read.
    async fn go_on(&self, spec: &VolumeSpec, shared: &Shared, record: &VolumeRecord) -> Result<Taken>;

    /// Nobody goes on with the mounts of `record`: whoever waits in one of them gets an error from now on.
    async fn give_up(&self, shared: &Shared, record: &VolumeRecord);
}

/// A volume that was taken over.
#[derive(Debug)]
pub struct Taken {
    /// Its core.
    pub core: Arc<Core>,
    /// Its mounts, which serve, by the numbers that the record has for them.
    pub sessions: Vec<(u64, Session)>,
}

/// What the keeper has of volumes.
#[derive(Debug)]
pub struct KeptEstates;

#[async_trait]
impl Estates for KeptEstates {
    async fn go_on(&self, spec: &VolumeSpec, shared: &Shared, record: &VolumeRecord) -> Result<Taken> {
        let nothing = || Error::new(ErrorKind::NotReady, format!("The keeper has no mount of volume {:?}", spec.id));
        let (estate, Found { kept, connections }) = core::claim(&record.id, shared).await?.ok_or_else(nothing)?;
        if connections.is_empty() {
            return Err(nothing());
        }
        let open = |store, resources, settings| FileSystem::open_kept(store, resources, settings, kept);
        let core = Core::reopen(spec, shared, record.capacity(), Some(estate.clone()), open).await;
        let core = core.inspect_err(|_| connections.iter().for_each(|left| estate.forget_mount(left.view)))?;
        let mut sessions = Vec::new();
        for connected in connections {
            let (number, mount_point) = (connected.view, connected.mount_point.clone());
            let options = SessionOptions { source: core.location().to_string(), ..spec.session.clone() };
            let view = record.views.iter().find(|view| view.number == number);
            let taken = match view {
                Some(view) => {
                    Session::take_over(Arc::clone(core.file_system()), view.settings(), options, connected).await
                }
                // Its volume was ended, or not yet noted, when the process was.
                None => {
                    estate.forget_mount(number);
                    continue;
                }
            };
            match taken {
                Ok(session) => sessions.push((number, session)),
                Err(error) => {
                    tracing::error!(mount = %mount_point.display(), "a mount cannot be gone on with: {}", chain(&error));
                    estate.forget_mount(number);
                }
            }
        }
        core.file_system().end_takeover().await;
        Ok(Taken { core: core.into(), sessions })
    }

    async fn give_up(&self, shared: &Shared, record: &VolumeRecord) {
        match core::claim(&record.id, shared).await {
            // The rest of it stays, for whoever mounts the volume next: what was written is in there.
            Ok(Some((estate, found))) => found.connections.iter().for_each(|left| estate.forget_mount(left.view)),
            Ok(None) => {}
            Err(error) => tracing::warn!(volume = record.id, "programs may wait in a dead mount: {}", chain(&error)),
        }
    }
}

/// A volume that is being taken over.
#[derive(Debug)]
pub(super) struct Heritage {
    pub(super) record: VolumeRecord,
    /// Dropped when it is settled, one way or the other.
    settles: Option<watch::Sender<()>>,
    settled: watch::Receiver<()>,
}

impl Heritage {
    pub(super) fn new(record: VolumeRecord) -> Self {
        let (settles, settled) = watch::channel(());
        Self { record, settles: Some(settles), settled }
    }
}

/// Superblocks (`major:minor`) of mounts of ours that records tell of: nobody serves them yet, and they are not dead.
pub(super) fn inherited_devices<'a>(
    table: &MountTable,
    records: impl IntoIterator<Item = &'a VolumeRecord>,
) -> BTreeSet<String> {
    let paths = records.into_iter().flat_map(|record| {
        let views = record.views.iter().map(ViewRecord::mount_point);
        views.chain(record.targets.iter().map(TargetRecord::path))
    });
    let mounts = paths.filter_map(|path| table.at(&path));
    mounts.filter(|mount| mount.fs_type == OUR_TYPE).map(|mount| mount.device.clone()).collect()
}

impl Registry {
    /// Begins to go on with what an earlier process had mounted. To be called once, before the first request.
    pub fn inherit(self: &Arc<Self>, makers: &Arc<dyn Makers>, estates: &Arc<dyn Estates>) {
        let begun: Vec<_> = {
            let mut heritage = self.heritage.lock();
            heritage.iter_mut().filter_map(|one| Some((one.record.clone(), one.settles.take()?))).collect()
        };
        for (record, settles) in begun {
            let (registry, makers, estates) = (Arc::clone(self), Arc::clone(makers), Arc::clone(estates));
            drop(tokio::spawn(async move {
                // Gone with the task, also when that panics: whoever waits goes on.
                let _settles = settles;
                registry.go_on_or_lose(record, &*makers, &*estates).await;
            }));
        }
    }

    /// Waits until it is decided what becomes of the volume `handle` of an earlier process, if there is one. Cancel-safe.
    pub async fn settled(&self, handle: &str) {
        let waiting: Vec<_> = {
            let heritage = self.heritage.lock();
            heritage.iter().filter(|one| one.record.handle == handle).map(|one| one.settled.clone()).collect()
        };
        for mut settled in waiting {
            // An error is what is waited for: the sender is gone.
            while settled.changed().await.is_ok() {}
        }
    }

    async fn go_on_or_lose(&self, record: VolumeRecord, makers: &dyn Makers, estates: &dyn Estates) {
        let id = record.id.clone();
        let gone_on = tokio::time::timeout(TAKEOVER_DEADLINE, self.go_on(&record, makers, estates)).await;
        let late = || Error::new(ErrorKind::Unavailable, "it took too long");
        match gone_on.unwrap_or_else(|_| Err(late())) {
            Ok(()) => tracing::info!(volume = id, "an earlier process's mounts are served again"),
            Err(error) => {
                tracing::warn!(volume = id, "mounts of an earlier process end: {}", chain(&error));
                estates.give_up(&self.shared, &record).await;
                self.lose(&record).await;
            }
        }
        self.heritage.lock().retain(|one| one.record.id != id);
    }

    async fn go_on(&self, record: &VolumeRecord, makers: &dyn Makers, estates: &dyn Estates) -> Result<()> {
        let origin = Origin::new(&record.handle, record.origin.clone());
        let spec = loop {
            match makers.make(&origin).await {
                Err(error) if error.kind == ErrorKind::Unavailable => {
                    tracing::warn!(volume = record.id, "not known yet: {}", chain(&error));
                    tokio::time::sleep(AGAIN_PAUSE).await;
                }
                made => break made?,
            }
        };
        if spec.id != record.id || spec.location.to_string() != record.location {
            let message = format!("Volume {:?} was of {}, and is of {} now", record.id, record.location, spec.location);
            return Err(Error::new(ErrorKind::Occupied, message));
        }
        let taken = estates.go_on(&spec, &self.shared, record).await?;
        if taken.sessions.is_empty() {
            return Err(Error::new(
                ErrorKind::NotReady,
                format!("No mount of volume {:?} can be served again", record.id),
            ));
        }
        self.restore(record, VolumeSpec { origin: Some(origin), ..spec }, taken);
        Ok(())
    }

    /// Puts a volume into the table as `record` tells, with the core and the sessions that serve it now. What has no session any more
    /// is left out: its mount is dead, and is replaced when it is staged or published again.
    pub fn restore(&self, record: &VolumeRecord, spec: VolumeSpec, taken: Taken) {
        let Taken { core, sessions } = taken;
        let mut sessions = sessions;
        let views: Vec<Option<Arc<ViewMount>>> = record
            .views
            .iter()
            .map(|view| {
                let at = sessions.iter().position(|(number, _)| *number == view.number)?;
                let (number, session) = sessions.swap_remove(at);
                if record.views.iter().any(|other| other.number > number && other.mount_point == view.mount_point) {
                    // Another came in its place; pods still have this one.
                    session.disown();
                }
                let (settings, estate) = (view.settings(), core.estate().cloned());
                Some(Arc::new(ViewMount { settings, session, number, estate }))
            })
            .collect();
        let view = |number: u32| views.get(usize::try_from(number).ok()?).cloned().flatten();
        let staged = record.staged.and_then(view).map(|view| (view.session.mount_point().to_owned(), view));
        let target = |target: &TargetRecord| {
            let (read_only, exclusive) = (target.read_only, target.exclusive);
            let options = PublishOptions { read_only, exclusive, group: None, user: target.user() };
            Some((target.path(), Target::new(view(target.view)?, &options)))
        };
        let targets = record.targets.iter().filter_map(target).collect();
        let volume = Volume { core, spec, staged, targets, unsaved: None };
        self.volumes.lock().insert(record.id.clone(), volume);
        self.note(&record.id);
    }

    /// Writes down what the next process has to know of a volume, or that there is none any more. Before the answer to the call
    /// that changed it.
    pub(super) fn note(&self, id: &str) {
        let Some(book) = self.shared.keeping.as_ref().and_then(|keeping| keeping.book()) else { return };
        // Under the lock, so that of two notes the later one is written last.
        let volumes = self.volumes.lock();
        match volumes.get(id).and_then(|volume| recorded(id, volume)) {
            Some(record) => book.note(&record),
            None => book.forget(id),
        }
    }

    /// The mounts of `record` are dead: they are detached as those of a process without a keeper are.
    async fn lose(&self, record: &VolumeRecord) {
        self.note(&record.id);
        let outcome = match mounts() {
            Ok(table) => {
                let lost = inherited_devices(&table, [record]);
                self.sweep(&table, |device| lost.contains(device)).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            tracing::error!(volume = record.id, "a dead mount stays: {}", chain(&error));
        }
    }
}

/// What the next process has to know; `None` for a volume that nobody could make again.
fn recorded(id: &str, volume: &Volume) -> Option<VolumeRecord> {
    let origin = volume.spec.origin.as_ref()?;
    let views = volume.views();
    let number = |view: &Arc<ViewMount>| {
        let at = views.iter().position(|known| Arc::ptr_eq(known, view));
        at.and_then(|at| u32::try_from(at).ok())
    };
    let target = |(path, target): (&PathBuf, &Target)| {
        let (path, user) = (record::path_bytes(path), record::labels(&target.user));
        let (view, read_only, exclusive) = (number(&target.view)?, target.read_only, target.exclusive);
        Some(TargetRecord { path, view, read_only, exclusive, user })
    };
    let view = |view: &&Arc<ViewMount>| ViewRecord::new(view.number, view.session.mount_point(), &view.settings);
    Some(VolumeRecord {
        id: id.to_owned(),
        handle: origin.handle().to_owned(),
        origin: origin.bytes().to_vec(),
        location: volume.core.location().to_string(),
        capacity: volume.core.file_system().capacity().unwrap_or(0),
        views: views.iter().map(view).collect(),
        staged: volume.staged.as_ref().and_then(|(_, view)| number(view)),
        targets: volume.targets.iter().filter_map(target).collect(),
    })
}
