//! One call: tries, deadline, backoff, and what is known when it failed. Every operation goes through [`Engine::run`].
//!
//! Three rules hold for every try. It takes a place at the gate and gives it back with the answer's last byte. It is
//! signed afresh, so that a credential that arrived meanwhile is used. It ends within the call's deadline.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use azure_core::http::{AsyncRawResponse, Context, Pipeline, PipelineStreamOptions, Request, headers::Headers};
use bytes::{Bytes, BytesMut};
use futures::{
    StreamExt,
    future::{Either, select},
};

use super::{
    request::{Call, Deadline, SERVICE_VERSION},
    response::{self, BadHeader},
    transport::{Cause, TransportError},
};
use crate::{
    blob::{
        End, Error, ErrorKind, Result, Traffic,
        classify::{Again, classify, is_of_credential},
        limit::{Pass, RequestGate, VolumeId},
        link::Link,
        retry::{Backoff, RequestLimits},
    },
    credential::{CredentialSlot, TokenError, TokenErrorKind},
};

/// Longest body of an error that is read, in bytes: Azure's are below 1 KiB, a proxy's page may be anything.
const ERROR_BODY_BYTES_MAX: usize = 64 << 10;
/// Longest body that is buffered, in bytes: a listing of 5000 blobs with 8 KiB of metadata each.
const BUFFERED_BODY_BYTES_MAX: usize = 128 << 20;
/// Slowest upload that still counts as alive, in bytes a second: it lengthens a try by the size of its body. What 16
/// blocks of one file get each on a link of 1 MiB/s; a higher number gives all of them up again and again there.
const UPLOAD_BYTES_PER_SECOND_MIN: u64 = 64 << 10;
/// How often a refused credential is tried again because another one has arrived meanwhile.
const NEWER_CREDENTIALS_MAX: u32 = 4;

/// An answer with a 2xx status.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Headers,
    pub(super) body: ReplyBody,
}

/// The body of an answer.
pub(super) enum ReplyBody {
    /// Read within the try.
    Whole(Bytes),
    /// Still arriving; it holds its place at the gate.
    Arriving(Arriving),
}

/// A body on its way.
pub(super) struct Arriving {
    response: azure_core::http::AsyncResponseBody,
    pass: Pass,
    traffic: Option<Arc<Traffic>>,
}

impl Arriving {
    /// The next piece; `None` where the connection says that it is over (which may be too early).
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, azure_core::Error>> {
        let piece = self.response.next().await;
        if let Some(Ok(bytes)) = &piece {
            self.pass.moved(bytes.len() as u64);
            if let Some(traffic) = &self.traffic {
                traffic.fetched(bytes.len() as u64);
            }
        }
        piece
    }
}

/// A call that did not succeed.
pub(super) struct Failed {
    pub(super) error: Error,
    /// Whether an earlier try, or this one, may have taken place although no answer said so.
    pub(super) ambiguous: bool,
    /// When the first try began.
    pub(super) began: Instant,
}

