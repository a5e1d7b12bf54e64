//! Containers and the account: create, delete, properties, metadata, access, leases, the list of containers.
//! Must not know blobs, but for deleting them with their container.

use hyper::StatusCode;

use crate::{
    answer::Answer,
    call::{Call, Payload},
    conditions::{Conditions, Intent},
    date,
    error::{Code, ServiceError},
    lease::Target,
    settings::Settings,
    state::{AccessPolicy, Container, PublicAccess, State},
    xml,
};

/// Stored access policies of one container (REST page "Set Container ACL").
const POLICIES_MAX: usize = 5;

fn access_of(call: &Call, settings: &Settings) -> Result<PublicAccess, ServiceError> {
    let access = match call.header("x-ms-blob-public-access")? {
        None => PublicAccess::None,
        Some("blob") => PublicAccess::Blob,
        Some("container") => PublicAccess::Container,
        Some(other) => return Err(ServiceError::bad_header("x-ms-blob-public-access", other)),
    };
    if access != PublicAccess::None && !settings.public_access {
        return Err(Code::PublicAccessNotPermitted.into());
    }
    Ok(access)
}

/// Create Container.
///
/// # Errors
/// `ContainerAlreadyExists`, `ContainerBeingDeleted`.
pub(crate) fn create(state: &mut State, settings: &Settings, call: &Call) -> Result<Answer, ServiceError> {
    let public = access_of(call, settings)?;
    let metadata = call.metadata()?;
    let (etag, modified) = state.stamps.change(call.now);
    let account = state.account(call)?;
    account.deleting.retain(|_, until| *until > call.now);
    let name = call.container_name();
    if account.deleting.contains_key(name) {
        return Err(Code::ContainerBeingDeleted.into());
    }
    if account.containers.contains_key(name) {
        return Err(Code::ContainerAlreadyExists.into());
    }
    let container = Container { metadata, etag, modified: Some(modified), public, ..Container::default() };
    let answer = version(Answer::new(StatusCode::CREATED), &container);
    account.containers.insert(name.to_owned(), container);
    Ok(answer)
}

fn version(answer: Answer, container: &Container) -> Answer {
    answer.header("etag", container.etag.clone()).optional("last-modified", container.modified.map(date::http))
}

/// Only the time conditions apply to containers; a container has no ETag condition (REST page "Delete Container").
fn check(container: &Container, call: &Call) -> Result<(), ServiceError> {
    let existing = container.modified.map(|modified| (container.etag.as_str(), modified));
    Conditions::of(call)?.check(existing, Intent::Change)
}

/// Get Container Properties and Get Container Metadata.
///
/// # Errors
/// `ContainerNotFound`, lease refusals.
pub(crate) fn properties(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    let (container, _) = state.container(call)?;
    container.lease.check(call, false, Target::Container)?;
    let (status, phase, duration) = container.lease.facts(call.now);
    let answer = version(Answer::new(StatusCode::OK), container)
        .header("x-ms-lease-status", status)
        .header("x-ms-lease-state", phase)
        .optional("x-ms-lease-duration", duration)
        .optional("x-ms-blob-public-access", container.public.name())
        .header("x-ms-has-immutability-policy", "false")
        .header("x-ms-has-legal-hold", "false")
        .header("x-ms-default-encryption-scope", "$account-encryption-key")
        .header("x-ms-deny-encryption-scope-override", "false");
    Ok(container
        .metadata
        .iter()
        .fold(answer, |answer, (name, value)| answer.header(&format!("x-ms-meta-{name}"), value)))
}

/// Delete Container, with everything in it.
///
/// # Errors
/// `ContainerNotFound`, `LeaseIdMissing`, conditions.
pub(crate) fn delete(state: &mut State, settings: &Settings, call: &Call) -> Result<Answer, ServiceError> {
    let (container, _) = state.container(call)?;
    container.lease.check(call, true, Target::Container)?;
    check(container, call)?;
    let account = state.account(call)?;
    account.containers.remove(call.container_name());
    if !settings.container_delete_time.is_zero() {
        account.deleting.insert(call.container_name().to_owned(), call.now + settings.container_delete_time);
    }
    Ok(Answer::new(StatusCode::ACCEPTED))
}

/// Set Container Metadata.
///
/// # Errors
/// `ContainerNotFound`, conditions, lease refusals.
pub(crate) fn set_metadata(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    let metadata = call.metadata()?;
    let (container, stamps) = state.container(call)?;
    check(container, call)?;
    container.lease.check(call, false, Target::Container)?;
    container.metadata = metadata;
    let (etag, modified) = stamps.change(call.now);
    (container.etag, container.modified) = (etag, Some(modified));
    Ok(version(Answer::new(StatusCode::OK), container))
}

