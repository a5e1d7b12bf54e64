//! User-delegation SAS, and accounts that allow nothing else.

use base64::{Engine, engine::general_purpose::STANDARD};
use blob_emulator::{Role, Settings};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::world::{CLIENT, TENANT, World};

const VERSION: &str = "2023-11-03";

fn time_in(minutes: i64) -> String {
    let at = OffsetDateTime::now_utc() + Duration::minutes(minutes);
    at.replace_nanosecond(0).unwrap().format(&Rfc3339).unwrap()
}

fn between<'a>(text: &'a str, name: &str) -> &'a str {
    let rest = text.split(&format!("<{name}>")).nth(1).unwrap_or_else(|| panic!("no {name} in {text}"));
    rest.split('<').next().unwrap()
}

/// Asks for a key, and signs a SAS for a container with it.
fn sas(world: &World, permissions: &str) -> String {
    let body = format!("<KeyInfo><Start>{}</Start><Expiry>{}</Expiry></KeyInfo>", time_in(-5), time_in(60));
    let got = world.storage("POST", "/?restype=service&comp=userdelegationkey", &world.token(), &body);
    assert_eq!(got.status, 200, "{}", got.text);
    let names = ["SignedOid", "SignedTid", "SignedStart", "SignedExpiry", "SignedService", "SignedVersion"];
    let key: Vec<&str> = names.into_iter().map(|name| between(&got.text, name)).collect();
    let (start, expiry) = (time_in(-4), time_in(30));
    let mut fields = vec![permissions, &start, &expiry, "/blob/devstoreaccount1/box"];
    fields.extend(&key);
    fields.extend(["", "", "", "", "https", VERSION, "c", "", "", "", "", "", "", ""]);
    let value = STANDARD.decode(between(&got.text, "Value")).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&value).unwrap();
    mac.update(fields.join("\n").as_bytes());
    let signature =
        STANDARD.encode(mac.finalize().into_bytes()).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let [oid, tid, key_start, key_expiry, service, version] = key.try_into().unwrap();
    format!(
        "sv={VERSION}&sr=c&sp={permissions}&st={start}&se={expiry}&spr=https&skoid={oid}&sktid={tid}&skt={key_start}\
         &ske={key_expiry}&sks={service}&skv={version}&sig={signature}"
    )
}

fn world() -> World {
    let world = World::with(Settings { shared_key_access: false, ..Settings::default() });
    let _ = world.identity.tenant(TENANT).application(CLIENT).secret("s3cret");
    world.identity.grant(CLIENT, Role::BlobDataReader);
    world
}

#[test]
fn a_delegated_sas_grants_what_it_says_and_its_principal_may() {
    let world = world();
    let sas = sas(&world, "rw");
    let url = |sas: &str| format!("https://devstoreaccount1.blob.core.windows.net/box/a?{sas}");
    assert_eq!(world.get(&url(&sas), &[]).text, "content");
    let put = world.send("PUT", &url(&sas), &[("x-ms-blob-type", "BlockBlob")], "x");
    assert_eq!((put.status, put.header("x-ms-error-code")), (403, "AuthorizationPermissionMismatch"));
    world.identity.grant(CLIENT, Role::BlobDataContributor);
    assert_eq!(world.send("PUT", &url(&sas), &[("x-ms-blob-type", "BlockBlob")], "x").status, 201);
    let forged = world.get(&url(&sas.replace("sp=rw", "sp=rwd")), &[]);
    assert_eq!((forged.status, forged.header("x-ms-error-code")), (403, "AuthenticationFailed"));
    let plain = format!("{}/box/a?{sas}", world.emulator.endpoint());
    let plain = world.try_send(&world.direct_client(), "GET", &plain, &[], "").unwrap();
    assert_eq!(plain.header("x-ms-error-code"), "AuthorizationProtocolMismatch");
    world.identity.revoke(CLIENT);
    assert_eq!(world.get(&url(&sas), &[]).header("x-ms-error-code"), "AuthorizationPermissionMismatch");
}

#[test]
fn an_account_may_refuse_its_own_keys_and_what_they_sign() {
    let world = world();
    let url = "https://devstoreaccount1.blob.core.windows.net/box/a";
    for (url, headers) in [
        (url.to_owned(), vec![("authorization", "SharedKey devstoreaccount1:bm9uc2Vuc2U=")]),
        (format!("{url}?sv=2023-11-03&ss=b&srt=o&sp=r&se=2040-01-01&sig=bm9uc2Vuc2U%3D"), vec![]),
    ] {
        let got = world.get(&url, &headers);
        assert_eq!((got.status, got.header("x-ms-error-code")), (403, "KeyBasedAuthenticationNotPermitted"));
    }
}

#[test]
fn a_firewall_shuts_out_the_best_credential() {
    let world = world();
    let token = world.token();
    assert_eq!(world.storage("GET", "/box/a", &token, "").status, 200);
    world.emulator.settings(|settings| settings.firewall = true);
    let got = world.storage("GET", "/box/a", &token, "");
    assert_eq!((got.status, got.header("x-ms-error-code")), (403, "AuthorizationFailure"));
}
