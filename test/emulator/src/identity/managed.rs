//! The endpoints that managed identities are asked at: the instance metadata service of virtual machines, App Service's and
//! Azure Arc's. Plain HTTP, never through a proxy. Must not know who may do what with the tokens.
//!
//! Rules: pages "How to use managed identities on an Azure VM to acquire an access token", "Managed identities for App
//! Service: REST endpoint reference", "Authenticate against Azure resources with Azure Arc-enabled servers".

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::StatusCode;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use crate::identity::{
    directory::Directory,
    entra::is_audience,
    machine::{ManagedIdentity, Missing, Selector, find},
    message::{Message, Reply},
    refusal::{Facts, explain},
};

/// Path of the metadata service, on virtual machines and on Arc.
pub(crate) const IMDS_PATH: &str = "/metadata/identity/oauth2/token";
/// Path of App Service's endpoint. The real one differs from place to place: it is told by IDENTITY_ENDPOINT.
pub(crate) const APP_SERVICE_PATH: &str = "/msi/token";
/// Where Arc's endpoint is here. The real one has a port of its own instead of a prefix.
pub(crate) const ARC_PATH: &str = "/arc/metadata/identity/oauth2/token";

/// What Arc shows to whoever can read files as root only.
pub(crate) struct Local<'a> {
    /// The secret of App Service's endpoint.
    pub(crate) header: &'a str,
    /// The file with Arc's key.
    pub(crate) key_file: &'a Path,
    /// What is in it.
    pub(crate) key: &'a str,
}

/// Answers a request.
pub(crate) fn answer(directory: &Directory, local: &Local<'_>, message: &Message) -> Reply {
    match (message.method.as_str(), message.path.as_str()) {
        ("GET", IMDS_PATH) => imds(directory, message),
        ("GET", APP_SERVICE_PATH) => app_service(directory, local, message),
        ("GET", ARC_PATH) => arc(directory, local, message),
        _ => Reply::json(StatusCode::NOT_FOUND, &json!({ "error": "Not found" })),
    }
}

fn invalid(error: &str, description: &str) -> Reply {
    Reply::json(StatusCode::BAD_REQUEST, &json!({ "error": error, "error_description": description }))
}

fn parameter<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.query.get(name).filter(|value| !value.is_empty())
}

/// The identity that a query names by one of these parameters.
fn selector<'a>(message: &'a Message, object: &str, resource: &str) -> Selector<'a> {
    let by_resource = parameter(message, resource).or_else(|| parameter(message, "msi_res_id"));
    match (parameter(message, "client_id"), parameter(message, object), by_resource) {
        (Some(id), ..) => Selector::Client(id),
        (None, Some(id), _) => Selector::Object(id),
        (None, None, Some(id)) => Selector::Resource(id),
        _ => Selector::Any,
    }
}

fn imds(directory: &Directory, message: &Message) -> Reply {
    if message.header("metadata") != "true" {
        return invalid("invalid_request", "Required metadata header not specified");
    }
    // The service answers a forwarded request as if it had come from elsewhere, so that no proxy can be made to ask it.
    if message.proxied || !message.header("x-forwarded-for").is_empty() {
        return invalid("invalid_request", "The request must not be forwarded");
    }
    match parameter(message, "api-version") {
        Some(version) if version >= "2018-02-01" => {}
        _ => {
            let body = json!({
                "error": "Bad request. api-version was not specified in the request or is not supported",
                "newest-versions": ["2023-07-01", "2021-12-13", "2018-02-01"],
            });
            return Reply::json(StatusCode::BAD_REQUEST, &body);
        }
    }
    let found = find(&directory.lock(), selector(message, "object_id", "msi_res_id"));
    match found {
        Ok(identity) => token(directory, &identity, message, Form::Imds),
        Err(Missing::NotFound) => invalid("invalid_request", "Identity not found"),
        Err(Missing::Several) => invalid(
            "invalid_request",
            "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request",
        ),
    }
}

