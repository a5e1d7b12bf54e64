//! Runs operations: at once on the thread that read the request when the operation needs to wait for nobody, else as a
//! task that owns the reply. So what is in flight is bounded by memory, not by threads.
//!
//! An operation that panics answers EIO, is logged and counted, and harms no other. Knows nothing of any operation.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Context, Poll, Waker},
    time::Instant,
};

use fuser::Errno;
use futures::FutureExt;
use tokio::{runtime::Handle, sync::Notify};

use crate::{
    fs::{self, Meter, Operation},
    sync::{Arc, AtomicU64, AtomicUsize, Ordering},
};

use super::gate::Gate;

/// A reply that can say no.
pub(super) trait Refuse: Send + 'static {
    /// Answers with an error.
    fn refuse(self, errno: Errno);
}

macro_rules! refuse {
    ($($reply:ident),*) => { $(
        impl Refuse for fuser::$reply {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        }
    )* };
}

refuse!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLock,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

/// Runs the operations of one session. A call is the last that a request's thread does with it: the thread may not come back.
pub(super) struct Dispatch {
    runtime: Handle,
    in_flight: Arc<InFlight>,
    meter: Arc<Meter>,
    gate: Arc<Gate>,
}

/// Operations that have not been answered, and those that ended badly.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    count: AtomicUsize,
    panics: AtomicU64,
    idle: Notify,
    /// Requests so far, by operation.
    #[cfg(test)]
    asked: crate::sync::Mutex<std::collections::HashMap<&'static str, u64>>,
}

impl InFlight {
    /// Waits until every operation has been answered. Cancel-safe.
    pub(super) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Runs something short on a thread that must survive it.
    fn guard(&self, operation: Operation, work: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            self.note_panic(operation, &*panic);
        }
    }

    fn note_panic(&self, operation: Operation, panic: &(dyn Any + Send)) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        tracing::error!(operation = operation.name(), "a defect made this operation fail: {}", panic_text(panic));
    }

    #[cfg(test)]
    fn note_asked(&self, operation: Operation) {
        *self.asked.lock().entry(operation.name()).or_default() += 1;
    }

    /// How often the kernel has asked for these operations.
    #[cfg(test)]
    pub(super) fn asked(&self, operations: &[&str]) -> u64 {
        let asked = self.asked.lock();
        operations.iter().filter_map(|operation| asked.get(operation)).sum()
    }

    /// Operations that panicked so far.
    pub(super) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

/// One operation in flight; its Drop counts it out, and its time in.
struct Ticket {
    in_flight: Arc<InFlight>,
    meter: Arc<Meter>,
    operation: Operation,
    began: Instant,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.meter.note(self.operation, self.began.elapsed());
        if self.in_flight.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.in_flight.idle.notify_waiters();
        }
    }
}

/// What an operation ended with: its result, or what it panicked with.
type Outcome<T> = Result<fs::Result<T>, Box<dyn Any + Send>>;

impl Dispatch {
    pub(super) fn new(runtime: Handle, in_flight: Arc<InFlight>, meter: Arc<Meter>, gate: Arc<Gate>) -> Self {
        Self { runtime, in_flight, meter, gate }
    }

    fn ticket(&self, operation: Operation) -> Ticket {
        self.in_flight.count.fetch_add(1, Ordering::AcqRel);
        let (in_flight, meter) = (Arc::clone(&self.in_flight), Arc::clone(&self.meter));
        Ticket { in_flight, meter, operation, began: Instant::now() }
    }

    /// Counts an operation that was answered without any of the others here.
    pub(super) fn answered(&self, operation: Operation, began: Instant) {
        self.meter.note(operation, began.elapsed());
    }

    /// Runs `work` here as far as it goes without waiting, and goes on as a task if it must wait. For operations whose
    /// first steps are short.
    pub(super) fn start<T: Send + 'static, R: Refuse>(
        &self,
        operation: Operation,
        reply: R,
        work: impl Future<Output = fs::Result<T>> + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
    ) {
        #[cfg(test)]
        self.in_flight.note_asked(operation);
        self.gate.pass();
        let ticket = self.ticket(operation);
        let mut work = AssertUnwindSafe(work).catch_unwind().boxed();
        let within_runtime = self.runtime.enter();
        // A task polls again as soon as it is spawned, with a waker that counts: nothing is lost with this one.
        match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => {
                finish(&ticket, reply, outcome, answer);
                // The thread may retire below, and is not to be counted for ever.
                drop(ticket);
            }
            Poll::Pending => {
                drop(within_runtime);
                self.runtime.spawn(async move {
                    let outcome = work.await;
                    finish(&ticket, reply, outcome, answer);
                });
            }
        }
        self.gate.retire();
    }

    /// Runs what never waits and answers nothing, or answers itself; it is told when it began.
    pub(super) fn now(&self, operation: Operation, work: impl FnOnce(Instant)) {
        // The kernel does not send a FORGET again.
        if operation != Operation::Forget {
            self.gate.pass();
        }
        let began = Instant::now();
        self.in_flight.guard(operation, || work(began));
        // Several come in one message.
        if operation != Operation::Forget {
            self.gate.retire();
        }
    }

    /// What `work` has at once, on this thread. `None` also when it panicked, or when the thread is to retire, which it does not
    /// here: whoever then goes the long way answers.
    pub(super) fn attempt<T>(&self, operation: Operation, work: impl FnOnce() -> Option<T>) -> Option<T> {
        self.gate.pass();
        if self.gate.is_leaving() {
            return None;
        }
        let (began, mut found) = (Instant::now(), None);
        self.in_flight.guard(operation, || found = work());
        if found.is_some() {
            self.answered(operation, began);
        }
        found
    }

    /// Runs `work` as a task from the beginning. For operations that always ask the service, or hash and copy much.
    pub(super) fn spawn<T: Send + 'static, R: Refuse>(
        &self,
        operation: Operation,
        reply: R,
        work: impl Future<Output = fs::Result<T>> + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
    ) {
        self.gate.pass();
        let ticket = self.ticket(operation);
        self.runtime.spawn(async move {
            let outcome = AssertUnwindSafe(work).catch_unwind().await;
            finish(&ticket, reply, outcome, answer);
        });
        self.gate.retire();
    }
}

