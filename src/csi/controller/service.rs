//! The gRPC side of the Controller: one short method a call. What the driver does not offer answers `Unimplemented`.

use tonic::{Request, Response, Status, async_trait};

use super::{Controller, patience::patience};
use crate::csi::{
    proto::v1::{
        ControllerExpandVolumeRequest, ControllerExpandVolumeResponse, ControllerGetCapabilitiesRequest,
        ControllerGetCapabilitiesResponse, ControllerGetVolumeRequest, ControllerGetVolumeResponse,
        ControllerModifyVolumeRequest, ControllerModifyVolumeResponse, ControllerPublishVolumeRequest,
        ControllerPublishVolumeResponse, ControllerServiceCapability, ControllerUnpublishVolumeRequest,
        ControllerUnpublishVolumeResponse, CreateSnapshotRequest, CreateSnapshotResponse, CreateVolumeRequest,
        CreateVolumeResponse, DeleteSnapshotRequest, DeleteSnapshotResponse, DeleteVolumeRequest, DeleteVolumeResponse,
        GetCapacityRequest, GetCapacityResponse, GetSnapshotRequest, GetSnapshotResponse, ListSnapshotsRequest,
        ListSnapshotsResponse, ListVolumesRequest, ListVolumesResponse, ValidateVolumeCapabilitiesRequest,
        ValidateVolumeCapabilitiesResponse, controller_server,
        controller_service_capability::{self, Rpc, rpc},
    },
    status::{answer, unsupported},
};

/// What this service can do, and nothing else is offered.
const CAPABILITIES: [rpc::Type; 7] = [
    rpc::Type::CreateDeleteVolume,
    rpc::Type::ExpandVolume,
    rpc::Type::SingleNodeMultiWriter,
    rpc::Type::CloneVolume,
    rpc::Type::CreateDeleteSnapshot,
    rpc::Type::ListSnapshots,
    rpc::Type::GetSnapshot,
];

/// What it can do as well where it has an identity of its own, and may read PersistentVolumes: those calls carry no secret.
const CAPABILITIES_OF_ITS_OWN: [rpc::Type; 4] =
    [rpc::Type::ListVolumes, rpc::Type::GetVolume, rpc::Type::VolumeCondition, rpc::Type::GetCapacity];

#[async_trait]
impl controller_server::Controller for Controller {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let (patience, request) = (patience(request.metadata()), request.into_inner());
        answer("CreateVolume", &request.name.clone(), self.create(request, patience).await)
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let request = request.into_inner();
        answer("DeleteVolume", &request.volume_id.clone(), self.delete(request).await)
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let request = request.into_inner();
        answer("ValidateVolumeCapabilities", &request.volume_id.clone(), self.validate(request).await)
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        answer("ControllerExpandVolume", &request.volume_id.clone(), self.expand(request).await)
    }

    async fn controller_get_capabilities(
        &self,
        _request: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let own: &[rpc::Type] = if self.speaks_for_itself() { &CAPABILITIES_OF_ITS_OWN } else { &[] };
        let capabilities = CAPABILITIES.iter().chain(own).map(|capability| ControllerServiceCapability {
            r#type: Some(controller_service_capability::Type::Rpc(Rpc { r#type: (*capability).into() })),
        });
        Ok(Response::new(ControllerGetCapabilitiesResponse { capabilities: capabilities.collect() }))
    }

    async fn controller_publish_volume(
        &self,
        _request: Request<ControllerPublishVolumeRequest>,
    ) -> Result<Response<ControllerPublishVolumeResponse>, Status> {
        Err(unsupported("ControllerPublishVolume"))
    }

    async fn controller_unpublish_volume(
        &self,
        _request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<ControllerUnpublishVolumeResponse>, Status> {
        Err(unsupported("ControllerUnpublishVolume"))
    }

    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        let request = request.into_inner();
        answer("ListVolumes", "", self.list_volumes(request).await)
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        answer("GetCapacity", "", self.capacity(&request.into_inner()))
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        let (patience, request) = (patience(request.metadata()), request.into_inner());
        answer("CreateSnapshot", &request.name.clone(), self.create_snapshot(request, patience).await)
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Result<Response<DeleteSnapshotResponse>, Status> {
        let request = request.into_inner();
        answer("DeleteSnapshot", &request.snapshot_id.clone(), self.delete_snapshot(request).await)
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        answer("ListSnapshots", "", self.list_snapshots(request.into_inner()).await)
    }

    async fn get_snapshot(
        &self,
        request: Request<GetSnapshotRequest>,
    ) -> Result<Response<GetSnapshotResponse>, Status> {
        let request = request.into_inner();
        answer("GetSnapshot", &request.snapshot_id.clone(), self.get_snapshot(request).await)
    }

    async fn controller_get_volume(
        &self,
        request: Request<ControllerGetVolumeRequest>,
    ) -> Result<Response<ControllerGetVolumeResponse>, Status> {
        let request = request.into_inner();
        answer("ControllerGetVolume", &request.volume_id.clone(), self.get_volume(request).await)
    }

    async fn controller_modify_volume(
        &self,
        _request: Request<ControllerModifyVolumeRequest>,
    ) -> Result<Response<ControllerModifyVolumeResponse>, Status> {
        Err(unsupported("ControllerModifyVolume"))
    }
}
