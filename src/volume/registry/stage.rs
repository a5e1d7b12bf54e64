//! Staging: the volume's core and its first view, once a node.

use std::path::Path;

use super::{
    Answer, Core, Error, ErrorKind, FOREIGN_ANSWER_DEADLINE, Found, Outcome, Registry, Result, ViewMount, Volume,
    VolumeSpec, bind, mounts, refresh, remove_path, resolved,
};

impl Registry {
    /// Mounts the volume at `staging`, which is made if it is missing, for pods of fsGroup `group`; returns when it
    /// serves. A working mount there is kept, and its credential refreshed.
    ///
    /// Cancelled half-way, a session that was not yet put in the table detaches its mount when it is dropped.
    ///
    /// # Errors
    /// What the service says (nothing stays mounted); `Occupied` when another container is served under this id or
    /// something else is mounted at the path.
    pub async fn stage(&self, spec: VolumeSpec, group: Option<u32>, staging: &Path) -> Result<Outcome> {
        let path = resolved(staging)?;
        let known = self.volume(&spec.id);
        if let Some(volume) = &known {
            check_same(volume, &spec)?;
            if let Some((staged_at, view)) = &volume.staged
                && view.is_live(&mounts()?)
            {
                if *staged_at != path {
                    let message = format!("Volume {:?} is already staged at {}", spec.id, staged_at.display());
                    return Err(Error::new(ErrorKind::Occupied, message));
                }
                return Ok(Outcome::AlreadyServed(refresh(&volume.core, Some(&spec.credential)).await));
            }
        }
        if self.clear(&path).await? == Found::ForeignFuse {
            tracing::info!(path = %path.display(), "another driver's mount works there: it is left alone");
            return Ok(Outcome::Foreign);
        }
        // Whatever mount our old view had there is gone; its session may not have noticed.
        if let Some((staged_at, view)) = known.as_ref().and_then(|volume| volume.staged.as_ref())
            && *staged_at == path
        {
            view.session.disown();
        }
        let core = match &known {
            Some(volume) => {
                refresh(&volume.core, Some(&spec.credential)).await;
                std::sync::Arc::clone(&volume.core)
            }
            None => Core::open(&spec, &self.shared).await?.into(),
        };
        bind::make_directory(&path).await.map_err(|error| Error::system("make the directory", &path, error))?;
        let view = ViewMount::mount(&core, &spec, spec.view_for(group), &path).await?;
        let targets = known.map(|volume| volume.targets).unwrap_or_default();
        let id = spec.id.clone();
        let volume = Volume { core, spec, staged: Some((path, view)), targets };
        self.volumes.lock().insert(id, volume);
        Ok(Outcome::Mounted)
    }

    /// Saves everything and takes the mount at `staging` down, whoever made it. Nothing there is fine.
    ///
    /// # Errors
    /// `NotReady` while pods still have it; `Unsaved` when data could not be saved for a reason that may pass (the mount
    /// stays, and so does the data).
    pub async fn unstage(&self, id: &str, staging: &Path) -> Result<()> {
        let path = resolved(staging)?;
        let Some(volume) =
            self.volume(id).filter(|volume| volume.staged.as_ref().is_none_or(|(staged_at, _)| *staged_at == path))
        else {
            return remove_path(&path).await;
        };
        let table = mounts()?;
        if let Some(target) = volume.targets.keys().find(|target| table.at(target).is_some()) {
            let message = format!("Volume {id:?} cannot be unstaged: it is still published at {}", target.display());
            return Err(Error::new(ErrorKind::NotReady, message));
        }
        if let Err(error) = volume.core.flush().await {
            // The service is away: keep mount and data, the kubelet asks again. Any other refusal will not pass, and a
            // node must not be stuck with it for ever: the data goes to lost+found, or the volume stays.
            if error.kind == ErrorKind::Unavailable {
                return Err(Error { kind: ErrorKind::Unsaved, ..error });
            }
            tracing::error!(volume = id, "the service refuses data: {}", super::chain(&error));
            volume.core.set_aside().await?;
        }
        self.volumes.lock().remove(id);
        if let Some((_, view)) = &volume.staged {
            view.end().await?;
        }
        volume.end().await;
        remove_path(&path).await
    }

    /// Makes room at `path`: dead mounts go, a working one of another driver stays.
    async fn clear(&self, path: &Path) -> Result<Found> {
        let table = mounts()?;
        let found = Found::at(table.at(path));
        match found {
            Found::ForeignFuse if bind::ask_foreign_mount(path, FOREIGN_ANSWER_DEADLINE).await == Answer::Works => {
                return Ok(found);
            }
            Found::DeadOrOurs | Found::ForeignFuse => self.take_down(&table, path).await?,
            Found::Other => {
                let message = format!("Something else is mounted at {}: unmount it first", path.display());
                return Err(Error::new(ErrorKind::Occupied, message));
            }
            Found::Nothing => {}
        }
        Ok(Found::Nothing)
    }
}

/// A handle names one container; two PersistentVolumes that use one handle for two containers would mix their data.
fn check_same(volume: &Volume, spec: &VolumeSpec) -> Result<()> {
    let (known, wanted) = (volume.core.location(), &spec.location);
    if known == wanted {
        return Ok(());
    }
    let message = format!(
        "Volume {:?} is already mounted on this node from {known}, not from {wanted}: give each PersistentVolume a \
         volumeHandle of its own",
        spec.id
    );
    Err(Error::new(ErrorKind::Occupied, message))
}