/// Get Container ACL.
///
/// # Errors
/// `ContainerNotFound`.
pub(crate) fn get_acl(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    let (container, _) = state.container(call)?;
    container.lease.check(call, false, Target::Container)?;
    let mut document = format!("{}<SignedIdentifiers>", xml::DECLARATION);
    for policy in &container.policies {
        document.push_str("<SignedIdentifier>");
        xml::element(&mut document, "Id", &policy.id);
        document.push_str("<AccessPolicy>");
        let fields = [("Start", &policy.start), ("Expiry", &policy.expiry), ("Permission", &policy.permissions)];
        for (name, text) in fields.into_iter().filter(|(_, text)| !text.is_empty()) {
            xml::element(&mut document, name, text);
        }
        document.push_str("</AccessPolicy></SignedIdentifier>");
    }
    document.push_str("</SignedIdentifiers>");
    let answer = version(Answer::xml(document), container);
    Ok(answer.optional("x-ms-blob-public-access", container.public.name()))
}

/// Set Container ACL: replaces public access and all stored policies.
///
/// # Errors
/// `InvalidXmlDocument`, `ContainerNotFound`, `PublicAccessNotPermitted`, lease refusals.
pub(crate) fn set_acl(
    state: &mut State,
    settings: &Settings,
    call: &Call,
    payload: &Payload,
) -> Result<Answer, ServiceError> {
    let public = access_of(call, settings)?;
    let policies = if payload.data.len() == 0 { Vec::new() } else { read_policies(&payload.data.to_vec())? };
    let (container, stamps) = state.container(call)?;
    check(container, call)?;
    container.lease.check(call, false, Target::Container)?;
    (container.public, container.policies) = (public, policies);
    let (etag, modified) = stamps.change(call.now);
    (container.etag, container.modified) = (etag, Some(modified));
    Ok(version(Answer::new(StatusCode::OK), container))
}

fn read_policies(document: &[u8]) -> Result<Vec<AccessPolicy>, ServiceError> {
    let mut policies: Vec<AccessPolicy> = Vec::new();
    for (path, text) in xml::leaves(document)? {
        match (path.last().map(String::as_str), policies.last_mut()) {
            (Some("Id"), _) => policies.push(AccessPolicy { id: text, ..AccessPolicy::default() }),
            (Some("Start"), Some(policy)) => policy.start = text,
            (Some("Expiry"), Some(policy)) => policy.expiry = text,
            (Some("Permission"), Some(policy)) => policy.permissions = text,
            (Some("SignedIdentifiers" | "AccessPolicy"), _) => {}
            _ => return Err(Code::InvalidXmlDocument.into()),
        }
    }
    if policies.len() > POLICIES_MAX || policies.iter().any(|policy| policy.id.is_empty() || policy.id.len() > 64) {
        return Err(Code::InvalidXmlDocument.into());
    }
    Ok(policies)
}

/// Lease Container.
///
/// # Errors
/// Those of the lease.
pub(crate) fn lease(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    let (container, _) = state.container(call)?;
    check(container, call)?;
    let answer = container.lease.act(call)?;
    Ok(version(answer, container))
}

/// Get Account Information.
pub(crate) fn account_information(settings: &Settings) -> Answer {
    Answer::new(StatusCode::OK)
        .header("x-ms-sku-name", "Standard_LRS")
        .header("x-ms-account-kind", "StorageV2")
        .header("x-ms-is-hns-enabled", if settings.hierarchical { "true" } else { "false" })
}

/// Get Blob Service Properties: those of an account as it is created.
pub(crate) fn service_properties() -> Answer {
    let metrics = "<Version>1.0</Version><Enabled>false</Enabled>\
                   <RetentionPolicy><Enabled>false</Enabled></RetentionPolicy>";
    Answer::xml(format!(
        "{}<StorageServiceProperties><Logging><Version>1.0</Version><Delete>false</Delete><Read>false</Read>\
         <Write>false</Write><RetentionPolicy><Enabled>false</Enabled></RetentionPolicy></Logging>\
         <HourMetrics>{metrics}</HourMetrics><MinuteMetrics>{metrics}</MinuteMetrics><Cors />\
         <DeleteRetentionPolicy><Enabled>false</Enabled></DeleteRetentionPolicy>\
         <StaticWebsite><Enabled>false</Enabled></StaticWebsite></StorageServiceProperties>",
        xml::DECLARATION
    ))
}
