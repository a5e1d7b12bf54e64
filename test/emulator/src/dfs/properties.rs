//! Path - Get Properties, and Path - Update with `action=setProperties`.

use hyper::StatusCode;

use crate::{
    answer::Answer,
    blob::version_headers,
    call::Call,
    conditions::{Conditions, Intent},
    dfs,
    error::ServiceError,
    lease::Target,
    state::State,
};

/// Get properties; with `action=getStatus`, without those that users define.
///
/// # Errors
/// `PathNotFound`, conditions.
pub(crate) fn get(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    let (container, _) = state.container(call)?;
    dfs::check_exists(container, call)?;
    let blob = container.blob(call.blob_name())?;
    Conditions::of(call)?.check(Some(blob.version()), Intent::Read)?;
    let (status, phase, duration) = blob.lease.facts(call.now);
    let status_only = call.query.get("action").is_some();
    let mut answer = version_headers(Answer::new(StatusCode::OK), blob)
        .header("accept-ranges", "bytes")
        .header("content-type", blob.headers.content_type.as_deref().unwrap_or("application/octet-stream"))
        .header("x-ms-resource-type", if blob.is_directory() { "directory" } else { "file" })
        .header("x-ms-lease-status", status)
        .header("x-ms-lease-state", phase)
        .optional("x-ms-lease-duration", duration)
        .optional("x-ms-properties", (!status_only).then(|| dfs::write_properties(&blob.metadata)));
    if let Some(node) = &blob.node {
        answer = dfs::access::headers(answer, &node.access);
    }
    answer.head_length = Some(blob.data.len());
    Ok(answer)
}

/// Set properties: replaces those that users define.
///
/// # Errors
/// `PathNotFound`, `MissingRequiredHeader`, conditions, leases.
pub(crate) fn set(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    let metadata = dfs::read_properties(call)?.ok_or_else(|| ServiceError::missing_header("x-ms-properties"))?;
    let (container, stamps) = state.container(call)?;
    dfs::check_exists(container, call)?;
    let blob = container.blob_mut(call.blob_name())?;
    Conditions::of(call)?.check(Some(blob.version()), Intent::Change)?;
    blob.lease.check(call, true, Target::Blob)?;
    blob.metadata = metadata;
    blob.touch(stamps, call.now);
    Ok(version_headers(Answer::new(StatusCode::OK), blob))
}
