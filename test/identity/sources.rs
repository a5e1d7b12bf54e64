//! Each source signs in and reads.

use std::{
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use blob_emulator::{ClientCertificate, IdentityService, Role};

use crate::{CLIENT, PRINCIPAL, Realm, SECRET, TENANT};

#[test]
fn a_service_principal_with_its_secret_mounts_and_reads() {
    let realm = Realm::new();
    let log = realm.reads(&[], &PRINCIPAL);
    assert!(log.contains("signing in with service principal"), "the choice is logged: {log}");
    // blobfuse's names, picked by blobfuse's variable.
    let blobfuse = [
        ("AZURE_STORAGE_AUTH_TYPE", "spn"),
        ("AZURE_STORAGE_SPN_CLIENT_ID", CLIENT),
        ("AZURE_STORAGE_SPN_TENANT_ID", TENANT),
        ("AZURE_STORAGE_SPN_CLIENT_SECRET", SECRET),
    ];
    realm.reads(&[], &blobfuse);
}

#[test]
fn a_service_principal_with_a_certificate_mounts_and_reads() {
    let realm = Realm::new();
    let certificate = ClientCertificate::generate("reader").unwrap();
    let application = realm.services.tenant(TENANT).application("with-certificate");
    let application = application.certificate(&certificate.certificate).unwrap();
    realm.services.grant(&application.object_id(), Role::BlobDataReader);
    let file = realm.world.path("certificate.pem");
    std::fs::write(&file, certificate.pem()).unwrap();
    let options = format!("client-id=with-certificate,tenant-id={TENANT},certificate-file={}", file.display());
    realm.reads(&["-o", &options], &[]);
    let asked = realm.requests(IdentityService::Authority);
    assert_eq!(asked.last().unwrap().field("assertion.sub"), Some("with-certificate"));
}

#[test]
fn workload_identity_mounts_and_reads_and_takes_the_renewed_token_file() {
    let realm = Realm::new();
    let (cluster, file) = realm.federated();
    let environment =
        [("AZURE_CLIENT_ID", CLIENT), ("AZURE_TENANT_ID", TENANT), ("AZURE_FEDERATED_TOKEN_FILE", &*file)];
    realm.services.token_life(std::time::Duration::from_secs(2));
    let mount = realm.mount(&[], &environment);
    assert_eq!(std::fs::read(mount.path("file")).unwrap(), crate::CONTENT);
    // The kubelet renews the file: the service account now has another name, which is not trusted.
    let stranger = cluster.token("apps", "stranger", "api://AzureADTokenExchange", time::Duration::hours(1));
    std::fs::write(&file, stranger).unwrap();
    let log = mount_log_after_reading(&realm, mount, "apps:stranger");
    assert!(log.contains("az identity federated-credential create"), "{log}");
}

/// Reads until the log has `text`: reading is what makes a mount ask for tokens.
fn mount_log_after_reading(realm: &Realm, mount: harness::Mount, text: &str) -> String {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    for number in 0.. {
        let _ = std::fs::metadata(mount.path(&format!("missing{number}")));
        if mount.log().contains(text) {
            break;
        }
        assert!(std::time::Instant::now() < end, "{text:?} was not logged: {}", mount.log());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let log = mount.unmount().log;
    realm.assert_no_secret(&log);
    log
}

#[test]
fn the_default_chain_takes_the_first_that_gives_a_token_and_says_which() {
    let realm = Realm::new();
    let log = realm.reads(&["-o", "auth=default"], &PRINCIPAL);
    assert!(log.contains("signing in with service principal"), "{log}");
    let (_cluster, file) = realm.federated();
    let workload = [("AZURE_CLIENT_ID", CLIENT), ("AZURE_TENANT_ID", TENANT), ("AZURE_FEDERATED_TOKEN_FILE", &*file)];
    let log = realm.reads(&["-o", "auth=default"], &workload);
    assert!(log.contains("signing in with workload identity"), "{log}");
}

#[test]
fn a_managed_identity_is_asked_for_by_each_of_its_ids_and_never_through_a_proxy() {
    let realm = Realm::new();
    let machine = realm.services.tenant(TENANT).machine();
    let proxy = realm.services.proxy_url();
    let imds = realm.services.imds_url();
    let environment = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", &*imds), ("http_proxy", &*proxy)];
    let one = machine.user_assigned("44444444-4444-4444-4444-444444444444");
    realm.services.grant(&one.object_id, Role::BlobDataReader);
    // The only one needs no name.
    realm.reads(&["-o", "auth=msi"], &environment);
    let _other = machine.user_assigned("55555555-5555-5555-5555-555555555555");
    for option in [
        format!("auth=msi,client-id={}", one.client_id),
        format!("object-id={}", one.object_id),
        format!("resource-id={}", one.resource_id),
    ] {
        realm.reads(&["-o", &option], &environment);
    }
    let blobfuse = [("AZURE_STORAGE_AUTH_TYPE", "MSI"), ("AZURE_STORAGE_IDENTITY_CLIENT_ID", &*one.client_id)];
    realm.reads(&[], &[&environment[..], &blobfuse].concat());
    let asked = realm.requests(IdentityService::ManagedIdentity);
    assert_eq!(asked.len(), 5);
    assert!(asked.iter().all(|request| !request.proxied), "{asked:?}");
}

#[test]
fn app_service_is_asked_in_its_own_way() {
    let realm = Realm::new();
    let identity = realm.services.tenant(TENANT).machine().system_assigned();
    realm.services.grant(&identity.object_id, Role::BlobDataReader);
    let (endpoint, header) = realm.services.app_service();
    realm.reads(&["-o", "auth=msi"], &[("IDENTITY_ENDPOINT", &endpoint), ("IDENTITY_HEADER", &header)]);
}

/// The directory of Arc's agent; what was not there before goes away again.
struct AgentDirectory {
    made: Vec<PathBuf>,
}

impl AgentDirectory {
    const TOKENS: &str = "/var/opt/azcmagent/tokens";

    fn make() -> Self {
        let missing = Path::new(Self::TOKENS).ancestors().take_while(|directory| !directory.exists());
        let made = missing.map(Path::to_owned).collect();
        fs::create_dir_all(Self::TOKENS).unwrap();
        Self { made }
    }
}

impl Drop for AgentDirectory {
    fn drop(&mut self) {
        for directory in &self.made {
            let _ = fs::remove_dir(directory);
        }
    }
}

#[test]
fn azure_arc_is_shown_the_key_that_only_root_reads_and_no_other_file() {
    let directory = AgentDirectory::make();
    let realm = Realm::new();
    let identity = realm.services.tenant(TENANT).machine().system_assigned();
    realm.services.grant(&identity.object_id, Role::BlobDataReader);
    let endpoint = realm.services.arc_endpoint();
    let environment = [("IDENTITY_ENDPOINT", &*endpoint), ("IMDS_ENDPOINT", "http://127.0.0.1:40342")];
    // A false agent that asks for a file elsewhere.
    let said = realm.fails(&["-o", "auth=msi"], &environment);
    assert!(said.contains("outside of /var/opt/azcmagent/tokens: it is not read"), "{said}");
    realm.services.place_arc_key(Path::new(AgentDirectory::TOKENS)).unwrap();
    realm.reads(&["-o", "auth=msi"], &environment);
    let said = realm.fails(&["-o", "auth=msi,client-id=one"], &environment);
    assert!(said.contains("Azure Arc has the machine's own identity alone"), "{said}");
    // The key goes before its directory does.
    drop(realm);
    drop(directory);
}

#[test]
fn whoever_is_signed_in_with_the_azure_cli_mounts_and_reads() {
    let realm = Realm::new();
    let identity = realm.services.tenant(TENANT).machine().system_assigned();
    realm.services.grant(&identity.object_id, Role::BlobDataReader);
    let imds = realm.services.imds_url();
    // A stand-in for `az` that has a token from elsewhere.
    let bin = realm.world.directory("bin");
    let url =
        format!("{imds}/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://storage.azure.com");
    std::fs::write(bin.join("az"), format!("#!/bin/sh\nexec curl -fsS --noproxy '*' -H 'Metadata: true' '{url}'\n"))
        .unwrap();
    std::fs::set_permissions(bin.join("az"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    realm.reads(&["-o", "auth=azcli"], &[("PATH", &path)]);
    let nowhere = [("PATH", &*path), ("MSI_ENDPOINT", "http://127.0.0.1:9")];
    let log = realm.reads(&["-o", "auth=default"], &nowhere);
    assert!(log.contains("signing in with Azure CLI"), "{log}");
}

#[test]
fn a_writer_with_a_token_writes_renames_and_changes_a_part() {
    let realm = Realm::new();
    let mount = realm.mount(&[], &PRINCIPAL);
    let mut expected: Vec<u8> = (0..20_u32 << 20).map(|at| (at / 7) as u8).collect();
    std::fs::write(mount.path("new"), &expected).unwrap();
    // A part of a block: the service copies the rest of it from the version before, in our name.
    let at = (5 << 20) + 3;
    let file = std::fs::OpenOptions::new().write(true).open(mount.path("new")).unwrap();
    file.write_all_at(b"changed", at as u64).unwrap();
    drop(file);
    expected[at..at + 7].copy_from_slice(b"changed");
    std::fs::rename(mount.path("new"), mount.path("moved")).unwrap();
    std::fs::remove_file(mount.path("file")).unwrap();
    mount.unmount();
    let blob = realm.world.emulator().get(realm.world.container(), "moved").unwrap();
    assert!(blob == expected);
    assert!(realm.world.emulator().get(realm.world.container(), "file").is_none());
}

#[test]
fn a_private_ca_is_trusted_by_flag_as_by_variable() {
    let realm = Realm::new();
    let environment: Vec<_> =
        realm.environment(&PRINCIPAL).into_iter().filter(|(name, _)| *name != "SSL_CERT_FILE").collect();
    let ca = realm.services.ca_file().display().to_string();
    let mount = realm.world.mount_as(&realm.url(), &["--ca-file", &ca], &environment);
    assert_eq!(std::fs::read(mount.path("file")).unwrap(), crate::CONTENT);
    mount.unmount();
}
