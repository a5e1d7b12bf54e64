//! Get Blob and Get Blob Properties. A body that breaks off goes on at its byte, under If-Match of the version that it
//! began with: bytes of two versions are never mixed.

use std::{
    ops::Range,
    time::{Duration, Instant, SystemTime},
};

use azure_core::http::Method;
use bytes::Bytes;
use futures::stream;

use super::{
    AzureStore,
    call::{Arriving, Reply, ReplyBody, telling},
    request::Call,
    response,
};
use crate::blob::{
    BlobName, BlobProperties, BodyStream, Condition, Download, ETag, Error, ErrorKind, Result, retry::Backoff,
};

/// How often a body is resumed without one byte of progress.
const RESUMES_WITHOUT_PROGRESS_MAX: u32 = 5;
/// Silence on an open body after which another connection is tried.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How often a range behind the end is looked at again because the blob has grown meanwhile.
const GROWN_MEANWHILE_MAX: usize = 3;

pub(super) async fn head(store: &AzureStore, name: &BlobName, condition: &Condition) -> Result<BlobProperties> {
    head_with_date(store, name, condition).await.map(|(properties, _)| properties)
}

/// The properties, and the service's clock at that moment.
pub(super) async fn head_with_date(
    store: &AzureStore,
    name: &BlobName,
    condition: &Condition,
) -> Result<(BlobProperties, Option<SystemTime>)> {
    let call = store.blob_call("Get Blob Properties", Method::Head, name)?.condition(condition);
    let reply = store.engine().ask(&call, &store.limits).await?;
    let length = response::number(&reply.headers, "content-length").unwrap_or(0);
    let properties = store.engine().promised(&call, response::properties(&reply.headers, length, "content-md5"))?;
    Ok((properties, response::time(&reply.headers, "date")))
}

