//! Azure Resource Manager, as far as storage accounts go: list, get, create, list keys. Must not know what is in an account.
//! Rules: REST pages "Storage Accounts - List Keys", "- Get Properties", "- Create", and "Common error codes".

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::{
    emulator::{random_key, set_key},
    identity::{
        bearer::{Refused, claims},
        cloud::Cloud,
        directory::{Directory, Resource, Role},
        message::{Message, Reply},
    },
    server::Service,
};

/// What a path names.
struct Path<'a> {
    subscription: &'a str,
    group: &'a str,
    account: &'a str,
    action: &'a str,
}

/// Answers a request to the Resource Manager of a cloud.
pub(crate) fn answer(directory: &Directory, storage: &Service, cloud: Cloud, message: &Message) -> Reply {
    let names = cloud.names();
    let claims = match claims(directory, cloud, message, |host| host == names.management || names.arm.contains(&host)) {
        Ok(claims) => claims,
        Err(refused) => return unauthorized(cloud, &refused),
    };
    if message.query.get("api-version").unwrap_or_default().is_empty() {
        return error(
            StatusCode::BAD_REQUEST,
            "MissingApiVersionParameter",
            "The api-version query parameter (?api-version=) is required for all requests.",
        );
    }
    let parts: Vec<&str> = message.path.trim_matches('/').split('/').collect();
    let lower: Vec<String> = parts.iter().map(|part| part.to_ascii_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    let path = match lower.as_slice() {
        ["subscriptions", _, "providers", "microsoft.storage", "storageaccounts"] => {
            Path { subscription: parts[1], group: "", account: "", action: "" }
        }
        ["subscriptions", _, "resourcegroups", _, "providers", "microsoft.storage", "storageaccounts", rest @ ..]
            if rest.len() <= 2 || rest[1..] == ["blobservices", "default"] =>
        {
            let part = |at: usize| parts.get(at).copied().unwrap_or_default();
            Path { subscription: parts[1], group: parts[3], account: part(7), action: part(8) }
        }
        _ => return error(StatusCode::NOT_FOUND, "InvalidResourceType", "The resource type could not be found."),
    };
    act(directory, storage, cloud, message, &path, &claims)
}

fn act(
    directory: &Directory,
    storage: &Service,
    cloud: Cloud,
    message: &Message,
    path: &Path<'_>,
    claims: &Value,
) -> Reply {
    let (needed, action): (&[Role], &str) = match (message.method.as_str(), path.action.to_ascii_lowercase().as_str()) {
        ("POST", "listkeys") if !path.account.is_empty() => {
            (&[Role::AccountKeyOperator, Role::AccountContributor], "listKeys/action")
        }
        ("GET", "") => (&[Role::AccountKeyOperator, Role::AccountContributor], "read"),
        ("PUT", "") if !path.account.is_empty() => (&[Role::AccountContributor], "write"),
        ("GET", "blobservices") => (&[Role::AccountContributor], "blobServices/read"),
        ("PUT", "blobservices") => (&[Role::AccountContributor], "blobServices/write"),
        _ => return error(StatusCode::METHOD_NOT_ALLOWED, "HttpMethodNotSupported", "The method is not supported."),
    };
    // Roles are looked at before the account: who may not see it does not learn whether it is there.
    if !directory.lock().roles(claims, None).iter().any(|role| needed.contains(role)) {
        return forbidden(path, claims, action);
    }
    let mut found: Vec<(String, [String; 2])> = Vec::new();
    if action == "write" {
        let key = random_key();
        if !storage.state.lock().accounts.contains_key(path.account)
            && let Err(reason) = set_key(storage, path.account, &key)
        {
            return error(StatusCode::BAD_REQUEST, "AccountNameInvalid", &reason.to_string());
        }
        let account: Value = serde_json::from_slice(&message.body).unwrap_or_default();
        let made = Resource { account, is_new: true, ..Resource::default() };
        directory.lock().accounts.insert(path.account.to_owned(), made);
        return Reply::json(StatusCode::ACCEPTED, &json!(null));
    }
    if action.starts_with("blobServices") {
        return blob_service(directory, message, path);
    }
    for (name, account) in &storage.state.lock().accounts {
        if path.account.is_empty() || name == path.account {
            found.push((name.clone(), account.keys.clone()));
        }
    }
    let hierarchical = storage.settings().hierarchical;
    match (action, found.as_slice()) {
        (_, []) if !path.account.is_empty() => error(
            StatusCode::NOT_FOUND,
            "ResourceNotFound",
            &format!(
                "The Resource 'Microsoft.Storage/storageAccounts/{}' under resource group '{}' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix",
                path.account, path.group
            ),
        ),
        ("listKeys/action", [(_, keys), ..]) => Reply::json(StatusCode::OK, &key_list(keys)),
        (_, [(name, _)]) if !path.account.is_empty() => {
            let mut shown = properties(directory, cloud, path, name, hierarchical);
            if let Some(made) = directory.lock().accounts.get_mut(name)
                && std::mem::take(&mut made.is_new)
            {
                shown["properties"]["provisioningState"] = json!("Creating");
            }
            Reply::json(StatusCode::OK, &shown)
        }
        _ => {
            let all: Vec<Value> =
                found.iter().map(|(name, _)| properties(directory, cloud, path, name, hierarchical)).collect();
            Reply::json(StatusCode::OK, &json!({ "value": all }))
        }
    }
}

/// Blob Services - Get and Set Service Properties.
fn blob_service(directory: &Directory, message: &Message, path: &Path<'_>) -> Reply {
    let mut directory = directory.lock();
    let resource = directory.accounts.entry(path.account.to_owned()).or_default();
    if message.method == "PUT" {
        let told: Value = serde_json::from_slice(&message.body).unwrap_or_default();
        resource.blob_service = told["properties"].clone();
    }
    Reply::json(StatusCode::OK, &json!({ "name": "default", "properties": resource.blob_service }))
}

fn key_list(keys: &[String; 2]) -> Value {
    let key = |number: usize| {
        json!({
            "creationTime": "2026-01-01T00:00:00.0000000Z", "keyName": format!("key{}", number + 1),
            "value": keys[number], "permissions": "FULL",
        })
    };
    json!({ "keys": [key(0), key(1)] })
}

fn properties(directory: &Directory, cloud: Cloud, path: &Path<'_>, name: &str, hierarchical: bool) -> Value {
    let group = if path.group.is_empty() { "group" } else { path.group };
    let suffix = cloud.names().storage;
    let mut shown = json!({
        "id": format!(
            "/subscriptions/{}/resourceGroups/{group}/providers/Microsoft.Storage/storageAccounts/{name}", path.subscription
        ),
        "name": name, "type": "Microsoft.Storage/storageAccounts", "location": "westeurope", "kind": "StorageV2",
        "sku": { "name": "Standard_LRS", "tier": "Standard" },
        "properties": {
            "provisioningState": "Succeeded", "isHnsEnabled": hierarchical, "supportsHttpsTrafficOnly": true,
            "primaryEndpoints": {
                "blob": format!("https://{name}.blob.{suffix}/"), "dfs": format!("https://{name}.dfs.{suffix}/"),
            },
        },
    });
    // What was told when it was made goes before what every account here is.
    let made = directory.lock().accounts.get(name).map(|made| made.account.clone()).unwrap_or_default();
    for (field, value) in made.as_object().into_iter().flatten() {
        match (field.as_str(), value.as_object()) {
            ("properties", Some(properties)) => {
                properties.iter().for_each(|(name, value)| shown["properties"][name] = value.clone());
            }
            _ => shown[field] = value.clone(),
        }
    }
    shown
}

fn error(status: StatusCode, code: &str, message: &str) -> Reply {
    Reply::json(status, &json!({ "error": { "code": code, "message": message } }))
}

fn forbidden(path: &Path<'_>, claims: &Value, action: &str) -> Reply {
    let text = |name: &str| claims[name].as_str().unwrap_or_default().to_owned();
    let scope = match (path.group, path.account) {
        ("", _) => format!("/subscriptions/{}", path.subscription),
        (group, account) => format!(
            "/subscriptions/{}/resourceGroups/{group}/providers/Microsoft.Storage/storageAccounts/{account}",
            path.subscription
        ),
    };
    let message = format!(
        "The client '{}' with object id '{}' does not have authorization to perform action 'Microsoft.Storage/storageAccounts/{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh your credentials.",
        text("appid"),
        text("oid")
    );
    error(StatusCode::FORBIDDEN, "AuthorizationFailed", &message)
}

fn unauthorized(cloud: Cloud, refused: &Refused) -> Reply {
    let (code, message) = match refused {
        Refused::Missing => {
            ("AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.".to_owned())
        }
        Refused::Expired => (
            "ExpiredAuthenticationToken",
            "The access token expiry UTC time is earlier than current UTC time. Please refresh your credentials."
                .to_owned(),
        ),
        Refused::Wrong(what) if what.starts_with("https://") => (
            "InvalidAuthenticationTokenAudience",
            format!(
                "The access token has been obtained for wrong audience or resource '{what}'. It should exactly match with one of the allowed audiences 'https://{}/','https://{}/'.",
                cloud.names().management,
                cloud.arm_host()
            ),
        ),
        Refused::Wrong(what) => ("InvalidAuthenticationToken", format!("The access token is invalid. {what}")),
    };
    let challenge = format!(
        "Bearer authorization_uri=\"https://{}/\", error=\"invalid_token\", error_description=\"{code}\"",
        cloud.authority_host()
    );
    error(StatusCode::UNAUTHORIZED, code, &message).header("www-authenticate", challenge)
}
