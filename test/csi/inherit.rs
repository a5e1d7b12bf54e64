//! A node plugin that is killed or told to end, and the next one, which goes on: with pods that write meanwhile, and with calls that come
//! while it takes over. For the latter an [`Estates`] of the test's own makes mounts anew, when the test lets it.

#![expect(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use ::harness::Keeper;
use async_trait::async_trait;
use azblob_csi::{
    blob::Connections,
    cache::{Cache, CacheOptions},
    credential::{Cloud, Trust},
    csi::{
        kubelet::Kubelet,
        node::Node,
        proto::v1::{
            NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
            Volume, node_server::Node as _, volume_capability::access_mode::Mode,
        },
        request::Defaults,
    },
    fs,
    fuse::{Session, SessionOptions},
    volume::{
        self, Keeping, Patience, Registry, Shared, VolumeSpec, bind,
        core::Core,
        registry::{Estates, Makers, Taken, record::VolumeRecord},
    },
};
use tokio::sync::watch;
use tonic::{Code, Request};

use crate::harness::{Cluster, DRIVER, capability, map};

const BINARY: &str = env!("CARGO_BIN_EXE_azblob-csi");
const GROUP: &str = "node plugin";
/// Long enough for what must not happen to happen.
const A_WHILE: Duration = Duration::from_millis(300);

/// Mounts anew what records tell of, once the gate is open.
#[derive(Debug)]
struct Remounts {
    gate: watch::Receiver<bool>,
}

#[async_trait]
impl Estates for Remounts {
    async fn go_on(&self, spec: &VolumeSpec, shared: &Shared, record: &VolumeRecord) -> volume::Result<Taken> {
        self.gate.clone().wait_for(|open| *open).await.unwrap();
        let open = fs::FileSystem::open;
        let core = Core::reopen(spec, shared, record.capacity(), None, open).await?;
        let mut sessions = Vec::new();
        for view in &record.views {
            let path = view.mount_point();
            bind::unmount(&path).await.unwrap();
            let options = SessionOptions { source: record.location.clone(), ..spec.session.clone() };
            let fs = Arc::clone(core.file_system());
            sessions.push((view.number, Session::mount(fs, view.settings(), &path, options).await.unwrap()));
        }
        for target in &record.targets {
            let view = record.view(target.view).unwrap();
            if view.mount_point() != target.path() {
                bind::unmount(&target.path()).await.unwrap();
                bind::bind(&view.mount_point(), &target.path(), target.read_only).await.unwrap();
            }
        }
        Ok(Taken { core: core.into(), sessions })
    }

    async fn give_up(&self, _: &Shared, _: &VolumeRecord) {}
}

/// The next node plugin, in this process.
struct Next {
    node: Node,
    registry: Arc<Registry>,
    gate: watch::Sender<bool>,
}

impl Next {
    async fn start(cluster: &Cluster, socket: &Path) -> Self {
        let runtime = tokio::runtime::Handle::current();
        let cache = Cache::new(CacheOptions::default(), runtime.clone());
        let resources = fs::Resources { cache, spool: Some(cluster.path("spool")), runtime };
        let socket = socket.to_owned();
        let keeping = tokio::task::spawn_blocking(move || Keeping::begin(&socket, GROUP)).await.unwrap();
        let connections = Connections::new(16).unwrap();
        let shared = Shared { resources: Arc::new(resources), connections, keeping: Some(keeping) };
        let layout = Arc::new(Kubelet::new(&cluster.path(""), DRIVER));
        let registry = Registry::new(shared, layout, Patience::default()).await.unwrap();
        let defaults = Defaults::new(DRIVER, Cloud::default(), Trust::default());
        let node = Node::new(defaults, "node-1", Arc::clone(&registry));
        let (gate, open) = watch::channel(false);
        let (makers, estates) = (Arc::new(node.clone()) as Arc<dyn Makers>, Arc::new(Remounts { gate: open }) as _);
        registry.inherit(&makers, &estates);
        Self { node, registry, gate }
    }

    async fn publish(&self, request: NodePublishVolumeRequest) -> Result<(), tonic::Status> {
        self.node.node_publish_volume(Request::new(request)).await.map(drop)
    }

    async fn unpublish(&self, cluster: &Cluster, volume_id: &str, target: &str) {
        let request = NodeUnpublishVolumeRequest { volume_id: volume_id.to_owned(), target_path: cluster.text(target) };
        self.node.node_unpublish_volume(Request::new(request)).await.unwrap();
    }

    async fn unstage(&self, cluster: &Cluster, volume: &Volume) {
        let request = NodeUnstageVolumeRequest {
            volume_id: volume.volume_id.clone(),
            staging_target_path: cluster.text(&cluster.staging),
        };
        self.node.node_unstage_volume(Request::new(request)).await.unwrap();
    }
}