fn finish<T, R: Refuse>(ticket: &Ticket, reply: R, outcome: Outcome<T>, answer: impl FnOnce(R, T)) {
    let operation = ticket.operation;
    match outcome {
        // A reply that is dropped by a panic answers EIO by itself.
        Ok(Ok(value)) => ticket.in_flight.guard(operation, || answer(reply, value)),
        Ok(Err(error)) => {
            log_error(operation, &error);
            ticket.meter.note_error(operation, error.errno);
            reply.refuse(Errno::from_i32(error.errno));
        }
        Err(panic) => {
            ticket.in_flight.note_panic(operation, &*panic);
            ticket.meter.note_error(operation, libc::EIO);
            reply.refuse(Errno::EIO);
        }
    }
}

/// The message and its causes, at the level that the error asks for.
fn log_error(operation: Operation, error: &fs::Error) {
    macro_rules! at {
        ($level:ident) => {
            tracing::$level!(operation = operation.name(), errno = error.errno, "{}", error.to_chain())
        };
    }
    match error.level {
        tracing::Level::ERROR => at!(error),
        tracing::Level::WARN => at!(warn),
        tracing::Level::INFO => at!(info),
        _ => at!(debug),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Mutex;

    fn gate() -> Arc<Gate> {
        Arc::new(Gate::new(1))
    }

    /// Keeps what it was told.
    struct Recorder(Arc<Mutex<Option<Result<u32, i32>>>>);

    impl Refuse for Recorder {
        fn refuse(self, errno: Errno) {
            *self.0.lock() = Some(Err(errno.code()));
        }
    }

    impl Recorder {
        fn accept(self, value: u32) {
            *self.0.lock() = Some(Ok(value));
        }
    }

    #[tokio::test]
    async fn what_needs_nobody_is_answered_before_start_returns() {
        let dispatch = Dispatch::new(Handle::current(), Arc::default(), Arc::default(), gate());
        let told = Arc::default();
        dispatch.start(Operation::Read, Recorder(Arc::clone(&told)), async { Ok(7) }, Recorder::accept);
        assert_eq!(*told.lock(), Some(Ok(7)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_must_wait_is_answered_later_and_counts_until_then() {
        let dispatch = Dispatch::new(Handle::current(), Arc::default(), Arc::default(), gate());
        let (told, gate) = (Arc::default(), Arc::new(Notify::new()));
        let wait = Arc::clone(&gate);
        let work = async move {
            wait.notified().await;
            Err::<u32, _>(fs::Error::new(libc::ENOENT, "nothing"))
        };
        dispatch.start(Operation::Read, Recorder(Arc::clone(&told)), work, Recorder::accept);
        assert_eq!(*told.lock(), None);
        gate.notify_one();
        dispatch.in_flight.idle().await;
        assert_eq!(*told.lock(), Some(Err(libc::ENOENT)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_thread_that_retires_has_answered() {
        let gate = gate();
        let dispatch = Dispatch::new(Handle::current(), Arc::default(), Arc::default(), Arc::clone(&gate));
        let (told, in_flight) = (Arc::default(), Arc::clone(&dispatch.in_flight));
        let recorder = Recorder(Arc::clone(&told));
        let directory = tempfile::tempdir().unwrap();
        let (retires, retired) = (Arc::clone(&gate), tokio::sync::oneshot::channel::<()>());
        // It stays there for ever.
        std::thread::spawn(move || {
            let _stays = retired.0;
            while !retires.is_leaving() {
                std::thread::yield_now();
            }
            dispatch.start(Operation::Read, recorder, async { Ok(7) }, Recorder::accept);
        });
        gate.drain(directory.path()).await;
        in_flight.idle().await;
        assert_eq!(*told.lock(), Some(Ok(7)));
        assert!(retired.1.now_or_never().is_none(), "it has gone on");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_is_eio_and_counted() {
        let dispatch = Dispatch::new(Handle::current(), Arc::default(), Arc::default(), gate());
        let told = [Arc::default(), Arc::default()];
        let broken = || async { if true { panic!("broken") } else { Ok(1) } };
        dispatch.start(Operation::Read, Recorder(Arc::clone(&told[0])), broken(), Recorder::accept);
        dispatch.spawn(Operation::Read, Recorder(Arc::clone(&told[1])), broken(), Recorder::accept);
        dispatch.now(Operation::Read, |_| panic!("broken"));
        dispatch.start(Operation::Read, Recorder(Arc::default()), async { Ok(1) }, |_, _: u32| panic!("broken"));
        dispatch.in_flight.idle().await;
        assert!(told.iter().all(|told| *told.lock() == Some(Err(libc::EIO))));
        assert_eq!(dispatch.in_flight.panics(), 4);
    }
}
