//! A controller without Secrets: accounts are found or made through the resource manager, keys are kept for the nodes, and what
//! carries no secret is answered in the driver's own name.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::net::UnixStream,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use azblob_csi::csi::proto::v1::{
    CapacityRange, ControllerGetCapabilitiesRequest, ControllerGetVolumeRequest, CreateVolumeRequest,
    DeleteVolumeRequest, GetCapacityRequest, ListVolumesRequest, Volume, VolumeContentSource,
    controller_client::ControllerClient,
    volume_content_source::{self, VolumeSource},
};
use blob_emulator::{Cloud, IdentityFault, IdentityFaultKind, IdentityService, KubernetesApi, Role};
use serde_json::json;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::{Realm, lookups, node::capability};

const STARTED_WITHIN: Duration = Duration::from_secs(60);

/// A controller plugin. Its process ends with it.
struct Controller<'a> {
    realm: &'a Realm,
    child: Child,
    runtime: tokio::runtime::Runtime,
    client: ControllerClient<Channel>,
}

impl<'a> Controller<'a> {
    #[track_caller]
    fn start(realm: &'a Realm, api: &KubernetesApi) -> Self {
        let socket = realm.world.path("controller.sock");
        let endpoint = format!("unix://{}", socket.display());
        let account = api.service_account().display().to_string();
        let args = ["--log-level", "debug", "controller", "--endpoint", &endpoint, "--service-account-dir", &account];
        let (config, port) = (lookups::cloud_config(realm), api.port().to_string());
        let environment = [
            ("AZURE_CREDENTIAL_FILE", config.as_str()),
            ("KUBERNETES_SERVICE_HOST", api.host()),
            ("KUBERNETES_SERVICE_PORT", port.as_str()),
        ];
        let mut command = realm.world.command_as(&args, &realm.environment(&environment));
        let log = fs::File::create(realm.world.path("controller.log")).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let end = Instant::now() + STARTED_WITHIN;
        while UnixStream::connect(&socket).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "the controller has ended");
            assert!(Instant::now() < end, "the controller does not serve");
            thread::sleep(Duration::from_millis(10));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client =
            runtime.block_on(async { ControllerClient::new(Endpoint::from_shared(endpoint).unwrap().connect_lazy()) });
        Self { realm, child, runtime, client }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.realm.world.path("controller.log")).unwrap()
    }

    fn create(&mut self, name: &str, parameters: &[(&str, &str)]) -> Result<Volume, Status> {
        self.copy(name, parameters, None)
    }

    /// A volume that is a copy of another.
    fn copy(&mut self, name: &str, parameters: &[(&str, &str)], of: Option<&Volume>) -> Result<Volume, Status> {
        let of = of.map(|volume| VolumeSource { volume_id: volume.volume_id.clone() });
        let request = CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(CapacityRange { required_bytes: 1 << 30, limit_bytes: 0 }),
            volume_capabilities: vec![capability()],
            parameters: parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            volume_content_source: of
                .map(|of| VolumeContentSource { r#type: Some(volume_content_source::Type::Volume(of)) }),
            ..CreateVolumeRequest::default()
        };
        let made = self.runtime.block_on(self.client.create_volume(request))?;
        Ok(made.into_inner().volume.unwrap())
    }

    fn delete(&mut self, volume: &Volume) {
        let request = DeleteVolumeRequest { volume_id: volume.volume_id.clone(), secrets: BTreeMap::new() };
        self.runtime.block_on(self.client.delete_volume(request)).unwrap();
    }

    /// Requests to the resource manager with this method.
    fn asked(&self, method: &str) -> usize {
        self.realm.requests(IdentityService::Arm).iter().filter(|request| request.method == method).count()
    }
}

