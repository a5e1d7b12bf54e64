//! What runs a server and ends it when dropped: a thread with a runtime of its own, or a task of one that is there.
//! Must not know what is served.

use std::{io, sync::mpsc, thread, time::Duration};

use tokio::{sync::oneshot, task::JoinHandle};

/// Longest wait for connections to end when a server stops. Nothing they do is worth more.
const STOP_WAIT: Duration = Duration::from_millis(200);

/// A running server.
pub(crate) enum Running {
    /// On a runtime and threads of its own.
    Thread(Option<oneshot::Sender<()>>, Option<thread::JoinHandle<()>>),
    /// On somebody's runtime.
    Task(JoinHandle<()>),
}

impl Running {
    /// Runs what `begin` returns on threads of its own, until it is dropped.
    ///
    /// # Errors
    /// That of starting a thread or a runtime.
    pub(crate) fn on_threads<F>(name: &'static str, begin: impl FnOnce() -> F + Send + 'static) -> io::Result<Self>
    where
        F: Future<Output = ()>,
    {
        let (stop, stopped) = oneshot::channel();
        let (failed, failure) = mpsc::channel();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 8)))
                .thread_name(name)
                .enable_all()
                .build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = failed.send(error);
                    return;
                }
            };
            drop(failed);
            runtime.block_on(async move {
                tokio::select! { () = begin() => {}, _ = stopped => {} }
            });
            runtime.shutdown_timeout(STOP_WAIT);
        })?;
        match failure.recv() {
            Ok(error) => Err(error),
            Err(mpsc::RecvError) => Ok(Self::Thread(Some(stop), Some(thread))),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        match self {
            Self::Thread(stop, thread) => {
                if let Some(stop) = stop.take() {
                    // The thread may have ended by itself; then nobody receives this.
                    let _ = stop.send(());
                }
                if let Some(thread) = thread.take() {
                    let _ = thread.join();
                }
            }
            Self::Task(task) => task.abort(),
        }
    }
}
