//! The copies that this process makes: callers wait for one for as long as they have time, and it goes on without them. A repeated
//! call finds it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, task::AbortHandle};

use super::{Copy, Progress};
use crate::csi::error::{Error, ErrorKind, Result};

/// What a caller that waited knows.
#[derive(Debug)]
pub(in crate::csi) enum Outcome {
    /// All is copied.
    Done,
    /// Not yet: how far it is, for people.
    Running(String),
}

#[derive(Debug)]
struct Running {
    progress: Arc<Progress>,
    ended: watch::Receiver<Option<Result<()>>>,
    task: AbortHandle,
}

/// By destination.
type Table = Arc<Mutex<HashMap<String, Arc<Running>>>>;

/// See the module's doc. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(in crate::csi) struct Copies {
    /// Guards the map only; nothing awaits inside.
    running: Table,
}

impl Copies {
    /// Makes `copy`, or joins the one that is made to the same destination, and waits for `patience`. Cancel-safe: it goes on.
    ///
    /// # Errors
    /// Those of the copy; the next call begins it again where it broke off.
    pub(in crate::csi) async fn wait(&self, copy: Copy, patience: Duration) -> Result<Outcome> {
        let key = copy.destination.shown();
        let joined = Arc::clone(self.running.lock().entry(key.clone()).or_insert_with(|| self.start(key, copy)));
        let mut ended = joined.ended.clone();
        let waited = tokio::time::timeout(patience, ended.wait_for(Option::is_some)).await;
        match waited {
            Ok(Ok(result)) => result.clone().unwrap_or(Ok(())).map(|()| Outcome::Done),
            Ok(Err(_)) => Err(Error::new(ErrorKind::Unavailable, "The copy was ended; try again")),
            Err(_) => Ok(Outcome::Running(joined.progress.shown())),
        }
    }

    fn start(&self, key: String, copy: Copy) -> Arc<Running> {
        let progress = Arc::<Progress>::default();
        let (end, ended) = watch::channel(None);
        let (table, shared) = (Arc::clone(&self.running), Arc::clone(&progress));
        let task = tokio::spawn(async move {
            let (from, to) = (copy.source.shown(), copy.destination.shown());
            tracing::info!(from, to, "a copy begins");
            let result = copy.run(Arc::clone(&shared)).await;
            match &result {
                Ok(()) => tracing::info!(from, to, "a copy is done: {}", shared.shown()),
                Err(error) => tracing::warn!(from, to, "a copy broke off at {}: {}", shared.shown(), error.full_text()),
            }
            table.lock().remove(&key);
            end.send_replace(Some(result));
        });
        Arc::new(Running { progress, ended, task: task.abort_handle() })
    }

    /// Ends the copy to this destination, if there is one: it is about to be deleted.
    pub(in crate::csi) fn stop(&self, destination: &str) {
        if let Some(running) = self.running.lock().remove(destination) {
            running.task.abort();
        }
    }
}
