//! A real node plugin in a directory of its own, spoken to over its socket.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use azblob_csi::csi::proto::v1::{
    NodeStageVolumeRequest, VolumeCapability,
    node_client::NodeClient,
    volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode},
};
use harness::mountinfo::{detach_below, mounts_below};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::Realm;

const STARTED_WITHIN: Duration = Duration::from_secs(60);

/// A node plugin, in a directory of its own. Its process ends with it.
pub struct Node<'a> {
    pub realm: &'a Realm,
    pub directory: PathBuf,
    child: Child,
    pub runtime: tokio::runtime::Runtime,
    pub client: NodeClient<Channel>,
}

impl<'a> Node<'a> {
    #[track_caller]
    pub fn start(realm: &'a Realm, environment: &[(&str, &str)]) -> Self {
        Self::start_with(realm, environment, &[])
    }

    /// With more arguments.
    #[track_caller]
    pub fn start_with(realm: &'a Realm, environment: &[(&str, &str)], more: &[&str]) -> Self {
        let directory = realm.world.path("node");
        fs::create_dir_all(directory.join("plugins_registry")).unwrap();
        let socket = directory.join("csi.sock");
        let (endpoint, kubelet) = (format!("unix://{}", socket.display()), directory.display().to_string());
        let level = "info,azblob_csi::credential=trace,azblob_csi::csi=trace,azblob_csi::volume=trace";
        let spool = directory.join("spool").display().to_string();
        let args = [
            ["--log-level", level, "node", "--endpoint", &endpoint],
            ["--node-id", "n1", "--kubelet-dir", &kubelet, "--spool-dir"],
        ]
        .concat();
        let args = [&args[..], &[&*spool]].concat();
        let mut command = realm.world.command_as(&args, &realm.environment(environment));
        command.args(more);
        let log = fs::File::create(realm.world.path("node.log")).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let end = Instant::now() + STARTED_WITHIN;
        // The file is there a moment before somebody listens.
        while UnixStream::connect(&socket).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "the node plugin has ended");
            assert!(Instant::now() < end, "the node plugin does not serve");
            thread::sleep(Duration::from_millis(10));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client =
            runtime.block_on(async { NodeClient::new(Endpoint::from_shared(endpoint).unwrap().connect_lazy()) });
        Self { realm, directory, child, runtime, client }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.realm.world.path("node.log")).unwrap()
    }

    /// Where a volume is staged.
    pub fn staging(&self, volume: &str) -> PathBuf {
        self.directory.join("staging").join(volume.replace('#', "-"))
    }

    pub fn stage(&mut self, volume: &str, context: &[(&str, &str)], secrets: &[(&str, &str)]) -> Result<(), Status> {
        let map = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
            entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let staging = self.staging(volume);
        fs::create_dir_all(&staging).unwrap();
        let request = NodeStageVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: staging.display().to_string(),
            volume_capability: Some(capability()),
            volume_context: map(context),
            secrets: map(secrets),
            ..NodeStageVolumeRequest::default()
        };
        self.runtime.block_on(self.client.node_stage_volume(request)).map(drop)
    }

    pub fn mounts(&self) -> Vec<String> {
        mounts_below(&self.directory)
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        detach_below(&self.directory);
    }
}

pub fn capability() -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::MultiNodeMultiWriter.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}
