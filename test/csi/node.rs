//! What a node plugin tells of itself, and what it does by itself.

#![expect(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use std::time::Duration;

use azblob_csi::csi::proto::{
    registration::{RegistrationStatus, registration_client::RegistrationClient},
    v1::{NodeGetInfoRequest, NodeGetVolumeStatsRequest},
};

use blob_emulator::{FaultKind, FaultRule, KubernetesApi, Operation};
use serde_json::json;
use tokio::time::timeout;

use crate::harness::{Cluster, DRIVER, channel};

/// Far more than what makes a volume abnormal, or a deadline of a probe.
const PATIENCE: Duration = Duration::from_secs(60);

/// The number behind the first series of the page that begins so.
fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find(|line| line.starts_with(series));
    let line = line.unwrap_or_else(|| panic!("no {series} in {page}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_pods_do_is_in_the_metrics_under_the_names_of_volume_claim_and_pod() {
    let mut cluster = Cluster::start().await;
    let mut volume = cluster.create("pvc-1", &[]).await.unwrap();
    volume.volume_context.insert("csi.storage.k8s.io/pvc/name".to_owned(), "data".to_owned());
    volume.volume_context.insert("csi.storage.k8s.io/pvc/namespace".to_owned(), "shop".to_owned());
    cluster.node.node_stage_volume(cluster.stage_request(&volume)).await.unwrap();
    let mut request = cluster.publish_request(&volume, "pod");
    request.volume_context.insert("csi.storage.k8s.io/pod.name".to_owned(), "web-0".to_owned());
    request.volume_context.insert("csi.storage.k8s.io/pod.namespace".to_owned(), "shop".to_owned());
    cluster.node.node_publish_volume(request).await.unwrap();
    cluster.sh("head -c 100000 /dev/zero > pod/a && test $(wc -c < pod/a) = 100000 && ! cat pod/none").await;
    cluster.sh("dd if=pod/a of=/dev/null bs=1M iflag=direct").await;
    let busy = FaultKind::Status { status: 503, code: None, retry_after: None };
    cluster.emulator.fault(FaultRule::new(busy).on(Operation::PutBlob).times(1));
    cluster.sh("echo more > pod/b").await;
    let page = cluster.page("/metrics").await;
    let named = format!("{{pvc=\"data\",namespace=\"shop\",volume=\"{}\"", volume.volume_id);
    let of = |name: &str| value(&page, &format!("{name}{named}"));
    assert_eq!(of("azblob_csi_written_bytes_total"), 100_005.0);
    assert!(of("azblob_csi_read_bytes_total") >= 100_000.0, "{page}");
    assert_eq!(of("azblob_csi_mounts"), 1.0);
    assert_eq!(of("azblob_csi_backend_throttled_total"), 1.0);
    assert_eq!(of("azblob_csi_backend_retries_total"), 1.0);
    assert!(
        page.contains(&format!("azblob_csi_backend_requests_total{named},operation=\"Put Blob\",status=\"201\"}}"))
    );
    assert!(page.contains(&format!("{named},pod=\"web-0\",pod_namespace=\"shop\"}} 1\n")), "{page}");
    assert_eq!(value(&page, "blob_csi_driver_operations_total{operation=\"node_stage_volume\",success=\"true\"}"), 1.0);
    assert!(!page.contains("azblob_csi_operation_errors_total"), "a missing file is an answer: {page}");
    cluster.unpublish(&volume, "pod").await;
    cluster.unstage(&volume).await.unwrap();
    let page = cluster.page("/metrics").await;
    assert!(
        !page.contains("pvc=\"data\"") && page.contains("azblob_csi_volumes 0\n"),
        "its series end with it: {page}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_plugin_is_ready_once_the_kubelet_has_taken_it_and_healthy_before() {
    let cluster = Cluster::start().await;
    assert!(cluster.page("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(cluster.page("/readyz").await.starts_with("HTTP/1.1 503"));
    let mut kubelet = RegistrationClient::new(channel(&cluster.registration()));
    let status = RegistrationStatus { plugin_registered: true, error: String::new() };
    kubelet.notify_registration_status(status).await.unwrap();
    assert!(cluster.page("/readyz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_volume_is_abnormal_while_the_service_fails_and_normal_again_by_itself() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.staged("pvc-1").await;
    cluster.publish(&volume, "pod").await;
    let request = NodeGetVolumeStatsRequest {
        volume_id: volume.volume_id.clone(),
        volume_path: cluster.text("pod"),
        ..NodeGetVolumeStatsRequest::default()
    };
    cluster.emulator.fault(FaultRule::new(FaultKind::Status { status: 503, code: None, retry_after: None }));
    cluster.sh("df pod").await; // It asks what is in use.
    let condition = async |abnormal: bool| {
        loop {
            let stats = cluster.node.clone().node_get_volume_stats(request.clone()).await.unwrap().into_inner();
            let condition = stats.volume_condition.unwrap();
            if condition.abnormal == abnormal {
                return condition.message;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let message = timeout(PATIENCE, condition(true)).await.unwrap();
    assert!(message.contains("busy") && message.contains("tried again"), "{message}");
    let page = cluster.page("/metrics").await;
    assert_eq!(value(&page, "azblob_csi_volume_abnormal"), 1.0);
    let mut again = cluster.node.clone();
    again.node_publish_volume(cluster.publish_request(&volume, "pod")).await.unwrap();
    cluster.emulator.clear_faults();
    timeout(PATIENCE, condition(false)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_scheduler_is_told_how_many_volumes_the_node_takes() {
    for (argument, most) in [("--max-volumes-per-node=17", 17), ("--max-volumes-per-node=0", 0)] {
        let mut cluster = Cluster::start_apart(&[], &[argument]).await;
        let info = cluster.node.node_get_info(NodeGetInfoRequest {}).await.unwrap().into_inner();
        assert_eq!((info.node_id.as_str(), info.max_volumes_per_node), ("node-1", most));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_nodes_startup_taint_goes_once_the_kubelet_has_the_driver_and_no_other_taint_does() {
    let api = KubernetesApi::start().unwrap();
    let port = api.port().to_string();
    let environment = [("KUBERNETES_SERVICE_HOST", api.host()), ("KUBERNETES_SERVICE_PORT", port.as_str())];
    let account = api.service_account().to_str().unwrap();
    let other = json!({ "key": "example.com/gpu", "value": "yes", "effect": "NoSchedule" });
    let ours = |effect: &str| json!({ "key": format!("{DRIVER}/agent-not-ready"), "effect": effect });
    api.put_node("node-1", &json!([ours("NoExecute"), other, ours("NoSchedule")]));
    let cluster =
        Cluster::start_apart(&environment, &["--service-account-dir", account, "--remove-not-ready-taint"]).await;
    // A right that is granted later is used.
    api.forbid();
    assert_eq!(api.requests(), [""; 0], "the kubelet does not know the driver yet");
    let mut kubelet = RegistrationClient::new(channel(&cluster.registration()));
    let status = RegistrationStatus { plugin_registered: true, error: String::new() };
    kubelet.notify_registration_status(status).await.unwrap();
    let until = async |is_so: &dyn Fn() -> bool| {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, until(&|| !api.requests().is_empty())).await.unwrap();
    assert_eq!(api.taints("node-1").as_array().unwrap().len(), 3);
    api.permit();
    timeout(PATIENCE, until(&|| api.taints("node-1") == json!([other]))).await.unwrap();
    assert!(cluster.log().contains("get and patch nodes"), "what is missing was said");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pod_reads_the_figures_of_its_volume_where_the_class_says_so() {
    let mut cluster = Cluster::start().await;
    let volume = cluster.create("pvc-1", &[("statsFile", "true")]).await.unwrap();
    cluster.node.node_stage_volume(cluster.stage_request(&volume)).await.unwrap();
    cluster.publish(&volume, "pod").await;
    cluster.sh("echo 12345 > pod/a && grep -qx 'azblob_csi_written_bytes_total 6' pod/.azblob-stats").await;
    cluster.sh("test \"$(ls -A pod)\" = a && ! rm -f pod/.azblob-stats").await;
    cluster.unpublish(&volume, "pod").await;
    cluster.unstage(&volume).await.unwrap();
}
