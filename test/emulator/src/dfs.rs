//! The Data Lake endpoint of a hierarchical account: paths instead of blobs, JSON instead of XML. One operation a file.
//!
//! It listens where the Blob endpoint does. A request is one of its own by its host (`ACCOUNT.dfs.…`), or by what no Blob
//! request has: the verb PATCH, a query parameter `action`, `recursive` or `resource`, a header x-ms-rename-source. A
//! client in path style must therefore always send `recursive` with a DELETE.
//! Rules: REST pages "Path - Create", "Path - Delete", "Path - Get Properties", "Path - List", "Path - Update".

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{HeaderMap, Method};

use crate::{
    call::{Call, Metadata},
    error::{Code, ServiceError},
    operation::{Operation, Scope},
    query::Query,
    state::Container,
};

pub(crate) mod access;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod properties;
pub(crate) mod rename;

/// Whether a request is for this endpoint.
pub(crate) fn is_meant(method: &Method, query: &Query, headers: &HeaderMap) -> bool {
    let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    *method == Method::PATCH
        || ["action", "recursive", "resource"].iter().any(|name| query.get(name).is_some())
        || headers.contains_key("x-ms-rename-source")
        || host.split('.').nth(1) == Some("dfs")
}

/// Tells which operation a request of this endpoint is; `None`: none that is known here.
pub(crate) fn classify(method: &Method, scope: Scope, query: &Query, headers: &HeaderMap) -> Option<Operation> {
    let action = query.get("action").unwrap_or_default();
    match (scope, method.as_str(), action) {
        (Scope::Container, "GET", "") => Some(Operation::ListPaths),
        (Scope::Container | Scope::Blob, "HEAD", "getAccessControl") => Some(Operation::GetPathAccessControl),
        (Scope::Container | Scope::Blob, "PATCH", "setAccessControl") => Some(Operation::SetPathAccessControl),
        (Scope::Blob, "HEAD", "" | "getStatus") => Some(Operation::GetPathProperties),
        (Scope::Blob, "GET", "") => Some(Operation::GetBlob),
        (Scope::Blob, "PATCH", "setProperties") => Some(Operation::SetPathProperties),
        (Scope::Blob, "PUT", "") if headers.contains_key("x-ms-rename-source") => Some(Operation::RenamePath),
        (Scope::Blob, "PUT", "") => Some(Operation::CreatePath),
        (Scope::Blob, "DELETE", "") => Some(Operation::DeletePath),
        _ => None,
    }
}

/// Refuses what only a hierarchical account can do. The documents name the status (400) and no code.
///
/// # Errors
/// 400 `InvalidInput`.
pub(crate) fn check_account(call: &Call) -> Result<(), ServiceError> {
    if call.hierarchical { Ok(()) } else { Err(Code::InvalidInput.into()) }
}

/// 404 in the words of this endpoint.
pub(crate) fn check_exists(container: &Container, call: &Call) -> Result<(), ServiceError> {
    if container.blobs.contains_key(call.blob_name()) { Ok(()) } else { Err(Code::PathNotFound.into()) }
}

/// x-ms-properties: `name=value,name=value`, the values in base64.
///
/// # Errors
/// `InvalidHeaderValue`.
pub(crate) fn read_properties(call: &Call) -> Result<Option<Metadata>, ServiceError> {
    let Some(text) = call.header("x-ms-properties")? else { return Ok(None) };
    let one = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let value = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
        Some((name.trim().to_ascii_lowercase(), value))
    };
    let all: Option<Metadata> = text.split(',').filter(|pair| !pair.trim().is_empty()).map(one).collect();
    all.map(Some).ok_or_else(|| ServiceError::bad_header("x-ms-properties", text))
}

/// The same the other way.
pub(crate) fn write_properties(metadata: &Metadata) -> String {
    let pairs: Vec<_> = metadata.iter().map(|(name, value)| format!("{name}={}", STANDARD.encode(value))).collect();
    pairs.join(",")
}
