//! Names, certificates and the proxy.

use blob_emulator::{Cloud, IdentityService, Leaf};

use super::world::{TENANT, World};

const DISCOVERY: &str = "https://login.microsoftonline.com/common/discovery/instance?api-version=1.1";

#[test]
fn every_cloud_is_reached_under_its_own_names_through_the_proxy() {
    let world = World::start();
    for cloud in [Cloud::Public, Cloud::UsGovernment, Cloud::China, Cloud::Germany] {
        let host = cloud.authority_host();
        let _ = world.identity.tenant_in(cloud, TENANT);
        let url = format!("https://{host}/{TENANT}/v2.0/.well-known/openid-configuration");
        let got = world.get(&url, &[]);
        assert_eq!(got.json()["token_endpoint"], format!("https://{host}/{TENANT}/oauth2/v2.0/token"));
        let blob = cloud.blob_host("devstoreaccount1");
        assert_eq!(world.get(&format!("https://{blob}/box/a"), &[("x-ms-version", "2023-11-03")]).status, 401);
        let requests = world.identity.requests();
        let last = requests.last().unwrap();
        assert_eq!((last.service, last.host.as_str(), last.status), (IdentityService::Storage, blob.as_str(), 401));
        assert_eq!((last.sni.as_deref(), last.proxied), (Some(blob.as_str()), true));
        assert_eq!(requests[requests.len() - 2].sni.as_deref(), Some(host));
    }
}

#[test]
fn the_account_is_there_over_tls_without_the_proxy() {
    let world = World::start();
    let url = format!("{}/box/a", world.identity.https_endpoint());
    let got = world.try_send(&world.direct_client(), "GET", &url, &[], "").unwrap();
    assert_eq!(got.status, 404, "{}", got.text);
    assert_eq!(world.identity.requests()[0].sni.as_deref(), Some("localhost"));
}

#[test]
fn a_name_that_is_not_azures_does_not_resolve_until_it_is_given() {
    let world = World::start();
    let url = "https://devstoreaccount1.blob.local.azurestack.external/box/a";
    assert!(world.try_send(&world.client(), "GET", url, &[], "").is_err());
    world.identity.name("devstoreaccount1.blob.local.azurestack.external", IdentityService::Storage, Cloud::Public);
    assert_eq!(world.get(url, &[("x-ms-version", "2023-11-03")]).status, 401);
}

#[test]
fn wrong_certificates_are_shown_on_demand() {
    let world = World::start();
    assert_eq!(world.get(DISCOVERY, &[]).status, 200);
    for (leaf, reason) in [
        (Leaf::WrongName, "NotValidForName"),
        (Leaf::Expired, "Expired"),
        (Leaf::NotYetValid, "NotValidYet"),
        (Leaf::UnknownAuthority, "UnknownIssuer"),
    ] {
        world.identity.certify("login.microsoftonline.com", leaf);
        let Err(error) = world.try_send(&world.client(), "GET", DISCOVERY, &[], "") else {
            panic!("{leaf:?} was accepted");
        };
        assert!(error.contains(reason), "{leaf:?}: {error}");
    }
    world.identity.certify("login.microsoftonline.com", Leaf::Valid);
    assert_eq!(world.get(DISCOVERY, &[]).status, 200);
}

#[test]
fn plain_requests_through_the_proxy_reach_the_account_too() {
    let world = World::start();
    let got = world.get("http://devstoreaccount1.blob.core.windows.net/box/a", &[("authorization", "Bearer x")]);
    assert_eq!((got.status, got.header("x-ms-error-code")), (403, "AuthenticationFailed"));
    assert!(got.text.contains("Authentication scheme Bearer is not allowed with HTTP."));
    assert_eq!(world.identity.requests()[0].sni, None);
}
