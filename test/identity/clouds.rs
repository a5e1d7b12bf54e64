//! Requests go to the host, authority and audience of the right cloud.

use blob_emulator::{Cloud, IdentityService, Role};

use crate::{CLIENT, CONTENT, PRINCIPAL, Realm, SECRET, TENANT};

const ALL: [(Cloud, &str); 4] = [
    (Cloud::Public, "AzurePublicCloud"),
    (Cloud::UsGovernment, "AzureUSGovernment"),
    (Cloud::China, "AzureChinaCloud"),
    (Cloud::Germany, "AzureGermanCloud"),
];

impl Realm {
    /// A tenant of this cloud alone, with the application.
    fn in_cloud(&self, cloud: Cloud) {
        let application = self.services.tenant_in(cloud, TENANT).application(CLIENT).secret(SECRET);
        self.services.grant(&application.object_id(), Role::BlobDataContributor);
        self.services.clear_requests();
    }

    /// Everything went to this cloud.
    #[track_caller]
    fn assert_all_in(&self, cloud: Cloud) {
        let asked = self.requests(IdentityService::Authority);
        assert!(!asked.is_empty());
        for request in &asked {
            assert_eq!(request.host, cloud.authority_host(), "{request:?}");
            assert_eq!(request.sni.as_deref(), Some(cloud.authority_host()), "{request:?}");
            assert_eq!(request.path, format!("/{TENANT}/oauth2/v2.0/token"));
            assert_eq!(request.field("scope"), Some("https://storage.azure.com/.default"));
        }
        let blob = cloud.blob_host(self.world.emulator().account());
        let stored = self.requests(IdentityService::Storage);
        assert!(!stored.is_empty());
        for request in &stored {
            assert!(request.host == blob || request.host == blob.replace(".blob.", ".dfs."), "{request:?}");
            assert_eq!(request.sni.as_deref(), Some(request.host.as_str()), "{request:?}");
        }
    }
}

#[test]
fn the_endpoint_tells_the_cloud() {
    let realm = Realm::new();
    for (cloud, _) in ALL {
        realm.in_cloud(cloud);
        let mount = realm.world.mount_as(&realm.url_in(cloud), &[], &realm.environment(&PRINCIPAL));
        assert_eq!(std::fs::read(mount.path("file")).unwrap(), CONTENT);
        mount.unmount();
        realm.assert_all_in(cloud);
    }
}

#[test]
fn the_name_of_the_cloud_or_its_authority_tells_the_endpoint() {
    let realm = Realm::new();
    for (cloud, name) in ALL {
        realm.in_cloud(cloud);
        let account = realm.world.emulator().account();
        let container = realm.world.container();
        let by_name = format!("cloud={name}");
        let args = ["--account", account, "-o", &by_name];
        let mount = realm.world.mount_as(container, &args, &realm.environment(&PRINCIPAL));
        assert_eq!(std::fs::read(mount.path("file")).unwrap(), CONTENT);
        mount.unmount();
        let authority = format!("https://{}/", cloud.authority_host());
        let mut environment = PRINCIPAL.to_vec();
        environment.push(("AZURE_AUTHORITY_HOST", &authority));
        let mount = realm.world.mount_as(container, &args[..2], &realm.environment(&environment));
        assert_eq!(std::fs::read(mount.path("file")).unwrap(), CONTENT);
        mount.unmount();
        realm.assert_all_in(cloud);
    }
}

#[test]
fn a_private_endpoint_is_asked_by_the_name_of_its_certificate() {
    let realm = Realm::new();
    let account = realm.world.emulator().account();
    let url = format!("https://{account}.privatelink.blob.core.windows.net/{}", realm.world.container());
    let mount = realm.world.mount_as(&url, &[], &realm.environment(&PRINCIPAL));
    assert_eq!(std::fs::read(mount.path("file")).unwrap(), CONTENT);
    mount.unmount();
    realm.assert_all_in(Cloud::Public);
}
