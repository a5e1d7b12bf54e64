//! `azblob-csi node`: the node plugin. Flags in, one running [`crate::csi::plugin`] out.

use std::{path::PathBuf, sync::Arc};

use super::{
    Failure,
    disk::{self, DiskArgs},
    driver::DriverArgs,
    memory,
    trust::TrustArgs,
    upstream::UpstreamArgs,
};
use crate::{
    blob::{Connections, REQUESTS_IN_FLIGHT_DEFAULT},
    cache::{Cache, CacheOptions, MEMORY_BYTES_MIN, READ_AHEAD_BYTES_DEFAULT, Volumes},
    csi::plugin::{NodeOptions, serve_node},
    fs::Resources,
    volume::{Shared, options::parse_bytes},
};

const EXAMPLES: &str = "\
Example:
  azblob-csi node --endpoint unix:///csi/csi.sock --node-id \"$NODE_NAME\" --kubelet-dir /var/lib/kubelet

On SIGTERM unsaved data is saved; nothing is unmounted, because pods still use it.
";

/// Serve the CSI node plugin: mounts volumes for the pods of one node.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    driver: DriverArgs,
    /// Name of this node, as Kubernetes calls it.
    #[arg(long, visible_alias = "nodeid", env = "KUBE_NODE_NAME", value_name = "NAME")]
    node_id: String,
    /// The kubelet's directory, mounted at the same path as on the host, with bidirectional propagation.
    #[arg(long, default_value = "/var/lib/kubelet", value_name = "DIR")]
    kubelet_dir: PathBuf,
    /// The CSI socket as the kubelet sees it [default: KUBELET_DIR/plugins/DRIVER_NAME/csi.sock].
    #[arg(long, value_name = "PATH")]
    kubelet_registration_path: Option<PathBuf>,
    /// Memory of the whole process, e.g. 512MiB [default: 70 % of the cgroup's limit, or 512MiB without one].
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// Most that one sequential reader fetches ahead.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, default_value_t = READ_AHEAD_BYTES_DEFAULT, hide_default_value = true)]
    read_ahead: u64,
    #[command(flatten)]
    disk: DiskArgs,
    /// Where unsaved data goes that does not fit the memory, and, below lost+found, what the service refuses for good. It
    /// should outlive the pod [default: $TMPDIR, or /tmp].
    #[arg(long, value_name = "DIR")]
    spool_dir: Option<PathBuf>,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    upstream: UpstreamArgs,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`Failure`] when a socket cannot be made or a flag makes no sense.
pub fn run(args: Args) -> Result<(), Failure> {
    args.upstream.log();
    let trust = args.trust.read()?;
    let runtime = super::driver::runtime()?;
    let cache = CacheOptions {
        memory_bytes: args.memory.unwrap_or_else(memory::default_budget).max(MEMORY_BYTES_MIN),
        read_ahead_bytes: args.read_ahead,
        volumes: Volumes::Many,
    };
    let resources = Resources {
        cache: Cache::with_disk(cache, args.disk.options(), runtime.handle().clone()),
        spool: Some(args.spool_dir.unwrap_or_else(std::env::temp_dir)),
        runtime: runtime.handle().clone(),
    };
    let cache = resources.cache.clone();
    let connections =
        Connections::trusting(REQUESTS_IN_FLIGHT_DEFAULT, &trust).map_err(|error| Failure::from_chain(&error))?;
    let shared = Shared { resources: Arc::new(resources), connections };
    let options = NodeOptions {
        endpoint: args.driver.endpoint.clone(),
        node_id: args.node_id,
        kubelet_directory: args.kubelet_dir,
        registration_path: args.kubelet_registration_path,
        defaults: args.driver.defaults(trust.clone())?,
    };
    let served = runtime.block_on(async {
        let stop = super::driver::stop()?;
        let served = serve_node(options, shared, stop).await.map_err(|error| Failure::from_chain(&error));
        disk::flush(&cache).await;
        served
    });
    // Threads that serve mounts end with the process: nothing may unmount what pods still use.
    runtime.shutdown_background();
    served
}
