//! The Node service: reads the kubelet's requests and lets the registry do them, each in its volume's turn.
//!
//! Stage and inline publish bring everything that a mount needs. Publish of a staged volume only binds; secrets that come
//! with it (nodePublishSecretRef, repeated every minute or two where the CSIDriver says requiresRepublish) refresh the
//! credential in place, as do newer tokens of a pod. A volume that each pod signs in to by itself is not staged: there is no
//! pod's token yet. A republish of a working mount never fails. A publish that finds no live mount at the staging path stages by
//! itself (`restage`): the kubelet does not know that the process that staged has ended. Where a keeper holds what that process had
//! mounted, volumes are made again of the requests that it got (`origin`); a call for one waits until that is done.

mod origin;
mod restage;

use std::{path::Path, sync::Arc};

use tonic::{Request, Response, Status, async_trait};

use super::{
    capability::Access,
    error::{Error, ErrorKind, Result},
    in_flight::{InFlight, Lanes},
    labels,
    metrics::describe,
    parameters::Parameters,
    pod_token,
    proto::v1::{
        NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse,
        NodeGetInfoRequest, NodeGetInfoResponse, NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse,
        NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability, NodeStageVolumeRequest,
        NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest,
        NodeUnstageVolumeResponse, VolumeCondition, VolumeUsage, node_server,
        node_service_capability::{self, Rpc, rpc},
        volume_usage::Unit,
    },
    request::{Defaults, MountRequest, require},
    stage_secret::{PodNotices, StageSecret},
    status::answer,
};
use crate::{
    kube::Api,
    volume::{self, Outcome, PublishOptions, Registry, VolumeSpec},
};

/// What this service can do, and nothing else is offered.
const CAPABILITIES: [rpc::Type; 6] = [
    rpc::Type::StageUnstageVolume,
    rpc::Type::GetVolumeStats,
    rpc::Type::VolumeCondition,
    rpc::Type::VolumeMountGroup,
    rpc::Type::SingleNodeMultiWriter,
    rpc::Type::ExpandVolume,
];

/// The service. Cloning shares it.
#[derive(Clone)]
pub struct Node {
    defaults: Arc<Defaults>,
    node_id: String,
    registry: Arc<Registry>,
    /// The API server, where the driver may ask it.
    api: Option<Api>,
    max_volumes: Option<i64>,
    stages: Arc<InFlight<Outcome>>,
    publishes: Arc<InFlight<Outcome>>,
    endings: Arc<InFlight<()>>,
}

impl Node {
    /// The service of the node `node_id`.
    pub fn new(defaults: Defaults, node_id: impl Into<String>, registry: Arc<Registry>) -> Self {
        let lanes = Lanes::default();
        Self {
            defaults: Arc::new(defaults),
            node_id: node_id.into(),
            registry,
            api: None,
            max_volumes: None,
            stages: Arc::new(InFlight::new(lanes.clone())),
            publishes: Arc::new(InFlight::new(lanes.clone())),
            endings: Arc::new(InFlight::new(lanes)),
        }
    }

    /// The same, which reads Secrets of staged volumes again and writes events.
    #[must_use]
    pub fn with_api(self, api: Option<Api>) -> Self {
        Self { api, ..self }
    }

    /// The same, for at most so many volumes of the driver on the node. The scheduler counts them.
    #[must_use]
    pub fn with_max_volumes(self, max_volumes: Option<i64>) -> Self {
        Self { max_volumes, ..self }
    }

    /// `spec` with where its secret is read again, and who is told that it ends.
    fn known_to_api(&self, spec: VolumeSpec, request: &NodeStageVolumeRequest, attributes: Parameters) -> VolumeSpec {
        let Some(api) = self.api.clone() else { return spec };
        let defaults = Arc::clone(&self.defaults);
        let secret = Arc::new(StageSecret::new(api, defaults, &self.node_id, &request.volume_id, attributes));
        // What was looked up is looked up again; who brought no Secret has none to be read again.
        let read_again = || (!request.secrets.is_empty()).then(|| Arc::clone(&secret) as _);
        VolumeSpec { source: spec.source.clone().or_else(read_again), notices: Some(secret), ..spec }
    }

