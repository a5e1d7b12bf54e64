//! A node plugin and a controller over their real sockets, on the emulator, with real mounts.
//!
//! Files are touched by child processes only, as pods do: a process must never hold a descriptor inside its own mounts.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a step that fails here fails the test")]

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use azblob_csi::{
    blob::Connections,
    cache::{Cache, CacheOptions},
    credential::{Cloud, Trust},
    csi::{
        plugin::{NodeOptions, serve_controller, serve_node},
        proto::v1::{
            CapacityRange, CreateVolumeRequest, NodeGetInfoRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
            NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, Volume, VolumeCapability,
            controller_client::ControllerClient,
            node_client::NodeClient,
            volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode},
        },
        request::Defaults,
    },
    fs,
    volume::{Patience, Shared, bind, mountinfo::MountTable},
};
use blob_emulator::{Emulator, Settings};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::oneshot,
    task::JoinHandle,
};
use tonic::transport::{Channel, Endpoint};

/// The driver's usual name.
pub const DRIVER: &str = "blob.csi.azure.com";
/// No test waits longer for a child process: a mount that hangs must fail the test, not the machine.
const CHILD_SECONDS: &str = "30";

/// Everything that one test runs.
pub struct Cluster {
    pub emulator: Emulator,
    pub node: NodeClient<Channel>,
    pub controller: ControllerClient<Channel>,
    /// Where volumes are staged, below the directory.
    pub staging: String,
    directory: tempfile::TempDir,
    stops: Vec<oneshot::Sender<()>>,
    served: Vec<JoinHandle<()>>,
    /// Node plugins in processes of their own, by driver.
    plugins: BTreeMap<String, Child>,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_with(Patience::default()).await
    }

    /// With a node plugin of this patience.
    pub async fn start_with(patience: Patience) -> Self {
        let mut cluster = Self::prepare();
        cluster.start_node(patience).await;
        cluster.start_controller().await;
        cluster
    }

    /// With a node plugin in a process of its own, which can be killed, and the kubelet's own paths.
    pub async fn start_apart(environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut cluster = Self::prepare();
        cluster.staging = format!("plugins/kubernetes.io/csi/{DRIVER}/0123/globalmount");
        cluster.node = cluster.spawn(DRIVER, environment, arguments).await;
        cluster.start_controller().await;
        cluster
    }

    fn prepare() -> Self {
        // Tests count requests.
        let emulator = Emulator::start(Settings { request_log: 100_000, ..Settings::default() }).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("plugins_registry")).unwrap();
        Self {
            node: NodeClient::new(channel(&directory.path().join("node.sock"))),
            controller: ControllerClient::new(channel(&directory.path().join("controller.sock"))),
            emulator,
            staging: "staging".to_owned(),
            directory,
            stops: Vec::new(),
            served: Vec::new(),
            plugins: BTreeMap::new(),
        }
    }

    async fn start_controller(&mut self) {
        let (stop, stopped) = oneshot::channel::<()>();
        let endpoint = self.path("controller.sock").display().to_string();
        let connections = Connections::new(8).unwrap();
        self.served.push(tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap_or_default() };
            serve_controller(&endpoint, defaults(), connections, None, stopped).await.unwrap();
        }));
        self.stops.push(stop);
        until(|| self.path("controller.sock").exists()).await;
    }

    /// Starts a node plugin of `driver` in a process of its own; one that was killed before, anew.
    pub async fn spawn(
        &mut self,
        driver: &str,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> NodeClient<Channel> {
        let socket = self.path(&format!("{driver}.sock"));
        let metrics = format!("--metrics-address=unix:{}", self.path("metrics.sock").display());
        let log = File::options().create(true).append(true).open(self.path("node.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_azblob-csi"));
        command.args(["--log-level", "debug", "node", "--node-id", "node-1", "--driver-name", driver]);
        command.args(["--endpoint", &format!("unix://{}", socket.display()), "--kubelet-dir", &self.text("")]);
        command.args(["--spool-dir", &self.text("spool")]).args(arguments).envs(environment.iter().copied());
        if driver == DRIVER {
            command.arg(metrics);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.plugins.insert(driver.to_owned(), child);
        let listens = async {
            while UnixStream::connect(&socket).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), listens).await.expect("the plugin listens");
        let mut node = NodeClient::new(channel(&socket));
        // It listens before it looks at what is mounted, and answers afterwards.
        node.node_get_info(NodeGetInfoRequest {}).await.unwrap();
        node
    }

    /// Ends the node plugin of `driver` without a warning, as the kernel does when memory is short.
    pub fn kill(&mut self, driver: &str) {
        let mut child = self.plugins.remove(driver).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Tells the node plugin of `driver` to end, and waits until it has.
    pub fn terminate(&mut self, driver: &str) {
        let mut child = self.plugins.remove(driver).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), nix::sys::signal::Signal::SIGTERM)
            .unwrap();
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// What the node plugin of `driver` has resident that is its own, in KiB (RssAnon).
    pub fn resident_kib(&self, driver: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.plugins[driver].id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// What node plugins in processes of their own have logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("node.log")).unwrap()
    }

    async fn start_node(&mut self, patience: Patience) {
        let cache = Cache::new(CacheOptions::default(), tokio::runtime::Handle::current());
        let resources =
            fs::Resources { cache, spool: Some(self.path("spool")), runtime: tokio::runtime::Handle::current() };
        let shared =
            Shared { resources: Arc::new(resources), connections: Connections::new(16).unwrap(), keeping: None };
        let options = NodeOptions {
            endpoint: format!("unix://{}", self.path("node.sock").display()),
            node_id: "node-1".to_owned(),
            kubelet_directory: self.directory.path().to_owned(),
            registration_path: None,
            defaults: defaults(),
            api: None,
            patience,
            max_volumes: None,
            removes_startup_taint: false,
            metrics_address: Some(format!("unix:{}", self.path("metrics.sock").display())),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        self.served.push(tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap_or_default() };
            serve_node(options, shared, stopped).await.unwrap();
        }));
        self.stops.push(stop);
        until(|| self.path("node.sock").exists() && self.registration().exists()).await;
    }

    /// Tells both roles to end, and waits until they have.
    pub async fn stop(&mut self) {
        self.stops.drain(..).for_each(|stop| stop.send(()).unwrap_or_default());
        for served in self.served.drain(..) {
            served.await.unwrap();
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn registration(&self) -> PathBuf {
        self.path(&format!("plugins_registry/{DRIVER}-reg.sock"))
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Where the kubelet has a pod's volume, with the note that it puts beside.
    pub fn target(&self, pod: &str) -> String {
        let target = format!("pods/{pod}/volumes/kubernetes.io~csi/pv1/mount");
        let directory = self.path(&target).parent().unwrap().to_owned();
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("vol_data.json"), serde_json::json!({ "driverName": DRIVER }).to_string())
            .unwrap();
        target
    }

    pub fn secrets(&self) -> BTreeMap<String, String> {
        map(&[("connectionstring", &self.emulator.connection_string())])
    }

    /// A secret with a key of the right form that the service does not take.
    pub fn wrong_secrets(&self) -> BTreeMap<String, String> {
        map(&[
            ("accountname", self.emulator.account()),
            ("accountkey", "d3Jvbmcga2V5IG9mIHRoZSByaWdodCBmb3JtISB3cm9uZyBrZXkgb2YgdGhlIHJpZ2h0IGZvcm0hIHdyb25nIA=="),
            ("blobendpoint", &self.emulator.endpoint()),
        ])
    }

    pub async fn create(&mut self, name: &str, parameters: &[(&str, &str)]) -> Result<Volume, tonic::Status> {
        let request = CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(CapacityRange { required_bytes: 5 << 30, limit_bytes: 0 }),
            volume_capabilities: vec![capability(Mode::MultiNodeMultiWriter, None)],
            parameters: map(parameters),
            secrets: self.secrets(),
            ..CreateVolumeRequest::default()
        };
        Ok(self.controller.create_volume(request).await?.into_inner().volume.unwrap())
    }

    pub fn stage_request(&self, volume: &Volume) -> NodeStageVolumeRequest {
        NodeStageVolumeRequest {
            volume_id: volume.volume_id.clone(),
            staging_target_path: self.text(&self.staging),
            volume_capability: Some(capability(Mode::MultiNodeMultiWriter, None)),
            secrets: self.secrets(),
            volume_context: volume.volume_context.clone(),
            ..NodeStageVolumeRequest::default()
        }
    }

    pub fn publish_request(&self, volume: &Volume, target: &str) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            staging_target_path: self.text(&self.staging),
            target_path: self.text(target),
            volume_capability: Some(capability(Mode::MultiNodeMultiWriter, None)),
            volume_context: volume.volume_context.clone(),
            ..NodePublishVolumeRequest::default()
        }
    }

    /// A new volume, staged at `staging`.
    pub async fn staged(&mut self, name: &str) -> Volume {
        let volume = self.create(name, &[]).await.unwrap();
        self.node.node_stage_volume(self.stage_request(&volume)).await.unwrap();
        volume
    }

    pub async fn publish(&mut self, volume: &Volume, target: &str) {
        self.node.node_publish_volume(self.publish_request(volume, target)).await.unwrap();
    }

    pub async fn unpublish(&mut self, volume: &Volume, target: &str) {
        let request =
            NodeUnpublishVolumeRequest { volume_id: volume.volume_id.clone(), target_path: self.text(target) };
        self.node.node_unpublish_volume(request).await.unwrap();
    }

    pub async fn unstage(&mut self, volume: &Volume) -> Result<(), tonic::Status> {
        let request = NodeUnstageVolumeRequest {
            volume_id: volume.volume_id.clone(),
            staging_target_path: self.text(&self.staging),
        };
        self.node.node_unstage_volume(request).await.map(drop)
    }

    /// A page of the node plugin's endpoint: its status line, headers and text.
    pub async fn page(&self, path: &str) -> String {
        let mut stream = tokio::net::UnixStream::connect(self.path("metrics.sock")).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        page
    }

    /// Mounts below the test's directory.
    pub fn mounts(&self) -> Vec<PathBuf> {
        let directory = self.directory.path().canonicalize().unwrap();
        MountTable::read().unwrap().below(&directory).map(|mount| mount.mount_point.clone()).collect()
    }

    /// Runs a shell command in the test's directory as a pod would: in another process. Returns its output.
    pub async fn shell(&self, script: &str) -> Output {
        let (directory, script) = (self.directory.path().to_owned(), script.to_owned());
        let run = move || {
            let mut command = Command::new("timeout");
            command.args(["-k", "5", CHILD_SECONDS, "sh", "-c", &script]).current_dir(directory).output().unwrap()
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    /// As [`Self::shell`]; must succeed. Returns stdout, trimmed.
    pub async fn sh(&self, script: &str) -> String {
        let output = self.shell(script).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{script}: {error}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.plugins.values_mut() {
            child.kill().ok();
            child.wait().ok();
        }
        for mount_point in self.mounts().iter().rev() {
            nix::mount::umount2(mount_point, nix::mount::MntFlags::MNT_DETACH).ok();
        }
    }
}

fn defaults() -> Defaults {
    Defaults::new(DRIVER, Cloud::default(), Trust::default())
}

pub fn channel(socket: &Path) -> Channel {
    Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap().connect_lazy()
}

pub fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub fn capability(mode: Mode, group: Option<u32>) -> VolumeCapability {
    let volume_mount_group = group.map(|group| group.to_string()).unwrap_or_default();
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(MountVolume { volume_mount_group, ..MountVolume::default() })),
    }
}

async fn until(condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waited).await.expect("the socket appears");
}

/// Takes a mount away behind the driver's back.
pub async fn tear(path: &Path) {
    bind::detach(path).await.unwrap();
}
