//! The end of a volume on this node: what is dirty is saved first, the service permitting. An end always comes: data that the
//! service refuses, or does not take within [`Patience`](super::Patience), goes to lost+found, and people hear of it.

use std::{
    path::Path,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{Error, ErrorKind, Registry, Result, Volume, chain, mounts, remove_path, resolved};
use crate::{finding::Finding, telemetry::metrics::Labels};

/// For saving what came after the first try, however long that took: writers that were cut off a moment ago.
const LAST_SAVING_MIN: Duration = Duration::from_secs(2);

/// An unstage that could not save everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsaved {
    /// When the first one did not, or when one last got on.
    since: Instant,
    /// What was dirty then, in bytes.
    dirty: u64,
}

/// What is left of the time until `end` for saving.
pub(super) fn remaining(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now()).max(LAST_SAVING_MIN)
}

impl Registry {
    /// Saves everything and takes the mount at `staging` down, whoever made it. Nothing there is fine.
    ///
    /// # Errors
    /// `NotReady` while pods still have it; `Unsaved` while data cannot be saved for a reason that may pass, for as long as
    /// [`Patience::unsaved`](super::Patience::unsaved) lets it (the mount stays, and so does the data), or where lost+found
    /// has no room for it.
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
        let end = Instant::now() + self.patience.flush;
        let counted = volume.core.file_system().files_set_aside();
        if let Err(error) = volume.core.flush_within(self.patience.flush).await {
            // The service is away: keep mount and data, the kubelet asks again. Any other refusal will not pass, and a
            // node must not be stuck with it for ever.
            if error.kind == ErrorKind::Unavailable
                && let Some(left) = self.patience_left(id, &volume)
            {
                return Err(unsaved(id, left, &error));
            }
            tracing::error!(volume = id, "the volume ends with data that the service did not take: {}", chain(&error));
            volume.core.stop_flush();
            volume.core.set_aside().await?;
        }
        self.volumes.lock().remove(id);
        let outcome = match &volume.staged {
            Some((_, view)) => view.end(remaining(end)).await,
            None => Ok(()),
        };
        self.end_of(id, &volume, counted, Vec::new()).await;
        // Not before: a process that is killed here is followed by one that ends the volume once more.
        self.note(id);
        volume.core.end_estate();
        outcome?;
        remove_path(&path).await
    }

    /// How long an unstage that could not save everything is to be repeated; `None` when it was often enough.
    fn patience_left(&self, id: &str, volume: &Volume) -> Option<Duration> {
        let now = Unsaved { since: Instant::now(), dirty: volume.core.file_system().dirty_bytes() };
        let mut since = now.since;
        self.update(id, |volume| {
            let first = volume.unsaved.get_or_insert(now);
            if now.dirty < first.dirty {
                *first = now;
            }
            since = first.since;
        });
        self.patience.unsaved.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
    }

    /// After the last view: what even that could not save goes to lost+found, since nobody has the volume any more. People
    /// are told, the last `users` among them, if files went there since there were `counted`.
    pub(super) async fn end_of(&self, id: &str, volume: &Volume, counted: u64, users: Vec<Labels>) {
        if let Err(error) = volume.core.set_aside().await {
            tracing::error!("{error}");
        }
        let files = volume.core.file_system().files_set_aside().saturating_sub(counted);
        if files == 0 {
            return;
        }
        self.left_unsaved.fetch_add(files, Ordering::Relaxed);
        let known = Finding::LeftUnsaved.with(&[("count", &files.to_string()), ("volume", id)]);
        tracing::error!(volume = id, container = %volume.core.location(), "{known}");
        if let Some(notices) = volume.spec.notices.clone() {
            // The API server may be away too: an unmount does not wait for it.
            drop(tokio::spawn(async move { notices.warn(&known, &users).await }));
        }
    }
}

fn unsaved(id: &str, left: Duration, error: &Error) -> Error {
    let left = humantime::format_duration(Duration::from_secs(left.as_secs().max(1)));
    let message = format!(
        "Volume {id:?} is not unstaged yet, since the service does not take what was written: {}; it is tried again, and goes to \
         lost+found of the spool directory in {left}",
        chain(error)
    );
    Error::new(ErrorKind::Unsaved, message)
}
