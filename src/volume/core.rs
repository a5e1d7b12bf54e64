//! The core of a volume: credential, store and file system, once a node however many views show it.

use std::{
    fmt, iter,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared as SharedFuture},
};
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::{
    error::{Error, ErrorKind, Result},
    estate::{Estate, Found},
    keeping::Keeping,
    spec::{CREATED_BY, VolumeSpec, recorded_capacity},
};
use crate::{
    blob::{self, AzureStore, BlobName, BlobStore, Condition, Connections, ListRequest, Location, RequestLimits},
    credential::{Credential, CredentialSlot, watch_expiry},
    doctor,
    finding::Diagnosis,
    fs::{self, FileSystem},
    telemetry::chain,
};

/// Requests that must have failed in a row before a volume is called abnormal: one is an accident.
const OUTAGE_FAILURES_MIN: u64 = 3;
/// For how long they must have: a service that fails over is back sooner.
const OUTAGE_TIME_MIN: Duration = Duration::from_secs(10);

/// For a process, or a core of this one, that is about to let go of the volume.
const CLAIM_PATIENCE: Duration = Duration::from_secs(5);

/// What all volumes of the process share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Cache, memory budget and runtime.
    pub resources: Arc<fs::Resources>,
    /// Sockets to the service, and the gate in front of them.
    pub connections: Connections,
    /// Who holds the mounts when this process ends; `None` where that is not asked for.
    pub keeping: Option<Arc<Keeping>>,
}

/// What became of a credential that a request brought along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// It is the one in use. No request was sent.
    Unchanged,
    /// It works and is in use from the next request on.
    Replaced,
    /// The service refuses it: the one in use stays.
    Refused,
}

/// A volume's core.
#[derive(Debug)]
pub struct Core {
    location: Location,
    slot: Arc<CredentialSlot>,
    shared: Shared,
    /// To ask whether the service is back.
    store: AzureStore,
    /// Somebody asks that now.
    looks: Arc<AtomicBool>,
    file_system: Arc<FileSystem>,
    /// The flush that is under way, if one is. Guards the place only.
    flushing: Mutex<Option<Flushing>>,
    /// What the keeper has of it; `None` where there was none when it was opened.
    estate: Option<Estate>,
}

/// What several callers may wait for.
type FlushOutcome = SharedFuture<BoxFuture<'static, Result<(), (ErrorKind, String)>>>;

/// A flush that goes on when nobody waits for it any longer.
struct Flushing {
    outcome: FlushOutcome,
    task: AbortHandle,
}

impl fmt::Debug for Flushing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flushing").field("task", &self.task).finish_non_exhaustive()
    }
}

