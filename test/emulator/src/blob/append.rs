//! Append blobs: creation and Append Block. Must not know block lists or pages.

use hyper::StatusCode;

use crate::{
    answer::Answer,
    blob::{Kind, NewBlob, check_write, checksum_headers, replace, version_headers},
    call::{Call, Payload},
    conditions::Intent,
    data::Data,
    error::{Code, ServiceError},
    state::State,
};

/// Blocks of one append blob (REST page "Append Block").
const APPENDED_BLOCKS_MAX: u64 = 50_000;
/// Largest appended block (REST page "Append Block", version 2022-11-02 and later).
const APPENDED_BYTES_MAX: u64 = 100 << 20;

/// Put Blob with x-ms-blob-type AppendBlob: empty.
///
/// # Errors
/// `InvalidHeaderValue` for a body, and those of every write.
pub(crate) fn create(state: &mut State, call: &Call, payload: &Payload) -> Result<Answer, ServiceError> {
    if payload.data.len() > 0 {
        return Err(ServiceError::bad_header("Content-Length", &payload.data.len().to_string()));
    }
    let (container, stamps) = state.container(call)?;
    check_write(container, call, Intent::Create)?;
    let new = NewBlob::of(call, Kind::Append(0), Data::default(), true)?;
    Ok(replace(container, stamps, call, new))
}

/// Append Block.
///
/// # Errors
/// `AppendPositionConditionNotMet`, `MaxBlobSizeConditionNotMet`, `BlockCountExceedsLimit`, and those of every write.
pub(crate) fn append_block(state: &mut State, call: &Call, payload: &Payload) -> Result<Answer, ServiceError> {
    let added = payload.data.len();
    if added == 0 {
        return Err(ServiceError::bad_header("Content-Length", "0"));
    }
    if added > APPENDED_BYTES_MAX {
        return Err(Code::RequestBodyTooLarge.into());
    }
    let (container, stamps) = state.container(call)?;
    check_write(container, call, Intent::Change)?;
    let blob = container.blob_mut(call.blob_name())?;
    let Kind::Append(count) = &mut blob.kind else { return Err(Code::InvalidBlobType.into()) };
    let offset = blob.data.len();
    if call.number_header("x-ms-blob-condition-appendpos")?.is_some_and(|position| position != offset) {
        return Err(Code::AppendPositionConditionNotMet.into());
    }
    if call.number_header("x-ms-blob-condition-maxsize")?.is_some_and(|limit| offset + added > limit) {
        return Err(Code::MaxBlobSizeConditionNotMet.into());
    }
    if *count >= APPENDED_BLOCKS_MAX {
        return Err(Code::BlockCountExceedsLimit.into());
    }
    *count += 1;
    let count = *count;
    blob.data.append(&payload.data);
    blob.headers.md5 = None;
    blob.touch(stamps, call.now);
    let answer = version_headers(Answer::new(StatusCode::CREATED), blob)
        .header("x-ms-blob-append-offset", offset.to_string())
        .header("x-ms-blob-committed-block-count", count.to_string())
        .header("x-ms-request-server-encrypted", "true");
    Ok(checksum_headers(answer, payload))
}