    /// What a stage request asks for.
    async fn spec_of_stage(
        &self,
        request: &NodeStageVolumeRequest,
        attributes: Parameters,
        access: &Access,
    ) -> Result<VolumeSpec> {
        let (volume_id, secrets) = (request.volume_id.as_str(), &request.secrets);
        let spec = MountRequest { volume_id, attributes: &attributes, secrets, access }.spec(&self.defaults).await?;
        let spec = VolumeSpec { origin: Some(origin::of_stage(request)), ..spec };
        Ok(self.known_to_api(spec, request, attributes))
    }

    async fn stage(&self, request: NodeStageVolumeRequest) -> Result<NodeStageVolumeResponse> {
        require(&[("volume_id", &request.volume_id), ("staging_target_path", &request.staging_target_path)])?;
        self.registry.settled(&request.volume_id).await;
        let access = Access::read(request.volume_capability.as_ref())?;
        let attributes = Parameters::of_volume(&request.volume_context)?;
        describe(&attributes);
        if attributes.is_for_pod()? {
            // The kubelet has no pod's token yet: each pod's own comes with its publish.
            tracing::debug!(volume = request.volume_id, "mounted for each pod by itself");
            return Ok(NodeStageVolumeResponse {});
        }
        let spec = self.spec_of_stage(&request, attributes, &access).await?;
        let (registry, path) = (Arc::clone(&self.registry), request.staging_target_path.clone());
        let operation = async move { Ok(Box::pin(registry.stage(spec, access.group, Path::new(&path))).await?) };
        let outcome = self.stages.run(&request.volume_id, &request, operation).await?;
        tracing::info!(volume = request.volume_id, path = request.staging_target_path, ?outcome, "staged");
        Ok(NodeStageVolumeResponse {})
    }

    async fn unstage(&self, request: NodeUnstageVolumeRequest) -> Result<NodeUnstageVolumeResponse> {
        require(&[("volume_id", &request.volume_id), ("staging_target_path", &request.staging_target_path)])?;
        self.registry.settled(&request.volume_id).await;
        let (registry, moved) = (Arc::clone(&self.registry), request.clone());
        let operation =
            async move { Ok(registry.unstage(&moved.volume_id, Path::new(&moved.staging_target_path)).await?) };
        self.endings.run(&request.volume_id, &request, operation).await?;
        tracing::info!(volume = request.volume_id, path = request.staging_target_path, "unstaged");
        Ok(NodeUnstageVolumeResponse {})
    }

    async fn publish(&self, request: NodePublishVolumeRequest) -> Result<NodePublishVolumeResponse> {
        require(&[("volume_id", &request.volume_id), ("target_path", &request.target_path)])?;
        self.registry.settled(&request.volume_id).await;
        let access = Access::read(request.volume_capability.as_ref())?;
        let attributes = Parameters::of_volume(&request.volume_context)?;
        describe(&attributes);
        let mount = MountRequest {
            volume_id: &request.volume_id,
            attributes: &attributes,
            secrets: &request.secrets,
            access: &access,
        };
        let options = PublishOptions {
            read_only: request.readonly || access.read_only,
            group: access.group,
            exclusive: access.exclusive,
            user: labels::of_pod(&attributes),
        };
        let (registry, moved) = (Arc::clone(&self.registry), request.clone());
        let own = match self.own_spec(&request, &mount).await {
            Err(error) if self.serves(&request) => {
                tracing::warn!(volume = request.volume_id, "the republish is not used: {}", error.full_text());
                return Ok(NodePublishVolumeResponse {});
            }
            own => own?,
        };
        let outcome = if let Some(spec) = own {
            let operation = async move {
                Ok(Box::pin(registry.publish_inline(spec, Path::new(&moved.target_path), &options)).await?)
            };
            self.publishes.run(&request.volume_id, &request, operation).await?
        } else {
            if request.staging_target_path.is_empty() {
                return Err(Error::new(
                    ErrorKind::NotReady,
                    "staging_target_path is missing: the volume must be staged first",
                ));
            }
            self.stage_where_gone(&request).await?;
            let (node, credential) = (self.clone(), self.brought_credential(&mount).await);
            let operation = async move {
                let (staging, target) = (Path::new(&moved.staging_target_path), Path::new(&moved.target_path));
                let outcome =
                    registry.publish(&moved.volume_id, staging, target, &options, credential.as_ref()).await?;
                node.note_secrets(&moved, credential.as_ref(), outcome);
                Ok(outcome)
            };
            self.publishes.run(&request.volume_id, &request, operation).await?
        };
        // A republish comes every minute or two for every pod: it is no news.
        match outcome {
            Outcome::AlreadyServed(_) => tracing::debug!(volume = request.volume_id, ?outcome, "published"),
            _ => tracing::info!(volume = request.volume_id, path = request.target_path, ?outcome, "published"),
        }
        Ok(NodePublishVolumeResponse {})
    }

