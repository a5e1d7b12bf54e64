//! The Controller service: makes containers for volumes and deletes those that it made.
//!
//! What a container is to us stands in its own metadata, so that any replica of the controller, today or after a
//! reinstall, decides alike: who made it (`createdby`), for which volume, and which size was asked for. A container
//! without our mark is used when a StorageClass names it, and never deleted.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    capability::Access,
    container_name::container_name,
    error::{Error, ErrorKind, Result},
    in_flight::{InFlight, Lanes},
    parameters::Parameters,
    proto::v1::{
        CapacityRange, ControllerExpandVolumeRequest, ControllerExpandVolumeResponse, CreateVolumeRequest,
        CreateVolumeResponse, DeleteVolumeRequest, DeleteVolumeResponse, ValidateVolumeCapabilitiesRequest,
        ValidateVolumeCapabilitiesResponse, Volume, validate_volume_capabilities_response::Confirmed,
    },
    request::{Account, Defaults, require},
    volume_id::VolumeId,
};
use crate::{
    blob::{self, AzureStore, BlobStore, Connections, Location, Metadata, RequestLimits},
    credential::{Credential, CredentialSlot},
    volume::{
        self,
        spec::{CAPACITY, CREATED_BY, VOLUME_NAME, recorded_capacity},
    },
};

mod service;

/// Where a volume's Secret is looked for when nothing says so; part of the volume handle.
const SECRET_NAMESPACE_DEFAULT: &str = "default";

/// The service. Cloning shares it.
#[derive(Clone)]
pub struct Controller {
    defaults: Arc<Defaults>,
    connections: Connections,
    creations: Arc<InFlight<CreateVolumeResponse>>,
    deletions: Arc<InFlight<()>>,
    expansions: Arc<InFlight<()>>,
}

/// A container, with what is needed to talk about it.
struct Container {
    store: AzureStore,
    location: Location,
    credential: Credential,
}

impl Container {
    fn failed(&self, what: &str, error: blob::Error) -> Error {
        volume::Error::service(what, &self.location, &self.credential, error).into()
    }

    /// Its metadata, or `None` when it does not exist.
    async fn metadata(&self, what: &str) -> Result<Option<Metadata>> {
        match self.store.container_metadata().await {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if error.kind == blob::ErrorKind::ContainerNotFound => Ok(None),
            Err(error) => Err(self.failed(what, error)),
        }
    }
}

impl Controller {
    /// The service, with sockets of its own to the service.
    pub fn new(defaults: Defaults, connections: Connections) -> Self {
        let lanes = Lanes::default();
        Self {
            defaults: Arc::new(defaults),
            connections,
            creations: Arc::new(InFlight::new(lanes.clone())),
            deletions: Arc::new(InFlight::new(lanes.clone())),
            expansions: Arc::new(InFlight::new(lanes)),
        }
    }

    fn container(&self, account: &Account, name: &str) -> Result<Container> {
        let location = account.location(name)?;
        let slot = CredentialSlot::new(account.credential.clone());
        // The provisioner and the resizer ask again for ever, so a call that is short and fails is better than a long one.
        let limits = RequestLimits::mounting();
        let store = AzureStore::with_connections(location.clone(), slot, limits, &self.connections);
        Ok(Container { store, location, credential: account.credential.clone() })
    }

    async fn create(&self, request: CreateVolumeRequest) -> Result<CreateVolumeResponse> {
        require(&[("name", &request.name)])?;
        Access::read_all(&request.volume_capabilities)?;
        let wanted_bytes = wanted_capacity(request.capacity_range.as_ref())?;
        if request.volume_content_source.is_some() {
            return Err(Error::invalid("volumes cannot be made from a snapshot or another volume by this driver"));
        }
        let parameters = Parameters::of_storage_class(&request.parameters)?;
        let named = parameters.container()?;
        let prefix = parameters.get("containernameprefix");
        if named.is_some() && prefix.is_some() {
            return Err(Error::invalid("containerName and containerNamePrefix exclude each other"));
        }
        let name = match &named {
            Some(name) => name.clone(),
            None => container_name(&request.name, prefix)?,
        };
        let account = Account::find(&self.defaults, &parameters, None, &request.secrets).await?;
        let container = self.container(&account, &name)?;
        let created = Creation {
            driver_name: self.defaults.driver_name.clone(),
            volume_name: request.name.clone(),
            wanted_bytes,
            named: named.is_some(),
        };
        let moved = request.clone();
        let operation = async move {
            let capacity = created.run(&container).await?;
            let volume = describe(&moved, &parameters, &container.location, created.named, capacity);
            Ok(CreateVolumeResponse { volume: Some(volume) })
        };
        let response = self.creations.run(&request.name, &request, operation).await?;
        let id = response.volume.as_ref().map_or("", |volume| volume.volume_id.as_str());
        tracing::info!(name = request.name, volume = id, "created");
        Ok(response)
    }

