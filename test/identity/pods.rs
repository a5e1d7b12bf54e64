//! Volumes that each pod signs in to by itself, through a real node plugin: what one pod may read, no other pod of the node
//! gets to see, and a newer token reaches a mount without touching it.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use azblob_csi::csi::proto::v1::{
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
    volume_capability::{AccessMode, access_mode::Mode},
};
use blob_emulator::{Cloud, Cluster, Role, subject_of};
use tonic::{Code, Status};

use crate::{
    CLIENT, CONTENT, ISSUER, Realm, TENANT,
    node::{Node, capability},
};

const VOLUME: &str = "volume-of-many-pods";
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

impl Node<'_> {
    pub fn target(&self, pod: &str) -> PathBuf {
        self.directory.join("pods").join(pod).join("mount")
    }

    /// A publish of the volume for a pod with this token, and these attributes on top.
    pub fn request(&self, pod: &str, token: &str, more: &[(&str, &str)]) -> NodePublishVolumeRequest {
        let account = self.realm.world.emulator().account();
        let server = format!("https://{}", Cloud::Public.blob_host(account));
        let attributes = [
            ("storageAccount", account),
            ("containerName", self.realm.world.container()),
            ("server", &server),
            ("mountWithWorkloadIdentityToken", "true"),
            ("tenantID", TENANT),
        ];
        let mut context: std::collections::BTreeMap<String, String> =
            attributes.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        if !token.is_empty() {
            let tokens = serde_json::json!({ "api://AzureADTokenExchange": { "token": token } });
            context.insert(TOKENS.to_owned(), tokens.to_string());
        }
        let target = self.target(pod);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        NodePublishVolumeRequest {
            volume_id: VOLUME.to_owned(),
            staging_target_path: self.directory.join("staging").display().to_string(),
            target_path: target.display().to_string(),
            volume_capability: Some(capability()),
            volume_context: context,
            ..NodePublishVolumeRequest::default()
        }
    }

    pub fn publish(&mut self, request: NodePublishVolumeRequest) -> Result<(), Status> {
        self.runtime.block_on(self.client.node_publish_volume(request)).map(drop)
    }

    fn unpublish(&mut self, pod: &str) {
        let target_path = self.target(pod).display().to_string();
        let request = NodeUnpublishVolumeRequest { volume_id: VOLUME.to_owned(), target_path };
        self.runtime.block_on(self.client.node_unpublish_volume(request)).unwrap();
    }
}

const OF_CLIENT: [(&str, &str); 1] = [("clientID", CLIENT)];

pub fn token(cluster: &Cluster, account: &str, seconds: i64) -> String {
    cluster.token("apps", account, "api://AzureADTokenExchange", time::Duration::seconds(seconds))
}

