//! Manifests of the FlexVolume driver, translated by the real program, and what it prints mounted by a real node plugin. Needs root.

#![expect(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Output, Stdio},
};

use azblob_csi::csi::proto::v1::{
    NodePublishVolumeRequest, Volume, VolumeCapability, volume_capability::AccessType,
    volume_capability::access_mode::Mode,
};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use serde::{Deserialize as _, de::DeserializeOwned};

use super::harness::{Cluster, capability, map};

fn migrate(arguments: &[&str], input: &str) -> Output {
    use std::io::Write as _;
    let mut command = Command::new(env!("CARGO_BIN_EXE_azblob-csi"));
    command.arg("migrate").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn examples() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("test/csi/flexvolume.yaml")).unwrap()
}

/// The objects of a kind that were printed.
fn printed<T: DeserializeOwned>(output: &Output, kind: &str) -> Vec<T> {
    serde_yaml_ng::Deserializer::from_slice(&output.stdout)
        .map(|document| serde_json::Value::deserialize(document).unwrap())
        .filter(|value| value["kind"] == kind)
        .map(|value| serde_json::from_value(value).unwrap())
        .collect()
}

/// What `kubectl create secret generic blobfusecreds` of the README makes.
fn blobfusecreds(cluster: &Cluster) -> BTreeMap<String, String> {
    map(&[
        ("accountname", cluster.emulator.account()),
        ("accountkey", &cluster.emulator.key()),
        ("blobendpoint", &cluster.emulator.endpoint()),
    ])
}

fn with_flags(mut capability: VolumeCapability, flags: Vec<String>) -> VolumeCapability {
    if let Some(AccessType::Mount(mount)) = &mut capability.access_type {
        mount.mount_flags = flags;
    }
    capability
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_example_of_the_flexvolume_driver_mounts_once_it_is_translated() {
    let output = migrate(&[], &examples());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("3 translated, 2 have nothing to migrate"), "{said}");
    let mut cluster = Cluster::start().await;
    for container in ["inline", "shared", "owned"] {
        cluster.emulator.create_container(container);
        // Of another client, that names no owner.
        cluster.emulator.put(container, "foreign", "x", &[]).unwrap();
    }
    let volumes: Vec<PersistentVolume> = printed(&output, "PersistentVolume");
    assert_eq!(volumes.len(), 2);
    for (number, volume) in volumes.into_iter().enumerate() {
        let spec = volume.spec.unwrap();
        let csi = spec.csi.unwrap();
        assert_eq!(csi.node_stage_secret_ref.unwrap().name.as_deref(), Some("blobfusecreds"));
        let attributes = csi.volume_attributes.unwrap();
        let volume = Volume { volume_id: csi.volume_handle, volume_context: attributes.clone(), ..Volume::default() };
        let mut request = cluster.stage_request(&volume);
        request.secrets = blobfusecreds(&cluster);
        let flags = spec.mount_options.unwrap_or_default();
        request.volume_capability = Some(with_flags(capability(Mode::MultiNodeMultiWriter, None), flags.clone()));
        cluster.node.node_stage_volume(request).await.unwrap();
        let target = format!("pod-{number}");
        cluster.publish(&volume, &target).await;
        cluster.sh(&format!("echo hello > {target}/file")).await;
        let container = &attributes["containerName"];
        assert_eq!(cluster.emulator.get(container, "file").unwrap(), b"hello\n");
        let owner = cluster.sh(&format!("stat -c %u:%g {target}/foreign")).await;
        assert_eq!(owner == "1000:1000", flags.iter().any(|flag| flag.contains("gid=1000")), "{owner} {flags:?}");
        cluster.unpublish(&volume, &target).await;
        cluster.unstage(&volume).await.unwrap();
    }
    let [pod] = &printed::<Pod>(&output, "Pod")[..] else { panic!("one pod") };
    let csi = pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0].csi.clone().unwrap();
    assert_eq!(csi.node_publish_secret_ref.unwrap().name, "blobfusecreds");
    let mut context = csi.volume_attributes.unwrap();
    context.insert("csi.storage.k8s.io/ephemeral".to_owned(), "true".to_owned());
    let request = NodePublishVolumeRequest {
        volume_id: "csi-inline".to_owned(),
        target_path: cluster.text("inline"),
        volume_capability: Some(capability(Mode::SingleNodeWriter, None)),
        secrets: blobfusecreds(&cluster),
        volume_context: context,
        ..NodePublishVolumeRequest::default()
    };
    cluster.node.node_publish_volume(request).await.unwrap();
    cluster.sh("echo hello > inline/file").await;
    assert_eq!(cluster.emulator.get("inline", "file").unwrap(), b"hello\n");
    let volume = Volume { volume_id: "csi-inline".to_owned(), ..Volume::default() };
    cluster.unpublish(&volume, "inline").await;
    assert!(cluster.mounts().is_empty());
}

#[test]
fn what_cannot_be_translated_fails_the_command_and_the_rest_is_printed() {
    let broken = examples().replacen("container: shared", "container: \"\"", 1);
    let output = migrate(&["--driver-name", "azblob.csi.dev", "--name-suffix=-new", "-"], &broken);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: PersistentVolume pv-blobfuse-flexvol: options.container is missing"), "{said}");
    let names: Vec<_> = printed::<PersistentVolume>(&output, "PersistentVolume")
        .into_iter()
        .filter_map(|it| it.metadata.name)
        .collect();
    assert_eq!(names, ["pv-blobfuse-flexvol-gid-new"]);
    let output = migrate(&["/no/such/file"], "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("/no/such/file"), "{said}");
}