impl Core {
    /// Opens the container: makes it if asked, and asks it for its first names, so that what is wrong with endpoint,
    /// credential or container shows before anything is mounted. Takes no longer than [`RequestLimits::mounting`]
    /// allows a request (a handful of them at most).
    ///
    /// # Errors
    /// What the service says, as a sentence with the fix.
    pub async fn open(spec: &VolumeSpec, shared: &Shared) -> Result<Self> {
        let (slot, store) = store_of(spec, shared);
        if let Err(error) = probe(&store).await {
            let owner = spec.create_container.as_ref().filter(|_| error.kind == blob::ErrorKind::ContainerNotFound);
            let Some(owner) = owner else {
                return Err(Error::service_here("mount", &spec.location, &spec.credential, error).await);
            };
            create_container(&store, owner)
                .await
                .map_err(|error| Error::service("create", &spec.location, &spec.credential, error))?;
        }
        let settings = settings_of(spec, capacity(&store).await);
        let claimed = match claim(&spec.id, shared).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::warn!(
                    volume = spec.id,
                    "a restart of this process ends the volume's mounts: {}",
                    chain(&error)
                );
                None
            }
        };
        let (service, resources) = (Arc::new(store.clone()), Arc::clone(&shared.resources));
        let (opened, estate) = match claimed {
            Some((estate, Found { kept, connections })) => {
                // Mounts that nobody goes on with: whoever waits in one gets an error now. What they had written is saved.
                connections.iter().for_each(|connected| estate.forget_mount(connected.view));
                drop(connections);
                (Box::pin(FileSystem::open_kept(service, resources, settings, kept)).await, Some(estate))
            }
            None => (Box::pin(FileSystem::open(service, resources, settings)).await, None),
        };
        let file_system =
            opened.map_err(|error| Error::file_system("mount", &spec.location, &spec.credential, error))?;
        file_system.end_takeover().await;
        Ok(Self::of(spec, shared, (slot, store), file_system, estate))
    }

    /// What the keeper has of it.
    #[must_use]
    pub fn estate(&self) -> Option<&Estate> {
        self.estate.as_ref()
    }

    /// The volume has ended in order: no process needs what the keeper has of it.
    pub fn end_estate(&self) {
        if let Some(estate) = &self.estate {
            estate.end();
        }
    }

    /// Goes on with a volume that another process has opened: `open` makes its file system of what that left with the keeper. The
    /// service is not asked for anything here: it may be away, and programs wait.
    ///
    /// # Errors
    /// Those of `open`.
    pub async fn reopen<F>(
        spec: &VolumeSpec,
        shared: &Shared,
        capacity: Option<u64>,
        estate: Option<Estate>,
        open: impl FnOnce(Arc<dyn BlobStore>, Arc<fs::Resources>, fs::Settings) -> F + Send,
    ) -> Result<Self>
    where
        F: Future<Output = fs::Result<Arc<FileSystem>>> + Send,
    {
        let (slot, store) = store_of(spec, shared);
        let file_system = open(Arc::new(store.clone()), Arc::clone(&shared.resources), settings_of(spec, capacity))
            .await
            .map_err(|error| Error::file_system("go on with", &spec.location, &spec.credential, error))?;
        Ok(Self::of(spec, shared, (slot, store), file_system, estate))
    }

    fn of(
        spec: &VolumeSpec,
        shared: &Shared,
        (slot, store): (Arc<CredentialSlot>, AzureStore),
        file_system: Arc<FileSystem>,
        estate: Option<Estate>,
    ) -> Self {
        say_ahead(&slot, spec);
        let (location, looks, flushing) = (spec.location.clone(), Arc::default(), Mutex::default());
        Self { location, slot, shared: shared.clone(), store, looks, file_system, flushing, estate }
    }

    /// The file system.
    #[must_use]
    pub fn file_system(&self) -> &Arc<FileSystem> {
        &self.file_system
    }

    /// Container and prefix.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Whether `credential` is the one in use.
    #[must_use]
    pub fn signs_with(&self, credential: &Credential) -> bool {
        self.slot.current().is_same(credential)
    }

    /// The volume was opened and is not mounted after all: the keeper keeps nothing of it but what was to be saved before.
    pub fn end_estate_if_saved(&self) {
        if self.file_system.dirty_bytes() == 0 {
            self.end_estate();
        }
    }

    /// Puts `credential` in use, if it differs and works, one of its two keys at least. A broken Secret never ends a mount that
    /// works: the old credential stays until a working one comes, or until the service refuses it (a Secret may be ahead of
    /// the service). An identity that is the same takes over what it was handed (a pod's token); no request is sent for that.
    pub async fn refresh(&self, credential: &Credential) -> Refresh {
        let current = self.slot.current();
        if current.is_same(credential) {
            current.take_over(credential);
            return Refresh::Unchanged;
        }
        let spare = credential.spare();
        let mut first = None;
        for candidate in iter::once(credential).chain(&spare) {
            match self.try_out(candidate).await {
                Ok(()) => {
                    self.slot.replace(candidate.clone());
                    tracing::info!(container = %self.location, "the credential was replaced ({})", candidate.describe());
                    return Refresh::Replaced;
                }
                Err(error) => first = first.or(Some(error)),
            }
        }
        if let Some(error) = first {
            let error = Error::service("read", &self.location, credential, error);
            let cause = error.source.as_deref().map(ToString::to_string);
            tracing::warn!(cause, "the new credential is not used, the old one stays: {error}");
        }
        self.slot.offer(credential.clone());
        Refresh::Refused
    }

    /// Whether the service takes it.
    async fn try_out(&self, credential: &Credential) -> blob::Result<()> {
        let store = AzureStore::with_connections(
            self.location.clone(),
            CredentialSlot::new(credential.clone()),
            RequestLimits::STANDARD,
            &self.shared.connections,
        );
        probe(&store).await
    }

    /// What keeps the service from doing anything for the volume, once that has been so for a while. Asks nobody.
    #[must_use]
    pub fn outage(&self) -> Option<Diagnosis> {
        let lasting = |outage: &blob::Outage| {
            let lasts = outage.failures >= OUTAGE_FAILURES_MIN && outage.began.elapsed() >= OUTAGE_TIME_MIN;
            lasts.then(|| outage.last.without_cause())
        };
        let error = self.file_system.traffic()?.outage(lasting)??;
        Some(doctor::diagnose(&error, &self.location, &self.slot.current()))
    }

    /// Asks the service for one name in the background, if the last request failed: nobody else may ask, and the volume would
    /// be called abnormal long after the service is back.
    pub fn look_again(&self) {
        let fails = self.file_system.traffic().is_some_and(|traffic| traffic.outage(|_| ()).is_some());
        if !fails || self.looks.swap(true, Ordering::AcqRel) {
            return;
        }
        let (store, looks) = (self.store.clone(), Arc::clone(&self.looks));
        drop(tokio::spawn(async move {
            if let Err(error) = probe(&store).await {
                tracing::debug!("the service is not back: {error}");
            }
            looks.store(false, Ordering::Release);
        }));
    }

    /// When the credential in use ends, where it says so itself.
    #[must_use]
    pub fn credential_expires(&self) -> Option<SystemTime> {
        self.slot.current().expires()
    }

    /// Saves everything that is dirty.
    ///
    /// # Errors
    /// The first commit that failed; its data is kept.
    pub async fn flush(&self) -> Result<()> {
        self.file_system
            .flush_all()
            .await
            .map_err(|error| Error::file_system("save data to", &self.location, &self.slot.current(), error))
    }

    /// Saves everything that is dirty, and waits for that no longer than `limit`: then it goes on, and the next call waits for
    /// the same. A large file, whose commit begins anew when it is dropped, is saved in the end by callers who ask again.
    ///
    /// # Errors
    /// As [`Self::flush`]; `Unavailable` where it is still under way.
    pub async fn flush_within(self: &Arc<Self>, limit: Duration) -> Result<()> {
        let end = tokio::time::Instant::now() + limit;
        loop {
            let (outcome, is_new) = self.flushing();
            match tokio::time::timeout_at(end, outcome).await {
                Ok(outcome) if is_new => return outcome.map_err(|(kind, message)| Error::new(kind, message)),
                // It began earlier, and may not have what was written since.
                Ok(_) => {}
                Err(_) => {
                    let message = format!("container {:?} does not take everything in time", self.location.container());
                    return Err(Error::new(ErrorKind::Unavailable, message));
                }
            }
        }
    }

    /// The flush that is under way, or a new one.
    fn flushing(self: &Arc<Self>) -> (FlushOutcome, bool) {
        let mut place = self.flushing.lock();
        if let Some(running) = place.as_ref().filter(|running| running.outcome.peek().is_none()) {
            return (running.outcome.clone(), false);
        }
        let core = Arc::clone(self);
        let task = tokio::spawn(async move { core.flush().await.map_err(|error| (error.kind, chain(&error))) });
        let handle = task.abort_handle();
        let outcome = async move {
            task.await.unwrap_or_else(|_| Err((ErrorKind::Unavailable, "saving was given up".to_owned())))
        };
        let outcome = outcome.boxed().shared();
        *place = Some(Flushing { outcome: outcome.clone(), task: handle });
        (outcome, true)
    }

    /// Gives up the flush that goes on after [`Self::flush_within`], if one does. Its data stays dirty.
    pub fn stop_flush(&self) {
        if let Some(running) = self.flushing.lock().take() {
            running.task.abort();
        }
    }

    /// Moves what is still dirty to lost+found: for the end of the volume, or of the process.
    ///
    /// # Errors
    /// `Unsaved` when the spool does not take all of it either; that stays in memory.
    pub async fn set_aside(&self) -> Result<()> {
        let left = self.file_system.set_aside_all().await;
        if left.files > 0 {
            tracing::warn!(container = %self.location, "{} files could not be saved and are in lost+found", left.files);
        }
        if left.kept == 0 {
            return Ok(());
        }
        let message = format!(
            "{} files of container {:?} can neither be saved nor be moved to lost+found: make room in the spool directory",
            left.kept,
            self.location.container()
        );
        Err(Error::new(ErrorKind::Unsaved, message))
    }
}