pub(super) async fn get(
    store: &AzureStore,
    name: &BlobName,
    range: Range<u64>,
    condition: &Condition,
) -> Result<Download> {
    if range.start >= range.end {
        return Ok(nothing(head(store, name, condition).await?, range.start));
    }
    let call = ranged(store, name, &range)?.condition(condition);
    for _ in 0..GROWN_MEANWHILE_MAX {
        match store.engine().ask(&call, &store.limits).await {
            Ok(reply) => return download(store, name, &call, &range, reply),
            // 416: nothing there. HEAD says so with the properties, unless the blob has grown between the two.
            Err(error) if error.status == Some(416) => {
                let properties = head(store, name, condition).await?;
                if properties.length <= range.start {
                    return Ok(nothing(properties, range.start));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(store.engine().damaged(&call, "the service refuses a range that lies inside the blob"))
}

fn ranged(store: &AzureStore, name: &BlobName, range: &Range<u64>) -> Result<Call> {
    let value = match range.end {
        u64::MAX => format!("bytes={}-", range.start),
        end => format!("bytes={}-{}", range.start, end - 1),
    };
    Ok(store.blob_call("Get Blob", Method::Get, name)?.header("x-ms-range", value).measured())
}

fn nothing(properties: BlobProperties, at: u64) -> Download {
    Download { properties, range: at..at, body: Box::pin(stream::empty()) }
}

fn download(store: &AzureStore, name: &BlobName, call: &Call, range: &Range<u64>, reply: Reply) -> Result<Download> {
    let (delivered, length) = delivered(&reply).ok_or_else(|| store.engine().damaged(call, "no readable range"))?;
    if delivered.start != range.start || delivered.end > range.end.min(length) {
        let reason = format!("asked for bytes {range:?}, the answer has {delivered:?} of {length}");
        return Err(store.engine().damaged(call, reason));
    }
    let md5_header = if reply.status == 206 { "x-ms-blob-content-md5" } else { "content-md5" };
    let properties = store.engine().promised(call, response::properties(&reply.headers, length, md5_header))?;
    let tier_known = response::text(&reply.headers, "x-ms-access-tier").is_some();
    let properties = BlobProperties { tier_known, ..properties };
    let ReplyBody::Arriving(arriving) = reply.body else { return Err(store.engine().damaged(call, "no body")) };
    if delivered.is_empty() {
        return Ok(nothing(properties, range.start));
    }
    let resuming = Resuming {
        store: store.clone(),
        name: name.clone(),
        version: properties.etag.clone(),
        left: delivered.clone(),
        arriving: Some(arriving),
        backoff: Backoff::default(),
        unbroken: Some((Instant::now(), delivered.end - delivered.start)),
    };
    Ok(Download { properties, range: delivered, body: resuming.into_stream() })
}

/// Which bytes an answer has, and the length of the whole blob.
fn delivered(reply: &Reply) -> Option<(Range<u64>, u64)> {
    if reply.status != 206 {
        let length = response::number(&reply.headers, "content-length")?;
        return Some((0..length, length));
    }
    let (range, length) = response::text(&reply.headers, "content-range")?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, length): (u64, i64, u64) = (first.parse().ok()?, last.parse().ok()?, length.parse().ok()?);
    // Azurite answers a range that begins at the end with 206 and "bytes 10-9/10" (or "0--1/0"), the service with 416.
    let end = u64::try_from(last.checked_add(1)?).ok()?;
    (first <= end && end <= length).then_some((first..end, length))
}

/// A body under way. Not cancel-safe in the middle of a piece by nature: dropping it closes its connection.
struct Resuming {
    store: AzureStore,
    name: BlobName,
    version: ETag,
    /// What was not delivered yet.
    left: Range<u64>,
    /// The connection; `None` after a break and at the end.
    arriving: Option<Arriving>,
    /// Breaks since the last byte.
    backoff: Backoff,
    /// When the body began and how long it is, until it breaks.
    unbroken: Option<(Instant, u64)>,
}

impl Resuming {
    fn into_stream(self) -> BodyStream {
        Box::pin(stream::unfold(Some(self), |state| async {
            let mut body = state?;
            match body.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(body))),
                Ok(None) => None,
                // An error is final: whatever comes behind it would not join up.
                Err(error) => Some((Err(error), None)),
            }
        }))
    }

    /// The next piece. The deadline counts from here, not from the last call: a reader that rests is no silence.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let deadline = Instant::now() + self.store.limits.names;
        let mut before = None;
        loop {
            if self.left.is_empty() {
                self.arriving = None;
                return Ok(None);
            }
            let Some(arriving) = &mut self.arriving else {
                self.reopen(deadline).await.map_err(|error| telling(error, before.take(), deadline))?;
                continue;
            };
            let silent = deadline.min(Instant::now() + SILENCE_MAX);
            let broken = match tokio::time::timeout_at(silent.into(), arriving.next()).await {
                Ok(Some(Ok(mut piece))) => {
                    let wanted = usize::try_from(self.left.end - self.left.start).unwrap_or(usize::MAX);
                    piece.truncate(wanted);
                    if piece.is_empty() {
                        continue;
                    }
                    self.left.start += piece.len() as u64;
                    self.backoff = Backoff::default();
                    if self.left.is_empty() {
                        // Gives the connection and the place at the gate back now, not when the reader returns.
                        self.arriving = None;
                        if let Some((began, bytes)) = self.unbroken.take() {
                            self.store.engine().link.note_body(bytes, began.elapsed());
                        }
                    }
                    return Ok(Some(piece));
                }
                Ok(Some(Err(error))) => self.broken(ErrorKind::Unreachable, Some(error)),
                Ok(None) => self.broken(ErrorKind::Unreachable, None),
                Err(_) => self.broken(ErrorKind::TimedOut, None),
            };
            let broken = broken.map(|error| telling(error, before.take(), deadline))?;
            self.arriving = None;
            self.unbroken = None;
            let wait = self.backoff.next(None);
            if self.backoff.tries() > RESUMES_WITHOUT_PROGRESS_MAX || Instant::now() + wait >= deadline {
                return Err(broken);
            }
            before = Some(broken);
            tracing::debug!(blob = %self.name, at = self.left.start, "a body broke off and is resumed");
            tokio::time::sleep(wait).await;
        }
    }

    /// Asks for the rest, of the same version only.
    async fn reopen(&mut self, deadline: Instant) -> Result<()> {
        let call = ranged(&self.store, &self.name, &self.left)?.condition(&Condition::Match(self.version.clone()));
        let mut limits = self.store.limits;
        limits.names = deadline.saturating_duration_since(Instant::now());
        let reply = self.store.engine().ask(&call, &limits).await?;
        let same_version = response::etag(&reply.headers).is_ok_and(|etag| etag == self.version);
        let same_range = delivered(&reply).is_some_and(|(range, _)| range == self.left);
        match reply.body {
            ReplyBody::Arriving(arriving) if same_version && same_range => {
                self.arriving = Some(arriving);
                Ok(())
            }
            _ => Err(self.store.engine().damaged(&call, "the rest of a broken body does not join up")),
        }
    }

    fn broken(&self, kind: ErrorKind, source: Option<azure_core::Error>) -> Result<Error> {
        let call = ranged(&self.store, &self.name, &self.left)?;
        let bare = self.store.engine().bare(&call, kind);
        let at = self.left.start;
        Ok(Error {
            source: Some(match source {
                Some(source) => Box::new(source),
                None => format!("the body ended or fell silent at byte {at}, before its promised end").into(),
            }),
            ..bare
        })
    }
}
