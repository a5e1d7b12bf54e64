//! Volumes without a Secret: their key is listed by the resource manager, or stands in a key vault. What was found is used by many,
//! and found anew after a rotation.

use std::{fs, thread, time::Duration};

use blob_emulator::{Cloud, IdentityFault, IdentityFaultKind, IdentityService, Role};
use tonic::Code;

use crate::{CLIENT, CONTENT, Realm, SECRET, TENANT, node::Node, pods::token, rotation::container_sas};

const SUBSCRIPTION: &str = "00000000-0000-0000-0000-00000000000a";
const GROUP: &str = "group";

/// Writes the cloud config of a cluster whose identity is the application of [`CLIENT`].
pub fn cloud_config(realm: &Realm) -> String {
    let file = realm.world.path("azure.json");
    let text = serde_json::json!({
        "cloud": "AzurePublicCloud", "tenantId": TENANT, "subscriptionId": SUBSCRIPTION, "resourceGroup": GROUP,
        "aadClientId": CLIENT, "aadClientSecret": SECRET, "vmType": "vmss",
    });
    fs::write(&file, text.to_string()).unwrap();
    file.display().to_string()
}

pub fn grant(realm: &Realm, role: Role) {
    let application = realm.services.tenant(TENANT).application(CLIENT);
    realm.services.grant(&application.object_id(), role);
}

/// The attributes of every volume here, with these on top.
fn context<'a>(realm: &'a Realm, server: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let account = realm.world.emulator().account();
    let own = [("storageAccount", account), ("containerName", realm.world.container()), ("server", server)];
    own.into_iter().chain(more.iter().copied()).collect()
}

fn server(realm: &Realm) -> String {
    format!("https://{}", Cloud::Public.blob_host(realm.world.emulator().account()))
}

fn asked(realm: &Realm, service: IdentityService) -> usize {
    realm.requests(service).len()
}

#[test]
fn volumes_without_a_secret_use_the_keys_that_the_clusters_identity_lists() {
    let realm = Realm::new();
    grant(&realm, Role::AccountKeyOperator);
    let config = cloud_config(&realm);
    let mut node = Node::start(&realm, &[("AZURE_CREDENTIAL_FILE", &config)]);
    let server = server(&realm);
    for volume in ["one", "two", "three"] {
        node.stage(volume, &context(&realm, &server, &[]), &[]).unwrap();
        assert_eq!(fs::read(node.staging(volume).join("file")).unwrap(), CONTENT);
    }
    assert_eq!(asked(&realm, IdentityService::Arm), 1, "three volumes of one account and identity");

    // Both keys are replaced: the mounts find the new ones by themselves.
    let _ = realm.world.emulator().rotate_key();
    for volume in ["one", "two", "three"] {
        fs::write(node.staging(volume).join(volume), volume).unwrap();
        let blob = realm.world.emulator().get(realm.world.container(), volume).unwrap();
        assert_eq!(blob, volume.as_bytes());
    }
    assert_eq!(node.mounts().len(), 3);

    // What a volume brings along goes first, and one that may only use that is not given more.
    let key = realm.world.emulator().key();
    node.stage("own", &context(&realm, &server, &[]), &[("accountkey", &key)]).unwrap();
    let only = [("getAccountKeyFromSecret", "true")];
    let status = node.stage("none", &context(&realm, &server, &only), &[]).unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    let inline = [("csi.storage.k8s.io/ephemeral", "true")];
    let status = node.stage("inline", &context(&realm, &server, &inline), &[]).unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    realm.assert_no_secret(&node.log());
    assert!(!node.log().contains(&key), "the key stands in the log");
}

