//! Where volumes come from and where they go: directories of a shared container, clones, snapshots. Through the Controller's socket,
//! the emulator behind it.

#![expect(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use std::{collections::BTreeMap, slice::from_ref, time::Duration};

use azblob_csi::{
    blob::{
        AzureStore, BlobName, BlobStore as _, Body, Condition, ContentHeaders, Location, LocationHints, RequestLimits,
        WriteOptions,
    },
    credential::{AccountKey, Credential, CredentialSlot},
    csi::proto::v1::{
        CapacityRange, ControllerExpandVolumeRequest, ControllerGetCapabilitiesRequest, CreateSnapshotRequest,
        CreateVolumeRequest, DeleteSnapshotRequest, DeleteVolumeRequest, GetSnapshotRequest, ListSnapshotsRequest,
        ListVolumesRequest, NodeGetVolumeStatsRequest, Snapshot, Volume, VolumeContentSource,
        volume_capability::access_mode::Mode,
        volume_content_source::{self, SnapshotSource, VolumeSource},
    },
};
use blob_emulator::{FaultKind, FaultRule, Operation};
use bytes::Bytes;
use tonic::Code;

use crate::harness::{Cluster, DRIVER, capability, map};

const SHARED: [(&str, &str); 4] = [
    ("containerName", "shared"),
    ("subDir", "${pvc.metadata.namespace}/${pvc.metadata.name}"),
    ("csi.storage.k8s.io/pvc/namespace", "apps"),
    ("csi.storage.k8s.io/pvc/name", "data"),
];

fn claim(name: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut parameters = SHARED.to_vec();
    parameters[3].1 = name;
    parameters
}

