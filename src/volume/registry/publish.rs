//! Publishing: a staged volume shown to one pod, or an inline volume mounted for it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use uuid::Uuid;

use super::{
    Answer, Core, Error, ErrorKind, FOREIGN_ANSWER_DEADLINE, Found, MountTable, Outcome, PublishOptions, Registry,
    Result, Target, ViewMount, Volume, VolumeSpec, bind, ending::remaining, id_of_pod, mounts, refresh, remove_path,
    resolved,
};
use crate::{credential::Credential, fs::ViewSettings, telemetry::metrics::Labels};

impl Registry {
    /// Whether a publish of the volume `id` at `target` needs a mount at `staging`, and there is none that works: after a
    /// restart of this process, whose end the caller, who believes the volume staged, did not see.
    ///
    /// # Errors
    /// When a path cannot be looked at, or mountinfo cannot be read.
    pub async fn lacks_stage(&self, id: &str, staging: &Path, target: &Path) -> Result<bool> {
        let (staging, target) = (resolved(staging)?, resolved(target)?);
        let (volume, table) = (self.volume(id), mounts()?);
        let is_settled = match Found::at(table.at(&target)) {
            Found::Nothing => false,
            Found::DeadOrOurs => {
                let known = volume.as_ref().and_then(|volume| volume.targets.get(&target));
                known.is_some_and(|published| published.view.session.is_serving())
            }
            Found::ForeignFuse => bind::ask_foreign_mount(&target, FOREIGN_ANSWER_DEADLINE).await != Answer::Dead,
            Found::Other => true,
        };
        if is_settled || volume.is_some_and(|volume| is_staged_at(&volume, &staging, &table)) {
            return Ok(false);
        }
        Ok(Found::at(table.at(&staging)) != Found::ForeignFuse
            || bind::ask_foreign_mount(&staging, FOREIGN_ANSWER_DEADLINE).await != Answer::Works)
    }

    /// Shows the volume staged at `staging` to a pod, at `target`. A target that works already is never touched:
    /// `credential`, if one came along, is refreshed in place.
    ///
    /// # Errors
    /// `NotReady` when the staging path is not a live mount (binding it would show the node's own disk), or when
    /// somebody has the volume exclusively; `Occupied` when something else is mounted at the target.
    pub async fn publish(
        &self,
        id: &str,
        staging: &Path,
        target: &Path,
        options: &PublishOptions,
        credential: Option<&Credential>,
    ) -> Result<Outcome> {
        let (staging, target) = (resolved(staging)?, resolved(target)?);
        let volume = self.volume(id);
        let table = mounts()?;
        if let Some(outcome) = self.already(volume.as_ref(), &table, &target, options, credential).await? {
            return Ok(outcome);
        }
        let Some(volume) = volume.filter(|volume| is_staged_at(volume, &staging, &table)) else {
            return publish_foreign(id, &table, &staging, &target, options).await;
        };
        check_exclusive(id, &volume, &table, options)?;
        if let Some(credential) = credential {
            volume.core.refresh(credential).await;
        }
        let view = self.view_of(&volume, &table, options.group).await?;
        if let Err(error) = bind_to(view.session.mount_point(), &target, options.read_only).await {
            self.end_if_unused(id, &view, Instant::now() + self.patience.flush, None).await.ok();
            return Err(error);
        }
        let published = Target::new(view, options);
        let mut replaced = None;
        self.update(id, |volume| {
            replaced = volume.targets.insert(target, published);
            volume.unsaved = None;
        });
        self.note(id);
        if let Some(replaced) = replaced
            && let Err(error) = self.end_if_unused(id, &replaced.view, Instant::now() + self.patience.flush, None).await
        {
            tracing::warn!(volume = id, "what was mounted before does not end: {}", super::chain(&error));
        }
        Ok(Outcome::Mounted)
    }