/// Claims what the keeper has of the volume `id`; `None` where there is no keeper now.
///
/// # Errors
/// `Unavailable` with what the keeper says.
pub(super) async fn claim(id: &str, shared: &Shared) -> Result<Option<(Estate, Found)>> {
    let Some(socket) = shared.keeping.as_ref().and_then(|keeping| keeping.socket()) else { return Ok(None) };
    let (socket, group) = (socket.to_owned(), format!("volume {id}"));
    let claimed = tokio::task::spawn_blocking(move || Estate::claim(&socket, &group, CLAIM_PATIENCE)).await;
    let failed =
        || Error::new(ErrorKind::Unavailable, format!("What the keeper has of volume {id:?} cannot be claimed"));
    match claimed {
        Ok(Ok(claimed)) => Ok(Some(claimed)),
        Ok(Err(error)) => Err(failed().because(error)),
        Err(error) => Err(failed().because(error)),
    }
}

/// The service, as `spec` signs for it.
fn store_of(spec: &VolumeSpec, shared: &Shared) -> (Arc<CredentialSlot>, AzureStore) {
    let slot = match &spec.source {
        Some(source) => CredentialSlot::with_source(spec.credential.clone(), Arc::clone(source)),
        None => CredentialSlot::new(spec.credential.clone()),
    };
    let (location, limits) = (spec.location.clone(), spec.settings.limits);
    let store = AzureStore::with_connections(location, Arc::clone(&slot), limits, &shared.connections);
    (slot, store)
}

