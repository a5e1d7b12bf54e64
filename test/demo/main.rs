//! `make demo`: a container becomes a volume, step by step, with the real processes and real CSI calls.
//!
//! Starts a Blob service on loopback (the emulator, or Azurite with DEMO=azurite), the controller and the node plugin on
//! their sockets, and does what Kubernetes would: provision, stage, publish, use, unpublish, unstage, delete. Fails as
//! soon as anything is not as told. Leaves nothing behind, also when it fails.

mod processes;
mod say;

use std::{collections::BTreeMap, path::Path, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result, ensure};
use azblob_csi::csi::proto::v1::{
    CapacityRange, CreateVolumeRequest, DeleteVolumeRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, Volume, VolumeCapability,
    controller_client::ControllerClient,
    node_client::NodeClient,
    volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode},
};
use processes::{Processes, Service};
use say::{shell, step, tell};
use tonic::transport::{Channel, Endpoint};

/// Name of the volume, as the provisioner would make it.
const VOLUME: &str = "pvc-demo";

#[tokio::main]
async fn main() -> ExitCode {
    let began = Instant::now();
    match demonstrate().await {
        Ok(()) => {
            tell(&format!(
                "Done in {:.1} s: nothing is mounted, nothing runs, the container is gone.",
                began.elapsed().as_secs_f64()
            ));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demonstrate() -> Result<()> {
    let directory = tempfile::tempdir().context("cannot make a directory for the demo")?;
    let root = directory.path();
    let service = Service::of_environment()?;

    step(1, &format!("Start {}, the controller and the node plugin", service.name()));
    let processes = Processes::start(service, root)?;
    tell(&format!("Blob service  {}", processes.endpoint()));
    let mut controller = ControllerClient::new(channel(&root.join("controller.sock")).await?);
    let mut node = NodeClient::new(channel(&root.join("node.sock")).await?);
    tell("CSI sockets   controller.sock, node.sock");
    let secrets = BTreeMap::from([("connectionstring".to_owned(), processes.connection_string())]);

    step(2, "Provision: what the external provisioner calls for a new PersistentVolumeClaim");
    let volume = create(&mut controller, &secrets).await?;
    tell(&format!("CreateVolume       -> {}", volume.volume_id));

    step(3, "Mount: what the kubelet calls for a pod");
    let (staging, target) = (root.join("staging"), root.join("pod"));
    stage_and_publish(&mut node, &volume, &secrets, &staging, &target).await?;

    step(4, "Use: this project's own source tree goes into the volume");
    let local = root.join("source");
    shell(&format!(
        "mkdir {local} && git ls-files -z | tar --null -T - -cf - | tar -xf - -C {local}",
        local = local.display()
    ))?;
    let (local, pod) = (local.display(), target.display());
    shell(&format!("cp -r {local} {pod}/source"))?;
    say::show(&format!("ls -l {pod}/source | head -8"))?;
    say::show(&format!("df -h --output=source,fstype,size,used,target {pod} | cut -c1-110"))?;
    say::show(&format!("du -sh --apparent-size {pod}/source"))?;

    step(5, "Compare: every file, by MD5");
    let sums = |at: &str| format!("(cd {at} && find . -type f -print0 | sort -z | xargs -0 md5sum)");
    let (here, there) = (shell(&sums(&local.to_string()))?, shell(&sums(&format!("{pod}/source")))?);
    ensure!(here == there, "the volume holds other bytes than the local tree");
    tell(&format!("{} files, all equal. The first three:", here.lines().count()));
    here.lines().take(3).for_each(tell);

    step(6, "The same container, as another Azure client sees it (Microsoft's Python SDK)");
    let files = say::show(&processes.listing(VOLUME))?;
    let wanted = format!("{} files", here.lines().count());
    ensure!(files.contains(&wanted), "the other client does not see {wanted}");

    step(7, "Take down: what happens when pod and claim are deleted");
    take_down(&mut node, &mut controller, &volume, &secrets, &staging, &target).await?;
    let left = shell(&format!("grep -c {} /proc/self/mountinfo || true", root.display()))?;
    ensure!(left.trim() == "0", "a mount is left: {left}");
    processes.stop()
}

async fn create(controller: &mut ControllerClient<Channel>, secrets: &BTreeMap<String, String>) -> Result<Volume> {
    let request = CreateVolumeRequest {
        name: VOLUME.to_owned(),
        capacity_range: Some(CapacityRange { required_bytes: 10 << 30, limit_bytes: 0 }),
        volume_capabilities: vec![capability()],
        secrets: secrets.clone(),
        ..CreateVolumeRequest::default()
    };
    controller
        .create_volume(request)
        .await
        .context("CreateVolume")?
        .into_inner()
        .volume
        .context("no volume in the answer")
}

async fn stage_and_publish(
    node: &mut NodeClient<Channel>,
    volume: &Volume,
    secrets: &BTreeMap<String, String>,
    staging: &Path,
    target: &Path,
) -> Result<()> {
    let request = NodeStageVolumeRequest {
        volume_id: volume.volume_id.clone(),
        staging_target_path: staging.display().to_string(),
        volume_capability: Some(capability()),
        secrets: secrets.clone(),
        volume_context: volume.volume_context.clone(),
        ..NodeStageVolumeRequest::default()
    };
    let began = Instant::now();
    node.node_stage_volume(request).await.context("NodeStageVolume")?;
    tell(&format!("NodeStageVolume    -> mounted in {} ms", began.elapsed().as_millis()));
    let request = NodePublishVolumeRequest {
        volume_id: volume.volume_id.clone(),
        staging_target_path: staging.display().to_string(),
        target_path: target.display().to_string(),
        volume_capability: Some(capability()),
        volume_context: volume.volume_context.clone(),
        ..NodePublishVolumeRequest::default()
    };
    node.node_publish_volume(request).await.context("NodePublishVolume")?;
    tell(&format!("NodePublishVolume  -> {}", target.display()));
    Ok(())
}

async fn take_down(
    node: &mut NodeClient<Channel>,
    controller: &mut ControllerClient<Channel>,
    volume: &Volume,
    secrets: &BTreeMap<String, String>,
    staging: &Path,
    target: &Path,
) -> Result<()> {
    let id = || volume.volume_id.clone();
    let request = NodeUnpublishVolumeRequest { volume_id: id(), target_path: target.display().to_string() };
    node.node_unpublish_volume(request).await.context("NodeUnpublishVolume")?;
    let request = NodeUnstageVolumeRequest { volume_id: id(), staging_target_path: staging.display().to_string() };
    node.node_unstage_volume(request).await.context("NodeUnstageVolume")?;
    let request = DeleteVolumeRequest { volume_id: id(), secrets: secrets.clone() };
    controller.delete_volume(request).await.context("DeleteVolume")?;
    tell("NodeUnpublishVolume, NodeUnstageVolume, DeleteVolume -> done");
    Ok(())
}

fn capability() -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::MultiNodeMultiWriter.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

async fn channel(socket: &Path) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
    endpoint.connect().await.with_context(|| format!("cannot connect to {}", socket.display()))
}