fn of_volume(handle: &str) -> Option<VolumeContentSource> {
    let source = VolumeSource { volume_id: handle.to_owned() };
    Some(VolumeContentSource { r#type: Some(volume_content_source::Type::Volume(source)) })
}

fn of_snapshot(id: &str) -> Option<VolumeContentSource> {
    let source = SnapshotSource { snapshot_id: id.to_owned() };
    Some(VolumeContentSource { r#type: Some(volume_content_source::Type::Snapshot(source)) })
}

impl Cluster {
    fn creation(&self, name: &str, source: Option<VolumeContentSource>) -> CreateVolumeRequest {
        CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(CapacityRange { required_bytes: 5 << 30, limit_bytes: 0 }),
            volume_capabilities: vec![capability(Mode::MultiNodeMultiWriter, None)],
            secrets: self.secrets(),
            volume_content_source: source,
            ..CreateVolumeRequest::default()
        }
    }

    async fn copy(&mut self, name: &str, source: Option<VolumeContentSource>) -> Result<Volume, tonic::Status> {
        let request = self.creation(name, source);
        Ok(self.controller.create_volume(request).await?.into_inner().volume.unwrap())
    }

    async fn delete(&mut self, volume: &Volume) {
        let request = DeleteVolumeRequest { volume_id: volume.volume_id.clone(), secrets: self.secrets() };
        self.controller.delete_volume(request).await.unwrap();
    }

    async fn snapshot(&mut self, name: &str, volume: &Volume) -> Result<Snapshot, tonic::Status> {
        // As csi-snapshotter asks with --extra-create-metadata.
        let told = ["volumesnapshot/name", "volumesnapshot/namespace", "volumesnapshotcontent/name"];
        let parameters = told.map(|key| (format!("csi.storage.k8s.io/{key}"), name.to_owned()));
        let request = CreateSnapshotRequest {
            source_volume_id: volume.volume_id.clone(),
            name: name.to_owned(),
            secrets: self.secrets(),
            parameters: BTreeMap::from(parameters),
        };
        Ok(self.controller.create_snapshot(request).await?.into_inner().snapshot.unwrap())
    }

    async fn snapshots(&mut self, request: ListSnapshotsRequest) -> (Vec<Snapshot>, String) {
        let request = ListSnapshotsRequest { secrets: self.secrets(), ..request };
        let found = self.controller.list_snapshots(request).await.unwrap().into_inner();
        (found.entries.into_iter().map(|entry| entry.snapshot.unwrap()).collect(), found.next_token)
    }

    /// A container as another client sees it.
    fn store(&self, container: &str) -> AzureStore {
        let (account, key) = (self.emulator.account(), self.emulator.key());
        let hints = LocationHints { endpoint: Some(self.emulator.endpoint()), ..LocationHints::default() };
        let location = Location::from_names(container, &hints).unwrap();
        let key = AccountKey::parse("test", account, &key).unwrap();
        let slot = CredentialSlot::new(Credential::SharedKey(key));
        AzureStore::new(location, slot, RequestLimits::STANDARD).unwrap()
    }

    fn fault(&self, blob: &str, kind: FaultKind) -> FaultRule {
        FaultRule::new(kind).on(Operation::CopyBlob).blob(blob)
    }

    fn copies(&self) -> usize {
        self.emulator.requests().iter().filter(|request| request.operation == "CopyBlob").count()
    }
}

fn status(status: u16, code: &str) -> FaultKind {
    FaultKind::Status { status, code: Some(code.to_owned()), retry_after: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_claim_has_a_directory_of_a_shared_container_which_goes_with_it_and_with_nothing_else() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.create("pvc-1", &claim("data")).await.unwrap();
    let account = cluster.emulator.account();
    assert_eq!(volume.volume_id, format!("#{account}#shared#pvc-1/apps/data#apps#"));
    assert_eq!(cluster.create("pvc-1", &claim("data")).await.unwrap(), volume, "a repeated call finds it");
    let marker = cluster.emulator.metadata("shared", "apps/data").unwrap();
    assert_eq!((marker["createdby"].as_str(), marker["hdi_isfolder"].as_str()), (DRIVER, "true"));
    cluster.node.node_stage_volume(cluster.stage_request(&volume)).await.unwrap();
    cluster.publish(&volume, "pod").await;
    cluster.sh("mkdir pod/below && echo x > pod/below/file").await;
    assert_eq!(cluster.emulator.get("shared", "apps/data/below/file").unwrap(), b"x\n");
    let stats = NodeGetVolumeStatsRequest {
        volume_id: volume.volume_id.clone(),
        volume_path: cluster.text("pod"),
        ..NodeGetVolumeStatsRequest::default()
    };
    let stats = cluster.node.node_get_volume_stats(stats).await.unwrap().into_inner();
    assert_eq!(stats.usage[0].total, 5 << 30, "of its own directory");
    cluster.unpublish(&volume, "pod").await;
    cluster.unstage(&volume).await.unwrap();

    // One whose name begins alike, one below it, and one that is another claim of the same name.
    let alike = cluster.create("pvc-2", &claim("data-2")).await.unwrap();
    let below = cluster.create("pvc-3", &claim("data/inner")).await.unwrap();
    cluster.emulator.put("shared", "apps/data/inner/kept", "1", &[]).unwrap();
    cluster.emulator.put("shared", "apps/data-2/kept", "1", &[]).unwrap();
    let taken = cluster.create("pvc-4", &claim("data")).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists, "{taken}");
    let request = ControllerExpandVolumeRequest {
        volume_id: alike.volume_id.clone(),
        capacity_range: Some(CapacityRange { required_bytes: 6 << 30, limit_bytes: 0 }),
        secrets: cluster.secrets(),
        ..ControllerExpandVolumeRequest::default()
    };
    cluster.controller.controller_expand_volume(request).await.unwrap();
    let grown = cluster.emulator.metadata("shared", "apps/data-2").unwrap();
    assert_eq!(grown["azblobcsicapacity"], (6_u64 << 30).to_string());

    cluster.delete(&volume).await;
    cluster.delete(&volume).await;
    let left = cluster.emulator.names("shared");
    assert_eq!(left, ["apps/data-2", "apps/data-2/kept", "apps/data/inner", "apps/data/inner/kept"]);
    // Whoever takes the shared container for a volume of its own does not get it.
    let volume_id = format!("#{account}#shared###");
    let request = DeleteVolumeRequest { volume_id, secrets: cluster.secrets() };
    cluster.controller.delete_volume(request).await.unwrap();
    cluster.delete(&alike).await;
    cluster.delete(&below).await;
    assert_eq!(cluster.emulator.names("shared"), Vec::<String>::new());
    assert_eq!(cluster.emulator.containers(), ["shared"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_to_be_retained_or_was_there_before_outlives_its_volume() {
    let mut cluster = Cluster::start().await;
    let kept = cluster.create("pvc-1", &[("onDelete", "retain")]).await.unwrap();
    cluster.delete(&kept).await;
    assert_eq!(cluster.emulator.containers(), ["pvc-1"]);

    let mut retained = claim("data");
    retained.push(("onDelete", "retain"));
    let volume = cluster.create("pvc-2", &retained).await.unwrap();
    cluster.emulator.put("shared", "apps/data/file", "1", &[]).unwrap();
    cluster.delete(&volume).await;
    // The next volume of the claim finds its data.
    let again = cluster.create("pvc-3", &retained).await.unwrap();
    assert_eq!(again.volume_context["subdir"], "apps/data");
    cluster.delete(&again).await;
    assert_eq!(cluster.emulator.get("shared", "apps/data/file").unwrap(), b"1");

    cluster.emulator.put("shared", "apps/older/file", "1", &[]).unwrap();
    let older = cluster.create("pvc-4", &claim("older")).await.unwrap();
    cluster.delete(&older).await;
    assert_eq!(cluster.emulator.get("shared", "apps/older/file").unwrap(), b"1");
    let refused = cluster.create("pvc-5", &[("onDelete", "archive")]).await.unwrap_err();
    assert!(refused.code() == Code::InvalidArgument && refused.message().contains("retain"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_clone_has_every_blob_of_its_source_and_its_metadata() {
    let mut cluster = Cluster::start().await;
    let source = cluster.create("pvc-1", &[]).await.unwrap();
    let name = BlobName::new("dir/ünï%41 file").unwrap();
    let headers = ContentHeaders {
        content_type: Some("text/x".to_owned()),
        tags: Some("a=b&c=d".into()),
        ..ContentHeaders::default()
    };
    let metadata = map(&[("author", "ada")]);
    let options =
        WriteOptions { condition: Condition::Absent, metadata, headers, access_tier: Some("Cool".to_owned()) };
    cluster.store("pvc-1").put_blob(&name, Body::from(Bytes::from("one")), &options).await.unwrap();
    cluster.emulator.put("pvc-1", "dir", "", &[("hdi_isfolder", "true")]).unwrap();
    cluster.emulator.put("pvc-1", "a//b", "two", &[]).unwrap();
    cluster.emulator.put("pvc-1", ".azblob/orphan/node/1", "ours", &[]).unwrap();
    let handle = source.volume_id.clone();
    let clone = cluster.copy("pvc-2", of_volume(&handle)).await.unwrap();
    assert_eq!(clone.content_source, of_volume(&handle));
    assert_eq!(cluster.emulator.names("pvc-2"), ["a//b", "dir", "dir/ünï%41 file"]);
    assert_eq!(cluster.emulator.get("pvc-2", "dir/ünï%41 file").unwrap(), b"one");
    let (copy, source) = (cluster.store("pvc-2"), cluster.store("pvc-1"));
    let (copied, original) =
        (copy.head(&name, &Condition::None).await.unwrap(), source.head(&name, &Condition::None).await.unwrap());
    assert_eq!(
        (copied.metadata, copied.headers, copied.access_tier),
        (original.metadata, original.headers, original.access_tier)
    );
    assert_eq!(copy.get_tags(&name).await.unwrap(), source.get_tags(&name).await.unwrap());
    assert_eq!(cluster.emulator.metadata("pvc-2", "dir").unwrap()["hdi_isfolder"], "true");

    // What is written to the clone stays when the call comes again.
    cluster.emulator.put("pvc-2", "a//b", "changed", &[]).unwrap();
    let copies = cluster.copies();
    assert_eq!(cluster.copy("pvc-2", of_volume(&handle)).await.unwrap(), clone);
    assert_eq!(cluster.emulator.get("pvc-2", "a//b").unwrap(), b"changed");
    assert_eq!(cluster.copies(), copies);

    let other = cluster.copy("pvc-2", of_volume(&clone.volume_id)).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists, "{other}");
    let empty = cluster.copy("pvc-1", of_volume(&clone.volume_id)).await.unwrap_err();
    assert_eq!(empty.code(), Code::AlreadyExists, "{empty}");
    let missing = cluster.copy("pvc-3", of_volume(&handle.replace("pvc-1", "pvc-9"))).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound, "{missing}");
    assert_eq!(cluster.emulator.containers(), ["pvc-1", "pvc-2"]);

    // From a container into a directory, and from there.
    let mut request = cluster.creation("pvc-4", of_volume(&handle));
    request.parameters = map(&claim("clone"));
    let inner = cluster.controller.create_volume(request).await.unwrap().into_inner().volume.unwrap();
    assert_eq!(cluster.emulator.get("shared", "apps/clone/dir/ünï%41 file").unwrap(), b"one");
    cluster.copy("pvc-5", of_volume(&inner.volume_id)).await.unwrap();
    assert_eq!(cluster.emulator.names("pvc-5"), ["a//b", "dir", "dir/ünï%41 file"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_copy_that_breaks_off_goes_on_where_it_was() {
    const BLOBS: usize = 1100;
    let mut cluster = Cluster::start().await;
    let source = cluster.create("pvc-1", &[]).await.unwrap();
    for number in 0..BLOBS {
        cluster.emulator.put("pvc-1", &format!("{number:04}"), "x", &[]).unwrap();
    }
    // In the third page of five hundred.
    cluster.emulator.fault(cluster.fault("1050", status(403, "AuthorizationFailure")));
    let broken = cluster.copy("pvc-2", of_volume(&source.volume_id)).await.unwrap_err();
    assert_eq!(broken.code(), Code::PermissionDenied, "{broken}");
    assert!(broken.message().contains("blob 1050"), "{broken}");
    cluster.emulator.clear_faults();
    let before = cluster.copies();
    cluster.copy("pvc-2", of_volume(&source.volume_id)).await.unwrap();
    assert_eq!(cluster.emulator.names("pvc-2").len(), BLOBS);
    let again = cluster.copies() - before;
    // The third page, and what of the first call was still on its way when it was counted.
    assert!(again <= 200, "{again} copies after the first two pages were done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_blob_that_changes_while_it_is_copied_is_copied_whole_or_named() {
    let mut cluster = Cluster::start().await;
    let source = cluster.create("pvc-1", &[]).await.unwrap();
    cluster.emulator.put("pvc-1", "busy", "x", &[]).unwrap();
    cluster.emulator.fault(cluster.fault("busy", status(412, "SourceConditionNotMet")).times(2));
    cluster.copy("pvc-2", of_volume(&source.volume_id)).await.unwrap();
    assert_eq!(cluster.emulator.get("pvc-2", "busy").unwrap(), b"x");
    assert_eq!(cluster.copies(), 3, "each under the version that was met");

    cluster.emulator.fault(cluster.fault("busy", status(412, "SourceConditionNotMet")));
    let status = cluster.copy("pvc-3", of_volume(&source.volume_id)).await.unwrap_err();
    assert!(status.code() == Code::Unavailable && status.message().contains("busy of"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_caller_that_goes_before_the_copy_is_done_hears_how_far_it_is_and_the_copy_goes_on() {
    let mut cluster = Cluster::start().await;
    let source = cluster.create("pvc-1", &[]).await.unwrap();
    cluster.emulator.put("pvc-1", "slow", "x", &[]).unwrap();
    let pending = FaultKind::LeaveCopyPending { complete_after: Some(Duration::from_secs(4)) };
    cluster.emulator.fault(cluster.fault("slow", pending));
    let mut call = tonic::Request::new(cluster.creation("pvc-2", of_volume(&source.volume_id)));
    call.set_timeout(Duration::from_secs(2));
    let status = cluster.controller.create_volume(call).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    assert!(status.message().contains("is being copied") && status.message().contains("0 blobs"), "{status}");
    let copies = cluster.copies();
    cluster.copy("pvc-2", of_volume(&source.volume_id)).await.unwrap();
    assert_eq!(cluster.emulator.get("pvc-2", "slow").unwrap(), b"x");
    assert_eq!(cluster.copies(), copies, "the copy that was under way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_snapshot_is_listed_restored_and_deleted_and_outlives_its_volume() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.create("pvc-1", &claim("data")).await.unwrap();
    cluster.emulator.put("shared", "apps/data/file", "then", &[]).unwrap();
    let snapshot = cluster.snapshot("snapshot-1", &volume).await.unwrap();
    let account = cluster.emulator.account();
    assert_eq!(snapshot.snapshot_id, format!("#{account}#snapshot-1##apps#"));
    assert!(snapshot.ready_to_use && snapshot.creation_time.is_some(), "{snapshot:?}");
    assert_eq!((snapshot.size_bytes, &snapshot.source_volume_id), (5 << 30, &volume.volume_id));
    assert_eq!(cluster.snapshot("snapshot-1", &volume).await.unwrap(), snapshot);
    cluster.emulator.put("shared", "apps/data/file", "now", &[]).unwrap();
    let other = cluster.create("pvc-2", &[]).await.unwrap();
    let taken = cluster.snapshot("snapshot-1", &other).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists, "{taken}");
    cluster.snapshot("Other Name", &other).await.unwrap();
    cluster.snapshot("third", &other).await.unwrap();

    let (all, token) = cluster.snapshots(ListSnapshotsRequest::default()).await;
    assert_eq!((all.len(), token.as_str()), (3, ""));
    let (first, token) = cluster.snapshots(ListSnapshotsRequest { max_entries: 2, ..Default::default() }).await;
    let rest = ListSnapshotsRequest { starting_token: token, ..Default::default() };
    let (rest, _) = cluster.snapshots(rest).await;
    assert_eq!([first, rest].concat(), all);
    let of = |source: &str| ListSnapshotsRequest { source_volume_id: source.to_owned(), ..Default::default() };
    assert_eq!(cluster.snapshots(of(&volume.volume_id)).await.0, from_ref(&snapshot));
    let by = ListSnapshotsRequest { snapshot_id: snapshot.snapshot_id.clone(), ..Default::default() };
    assert_eq!(cluster.snapshots(by).await.0, from_ref(&snapshot));
    let nobody = cluster.controller.list_snapshots(ListSnapshotsRequest::default()).await.unwrap().into_inner();
    assert!(nobody.entries.is_empty(), "without a secret and without an identity there is no account");

    // A snapshot is no volume, and goes by its own call alone.
    cluster.delete(&volume).await;
    let volume_id = snapshot.snapshot_id.clone();
    let request = DeleteVolumeRequest { volume_id, secrets: cluster.secrets() };
    cluster.controller.delete_volume(request).await.unwrap();
    cluster.copy("pvc-3", of_snapshot(&snapshot.snapshot_id)).await.unwrap();
    assert_eq!(cluster.emulator.get("pvc-3", "file").unwrap(), b"then");
    let missing = cluster.copy("pvc-4", of_snapshot(&other.volume_id)).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound, "a volume is no snapshot: {missing}");
    for _ in 0..2 {
        let snapshot_id = snapshot.snapshot_id.clone();
        let request = DeleteSnapshotRequest { snapshot_id, secrets: cluster.secrets() };
        cluster.controller.delete_snapshot(request).await.unwrap();
    }
    let request = GetSnapshotRequest { snapshot_id: snapshot.snapshot_id, secrets: cluster.secrets() };
    assert_eq!(cluster.controller.get_snapshot(request).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(
        cluster.emulator.containers().len(),
        5,
        "shared, two volumes, two snapshots: {:?}",
        cluster.emulator.containers()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_snapshot_that_is_still_copied_says_so_and_cannot_be_restored_yet() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.create("pvc-1", &[]).await.unwrap();
    cluster.emulator.put("pvc-1", "slow", "x", &[]).unwrap();
    cluster.emulator.fault(cluster.fault("slow", FaultKind::LeaveCopyPending { complete_after: None }));
    let snapshot = cluster.snapshot("snapshot-1", &volume).await.unwrap();
    assert!(!snapshot.ready_to_use);
    let status = cluster.copy("pvc-2", of_snapshot(&snapshot.snapshot_id)).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    let request = DeleteSnapshotRequest { snapshot_id: snapshot.snapshot_id, secrets: cluster.secrets() };
    cluster.controller.delete_snapshot(request).await.unwrap();
    assert_eq!(cluster.emulator.containers(), ["pvc-1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_without_secrets_are_offered_by_a_driver_with_an_identity_alone() {
    let mut cluster = Cluster::start().await;
    let request = ControllerGetCapabilitiesRequest {};
    let offered = cluster.controller.controller_get_capabilities(request).await.unwrap().into_inner();
    assert_eq!(offered.capabilities.len(), 7);
    let status = cluster.controller.list_volumes(ListVolumesRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}
