//! Managed identities: which one is meant, and what is said when none is.

use std::time::Duration;

use blob_emulator::{IdentityFault, IdentityFaultKind, IdentityService, Role};

use super::world::{Got, TENANT, World, claims};

const OTHER: &str = "99999999-2222-3333-4444-555555555555";
const CLIENT: &str = super::world::CLIENT;

fn ask(world: &World, query: &str, headers: &[(&str, &str)]) -> Got {
    let url = format!(
        "{}/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://storage.azure.com/{query}",
        world.identity.imds_url()
    );
    world.try_send(&world.direct_client(), "GET", &url, headers, "").unwrap_or_else(|error| panic!("{error}"))
}

fn imds(world: &World, query: &str) -> Got {
    ask(world, query, &[("metadata", "true")])
}

fn object_of(got: &Got) -> String {
    let token = got.json()["access_token"].as_str().map(str::to_owned);
    let token = token.unwrap_or_else(|| panic!("{}", got.text));
    claims(&token)["oid"].as_str().unwrap().to_owned()
}

#[test]
fn the_metadata_service_tells_apart_none_one_several_and_the_systems_own() {
    let world = World::start();
    let machine = world.identity.tenant(TENANT).machine();
    let description = |got: &Got| got.json()["error_description"].as_str().unwrap().to_owned();
    let none = imds(&world, "");
    assert_eq!((none.status, description(&none).as_str()), (400, "Identity not found"));
    let one = machine.user_assigned(CLIENT);
    assert_eq!(object_of(&imds(&world, "")), one.object_id);
    let two = machine.user_assigned(OTHER);
    let several = imds(&world, "");
    assert_eq!(several.status, 400);
    assert!(description(&several).starts_with("Multiple user assigned identities exist, please specify"));
    assert_eq!(object_of(&imds(&world, &format!("&client_id={OTHER}"))), two.object_id);
    assert_eq!(object_of(&imds(&world, &format!("&object_id={}", one.object_id))), one.object_id);
    assert_eq!(object_of(&imds(&world, &format!("&msi_res_id={}", two.resource_id))), two.object_id);
    assert_eq!(description(&imds(&world, "&client_id=00000000-0000-0000-0000-000000000000")), "Identity not found");
    let system = machine.system_assigned();
    assert_eq!(object_of(&imds(&world, "")), system.object_id);
    machine.unassign(&one);
    assert_eq!(imds(&world, &format!("&client_id={CLIENT}")).status, 400);
    let last = world.identity.requests().pop().unwrap();
    assert_eq!((last.service, last.field("client_id")), (IdentityService::ManagedIdentity, Some(CLIENT)));
    assert_eq!(last.field("metadata"), Some("true"));
}

#[test]
fn a_request_without_the_header_a_resource_or_a_version_is_refused() {
    let world = World::start();
    let _ = world.identity.tenant(TENANT).machine().system_assigned();
    assert!(ask(&world, "", &[]).text.contains("Required metadata header not specified"));
    assert_eq!(ask(&world, "", &[("metadata", "true"), ("x-forwarded-for", "10.0.0.1")]).status, 400);
    let url = format!("{}/metadata/identity/oauth2/token?api-version=2018-02-01", world.identity.imds_url());
    let send = |url: &str| world.try_send(&world.direct_client(), "GET", url, &[("metadata", "true")], "").unwrap();
    assert!(send(&url).text.contains("Required audience parameter not specified"));
    assert!(send(&format!("{url}&resource=https://nowhere.example/")).text.contains("AADSTS500011"));
    assert_eq!(send(&format!("{}/metadata/identity/oauth2/token", world.identity.imds_url())).status, 400);
    assert_eq!(send(&format!("{}/metadata/instance", world.identity.imds_url())).status, 404);
}

