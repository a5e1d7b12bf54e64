//! The token endpoint: every credential, every refusal.

use std::time::Duration as Wait;

use aws_lc_rs::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest},
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use blob_emulator::{ClientCertificate, Cloud, IdentityFault, IdentityFaultKind, IdentityService, subject_of};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Value, json};
use time::Duration;

use super::world::{CLIENT, STORAGE, TENANT, World, claims};

const AUDIENCE: &str = "api://AzureADTokenExchange";
const ISSUER: &str = "https://eastus.oic.prod-aks.azure.com/t/c/";
const BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

#[test]
fn a_secret_is_worth_a_token_of_the_real_shape() {
    let world = World::start();
    let application = world.identity.tenant(TENANT).application(CLIENT).secret("s3cret");
    world.identity.token_life(Wait::from_secs(3));
    let got = world.ask(TENANT, &[("client_secret", "s3cret")]).json();
    assert_eq!((got["token_type"].as_str(), got["expires_in"].as_u64()), (Some("Bearer"), Some(3)));
    let token = claims(got["access_token"].as_str().unwrap());
    assert_eq!(token["aud"], "https://storage.azure.com");
    assert_eq!(token["iss"], format!("https://sts.windows.net/{TENANT}/"));
    assert_eq!(
        (token["appid"].as_str(), token["oid"].as_str()),
        (Some(CLIENT), Some(application.object_id().as_str()))
    );
    assert_eq!(token["exp"].as_i64().unwrap() - token["iat"].as_i64().unwrap(), 3);
}

#[test]
fn the_older_endpoint_takes_a_resource_in_place_of_a_scope() {
    let world = World::start();
    let _ = world.identity.tenant(TENANT).application(CLIENT).secret("s3cret");
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", CLIENT),
        ("client_secret", "s3cret"),
        ("resource", "https://management.azure.com/"),
    ];
    let got = world.post(&format!("https://login.microsoftonline.com/{TENANT}/oauth2/token"), &form);
    assert_eq!(claims(got.json()["access_token"].as_str().unwrap())["aud"], "https://management.azure.com/");
}

#[test]
fn what_is_wrong_with_a_request_has_the_services_code() {
    let world = World::start();
    let tenant = world.identity.tenant(TENANT);
    let _ = tenant.application(CLIENT).secret("s3cret").expired_secret("old");
    let secret = ("client_secret", "s3cret");
    for (form, status, code) in [
        (vec![("client_secret", "wrong")], 401, 7_000_215),
        (vec![("client_secret", "old")], 401, 7_000_222),
        (vec![], 401, 7_000_218),
        (vec![secret, ("client_id", "unknown")], 400, 700_016),
        (vec![secret, ("client_id", "")], 400, 900_144),
        (vec![secret, ("grant_type", "password")], 400, 70_003),
        (vec![secret, ("scope", "https://storage.azure.com")], 400, 1_002_012),
        (vec![secret, ("scope", "https://graph.example/.default")], 400, 500_011),
        (vec![secret, ("scope", "https://management.chinacloudapi.cn/.default")], 400, 500_011),
        (vec![("client_assertion", "x"), ("client_assertion_type", BEARER)], 401, 50_027),
    ] {
        let got = world.ask(TENANT, &form);
        assert_eq!((got.status, got.code()), (status, code), "{form:?}: {}", got.text);
    }
    let body = world.ask(TENANT, &[("client_secret", "wrong")]).json();
    for field in ["error", "timestamp", "trace_id", "correlation_id", "error_uri"] {
        assert!(body[field].is_string(), "{field}");
    }
    assert_eq!(world.ask("00000000-0000-0000-0000-000000000000", &[secret]).code(), 90_002);
    assert_eq!(world.ask("contoso", &[secret]).code(), 900_023);
    let _ = world.identity.tenant_in(Cloud::China, TENANT);
    assert_eq!(world.ask(TENANT, &[secret]).code(), 90_002, "the tenant is in another cloud");
}