/// An inline volume of the container.
fn inline(cluster: &Cluster, target: &str) -> NodePublishVolumeRequest {
    NodePublishVolumeRequest {
        volume_id: "csi-inline".to_owned(),
        target_path: cluster.text(target),
        volume_capability: Some(capability(Mode::MultiNodeMultiWriter, None)),
        volume_context: map(&[
            ("csi.storage.k8s.io/ephemeral", "true"),
            ("csi.storage.k8s.io/pod.namespace", "shop"),
            ("containername", "pvc-1"),
        ]),
        secrets: cluster.secrets(),
        ..NodePublishVolumeRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_next_plugin_goes_on_with_what_was_staged_and_published_while_it_takes_calls() {
    let scratch = tempfile::tempdir().unwrap();
    let socket = scratch.path().join("keeper.sock");
    let _keeper = Keeper::start(BINARY, &socket, &[]);
    let mut cluster = Cluster::start_apart(&[], &["--keeper", socket.to_str().unwrap()]).await;
    let volume = cluster.staged("pvc-1").await;
    let [plain, of_group, own, gone, new] = ["a", "b", "c", "d", "e"].map(|pod| cluster.target(pod));
    cluster.publish(&volume, &plain).await;
    let mut request = cluster.publish_request(&volume, &of_group);
    request.volume_capability = Some(capability(Mode::MultiNodeMultiWriter, Some(4321)));
    request.readonly = true;
    cluster.node.node_publish_volume(request.clone()).await.unwrap();
    cluster.node.node_publish_volume(inline(&cluster, &own)).await.unwrap();
    cluster.publish(&volume, &gone).await;
    cluster.unpublish(&volume, &gone).await;
    cluster.sh(&format!("echo kept > {plain}/file && sync {plain}/file")).await;
    let before = cluster.mounts();
    cluster.kill(DRIVER);

    let next = Next::start(&cluster, &socket).await;
    assert_eq!(cluster.mounts(), before, "what a record tells of is not dead");
    // A call for the volume waits, one for another volume does not.
    let waiting = tokio::spawn({
        let (node, again) = (next.node.clone(), cluster.publish_request(&volume, &plain));
        async move { node.node_publish_volume(Request::new(again)).await.map(drop) }
    });
    let mut other = inline(&cluster, &new);
    other.volume_id = "csi-other".to_owned();
    next.publish(other).await.unwrap();
    assert_eq!(cluster.sh(&format!("cat {new}/file")).await, "kept");
    tokio::time::sleep(A_WHILE).await;
    assert!(!waiting.is_finished());
    next.gate.send_replace(true);
    waiting.await.unwrap().unwrap();

    // Nothing was published anew: the credential came with the record, no Secret with the call.
    let stats = NodeGetVolumeStatsRequest {
        volume_id: volume.volume_id.clone(),
        volume_path: cluster.text(&plain),
        ..NodeGetVolumeStatsRequest::default()
    };
    let stats = next.node.node_get_volume_stats(Request::new(stats)).await.unwrap().into_inner();
    assert_eq!(stats.usage[0].total, 5 << 30, "the size is known without a request");
    assert!(!stats.volume_condition.unwrap().abnormal);
    let pods =
        format!("test $(cat {plain}/file) = kept && test $(stat -c %g {of_group}/file) = 4321 && cat {own}/file");
    assert_eq!(cluster.sh(&pods).await, "kept");
    assert!(!cluster.shell(&format!("echo x > {of_group}/x")).await.status.success(), "read-only still");
    request.readonly = false;
    assert_eq!(next.publish(request).await.unwrap_err().code(), Code::AlreadyExists, "the access is known");

    next.unpublish(&cluster, "csi-inline", &own).await;
    next.unpublish(&cluster, "csi-other", &new).await;
    for pod in [&plain, &of_group] {
        next.unpublish(&cluster, &volume.volume_id, pod).await;
    }
    next.unstage(&cluster, &volume).await;
    assert!(cluster.mounts().is_empty());
    assert!(!next.registry.knows(&volume.volume_id));
    drop(next);
    let last = tokio::task::spawn_blocking(move || Keeping::begin(&socket, GROUP)).await.unwrap();
    assert_eq!(last.take_records(), [], "nothing is left of volumes that ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_cannot_be_gone_on_with_is_mounted_anew() {
    let scratch = tempfile::tempdir().unwrap();
    let socket = scratch.path().join("keeper.sock");
    let keeper = Keeper::start(BINARY, &socket, &[]);
    let arguments = ["--keeper", socket.to_str().unwrap()];
    let mut cluster = Cluster::start_apart(&[], &arguments).await;
    let volume = cluster.staged("pvc-1").await;
    let pod = cluster.target("a");
    cluster.publish(&volume, &pod).await;
    cluster.sh(&format!("echo kept > {pod}/file")).await;
    cluster.kill(DRIVER);
    // Whoever held the descriptors is gone with them.
    drop(keeper);
    let _keeper = Keeper::start(BINARY, &socket, &[]);
    cluster.node = cluster.spawn(DRIVER, &[], &arguments).await;
    let mut request = cluster.publish_request(&volume, &pod);
    request.secrets = cluster.secrets();
    cluster.node.node_publish_volume(request).await.unwrap();
    assert_eq!(cluster.sh(&format!("cat {pod}/file")).await, "kept");
    cluster.unpublish(&volume, &pod).await;
    cluster.unstage(&volume).await.unwrap();
    assert!(cluster.mounts().is_empty());
}

/// A pod that writes numbered lines through one descriptor until it is told to end.
fn writer(cluster: &Cluster, pod: &str) -> Child {
    let script = format!(
        "exec 3>{pod}/log; n=0; while ! test -e stop; do n=$((n + 1)); echo $n >&3 || exit 9; cat {pod}/file >/dev/null || exit 8; \
         done; exec 3>&- || exit 7; echo $n"
    );
    let mut command = Command::new("timeout");
    command
        .args(["-k", "5", "300", "sh", "-c", &script])
        .current_dir(cluster.path(""))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pods_notice_nothing_of_a_plugin_that_is_killed_or_told_to_end() {
    restarted_under_pods(&[], [true, false, true, false, true, false]).await;
}

/// As before Linux 6.9: who is killed takes calls with him, who is told to end does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pods_notice_nothing_of_a_plugin_that_is_told_to_end_where_the_kernel_sends_nothing_again() {
    restarted_under_pods(&["--no-resend"], [false; 6]).await;
}

/// Plugins with these flags that follow each other: the one before is killed, or told to end.
async fn restarted_under_pods(flags: &[&str], kills: [bool; 6]) {
    let scratch = tempfile::tempdir().unwrap();
    let socket = scratch.path().join("keeper.sock");
    let _keeper = Keeper::start(BINARY, &socket, &[]);
    let arguments = [&["--keeper", socket.to_str().unwrap()], flags].concat();
    let mut cluster = Cluster::start_apart(&[], &arguments).await;
    let volume = cluster.staged("pvc-1").await;
    let [plain, of_group, own, new] = ["a", "b", "c", "d"].map(|pod| cluster.target(pod));
    cluster.publish(&volume, &plain).await;
    let mut request = cluster.publish_request(&volume, &of_group);
    request.volume_capability = Some(capability(Mode::MultiNodeMultiWriter, Some(4321)));
    cluster.node.node_publish_volume(request).await.unwrap();
    cluster.node.node_publish_volume(inline(&cluster, &own)).await.unwrap();
    cluster.sh(&format!("mkdir {of_group}/g {own}/o && echo kept > {plain}/file")).await;
    cluster.sh(&format!("echo kept > {of_group}/g/file && echo kept > {own}/o/file")).await;
    let before = cluster.mounts();
    let writers = [plain.clone(), format!("{of_group}/g"), format!("{own}/o")].map(|pod| (writer(&cluster, &pod), pod));
    for is_killed in kills {
        tokio::time::sleep(A_WHILE).await;
        if is_killed {
            cluster.kill(DRIVER);
        } else {
            cluster.terminate(DRIVER);
        }
        cluster.node = cluster.spawn(DRIVER, &[], &arguments).await;
        assert_eq!(cluster.mounts(), before);
        cluster.publish(&volume, &plain).await;
    }
    // A pod that comes now is shown the volume that was staged before.
    cluster.publish(&volume, &new).await;
    std::fs::write(cluster.path("stop"), "").unwrap();
    for (writer, pod) in writers {
        let output = tokio::task::spawn_blocking(move || writer.wait_with_output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{pod}: {}: {}", output.status, cluster.log());
        let lines: usize = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        println!("{pod}: {lines} lines");
        cluster.sh(&format!("seq {lines} | cmp - {pod}/log")).await;
    }
    cluster.sh(&format!("test $(cat {new}/file) = kept")).await;
    for pod in [&plain, &of_group, &new] {
        cluster.unpublish(&volume, pod).await;
    }
    let inline = NodeUnpublishVolumeRequest { volume_id: "csi-inline".to_owned(), target_path: cluster.text(&own) };
    cluster.node.node_unpublish_volume(inline).await.unwrap();
    cluster.unstage(&volume).await.unwrap();
    assert!(cluster.mounts().is_empty());
}