    async fn delete(&self, request: DeleteVolumeRequest) -> Result<DeleteVolumeResponse> {
        require(&[("volume_id", &request.volume_id)])?;
        let Some((id, name)) = provisioned(&request.volume_id) else {
            tracing::warn!(volume = request.volume_id, "not a handle that this driver gives out: nothing is deleted");
            return Ok(DeleteVolumeResponse {});
        };
        let account = Account::find(&self.defaults, &Parameters::default(), Some(&id), &request.secrets).await?;
        let container = self.container(&account, &name)?;
        let driver_name = self.defaults.driver_name.clone();
        let volume = request.volume_id.clone();
        let operation = async move {
            let Some(metadata) = container.metadata("delete").await? else { return Ok(()) };
            if !is_of(&metadata, &driver_name, id.uuid.as_deref()) {
                tracing::warn!(
                    volume,
                    container = %container.location,
                    "the container is kept: this driver did not make it for this volume (no metadata {CREATED_BY}={driver_name})"
                );
                return Ok(());
            }
            match container.store.delete_container().await {
                Ok(()) => Ok(()),
                Err(error) if error.kind == blob::ErrorKind::ContainerNotFound => Ok(()),
                Err(error) => Err(container.failed("delete", error)),
            }
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
        let missing = || Error::new(ErrorKind::NotFound, format!("There is no volume {:?}", request.volume_id));
        let name = name.ok_or_else(missing)?;
        let account = Account::find(&self.defaults, &attributes, id.as_ref(), &request.secrets).await?;
        let container = self.container(&account, &name)?;
        if container.metadata("look at").await?.is_none() {
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

    /// A container has no size: the new one is written into its metadata, where `df` and repeated calls find it.
    async fn expand(&self, request: ControllerExpandVolumeRequest) -> Result<ControllerExpandVolumeResponse> {
        require(&[("volume_id", &request.volume_id)])?;
        let range = request.capacity_range.as_ref().ok_or_else(|| Error::invalid("capacity_range is missing"))?;
        let wanted = wanted_capacity(Some(range))?;
        let response = ControllerExpandVolumeResponse {
            capacity_bytes: i64::try_from(wanted).unwrap_or(i64::MAX),
            node_expansion_required: true,
        };
        let Some((id, name)) = provisioned(&request.volume_id) else { return Ok(response) };
        let account = Account::find(&self.defaults, &Parameters::default(), Some(&id), &request.secrets).await?;
        let container = self.container(&account, &name)?;
        let volume = request.volume_id.clone();
        let operation = async move {
            let missing = || Error::new(ErrorKind::NotFound, format!("There is no volume {volume:?}"));
            let mut metadata = container.metadata("expand").await?.ok_or_else(missing)?;
            // A container that several volumes share has no one size, and never gets smaller.
            if !metadata.contains_key(CAPACITY) || recorded_capacity(&metadata).is_some_and(|known| known >= wanted) {
                return Ok(());
            }
            metadata.insert(CAPACITY.to_owned(), wanted.to_string());
            container.store.set_container_metadata(&metadata).await.map_err(|error| container.failed("expand", error))
        };
        self.expansions.run(&request.volume_id, &request, operation).await?;
        Ok(response)
    }
}

/// What CreateVolume has to make.
struct Creation {
    driver_name: String,
    volume_name: String,
    wanted_bytes: u64,
    /// The StorageClass names the container: volumes of any size may share it.
    named: bool,
}

impl Creation {
    /// Makes the container, or finds it made; returns the volume's size in bytes.
    async fn run(&self, container: &Container) -> Result<u64> {
        let mut metadata: Metadata =
            [(CREATED_BY.to_owned(), self.driver_name.clone()), (VOLUME_NAME.to_owned(), self.volume_name.clone())]
                .into();
        if !self.named {
            metadata.insert(CAPACITY.to_owned(), self.wanted_bytes.to_string());
        }
        match container.store.create_container(&metadata).await {
            Ok(()) => Ok(self.wanted_bytes),
            Err(error) if error.kind == blob::ErrorKind::Precondition => self.adopt(container).await,
            // The name is taken by a container that is being deleted, which takes the service half a minute or more.
            Err(error) if error.kind == blob::ErrorKind::ContainerNotFound => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "Container {:?} is being deleted; it is made as soon as it is gone",
                    container.location.container()
                ),
            )),
            Err(error) => Err(container.failed("create", error)),
        }
    }

