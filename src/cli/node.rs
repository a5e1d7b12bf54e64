//! `azblob-csi node`: the node plugin. Flags in, one running [`crate::csi::plugin`] out.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{Failure, disk, driver::DriverArgs, resources::ResourceArgs, trust::TrustArgs, upstream::UpstreamArgs};
use crate::{
    blob::{Connections, REQUESTS_IN_FLIGHT_DEFAULT},
    cache::Volumes,
    csi::{
        plugin::{Ended, NodeOptions, serve_node},
        request::Defaults,
    },
    volume::{Keeping, Patience, Shared, options::parse_duration},
};

const EXAMPLES: &str = "\
Examples:
  azblob-csi node --endpoint unix:///csi/csi.sock --node-id \"$NODE_NAME\" --kubelet-dir /var/lib/kubelet
  azblob-csi node --keeper /csi/keeper/keeper.sock --endpoint unix:///csi/csi.sock --node-id \"$NODE_NAME\"

On SIGTERM nothing is unmounted, because pods still use it. With a keeper the next process goes on with the mounts; without one unsaved
data is saved, and the mounts end with the process.
";

/// The plugin's own group at its keeper. A keeper serves one plugin: its socket lies in the driver's directory.
const KEEPER_GROUP: &str = "node plugin";

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
    /// Lets inline volumes be signed for in the name of the node's or the cluster's identity. Any pod may write one, and so
    /// reads whatever that identity may read.
    #[arg(long, visible_alias = "allow-inline-volume-key-access-with-idenitity", value_name = "true|false", num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    allow_inline_volume_key_access_with_identity: bool,
    /// Volumes of this driver that the scheduler puts on the node at most; 0 for as many as it likes.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    max_volumes_per_node: i64,
    /// Removes the taint DRIVER_NAME/agent-not-ready from the node once the kubelet has registered the driver. Takes the rights to
    /// get and patch nodes.
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_value_t = false,
          default_missing_value = "true", action = clap::ArgAction::Set)]
    remove_not_ready_taint: bool,
    /// How long a volume that pods have left stays mounted while the service does not take what was written. Then that goes to
    /// lost+found in the spool directory, and the volume is unmounted.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    unsaved_patience: Duration,
    /// The socket of a keeper (azblob-csi keeper): mounts are given to it, so that they outlive this process. Without one a restart
    /// ends the mounts of running pods.
    #[arg(long, value_name = "PATH")]
    keeper: Option<PathBuf>,
    /// With --keeper: do not ask the kernel (Linux 6.9 and later) to send again what was under way when a process ended. For
    /// tests of older kernels' behaviour.
    #[arg(long, hide = true, requires = "keeper")]
    no_resend: bool,
    /// Serves metrics for Prometheus there, at /metrics, and probes at /healthz and /readyz: HOST:PORT, or :PORT for all
    /// addresses [default: nowhere].
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    metrics_address: String,
    #[command(flatten)]
    resources: ResourceArgs,
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
    let resources = args.resources.resources(Volumes::Many, runtime.handle());
    let cache = resources.cache.clone();
    let connections =
        Connections::trusting(REQUESTS_IN_FLIGHT_DEFAULT, &trust).map_err(|error| Failure::from_chain(&error))?;
    let keeping = args.keeper.as_deref().map(|socket| Keeping::begin(socket, KEEPER_GROUP));
    if keeping.is_none() {
        tracing::warn!(
            "there is no keeper (--keeper): a restart of this process ends the mounts of running pods, so drain the node first"
        );
    }
    let shared = Shared { resources: Arc::new(resources), connections, keeping };
    let defaults = Defaults {
        lends_to_inline: args.allow_inline_volume_key_access_with_identity,
        no_resend: args.no_resend,
        ..args.driver.defaults(trust.clone())?
    };
    let api = defaults.api.clone();
    let options = NodeOptions {
        endpoint: args.driver.endpoint.clone(),
        node_id: args.node_id,
        kubelet_directory: args.kubelet_dir,
        registration_path: args.kubelet_registration_path,
        defaults,
        api,
        max_volumes: Some(args.max_volumes_per_node).filter(|most| *most > 0),
        removes_startup_taint: args.remove_not_ready_taint,
        patience: Patience { unsaved: args.unsaved_patience, ..Patience::default() },
        metrics_address: Some(args.metrics_address).filter(|address| !address.is_empty()),
    };
    let served = runtime.block_on(async {
        let stop = super::driver::stop()?;
        let served = Box::pin(serve_node(options, shared, stop)).await.map_err(|error| Failure::from_chain(&error))?;
        if served == Ended::HandedOver {
            std::process::exit(0);
        }
        disk::flush(&cache).await;
        Ok(())
    });
    // Threads that serve mounts end with the process: nothing may unmount what pods still use.
    runtime.shutdown_background();
    served
}
