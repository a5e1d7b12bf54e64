//! Claims about locations: what users write, what is refused and how it is said.

use super::*;

fn parse(text: &str) -> Location {
    Location::parse(text, &LocationHints::default()).unwrap().0
}

fn refused(text: &str) -> String {
    Location::parse(text, &LocationHints::default()).unwrap_err().to_string()
}

#[test]
fn host_style_gives_account_container_and_prefix_in_every_cloud() {
    for host in ["acme.blob.core.windows.net", "acme.blob.core.chinacloudapi.cn", "acme.z22.blob.storage.azure.net"] {
        let location = parse(&format!("https://{host}/logs/a/b/"));
        assert_eq!((location.account(), location.container(), location.prefix()), ("acme", "logs", "a/b/"));
        assert_eq!(location.identity(), format!("{host}/acme/logs"));
    }
}

#[test]
fn path_style_is_recognised_by_address_single_label_or_port() {
    for host in ["127.0.0.1:10000", "[::1]:10000", "localhost:9", "azurite", "azurite.default.svc:10000"] {
        let location = parse(&format!("http://{host}/devstoreaccount1/logs/dir"));
        assert_eq!((location.account(), location.container(), location.prefix()), ("devstoreaccount1", "logs", "dir/"));
        assert_eq!(location.container_url().unwrap().as_str(), format!("http://{host}/devstoreaccount1/logs"));
    }
}

#[test]
fn a_custom_domain_takes_the_account_from_the_hints() {
    let hints = LocationHints { account: Some("acme".into()), ..LocationHints::default() };
    let (location, _) = Location::parse("https://data.example.com/logs/x", &hints).unwrap();
    assert_eq!((location.account(), location.container(), location.prefix()), ("acme", "logs", "x/"));
    assert_eq!(location.to_string(), "https://data.example.com/logs/x/");
}

#[test]
fn a_data_lake_url_is_served_by_the_blob_endpoint_of_the_account() {
    assert_eq!(parse("https://acme.dfs.core.windows.net/logs").host(), "acme.blob.core.windows.net");
}

#[test]
fn a_private_endpoint_is_asked_under_the_name_that_its_certificate_has() {
    let location = parse("https://acme.privatelink.blob.core.windows.net/logs");
    assert_eq!((location.host(), location.account()), ("acme.blob.core.windows.net", "acme"));
    let server = LocationHints {
        account: Some("acme".into()),
        endpoint: Some("acme.privatelink.blob.core.chinacloudapi.cn".into()),
        ..LocationHints::default()
    };
    assert_eq!(Location::parse("logs", &server).unwrap().0.host(), "acme.blob.core.chinacloudapi.cn");
}

#[test]
fn the_secondary_endpoint_is_asked_itself_and_belongs_to_the_same_account() {
    let location = parse("https://acme-secondary.blob.core.windows.net/logs");
    assert_eq!((location.host(), location.account()), ("acme-secondary.blob.core.windows.net", "acme"));
}

#[test]
fn a_bare_container_is_completed_from_the_hints() {
    let account = LocationHints { account: Some("acme".into()), ..LocationHints::default() };
    let (location, _) = Location::parse("logs/a", &account).unwrap();
    assert_eq!(location.to_string(), "https://acme.blob.core.windows.net/logs/a/");
    let china = LocationHints { cloud: Cloud::China, ..account.clone() };
    assert_eq!(Location::parse("logs", &china).unwrap().0.host(), "acme.blob.core.chinacloudapi.cn");
    let stack = LocationHints { endpoint_suffix: Some("local.azurestack.external".into()), ..account.clone() };
    assert_eq!(Location::parse("logs", &stack).unwrap().0.host(), "acme.blob.local.azurestack.external");
    let server = LocationHints { endpoint: Some("pe.example.com".into()), ..account };
    assert_eq!(Location::parse("logs", &server).unwrap().0.to_string(), "https://pe.example.com/logs");
    let emulator = LocationHints { endpoint: Some("127.0.0.1:10000/dev".into()), ..LocationHints::default() };
    let (location, _) = Location::parse("logs", &emulator).unwrap();
    assert_eq!((location.account(), location.to_string().as_str()), ("dev", "http://127.0.0.1:10000/dev/logs"));
}

#[test]
fn a_sas_in_the_url_is_handed_back_apart_and_never_printed() {
    let text = "https://acme.blob.core.windows.net/logs?sv=1&sp=rl&sig=s3cret";
    let (location, sas) = Location::parse(text, &LocationHints::default()).unwrap();
    assert_eq!(sas.unwrap().permissions(), Some("rl"));
    assert!(!format!("{location} {location:?}").contains("s3cret"));
    for bad in ["https://acme.blob.core.windows.net/?sv=1&sig=s3cret", "ftp://u:s3cret@h/c?sig=s3cret"] {
        let error = refused(bad);
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[test]
fn a_bad_url_is_answered_with_the_forms_that_are_right() {
    for bad in ["https://acme.blob.core.windows.net", "http://127.0.0.1:10000/", "ftp://x/y", "http://", "https://:x/c"]
    {
        let error = refused(bad);
        assert!(error.contains("expected https://ACCOUNT.blob.core.windows.net/CONTAINER"), "{bad}: {error}");
    }
    assert!(refused("logs").contains("AZURE_STORAGE_ACCOUNT"));
}

#[test]
fn container_names_are_checked_with_the_rule_in_the_error() {
    for good in ["abc", "a-b-c", "0a1", "$root", "$web", "$logs"] {
        assert_eq!(parse(&format!("https://acme.blob.core.windows.net/{good}")).container(), good);
    }
    let long = "a".repeat(64);
    for bad in ["ab", "Logs", "a--b", "-ab", "ab-", "a_b", "$other", &long] {
        let error = refused(&format!("https://acme.blob.core.windows.net/{bad}"));
        assert!(error.contains("3 to 63 characters"), "{bad}: {error}");
    }
}

#[test]
fn two_different_accounts_are_refused() {
    let hints = LocationHints { account: Some("other".into()), ..LocationHints::default() };
    let error = Location::parse("https://acme.blob.core.windows.net/logs", &hints).unwrap_err();
    assert_eq!(error, LocationError::OtherAccount("acme".into(), "other".into()));
}

#[test]
fn blob_names_reach_the_wire_to_the_letter() {
    let location = parse("https://acme.blob.core.windows.net/logs");
    for (name, path) in [
        ("a/../b", "/logs/a%2F..%2Fb"),
        ("a//b", "/logs/a%2F%2Fb"),
        ("d/", "/logs/d%2F"),
        ("100%25", "/logs/100%2525"),
        ("tab\tlf\n", "/logs/tab%09lf%0A"),
        ("ü ?#+", "/logs/%C3%BC%20%3F%23%2B"),
        ("..a", "/logs/..a"),
    ] {
        assert_eq!(location.blob_url(&BlobName::new(name).unwrap()).unwrap().path(), path);
    }
    assert!(location.blob_url(&BlobName::new("..").unwrap()).is_none());
}
