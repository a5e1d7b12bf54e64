//! Calls that carry no secret: which volumes there are, one of them, and how much room there is. Answered from PersistentVolumes,
//! and offered only where the driver may read them and has an identity of its own.

use super::{Controller, no_volume};
use crate::{
    csi::{
        capability::Access,
        error::{Error, ErrorKind, Result},
        lookup,
        parameters::Parameters,
        proto::v1::{
            ControllerGetVolumeRequest, ControllerGetVolumeResponse, GetCapacityRequest, GetCapacityResponse,
            ListVolumesRequest, ListVolumesResponse, Volume, VolumeCondition, controller_get_volume_response,
            list_volumes_response::Entry,
        },
        request::require,
    },
    kube::{Api, PersistentVolume},
};

/// What an account holds unless more was asked for ("Scalability and performance targets for standard storage accounts": 5 PiB;
/// a container may have all of it). What is in use cannot be asked for with the rights of a driver, and nothing is taken off.
const ACCOUNT_BYTES: i64 = 5 << 50;

impl Controller {
    /// Whether calls without secrets are offered.
    pub(super) fn speaks_for_itself(&self) -> bool {
        self.defaults.api.is_some() && lookup::has_identity(&self.defaults)
    }

    fn api(&self, call: &str) -> Result<&Api> {
        self.defaults.api.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!("{call} is answered from PersistentVolumes, which the driver may not read"),
            )
        })
    }

    async fn volumes(&self, call: &str) -> Result<Vec<PersistentVolume>> {
        let mut found =
            self.api(call)?.persistent_volumes(self.driver()).await.map_err(|error| {
                Error::new(ErrorKind::Unavailable, "PersistentVolumes cannot be listed").because(error)
            })?;
        found.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
        Ok(found)
    }

    pub(super) async fn list_volumes(&self, request: ListVolumesRequest) -> Result<ListVolumesResponse> {
        let found = self.volumes("ListVolumes").await?;
        let (found, next_token) = page(found, &request.starting_token, request.max_entries)?;
        let entries = found.iter().map(|volume| Entry { volume: Some(describe(volume)), status: None }).collect();
        Ok(ListVolumesResponse { entries, next_token })
    }

    pub(super) async fn get_volume(&self, request: ControllerGetVolumeRequest) -> Result<ControllerGetVolumeResponse> {
        require(&[("volume_id", &request.volume_id)])?;
        let found = self
            .volumes("ControllerGetVolume")
            .await?
            .into_iter()
            .find(|volume| volume.spec.csi.as_ref().is_some_and(|csi| csi.volume_handle == request.volume_id));
        let found = found.ok_or_else(|| no_volume(&request.volume_id))?;
        let condition = self.condition(&request.volume_id).await;
        let status = controller_get_volume_response::VolumeStatus {
            volume_condition: Some(condition),
            ..controller_get_volume_response::VolumeStatus::default()
        };
        Ok(ControllerGetVolumeResponse { volume: Some(describe(&found)), status: Some(status) })
    }

    /// Whether the volume is there, as far as the driver's own identity can see.
    async fn condition(&self, handle: &str) -> VolumeCondition {
        let said = |abnormal, message: &str| VolumeCondition { abnormal, message: message.to_owned() };
        let place = match self.volume(handle, &std::collections::BTreeMap::new()).await {
            Ok(Some(volume)) => volume.place,
            Ok(None) => return said(true, "its container is not known"),
            Err(error) if error.kind == ErrorKind::NoCredential => {
                return said(false, "not looked at: only its Secret opens it");
            }
            Err(error) => return said(true, &error.full_text()),
        };
        match place.find("look at").await {
            Ok(Some(_)) => said(false, "the container is there"),
            Ok(None) => said(true, &format!("{} does not exist", place.shown())),
            Err(error) => said(true, &error.full_text()),
        }
    }

    pub(super) fn capacity(&self, request: &GetCapacityRequest) -> Result<GetCapacityResponse> {
        Parameters::of_storage_class(&request.parameters)?;
        let is_served =
            request.volume_capabilities.is_empty() || Access::read_all(&request.volume_capabilities).is_ok();
        let available_capacity = if is_served { ACCOUNT_BYTES } else { 0 };
        Ok(GetCapacityResponse {
            available_capacity,
            maximum_volume_size: Some(ACCOUNT_BYTES),
            minimum_volume_size: None,
        })
    }
}

fn describe(volume: &PersistentVolume) -> Volume {
    let csi = volume.spec.csi.clone().unwrap_or_default();
    Volume {
        capacity_bytes: volume.capacity().unwrap_or_default(),
        volume_id: csi.volume_handle,
        volume_context: csi.volume_attributes,
        ..Volume::default()
    }
}

/// `most` of `all` (none: as many as there are) from `token` on, which is a number, and the token of what comes next.
///
/// # Errors
/// `Invalid` for a negative number; `InProgress`, which is told as ABORTED, for a token that is none.
pub(super) fn page<T>(all: Vec<T>, token: &str, most: i32) -> Result<(Vec<T>, String)> {
    let stale =
        || Error::new(ErrorKind::InProgress, format!("starting_token {token:?} is none of this driver: begin again"));
    let first = match token {
        "" => 0,
        token => token.parse().ok().filter(|first: &usize| *first <= all.len()).ok_or_else(stale)?,
    };
    let most = usize::try_from(most).map_err(|_| Error::invalid("max_entries is negative"))?;
    let most = if most == 0 { usize::MAX } else { most };
    let next = first.saturating_add(most);
    let token = if next < all.len() { next.to_string() } else { String::new() };
    Ok((all.into_iter().skip(first).take(most).collect(), token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let (one, token) = page(vec![1, 2, 3, 4, 5], "", 2).unwrap();
        assert_eq!((one, token.as_str()), (vec![1, 2], "2"));
        assert_eq!(page(vec![1, 2, 3, 4, 5], "4", 2).unwrap(), (vec![5], String::new()));
        assert_eq!(page(vec![1, 2, 3], "2", 0).unwrap(), (vec![3], String::new()));
        assert_eq!(page(vec![1], "invalid-token", 0).unwrap_err().kind, ErrorKind::InProgress);
        assert_eq!(page(vec![1], "2", 0).unwrap_err().kind, ErrorKind::InProgress);
        assert_eq!(page(vec![1], "", -1).unwrap_err().kind, ErrorKind::Invalid);
    }
}