impl Failed {
    /// Whether the refusal can be the echo of an own earlier try that did take place.
    pub(super) fn may_be_own_echo(&self) -> bool {
        use ErrorKind as Kind;
        let echo = matches!(
            self.error.kind,
            Kind::Precondition | Kind::NotFound | Kind::ContainerNotFound | Kind::Invalid | Kind::Blocked
        );
        self.ambiguous && echo
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

/// A try that did not succeed.
struct FailedTry {
    error: Error,
    again: Again,
    retry_after: Option<Duration>,
}

/// Of the last two failures the one that says why: a try that the deadline cut short says nothing but that, so the one
/// before it speaks. A try that had all of its own time and got no answer says that there is none.
pub(super) fn telling(last: Error, before: Option<Error>, deadline: Instant) -> Error {
    match before {
        Some(before) if last.kind == ErrorKind::TimedOut && Instant::now() >= deadline => before,
        _ => last,
    }
}

/// Everything that calls of a store share.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) pipeline: Pipeline,
    pub(super) slot: Arc<CredentialSlot>,
    pub(super) gate: RequestGate,
    /// Whose turn it is at the gate.
    pub(super) volume: VolumeId,
    pub(super) link: Link,
    pub(super) traffic: Arc<Traffic>,
    pub(super) host: String,
}

impl Engine {
    /// Tries `call` until it succeeds, is refused for good, or its deadline passes.
    pub(super) async fn run(&self, call: &Call, limits: &RequestLimits) -> Result<Reply, Failed> {
        let began = Instant::now();
        let deadline = began
            + match call.deadline {
                Deadline::Names => limits.names,
                Deadline::Commits => limits.commits,
            };
        let mut backoff = Backoff::default();
        let mut ambiguous = false;
        let mut newer_credentials = 0;
        let mut before = None;
        loop {
            let generation = self.slot.generation();
            let token = self.slot.current().token_serial();
            let mut failed = match self.try_once(call, limits, deadline).await {
                Ok(reply) => {
                    self.slot.note_success(generation);
                    self.traffic.succeeded();
                    return Ok(reply);
                }
                Err(failed) => failed,
            };
            ambiguous |= failed.again == Again::Ambiguous;
            failed.error = telling(failed.error, before.take(), deadline);
            self.traffic.failed(&failed.error);
            let replaced = failed.error.kind == ErrorKind::Denied && self.slot.generation() != generation;
            if newer_credentials < NEWER_CREDENTIALS_MAX {
                // It may have been rotated, revoked, or have ended early: its source is asked once more.
                let refused = !replaced && is_of_credential(failed.error.status, failed.error.code.as_deref());
                if replaced || refused && self.slot.renew(generation, token).await {
                    newer_credentials += 1;
                    self.traffic.retried();
                    continue;
                }
            }
            let wait = backoff.next(failed.retry_after);
            if failed.again == Again::Never || Instant::now() + wait >= deadline {
                return Err(Failed { error: failed.error, ambiguous, began });
            }
            tracing::debug!(error = %failed.error, tries = backoff.tries(), ?wait, "trying again");
            before = Some(failed.error);
            self.traffic.retried();
            tokio::time::sleep(wait).await;
        }
    }

    /// As [`Self::run`], for calls where an ambiguous try needs no settling.
    pub(super) async fn ask(&self, call: &Call, limits: &RequestLimits) -> Result<Reply> {
        self.run(call, limits).await.map_err(Error::from)
    }

    async fn try_once(&self, call: &Call, limits: &RequestLimits, deadline: Instant) -> Result<Reply, FailedTry> {
        let late = |again| FailedTry { error: self.bare(call, ErrorKind::TimedOut), again, retry_after: None };
        // Waiting for a place is not a try: nothing was sent.
        let pass = match tokio::time::timeout_at(deadline.into(), self.gate.enter(self.volume, call.urgency)).await {
            Ok(Some(pass)) => pass,
            Ok(None) | Err(_) => return Err(late(Again::Untouched)),
        };
        let sending = Duration::from_secs(call.body.len() / UPLOAD_BYTES_PER_SECOND_MIN);
        let ends = deadline.min(Instant::now() + limits.one_try + sending);
        let asked = Instant::now();
        match tokio::time::timeout_at(ends.into(), self.exchange_or_hedge(call, pass)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.traffic.note(call.operation, End::TimedOut, asked.elapsed());
                Err(late(Again::Ambiguous))
            }
        }
    }

