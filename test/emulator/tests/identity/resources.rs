//! Resource Manager and Key Vault: who may look, what is found.

use blob_emulator::{Cloud, IdentityFault, IdentityFaultKind, IdentityService, Role};

use super::world::{CLIENT, Got, TENANT, World};

const ACCOUNTS: &str =
    "https://management.azure.com/subscriptions/s1/resourceGroups/rg/providers/Microsoft.Storage/storageAccounts";

fn world() -> World {
    let world = World::start();
    let _ = world.identity.tenant(TENANT).application(CLIENT).secret("s3cret");
    world
}

fn token(world: &World, scope: &str) -> String {
    let got = world.ask(TENANT, &[("client_secret", "s3cret"), ("scope", scope)]);
    got.json()["access_token"].as_str().unwrap_or_else(|| panic!("{}", got.text)).to_owned()
}

fn send(world: &World, method: &str, url: &str, token: &str) -> Got {
    world.send(method, url, &[("authorization", &format!("Bearer {token}"))], "{}")
}

fn code(got: &Got) -> (u16, String) {
    (got.status, got.json()["error"]["code"].as_str().unwrap().to_owned())
}

#[test]
fn keys_are_listed_for_whoever_may() {
    let world = world();
    let arm = token(&world, "https://management.azure.com/.default");
    let url = format!("{ACCOUNTS}/devstoreaccount1/listKeys?api-version=2023-05-01");
    let got = send(&world, "POST", &url, &arm);
    assert_eq!(code(&got), (403, "AuthorizationFailed".into()));
    assert!(got.text.contains("Microsoft.Storage/storageAccounts/listKeys/action"));
    world.identity.grant(CLIENT, Role::AccountKeyOperator);
    let got = send(&world, "POST", &url, &arm).json();
    assert_eq!((got["keys"][0]["keyName"].as_str(), got["keys"][1]["keyName"].as_str()), (Some("key1"), Some("key2")));
    assert_eq!(got["keys"][0]["value"], world.emulator.key());
    let rotated = world.emulator.rotate_key();
    assert_eq!(send(&world, "POST", &url, &arm).json()["keys"][0]["value"], rotated);
    let missing = send(&world, "POST", &format!("{ACCOUNTS}/nosuch/listKeys?api-version=2023-05-01"), &arm);
    assert_eq!(code(&missing), (404, "ResourceNotFound".into()));
    let unversioned = send(&world, "POST", &format!("{ACCOUNTS}/devstoreaccount1/listKeys"), &arm);
    assert_eq!(code(&unversioned), (400, "MissingApiVersionParameter".into()));
}

#[test]
fn resource_manager_takes_its_own_tokens_only() {
    let world = world();
    let url = format!("{ACCOUNTS}/devstoreaccount1?api-version=2023-05-01");
    assert_eq!(code(&world.get(&url, &[])), (401, "AuthenticationFailed".into()));
    let storage = world.token();
    let got = send(&world, "GET", &url, &storage);
    assert_eq!(code(&got), (401, "InvalidAuthenticationTokenAudience".into()));
    assert!(got.header("www-authenticate").starts_with("Bearer authorization_uri="));
    let throttle = IdentityFaultKind::Status { status: 429, retry_after: None };
    world.identity.fault(IdentityFault::new(IdentityService::Arm, throttle).times(1));
    assert_eq!(code(&send(&world, "GET", &url, &storage)), (429, "TooManyRequests".into()));
}

#[test]
fn an_account_is_created_and_then_resolves() {
    let world = world();
    world.identity.grant(CLIENT, Role::AccountContributor);
    let arm = token(&world, "https://management.core.windows.net//.default");
    assert!(world.try_send(&world.client(), "GET", "https://fresh.blob.core.windows.net/", &[], "").is_err());
    let fresh = format!("{ACCOUNTS}/fresh?api-version=2023-05-01");
    // The manager accepts, and whoever asks is told when it is done.
    assert_eq!(send(&world, "PUT", &fresh, &arm).status, 202);
    let state = || send(&world, "GET", &fresh, &arm).json()["properties"].clone();
    let making = state();
    assert_eq!(making["provisioningState"], "Creating");
    assert_eq!(making["primaryEndpoints"]["blob"], "https://fresh.blob.core.windows.net/");
    assert_eq!(state()["provisioningState"], "Succeeded");
    assert_eq!(
        world.get("https://fresh.blob.core.windows.net/?comp=list", &[("x-ms-version", "2023-11-03")]).status,
        401
    );
    let url = "https://management.azure.com/subscriptions/s1/providers/Microsoft.Storage/storageAccounts?api-version=2023-05-01";
    assert_eq!(send(&world, "GET", url, &arm).json()["value"].as_array().unwrap().len(), 2);
}

#[test]
fn a_vault_gives_the_newest_version_or_the_one_asked_for() {
    let world = world();
    let vault = world.identity.vault("safe");
    let first = vault.secret("key", "one");
    vault.secret("key", "two");
    let url = format!("{}/secrets/key", vault.url(Cloud::Public));
    let versioned = |url: &str| format!("{url}?api-version=7.4");
    let got = world.get(&versioned(&url), &[]);
    assert_eq!(code(&got), (401, "Unauthorized".into()));
    assert_eq!(
        got.header("www-authenticate"),
        format!(
            "Bearer authorization=\"https://login.microsoftonline.com/{TENANT}\", resource=\"https://vault.azure.net\""
        )
    );
    let token = token(&world, "https://vault.azure.net/.default");
    let got = send(&world, "GET", &versioned(&url), &token);
    assert_eq!(code(&got), (403, "Forbidden".into()));
    assert_eq!(got.json()["error"]["innererror"]["code"], "ForbiddenByRbac");
    world.identity.grant(CLIENT, Role::KeyVaultSecretsUser);
    assert_eq!(send(&world, "GET", &versioned(&url), &token).json()["value"], "two");
    assert_eq!(send(&world, "GET", &versioned(&format!("{url}/{first}")), &token).json()["value"], "one");
    let missing = send(&world, "GET", &versioned(&format!("{}/secrets/none", vault.url(Cloud::Public))), &token);
    assert_eq!(code(&missing), (404, "SecretNotFound".into()));
    vault.disable("key");
    assert_eq!(code(&send(&world, "GET", &versioned(&url), &token)), (403, "Forbidden".into()));
    assert!(world.try_send(&world.client(), "GET", "https://nosuch.vault.azure.net/secrets/x", &[], "").is_err());
}
