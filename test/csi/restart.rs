//! What becomes of mounts whose server has ended: the node plugin was killed, or the connection to the kernel aborted.

#![expect(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use std::{collections::BTreeMap, time::Duration};

use azblob_csi::{
    csi::proto::v1::{NodeGetVolumeStatsRequest, NodeStageVolumeRequest, Volume, volume_capability::access_mode::Mode},
    finding::Finding,
    volume::mountinfo::{MountTable, resolve},
};
use blob_emulator::KubernetesApi;
use futures::future::join_all;
use serde_json::json;
use tonic::Code;

use crate::harness::{Cluster, DRIVER, capability};

/// Far more than what the end of a session takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A volume of a pod, where the kubelet has it.
fn target(pod: &str) -> String {
    format!("pods/{pod}/volumes/kubernetes.io~csi/pv1/mount")
}

/// What the kubelet notes of a volume before it asks for a mount.
fn note(cluster: &Cluster, mount: &str, driver: &str) {
    let directory = cluster.path(mount).parent().unwrap().to_owned();
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("vol_data.json"), json!({ "driverName": driver }).to_string()).unwrap();
}

/// Publishes the volume to a pod, as the kubelet does.
async fn publish(cluster: &mut Cluster, volume: &Volume, pod: &str, secrets: &BTreeMap<String, String>) {
    note(cluster, &target(pod), DRIVER);
    let mut request = cluster.publish_request(volume, &target(pod));
    request.secrets.clone_from(secrets);
    cluster.node.node_publish_volume(request).await.unwrap();
}

/// The plugin is killed, and started anew.
async fn restart(cluster: &mut Cluster, environment: &[(&str, &str)], arguments: &[&str]) {
    cluster.kill(DRIVER);
    cluster.node = cluster.spawn(DRIVER, environment, arguments).await;
}

/// Paths of mounts below the cluster's directory.
fn mounted(cluster: &Cluster) -> Vec<String> {
    let root = cluster.path("").canonicalize().unwrap();
    let mounts = cluster.mounts();
    let mut paths: Vec<_> = mounts.iter().map(|path| path.strip_prefix(&root).unwrap().display().to_string()).collect();
    paths.sort();
    paths
}

