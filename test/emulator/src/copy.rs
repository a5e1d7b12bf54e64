//! Copies inside the service: Copy Blob, Copy Blob From URL, Put Blob From URL, Put Block From URL, Abort Copy.
//! Must not know how a source's bytes got there.
//!
//! 1. The source of a *From URL* operation must carry its own authorisation: a SAS in the URL, a public container, or
//!    x-ms-copy-source-authorization. The account's key, or a token, on the request itself counts for Copy Blob within the
//!    account only (Azure/azure-sdk-for-net issue 32028, Azure/azure-sdk-for-python issue 36176).
//! 2. A copy may be left pending by a knob. Until it is done the destination is empty and refuses changes.
//! 3. The source is read once: its version is that of the moment when its conditions were judged.

use std::sync::Arc;

use hyper::{HeaderMap, Method, StatusCode, Uri, header::HeaderValue};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    answer::Answer,
    auth::{self, Grant},
    blob::{Blob, ContentHeaders, Kind, NewBlob, block, check_write, read::parse_range, replace, tier_of},
    call::{Call, Payload, Resource},
    conditions::{Conditions, Intent},
    data::Data,
    date,
    error::{Code, ServiceError},
    hierarchy::normal_name,
    operation::Operation,
    query::Query,
    settings::Settings,
    state::{Stamps, State},
};

/// Largest source of a synchronous copy (REST page "Copy Blob From URL").
const SYNCHRONOUS_BYTES_MAX: u64 = 256 << 20;

/// The last copy onto a blob.
#[derive(Clone)]
pub(crate) struct CopyState {
    pub(crate) id: String,
    source: String,
    status: CopyStatus,
    /// Bytes of the source.
    total: u64,
    completed: Option<OffsetDateTime>,
}

/// Where a copy is in its life: pending, then exactly one of the others.
#[derive(Clone)]
enum CopyStatus {
    /// Done at the given time, or never by itself. Holds what the destination will be.
    Pending(Option<OffsetDateTime>, Box<(Data, Kind)>),
    Success,
    Aborted,
}

impl CopyState {
    /// Whether it is under way.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self.status, CopyStatus::Pending(..))
    }

    fn status_name(&self) -> &'static str {
        match self.status {
            CopyStatus::Pending(..) => "pending",
            CopyStatus::Success => "success",
            CopyStatus::Aborted => "aborted",
        }
    }

    /// Facts as header name, element name of listings, and value.
    pub(crate) fn facts(&self) -> Vec<(&'static str, &'static str, String)> {
        let done = match self.status {
            CopyStatus::Success => self.total,
            CopyStatus::Pending(..) | CopyStatus::Aborted => 0,
        };
        let mut facts = vec![
            ("x-ms-copy-id", "CopyId", self.id.clone()),
            ("x-ms-copy-source", "CopySource", self.source.clone()),
            ("x-ms-copy-status", "CopyStatus", self.status_name().to_owned()),
            ("x-ms-copy-progress", "CopyProgress", format!("{done}/{}", self.total)),
        ];
        if let Some(at) = self.completed {
            facts.push(("x-ms-copy-completion-time", "CopyCompletionTime", date::http(at)));
        }
        facts
    }
}

/// Completes a pending copy whose time has come. Returns whether one is still pending.
pub(crate) fn settle(blob: &mut Blob, stamps: &mut Stamps, now: OffsetDateTime) -> bool {
    let Some(CopyState { status: CopyStatus::Pending(due, _), .. }) = &blob.copy else { return false };
    if due.is_none_or(|due| now < due) {
        return true;
    }
    if let Some(copy) = &mut blob.copy
        && let CopyStatus::Pending(_, made) = std::mem::replace(&mut copy.status, CopyStatus::Success)
    {
        copy.completed = Some(now);
        (blob.data, blob.kind) = *made;
    }
    blob.touch(stamps, now);
    false
}

/// What a source URL names, and the blob behind it.
struct Source {
    url: String,
    blob: Blob,
}

