//! Azure Key Vault, as far as reading secrets goes. Must not know what is in a secret.
//! Rules: REST pages "Get Secret" and "Authentication, requests and responses".

use std::{collections::BTreeMap, sync::Arc};

use hyper::StatusCode;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::identity::{
    bearer::{Refused, claims},
    cloud::Cloud,
    directory::{Directory, Role},
    message::{Message, Reply},
};

/// One version of a secret.
#[derive(Clone)]
pub(crate) struct Version {
    id: String,
    value: String,
    enabled: bool,
    created: OffsetDateTime,
}

/// Secrets of one vault by name, the newest version last.
pub(crate) type Secrets = BTreeMap<String, Vec<Version>>;

/// How a test fills a vault.
#[derive(Clone)]
pub struct Vault {
    directory: Arc<Directory>,
    name: String,
}

impl Vault {
    /// Adds it, if it is not there yet.
    pub(crate) fn open(directory: &Arc<Directory>, name: &str) -> Self {
        directory.lock().vaults.entry(name.to_owned()).or_default();
        Self { directory: Arc::clone(directory), name: name.to_owned() }
    }

    /// Its URL in a cloud, as keyVaultURL has it.
    #[must_use]
    pub fn url(&self, cloud: Cloud) -> String {
        format!("https://{}.{}", self.name, cloud.names().vault)
    }

    /// Sets a secret, and returns the id of the new version. Older versions stay.
    pub fn secret(&self, name: &str, value: &str) -> String {
        let id = Uuid::new_v4().simple().to_string();
        let (value, created) = (value.to_owned(), OffsetDateTime::now_utc());
        let version = Version { id: id.clone(), value, enabled: true, created };
        let mut inner = self.directory.lock();
        let secrets = inner.vaults.entry(self.name.clone()).or_default();
        secrets.entry(name.to_owned()).or_default().push(version);
        id
    }

    /// Disables all versions of a secret.
    pub fn disable(&self, name: &str) {
        let mut inner = self.directory.lock();
        let versions = inner.vaults.get_mut(&self.name).and_then(|secrets| secrets.get_mut(name));
        versions.into_iter().flatten().for_each(|version| version.enabled = false);
    }
}

/// Answers a request to a vault of a cloud.
pub(crate) fn answer(directory: &Directory, cloud: Cloud, message: &Message) -> Reply {
    let suffix = cloud.names().vault;
    let vault = message.host.split('.').next().unwrap_or_default();
    let claims = match claims(directory, cloud, message, |host| host == suffix) {
        Ok(claims) => claims,
        Err(refused) => return challenge(directory, cloud, &refused),
    };
    let parts: Vec<&str> = message.path.trim_matches('/').split('/').collect();
    let (name, wanted) = match (message.method.as_str(), parts.as_slice()) {
        ("GET", ["secrets", name]) => (*name, None),
        ("GET", ["secrets", name, version]) => (*name, Some(*version)),
        _ => return error(StatusCode::METHOD_NOT_ALLOWED, "BadParameter", "The method is not supported.", None),
    };
    if message.query.get("api-version").unwrap_or_default().is_empty() {
        return error(StatusCode::BAD_REQUEST, "BadParameter", "api-version must be specified", None);
    }
    let inner = directory.lock();
    if !inner.roles(&claims, None).contains(&Role::KeyVaultSecretsUser) {
        return forbidden(vault, name, &claims);
    }
    let versions = inner.vaults.get(vault).and_then(|secrets| secrets.get(name));
    let found = versions.and_then(|versions| match wanted {
        Some(wanted) => versions.iter().find(|version| version.id == wanted),
        None => versions.last(),
    });
    match found {
        None => {
            let text = format!(
                "A secret with (name/id) {} was not found in this key vault. If you recently deleted this secret you may be able to recover it using the correct recovery command. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125182",
                parts[1..].join("/")
            );
            error(StatusCode::NOT_FOUND, "SecretNotFound", &text, None)
        }
        Some(version) if !version.enabled => error(
            StatusCode::FORBIDDEN,
            "Forbidden",
            "Operation get is not allowed on a disabled secret.",
            Some("SecretDisabled"),
        ),
        Some(version) => {
            let created = version.created.unix_timestamp();
            let body = json!({
                "value": version.value,
                "id": format!("https://{}/secrets/{name}/{}", message.host, version.id),
                "attributes": {
                    "enabled": true, "created": created, "updated": created,
                    "recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90,
                },
            });
            Reply::json(StatusCode::OK, &body)
        }
    }
}

fn error(status: StatusCode, code: &str, message: &str, inner: Option<&str>) -> Reply {
    let mut body = json!({ "error": { "code": code, "message": message } });
    if let Some(inner) = inner {
        body["error"]["innererror"] = json!({ "code": inner });
    }
    Reply::json(status, &body)
}

fn challenge(directory: &Directory, cloud: Cloud, refused: &Refused) -> Reply {
    let text = match refused {
        Refused::Missing => "AKV10000: Request is missing a Bearer or PoP token.".to_owned(),
        Refused::Expired => "AKV10095: Token has expired.".to_owned(),
        Refused::Wrong(what) => {
            format!("AKV10022: Invalid audience. Expected https://{}, found: {what}.", cloud.names().vault)
        }
    };
    let inner = directory.lock();
    let first = inner.tenants.iter().find(|(_, tenant)| tenant.cloud == cloud).map(|(id, _)| id.clone());
    let tenant = inner.storage_tenant.clone().or(first).unwrap_or_else(|| "common".to_owned());
    error(StatusCode::UNAUTHORIZED, "Unauthorized", &text, None).header(
        "www-authenticate",
        format!(
            "Bearer authorization=\"https://{}/{tenant}\", resource=\"https://{}\"",
            cloud.authority_host(),
            cloud.names().vault
        ),
    )
}

fn forbidden(vault: &str, name: &str, claims: &Value) -> Reply {
    let text = |name: &str| claims[name].as_str().unwrap_or_default().to_owned();
    let message = format!(
        "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\nCaller: appid={};oid={};iss={}\r\nAction: 'Microsoft.KeyVault/vaults/secrets/getSecret/action'\r\nResource: '/subscriptions/00000000-0000-0000-0000-00000000000a/resourcegroups/group/providers/microsoft.keyvault/vaults/{vault}/secrets/{name}'\r\nAssignment: (not found)\r\nDenyAssignmentId: null\r\nDecisionReason: 'DeniedWithNoValidRBAC' \r\nVault: {vault};location=westeurope\r\n",
        text("appid"),
        text("oid"),
        text("iss")
    );
    error(StatusCode::FORBIDDEN, "Forbidden", &message, Some("ForbiddenByRbac"))
}
