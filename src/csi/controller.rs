//! The Controller service: makes places for volumes and snapshots, and deletes those that it made.
//!
//! What a place is to us stands in its own marks (`marks`), so that any replica of the controller decides alike. What has no mark
//! of ours is used when a StorageClass names it, and never deleted.

mod create;
mod listing;
mod patience;
mod service;
mod snapshots;

use std::{collections::BTreeMap, sync::Arc};

use super::{
    capability::Access,
    copy::Copies,
    error::{Error, ErrorKind, Result},
    in_flight::{InFlight, Lanes},
    parameters::Parameters,
    place::Place,
    proto::v1::{
        CapacityRange, ControllerExpandVolumeRequest, ControllerExpandVolumeResponse, CreateSnapshotResponse,
        CreateVolumeResponse, DeleteVolumeRequest, DeleteVolumeResponse, ValidateVolumeCapabilitiesRequest,
        ValidateVolumeCapabilitiesResponse, validate_volume_capabilities_response::Confirmed,
    },
    request::{Account, Defaults, require},
    volume_id::VolumeId,
};
use crate::{blob::Connections, kube::PersistentVolume};

/// The service. Cloning shares it.
#[derive(Clone)]
pub struct Controller {
    defaults: Arc<Defaults>,
    connections: Connections,
    copies: Copies,
    creations: Arc<InFlight<CreateVolumeResponse>>,
    snapshots: Arc<InFlight<CreateSnapshotResponse>>,
    deletions: Arc<InFlight<()>>,
    expansions: Arc<InFlight<()>>,
}

/// A volume that somebody made, found by its handle.
struct Volume {
    place: Place,
    account: Account,
    id: VolumeId,
}

impl Controller {
    /// The service, with sockets of its own to the service.
    pub fn new(defaults: Defaults, connections: Connections) -> Self {
        let lanes = Lanes::default();
        Self {
            defaults: Arc::new(defaults),
            connections,
            copies: Copies::default(),
            creations: Arc::new(InFlight::new(lanes.clone())),
            snapshots: Arc::new(InFlight::new(lanes.clone())),
            deletions: Arc::new(InFlight::new(lanes.clone())),
            expansions: Arc::new(InFlight::new(lanes)),
        }
    }

    fn driver(&self) -> &str {
        &self.defaults.driver_name
    }

    fn place(&self, account: &Account, container: &str, directory: Option<&str>) -> Result<Place> {
        Place::new(account, &self.connections, container, directory)
    }

    /// The attributes of the PersistentVolume that has this handle: endpoint and way to sign in stand there, and nowhere else.
    /// Without rights at the API server there are none.
    async fn attributes(&self, handle: &str) -> Parameters {
        let Some(api) = &self.defaults.api else { return Parameters::default() };
        let is_it = |volume: &PersistentVolume| {
            let csi = volume.spec.csi.as_ref();
            csi.is_some_and(|csi| csi.driver == self.defaults.driver_name && csi.volume_handle == handle)
        };
        let id = VolumeId::parse(handle).unwrap_or_default();
        let mut found = None;
        // A provisioned volume is called as its handle says, or as its container is.
        for name in [id.uuid, id.container].into_iter().flatten() {
            found = found.or(api.persistent_volume(&name).await.ok().filter(is_it));
        }
        let found = match found {
            Some(found) => Some(found),
            None => api.find_persistent_volume(is_it).await.unwrap_or_else(|error| {
                tracing::debug!(handle, "the volume's attributes are not known: {error}");
                None
            }),
        };
        let attributes = found.and_then(|volume| volume.spec.csi).map(|csi| csi.volume_attributes).unwrap_or_default();
        Parameters::of_volume(&attributes).unwrap_or_else(|error| {
            tracing::warn!(handle, "the volume's attributes are not used: {error}");
            Parameters::default()
        })
    }

    /// The volume of a handle; `None` for one that names no container.
    async fn volume(&self, handle: &str, secrets: &BTreeMap<String, String>) -> Result<Option<Volume>> {
        let attributes = self.attributes(handle).await;
        let mut id = VolumeId::parse(handle).unwrap_or_default();
        if id.container.is_none() {
            id.container = attributes.container()?;
            id.directory = attributes.sub_directory()?;
        }
        let Some(container) = id.container.clone() else { return Ok(None) };
        let account = Account::find(&self.defaults, &attributes, Some(&id), secrets).await?;
        let place = self.place(&account, &container, id.directory.as_deref())?;
        Ok(Some(Volume { place, account, id }))
    }

