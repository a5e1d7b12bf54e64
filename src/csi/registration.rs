//! Registration with the kubelet, in-process: what the node-driver-registrar sidecar does elsewhere.
//!
//! The kubelet watches `<kubelet>/plugins_registry`. It connects to every socket that appears there, asks who it is, and
//! then talks to the CSI socket named in the answer. Knows nothing of volumes.

mod authority;

use tokio::sync::watch;
use tonic::{Request, Response, Status, async_trait};

use super::proto::registration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse, registration_server,
};

pub(super) use authority::LocalAuthority;

/// The type under which the kubelet looks for CSI drivers.
const PLUGIN_TYPE: &str = "CSIPlugin";
/// The kubelet takes any 1.x; it is the version of the interface's protocol, not of this driver.
const SUPPORTED_VERSION: &str = "1.0.0";

/// Introduces one driver.
#[derive(Debug)]
pub struct Registration {
    driver_name: String,
    endpoint: String,
    registered: watch::Sender<bool>,
}

impl Registration {
    /// Introduces `driver_name`, whose CSI socket the kubelet finds at `endpoint` (a path as *the kubelet* sees it).
    pub fn new(driver_name: impl Into<String>, endpoint: impl Into<String>) -> Self {
        let registered = watch::Sender::new(false);
        Self { driver_name: driver_name.into(), endpoint: endpoint.into(), registered }
    }

    /// Whether the kubelet has taken the driver.
    #[must_use]
    pub fn registered(&self) -> watch::Receiver<bool> {
        self.registered.subscribe()
    }
}

#[async_trait]
impl registration_server::Registration for Registration {
    async fn get_info(&self, _request: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: PLUGIN_TYPE.to_owned(),
            name: self.driver_name.clone(),
            endpoint: self.endpoint.clone(),
            supported_versions: vec![SUPPORTED_VERSION.to_owned()],
        }))
    }

    /// The kubelet asks again by itself after a failure, so a failure is only logged.
    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        self.registered.send_replace(status.plugin_registered);
        if status.plugin_registered {
            tracing::info!(driver = self.driver_name, "the kubelet has registered the driver");
        } else {
            tracing::error!(
                driver = self.driver_name,
                endpoint = self.endpoint,
                "the kubelet did not take the driver: {}; check --kubelet-dir and that the socket's path is the same \
                 for kubelet and driver",
                status.error
            );
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
