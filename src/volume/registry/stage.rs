//! Staging: the volume's core and its first view, once a node.

use std::path::Path;

use super::{
    Answer, Core, Error, ErrorKind, FOREIGN_ANSWER_DEADLINE, Found, Outcome, Registry, Result, ViewMount, Volume,
    VolumeSpec, bind, mounts, refresh, resolved,
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
                self.update(&spec.id, |volume| volume.unsaved = None);
                let refreshed = refresh(&volume.core, Some(&spec.credential)).await;
                if let Some(origin) = spec.origin {
                    self.renew_origin(&spec.id, &spec.credential, |before| {
                        Some(origin).filter(|origin| origin != before)
                    });
                }
                return Ok(Outcome::AlreadyServed(refreshed));
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
        let view = ViewMount::mount(&core, &spec, spec.view_for(group), &path).await;
        let view = view.inspect_err(|_| {
            if known.is_none() {
                core.end_estate_if_saved();
            }
        })?;
        let targets = known.map(|volume| volume.targets).unwrap_or_default();
        let id = spec.id.clone();
        let volume = Volume { core, spec, staged: Some((path, view)), targets, unsaved: None };
        self.volumes.lock().insert(id.clone(), volume);
        self.note(&id);
        Ok(Outcome::Mounted)
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