    /// One request; where it reads bytes and its answer is later than hardly any other (a slow server behind the endpoint, a
    /// lost packet), a second one beside it, and the answer that comes first. Reading twice does no harm.
    async fn exchange_or_hedge(&self, call: &Call, pass: Pass) -> Result<Reply, FailedTry> {
        let Some(after) = self.link.hedge_after().filter(|_| call.measured) else {
            return self.exchange(call, pass).await;
        };
        let asked = Instant::now();
        let mut first = Box::pin(self.exchange(call, pass));
        if let Ok(outcome) = tokio::time::timeout(after, first.as_mut()).await {
            return outcome;
        }
        // Not by waiting: where places are short, slow answers are no accident.
        let Some(pass) = self.gate.try_enter().filter(|_| self.link.take_hedge()) else { return first.await };
        tracing::debug!(resource = call.resource, ?after, "a slow read is asked for again");
        let second = Box::pin(self.exchange(call, pass));
        let (outcome, other) = match select(first, second).await {
            Either::Left(decided) => decided,
            Either::Right(decided) => {
                // How long the first takes is not known, but no less than this: else slow ones would be forgotten.
                self.link.note_first_byte(asked.elapsed());
                decided
            }
        };
        match outcome {
            Err(failed) if failed.again != Again::Never => other.await,
            decided => decided,
        }
    }

    /// One request and its answer. Cancelled by the caller's timeout at any await: the connection is then closed, and
    /// whether the service acts is not known.
    async fn exchange(&self, call: &Call, mut pass: Pass) -> Result<Reply, FailedTry> {
        let mut request = Request::new(call.url.clone(), call.method);
        request.insert_header("x-ms-version", SERVICE_VERSION);
        // Where there is none, azure_core makes an error of it first, with a backtrace, and then an id.
        request.insert_header("x-ms-client-request-id", uuid::Uuid::new_v4().to_string());
        for (name, value) in &call.headers {
            request.insert_header(name.clone(), value.clone());
        }
        if let Some(source) = &call.source {
            let (name, value) = source.header(&self.slot.current());
            request.insert_header(name, value);
        }
        if !call.body.is_empty() {
            // For the signature: the transport takes the body itself from the context.
            request.insert_header("content-length", call.body.len().to_string());
        }
        let context = Context::new().with_value(call.body.clone());
        let asked = Instant::now();
        let options = PipelineStreamOptions { skip_checks: true, ..PipelineStreamOptions::default() };
        let response = self.pipeline.stream(&context, &mut request, Some(options)).await;
        let response = response.map_err(|error| {
            self.traffic.note(call.operation, End::NoAnswer, asked.elapsed());
            self.not_answered(call, error)
        })?;
        pass.moved(call.body.len());
        self.traffic.sent(call.body.len());
        let status = u16::from(response.status());
        self.traffic.note(call.operation, End::Status(status), asked.elapsed());
        if !(200..300).contains(&status) {
            return Err(self.refused(call, response).await);
        }
        if call.measured {
            self.link.note_first_byte(asked.elapsed());
        }
        let (_, headers, body) = response.deconstruct();
        // What a blob is made of, not listings.
        let traffic = call.measured.then(|| Arc::clone(&self.traffic));
        let mut arriving = Arriving { response: body, pass, traffic };
        let body = if call.buffered {
            let read = read_whole(&mut arriving, BUFFERED_BODY_BYTES_MAX).await;
            let whole = read.map_err(|error| self.not_answered(call, error))?;
            match response::number(&headers, "content-length") {
                Some(promised) if promised != whole.len() as u64 => {
                    let error = self.bare(call, ErrorKind::Corrupt);
                    return Err(FailedTry { error, again: Again::Ambiguous, retry_after: None });
                }
                _ => ReplyBody::Whole(whole),
            }
        } else {
            ReplyBody::Arriving(arriving)
        };
        Ok(Reply { status, headers, body })
    }

    /// The service said no.
    async fn refused(&self, call: &Call, response: AsyncRawResponse) -> FailedTry {
        let status = u16::from(response.status());
        let (_, headers, mut body) = response.deconstruct();
        let mut text = BytesMut::new();
        while let Some(Ok(piece)) = body.next().await {
            text.extend_from_slice(&piece);
            if text.len() > ERROR_BODY_BYTES_MAX {
                break;
            }
        }
        let (code_in_body, said) = response::error_body(&text);
        let code = response::text(&headers, "x-ms-error-code").map(str::to_owned).or(code_in_body);
        let (kind, again) = classify(status, code.as_deref(), call.about_container);
        if kind == ErrorKind::Throttled {
            self.gate.refused();
        }
        let source = (!said.to_string().is_empty()).then(|| Box::new(said) as _);
        let request_id = response::text(&headers, "x-ms-request-id").map(str::to_owned);
        let error = Error { status: Some(status), code, request_id, source, ..self.bare(call, kind) };
        FailedTry { error, again, retry_after: response::retry_after(&headers) }
    }

