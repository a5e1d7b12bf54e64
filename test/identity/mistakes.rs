//! Each mistake has a sentence of its own.

use blob_emulator::{Leaf, Role};

use crate::{CLIENT, PRINCIPAL, Realm, SECRET, TENANT};

/// What is wrong, and what the sentence must hold.
struct Case {
    options: &'static str,
    environment: Vec<(&'static str, &'static str)>,
    says: &'static [&'static str],
}

impl Realm {
    /// A mount with these options must fail with a sentence that holds all these words.
    #[track_caller]
    fn assert_says(&self, options: &str, environment: &[(&str, &str)], says: &[&str]) {
        let said = self.fails(&["-o", options], environment);
        for words in says {
            assert!(said.contains(words), "{options}: {words:?} is missing in: {said}");
        }
    }
}

fn principal(changes: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let kept = PRINCIPAL.into_iter().filter(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
    kept.chain(changes.iter().copied()).collect()
}

#[test]
fn what_is_wrong_with_a_principal_is_said_with_its_fix() {
    let realm = Realm::new();
    let expired = realm.services.tenant(TENANT).application("expired").expired_secret(SECRET);
    realm.services.grant(&expired.object_id(), Role::BlobDataReader);
    let _ = realm.services.tenant(TENANT).application("without-role").secret(SECRET);
    for Case { options, environment, says } in [
        Case { options: "auth=spn", environment: vec![], says: &["AZURE_STORAGE_SPN_CLIENT_ID", "client-id"] },
        Case {
            options: "auth=spn",
            environment: vec![("AZURE_CLIENT_ID", CLIENT), ("AZURE_TENANT_ID", TENANT)],
            says: &["AZURE_CLIENT_SECRET"],
        },
        Case {
            options: "auth=spn",
            environment: principal(&[("AZURE_CLIENT_SECRET", "wrong")]),
            says: &["AADSTS7000215", "not its ID"],
        },
        Case {
            options: "auth=spn",
            environment: principal(&[("AZURE_CLIENT_ID", "expired")]),
            says: &["AADSTS7000222", "az ad app credential reset --id expired"],
        },
        Case {
            options: "auth=spn",
            environment: principal(&[("AZURE_CLIENT_ID", "nobody")]),
            says: &["AADSTS700016", "nobody", TENANT],
        },
        Case {
            options: "auth=spn",
            environment: principal(&[("AZURE_TENANT_ID", "33333333-3333-3333-3333-333333333333")]),
            says: &["AADSTS90002", "check the tenant ID"],
        },
        Case {
            options: "auth=spn",
            environment: principal(&[("AZURE_TENANT_ID", "no tenant")]),
            says: &["is no tenant"],
        },
        Case {
            options: "auth=spn",
            environment: principal(&[("AZURE_AUTHORITY_HOST", "http://login.microsoftonline.com")]),
            says: &["is no host of Entra ID", "https://"],
        },
        Case {
            options: "auth=spn",
            environment: principal(&[("AZURE_CLIENT_ID", "without-role")]),
            says: &["AuthorizationPermissionMismatch", "Storage Blob Data"],
        },
    ] {
        realm.assert_says(options, &environment, says);
    }
}

#[test]
fn what_a_way_to_sign_in_lacks_is_named() {
    let realm = Realm::new();
    for Case { options, environment, says } in [
        Case {
            options: "auth=workload_identity",
            environment: principal(&[("AZURE_FEDERATED_TOKEN_FILE", "/no/such/token")]),
            says: &["/no/such/token", "azure.workload.identity/use"],
        },
        Case {
            options: "auth=msi,client-id=a,object-id=b",
            environment: vec![],
            says: &["one of client ID, object ID and resource ID"],
        },
        Case {
            options: "auth=azcli",
            environment: vec![("PATH", "/nonexistent")],
            says: &["no program az in PATH", "az login"],
        },
        Case {
            options: "auth=default",
            environment: vec![("PATH", "/nonexistent"), ("MSI_ENDPOINT", "http://127.0.0.1:9")],
            says: &["environment: ", "workload identity: ", "managed identity: ", "Azure CLI: "],
        },
        Case { options: "auth=kerberos", environment: vec![], says: &["auth=kerberos", "workload_identity"] },
    ] {
        realm.assert_says(options, &environment, says);
    }
}

#[test]
fn a_federated_token_that_does_not_fit_is_told_apart() {
    let realm = Realm::new();
    let (cluster, file) = realm.federated();
    let environment =
        [("AZURE_CLIENT_ID", CLIENT), ("AZURE_TENANT_ID", TENANT), ("AZURE_FEDERATED_TOKEN_FILE", &*file)];
    let (usual, hour) = ("api://AzureADTokenExchange", time::Duration::hours(1));
    for (token, says) in [
        (cluster.token("apps", "stranger", usual, hour), "--subject system:serviceaccount:apps:stranger"),
        (
            cluster.token("apps", "reader", "https://kubernetes.default.svc", hour),
            "audience https://kubernetes.default.svc",
        ),
        (cluster.token("apps", "reader", usual, -hour), "AADSTS700024"),
    ] {
        std::fs::write(&file, token).unwrap();
        let said = realm.fails(&["-o", "auth=workload_identity"], &environment);
        assert!(said.contains(says), "{says:?} is missing in: {said}");
    }
}

#[test]
fn an_identity_that_is_not_assigned_or_not_named_is_told_apart() {
    let realm = Realm::new();
    let imds = realm.services.imds_url();
    let environment = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", &*imds)];
    let machine = realm.services.tenant(TENANT).machine();
    let none = realm.fails(&["-o", "auth=msi"], &environment);
    assert!(none.contains("no identity is assigned"), "{none}");
    let _one = machine.user_assigned("44444444-4444-4444-4444-444444444444");
    let _two = machine.user_assigned("55555555-5555-5555-5555-555555555555");
    let several = realm.fails(&["-o", "auth=msi"], &environment);
    assert!(several.contains("name one"), "{several}");
    let stranger = realm.fails(&["-o", "auth=msi,client-id=nobody"], &environment);
    assert!(stranger.contains("not assigned to the machine"), "{stranger}");
    let nowhere = realm.fails(&["-o", "auth=msi"], &[("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9")]);
    assert!(nowhere.contains("the identity service at 127.0.0.1 does not answer"), "{nowhere}");
}

#[test]
fn a_token_never_goes_over_http() {
    let realm = Realm::new();
    let said = realm.fails_at(&realm.world.url(), &["-o", "auth=spn"], &PRINCIPAL);
    assert!(said.contains("only sent over https"), "{said}");
    assert!(realm.services.requests().is_empty(), "nor is one asked for");
}

#[test]
fn a_ca_that_is_not_trusted_is_named_with_the_flag_that_helps() {
    let realm = Realm::new();
    let without: Vec<_> =
        PRINCIPAL.into_iter().chain([("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")]).collect();
    let said = realm.fails(&["-o", "auth=spn"], &without);
    assert!(said.contains("login.microsoftonline.com") && said.contains("--ca-file"), "{said}");
    realm.services.certify("login.microsoftonline.com", Leaf::WrongName);
    let said = realm.fails(&["-o", "auth=spn"], &PRINCIPAL);
    assert!(said.contains("login.microsoftonline.com") && said.contains("certificate"), "{said}");
}
