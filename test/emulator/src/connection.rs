//! A TCP connection at the pace of a slower link: token buckets for each direction, its own and one for all.
//! Must not know HTTP.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

/// How far a bucket may lag behind the clock: what an idle link may send at once. Also hides the timer's resolution.
const BURST: Duration = Duration::from_millis(4);
/// Time that one paced write or read stands for. Short, so that the receiver sees a stream and not lumps.
const STEP: Duration = Duration::from_millis(4);
/// Smallest paced step: below it the cost of a system call would be the pace.
const STEP_BYTES_MIN: usize = 2 * 1024;

/// Bytes per second, changeable at any time. 0: without limit.
#[derive(Default)]
pub(crate) struct Rates {
    pub(crate) per_connection: AtomicU64,
    pub(crate) total: AtomicU64,
    /// Shared buckets: towards the client, and from it.
    total_out: Bucket,
    total_in: Bucket,
}

/// When the next byte may pass. The mutex guards one instant and is held for two comparisons.
#[derive(Default)]
struct Bucket(Mutex<Option<Instant>>);

impl Bucket {
    /// Takes bytes that have passed; returns when the next may.
    fn take(&self, bytes: usize, rate: u64) -> Instant {
        let now = Instant::now();
        let mut next = self.0.lock();
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let from = next.map_or(earliest, |next| next.max(earliest));
        let until = from + Duration::from_secs_f64(bytes as f64 / rate as f64);
        *next = Some(until);
        until
    }
}

/// One direction of one connection.
#[derive(Default)]
struct Lane {
    bucket: Bucket,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Lane {
    /// Waits until the next byte may pass; then says how many at most.
    fn poll_allowance(&mut self, rates: &Rates, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let own = rates.per_connection.load(Ordering::Relaxed);
        let total = rates.total.load(Ordering::Relaxed);
        let rate = [own, total].into_iter().filter(|&rate| rate > 0).min();
        Poll::Ready(rate.map(|rate| ((rate as f64 * STEP.as_secs_f64()) as usize).max(STEP_BYTES_MIN)))
    }

    /// Notes that bytes have passed.
    fn passed(&mut self, bytes: usize, rates: &Rates, shared: &Bucket) {
        let own = rates.per_connection.load(Ordering::Relaxed);
        let total = rates.total.load(Ordering::Relaxed);
        let own = (own > 0).then(|| self.bucket.take(bytes, own));
        let total = (total > 0).then(|| shared.take(bytes, total));
        if let Some(until) = own.max(total)
            && until > Instant::now()
        {
            self.pause = Some(Box::pin(sleep_until(until)));
        }
    }
}

/// What the HTTP side may see and ask of its connection.
#[derive(Default)]
pub(crate) struct ConnectionState {
    /// Bytes handed to the kernel.
    pub(crate) written: AtomicU64,
    /// Whether the kernel or the pace refused the last write.
    pub(crate) blocked: AtomicBool,
    /// Close with RST instead of FIN.
    pub(crate) reset: AtomicBool,
}

/// A paced connection.
pub(crate) struct Connection {
    stream: TcpStream,
    rates: Arc<Rates>,
    state: Arc<ConnectionState>,
    outgoing: Lane,
    incoming: Lane,
}

impl Connection {
    /// Takes a connection over.
    pub(crate) fn new(stream: TcpStream, rates: Arc<Rates>, state: Arc<ConnectionState>) -> Self {
        Self { stream, rates, state, outgoing: Lane::default(), incoming: Lane::default() }
    }

    fn note_write(&mut self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.state.blocked.store(outcome.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(Ok(bytes)) = outcome {
            self.state.written.fetch_add(bytes as u64, Ordering::Relaxed);
            self.outgoing.passed(bytes, &self.rates, &self.rates.total_out);
        }
        outcome
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.state.reset.load(Ordering::Relaxed) {
            // With a zero linger time the kernel sends RST at close; a failure leaves a FIN, which ends it as well.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Poll::Ready(allowance) = this.outgoing.poll_allowance(&this.rates, cx) else {
            return this.note_write(Poll::Pending);
        };
        let bytes = allowance.map_or(bytes, |most| &bytes[..bytes.len().min(most)]);
        let outcome = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.note_write(outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Poll::Ready(allowance) = this.outgoing.poll_allowance(&this.rates, cx) else {
            return this.note_write(Poll::Pending);
        };
        let outcome = match (allowance, parts.iter().find(|part| !part.is_empty())) {
            (Some(most), Some(part)) => Pin::new(&mut this.stream).poll_write(cx, &part[..part.len().min(most)]),
            _ => Pin::new(&mut this.stream).poll_write_vectored(cx, parts),
        };
        this.note_write(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let allowance = ready!(this.incoming.poll_allowance(&this.rates, cx));
        let Some(most) = allowance else { return Pin::new(&mut this.stream).poll_read(cx, into) };
        let mut limited = ReadBuf::new(into.initialize_unfilled_to(most.min(into.remaining())));
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut limited))?;
        let bytes = limited.filled().len();
        into.advance(bytes);
        if bytes > 0 {
            this.incoming.passed(bytes, &this.rates, &this.rates.total_in);
        }
        Poll::Ready(Ok(()))
    }
}
