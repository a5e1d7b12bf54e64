//! Path - Delete: a file, or a directory with or without what is below it.

use hyper::StatusCode;

use crate::{
    answer::Answer,
    blob::Blob,
    call::Call,
    conditions::{Conditions, Intent},
    dfs,
    error::{Code, ServiceError},
    lease::Target,
    settings::Settings,
    state::State,
};

/// Path - Delete.
///
/// # Errors
/// `PathNotFound`, `DirectoryNotEmpty`, `MissingRequiredQueryParameter` (`recursive`, for a directory), conditions, leases.
pub(crate) fn delete(state: &mut State, settings: &Settings, call: &Call) -> Result<Answer, ServiceError> {
    dfs::check_account(call)?;
    let (container, _) = state.container(call)?;
    dfs::check_exists(container, call)?;
    let name = call.blob_name();
    let blob = container.blob(name)?;
    Conditions::of(call)?.check(Some(blob.version()), Intent::Change)?;
    blob.lease.check(call, true, Target::Blob)?;
    let below = format!("{name}/");
    let count = container.blobs.range(below.clone()..).take_while(|(name, _)| name.starts_with(&below)).count();
    if blob.is_directory() {
        let recursive = call.query.required("recursive")? == "true";
        if !recursive && count > 0 {
            return Err(Code::DirectoryNotEmpty.into());
        }
        if let Some(token) = next_page(settings, call, count)? {
            return Ok(Answer::new(StatusCode::OK).header("x-ms-continuation", token));
        }
        check_leases(container.blobs.range(below.clone()..).take_while(|(name, _)| name.starts_with(&below)), call)?;
    }
    container.blobs.retain(|other, _| other != name && !other.starts_with(&below));
    container.staged.retain(|other, _| other != name && !other.starts_with(&below));
    Ok(Answer::new(StatusCode::OK).header("x-ms-delete-type-permanent", "true"))
}

/// With `paginated=true`, each request looks at a number of paths only, and the last one deletes them all.
fn next_page(settings: &Settings, call: &Call, count: usize) -> Result<Option<String>, ServiceError> {
    let paths = settings.delete_paths_max.filter(|_| call.query.get("paginated") == Some("true"));
    let Some(paths) = paths else { return Ok(None) };
    let seen = match call.query.get("continuation").filter(|token| !token.is_empty()) {
        None => 0,
        Some(token) => token.parse::<usize>().map_err(|_| ServiceError::bad_query("continuation", token))?,
    };
    let seen = seen + paths;
    Ok((seen < count).then(|| seen.to_string()))
}

fn check_leases<'a>(below: impl Iterator<Item = (&'a String, &'a Blob)>, call: &Call) -> Result<(), ServiceError> {
    let leased = below.into_iter().any(|(_, blob)| blob.lease.is_active(call.now));
    if leased { Err(Code::LeaseIdMissing.into()) } else { Ok(()) }
}
