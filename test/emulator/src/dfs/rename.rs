//! Path - Create with x-ms-rename-source: a file or directory gets another name, with everything below it, at once.
//!
//! What the documents leave open, and what is done here:
//! - ETag and Last-Modified of what moved stay, as far as is known (Hadoop's ABFS client relies on it to recognise its own
//!   rename after a lost answer); the knob `rename_changes_etag` shows the other way. The answer names neither.
//! - A directory replaces an empty directory, and nothing else; a file replaces a file.

use hyper::{Method, StatusCode, header::HeaderValue};

use crate::{
    answer::Answer,
    auth::{self, Grant},
    blob::Blob,
    call::{Call, Resource},
    conditions::{Conditions, Intent},
    date, dfs,
    error::{Code, ServiceError},
    hierarchy::{normal_name, parent},
    lease::Lease,
    operation::Operation,
    query::Query,
    settings::Settings,
    state::{Container, State},
};

/// Path - Create, rename.
///
/// # Errors
/// `SourcePathNotFound`, `RenameDestinationParentPathNotFound`, `InvalidRenameSourcePath`, `PathAlreadyExists`,
/// `InvalidSourceOrDestinationResourceType`, conditions of both sides, the lease of the source.
pub(crate) fn rename(state: &mut State, settings: &Settings, call: &Call) -> Result<Answer, ServiceError> {
    dfs::check_account(call)?;
    let source = source_call(call)?;
    if matches!(call.grant, Grant::Sas { .. }) {
        // A SAS on the request speaks for the destination alone.
        auth::authorize(state, settings, &source)?;
    }
    let (from, to) = (source.blob_name(), call.blob_name());
    let (container, stamps) = state.container(call)?;
    check_source(container.blobs.get(from), call)?;
    check_destination(container, call, from)?;
    if from == to {
        return Ok(Answer::new(StatusCode::CREATED));
    }
    let below = format!("{from}/");
    let names = container.blobs.range(below.clone()..).map(|(name, _)| name.clone());
    let mut moving: Vec<String> = names.take_while(|name| name.starts_with(&below)).collect();
    moving.push(from.to_owned());
    container.blobs.remove(to);
    for name in moving {
        let Some(mut blob) = container.blobs.remove(&name) else { continue };
        container.staged.remove(&name);
        if settings.rename_changes_etag {
            (blob.etag, blob.modified) = (stamps.etag(), date::whole_seconds(call.now));
        }
        if name == from {
            blob.lease = Lease::default();
        }
        container.blobs.insert(format!("{to}{}", &name[from.len()..]), blob);
    }
    container.staged.remove(to);
    Ok(Answer::new(StatusCode::CREATED))
}

/// The request for the source, so that it is authorised as one: `/container/path` percent-encoded, with its SAS.
fn source_call(call: &Call) -> Result<Call, ServiceError> {
    let text = call.required_header("x-ms-rename-source")?;
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let mut resource = Resource::parse(path, Some(&call.resource.account))?;
    let named = resource.container.as_deref() == Some(call.container_name());
    let Some(blob) = resource.blob.take().filter(|_| named) else {
        return Err(ServiceError::bad_header("x-ms-rename-source", path));
    };
    resource.blob = Some(normal_name(&blob)?);
    let mut source = Call {
        operation: Operation::DeletePath,
        method: Method::DELETE,
        resource,
        raw_path: path.to_owned(),
        query: Query::parse(query),
        grant: Grant::Denied,
        ..call.clone()
    };
    source.headers = [("x-ms-version", call.version())]
        .into_iter()
        .filter_map(|(name, value)| Some((name.parse().ok()?, HeaderValue::from_str(value).ok()?)))
        .collect();
    Ok(source)
}

fn check_source(source: Option<&Blob>, call: &Call) -> Result<(), ServiceError> {
    let Some(source) = source else { return Err(Code::SourcePathNotFound.into()) };
    Conditions::of_source(call)?.check(Some(source.version()), Intent::Source)?;
    let given = call.header("x-ms-source-lease-id")?;
    if source.lease.is_active(call.now) && given.is_none() {
        return Err(Code::LeaseIdMissing.into());
    }
    Ok(())
}

fn check_destination(container: &Container, call: &Call, from: &str) -> Result<(), ServiceError> {
    let to = call.blob_name();
    if to.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
        return Err(Code::InvalidRenameSourcePath.into());
    }
    let parent_is =
        |test: fn(&Blob) -> bool| parent(to).is_some_and(|above| container.blobs.get(above).is_some_and(test));
    if parent(to).is_some() && !parent_is(Blob::is_directory) {
        let through_file = parent_is(|blob| !blob.is_directory());
        let code = if through_file { Code::InvalidDestinationPath } else { Code::RenameDestinationParentPathNotFound };
        return Err(code.into());
    }
    let existing = container.blobs.get(to);
    let outcome = Conditions::of(call)?.check(existing.map(Blob::version), Intent::Create);
    outcome.map_err(|error| if error.code == "BlobAlreadyExists" { Code::PathAlreadyExists.into() } else { error })?;
    let Some(existing) = existing.filter(|_| from != to) else { return Ok(()) };
    let of_directory = container.blobs.get(from).is_some_and(Blob::is_directory);
    if existing.is_directory() != of_directory {
        return Err(Code::InvalidSourceOrDestinationResourceType.into());
    }
    if of_directory && container.has_below(to) {
        return Err(Code::PathAlreadyExists.into());
    }
    Ok(())
}