    /// Mounts a volume that is one pod's alone at `target`: an inline one, or one that the pod reads under its own identity.
    ///
    /// # Errors
    /// What the service says (nothing stays mounted), `Occupied` when something else is mounted at the target.
    pub async fn publish_inline(&self, spec: VolumeSpec, target: &Path, options: &PublishOptions) -> Result<Outcome> {
        let target = resolved(target)?;
        let volume = self.volume(&spec.id);
        if let Some(outcome) =
            self.already(volume.as_ref(), &mounts()?, &target, options, Some(&spec.credential)).await?
        {
            // A newer token, or a newer Secret.
            if let Some(origin) = spec.origin {
                self.renew_origin(&spec.id, &spec.credential, |before| Some(origin).filter(|origin| origin != before));
            }
            return Ok(outcome);
        }
        self.check_alone(&spec.id, &target, options)?;
        if let Some(old) = volume.as_ref().and_then(|volume| volume.targets.get(&target)) {
            old.view.session.disown(); // Its mount is gone; its session may not have noticed.
        }
        let core = match &volume {
            // It may have what could not be saved yet.
            Some(volume) if *volume.core.location() == spec.location => {
                refresh(&volume.core, Some(&spec.credential)).await;
                Arc::clone(&volume.core)
            }
            _ => Arc::new(Core::open(&spec, &self.shared).await?),
        };
        bind::make_directory(&target).await.map_err(|error| Error::system("make the directory", &target, error))?;
        let wanted = spec.view_for(options.group);
        let settings = ViewSettings { read_only: options.read_only || wanted.read_only, ..wanted };
        let view = match ViewMount::mount(&core, &spec, settings, &target).await {
            Ok(view) => view,
            Err(error) => {
                bind::remove_directory(&target).await.ok();
                if volume.is_none() {
                    core.end_estate_if_saved();
                }
                return Err(error);
            }
        };
        let published = Target::new(view, options);
        let id = spec.id.clone();
        let targets = [(target, published)].into();
        self.volumes.lock().insert(id.clone(), Volume { core, spec, staged: None, targets, unsaved: None });
        self.note(&id);
        Ok(Outcome::Mounted)
    }

    /// The same as [`check_exclusive`] for a volume that each pod has for itself: the other pods' have ids of their own.
    fn check_alone(&self, id: &str, target: &Path, options: &PublishOptions) -> Result<()> {
        // What comes before the target in `id_of_pod`; an inline volume's id has no target in it, and no other pod.
        let Some(shared) = id.strip_suffix(&id_of_pod("", target)) else { return Ok(()) };
        let all = id_of_pod(shared, Path::new("/"));
        let table = mounts()?;
        let volumes = self.volumes.lock();
        let mut others = volumes.iter().filter(|(other, _)| *other != id && other.starts_with(&all));
        others.try_for_each(|(_, other)| check_exclusive(shared, other, &table, options))
    }

    /// Saves what is dirty, as far as the service takes it in time, and takes the volume away from `target`. Nothing there is
    /// fine. What is not saved stays with the volume, or is in lost+found where it was one pod's alone.
    ///
    /// # Errors
    /// `Mount` when the kernel keeps the mount, or the directory has content of its own.
    pub async fn unpublish(&self, id: &str, target: &Path) -> Result<()> {
        let target = resolved(target)?;
        let id = &self.id_at(id, &target);
        let volume = self.volume(id);
        let Some((volume, published)) =
            volume.and_then(|volume| volume.targets.get(&target).cloned().map(|published| (volume, published)))
        else {
            return remove_path(&target).await;
        };
        let end = Instant::now() + self.patience.flush;
        // Unmounting drops queued RELEASEs (DESIGN 10.13), so what was written is saved first. If that fails, the data
        // stays dirty in the core and is tried again when the volume is unstaged.
        if let Err(error) = volume.core.flush_within(self.patience.flush).await {
            tracing::error!(volume = id, "not everything could be saved yet: {}", super::chain(&error));
        }
        if published.view.session.mount_point() != target {
            remove_path(&target).await?;
        }
        self.update(id, |volume| {
            volume.targets.remove(&target);
        });
        drop(volume);
        let ended = self.end_if_unused(id, &published.view, end, Some(published.user)).await;
        // Not before: a process that is killed here is followed by one that unpublishes once more.
        self.note(id);
        ended?;
        remove_path(&target).await
    }

    /// Whether `target` is served already. Dead mounts there are removed on the way.
    async fn already(
        &self,
        volume: Option<&Volume>,
        table: &MountTable,
        target: &Path,
        options: &PublishOptions,
        credential: Option<&Credential>,
    ) -> Result<Option<Outcome>> {
        let found = Found::at(table.at(target));
        let known = volume.and_then(|volume| volume.targets.get(target).map(|published| (volume, published)));
        match (found, known) {
            (Found::Nothing, _) => Ok(None),
            (Found::DeadOrOurs, Some((volume, published))) if published.view.session.is_serving() => {
                if published.read_only != options.read_only {
                    let message = format!("{} is already published with another access", target.display());
                    return Err(Error::new(ErrorKind::Occupied, message));
                }
                Ok(Some(Outcome::AlreadyServed(refresh(&volume.core, credential).await)))
            }
            (Found::ForeignFuse, _)
                if bind::ask_foreign_mount(target, FOREIGN_ANSWER_DEADLINE).await != Answer::Dead =>
            {
                Ok(Some(Outcome::Foreign))
            }
            (Found::DeadOrOurs | Found::ForeignFuse, _) => self.take_down(table, target).await.map(|()| None),
            (Found::Other, _) => {
                let message = format!(
                    "{} is already mounted, but not from a Blob container: delete the pod, so that its volume is mounted \
                     anew",
                    target.display()
                );
                Err(Error::new(ErrorKind::Occupied, message))
            }
        }
    }

