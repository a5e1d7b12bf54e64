//! Snapshots: a container each, filled by a copy of the volume, and marked with what it is. The service knows snapshots of single
//! blobs alone, so that they are not of one moment is said where people read it.

use std::{collections::BTreeMap, time::Duration};

use super::{Controller, Volume, create::now_seconds, listing::page, no_volume};
use crate::csi::{
    container_name::container_name,
    copy::{Copy, Outcome},
    error::{Error, ErrorKind, Result},
    marks::Marks,
    parameters::Parameters,
    place::Place,
    proto::v1::{
        CreateSnapshotRequest, CreateSnapshotResponse, DeleteSnapshotRequest, DeleteSnapshotResponse,
        GetSnapshotRequest, GetSnapshotResponse, ListSnapshotsRequest, ListSnapshotsResponse, Snapshot,
        list_snapshots_response::Entry,
    },
    request::{Account, require},
    volume_id::VolumeId,
};

/// What the containers of snapshots begin with.
const PREFIX: &str = "snapshot";
/// A snapshot that is copied within this time is answered as ready; others are asked for again.
const READY_AT_ONCE: Duration = Duration::from_secs(5);
/// What would send a snapshot elsewhere than to the account of its volume.
const NOT_OF_A_SNAPSHOT: [&str; 5] = ["storageaccount", "containername", "containernameprefix", "subdir", "prefix"];

impl Controller {
    pub(super) async fn create_snapshot(
        &self,
        request: CreateSnapshotRequest,
        patience: Duration,
    ) -> Result<CreateSnapshotResponse> {
        require(&[("name", &request.name), ("source_volume_id", &request.source_volume_id)])?;
        let parameters = Parameters::of_storage_class(&request.parameters)?;
        if let Some(key) = NOT_OF_A_SNAPSHOT.iter().find(|key| parameters.get(key).is_some()) {
            let text = format!("parameter {key} is not one of a snapshot: it is made beside its volume");
            return Err(Error::invalid(text));
        }
        let handle = request.source_volume_id.clone();
        let Some(Volume { place: source, account, id }) = self.volume(&handle, &request.secrets).await? else {
            return Err(no_volume(&handle));
        };
        let container = container_of(&request.name)?;
        let destination = self.place(&account, &container, None)?;
        let (driver, copies, name) = (self.driver().to_owned(), self.copies.clone(), request.name.clone());
        let operation = async move {
            let made = find_or_make(&driver, &name, &handle, &source, &destination).await?;
            let copy = Copy { source, destination };
            let is_done = made.copy().is_none_or(|copy| copy.is_done)
                || matches!(copies.wait(copy, patience.min(READY_AT_ONCE)).await?, Outcome::Done);
            let id = id_of(&id, account.location(&container)?.account(), &container);
            let snapshot = Snapshot { ready_to_use: is_done, ..describe(&id, &made) };
            Ok(CreateSnapshotResponse { snapshot: Some(snapshot) })
        };
        self.snapshots.run(&request.name, &request, operation).await
    }

    pub(super) async fn delete_snapshot(&self, request: DeleteSnapshotRequest) -> Result<DeleteSnapshotResponse> {
        require(&[("snapshot_id", &request.snapshot_id)])?;
        let Some((place, _)) = self.snapshot_place(&request.snapshot_id, &request.secrets).await? else {
            tracing::warn!(snapshot = request.snapshot_id, "not an id that this driver gives out: nothing is deleted");
            return Ok(DeleteSnapshotResponse {});
        };
        let (driver, copies, id) = (self.driver().to_owned(), self.copies.clone(), request.snapshot_id.clone());
        let operation = async move {
            let Some(found) = place.find("delete").await? else { return Ok(()) };
            if !found.marks.is_by(&driver) || found.marks.snapshot_name().is_none() {
                tracing::warn!(snapshot = id, place = place.shown(), "kept: it is no snapshot of this driver");
                return Ok(());
            }
            copies.stop(&place.shown());
            place.remove(&driver).await
        };
        self.deletions.run(&request.snapshot_id, &request, operation).await?;
        tracing::info!(snapshot = request.snapshot_id, "deleted");
        Ok(DeleteSnapshotResponse {})
    }

    pub(super) async fn get_snapshot(&self, request: GetSnapshotRequest) -> Result<GetSnapshotResponse> {
        require(&[("snapshot_id", &request.snapshot_id)])?;
        match self.snapshot(&request.snapshot_id, &request.secrets).await? {
            Some(snapshot) => Ok(GetSnapshotResponse { snapshot: Some(snapshot) }),
            None => {
                let text = format!("There is no snapshot {:?}", request.snapshot_id);
                Err(Error::new(ErrorKind::NotFound, text))
            }
        }
    }