#[test]
fn trouble_of_the_metadata_service_is_made_on_demand() {
    let world = World::start();
    let _ = world.identity.tenant(TENANT).machine().system_assigned();
    for status in [404, 410, 429, 500] {
        let kind = IdentityFaultKind::Status { status, retry_after: (status == 429).then_some(Duration::from_secs(1)) };
        world.identity.fault(IdentityFault::new(IdentityService::ManagedIdentity, kind).times(1));
        let got = imds(&world, "");
        assert_eq!((got.status, got.header("retry-after")), (status, if status == 429 { "1" } else { "" }));
    }
    assert_eq!(imds(&world, "").status, 200);
}

#[test]
fn a_managed_identity_reads_with_its_role() {
    let world = World::start();
    let identity = world.identity.tenant(TENANT).machine().system_assigned();
    world.identity.grant(&identity.object_id, Role::BlobDataReader);
    let got = imds(&world, "").json();
    assert_eq!(got["token_type"], "Bearer");
    assert!(got["expires_in"].as_str().unwrap().parse::<u64>().unwrap() > 3000);
    let token = got["access_token"].as_str().unwrap();
    assert_eq!(world.storage("GET", "/box/a", token, "").text, "content");
}

#[test]
fn app_service_wants_its_secret() {
    let world = World::start();
    let identity = world.identity.tenant(TENANT).machine().user_assigned(CLIENT);
    let (endpoint, secret) = world.identity.app_service();
    let send = |query: &str, secret: &str| {
        let url = format!("{endpoint}?api-version=2019-08-01&resource=https://storage.azure.com{query}");
        world.try_send(&world.direct_client(), "GET", &url, &[("x-identity-header", secret)], "").unwrap()
    };
    assert_eq!(send("", "wrong").status, 401);
    assert_eq!(object_of(&send("", &secret)), identity.object_id);
    assert_eq!(object_of(&send(&format!("&client_id={CLIENT}"), &secret)), identity.object_id);
    let got = send(&format!("&client_id={OTHER}"), &secret);
    assert_eq!(got.status, 400);
    assert!(got.text.contains("No User Assigned or Delegated Managed Identity found"));
}

#[test]
fn the_older_app_service_tells_the_end_as_a_date() {
    let world = World::start();
    let identity = world.identity.tenant(TENANT).machine().user_assigned(CLIENT);
    let (endpoint, secret) = world.identity.app_service();
    let url = format!("{endpoint}?api-version=2017-09-01&resource=https://storage.azure.com&clientid={CLIENT}");
    let got = world.try_send(&world.direct_client(), "GET", &url, &[("secret", &secret)], "").unwrap();
    assert_eq!(object_of(&got), identity.object_id);
    assert!(got.json()["expires_on"].as_str().unwrap().ends_with(" +00:00"), "{}", got.text);
    assert!(!format!("{:?}", world.identity.requests()).contains(&secret), "a printed record holds a secret");
}

#[test]
fn arc_wants_what_is_in_a_file() {
    let world = World::start();
    let directory = tempfile::tempdir().unwrap();
    world.identity.place_arc_key(directory.path()).unwrap();
    let identity = world.identity.tenant(TENANT).machine().system_assigned();
    let url = format!("{}?api-version=2019-11-01&resource=https://storage.azure.com", world.identity.arc_endpoint());
    let send = |headers: &[(&str, &str)]| world.try_send(&world.direct_client(), "GET", &url, headers, "").unwrap();
    let got = send(&[("metadata", "true")]);
    assert_eq!(got.status, 401);
    let file = got.header("www-authenticate").strip_prefix("Basic realm=").unwrap().to_owned();
    assert!(file.starts_with(directory.path().to_str().unwrap()) && file.ends_with(".key"), "{file}");
    let key = format!("Basic {}", std::fs::read_to_string(file).unwrap());
    assert_eq!(object_of(&send(&[("metadata", "true"), ("authorization", &key)])), identity.object_id);
    assert_eq!(send(&[("metadata", "true"), ("authorization", "Basic wrong")]).status, 401);
}
