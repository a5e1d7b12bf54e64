//! Path - Create: a file or a directory, with its missing parents, its mode and its properties.

use hyper::StatusCode;

use crate::{
    access::parse_mode,
    answer::Answer,
    blob::{Blob, version_headers},
    call::{Call, Metadata},
    conditions::{Conditions, Intent},
    dfs,
    error::{Code, ServiceError},
    hierarchy::{Node, new_directory},
    lease::Target,
    state::State,
};

/// Path - Create.
///
/// # Errors
/// `PathAlreadyExists` under If-None-Match: `*`, and for a directory over a file or the other way; `InvalidDestinationPath`
/// below a file; conditions and leases.
pub(crate) fn create(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    dfs::check_account(call)?;
    let directory = match call.query.required("resource")? {
        "directory" => true,
        "file" => false,
        other => return Err(ServiceError::bad_query("resource", other)),
    };
    let mode = |name| call.header(name)?.map(|text| parse_mode(name, text)).transpose();
    let (permissions, umask) = (mode("x-ms-permissions")?, mode("x-ms-umask")?);
    let metadata = dfs::read_properties(call)?.unwrap_or_default();
    let (container, stamps) = state.container(call)?;
    let name = call.blob_name();
    let existing = container.blobs.get(name);
    check(existing, call, directory)?;
    if container.leads_through_file(name) {
        return Err(Code::InvalidDestinationPath.into());
    }
    let answer = Answer::new(StatusCode::CREATED).header("x-ms-request-server-encrypted", "true");
    if directory && existing.is_some() {
        // Making a directory that is there changes its properties and nothing below it.
        return Ok(version_headers(answer, renew(container.blob_mut(name)?, stamps, call, metadata)));
    }
    container.make_parents(stamps, call.now, name);
    let access = container.access_of_new(name, directory, permissions, umask);
    let mut made = new_directory(stamps, call.now, access.clone(), metadata);
    made.node = Some(Node { directory, access, data_lake: true });
    let answer = version_headers(answer, &made);
    container.staged.remove(name);
    container.blobs.insert(name.to_owned(), made);
    Ok(answer)
}

fn renew<'a>(blob: &'a mut Blob, stamps: &mut crate::state::Stamps, call: &Call, metadata: Metadata) -> &'a Blob {
    blob.metadata = metadata;
    blob.touch(stamps, call.now);
    blob
}

fn check(existing: Option<&Blob>, call: &Call, directory: bool) -> Result<(), ServiceError> {
    let outcome = Conditions::of(call)?.check(existing.map(Blob::version), Intent::Create);
    outcome.map_err(|error| if error.code == "BlobAlreadyExists" { Code::PathAlreadyExists.into() } else { error })?;
    let Some(blob) = existing else { return Ok(()) };
    if blob.is_directory() != directory {
        return Err(Code::PathAlreadyExists.into());
    }
    blob.lease.check(call, true, Target::Blob)
}
