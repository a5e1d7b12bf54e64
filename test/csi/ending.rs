//! The end of volumes whose data the service does not take.

#![expect(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use std::{path::PathBuf, time::Duration};

use azblob_csi::{
    csi::proto::v1::{NodePublishVolumeRequest, Volume},
    finding::Finding,
    volume::Patience,
};
use blob_emulator::{FaultKind, FaultRule, KubernetesApi};
use serde_json::json;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::harness::{Cluster, DRIVER, map};

/// Far more than what any test here lets the driver take.
const WITHIN: Duration = Duration::from_secs(60);

/// The service answers to nothing but that it is busy.
fn away(cluster: &Cluster) {
    cluster.emulator.fault(FaultRule::new(FaultKind::Status { status: 503, code: None, retry_after: None }));
}

/// A volume whose commits are given up soon, with a file at `pod` that was closed while the service was away.
async fn unsaved(cluster: &mut Cluster, options: &str) -> Volume {
    let mut volume = cluster.create("pvc-1", &[]).await.unwrap();
    volume.volume_context.insert("mountOptions".to_owned(), options.to_owned());
    cluster.node.node_stage_volume(cluster.stage_request(&volume)).await.unwrap();
    cluster.publish(&volume, "pod").await;
    away(cluster);
    // The shell does not look at what close returns.
    cluster.shell("echo unsaved > pod/file").await;
    volume
}

/// Unstages as the kubelet does: again and again. Returns what the first call said.
async fn unstage_in_the_end(cluster: &mut Cluster, volume: &Volume) -> Option<Status> {
    let mut first = None;
    let ended = async {
        while let Err(refused) = cluster.unstage(volume).await {
            assert_eq!(refused.code(), Code::Unavailable, "{refused}");
            first.get_or_insert(refused);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(WITHIN, ended).await.unwrap();
    first
}

/// Contents of the files in lost+found, without their records.
fn lost_and_found(cluster: &Cluster) -> Vec<String> {
    let mut directories = vec![cluster.path("spool/lost+found")];
    let mut found = Vec::new();
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        let (below, files): (Vec<PathBuf>, Vec<PathBuf>) =
            entries.map(|entry| entry.unwrap().path()).partition(|path| path.is_dir());
        directories.extend(below);
        let contents = files.into_iter().filter(|path| path.extension().is_none_or(|end| end != "json"));
        found.extend(contents.map(|path| std::fs::read_to_string(path).unwrap()));
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_the_service_does_not_take_goes_to_lost_and_found_and_the_volume_ends() {
    let api = KubernetesApi::start().unwrap();
    let port = api.port().to_string();
    let environment = [("KUBERNETES_SERVICE_HOST", api.host()), ("KUBERNETES_SERVICE_PORT", port.as_str())];
    let account = api.service_account().to_str().unwrap();
    let mut cluster =
        Cluster::start_apart(&environment, &["--service-account-dir", account, "--unsaved-patience=3s"]).await;
    let volume = unsaved(&mut cluster, "commit-deadline=1s,io-deadline=1s").await;
    api.add_volume(json!({
        "metadata": { "name": "pv1", "uid": "u1" },
        "spec": { "csi": { "driver": DRIVER, "volumeHandle": volume.volume_id } },
    }));
    cluster.unpublish(&volume, "pod").await;
    let refused = unstage_in_the_end(&mut cluster, &volume).await.unwrap();
    assert!(refused.message().contains("goes to lost+found"), "{refused}");
    assert!(cluster.mounts().is_empty());
    assert_eq!(lost_and_found(&cluster), ["unsaved\n"]);
    assert!(cluster.page("/metrics").await.contains("azblob_csi_unmounted_unsaved_files_total 1\n"));
    let known = Finding::LeftUnsaved.with(&[("count", "1"), ("volume", &volume.volume_id)]).to_string();
    assert!(cluster.log().contains(&known), "{known}");
    let told = async {
        while !api.events().iter().any(|event| event["reason"] == "LeftUnsaved" && event["message"] == known) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(WITHIN, told).await.unwrap();
    cluster.emulator.clear_faults();
    cluster.node.node_stage_volume(cluster.stage_request(&volume)).await.unwrap();
    cluster.publish(&volume, "pod").await;
    assert_eq!(cluster.sh("ls pod").await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_service_that_is_back_in_time_gets_what_was_written_before_the_volume_ends() {
    let mut cluster = Cluster::start().await;
    let volume = unsaved(&mut cluster, "commit-deadline=1s,io-deadline=1s").await;
    cluster.unpublish(&volume, "pod").await;
    let refused = cluster.unstage(&volume).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    cluster.emulator.clear_faults();
    unstage_in_the_end(&mut cluster, &volume).await;
    assert_eq!(cluster.emulator.get("pvc-1", "file").unwrap(), b"unsaved\n");
    assert!(cluster.mounts().is_empty() && lost_and_found(&cluster).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pod_does_not_wait_for_a_service_that_hangs_and_saving_goes_on_without_it() {
    let patience = Patience { flush: Duration::from_millis(100), ..Patience::default() };
    let mut cluster = Cluster::start_with(patience).await;
    let volume = unsaved(&mut cluster, "commit-deadline=3s").await;
    cluster.unpublish(&volume, "pod").await;
    let refused = cluster.unstage(&volume).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(cluster.mounts().len(), 1, "the volume is kept for what is not saved");
    cluster.emulator.clear_faults();
    unstage_in_the_end(&mut cluster, &volume).await;
    assert_eq!(cluster.emulator.get("pvc-1", "file").unwrap(), b"unsaved\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_volume_ends_after_its_container_was_deleted() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.staged("pvc-1").await;
    cluster.publish(&volume, "pod").await;
    cluster.emulator.delete_container("pvc-1");
    cluster.shell("echo unsaved > pod/file").await;
    cluster.unpublish(&volume, "pod").await;
    cluster.unstage(&volume).await.unwrap();
    assert!(cluster.mounts().is_empty());
    assert_eq!(lost_and_found(&cluster), ["unsaved\n"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_inline_volume_ends_with_its_pod_and_what_is_not_saved_is_in_lost_and_found() {
    let mut cluster = Cluster::start().await;
    cluster.emulator.create_container("logs");
    let request = NodePublishVolumeRequest {
        volume_id: "csi-1".to_owned(),
        target_path: cluster.text("pod"),
        volume_capability: cluster.stage_request(&Volume::default()).volume_capability,
        secrets: cluster.secrets(),
        volume_context: map(&[
            ("csi.storage.k8s.io/ephemeral", "true"),
            ("containerName", "logs"),
            ("mountOptions", "-o commit-deadline=1s,io-deadline=1s"),
        ]),
        ..NodePublishVolumeRequest::default()
    };
    cluster.node.node_publish_volume(request).await.unwrap();
    away(&cluster);
    cluster.shell("echo unsaved > pod/file").await;
    let volume = Volume { volume_id: "csi-1".to_owned(), ..Volume::default() };
    timeout(WITHIN * 2, cluster.unpublish(&volume, "pod")).await.unwrap();
    assert!(cluster.mounts().is_empty());
    assert_eq!(lost_and_found(&cluster), ["unsaved\n"]);
}