    async fn delete(&self, request: DeleteVolumeRequest) -> Result<DeleteVolumeResponse> {
        require(&[("volume_id", &request.volume_id)])?;
        let found = match provisioned(&request.volume_id) {
            true => self.volume(&request.volume_id, &request.secrets).await?,
            false => None,
        };
        let Some(Volume { place, id, .. }) = found else {
            tracing::warn!(volume = request.volume_id, "not a handle that this driver gives out: nothing is deleted");
            return Ok(DeleteVolumeResponse {});
        };
        let (driver, copies, volume) = (self.driver().to_owned(), self.copies.clone(), request.volume_id.clone());
        let operation = async move {
            let Some(found) = place.find("delete").await? else { return Ok(()) };
            let marks = &found.marks;
            let is_whose = !place.is_directory() || marks.names_volume();
            let keeps = if !marks.is_of(&driver, id.uuid.as_deref()) || !is_whose || marks.snapshot_name().is_some() {
                Some("this driver did not make it for this volume")
            } else {
                marks.is_kept().then_some("its StorageClass says onDelete: retain, or it is older than the volume")
            };
            if let Some(reason) = keeps {
                tracing::warn!(volume, place = place.shown(), "the data is kept: {reason}");
                return Ok(());
            }
            copies.stop(&place.shown());
            place.remove(&driver).await
        };
        self.deletions.run(&request.volume_id, &request, operation).await?;
        tracing::info!(volume = request.volume_id, "deleted");
        Ok(DeleteVolumeResponse {})
    }

    async fn validate(&self, request: ValidateVolumeCapabilitiesRequest) -> Result<ValidateVolumeCapabilitiesResponse> {
        require(&[("volume_id", &request.volume_id)])?;
        if request.volume_capabilities.is_empty() {
            return Err(Error::invalid("volume_capabilities are missing"));
        }
        let attributes = Parameters::of_volume(&request.volume_context)?;
        let id = VolumeId::parse(&request.volume_id).ok();
        let name = match attributes.container()? {
            Some(name) => Some(name),
            None => id.as_ref().and_then(|id| id.container.clone()),
        };
        let missing = || no_volume(&request.volume_id);
        let name = name.ok_or_else(missing)?;
        let account = Account::find(&self.defaults, &attributes, id.as_ref(), &request.secrets).await?;
        if self.place(&account, &name, None)?.find("look at").await?.is_none() {
            return Err(missing());
        }
        if let Err(refusal) = Access::read_all(&request.volume_capabilities) {
            return Ok(ValidateVolumeCapabilitiesResponse { confirmed: None, message: refusal.message });
        }
        let confirmed = Confirmed {
            volume_context: request.volume_context,
            volume_capabilities: request.volume_capabilities,
            parameters: request.parameters,
            mutable_parameters: request.mutable_parameters,
        };
        Ok(ValidateVolumeCapabilitiesResponse { confirmed: Some(confirmed), message: String::new() })
    }

    /// A container has no size: the new one is written into its marks, where `df` and repeated calls find it.
    async fn expand(&self, request: ControllerExpandVolumeRequest) -> Result<ControllerExpandVolumeResponse> {
        require(&[("volume_id", &request.volume_id)])?;
        let range = request.capacity_range.as_ref().ok_or_else(|| Error::invalid("capacity_range is missing"))?;
        let wanted = wanted_capacity(Some(range))?;
        let response = ControllerExpandVolumeResponse {
            capacity_bytes: i64::try_from(wanted).unwrap_or(i64::MAX),
            node_expansion_required: true,
        };
        let Some(Volume { place, .. }) = self.volume(&request.volume_id, &request.secrets).await? else {
            return Ok(response);
        };
        let volume = request.volume_id.clone();
        let operation = async move {
            let found = place.find("expand").await?.ok_or_else(|| no_volume(&volume))?;
            // A container that several volumes share has no one size, and never gets smaller.
            if found.marks.recorded_capacity().is_none_or(|known| known >= wanted) {
                return Ok(());
            }
            let marks = found.marks.clone().capacity(wanted);
            place.mark("expand", &found, marks).await.map(drop)
        };
        self.expansions.run(&request.volume_id, &request, operation).await?;
        Ok(response)
    }
}

fn no_volume(handle: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("There is no volume {handle:?}"))
}

/// Whether a handle is one that a provisioner gave out.
fn provisioned(handle: &str) -> bool {
    VolumeId::parse(handle).is_ok_and(|id| id.container.is_some())
}

fn wanted_capacity(range: Option<&CapacityRange>) -> Result<u64> {
    let Some(range) = range else { return Ok(0) };
    let bytes = |bytes| u64::try_from(bytes).map_err(|_| Error::invalid("capacity_range is negative"));
    let (required, limit) = (bytes(range.required_bytes)?, bytes(range.limit_bytes)?);
    if limit > 0 && required > limit {
        return Err(Error::new(
            ErrorKind::OutOfRange,
            format!("required_bytes {required} is above limit_bytes {limit}"),
        ));
    }
    Ok(if required > 0 { required } else { limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_what_is_required_and_within_the_limit() {
        let range = |required_bytes, limit_bytes| wanted_capacity(Some(&CapacityRange { required_bytes, limit_bytes }));
        assert_eq!(range(5, 0).unwrap(), 5);
        assert_eq!(range(0, 7).unwrap(), 7);
        assert_eq!(range(9, 7).unwrap_err().kind, ErrorKind::OutOfRange);
        assert_eq!(range(-1, 0).unwrap_err().kind, ErrorKind::Invalid);
        assert_eq!(wanted_capacity(None).unwrap(), 0);
    }
}