    /// The volume of a publish that is this pod's alone: an inline one, or one that each pod signs in to by itself.
    async fn own_spec(
        &self,
        request: &NodePublishVolumeRequest,
        mount: &MountRequest<'_>,
    ) -> Result<Option<VolumeSpec>> {
        let ephemeral = mount.attributes.is_ephemeral();
        if ephemeral {
            // What else an inline volume may say, `parameters` has checked.
            if mount.attributes.container()?.is_none() {
                return Err(Error::invalid("an inline volume needs containerName in its volumeAttributes"));
            }
        }
        let mut spec = if mount.attributes.is_for_pod()? {
            let token = pod_token::find(&request.volume_context, &request.secrets)?;
            mount.spec_of_pod(&self.defaults, token, Path::new(&request.target_path)).await?
        } else if ephemeral {
            mount.spec(&self.defaults).await?
        } else {
            return Ok(None);
        };
        spec.origin = Some(origin::of_publish(request));
        spec.labels = labels::with_pod(&spec.labels, &labels::of_pod(mount.attributes));
        if let Some(api) = self.api.clone() {
            spec.notices = Some(Arc::new(PodNotices::new(api, &self.defaults.driver_name, &self.node_id)));
        }
        Ok(Some(spec))
    }

    /// Whether the target of a publish works already: nothing that a republish brings may change that.
    fn serves(&self, request: &NodePublishVolumeRequest) -> bool {
        let found = self.registry.condition(&request.volume_id, Path::new(&request.target_path));
        found.is_ok_and(|found| found.is_some_and(|condition| condition.serves))
    }

    /// The credential in a publish request of a staged volume, if it brought one. A Secret that makes no sense must not
    /// fail a mount that works: it is logged and left aside.
    async fn brought_credential(&self, mount: &MountRequest<'_>) -> Option<crate::credential::Credential> {
        if pod_token::are_alone(mount.secrets) {
            return None;
        }
        match mount.account(&self.defaults).await {
            Ok(account) => Some(account.credential),
            Err(error) => {
                tracing::warn!(volume = mount.volume_id, "the publish secret is not used: {}", error.full_text());
                None
            }
        }
    }

    async fn unpublish(&self, request: NodeUnpublishVolumeRequest) -> Result<NodeUnpublishVolumeResponse> {
        require(&[("volume_id", &request.volume_id), ("target_path", &request.target_path)])?;
        self.registry.settled(&request.volume_id).await;
        let (registry, moved) = (Arc::clone(&self.registry), request.clone());
        let operation = async move { Ok(registry.unpublish(&moved.volume_id, Path::new(&moved.target_path)).await?) };
        self.endings.run(&request.volume_id, &request, operation).await?;
        tracing::info!(volume = request.volume_id, path = request.target_path, "unpublished");
        Ok(NodeUnpublishVolumeResponse {})
    }