impl Drop for Controller<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_account_is_found_or_made_and_its_key_is_kept_for_the_nodes() {
    let realm = Realm::new();
    let api = KubernetesApi::start().unwrap();
    let mut controller = Controller::start(&realm, &api);
    let refused = controller.create("pvc-0", &[]).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("Storage Account Contributor"), "{refused}");
    lookups::grant(&realm, Role::AccountContributor);
    // A refusal is taken without asking again for a while.
    thread::sleep(Duration::from_secs(11));

    let account = realm.world.emulator().account();
    let claim = ("csi.storage.k8s.io/pvc/namespace", "apps");
    let found = controller.create("pvc-1", &[claim]).unwrap();
    assert!(found.volume_id.starts_with(&format!("#{account}#pvc-1#")), "{}", found.volume_id);
    let key = realm.world.emulator().key();
    let secret = api.secret("apps", &format!("azure-storage-account-{account}-secret")).unwrap();
    assert_eq!(secret["azurestorageaccountkey"], key);
    assert!(realm.world.emulator().containers().contains(&"pvc-1".to_owned()));

    let (listed, made) = (controller.asked("GET"), controller.asked("PUT"));
    controller.create("pvc-2", &[claim]).unwrap();
    assert_eq!((controller.asked("GET"), controller.asked("PUT")), (listed, made), "found a moment ago");

    let place = ("location", "West Europe");
    let premium =
        [place, ("skuName", "Premium_LRS"), ("tags", "team=a"), ("softDeleteBlobs", "7"), ("storeAccountKey", "false")];
    let of_class = controller.create("pvc-3", &premium).unwrap();
    let name = of_class.volume_id.split('#').nth(1).unwrap().to_owned();
    assert!(name.starts_with("fuse") && name.len() == 24, "{name}");
    assert!(api.secret("default", &format!("azure-storage-account-{name}-secret")).is_none());
    let again = controller.create("pvc-3", &premium).unwrap();
    assert_eq!(again.volume_id, of_class.volume_id, "a repeated call makes no second account");
    assert_eq!(controller.asked("PUT"), made + 2, "the account, and what its Blob service keeps");
    // To another account and back: each blob is opened by a SAS that its account's key signs.
    realm.world.emulator().put("pvc-1", "file", "content", &[]).unwrap();
    let there = controller.copy("pvc-4", &premium, Some(&found)).unwrap();
    assert_eq!(there.volume_id.split('#').nth(1), Some(&*name));
    controller.copy("pvc-5", &[claim], Some(&there)).unwrap();
    assert_eq!(realm.world.emulator().get("pvc-5", "file").unwrap(), b"content");
    for volume in [&found, &of_class] {
        controller.delete(volume);
    }
    assert!(!realm.world.emulator().containers().contains(&"pvc-1".to_owned()));
    realm.assert_no_secret(&controller.log());
    assert!(!controller.log().contains(&key), "the key stands in the log");
}

#[test]
fn a_resource_manager_that_wants_to_be_left_alone_is_asked_for_no_account() {
    let realm = Realm::new();
    lookups::grant(&realm, Role::AccountContributor);
    let api = KubernetesApi::start().unwrap();
    let mut controller = Controller::start(&realm, &api);
    let busy = IdentityFaultKind::Status { status: 429, retry_after: Some(Duration::from_secs(600)) };
    realm.services.fault(IdentityFault::new(IdentityService::Arm, busy));
    for volume in ["pvc-1", "pvc-2", "pvc-1"] {
        let status = controller.create(volume, &[]).unwrap_err();
        assert!(status.code() == Code::Unavailable && status.message().contains("429"), "{status}");
    }
    assert_eq!(controller.asked("GET"), 1);
}

#[test]
fn what_carries_no_secret_is_answered_from_persistent_volumes() {
    let realm = Realm::new();
    lookups::grant(&realm, Role::AccountKeyOperator);
    let api = KubernetesApi::start().unwrap();
    let (account, container) = (realm.world.emulator().account(), realm.world.container());
    let server = format!("https://{}", Cloud::Public.blob_host(account));
    for (name, driver, container) in [
        ("pv1", "blob.csi.azure.com", container),
        ("pv2", "other.csi", container),
        ("pv3", "blob.csi.azure.com", "gone"),
        ("pv4", "blob.csi.azure.com", container),
    ] {
        api.add_volume(json!({
            "metadata": { "name": name, "uid": name },
            "spec": {
                "capacity": { "storage": "5Gi" },
                "csi": {
                    "driver": driver, "volumeHandle": format!("group#{account}#{container}#{name}##"),
                    "volumeAttributes": { "server": server },
                },
            },
        }));
    }
    let mut controller = Controller::start(&realm, &api);
    let Controller { runtime, client, .. } = &mut controller;
    let offered = client.controller_get_capabilities(ControllerGetCapabilitiesRequest {});
    assert_eq!(runtime.block_on(offered).unwrap().into_inner().capabilities.len(), 11);
    let mut list = |token: &str, most| {
        let request = ListVolumesRequest { max_entries: most, starting_token: token.to_owned() };
        runtime.block_on(client.list_volumes(request)).map(tonic::Response::into_inner)
    };
    let all = list("", 0).unwrap();
    assert_eq!(all.entries.len(), 3, "those of this driver");
    let volume = all.entries[0].volume.clone().unwrap();
    assert_eq!((volume.capacity_bytes, &volume.volume_context["server"]), (5 << 30, &server));
    let first = list("", 2).unwrap();
    let rest = list(&first.next_token, 0).unwrap();
    assert_eq!([first.entries, rest.entries].concat(), all.entries);
    assert_eq!(list("invalid-token", 0).unwrap_err().code(), Code::Aborted);

    let mut look = |name: &str, container: &str| {
        let volume_id = format!("group#{account}#{container}#{name}##");
        let found = runtime.block_on(client.controller_get_volume(ControllerGetVolumeRequest { volume_id }))?;
        Ok::<_, Status>(found.into_inner().status.unwrap().volume_condition.unwrap())
    };
    assert!(!look("pv1", container).unwrap().abnormal);
    let gone = look("pv3", "gone").unwrap();
    assert!(gone.abnormal && gone.message.contains("does not exist"), "{gone:?}");
    assert_eq!(look("pv9", container).unwrap_err().code(), Code::NotFound);
    let capacity = runtime.block_on(client.get_capacity(GetCapacityRequest::default())).unwrap().into_inner();
    assert_eq!(capacity.available_capacity, 5 << 50);
    realm.assert_no_secret(&controller.log());
}
