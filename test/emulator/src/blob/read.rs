//! Get Blob, Get Blob Properties, Get Blob Metadata: headers and shared slices out. Changes nothing.

use std::{collections::VecDeque, ops::Range};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use crc64fast_nvme::Digest;
use hyper::StatusCode;
use md5::{Digest as _, Md5};

use crate::{
    answer::Answer,
    auth::Grant,
    blob::{Blob, Kind, version_headers},
    call::Call,
    conditions::{Conditions, Intent},
    date, dfs,
    error::{Code, ServiceError},
    hierarchy::shown_metadata,
    lease::Target,
    state::State,
};

/// Largest range for which the service computes a checksum (REST page "Get Blob").
const CHECKSUM_RANGE_BYTES_MAX: u64 = 4 << 20;

/// Get Blob and Get Blob Properties.
///
/// # Errors
/// `BlobNotFound`, conditions, `InvalidRange`, `BlobArchived`, lease refusals.
pub(crate) fn get(state: &mut State, call: &Call, head: bool) -> Result<Answer, ServiceError> {
    let (container, _) = state.container(call)?;
    let blob = container.blob(call.blob_name())?;
    Conditions::of(call)?.check(Some(blob.version()), Intent::Read)?;
    blob.lease.check(call, false, Target::Blob)?;
    let length = blob.data.len();
    if head {
        let mut answer = tier(properties(Answer::new(StatusCode::OK), blob, call, true), blob);
        answer.head_length = Some(length);
        return Ok(answer);
    }
    if blob.is_archived() {
        return Err(Code::BlobArchived.into());
    }
    let Some(range) = requested_range(call)? else {
        if wants(call, "x-ms-range-get-content-md5")? || wants(call, "x-ms-range-get-content-crc64")? {
            return Err(ServiceError::missing_header("Range"));
        }
        let mut answer = properties(Answer::new(StatusCode::OK), blob, call, true);
        answer.body = blob.data.slice(0..length);
        return Ok(answer);
    };
    if range.start >= length {
        return Err(ServiceError::from(Code::InvalidRange).header("content-range", format!("bytes */{length}")));
    }
    let range = range.start..range.end.min(length);
    let body = blob.data.slice(range.clone());
    let answer = properties(Answer::new(StatusCode::PARTIAL_CONTENT), blob, call, false)
        .header("content-range", format!("bytes {}-{}/{length}", range.start, range.end - 1));
    let mut answer = range_checksum(answer, call, &range, &body)?;
    answer.body = body;
    Ok(answer)
}

fn wants(call: &Call, name: &'static str) -> Result<bool, ServiceError> {
    Ok(call.header(name)?.is_some_and(|text| text.eq_ignore_ascii_case("true")))
}

fn range_checksum(
    answer: Answer,
    call: &Call,
    range: &Range<u64>,
    body: &VecDeque<Bytes>,
) -> Result<Answer, ServiceError> {
    let md5 = wants(call, "x-ms-range-get-content-md5")?;
    let crc64 = wants(call, "x-ms-range-get-content-crc64")?;
    if md5 && crc64 {
        return Err(ServiceError::bad_header("x-ms-range-get-content-crc64", "true, together with MD5"));
    }
    if (md5 || crc64) && range.end - range.start > CHECKSUM_RANGE_BYTES_MAX {
        return Err(Code::OutOfRangeInput.into());
    }
    if md5 {
        let mut digest = Md5::new();
        body.iter().for_each(|part| digest.update(part));
        return Ok(answer.header("content-md5", STANDARD.encode(digest.finalize())));
    }
    if crc64 {
        let mut digest = Digest::new();
        body.iter().for_each(|part| digest.write(part));
        return Ok(answer.header("x-ms-content-crc64", STANDARD.encode(digest.sum64().to_le_bytes())));
    }
    Ok(answer)
}

/// Get Blob Metadata.
///
/// # Errors
/// `BlobNotFound`, conditions, lease refusals.
pub(crate) fn metadata(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    let (container, _) = state.container(call)?;
    let blob = container.blob(call.blob_name())?;
    Conditions::of(call)?.check(Some(blob.version()), Intent::Read)?;
    blob.lease.check(call, false, Target::Blob)?;
    Ok(metadata_headers(version_headers(Answer::new(StatusCode::OK), blob), blob))
}

