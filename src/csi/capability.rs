//! How a volume is to be used, read from a VolumeCapability: mounted only, by whom, with which options and group.

use super::{
    error::{Error, Result},
    proto::v1::{
        VolumeCapability,
        volume_capability::{AccessType, MountVolume, access_mode::Mode},
    },
};

/// A capability that we can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// A READER_ONLY mode.
    pub read_only: bool,
    /// SINGLE_NODE_SINGLE_WRITER: one pod of one node.
    pub exclusive: bool,
    /// The pod's fsGroup.
    pub group: Option<u32>,
    /// Mount options of the PersistentVolume or StorageClass.
    pub mount_flags: Vec<String>,
}

impl Access {
    /// Reads one capability.
    ///
    /// # Errors
    /// `Invalid` when it is missing, asks for a block device, names no mode that we know, or a group that is none.
    pub fn read(capability: Option<&VolumeCapability>) -> Result<Self> {
        let capability = capability.ok_or_else(|| Error::invalid("volume_capability is missing"))?;
        let mount = match &capability.access_type {
            Some(AccessType::Mount(mount)) => mount,
            Some(AccessType::Block(_)) => {
                return Err(Error::invalid("a Blob container is no block device: use volumeMode: Filesystem"));
            }
            None => return Err(Error::invalid("volume_capability has neither mount nor block")),
        };
        let mode = capability.access_mode.as_ref().map(|mode| mode.mode());
        let (read_only, exclusive) = match mode {
            Some(Mode::SingleNodeReaderOnly | Mode::MultiNodeReaderOnly) => (true, false),
            Some(Mode::SingleNodeSingleWriter) => (false, true),
            Some(
                Mode::SingleNodeWriter
                | Mode::SingleNodeMultiWriter
                | Mode::MultiNodeSingleWriter
                | Mode::MultiNodeMultiWriter,
            ) => (false, false),
            Some(Mode::Unknown) | None => return Err(Error::invalid("volume_capability has no known access_mode")),
        };
        Ok(Self { read_only, exclusive, group: group(mount)?, mount_flags: mount.mount_flags.clone() })
    }

    /// Reads all of several; there must be one at least.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_all(capabilities: &[VolumeCapability]) -> Result<Vec<Self>> {
        if capabilities.is_empty() {
            return Err(Error::invalid("volume_capabilities are missing"));
        }
        capabilities.iter().map(|capability| Self::read(Some(capability))).collect()
    }
}

fn group(mount: &MountVolume) -> Result<Option<u32>> {
    match mount.volume_mount_group.as_str() {
        "" => Ok(None),
        text => {
            text.parse().map(Some).map_err(|_| Error::invalid(format!("volume_mount_group {text:?} is no group id")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csi::proto::v1::volume_capability::{AccessMode, BlockVolume};

    fn mounted(mode: Mode, group: &str) -> VolumeCapability {
        VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            access_type: Some(AccessType::Mount(MountVolume {
                volume_mount_group: group.to_owned(),
                ..MountVolume::default()
            })),
        }
    }

    #[test]
    fn reader_modes_are_read_only_and_single_writer_is_exclusive() {
        let read = |mode| Access::read(Some(&mounted(mode, ""))).unwrap();
        assert!(read(Mode::MultiNodeReaderOnly).read_only && read(Mode::SingleNodeReaderOnly).read_only);
        assert!(read(Mode::SingleNodeSingleWriter).exclusive);
        let shared = read(Mode::MultiNodeMultiWriter);
        assert!(!shared.read_only && !shared.exclusive);
    }

    #[test]
    fn the_fs_group_is_a_number() {
        let read = |group| Access::read(Some(&mounted(Mode::SingleNodeWriter, group)));
        assert_eq!(read("2000").unwrap().group, Some(2000));
        assert!(read("staff").unwrap_err().message.contains("staff"));
    }

    #[test]
    fn block_volumes_and_missing_parts_are_refused() {
        assert!(Access::read(None).is_err());
        assert!(Access::read_all(&[]).is_err());
        let block = VolumeCapability {
            access_type: Some(AccessType::Block(BlockVolume {})),
            ..mounted(Mode::SingleNodeWriter, "")
        };
        assert!(Access::read(Some(&block)).unwrap_err().message.contains("Filesystem"));
        let no_mode = VolumeCapability { access_mode: None, ..mounted(Mode::SingleNodeWriter, "") };
        assert!(Access::read(Some(&no_mode)).is_err());
    }
}