    /// There was no answer, or not the whole of it.
    fn not_answered(&self, call: &Call, error: azure_core::Error) -> FailedTry {
        let below = std::error::Error::source(&error);
        if let Some(token) = below.and_then(|below| below.downcast_ref::<TokenError>()) {
            return self.not_signed(call, token.clone());
        }
        let cause = std::error::Error::source(&error)
            .and_then(|below| below.downcast_ref::<TransportError>())
            .map(|transport| transport.cause);
        let (kind, again) = match cause {
            Some(Cause::Malformed) => (ErrorKind::Invalid, Again::Never),
            Some(Cause::Broken) | None => (ErrorKind::Unreachable, Again::Ambiguous),
            // A certificate does not get better within a minute.
            Some(Cause::Tls) => (ErrorKind::Unreachable, Again::Never),
            Some(Cause::Dns | Cause::Refused | Cause::Proxy | Cause::Connect) => {
                (ErrorKind::Unreachable, Again::Untouched)
            }
        };
        let error = Error { source: Some(Box::new(error)), ..self.bare(call, kind) };
        FailedTry { error, again, retry_after: None }
    }

    /// There is no token to sign with, so nothing was sent.
    fn not_signed(&self, call: &Call, token: TokenError) -> FailedTry {
        let (kind, again) = match token.kind {
            TokenErrorKind::Refused => (ErrorKind::Denied, Again::Never),
            TokenErrorKind::Unreachable | TokenErrorKind::Busy => (ErrorKind::Unreachable, Again::Untouched),
        };
        let retry_after = token.retry_after;
        FailedTry { error: Error { source: Some(Box::new(token)), ..self.bare(call, kind) }, again, retry_after }
    }

    /// An error that knows only what was asked.
    pub(super) fn bare(&self, call: &Call, kind: ErrorKind) -> Error {
        Error {
            kind,
            operation: call.operation,
            resource: call.resource.clone(),
            host: authority(&call.url).unwrap_or_else(|| self.host.clone()),
            status: None,
            code: None,
            request_id: None,
            source: None,
        }
    }

    /// The answer contradicts the protocol.
    pub(super) fn damaged(&self, call: &Call, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error { source: Some(source.into()), ..self.bare(call, ErrorKind::Corrupt) }
    }

    /// A header that the protocol promises.
    pub(super) fn promised<T>(&self, call: &Call, value: Result<T, BadHeader>) -> Result<T> {
        value.map_err(|bad| self.damaged(call, bad))
    }
}

/// Host and port of a request: an account has more than one endpoint.
fn authority(url: &url::Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// Whether something that the service dates `written` was written since `began`, judged by the service's own clock
/// (`now` is the Date of the same answer): an older state cannot be the trace of our try.
pub(super) fn written_since(began: Instant, written: SystemTime, now: Option<SystemTime>) -> bool {
    // Times are whole seconds, and the answer was under way for a while.
    let slack = Duration::from_secs(2);
    let now = now.unwrap_or_else(SystemTime::now);
    now.checked_sub(began.elapsed() + slack).is_none_or(|earliest| written >= earliest)
}

async fn read_whole(arriving: &mut Arriving, most: usize) -> Result<Bytes, azure_core::Error> {
    let mut whole = BytesMut::new();
    while let Some(piece) = arriving.next().await {
        whole.extend_from_slice(&piece?);
        if whole.len() > most {
            return Err(azure_core::Error::with_message(
                azure_core::error::ErrorKind::Io,
                "the answer is longer than any listing can be",
            ));
        }
    }
    Ok(whole.freeze())
}