/// Finds the source of a request and judges its authorisation and conditions.
///
/// # Errors
/// `CannotVerifyCopySource` with 401, 403 or 404; `SourceConditionNotMet`; `BlobArchived`.
fn source(state: &mut State, settings: &Settings, call: &Call, key_counts: bool) -> Result<Source, ServiceError> {
    let url = call.required_header("x-ms-copy-source")?;
    let mut read = source_call(call, url)?;
    let same_account = read.resource.account == call.resource.account;
    let own = call.headers.get("authorization").filter(|value| value.as_bytes().starts_with(b"Bearer "));
    if let Some(own) = own.filter(|_| key_counts && same_account) {
        read.headers.insert("authorization", HeaderValue::clone(own));
    }
    if !(key_counts && same_account && matches!(call.grant, Grant::Owner)) {
        auth::authorize(state, settings, &read).map_err(|error| unverified(&error))?;
    }
    let (container, _) = state.container(&read).map_err(|error| unverified(&error))?;
    let blob = container.blob(read.blob_name()).map_err(|error| unverified(&error))?;
    Conditions::of_source(call)?.check(Some(blob.version()), Intent::Source)?;
    if blob.is_archived() {
        return Err(Code::BlobArchived.into());
    }
    let url = url.split('?').next().unwrap_or_default().to_owned();
    Ok(Source { url, blob: blob.clone() })
}

/// The refusal of a source keeps the status that reading it would have had.
fn unverified(error: &ServiceError) -> ServiceError {
    ServiceError::from(Code::CannotVerifyCopySource)
        .with_status(error.status)
        .detail("CopySourceStatusCode", error.status.as_u16().to_string())
        .detail("CopySourceErrorCode", error.code.to_string())
        .detail("CopySourceErrorMessage", error.message.to_string())
}

/// The GET that the service would send to the source.
fn source_call(call: &Call, url: &str) -> Result<Call, ServiceError> {
    let bad = || ServiceError::bad_header("x-ms-copy-source", url);
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let authority = uri.authority().ok_or_else(bad)?.as_str();
    let own_first = call.host.split('.').next().unwrap_or_default();
    let own_rest = call.host.strip_prefix(own_first).unwrap_or_default();
    let account = if !call.host_style {
        if authority != call.host {
            return Err(unverified(&Code::ResourceNotFound.into()));
        }
        None
    } else {
        // The other account of a host-style source differs in the first label only.
        let (first, rest) = authority.split_at(authority.find('.').unwrap_or(authority.len()));
        if rest != own_rest {
            return Err(unverified(&Code::ResourceNotFound.into()));
        }
        Some(first)
    };
    let mut resource = Resource::parse(uri.path(), account).map_err(|error| unverified(&error))?;
    if call.hierarchical {
        resource.blob = resource.blob.as_deref().map(normal_name).transpose().map_err(|error| unverified(&error))?;
    }
    if resource.blob.is_none() {
        return Err(bad());
    }
    let mut headers = HeaderMap::new();
    for (name, from) in [("x-ms-version", "x-ms-version"), ("authorization", "x-ms-copy-source-authorization")] {
        if let Some(value) = call.headers.get(from) {
            headers.insert(name, HeaderValue::clone(value));
        }
    }
    Ok(Call {
        operation: Operation::GetBlob,
        method: Method::GET,
        resource,
        raw_path: uri.path().to_owned(),
        query: Query::parse(uri.query().unwrap_or_default()),
        headers,
        host: authority.to_owned(),
        host_style: call.host_style,
        peer: call.peer,
        now: call.now,
        request_id: Arc::clone(&call.request_id),
        hierarchical: call.hierarchical,
        secure: call.secure,
        grant: Grant::Denied,
    })
}