#[test]
fn a_federated_token_is_checked_by_issuer_audience_subject_time_and_signature() {
    let world = World::start();
    let cluster = world.identity.cluster(ISSUER).unwrap();
    let ask =
        |assertion: &str| world.ask(TENANT, &[("client_assertion", assertion), ("client_assertion_type", BEARER)]);
    let hour = Duration::hours(1);
    let good = cluster.token("apps", "reader", AUDIENCE, hour);
    let application = world.identity.tenant(TENANT).application(CLIENT);
    assert_eq!(ask(&good).code(), 70_025);
    let _ = application.federated(ISSUER, &subject_of("apps", "reader"));
    assert_eq!(ask(&good).status, 200);
    assert_eq!(ask(&cluster.token("apps", "writer", AUDIENCE, hour)).code(), 700_213);
    assert_eq!(ask(&cluster.token("apps", "Reader", AUDIENCE, hour)).code(), 7_002_138);
    assert_eq!(ask(&cluster.token("apps", "reader", "https://kubernetes.default", hour)).code(), 700_212);
    assert_eq!(ask(&cluster.token("apps", "reader", AUDIENCE, -hour)).code(), 700_024);
    let other = world.identity.cluster("https://other.example").unwrap();
    assert_eq!(ask(&other.token("apps", "reader", AUDIENCE, hour)).code(), 700_211);
    let (signed, _) = good.rsplit_once('.').unwrap();
    let (_, signature) =
        other.token("x", "y", "z", hour).rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(ask(&format!("{signed}.{signature}")).code(), 5_000_811);
    let last = world.identity.requests().pop().unwrap();
    assert_eq!(last.field("assertion.sub"), Some(subject_of("apps", "reader").as_str()));
    assert_eq!((last.field("scope"), last.status), (Some(STORAGE), 401));
    assert!(!format!("{last:?}").contains(&signature), "a printed record holds a secret");
}

/// An assertion as MSAL makes it.
fn assertion(certificate: &ClientCertificate, modern: bool, claims: &Value) -> String {
    let der = CertificateDer::from_pem_slice(certificate.certificate.as_bytes()).unwrap();
    let hash = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let header = if modern {
        json!({ "typ": "JWT", "alg": "PS256", "x5t#S256": hash(digest(&SHA256, &der).as_ref()) })
    } else {
        json!({ "typ": "JWT", "alg": "RS256", "x5t": hash(digest(&SHA1_FOR_LEGACY_USE_ONLY, &der).as_ref()) })
    };
    let signed = format!("{}.{}", hash(header.to_string().as_bytes()), hash(claims.to_string().as_bytes()));
    let key = PrivatePkcs8KeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
    let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
    let mut signature = vec![0; key.public_modulus_len()];
    let padding: &'static dyn RsaEncoding = if modern { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
    key.sign(padding, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", hash(&signature))
}

#[test]
fn a_certificate_is_checked_by_thumbprint_signature_and_claims() {
    let world = World::start();
    let (ours, other) = (ClientCertificate::generate("ours").unwrap(), ClientCertificate::generate("other").unwrap());
    let _ = world.identity.tenant(TENANT).application(CLIENT).certificate(&ours.pem()).unwrap();
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let good = json!({
        "aud": format!("https://login.microsoftonline.com/{TENANT}/v2.0"), "iss": CLIENT, "sub": CLIENT, "nbf": now,
        "exp": now + 600, "jti": "1",
    });
    let ask =
        |assertion: &str| world.ask(TENANT, &[("client_assertion", assertion), ("client_assertion_type", BEARER)]);
    for modern in [false, true] {
        let got = ask(&assertion(&ours, modern, &good));
        assert_eq!(got.status, 200, "{}", got.text);
    }
    let got = ask(&assertion(&other, false, &good));
    assert_eq!((got.status, got.code()), (401, 700_027));
    assert!(got.text.contains("[Reason - The key was not found., Thumbprint of key used by client: '"));
    let (signed, _) =
        assertion(&ours, false, &good).rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(ask(&format!("{signed}.AAAA")).code(), 700_027);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        ask(&assertion(&ours, false, &claims)).code()
    };
    assert_eq!(with("aud", json!("https://elsewhere.example")), 700_023);
    assert_eq!(with("sub", json!("somebody else")), 700_021);
    assert_eq!(with("exp", json!(now - 60)), 700_024);
}

#[test]
fn faults_strike_as_often_as_they_say() {
    let world = World::start();
    let _ = world.identity.tenant(TENANT).application(CLIENT).secret("s3cret");
    let secret = [("client_secret", "s3cret")];
    let add = |kind| world.identity.fault(IdentityFault::new(IdentityService::Authority, kind).times(1));
    add(IdentityFaultKind::Status { status: 429, retry_after: Some(Wait::from_secs(7)) });
    let got = world.ask(TENANT, &secret);
    assert_eq!((got.status, got.header("retry-after")), (429, "7"));
    add(IdentityFaultKind::Status { status: 503, retry_after: None });
    assert_eq!(world.ask(TENANT, &secret).status, 503);
    add(IdentityFaultKind::Refuse(70_021));
    let got = world.ask(TENANT, &secret);
    assert_eq!((got.status, got.code()), (400, 70_021));
    add(IdentityFaultKind::Drop);
    let url = format!("https://login.microsoftonline.com/{TENANT}/v2.0/.well-known/openid-configuration");
    assert!(world.try_send(&world.client(), "GET", &url, &[], "").is_err());
    add(IdentityFaultKind::Slow(Wait::from_millis(50)));
    assert_eq!(world.ask(TENANT, &secret).status, 200);
    assert_eq!(world.ask(TENANT, &secret).status, 200);
    let statuses: Vec<u16> = world.identity.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [429, 503, 400, 0, 200, 200]);
}