fn metadata_headers(answer: Answer, blob: &Blob) -> Answer {
    let shown = shown_metadata(blob);
    shown.iter().fold(answer, |answer, (name, value)| answer.header(&format!("x-ms-meta-{name}"), value))
}

/// Everything that GET and HEAD tell about a blob. `whole`: the body is the whole blob, so its MD5 is Content-MD5.
fn properties(answer: Answer, blob: &Blob, call: &Call, whole: bool) -> Answer {
    let overridden = |name: &str, own: &Option<String>| {
        let from_sas = match &call.grant {
            Grant::Sas { overrides, .. } => overrides.iter().find(|(header, _)| *header == name),
            _ => None,
        };
        from_sas.map(|(_, value)| value.clone()).or_else(|| own.clone())
    };
    let headers = &blob.headers;
    let default_type = || "application/octet-stream".to_owned();
    let (status, state, duration) = blob.lease.facts(call.now);
    let md5_header = if whole { "content-md5" } else { "x-ms-blob-content-md5" };
    let mut answer = version_headers(answer, blob)
        .header("content-type", overridden("content-type", &headers.content_type).unwrap_or_else(default_type))
        .optional("content-encoding", overridden("content-encoding", &headers.encoding))
        .optional("content-language", overridden("content-language", &headers.language))
        .optional("content-disposition", overridden("content-disposition", &headers.disposition))
        .optional("cache-control", overridden("cache-control", &headers.cache_control))
        .optional(md5_header, headers.md5.map(|md5| STANDARD.encode(md5)))
        .header("accept-ranges", "bytes")
        .header("x-ms-blob-type", blob.kind.name())
        .header("x-ms-creation-time", date::http(blob.created))
        .header("x-ms-lease-status", status)
        .header("x-ms-lease-state", state)
        .optional("x-ms-lease-duration", duration)
        .header("x-ms-server-encrypted", "true")
        .optional("x-ms-tag-count", (!blob.tags.is_empty()).then(|| blob.tags.len().to_string()));
    answer = match &blob.kind {
        Kind::Block(_) => answer,
        Kind::Append(count) => answer.header("x-ms-blob-committed-block-count", count.to_string()),
        Kind::Page(sequence, _) => answer.header("x-ms-blob-sequence-number", sequence.to_string()),
    };
    if let Some(copy) = &blob.copy {
        answer = copy.facts().into_iter().fold(answer, |answer, (name, _, value)| answer.header(name, value));
    }
    if let Some(node) = &blob.node {
        let sort = if node.directory { "directory" } else { "file" };
        answer = dfs::access::headers(answer.header("x-ms-resource-type", sort), &node.access);
    }
    metadata_headers(answer, blob)
}

/// What HEAD tells about the tier. The documents list these headers for Get Blob Properties only.
fn tier(answer: Answer, blob: &Blob) -> Answer {
    if !matches!(blob.kind, Kind::Block(_)) {
        return answer;
    }
    answer
        .header("x-ms-access-tier", blob.tier.as_deref().unwrap_or("Hot"))
        .optional("x-ms-access-tier-inferred", blob.tier.is_none().then_some("true"))
        .optional("x-ms-access-tier-change-time", blob.tier_changed.map(date::http))
}

/// The range of x-ms-range, or else of Range. The end is `u64::MAX` for an open one.
///
/// # Errors
/// `InvalidHeaderValue` for another form than `bytes=first-[last]`.
pub(crate) fn requested_range(call: &Call) -> Result<Option<Range<u64>>, ServiceError> {
    let (name, text) = match call.header("x-ms-range")? {
        Some(text) => ("x-ms-range", Some(text)),
        None => ("range", call.header("range")?),
    };
    let Some(text) = text else { return Ok(None) };
    parse_range(text).map(Some).ok_or_else(|| ServiceError::bad_header(name, text))
}

/// Reads `bytes=first-[last]`.
pub(crate) fn parse_range(text: &str) -> Option<Range<u64>> {
    let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    let first = first.trim().parse::<u64>().ok()?;
    let end = match last.trim() {
        "" => u64::MAX,
        last => last.parse::<u64>().ok()?.checked_add(1)?,
    };
    (first < end).then_some(first..end)
}