/// Copy Blob, and Copy Blob From URL (`synchronous`). `pending`: how long a knob leaves it pending.
///
/// # Errors
/// Those of [`source`] and of every write.
pub(crate) fn copy_blob(
    state: &mut State,
    settings: &Settings,
    call: &Call,
    synchronous: bool,
    pending: Option<Option<std::time::Duration>>,
) -> Result<Answer, ServiceError> {
    {
        let (container, _) = state.container(call)?;
        check_write(container, call, Intent::Create)?;
    }
    let source = source(state, settings, call, !synchronous)?;
    let total = source.blob.data.len();
    if synchronous && total > SYNCHRONOUS_BYTES_MAX {
        return Err(Code::CannotVerifyCopySource.into());
    }
    let own = call.metadata()?;
    let metadata = if own.is_empty() { source.blob.metadata.clone() } else { own };
    let (container, stamps) = state.container(call)?;
    let mut new = NewBlob {
        kind: source.blob.kind.clone(),
        data: source.blob.data.clone(),
        headers: source.blob.headers.clone(),
        metadata,
        tier: tier_of(call)?,
        tags: crate::blob::properties::tags_of(call)?,
    };
    let mut status = CopyStatus::Success;
    if let Some(after) = pending.filter(|_| !synchronous) {
        let made = (std::mem::take(&mut new.data), std::mem::replace(&mut new.kind, Kind::Block(Vec::new())));
        status = CopyStatus::Pending(after.map(|after| call.now + after), Box::new(made));
        container.copies_pending = true;
    }
    let completed = matches!(status, CopyStatus::Success).then_some(call.now);
    let copy = CopyState { id: Uuid::new_v4().to_string(), source: source.url, status, total, completed };
    let mut answer = replace(container, stamps, call, new);
    answer.status = StatusCode::ACCEPTED;
    answer = answer.header("x-ms-copy-id", copy.id.clone()).header("x-ms-copy-status", copy.status_name());
    container.blob_mut(call.blob_name())?.copy = Some(copy);
    Ok(answer)
}

/// Put Blob From URL: a new block blob of the source's bytes, as one Put Blob.
///
/// # Errors
/// Those of [`source`] and of every write.
pub(crate) fn put_blob_from_url(state: &mut State, settings: &Settings, call: &Call) -> Result<Answer, ServiceError> {
    if call.required_header("x-ms-blob-type")? != "BlockBlob" {
        return Err(ServiceError::bad_header("x-ms-blob-type", "only BlockBlob has a source URL"));
    }
    {
        let (container, _) = state.container(call)?;
        check_write(container, call, Intent::Create)?;
    }
    let source = source(state, settings, call, false)?;
    let mut new = NewBlob::of(call, Kind::Block(Vec::new()), source.blob.data.clone(), false)?;
    if call.header("x-ms-copy-source-blob-properties")? != Some("false") && new.headers == ContentHeaders::default() {
        new.headers = source.blob.headers.clone();
    }
    new.headers.md5 = source.blob.headers.md5;
    let (container, stamps) = state.container(call)?;
    Ok(replace(container, stamps, call, new))
}

/// Put Block From URL.
///
/// # Errors
/// Those of [`source`] and of Put Block; `InvalidRange` for a source range behind the end.
pub(crate) fn put_block_from_url(state: &mut State, settings: &Settings, call: &Call) -> Result<Answer, ServiceError> {
    let source = source(state, settings, call, false)?;
    let length = source.blob.data.len();
    let range = match call.header("x-ms-source-range")? {
        None => 0..length,
        Some(text) => {
            let range = parse_range(text).ok_or_else(|| ServiceError::bad_header("x-ms-source-range", text))?;
            if range.start >= length {
                return Err(Code::InvalidRange.into());
            }
            range.start..range.end.min(length)
        }
    };
    let payload = Payload::of(source.blob.data.sub(range), call.header("x-ms-source-content-md5")?.is_some());
    if let Some(text) = call.header("x-ms-source-content-md5")?
        && Some(crate::blob::parse_md5(text)?) != payload.md5
    {
        return Err(Code::Md5Mismatch.into());
    }
    block::put_block(state, call, &payload)
}

/// Abort Copy Blob: leaves the destination empty.
///
/// # Errors
/// `NoPendingCopyOperation`, `InvalidHeaderValue`.
pub(crate) fn abort(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    match call.required_header("x-ms-copy-action")? {
        "abort" => {}
        other => return Err(ServiceError::bad_header("x-ms-copy-action", other)),
    }
    let id = call.query.required("copyid")?;
    let (container, stamps) = state.container(call)?;
    let blob = container.blob_mut(call.blob_name())?;
    let Some(copy) = blob.copy.as_mut().filter(|copy| copy.is_pending() && copy.id == id) else {
        return Err(Code::NoPendingCopyOperation.into());
    };
    copy.status = CopyStatus::Aborted;
    copy.completed = Some(call.now);
    blob.touch(stamps, call.now);
    Ok(Answer::new(StatusCode::NO_CONTENT))
}
