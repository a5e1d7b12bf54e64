//! `azblob-csi controller`: the controller plugin. Flags in, one running [`crate::csi::plugin`] out.

use super::{Failure, driver::DriverArgs, trust::TrustArgs, upstream::UpstreamArgs};
use crate::{blob::Connections, csi::plugin::serve_controller};

/// Requests in flight: a provisioner asks for ten volumes at a time, each a request or two.
const REQUESTS_IN_FLIGHT: usize = 16;

const EXAMPLES: &str = "\
Example:
  azblob-csi controller --endpoint unix:///csi/csi.sock
";

/// Serve the CSI controller plugin: makes, deletes and resizes volumes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    driver: DriverArgs,
    /// Accepted because manifests of other drivers give it.
    #[arg(long, visible_alias = "nodeid", hide = true)]
    node_id: Option<String>,
    /// Serves metrics for Prometheus there, at /metrics, and probes at /healthz and /readyz: HOST:PORT, or :PORT for all
    /// addresses [default: nowhere].
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    metrics_address: String,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    upstream: UpstreamArgs,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`Failure`] when the socket cannot be made or a flag makes no sense.
pub fn run(args: Args) -> Result<(), Failure> {
    args.upstream.log();
    let trust = args.trust.read()?;
    if let Some(node) = &args.node_id {
        tracing::debug!(node, "a controller needs no node");
    }
    let metrics_address = Some(args.metrics_address).filter(|address| !address.is_empty());
    let defaults = args.driver.defaults(trust.clone())?;
    let connections = Connections::trusting(REQUESTS_IN_FLIGHT, &trust).map_err(|error| Failure::from_chain(&error))?;
    let DriverArgs { endpoint, .. } = args.driver;
    super::driver::runtime()?.block_on(async {
        let stop = super::driver::stop()?;
        let served = serve_controller(&endpoint, defaults, connections, metrics_address.as_deref(), stop).await;
        served.map_err(|error| Failure::from_chain(&error))
    })
}
