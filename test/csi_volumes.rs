//! Volumes through the real doors: gRPC over Unix sockets, real mounts, the emulator behind them. Needs root.

#[path = "csi/ending.rs"]
mod ending;
#[path = "csi/harness.rs"]
mod harness;
#[path = "csi/inherit.rs"]
mod inherit;
#[path = "csi/keeper.rs"]
mod keeper;
#[path = "csi/many.rs"]
mod many;
#[path = "csi/migrate.rs"]
mod migrate;
#[path = "csi/node.rs"]
mod node;
#[path = "csi/provisioning.rs"]
mod provisioning;
#[path = "csi/restart.rs"]
mod restart;

use azblob_csi::csi::proto::v1::{
    CapacityRange, ControllerExpandVolumeRequest, CreateVolumeRequest, DeleteVolumeRequest, NodeExpandVolumeRequest,
    NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeUnpublishVolumeRequest, ValidateVolumeCapabilitiesRequest,
    volume_capability::access_mode::Mode,
};
use harness::{Cluster, DRIVER, capability, map, tear};
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_volume_lives_from_create_to_delete_and_every_step_can_be_repeated() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.create("pvc-1", &[]).await.unwrap();
    assert_eq!(volume.volume_id, format!("#{}#pvc-1##default#", cluster.emulator.account()));
    assert_eq!(cluster.create("pvc-1", &[]).await.unwrap(), volume);
    for _ in 0..2 {
        cluster.node.node_stage_volume(cluster.stage_request(&volume)).await.unwrap();
    }
    cluster.publish(&volume, "pod-a").await;
    cluster.publish(&volume, "pod-a").await;
    cluster.publish(&volume, "pod-b").await;
    cluster.sh("echo hello > pod-a/greeting && test $(cat pod-b/greeting) = hello").await;
    assert_eq!(cluster.emulator.get("pvc-1", "greeting").unwrap(), b"hello\n");
    let refused = cluster.unstage(&volume).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    for target in ["pod-a", "pod-b", "pod-a", "never-published"] {
        cluster.unpublish(&volume, target).await;
    }
    assert!(!cluster.path("pod-a").exists());
    cluster.unstage(&volume).await.unwrap();
    cluster.unstage(&volume).await.unwrap();
    assert!(cluster.mounts().is_empty());
    for _ in 0..2 {
        let request = DeleteVolumeRequest { volume_id: volume.volume_id.clone(), secrets: cluster.secrets() };
        cluster.controller.delete_volume(request).await.unwrap();
    }
    assert!(cluster.emulator.containers().is_empty());
    cluster.stop().await;
    assert!(!cluster.registration().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_wrong_key_is_one_clear_sentence_and_leaves_nothing_mounted() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.create("pvc-1", &[]).await.unwrap();
    let mut request = cluster.stage_request(&volume);
    request.secrets = cluster.wrong_secrets();
    let status = cluster.node.node_stage_volume(request).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let text = status.message();
    assert!(text.contains("\"pvc-1\"") && text.contains("account key is refused") && text.contains("403"), "{text}");
    assert!(!text.contains("d3Jvbmc"), "{text}");
    assert!(cluster.mounts().is_empty());
    cluster.node.node_stage_volume(cluster.stage_request(&volume)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_missing_container_is_named_unless_it_may_be_made() {
    let mut cluster = Cluster::start().await;
    let mut volume = cluster.create("pvc-1", &[]).await.unwrap();
    cluster.emulator.delete_container("pvc-1");
    let status = cluster.node.node_stage_volume(cluster.stage_request(&volume)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("createContainer"), "{status}");
    assert!(cluster.mounts().is_empty());
    volume.volume_context.insert("createContainer".into(), "true".into());
    cluster.node.node_stage_volume(cluster.stage_request(&volume)).await.unwrap();
    assert_eq!(cluster.emulator.containers(), ["pvc-1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_republish_with_a_new_secret_refreshes_in_place_and_a_bad_one_changes_nothing() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.staged("pvc-1").await;
    cluster.publish(&volume, "pod").await;
    cluster.sh("echo before > pod/a").await;
    let mounts = cluster.mounts();
    let mut request = cluster.publish_request(&volume, "pod");
    request.secrets = cluster.wrong_secrets();
    cluster.node.node_publish_volume(request.clone()).await.unwrap();
    request.secrets = map(&[("accountkey", "not base64 !")]);
    cluster.node.node_publish_volume(request.clone()).await.unwrap();
    cluster.sh("echo still > pod/b").await;
    let key = cluster.emulator.rotate_key();
    assert!(!key.is_empty());
    request.secrets = cluster.secrets();
    cluster.node.node_publish_volume(request).await.unwrap();
    cluster.sh("echo after > pod/c && test $(cat pod/a) = before").await;
    assert_eq!(cluster.mounts(), mounts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_secret_that_is_ahead_of_the_service_is_used_as_soon_as_the_service_follows() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.staged("pvc-1").await;
    cluster.publish(&volume, "pod").await;
    let mut request = cluster.publish_request(&volume, "pod");
    request.secrets = cluster.wrong_secrets();
    let coming = request.secrets["accountkey"].clone();
    cluster.node.node_publish_volume(request).await.unwrap();
    cluster.sh("echo before > pod/a && sync pod/a").await;
    cluster.emulator.set_keys([coming.clone(), coming]);
    cluster.sh("echo after > pod/b && sync pod/b && test $(cat pod/a) = before").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stage_again_with_a_new_secret_refreshes_in_place() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.staged("pvc-1").await;
    cluster.publish(&volume, "pod").await;
    let mounts = cluster.mounts();
    let _ = cluster.emulator.rotate_key();
    cluster.node.node_stage_volume(cluster.stage_request(&volume)).await.unwrap();
    cluster.sh("echo after > pod/a && sync pod/a").await;
    assert_eq!(cluster.mounts(), mounts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_republish_of_an_idle_mount_sends_no_request() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.staged("pvc-1").await;
    cluster.publish(&volume, "pod").await;
    let before = cluster.emulator.requests().len();
    for _ in 0..10 {
        let mut request = cluster.publish_request(&volume, "pod");
        request.secrets = cluster.secrets();
        cluster.node.node_publish_volume(request).await.unwrap();
    }
    assert_eq!(cluster.emulator.requests().len(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pods_with_different_groups_see_their_own_on_one_core() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.staged("pvc-1").await;
    cluster.publish(&volume, "plain").await;
    for (target, group) in [("pod-2000", 2000), ("pod-3000", 3000), ("pod-2000-again", 2000)] {
        let mut request = cluster.publish_request(&volume, target);
        request.volume_capability = Some(capability(Mode::MultiNodeMultiWriter, Some(group)));
        cluster.node.node_publish_volume(request).await.unwrap();
    }
    cluster.sh("echo x > pod-2000/file").await;
    for (target, group) in [("plain", "0"), ("pod-2000", "2000"), ("pod-3000", "3000"), ("pod-2000-again", "2000")] {
        assert_eq!(cluster.sh(&format!("stat -c %g {target}/file")).await, group, "{target}");
    }
    // Staging, four targets, and one mount for each of the two groups.
    assert_eq!(cluster.mounts().len(), 7);
    for target in ["pod-2000", "pod-3000", "pod-2000-again", "plain"] {
        cluster.unpublish(&volume, target).await;
    }
    assert_eq!(cluster.mounts().len(), 1);
    cluster.unstage(&volume).await.unwrap();
    assert!(cluster.mounts().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn read_only_is_honoured_for_publish_and_for_reader_modes() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.create("pvc-1", &[]).await.unwrap();
    cluster.node.node_stage_volume(cluster.stage_request(&volume)).await.unwrap();
    let mut request = cluster.publish_request(&volume, "reader");
    request.readonly = true;
    cluster.node.node_publish_volume(request).await.unwrap();
    cluster.publish(&volume, "writer").await;
    cluster.sh("echo x > writer/a && test $(cat reader/a) = x && ! echo y > reader/a").await;
    for target in ["reader", "writer"] {
        cluster.unpublish(&volume, target).await;
    }
    cluster.unstage(&volume).await.unwrap();
    let mut request = cluster.stage_request(&volume);
    request.volume_capability = Some(capability(Mode::MultiNodeReaderOnly, None));
    cluster.node.node_stage_volume(request).await.unwrap();
    let mut request = cluster.publish_request(&volume, "pod");
    request.volume_capability = Some(capability(Mode::MultiNodeReaderOnly, None));
    cluster.node.node_publish_volume(request).await.unwrap();
    cluster.sh("test $(cat pod/a) = x && ! touch pod/b").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_inline_volume_is_mounted_with_its_own_secret_and_honours_read_only() {
    let mut cluster = Cluster::start().await;
    cluster.emulator.create_container("logs");
    let inline = |target: &str, readonly: bool| NodePublishVolumeRequest {
        volume_id: format!("csi-{target}"),
        target_path: cluster.text(target),
        volume_capability: Some(capability(Mode::SingleNodeWriter, Some(1500))),
        readonly,
        secrets: cluster.secrets(),
        volume_context: map(&[
            ("csi.storage.k8s.io/ephemeral", "true"),
            ("containerName", "logs"),
            ("mountOptions", "-o attr_timeout=120,--use-attr-cache=true"),
        ]),
        ..NodePublishVolumeRequest::default()
    };
    let (writer, reader) = (inline("writer", false), inline("reader", true));
    let mut escaping = inline("escaping", false);
    for request in [&writer, &writer] {
        cluster.node.node_publish_volume(request.clone()).await.unwrap();
    }
    cluster.sh("echo x > writer/a && test $(stat -c %g writer/a) = 1500").await;
    // Mounted afterwards: attr_timeout=120 lets it believe its first listing for two minutes.
    cluster.node.node_publish_volume(reader.clone()).await.unwrap();
    cluster.sh("test $(cat reader/a) = x && ! touch reader/b").await;
    escaping.volume_context.insert("mountOptions".into(), "--tmp-path=/etc".into());
    let refused = cluster.node.node_publish_volume(escaping).await.unwrap_err();
    assert!(refused.code() == Code::InvalidArgument && refused.message().contains("tmp-path"), "{refused}");
    for request in [writer, reader] {
        let request = NodeUnpublishVolumeRequest { volume_id: request.volume_id, target_path: request.target_path };
        cluster.node.node_unpublish_volume(request).await.unwrap();
    }
    assert!(cluster.mounts().is_empty() && !cluster.path("writer").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_staging_path_without_a_live_mount_is_never_bound_but_staged_again() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.staged("pvc-1").await;
    cluster.publish(&volume, "pod").await;
    cluster.sh("echo kept > pod/a").await;
    tear(&cluster.path("staging")).await;
    cluster.publish(&volume, "new").await;
    assert_eq!(cluster.sh("cat new/a").await, "kept");
    // The old mount goes on for the pod that has it, and its end does not take the new one along.
    cluster.sh("echo more >> pod/a").await;
    cluster.unpublish(&volume, "pod").await;
    tear(&cluster.path("staging")).await;
    cluster.node.node_stage_volume(cluster.stage_request(&volume)).await.unwrap();
    cluster.publish(&volume, "pod").await;
    assert_eq!(cluster.sh("cat pod/a").await, "kept\nmore");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_volumes_under_one_handle_are_told_apart() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.staged("pvc-1").await;
    cluster.emulator.create_container("other");
    let mut request = cluster.stage_request(&volume);
    request.volume_context = map(&[("containerName", "other")]);
    let refused = cluster.node.node_stage_volume(request).await.unwrap_err();
    assert!(refused.code() == Code::AlreadyExists && refused.message().contains("volumeHandle"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn statistics_come_from_memory_and_say_when_the_mount_is_gone() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.staged("pvc-1").await;
    cluster.publish(&volume, "pod").await;
    let request = NodeGetVolumeStatsRequest {
        volume_id: volume.volume_id.clone(),
        volume_path: cluster.text("pod"),
        ..NodeGetVolumeStatsRequest::default()
    };
    cluster.sh("head -c 4096 /dev/zero > pod/a && df pod").await;
    let stats = cluster.node.node_get_volume_stats(request.clone()).await.unwrap().into_inner();
    let usage = &stats.usage[0];
    assert_eq!((usage.total, usage.used, usage.available), (5 << 30, 4096, (5 << 30) - 4096));
    assert!(!stats.volume_condition.unwrap().abnormal);
    let expand = NodeExpandVolumeRequest {
        volume_id: volume.volume_id.clone(),
        volume_path: cluster.text("pod"),
        capacity_range: Some(CapacityRange { required_bytes: 6 << 30, limit_bytes: 0 }),
        ..NodeExpandVolumeRequest::default()
    };
    cluster.node.node_expand_volume(expand).await.unwrap();
    assert_eq!(cluster.sh("df -B1 --output=size,used pod | tail -1 | xargs").await, format!("{} 4096", 6_u64 << 30));
    tear(&cluster.path("pod")).await;
    let stats = cluster.node.node_get_volume_stats(request).await.unwrap().into_inner();
    assert_eq!(stats.usage[0].total, 6 << 30);
    assert!(stats.volume_condition.unwrap().abnormal);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn only_containers_that_the_driver_made_are_deleted() {
    let mut cluster = Cluster::start().await;
    cluster.emulator.create_container("precious");
    let named = cluster.create("pvc-1", &[("containerName", "precious")]).await.unwrap();
    let made = cluster.create("pvc-2", &[("containerNamePrefix", "team")]).await.unwrap();
    assert_eq!(cluster.emulator.containers(), ["precious", "team-pvc-2"]);
    for volume_id in [named.volume_id, made.volume_id, "no-handle".to_owned()] {
        let request = DeleteVolumeRequest { volume_id, secrets: cluster.secrets() };
        cluster.controller.delete_volume(request).await.unwrap();
    }
    assert_eq!(cluster.emulator.containers(), ["precious"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_size_of_a_volume_is_remembered_by_its_container() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.create("pvc-1", &[]).await.unwrap();
    let again = |bytes| CreateVolumeRequest {
        name: "pvc-1".to_owned(),
        capacity_range: Some(CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
        volume_capabilities: vec![capability(Mode::MultiNodeMultiWriter, None)],
        secrets: map(&[("connectionstring", &cluster.emulator.connection_string())]),
        ..CreateVolumeRequest::default()
    };
    let (same, other) = (again(5 << 30), again(6 << 30));
    cluster.controller.create_volume(same).await.unwrap();
    let refused = cluster.controller.create_volume(other.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    let expand = ControllerExpandVolumeRequest {
        volume_id: volume.volume_id,
        capacity_range: Some(CapacityRange { required_bytes: 6 << 30, limit_bytes: 0 }),
        secrets: cluster.secrets(),
        ..ControllerExpandVolumeRequest::default()
    };
    let expanded = cluster.controller.controller_expand_volume(expand).await.unwrap().into_inner();
    assert_eq!(expanded.capacity_bytes, 6 << 30);
    cluster.controller.create_volume(other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_cannot_be_provisioned_says_why() {
    let mut cluster = Cluster::start().await;
    let unknown = cluster.create("pvc-1", &[("skuNmae", "Standard_LRS")]).await.unwrap_err();
    assert!(unknown.code() == Code::InvalidArgument && unknown.message().contains("skuNmae"), "{unknown}");
    let request = CreateVolumeRequest {
        name: "pvc-1".to_owned(),
        volume_capabilities: vec![capability(Mode::MultiNodeMultiWriter, None)],
        ..CreateVolumeRequest::default()
    };
    let no_secret = cluster.controller.create_volume(request).await.unwrap_err();
    assert_eq!(no_secret.code(), Code::Unauthenticated);
    assert!(no_secret.message().contains("provisioner-secret-name"), "{no_secret}");
    let request = ValidateVolumeCapabilitiesRequest {
        volume_id: format!("#{}#nowhere##default#", cluster.emulator.account()),
        volume_capabilities: vec![capability(Mode::MultiNodeMultiWriter, None)],
        secrets: cluster.secrets(),
        ..ValidateVolumeCapabilitiesRequest::default()
    };
    let missing = cluster.controller.validate_volume_capabilities(request).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_kubelet_is_told_where_the_driver_is() {
    use azblob_csi::csi::proto::registration::{InfoRequest, registration_client::RegistrationClient};
    let cluster = Cluster::start().await;
    let address = format!("unix://{}", cluster.registration().display());
    let mut client = RegistrationClient::connect(address).await.unwrap();
    let info = client.get_info(InfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", DRIVER));
    assert_eq!(info.endpoint, cluster.text("node.sock"));
}