    /// The container exists: is it this volume's?
    async fn adopt(&self, container: &Container) -> Result<u64> {
        if self.named {
            return Ok(self.wanted_bytes);
        }
        let Some(found) = container.metadata("create").await? else {
            return Err(Error::new(ErrorKind::Unavailable, "The container vanished while it was looked at; try again"));
        };
        let name = container.location.container();
        if !is_of(&found, &self.driver_name, Some(&self.volume_name)) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "Container {name:?} exists already, and this driver did not make it for volume {:?}",
                    self.volume_name
                ),
            ));
        }
        match recorded_capacity(&found) {
            Some(known) if known != self.wanted_bytes => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("Volume {:?} exists already with {known} bytes, not {}", self.volume_name, self.wanted_bytes),
            )),
            _ => Ok(self.wanted_bytes),
        }
    }
}

/// Whether a container was made by this driver, and if it says for which volume, for this one. A container of another
/// implementation of the same driver does not say.
fn is_of(metadata: &Metadata, driver_name: &str, volume_name: Option<&str>) -> bool {
    let made_by_us = metadata.get(CREATED_BY).is_some_and(|owner| owner == driver_name);
    let other_volume = match (metadata.get(VOLUME_NAME), volume_name) {
        (Some(recorded), Some(wanted)) => recorded != wanted,
        _ => false,
    };
    made_by_us && !other_volume
}

/// The handle's parts and container, if it is one that a provisioner gave out.
fn provisioned(handle: &str) -> Option<(VolumeId, String)> {
    let id = VolumeId::parse(handle).ok()?;
    let name = id.container.clone()?;
    Some((id, name))
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

/// The volume as the provisioner records it: the handle, and the parameters as attributes (the node needs them).
fn describe(
    request: &CreateVolumeRequest,
    parameters: &Parameters,
    location: &Location,
    named: bool,
    capacity: u64,
) -> Volume {
    let namespace = parameters.get("secretnamespace").or_else(|| parameters.get("csi.storage.k8s.io/pvc/namespace"));
    let id = VolumeId {
        resource_group: parameters.get("resourcegroup").map(str::to_owned),
        account: Some(location.account().to_owned()),
        container: Some(location.container().to_owned()),
        // Volumes that share a container would otherwise share a handle.
        uuid: named.then(|| request.name.clone()),
        secret_namespace: Some(namespace.unwrap_or(SECRET_NAMESPACE_DEFAULT).to_owned()),
        subscription: parameters.get("subscriptionid").map(str::to_owned),
    };
    let mut context: BTreeMap<String, String> = request.parameters.clone();
    context.retain(|key, _| !key.eq_ignore_ascii_case("containername"));
    context.insert("containername".to_owned(), location.container().to_owned());
    Volume {
        capacity_bytes: i64::try_from(capacity).unwrap_or(i64::MAX),
        volume_id: id.to_string(),
        volume_context: context,
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(entries: &[(&str, &str)]) -> Metadata {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn only_a_container_with_our_mark_and_our_volume_is_ours() {
        let ours = metadata(&[(CREATED_BY, "d"), (VOLUME_NAME, "pvc-1")]);
        assert!(is_of(&ours, "d", Some("pvc-1")) && is_of(&ours, "d", None));
        assert!(!is_of(&ours, "d", Some("pvc-2")) && !is_of(&ours, "other", Some("pvc-1")));
        assert!(is_of(&metadata(&[(CREATED_BY, "d")]), "d", Some("pvc-1")), "made by another implementation");
        assert!(!is_of(&Metadata::new(), "d", None));
    }

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
