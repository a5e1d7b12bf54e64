//! Path - Get Properties with `action=getAccessControl`, and Path - Update with `action=setAccessControl`. Without a path
//! both are about the root: how a client finds out whether an account is hierarchical.

use hyper::StatusCode;

use crate::{
    access::{Access, parse_mode},
    answer::Answer,
    blob::{Blob, version_headers},
    call::Call,
    conditions::{Conditions, Intent},
    date, dfs,
    error::{Code, ServiceError},
    lease::Target,
    state::State,
};

/// Get access control.
///
/// # Errors
/// `PathNotFound`, conditions; 400 on a flat account.
pub(crate) fn get(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    dfs::check_account(call)?;
    let (container, _) = state.container(call)?;
    let answer = Answer::new(StatusCode::OK);
    if call.resource.blob.is_none() {
        let access = container.root_access.clone().unwrap_or_else(Access::root);
        let modified = container.modified.map(date::http);
        let answer = answer.header("etag", container.etag.clone()).optional("last-modified", modified);
        return Ok(headers(answer, &access));
    }
    dfs::check_exists(container, call)?;
    let blob = container.blob(call.blob_name())?;
    Conditions::of(call)?.check(Some(blob.version()), Intent::Read)?;
    let answer = version_headers(answer, blob);
    Ok(match &blob.node {
        Some(node) => headers(answer, &node.access),
        None => answer,
    })
}

/// Owner, group, permissions and list, as every answer tells them.
pub(crate) fn headers(answer: Answer, access: &Access) -> Answer {
    answer
        .header("x-ms-owner", access.owner.clone())
        .header("x-ms-group", access.group.clone())
        .header("x-ms-permissions", access.permissions())
        .header("x-ms-acl", access.acl())
}

/// Set access control.
///
/// # Errors
/// `PathNotFound`; `InvalidHeaderValue`, also for permissions and a list at once; conditions, leases.
pub(crate) fn set(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    dfs::check_account(call)?;
    let (container, stamps) = state.container(call)?;
    if call.resource.blob.is_none() {
        let mut access = container.root_access.clone().unwrap_or_else(Access::root);
        change(&mut access, call)?;
        container.root_access = Some(access);
        return Ok(Answer::new(StatusCode::OK));
    }
    dfs::check_exists(container, call)?;
    let blob = container.blob_mut(call.blob_name())?;
    Conditions::of(call)?.check(Some(blob.version()), Intent::Change)?;
    blob.lease.check(call, true, Target::Blob)?;
    set_on(blob, call)?;
    // ABFS changes lists under If-Match, which would protect nothing if the ETag stayed.
    blob.touch(stamps, call.now);
    Ok(version_headers(Answer::new(StatusCode::OK), blob))
}

fn set_on(blob: &mut Blob, call: &Call) -> Result<(), ServiceError> {
    match &mut blob.node {
        Some(node) => change(&mut node.access, call),
        None => Err(Code::InvalidInput.into()),
    }
}

fn change(access: &mut Access, call: &Call) -> Result<(), ServiceError> {
    let (permissions, acl) = (call.header("x-ms-permissions")?, call.header("x-ms-acl")?);
    match (permissions, acl) {
        (Some(_), Some(acl)) => return Err(ServiceError::bad_header("x-ms-acl", acl)),
        (Some(mode), None) => access.set_mode(parse_mode("x-ms-permissions", mode)?),
        (None, Some(acl)) => access.set_acl(acl)?,
        (None, None) => {}
    }
    if let Some(owner) = call.header("x-ms-owner")? {
        owner.clone_into(&mut access.owner);
    }
    if let Some(group) = call.header("x-ms-group")? {
        group.clone_into(&mut access.group);
    }
    Ok(())
}
