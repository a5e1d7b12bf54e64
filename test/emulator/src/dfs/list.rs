//! Path - List: the paths of a directory, or all below it, page by page, in JSON.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::{
    answer::Answer,
    blob::Blob,
    call::Call,
    date,
    error::{Code, ServiceError},
    hierarchy::normal_name,
    state::State,
};

/// Entries of one page at most, and without maxResults (REST page "Path - List").
const PAGE_ENTRIES_MAX: usize = 5000;

/// Path - List.
///
/// # Errors
/// `PathNotFound` for a directory that is not there, `InvalidQueryParameterValue`, `MissingRequiredQueryParameter`.
pub(crate) fn list(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    if call.query.required("resource")? != "filesystem" {
        return Err(ServiceError::bad_query("resource", call.query.get("resource").unwrap_or_default()));
    }
    let recursive = call.query.required("recursive")? == "true";
    let directory = normal_name(call.query.get("directory").unwrap_or_default())?;
    let most = match call.query.get("maxResults") {
        None => PAGE_ENTRIES_MAX,
        Some(text) => match text.parse::<usize>() {
            Ok(count) if count > 0 => count.min(PAGE_ENTRIES_MAX),
            _ => return Err(ServiceError::bad_query("maxResults", text)),
        },
    };
    let (container, _) = state.container(call)?;
    if !directory.is_empty() && !container.blobs.get(&directory).is_some_and(Blob::is_directory) {
        return Err(Code::PathNotFound.into());
    }
    let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
    let from = match call.query.get("continuation").filter(|token| !token.is_empty()) {
        None => prefix.clone(),
        Some(token) => {
            let name = URL_SAFE_NO_PAD.decode(token).ok().and_then(|name| String::from_utf8(name).ok());
            name.ok_or_else(|| ServiceError::bad_query("continuation", token))?
        }
    };
    let wanted = |name: &str| recursive || !name[prefix.len()..].contains('/');
    let mut found = container
        .blobs
        .range(from..)
        .take_while(|(name, _)| name.starts_with(&prefix))
        .filter(|(name, _)| wanted(name));
    let entries: Vec<Value> = found.by_ref().take(most).map(|(name, blob)| entry(name, blob)).collect();
    let next = found.next().map(|(name, _)| URL_SAFE_NO_PAD.encode(name));
    let mut answer = Answer::new(StatusCode::OK)
        .header("content-type", "application/json;charset=utf-8")
        .optional("x-ms-continuation", next);
    answer.body.push_back(Bytes::from(json!({ "paths": entries }).to_string()));
    Ok(answer)
}

/// Numbers and truths are texts here, as the service writes them.
fn entry(name: &str, blob: &Blob) -> Value {
    let mut entry = json!({
        "name": name,
        "contentLength": blob.data.len().to_string(),
        "etag": blob.etag.trim_matches('"'),
        "lastModified": date::http(blob.modified),
    });
    if blob.is_directory() {
        entry["isDirectory"] = json!("true");
    }
    if let Some(node) = &blob.node {
        entry["owner"] = json!(node.access.owner);
        entry["group"] = json!(node.access.group);
        entry["permissions"] = json!(node.access.permissions());
    }
    entry
}