#[test]
fn a_volume_of_one_pods_identity_cannot_be_read_through_another_pods_mount() {
    let realm = Realm::new();
    // The driver has an identity that may read everything. It is nobody else's.
    let (cluster, file) = realm.federated();
    let own = [("AZURE_CLIENT_ID", CLIENT), ("AZURE_TENANT_ID", TENANT), ("AZURE_FEDERATED_TOKEN_FILE", &*file)];
    let mut node = Node::start(&realm, &own);
    let other = realm.services.tenant(TENANT).application("other").federated(ISSUER, &subject_of("apps", "other"));
    let reader = node.request("reader", &token(&cluster, "reader", 3600), &OF_CLIENT);

    // The stage mounts nothing: there is no pod yet.
    let stage = NodeStageVolumeRequest {
        volume_id: VOLUME.to_owned(),
        staging_target_path: reader.staging_target_path.clone(),
        volume_capability: Some(capability()),
        volume_context: reader
            .volume_context
            .iter()
            .filter(|(key, _)| *key != TOKENS)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        ..NodeStageVolumeRequest::default()
    };
    node.runtime.block_on(node.client.node_stage_volume(stage)).unwrap();
    assert!(node.mounts().is_empty());

    node.publish(reader).unwrap();
    assert_eq!(fs::read(node.target("reader").join("file")).unwrap(), CONTENT);

    // A pod whose service account the identity does not trust; one whose identity has no role; one without a token; one that
    // names no identity, where the driver's own would do.
    let stranger = node.request("stranger", &token(&cluster, "stranger", 3600), &OF_CLIENT);
    let roleless = node.request("other", &token(&cluster, "other", 3600), &[("clientID", "other")]);
    let tokenless = node.request("tokenless", "", &OF_CLIENT);
    let nameless = node.request("nameless", &token(&cluster, "reader", 3600), &[]);
    let inline = [("AzureStorageAuthType", "workload_identity"), ("csi.storage.k8s.io/ephemeral", "true")];
    let inline = node.request("inline", "", &inline);
    for (request, code, says) in [
        (&stranger, Code::PermissionDenied, "system:serviceaccount:apps:stranger"),
        (&roleless, Code::PermissionDenied, "Storage Blob Data"),
        (&tokenless, Code::Unauthenticated, "tokenRequests"),
        (&nameless, Code::InvalidArgument, "clientID"),
        (&inline, Code::Unauthenticated, "tokenRequests"),
    ] {
        let status = node.publish(request.clone()).unwrap_err();
        assert!(status.message().contains(says), "{says:?} is missing in: {status}");
        assert_eq!(status.code(), code, "{status}");
        realm.assert_no_secret(status.message());
    }
    assert_eq!(node.mounts().len(), 1, "{:?}", node.mounts());
    for pod in ["stranger", "other", "tokenless", "nameless", "inline"] {
        assert!(fs::read(node.target(pod).join("file")).is_err(), "{pod}");
    }

    // With a role it is let in, as itself; and out again, which leaves the first one alone.
    realm.services.grant(&other.object_id(), Role::BlobDataReader);
    node.publish(roleless).unwrap();
    assert_eq!(fs::read(node.target("other").join("file")).unwrap(), CONTENT);
    let forbidden = fs::File::create(node.target("other").join("new")).and_then(|file| file.sync_all());
    assert_eq!(forbidden.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    fs::File::create(node.target("reader").join("own")).unwrap().sync_all().unwrap();
    node.unpublish("other");
    assert_eq!(node.mounts().len(), 1);
    assert_eq!(fs::read(node.target("reader").join("file")).unwrap(), CONTENT);
    node.unpublish("reader");
    let staging_target_path = node.directory.join("staging").display().to_string();
    let unstage = NodeUnstageVolumeRequest { volume_id: VOLUME.to_owned(), staging_target_path };
    node.runtime.block_on(node.client.node_unstage_volume(unstage)).unwrap();
    assert!(node.mounts().is_empty());
    realm.assert_no_secret(&node.log());
}

#[test]
fn a_volume_for_one_pod_of_the_node_is_given_to_no_second_one() {
    let realm = Realm::new();
    let (cluster, _) = realm.federated();
    let mut node = Node::start(&realm, &[]);
    let alone = |mut request: NodePublishVolumeRequest| {
        let mode = AccessMode { mode: Mode::SingleNodeSingleWriter.into() };
        request.volume_capability.as_mut().unwrap().access_mode = Some(mode);
        request
    };
    let first = alone(node.request("first", &token(&cluster, "reader", 3600), &OF_CLIENT));
    let second = alone(node.request("second", &token(&cluster, "reader", 3600), &OF_CLIENT));
    node.publish(first.clone()).unwrap();
    node.publish(first).unwrap();
    let status = node.publish(second.clone()).unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("ReadWriteOncePod") && !node.target("second").join("file").exists(), "{status}");
    node.unpublish("first");
    node.publish(second).unwrap();
    node.unpublish("second");
}

#[test]
fn a_republish_hands_the_pods_newer_token_to_its_mount() {
    let realm = Realm::new();
    let (cluster, _) = realm.federated();
    realm.services.token_life(Duration::from_secs(1));
    let mut node = Node::start(&realm, &[]);
    let request = node.request("pod", &token(&cluster, "reader", 3), &OF_CLIENT);
    node.publish(request).unwrap();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = |table: &str| table.lines().find(|line| line.contains("/pods/pod/mount")).unwrap().to_owned();
    let end = Instant::now() + Duration::from_secs(8);
    let mut rounds = 0;
    while Instant::now() < end {
        // The kubelet repeats the publish, with the token as it then is. Each ends before the next second but one.
        let request = node.request("pod", &token(&cluster, "reader", 3), &OF_CLIENT);
        node.publish(request).unwrap();
        for number in 0..5 {
            fs::File::create(node.target("pod").join(format!("file{rounds}-{number}"))).unwrap().sync_all().unwrap();
            thread::sleep(Duration::from_millis(40));
        }
        rounds += 1;
    }
    assert_eq!(line(&fs::read_to_string("/proc/self/mountinfo").unwrap()), line(&before), "the mount is another one");
    // What makes no sense changes nothing, and the republish does not fail.
    for broken in [node.request("pod", "no token", &OF_CLIENT), node.request("pod", "", &OF_CLIENT)] {
        node.publish(broken).unwrap();
    }
    assert_eq!(fs::read(node.target("pod").join("file")).unwrap(), CONTENT);
    node.unpublish("pod");
    assert!(node.mounts().is_empty());
    realm.assert_no_secret(&node.log());
}