fn app_service(directory: &Directory, local: &Local<'_>, message: &Message) -> Reply {
    let plain = |status: StatusCode, text: &str| {
        Reply::json(status, &json!({ "statusCode": status.as_u16(), "message": text }))
    };
    let (header, older) = match parameter(message, "api-version") {
        Some("2019-08-01") => ("x-identity-header", false),
        Some("2017-09-01") => ("secret", true),
        _ => return plain(StatusCode::BAD_REQUEST, "The api-version is not supported."),
    };
    if message.header(header) != local.header {
        return plain(StatusCode::UNAUTHORIZED, "The header with the secret is missing or wrong.");
    }
    let selector = match (older, parameter(message, "clientid")) {
        (false, _) => selector(message, "principal_id", "mi_res_id"),
        (true, Some(id)) => Selector::Client(id),
        (true, None) => Selector::Any,
    };
    let found = find(&directory.lock(), selector);
    match found {
        Ok(identity) => token(directory, &identity, message, if older { Form::Older } else { Form::AppService }),
        Err(_) => plain(
            StatusCode::BAD_REQUEST,
            "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.",
        ),
    }
}

fn arc(directory: &Directory, local: &Local<'_>, message: &Message) -> Reply {
    if message.header("metadata") != "true" {
        return invalid("invalid_request", "Required metadata header not specified");
    }
    if selector(message, "object_id", "msi_res_id") != Selector::Any {
        return invalid("invalid_request", "User assigned identities are not supported");
    }
    let shown = message.header("authorization").strip_prefix("Basic ").unwrap_or_default();
    if shown != local.key && STANDARD.decode(shown).ok().as_deref() != Some(local.key.as_bytes()) {
        let reply = Reply::json(
            StatusCode::UNAUTHORIZED,
            &json!({ "error": "unauthorized_client", "error_description": "Missing or invalid Basic Authorization header" }),
        );
        return reply.header("www-authenticate", format!("Basic realm={}", local.key_file.display()));
    }
    let found = directory.lock().machine.iter().find(|identity| identity.system).cloned();
    match found {
        Some(identity) => token(directory, &identity, message, Form::Imds),
        None => invalid("invalid_request", "Identity not found"),
    }
}

/// How an answer tells the life of its token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Its length, beginning and end, in seconds.
    Imds,
    /// Its end, in seconds since 1970.
    AppService,
    /// Its end, as a date.
    Older,
}

/// `11/21/2026 21:04:18 +00:00`.
const OLDER_DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[month]/[day]/[year] [hour]:[minute]:[second] +00:00");

/// The token for an identity, if the resource is one.
fn token(directory: &Directory, identity: &ManagedIdentity, message: &Message, form: Form) -> Reply {
    let Some(resource) = parameter(message, "resource") else {
        return invalid("invalid_request", "Required audience parameter not specified");
    };
    let cloud = directory.lock().tenants.get(&identity.tenant).map(|tenant| tenant.cloud).unwrap_or_default();
    if !is_audience(cloud, resource) {
        let facts = Facts { tenant: identity.tenant.clone(), resource: resource.to_owned(), ..Facts::default() };
        let (_, error, sentence) = explain(500_011, &facts);
        return invalid(error, &format!("AADSTS500011: {sentence}"));
    }
    let (token, life) = directory.issue(&identity.tenant, cloud, &identity.client_id, resource);
    let (now, seconds) = (OffsetDateTime::now_utc().unix_timestamp(), life.as_secs() as i64);
    let mut body = json!({
        "access_token": token, "client_id": identity.client_id, "expires_on": (now + seconds).to_string(),
        "resource": resource, "token_type": "Bearer",
    });
    if form == Form::Older {
        let end = OffsetDateTime::now_utc() + life;
        body["expires_on"] = Value::from(end.format(&OLDER_DATE).unwrap_or_default());
    }
    if form == Form::Imds {
        let more = [("expires_in", seconds), ("ext_expires_in", seconds), ("not_before", now)];
        for (name, value) in more {
            body[name] = Value::from(value.to_string());
        }
    }
    Reply::json(StatusCode::OK, &body)
}
