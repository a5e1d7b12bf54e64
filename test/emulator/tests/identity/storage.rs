//! What the emulator makes of tokens: audience, tenant, life, roles.

use std::time::Duration;

use blob_emulator::{Role, Settings};

use super::world::{CLIENT, TENANT, World};

fn world() -> World {
    let world = World::start();
    let _ = world.identity.tenant(TENANT).application(CLIENT).secret("s3cret");
    world
}

#[test]
fn roles_say_what_a_token_may_do() {
    let world = world();
    let token = world.token();
    let code = |method: &str, path: &str| {
        let got = world.storage(method, path, &token, "x");
        (got.status, got.header("x-ms-error-code").to_owned())
    };
    let mismatch = (403, "AuthorizationPermissionMismatch".to_owned());
    let fine = |status: u16| (status, String::new());
    assert_eq!(code("GET", "/box/a"), mismatch);
    world.identity.grant(CLIENT, Role::BlobDataReader);
    assert_eq!(code("GET", "/box/a"), fine(200));
    assert_eq!(code("PUT", "/box/b"), mismatch);
    world.identity.grant(CLIENT, Role::BlobDataContributor);
    assert_eq!(code("PUT", "/box/b"), fine(201));
    assert_eq!(code("GET", "/box?restype=container&comp=acl"), mismatch);
    world.identity.revoke(CLIENT);
    assert_eq!(code("GET", "/box/a"), mismatch);
}

#[test]
fn no_role_of_the_data_plane_tells_what_kind_of_account_it_is() {
    let world = world();
    let token = world.token();
    world.identity.grant(CLIENT, Role::BlobDataOwner);
    let code = |path: &str| {
        let got = world.storage("GET", path, &token, "");
        (got.status, got.header("x-ms-error-code").to_owned())
    };
    assert_eq!(code("/?restype=account&comp=properties"), (404, "ResourceNotFound".into()));
    assert_eq!(code("/?restype=service&comp=properties"), (403, "AuthorizationPermissionMismatch".into()));
    world.identity.grant(CLIENT, Role::AccountContributor);
    assert_eq!(code("/?restype=account&comp=properties"), (200, String::new()));
}

#[test]
fn a_role_on_one_container_says_nothing_of_another() {
    let world = world();
    world.emulator.create_container("other");
    let object_id = world.identity.tenant(TENANT).application(CLIENT).object_id();
    world.identity.grant_on(&object_id, Role::BlobDataContributor, "box");
    let token = world.token();
    assert_eq!(world.storage("GET", "/box/a", &token, "").status, 200);
    assert_eq!(world.storage("PUT", "/other/a", &token, "").status, 403);
    assert_eq!(world.storage("GET", "/?comp=list", &token, "").status, 403);
}

#[test]
fn a_token_that_has_ended_is_refused_with_a_challenge() {
    let world = world();
    world.identity.grant(CLIENT, Role::BlobDataOwner);
    world.identity.storage_tenant(TENANT);
    let token = world.token();
    assert_eq!(world.storage("GET", "/box/a", &token, "").text, "content");
    world.emulator.settings(|settings| settings.clock_ahead = Duration::from_secs(3600));
    let got = world.storage("GET", "/box/a", &token, "");
    assert_eq!((got.status, got.header("x-ms-error-code")), (401, "InvalidAuthenticationInfo"));
    assert!(got.text.contains("Lifetime validation failed. The token is expired."));
    let authority = format!("authorization_uri=https://login.microsoftonline.com/{TENANT}/oauth2/authorize");
    assert!(got.header("www-authenticate").contains(&authority));
}

#[test]
fn a_token_for_something_else_is_no_token_for_storage() {
    let world = world();
    world.identity.grant(CLIENT, Role::BlobDataOwner);
    let form = [("client_secret", "s3cret"), ("scope", "https://management.azure.com/.default")];
    let token = world.ask(TENANT, &form).json()["access_token"].as_str().unwrap().to_owned();
    let got = world.storage("GET", "/box/a", &token, "");
    assert_eq!(got.status, 401);
    assert!(got.text.contains("Audience validation failed. Audience did not match."));
    let (signed, _) = token.rsplit_once('.').unwrap();
    assert_eq!(world.storage("GET", "/box/a", &format!("{signed}.AAAA"), "").status, 401);
    let own = [("client_secret", "s3cret"), ("scope", "https://devstoreaccount1.blob.core.windows.net/.default")];
    let token = world.ask(TENANT, &own).json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(world.storage("GET", "/box/a", &token, "").status, 200);
    world.identity.storage_tenant("00000000-0000-0000-0000-000000000000");
    assert!(world.storage("GET", "/box/a", &token, "").text.contains("Issuer validation failed."));
}

#[test]
fn tokens_of_the_settings_hold_over_tls_only() {
    let world = World::with(Settings { bearer_tokens: vec!["token-1".into()], ..Settings::default() });
    assert_eq!(world.storage("GET", "/box/a", "token-1", "").text, "content");
    assert_eq!(world.storage("GET", "/box/a", "token-2", "").status, 401);
    let url = format!("{}/box/a", world.emulator.endpoint());
    let headers = [("authorization", "Bearer token-1"), ("x-ms-version", "2023-11-03")];
    let got = world.try_send(&world.direct_client(), "GET", &url, &headers, "").unwrap();
    assert_eq!((got.status, got.header("x-ms-error-code")), (403, "AuthenticationFailed"));
}