#[test]
fn a_key_or_sas_in_a_key_vault_is_used_in_its_newest_version() {
    let realm = Realm::new();
    grant(&realm, Role::KeyVaultSecretsUser);
    let config = cloud_config(&realm);
    let vault = realm.services.vault("acme");
    let first = vault.secret("storage-key", &realm.world.emulator().key());
    let mut node = Node::start(&realm, &[("AZURE_CREDENTIAL_FILE", &config)]);
    let (server, url) = (server(&realm), vault.url(Cloud::Public));
    let newest = [("keyVaultURL", &*url), ("keyVaultSecretName", "storage-key")];
    node.stage("newest", &context(&realm, &server, &newest), &[]).unwrap();
    let pinned = [newest[0], newest[1], ("keyVaultSecretVersion", &*first)];
    node.stage("pinned", &context(&realm, &server, &pinned), &[]).unwrap();
    for volume in ["newest", "pinned"] {
        assert_eq!(fs::read(node.staging(volume).join("file")).unwrap(), CONTENT);
    }
    // The vault first, then the account, as its rotation does. Who asked for a version keeps it.
    let key = realm.world.emulator().rotate_key();
    let _ = vault.secret("storage-key", &key);
    fs::write(node.staging("newest").join("written"), "with the new key").unwrap();
    assert_eq!(realm.world.emulator().get(realm.world.container(), "written").unwrap(), b"with the new key");
    let refused = fs::File::create(node.staging("pinned").join("other")).and_then(|file| file.sync_all()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);

    let sas = container_sas(&realm.world, &key, "rl", "2099-01-01T00:00:00Z");
    let _ = vault.secret("storage-sas", &sas);
    let by_sas = [("keyVaultURL", &*url), ("keyVaultSecretName", "storage-sas")];
    node.stage("sas", &context(&realm, &server, &by_sas), &[]).unwrap();
    assert_eq!(fs::read(node.staging("sas").join("file")).unwrap(), CONTENT);

    let inline = [newest[0], newest[1], ("csi.storage.k8s.io/ephemeral", "true")];
    let status = node.stage("inline", &context(&realm, &server, &inline), &[]).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("inline volumes"), "{status}");
    realm.assert_no_secret(&node.log());
    assert!(!node.log().contains(&key) && !node.log().contains("sig="), "a secret stands in the log");
}

#[test]
fn a_pods_identity_lists_the_keys_where_the_volume_asks_for_a_key() {
    let realm = Realm::new();
    let (cluster, _) = realm.federated();
    let mut node = Node::start(&realm, &[]);
    let attributes = [
        ("clientID", CLIENT),
        ("AzureStorageAuthType", "key"),
        ("subscriptionID", SUBSCRIPTION),
        ("resourceGroup", GROUP),
    ];
    let request = node.request("pod", &token(&cluster, "reader", 3600), &attributes);
    let status = node.publish(request.clone()).unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains("Storage Account Key Operator Service Role"), "{status}");
    grant(&realm, Role::AccountKeyOperator);
    // A refusal is taken without asking again for a while, as long as the identity is the same.
    thread::sleep(Duration::from_secs(11));
    node.publish(request).unwrap();
    assert_eq!(fs::read(node.target("pod").join("file")).unwrap(), CONTENT);
    let shown = realm.requests(IdentityService::Arm);
    assert_eq!(shown.len(), 2, "{shown:?}");
}

#[test]
fn a_service_that_wants_to_be_left_alone_is_left_alone() {
    let realm = Realm::new();
    grant(&realm, Role::AccountKeyOperator);
    let config = cloud_config(&realm);
    let mut node = Node::start(&realm, &[("AZURE_CREDENTIAL_FILE", &config)]);
    let server = server(&realm);
    let busy = IdentityFaultKind::Status { status: 429, retry_after: Some(Duration::from_secs(600)) };
    realm.services.fault(IdentityFault::new(IdentityService::Arm, busy));
    for volume in ["one", "two", "one"] {
        let status = node.stage(volume, &context(&realm, &server, &[]), &[]).unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("429"), "{status}");
    }
    assert_eq!(asked(&realm, IdentityService::Arm), 1, "it asked not to be asked again");
    assert!(node.mounts().is_empty());

    // A short pause is waited for.
    realm.services.clear_faults();
    let vault = realm.services.vault("acme");
    let _ = vault.secret("key", &realm.world.emulator().key());
    grant(&realm, Role::KeyVaultSecretsUser);
    let busy = IdentityFaultKind::Status { status: 429, retry_after: Some(Duration::from_secs(1)) };
    realm.services.fault(IdentityFault::new(IdentityService::KeyVault, busy).times(1));
    let url = vault.url(Cloud::Public);
    let in_vault = [("keyVaultURL", &*url), ("keyVaultSecretName", "key")];
    node.stage("vault", &context(&realm, &server, &in_vault), &[]).unwrap();
    assert_eq!(asked(&realm, IdentityService::KeyVault), 2);
}
