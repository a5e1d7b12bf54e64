//! Instance discovery, OpenID configuration and signing keys, as the MSAL libraries ask for them. Must not know
//! credentials.

use hyper::StatusCode;
use serde_json::json;

use crate::identity::{
    cloud::Cloud,
    directory::Directory,
    message::{Message, Reply},
    refusal::{Facts, refuse},
};

/// Answers a GET at an authority; `parts` is its path.
pub(crate) fn answer(directory: &Directory, cloud: Cloud, message: &Message, parts: &[&str]) -> Reply {
    match parts {
        ["common", "discovery", "instance"] => instance(cloud, message),
        ["common" | "organizations", "discovery", "v2.0", "keys"] | [_, "discovery", "v2.0" | "keys", ..] => {
            Reply::json(StatusCode::OK, &json!({ "keys": [directory.key.jwk()] }))
        }
        [tenant, "v2.0", ".well-known", "openid-configuration"] => {
            configuration(directory, cloud, message, tenant, true)
        }
        [tenant, ".well-known", "openid-configuration"] => configuration(directory, cloud, message, tenant, false),
        _ => Reply::text(StatusCode::NOT_FOUND, "The resource cannot be found."),
    }
}

fn instance(cloud: Cloud, message: &Message) -> Reply {
    let asked = message.query.get("authorization_endpoint").unwrap_or_default();
    let tenant = asked.trim_start_matches("https://").split('/').nth(1).unwrap_or("common");
    let hosts = cloud.names().authorities;
    Reply::json(
        StatusCode::OK,
        &json!({
            "tenant_discovery_endpoint":
                format!("https://{}/{tenant}/v2.0/.well-known/openid-configuration", message.host),
            "api-version": "1.1",
            "metadata": [{ "preferred_network": hosts[0], "preferred_cache": hosts[hosts.len().min(2) - 1], "aliases": hosts }],
        }),
    )
}

fn configuration(directory: &Directory, cloud: Cloud, message: &Message, tenant: &str, new: bool) -> Reply {
    let known = directory.lock().tenants.get(tenant).is_some_and(|known| known.cloud == cloud);
    if !known && !matches!(tenant, "common" | "organizations") {
        let facts = Facts { authority: message.host.clone(), tenant: tenant.to_owned(), ..Facts::default() };
        return refuse(90_002, &facts, message);
    }
    let (base, version) = (format!("https://{}/{tenant}", message.host), if new { "/v2.0" } else { "" });
    let issuer = if new { format!("{base}/v2.0") } else { format!("{}/{tenant}/", cloud.names().token_issuer) };
    Reply::json(
        StatusCode::OK,
        &json!({
            "token_endpoint": format!("{base}/oauth2{version}/token"),
            "token_endpoint_auth_methods_supported":
                ["client_secret_post", "private_key_jwt", "client_secret_basic", "self_signed_tls_client_auth"],
            "jwks_uri": format!("{base}/discovery{version}/keys"),
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "issuer": issuer,
            "authorization_endpoint": format!("{base}/oauth2{version}/authorize"),
            "device_authorization_endpoint": format!("{base}/oauth2{version}/devicecode"),
            "cloud_instance_name": cloud.authority_host(),
        }),
    )
}