    /// From memory alone: no request to the service, no touch of the mount. What is in use is what was counted last.
    fn stats(&self, request: &NodeGetVolumeStatsRequest) -> Result<NodeGetVolumeStatsResponse> {
        require(&[("volume_id", &request.volume_id), ("volume_path", &request.volume_path)])?;
        let found = self.registry.condition(&request.volume_id, Path::new(&request.volume_path))?;
        let condition = found.ok_or_else(|| self.not_here(&request.volume_id, &request.volume_path))?;
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let (total, available) = (bytes(condition.usage.capacity), bytes(condition.usage.free));
        let used = bytes(condition.usage.used.unwrap_or(0));
        let message = condition.problem.clone().unwrap_or_else(|| "the volume is served".to_owned());
        Ok(NodeGetVolumeStatsResponse {
            usage: vec![VolumeUsage { available, total, used, unit: Unit::Bytes.into() }],
            volume_condition: Some(VolumeCondition { abnormal: condition.problem.is_some(), message }),
        })
    }

    /// A container has no size to change; the new one is what `df` and statistics show.
    fn expand(&self, request: &NodeExpandVolumeRequest) -> Result<NodeExpandVolumeResponse> {
        require(&[("volume_id", &request.volume_id), ("volume_path", &request.volume_path)])?;
        if self.registry.condition(&request.volume_id, Path::new(&request.volume_path))?.is_none() {
            return Err(self.not_here(&request.volume_id, &request.volume_path));
        }
        let wanted = request.capacity_range.unwrap_or_default().required_bytes;
        if let Ok(bytes @ 1..) = u64::try_from(wanted) {
            self.registry.expand(&request.volume_id, Path::new(&request.volume_path), bytes);
        }
        Ok(NodeExpandVolumeResponse { capacity_bytes: wanted })
    }

    fn not_here(&self, volume: &str, path: &str) -> Error {
        let text = format!("Volume {volume:?} is neither staged nor published at {path} on node {}", self.node_id);
        Error::new(ErrorKind::NotFound, text)
    }
}

impl From<volume::Error> for Error {
    fn from(error: volume::Error) -> Self {
        let kind = match error.kind {
            volume::ErrorKind::Invalid => ErrorKind::Invalid,
            volume::ErrorKind::ContainerMissing => ErrorKind::NotFound,
            volume::ErrorKind::Denied => ErrorKind::Denied,
            volume::ErrorKind::Unavailable | volume::ErrorKind::Unsaved => ErrorKind::Unavailable,
            volume::ErrorKind::NotReady => ErrorKind::NotReady,
            volume::ErrorKind::Occupied => ErrorKind::AlreadyExists,
            volume::ErrorKind::Mount => ErrorKind::Internal,
        };
        Self { kind, message: error.message, source: error.source.map(Arc::from) }
    }
}

#[async_trait]
impl node_server::Node for Node {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        answer("NodeStageVolume", &request.volume_id.clone(), self.stage(request).await)
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        answer("NodeUnstageVolume", &request.volume_id.clone(), self.unstage(request).await)
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        answer("NodePublishVolume", &request.volume_id.clone(), Box::pin(self.publish(request)).await)
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        answer("NodeUnpublishVolume", &request.volume_id.clone(), self.unpublish(request).await)
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        self.registry.settled(&request.volume_id).await;
        answer("NodeGetVolumeStats", &request.volume_id, self.stats(&request))
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        self.registry.settled(&request.volume_id).await;
        answer("NodeExpandVolume", &request.volume_id, self.expand(&request))
    }

    async fn node_get_capabilities(
        &self,
        _request: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capabilities = CAPABILITIES.map(|capability| NodeServiceCapability {
            r#type: Some(node_service_capability::Type::Rpc(Rpc { r#type: capability.into() })),
        });
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities: capabilities.into() }))
    }

    async fn node_get_info(
        &self,
        _request: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        // No topology: containers are reachable from every node.
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.node_id.clone(),
            max_volumes_per_node: self.max_volumes.unwrap_or(0),
            ..NodeGetInfoResponse::default()
        }))
    }
}