/// A number of the metrics page; a series that is not there is 0.
async fn dead_mounts(cluster: &Cluster, place: &str) -> u64 {
    let page = cluster.page("/metrics").await;
    let series = format!("azblob_csi_dead_mounts_total{{place=\"{place}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_publish_after_a_restart_stages_again_and_a_republish_heals_the_pods_of_before() {
    let mut cluster = Cluster::start_apart(&[], &[]).await;
    let volume = cluster.staged("pvc-1").await;
    let secrets = cluster.secrets();
    publish(&mut cluster, &volume, "old", &BTreeMap::new()).await;
    cluster.sh(&format!("echo kept > {}/file", target("old"))).await;
    restart(&mut cluster, &[], &[]).await;
    publish(&mut cluster, &volume, "new", &secrets).await;
    assert_eq!(cluster.sh(&format!("cat {}/file", target("new"))).await, "kept");
    assert!(!cluster.shell(&format!("cat {}/file", target("old"))).await.status.success(), "that mount is dead");
    publish(&mut cluster, &volume, "old", &secrets).await;
    cluster.sh(&format!("test $(cat {0}/file) = kept && echo more >> {0}/file", target("old"))).await;
    assert_eq!(dead_mounts(&cluster, "pod").await, 1);
    for pod in ["old", "new"] {
        cluster.unpublish(&volume, &target(pod)).await;
    }
    cluster.unstage(&volume).await.unwrap();
    assert_eq!(mounted(&cluster), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pods_of_before_a_restart_can_be_unpublished_and_the_volume_unstaged_without_a_mount() {
    let mut cluster = Cluster::start_apart(&[], &[]).await;
    let volume = cluster.staged("pvc-1").await;
    publish(&mut cluster, &volume, "old", &BTreeMap::new()).await;
    restart(&mut cluster, &[], &[]).await;
    cluster.unpublish(&volume, &target("old")).await;
    cluster.unstage(&volume).await.unwrap();
    assert_eq!(mounted(&cluster), [""; 0]);
    assert!(!cluster.path(&target("old")).exists() && !cluster.path(&cluster.staging).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn publishes_at_once_after_a_restart_share_one_stage() {
    let mut cluster = Cluster::start_apart(&[], &[]).await;
    let volume = cluster.staged("pvc-1").await;
    restart(&mut cluster, &[], &[]).await;
    let pods: Vec<String> = (0..8).map(|number| format!("pod-{number}")).collect();
    let publishes = pods.iter().map(|pod| {
        note(&cluster, &target(pod), DRIVER);
        let mut request = cluster.publish_request(&volume, &target(pod));
        request.secrets = cluster.secrets();
        request.volume_context.insert("csi.storage.k8s.io/pod.name".to_owned(), pod.clone());
        let mut node = cluster.node.clone();
        async move { node.node_publish_volume(request).await.map(drop) }
    });
    for published in join_all(publishes).await {
        published.unwrap();
    }
    assert_eq!(cluster.mounts().len(), pods.len() + 1);
    assert_eq!(cluster.log().matches("staged again").count(), 1);
    cluster.sh(&format!("echo x > {}/a && cat {}/a", target("pod-0"), target("pod-7"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_no_pod_has_is_detached_at_the_start_and_mounts_of_a_driver_beside_stay() {
    const BESIDE: &str = "azblob.csi.dev";
    let mut cluster = Cluster::start_apart(&[], &[]).await;
    let volume = cluster.staged("pvc-1").await;
    publish(&mut cluster, &volume, "old", &BTreeMap::new()).await;
    note(&cluster, &target("group"), DRIVER);
    let mut request = cluster.publish_request(&volume, &target("group"));
    request.volume_capability = Some(capability(Mode::MultiNodeMultiWriter, Some(2000)));
    cluster.node.node_publish_volume(request).await.unwrap();
    let part = "pods/old/volume-subpaths/pv1/main/0";
    cluster.sh(&format!("mkdir -p {0}/sub {part} && mount --bind {0}/sub {part}", target("old"))).await;
    let mut beside = cluster.spawn(BESIDE, &[], &[]).await;
    let theirs = format!("plugins/kubernetes.io/csi/{BESIDE}/0123/globalmount");
    let request =
        NodeStageVolumeRequest { staging_target_path: cluster.text(&theirs), ..cluster.stage_request(&volume) };
    beside.node_stage_volume(request).await.unwrap();
    restart(&mut cluster, &[], &[]).await;
    let mut left = [theirs.clone(), target("group"), target("old")];
    left.sort();
    assert_eq!(mounted(&cluster), left);
    for (place, count) in [("staging", 1), ("view", 1), ("part", 1), ("pod", 0)] {
        assert_eq!(dead_mounts(&cluster, place).await, count, "{place}");
    }
    cluster.sh(&format!("echo x > {theirs}/file")).await;
    for pod in ["old", "group"] {
        cluster.unpublish(&volume, &target(pod)).await;
    }
    assert_eq!(mounted(&cluster), [theirs]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_restart_the_secret_of_the_stage_is_read_at_the_api_server() {
    let api = KubernetesApi::start().unwrap();
    let port = api.port().to_string();
    let environment = [("KUBERNETES_SERVICE_HOST", api.host()), ("KUBERNETES_SERVICE_PORT", port.as_str())];
    let arguments = ["--service-account-dir", api.service_account().to_str().unwrap()];
    let mut cluster = Cluster::start_apart(&environment, &arguments).await;
    let volume = cluster.staged("pvc-1").await;
    api.add_volume(json!({
        "metadata": { "name": "pv1", "uid": "u1" },
        "spec": { "csi": {
            "driver": DRIVER, "volumeHandle": volume.volume_id,
            "nodeStageSecretRef": { "name": "account", "namespace": "apps" },
        } },
    }));
    api.put_secret("apps", "account", &[("connectionstring", &cluster.emulator.connection_string())]);
    restart(&mut cluster, &environment, &arguments).await;
    publish(&mut cluster, &volume, "new", &BTreeMap::new()).await;
    cluster.sh(&format!("echo x > {}/file", target("new"))).await;
    assert_eq!(cluster.emulator.get("pvc-1", "file").unwrap(), b"x\n");
    // Without the right to, the volume is refused with what is missing.
    restart(&mut cluster, &environment, &arguments).await;
    api.forbid();
    note(&cluster, &target("third"), DRIVER);
    let request = cluster.publish_request(&volume, &target("third"));
    let refused = cluster.node.node_publish_volume(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("403") && refused.message().contains("readSecrets"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_its_secret_a_volume_is_not_staged_again_and_the_sentence_says_what_is_missing() {
    let mut cluster = Cluster::start_apart(&[], &[]).await;
    let volume = cluster.staged("pvc-1").await;
    restart(&mut cluster, &[], &[]).await;
    let request = cluster.publish_request(&volume, &target("new"));
    let refused = cluster.node.node_publish_volume(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let facts = [
        ("volume", volume.volume_id.as_str()),
        ("path", &cluster.text(&cluster.staging)),
        ("reason", "the driver has no access to the API server"),
    ];
    let sentence = Finding::StageLost.with(&facts).to_string();
    assert!(refused.message().starts_with(&sentence), "{refused}");
    assert!(!cluster.path(&target("new")).exists() && mounted(&cluster).is_empty());
    // The kubelet stages anew once no pod has the volume.
    cluster.unstage(&volume).await.unwrap();
    cluster.node.node_stage_volume(cluster.stage_request(&volume)).await.unwrap();
    publish(&mut cluster, &volume, "new", &BTreeMap::new()).await;
}

/// Cuts the mount at `name` off from whoever serves it.
async fn abort(cluster: &Cluster, name: &str) {
    let table = MountTable::read().unwrap();
    let mount = table.at(&resolve(&cluster.path(name)).unwrap()).unwrap();
    let (_, minor) = mount.device.split_once(':').unwrap();
    // Not every machine has this file system where it belongs (/sys/fs/fuse/connections).
    let steps = format!("mkdir control && mount -t fusectl none control && echo 1 > control/{minor}/abort");
    cluster.sh(&format!("{steps}; code=$?; umount control; exit $code")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_republish_mounts_anew_what_was_cut_off_and_the_end_of_another_pod_leaves_it() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.staged("pvc-1").await;
    for pod in ["one", "other"] {
        cluster.publish(&volume, pod).await;
    }
    cluster.sh("echo kept > one/file && mkdir one/sub part && mount --bind one/sub part").await;
    abort(&cluster, "staging").await;
    let stats = NodeGetVolumeStatsRequest {
        volume_id: volume.volume_id.clone(),
        volume_path: cluster.text("one"),
        ..NodeGetVolumeStatsRequest::default()
    };
    let noticed = async {
        while !cluster
            .node
            .clone()
            .node_get_volume_stats(stats.clone())
            .await
            .unwrap()
            .into_inner()
            .volume_condition
            .unwrap()
            .abnormal
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, noticed).await.unwrap();
    cluster.publish(&volume, "one").await;
    assert_eq!(cluster.sh("cat one/file").await, "kept");
    cluster.unpublish(&volume, "other").await;
    assert_eq!(cluster.sh("cat one/file").await, "kept");
    cluster.publish(&volume, "third").await;
    for pod in ["one", "third"] {
        cluster.unpublish(&volume, pod).await;
    }
    cluster.unstage(&volume).await.unwrap();
    assert_eq!(mounted(&cluster), ["part"], "what is no path of a pod is none of ours");
}
