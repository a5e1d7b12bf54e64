//! One volume through its life, as the sidecars and the kubelet drive it. Only CSI calls; knows no file.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use azblob_csi::{
    csi::proto::v1::{
        CapacityRange, ControllerExpandVolumeRequest, CreateVolumeRequest, DeleteVolumeRequest,
        NodeExpandVolumeRequest, NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
        NodeUnstageVolumeRequest, VolumeCapability,
        volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode},
    },
    volume::mountinfo::MountTable,
};

use super::{plugins::Plugins, service::Service};

/// See the module's doc.
pub struct Volume {
    volume: azblob_csi::csi::proto::v1::Volume,
    container: String,
    directory: PathBuf,
}

impl Volume {
    /// CreateVolume, as external-provisioner sends it for a claim of `bytes`.
    ///
    /// # Errors
    /// What the driver says.
    pub async fn create(plugins: &mut Plugins, service: &Service, directory: &Path, bytes: i64) -> Result<Self> {
        let request = CreateVolumeRequest {
            name: "pvc-5e0c1f0a-demo".to_owned(),
            capacity_range: Some(CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
            volume_capabilities: vec![capability()],
            secrets: secrets(service),
            ..CreateVolumeRequest::default()
        };
        let response = plugins.controller.create_volume(request).await.map_err(|status| said(&status))?.into_inner();
        let volume = response.volume.context("CreateVolume answered without a volume")?;
        ensure!(volume.capacity_bytes == bytes, "asked for {bytes} bytes, got {}", volume.capacity_bytes);
        let container = volume.volume_id.split('#').nth(2).context("the handle names no container")?.to_owned();
        Ok(Self { volume, container, directory: directory.to_owned() })
    }

    /// Its container.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Its handle, as a PersistentVolume holds it.
    pub fn handle(&self) -> &str {
        &self.volume.volume_id
    }

    fn staging(&self) -> String {
        self.directory.join("kubelet/staging").display().to_string()
    }

    fn target(&self, pod: &str) -> String {
        self.directory.join("kubelet/pods").join(pod).join("mount").display().to_string()
    }

    /// NodeStageVolume.
    ///
    /// # Errors
    /// What the driver says.
    pub async fn stage(&self, plugins: &mut Plugins, service: &Service) -> Result<()> {
        std::fs::create_dir_all(self.staging())?;
        let request = NodeStageVolumeRequest {
            volume_id: self.volume.volume_id.clone(),
            staging_target_path: self.staging(),
            volume_capability: Some(capability()),
            secrets: secrets(service),
            volume_context: self.volume.volume_context.clone(),
            ..NodeStageVolumeRequest::default()
        };
        plugins.node.node_stage_volume(request).await.map_err(|status| said(&status))?;
        Ok(())
    }

    /// NodePublishVolume; returns the directory that the pod sees.
    ///
    /// # Errors
    /// What the driver says.
    pub async fn publish(&self, plugins: &mut Plugins, pod: &str, readonly: bool) -> Result<PathBuf> {
        let target = self.target(pod);
        if let Some(parent) = Path::new(&target).parent() {
            std::fs::create_dir_all(parent)?;
        }
        let request = NodePublishVolumeRequest {
            volume_id: self.volume.volume_id.clone(),
            staging_target_path: self.staging(),
            target_path: target.clone(),
            volume_capability: Some(capability()),
            readonly,
            volume_context: self.volume.volume_context.clone(),
            ..NodePublishVolumeRequest::default()
        };
        plugins.node.node_publish_volume(request).await.map_err(|status| said(&status))?;
        Ok(PathBuf::from(target))
    }

    /// ControllerExpandVolume and NodeExpandVolume.
    ///
    /// # Errors
    /// What the driver says.
    pub async fn expand(&self, plugins: &mut Plugins, service: &Service, bytes: i64) -> Result<()> {
        let range = Some(CapacityRange { required_bytes: bytes, limit_bytes: 0 });
        let request = ControllerExpandVolumeRequest {
            volume_id: self.volume.volume_id.clone(),
            capacity_range: range,
            secrets: secrets(service),
            volume_capability: Some(capability()),
        };
        plugins.controller.controller_expand_volume(request).await.map_err(|status| said(&status))?;
        let request = NodeExpandVolumeRequest {
            volume_id: self.volume.volume_id.clone(),
            volume_path: self.target("pod-1"),
            capacity_range: range,
            staging_target_path: self.staging(),
            volume_capability: Some(capability()),
            secrets: secrets(service),
        };
        plugins.node.node_expand_volume(request).await.map_err(|status| said(&status))?;
        Ok(())
    }

    /// NodeUnpublishVolume.
    ///
    /// # Errors
    /// What the driver says.
    pub async fn unpublish(&self, plugins: &mut Plugins, pod: &str) -> Result<()> {
        let request =
            NodeUnpublishVolumeRequest { volume_id: self.volume.volume_id.clone(), target_path: self.target(pod) };
        plugins.node.node_unpublish_volume(request).await.map_err(|status| said(&status))?;
        Ok(())
    }

    /// NodeUnstageVolume.
    ///
    /// # Errors
    /// What the driver says.
    pub async fn unstage(&self, plugins: &mut Plugins) -> Result<()> {
        let request =
            NodeUnstageVolumeRequest { volume_id: self.volume.volume_id.clone(), staging_target_path: self.staging() };
        plugins.node.node_unstage_volume(request).await.map_err(|status| said(&status))?;
        Ok(())
    }

    /// DeleteVolume.
    ///
    /// # Errors
    /// What the driver says.
    pub async fn delete(&mut self, plugins: &mut Plugins, service: &Service) -> Result<()> {
        let request = DeleteVolumeRequest { volume_id: self.volume.volume_id.clone(), secrets: secrets(service) };
        plugins.controller.delete_volume(request).await.map_err(|status| said(&status))?;
        Ok(())
    }

    /// Mount points below the demo's directory.
    ///
    /// # Errors
    /// When the kernel's list cannot be read.
    pub fn mounts_left(&self) -> Result<Vec<PathBuf>> {
        Ok(MountTable::read()?.below(&self.directory).map(|mount| mount.mount_point.clone()).collect())
    }
}

/// The error's sentence without the noise of its Debug form.
fn said(status: &tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{:?}: {}", status.code(), status.message())
}

fn secrets(service: &Service) -> BTreeMap<String, String> {
    BTreeMap::from([("connectionstring".to_owned(), service.connection_string())])
}

fn capability() -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::MultiNodeMultiWriter.into() }),
        access_type: Some(AccessType::Mount(MountVolume {
            // As `mountOptions` of a StorageClass: other clients' new names show after a second instead of ten.
            mount_flags: vec!["metadata-ttl=1s".to_owned()],
            ..MountVolume::default()
        })),
    }
}