    /// The view for pods of `group`: that of the staging path where files look alike, else one that another pod has
    /// already, else a new one.
    async fn view_of(&self, volume: &Volume, table: &MountTable, group: Option<u32>) -> Result<Arc<ViewMount>> {
        let wanted = volume.spec.view_for(group);
        let staged = volume.staged.iter().map(|(_, view)| view);
        let others = volume.targets.values().map(|target| &target.view);
        if let Some(view) = staged.chain(others).find(|view| view.settings == wanted && view.is_live(table)) {
            return Ok(Arc::clone(view));
        }
        let path = self.views_directory.join(Uuid::new_v4().to_string());
        bind::make_directory(&path).await.map_err(|error| Error::system("make the directory", &path, error))?;
        ViewMount::mount(&volume.core, &volume.spec, wanted, &path).await
    }

    /// Ends a view that nobody has any more, and the volume with its last view; saves until `end`. `user` had it last.
    async fn end_if_unused(&self, id: &str, view: &Arc<ViewMount>, end: Instant, user: Option<Labels>) -> Result<()> {
        let (used, ended) = {
            let mut volumes = self.volumes.lock();
            let Some(volume) = volumes.get(id) else { return Ok(()) };
            let same = |other: &Arc<ViewMount>| Arc::ptr_eq(other, view);
            let used = volume.staged.as_ref().is_some_and(|(_, staged)| same(staged))
                || volume.targets.values().any(|target| same(&target.view));
            let is_last = !used && volume.staged.is_none() && volume.targets.is_empty();
            (used, if is_last { volumes.remove(id) } else { None })
        };
        let Some(volume) = ended else {
            return if used { Ok(()) } else { view.end(remaining(end)).await };
        };
        // Only what is set aside from here on is news: close(2) reported the rest.
        let counted = volume.core.file_system().files_set_aside();
        volume.core.stop_flush();
        let outcome = view.end(remaining(end)).await;
        self.end_of(id, &volume, counted, user.into_iter().collect()).await;
        volume.core.end_estate();
        outcome
    }
}

fn is_staged_at(volume: &Volume, staging: &Path, table: &MountTable) -> bool {
    volume.staged.as_ref().is_some_and(|(path, view)| path == staging && view.is_live(table))
}

/// While a node migrates, the staging path may still hold another driver's working mount: pods may have that too.
async fn publish_foreign(
    id: &str,
    table: &MountTable,
    staging: &Path,
    target: &Path,
    options: &PublishOptions,
) -> Result<Outcome> {
    let is_foreign = Found::at(table.at(staging)) == Found::ForeignFuse;
    if is_foreign && bind::ask_foreign_mount(staging, FOREIGN_ANSWER_DEADLINE).await == Answer::Works {
        bind_to(staging, target, options.read_only).await?;
        return Ok(Outcome::Foreign);
    }
    let message = format!(
        "Volume {id:?} is not staged at {}: no live mount of this driver is there. Delete the pods of the volume on this \
         node, so that it is staged anew",
        staging.display()
    );
    Err(Error::new(ErrorKind::NotReady, message))
}

/// Binds, and leaves no directory behind when that fails.
async fn bind_to(source: &Path, target: &Path, read_only: bool) -> Result<()> {
    bind::make_directory(target).await.map_err(|error| Error::system("make the directory", target, error))?;
    if let Err(error) = bind::bind(source, target, read_only).await {
        bind::remove_directory(target).await.ok();
        return Err(Error::system("bind the volume to", target, error));
    }
    Ok(())
}

fn check_exclusive(id: &str, volume: &Volume, table: &MountTable, options: &PublishOptions) -> Result<()> {
    let mut others = volume.targets.iter().filter(|(path, _)| table.at(path).is_some());
    let Some((path, _)) = others.find(|(_, other)| options.exclusive || other.exclusive) else { return Ok(()) };
    let path: &PathBuf = path;
    let message = format!(
        "Volume {id:?} is for one pod of the node only (ReadWriteOncePod), and {} has it already",
        path.display()
    );
    Err(Error::new(ErrorKind::NotReady, message))
}
