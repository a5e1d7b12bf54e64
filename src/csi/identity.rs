//! The Identity service: who the plugin is. Served on every socket of it.

use tonic::{Request, Response, Status, async_trait};

use super::proto::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    PluginCapability, ProbeRequest, ProbeResponse, identity_server,
    plugin_capability::{self, Service, VolumeExpansion, service, volume_expansion},
};

/// Answers for a driver of a given name.
#[derive(Clone, Debug)]
pub struct Identity {
    driver_name: String,
}

impl Identity {
    /// The identity of the driver `driver_name` (`blob.csi.azure.com`), at this build's version.
    pub fn new(driver_name: impl Into<String>) -> Self {
        Self { driver_name: driver_name.into() }
    }
}

#[async_trait]
impl identity_server::Identity for Identity {
    async fn get_plugin_info(
        &self,
        _request: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: self.driver_name.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: [("implementation".to_owned(), env!("CARGO_PKG_NAME").to_owned())].into(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _request: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let controller = Service { r#type: service::Type::ControllerService.into() };
        let expansion = VolumeExpansion { r#type: volume_expansion::Type::Online.into() };
        let capabilities =
            [plugin_capability::Type::Service(controller), plugin_capability::Type::VolumeExpansion(expansion)]
                .map(|capability| PluginCapability { r#type: Some(capability) })
                .into();
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities }))
    }

    /// Ready as soon as the socket answers: a backend that is down must not restart the plugin under running pods.
    async fn probe(&self, _request: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse { ready: Some(true) }))
    }
}
