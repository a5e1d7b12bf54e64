//! The token endpoint of Entra ID for applications: client secret, certificate, federated token. Must not know what the
//! tokens are used for. Rules: page "Microsoft identity platform and the OAuth 2.0 client credentials flow".

use hyper::StatusCode;
use serde_json::json;
use time::OffsetDateTime;

use crate::identity::{
    assertion,
    cloud::Cloud,
    directory::{Application, Directory},
    discovery,
    message::{Message, Reply},
    refusal::{Facts, refuse},
};

/// What `client_assertion_type` must be.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Answers a request to the authority of a cloud. `forced`: the code to refuse with whatever is asked.
pub(crate) fn answer(directory: &Directory, cloud: Cloud, message: &Message, forced: Option<u32>) -> Reply {
    let parts: Vec<&str> = message.path.trim_matches('/').split('/').collect();
    match (message.method.as_str(), parts.as_slice()) {
        ("POST", [tenant, "oauth2", "v2.0", "token"]) => token(directory, cloud, message, tenant, forced),
        ("POST", [tenant, "oauth2", "token"]) => token(directory, cloud, message, tenant, forced),
        ("GET", parts) => discovery::answer(directory, cloud, message, parts),
        _ => Reply::text(StatusCode::NOT_FOUND, "The resource cannot be found."),
    }
}

fn token(directory: &Directory, cloud: Cloud, message: &Message, tenant: &str, forced: Option<u32>) -> Reply {
    let field = |name: &str| message.form.get(name).unwrap_or_default().to_owned();
    let old = !message.path.contains("/v2.0/");
    let mut facts = Facts {
        authority: message.host.clone(),
        tenant: tenant.to_owned(),
        client: field("client_id"),
        resource: if old { field("resource") } else { field("scope") },
        ..Facts::default()
    };
    let verdict = verify(directory, cloud, message, old, &mut facts);
    match forced.map_or(verdict, Err) {
        Err(code) => refuse(code, &facts, message),
        Ok(audience) => {
            let (token, life) = directory.issue(tenant, cloud, &facts.client, &audience);
            let seconds = life.as_secs();
            let mut body = json!({ "token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token });
            if old {
                let now = OffsetDateTime::now_utc().unix_timestamp();
                body["expires_in"] = json!(seconds.to_string());
                body["expires_on"] = json!((now + seconds as i64).to_string());
                body["resource"] = json!(audience);
            }
            Reply::json(StatusCode::OK, &body).header("cache-control", "no-store, no-cache")
        }
    }
}

/// The audience of the token that the request is worth.
///
/// # Errors
/// The AADSTS code.
fn verify(directory: &Directory, cloud: Cloud, message: &Message, old: bool, facts: &mut Facts) -> Result<String, u32> {
    let missing = |facts: &mut Facts, name: &str| {
        facts.what = name.to_owned();
        900_144
    };
    let grant = message.form.get("grant_type").unwrap_or_default();
    if grant != "client_credentials" {
        facts.what = grant.to_owned();
        return Err(if grant.is_empty() { missing(facts, "grant_type") } else { 70_003 });
    }
    if facts.client.is_empty() {
        return Err(missing(facts, "client_id"));
    }
    if !facts.tenant.contains('.') && uuid::Uuid::parse_str(&facts.tenant).is_err() {
        return Err(900_023);
    }
    let application = find(directory, cloud, facts)?;
    let audience = audience(cloud, old, facts)?;
    check_credential(directory, &application, message, facts)?;
    Ok(audience)
}

/// The application, as it is now: verifying an assertion needs the directory again.
fn find(directory: &Directory, cloud: Cloud, facts: &Facts) -> Result<Application, u32> {
    let inner = directory.lock();
    let tenant = inner.tenants.get(&facts.tenant).filter(|tenant| tenant.cloud == cloud).ok_or(90_002_u32)?;
    tenant.applications.get(&facts.client).cloned().ok_or(700_016)
}

fn check_credential(
    directory: &Directory,
    application: &Application,
    message: &Message,
    facts: &mut Facts,
) -> Result<(), u32> {
    if let Some(secret) = message.form.get("client_secret") {
        let now = OffsetDateTime::now_utc();
        return match application.secrets.iter().find(|(known, _)| known == secret) {
            None => Err(7_000_215),
            Some((_, Some(end))) if now >= *end => Err(7_000_222),
            Some(_) => Ok(()),
        };
    }
    let of_type = message.form.get("client_assertion_type") == Some(ASSERTION_TYPE);
    match message.form.get("client_assertion") {
        Some(assertion) if of_type => assertion::verify(directory, application, assertion, facts),
        Some(_) => {
            facts.what = "client_assertion_type".to_owned();
            Err(900_144)
        }
        None => Err(7_000_218),
    }
}

/// What a token is asked for: storage, Resource Manager or vaults of this cloud.
fn audience(cloud: Cloud, old: bool, facts: &mut Facts) -> Result<String, u32> {
    let asked = facts.resource.clone();
    let resource = if old {
        asked.as_str()
    } else if asked.is_empty() {
        facts.what = "scope".to_owned();
        return Err(900_144);
    } else if asked.contains(' ') {
        return Err(70_011);
    } else {
        asked.strip_suffix("/.default").ok_or(1_002_012_u32)?
    };
    if is_audience(cloud, resource) {
        return Ok(resource.to_owned());
    }
    facts.resource = resource.to_owned();
    Err(500_011)
}

/// Whether a cloud has such a resource.
pub(crate) fn is_audience(cloud: Cloud, resource: &str) -> bool {
    let names = cloud.names();
    let host = resource.strip_prefix("https://").map(|host| host.strip_suffix('/').unwrap_or(host));
    host.is_some_and(|host| {
        host == "storage.azure.com"
            || host == names.management
            || host == names.vault
            || names.arm.contains(&host)
            || host.strip_suffix(names.storage).is_some_and(|account| account.ends_with(".blob."))
    })
}