fn settings_of(spec: &VolumeSpec, capacity: Option<u64>) -> fs::Settings {
    fs::Settings {
        capacity,
        prefix: spec.location.prefix().to_owned(),
        // Bytes read under one volume's credential are never served to another's pods (DESIGN 10.11).
        scope: spec.scope.clone(),
        ..spec.settings.clone()
    }
}

/// Lets people know that the credential ends, for as long as the volume is there.
fn say_ahead(slot: &Arc<CredentialSlot>, spec: &VolumeSpec) {
    let (notices, container) = (spec.notices.clone(), spec.location.to_string());
    let say = move |known: Diagnosis| {
        let notices = notices.clone();
        tracing::warn!(container, "{known}");
        async move {
            if let Some(notices) = notices {
                notices.warn(&known, &[]).await;
            }
        }
    };
    drop(tokio::spawn(watch_expiry(Arc::downgrade(slot), say)));
}

/// The least that a mount must be able to do: list. One request.
async fn probe(store: &AzureStore) -> blob::Result<()> {
    let request = ListRequest {
        prefix: store.location().prefix().to_owned(),
        delimited: true,
        max_results: Some(1),
        ..ListRequest::default()
    };
    store.with_limits(RequestLimits::mounting()).list(&request).await.map(drop)
}

/// The size recorded in the metadata of the volume's directory, else of its container. Not everyone who may read blobs may read
/// the container's, and nothing depends on it but what `df` shows.
async fn capacity(store: &AzureStore) -> Option<u64> {
    let store = store.with_limits(RequestLimits::mounting());
    if let Ok(directory) = BlobName::new(store.location().prefix().trim_end_matches('/'))
        && let Ok(marker) = store.head(&directory, &Condition::None).await
        && let Some(recorded) = recorded_capacity(&marker.metadata)
    {
        return Some(recorded);
    }
    recorded_capacity(&store.container_metadata().await.ok()?)
}

async fn create_container(store: &AzureStore, owner: &str) -> blob::Result<()> {
    let metadata = [(CREATED_BY.to_owned(), owner.to_owned())].into();
    match store.with_limits(RequestLimits::mounting()).create_container(&metadata).await {
        // Another node was faster.
        Err(error) if error.kind == blob::ErrorKind::Precondition => Ok(()),
        other => other,
    }
}