    pub(super) async fn list_snapshots(&self, request: ListSnapshotsRequest) -> Result<ListSnapshotsResponse> {
        let mut found = match self.snapshots_of(&request).await {
            // The call need not bring secrets; an account that nobody names has no list.
            Err(error) if matches!(error.kind, ErrorKind::NoCredential | ErrorKind::Invalid) => {
                tracing::debug!("no account to list snapshots of: {error}");
                Vec::new()
            }
            found => found?,
        };
        if !request.source_volume_id.is_empty() {
            found.retain(|snapshot| snapshot.source_volume_id == request.source_volume_id);
        }
        let (found, next_token) = page(found, &request.starting_token, request.max_entries)?;
        let entries = found.into_iter().map(|snapshot| Entry { snapshot: Some(snapshot) }).collect();
        Ok(ListSnapshotsResponse { entries, next_token })
    }

    async fn snapshots_of(&self, request: &ListSnapshotsRequest) -> Result<Vec<Snapshot>> {
        if !request.snapshot_id.is_empty() {
            return Ok(self.snapshot(&request.snapshot_id, &request.secrets).await?.into_iter().collect());
        }
        let source = VolumeId::parse(&request.source_volume_id).ok();
        let account = Account::find(&self.defaults, &Parameters::default(), source.as_ref(), &request.secrets).await?;
        // Any container will do: the account is asked.
        let place = self.place(&account, PREFIX, None)?;
        let name = place.location().account().to_owned();
        let (mut found, mut marker) = (Vec::new(), None);
        loop {
            let listed = place.store.list_containers(PREFIX, marker.as_deref()).await;
            let listed = listed.map_err(|error| place.failed("list the snapshots beside", error))?;
            found.extend(
                listed
                    .containers
                    .into_iter()
                    .filter_map(|(container, metadata)| self.known(&Marks(metadata), &name, &container)),
            );
            marker = listed.next_marker;
            if marker.is_none() {
                return Ok(found);
            }
        }
    }

    /// The snapshot that the container is, if it is one of this driver.
    fn known(&self, marks: &Marks, account: &str, container: &str) -> Option<Snapshot> {
        marks.snapshot_name().filter(|_| marks.is_by(self.driver()))?;
        let source = VolumeId::parse(&marks.source()?).unwrap_or_default();
        Some(describe(&id_of(&source, account, container), marks))
    }

    async fn snapshot(&self, id: &str, secrets: &BTreeMap<String, String>) -> Result<Option<Snapshot>> {
        let Some((place, _)) = self.snapshot_place(id, secrets).await? else { return Ok(None) };
        let Some(found) = place.find("look at").await? else { return Ok(None) };
        Ok(self.known(&found.marks, place.location().account(), place.location().container()))
    }

    /// Where the snapshot of this id is; `None` for an id that is none.
    async fn snapshot_place(&self, id: &str, secrets: &BTreeMap<String, String>) -> Result<Option<(Place, Account)>> {
        let Ok(id) = VolumeId::parse(id) else { return Ok(None) };
        let Some(container) = id.container.clone() else { return Ok(None) };
        let account = Account::find(&self.defaults, &Parameters::default(), Some(&id), secrets).await?;
        Ok(Some((self.place(&account, &container, None)?, account)))
    }
}

/// The container of the snapshot `name`.
fn container_of(name: &str) -> Result<String> {
    let prefix = (!name.starts_with(&format!("{PREFIX}-"))).then_some(PREFIX);
    container_name(name, prefix)
}

/// Beside its volume; the same for each who asks.
fn id_of(source: &VolumeId, account: &str, container: &str) -> VolumeId {
    VolumeId {
        account: Some(account.to_owned()),
        container: Some(container.to_owned()),
        uuid: None,
        directory: None,
        ..source.clone()
    }
}

fn describe(id: &VolumeId, marks: &Marks) -> Snapshot {
    Snapshot {
        size_bytes: marks.recorded_capacity().and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or_default(),
        snapshot_id: id.to_string(),
        source_volume_id: marks.source().unwrap_or_default(),
        creation_time: marks.began().map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
        ready_to_use: marks.copy().is_some_and(|copy| copy.is_done),
        ..Snapshot::default()
    }
}

/// The marks of the snapshot's container, which is made where it is missing.
async fn find_or_make(driver: &str, name: &str, handle: &str, source: &Place, destination: &Place) -> Result<Marks> {
    if let Some(found) = destination.find("look at").await? {
        let marks = found.marks;
        let is_ours = marks.is_by(driver) && marks.snapshot_name().as_deref() == Some(name);
        if is_ours && marks.source().as_deref() == Some(handle) {
            return Ok(marks);
        }
        let of = marks.source().filter(|_| is_ours).unwrap_or_else(|| "something else".to_owned());
        let text = format!("Snapshot {name:?} exists already ({}), and is of {of}", destination.shown());
        return Err(Error::new(ErrorKind::AlreadyExists, text));
    }
    let found = source.find("copy").await?.ok_or_else(|| no_volume(handle))?;
    let size = found.marks.recorded_capacity().unwrap_or_default();
    let marks = Marks::by(driver).snapshot(name).capacity(size).copy_of(handle, now_seconds());
    match destination.make(driver, &marks).await? {
        true => Ok(marks),
        false => {
            Err(Error::new(ErrorKind::Unavailable, format!("Snapshot {name:?} is made by another call; try again")))
        }
    }
}
