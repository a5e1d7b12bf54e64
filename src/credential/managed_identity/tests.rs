//! Claims about managed identities: which request each platform gets, and what its refusals mean.

use super::*;
use crate::credential::Trust;

fn http() -> IdentityHttp {
    IdentityHttp::new(&Trust::default()).unwrap()
}

fn named(client: Option<&str>, object: Option<&str>, resource: Option<&str>) -> IdentityId {
    IdentityId {
        client_id: client.map(str::to_owned),
        object_id: object.map(str::to_owned),
        resource_id: resource.map(str::to_owned),
    }
}

fn request(endpoints: &IdentityEndpoints, id: &IdentityId) -> String {
    ManagedIdentity::new(http(), endpoints, id).unwrap().url("https://storage.azure.com").into()
}

#[test]
fn each_platform_is_asked_in_its_own_way() {
    let none = IdentityId::default();
    let imds = IdentityEndpoints::default();
    let asked = "api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com";
    assert_eq!(request(&imds, &none), format!("http://169.254.169.254/metadata/identity/oauth2/token?{asked}"));
    assert!(request(&imds, &named(Some("c"), None, None)).ends_with("&client_id=c"));
    assert!(request(&imds, &named(None, Some("o"), None)).ends_with("&object_id=o"));
    assert!(request(&imds, &named(None, None, Some("/s/r"))).ends_with("&msi_res_id=%2Fs%2Fr"));
    let app_service = IdentityEndpoints {
        identity_endpoint: Some("http://127.0.0.1:41/msi/token".into()),
        identity_header: Some("h".into()),
        ..imds.clone()
    };
    assert_eq!(
        request(&app_service, &named(None, Some("o"), None)),
        "http://127.0.0.1:41/msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fstorage.azure.com&principal_id=o"
    );
    let arc = IdentityEndpoints { identity_header: None, imds_endpoint: Some("x".into()), ..app_service.clone() };
    assert!(request(&arc, &none).contains("api-version=2020-06-01"));
    let of_volume = IdentityEndpoints { msi_endpoint: Some("http://10.0.0.1".into()), ..app_service };
    assert!(request(&of_volume, &none).starts_with("http://10.0.0.1/metadata/identity/oauth2/token?"));
    let old = IdentityEndpoints { msi_secret: Some("s".into()), ..of_volume };
    assert!(request(&old, &named(Some("c"), None, None)).contains("api-version=2017-09-01"));
}

#[test]
fn identities_that_cannot_be_chosen_are_refused_before_any_request() {
    let new = |endpoints: &IdentityEndpoints, id: &IdentityId| {
        ManagedIdentity::new(http(), endpoints, id).unwrap_err().to_string()
    };
    let several = new(&IdentityEndpoints::default(), &named(Some("c"), Some("o"), None));
    assert!(several.contains("one of"), "{several}");
    let arc = IdentityEndpoints {
        identity_endpoint: Some("http://localhost:40342/token".into()),
        imds_endpoint: Some("http://localhost:40342".into()),
        ..IdentityEndpoints::default()
    };
    assert!(new(&arc, &named(Some("c"), None, None)).contains("Arc"));
    let bad = IdentityEndpoints { msi_endpoint: Some("not a url".into()), ..IdentityEndpoints::default() };
    assert!(new(&bad, &IdentityId::default()).contains("MSI_ENDPOINT"));
}

#[test]
fn refusals_say_what_to_do() {
    let refusal = |status: u16, body: &str, id: IdentityId| {
        let identity = ManagedIdentity::new(http(), &IdentityEndpoints::default(), &id).unwrap();
        let answer = Answer { status, headers: reqwest::header::HeaderMap::new(), text: body.to_owned() };
        identity.refusal("managed identity", &answer)
    };
    let none = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
    assert!(refusal(400, none, IdentityId::default()).reason.contains("no identity is assigned"));
    assert!(refusal(400, none, named(Some("c"), None, None)).reason.contains("--identities"));
    let several = r#"{"error":"invalid_request","error_description":"Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request"}"#;
    assert!(refusal(400, several, IdentityId::default()).reason.contains("name one"));
    for status in [404, 410, 429, 500, 503] {
        assert_eq!(refusal(status, "", IdentityId::default()).kind, TokenErrorKind::Busy, "{status}");
    }
    assert_eq!(refusal(400, none, IdentityId::default()).kind, TokenErrorKind::Refused);
}
