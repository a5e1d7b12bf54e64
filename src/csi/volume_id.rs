//! The volumeHandle: `resource group#account#container#uuid#secret namespace#subscription`.
//!
//! The form of the Azure Blob CSI driver, so that either driver can mount and delete the other's volumes. Handles with
//! three to six segments exist in clusters, segments may be empty, and a statically made PersistentVolume may carry any
//! text at all: then the attributes name the container. A volume that is a directory of a shared container has that behind its
//! name: `PV/DIRECTORY`, so that whoever deletes it finds it by the handle alone. Knows nothing of secrets or services.

use std::fmt;

use uuid::Uuid;

/// What separates the segments.
const SEPARATOR: char = '#';

/// What stands between a volume's name and its directory in one segment.
const DIRECTORY: char = '/';

/// A handle has at least resource group, account and container.
const SEGMENTS_MIN: usize = 3;

/// The parts of a volumeHandle. A part that the handle leaves empty or does not have is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeId {
    /// Resource group of the account.
    pub resource_group: Option<String>,
    /// Storage account.
    pub account: Option<String>,
    /// Container.
    pub container: Option<String>,
    /// What makes the handle unique where several volumes share a container: the name of the PersistentVolume.
    pub uuid: Option<String>,
    /// Directory of the container that is the volume, behind the first `/` of the same segment. Names of PersistentVolumes have
    /// none, so the other driver's handles are read as they are meant.
    pub directory: Option<String>,
    /// Namespace of the account's Secret.
    pub secret_namespace: Option<String>,
    /// Subscription of the account. Only a GUID counts.
    pub subscription: Option<String>,
}

/// A handle that is not in the form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("volume id {0:?} is not in the form resourceGroup#account#container[#uuid[#secretNamespace[#subscriptionID]]]")]
pub struct NotInForm(pub String);

impl VolumeId {
    /// Takes a handle apart. More than six segments are no error: what follows the subscription is ignored.
    ///
    /// # Errors
    /// [`NotInForm`] for less than three segments.
    pub fn parse(handle: &str) -> Result<Self, NotInForm> {
        let segments: Vec<&str> = handle.split(SEPARATOR).collect();
        if segments.len() < SEGMENTS_MIN {
            return Err(NotInForm(handle.to_owned()));
        }
        let part = |index: usize| segments.get(index).map(|part| part.trim()).filter(|part| !part.is_empty());
        let owned = |index: usize| part(index).map(str::to_owned);
        Ok(Self {
            resource_group: owned(0),
            account: owned(1),
            container: owned(2),
            uuid: owned(3).map(|text| text.split_once(DIRECTORY).map(|(uuid, _)| uuid.to_owned()).unwrap_or(text)),
            directory: part(3).and_then(|text| text.split_once(DIRECTORY)).map(|(_, directory)| directory.to_owned()),
            secret_namespace: owned(4),
            subscription: part(5).filter(|text| Uuid::try_parse(text).is_ok()).map(str::to_owned),
        })
    }
}

impl fmt::Display for VolumeId {
    /// Always all six segments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uuid = match (&self.uuid, &self.directory) {
            (uuid, Some(directory)) => Some(format!("{}{DIRECTORY}{directory}", uuid.as_deref().unwrap_or_default())),
            (uuid, None) => uuid.clone(),
        };
        let parts =
            [&self.resource_group, &self.account, &self.container, &uuid, &self.secret_namespace, &self.subscription];
        for (index, part) in parts.into_iter().enumerate() {
            if index > 0 {
                write!(f, "{SEPARATOR}")?;
            }
            f.write_str(part.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(handle: &str) -> VolumeId {
        VolumeId::parse(handle).unwrap()
    }

    #[test]
    fn the_usual_dynamic_handle_is_read_and_written_back() {
        let id = parse("MC_rg#fuse1234#pvc-7f##default#");
        assert_eq!(id.resource_group.as_deref(), Some("MC_rg"));
        assert_eq!(id.account.as_deref(), Some("fuse1234"));
        assert_eq!(id.container.as_deref(), Some("pvc-7f"));
        assert_eq!((id.uuid.as_deref(), id.secret_namespace.as_deref()), (None, Some("default")));
        assert_eq!(id.to_string(), "MC_rg#fuse1234#pvc-7f##default#");
    }

    #[test]
    fn three_to_six_segments_are_read_and_six_are_written() {
        let subscription = "c9d2281e-dcd5-4dfd-9a97-0d50377cdf76";
        for (handle, written) in [
            ("rg#a#c", "rg#a#c###"),
            ("rg#a#c#u", "rg#a#c#u##"),
            ("rg#a#c#u#ns", "rg#a#c#u#ns#"),
            ("##c##default#", "##c##default#"),
        ] {
            assert_eq!(parse(handle).to_string(), written);
        }
        let full = format!("rg#a#c#u#ns#{subscription}");
        assert_eq!(parse(&full).subscription.as_deref(), Some(subscription));
        assert_eq!(parse(&full).to_string(), full);
    }

    #[test]
    fn a_directory_stands_behind_the_name_of_its_volume() {
        let id = parse("rg#acct#shared#pvc-1/apps/data#default#");
        assert_eq!((id.uuid.as_deref(), id.directory.as_deref()), (Some("pvc-1"), Some("apps/data")));
        assert_eq!(id.container.as_deref(), Some("shared"));
        assert_eq!(id.to_string(), "rg#acct#shared#pvc-1/apps/data#default#");
    }

    #[test]
    fn a_subscription_that_is_no_guid_is_ignored() {
        assert_eq!(parse("rg#a#c#u#ns#not-a-guid").subscription, None);
    }

    #[test]
    fn other_texts_are_refused_with_the_form_that_was_expected() {
        for handle in ["", "acct_container", "rg#acct", "some-id"] {
            let error = VolumeId::parse(handle).unwrap_err().to_string();
            assert!(error.contains("resourceGroup#account#container"), "{error}");
        }
    }
}
