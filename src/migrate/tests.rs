//! What becomes of manifests, object by object. What the program prints is mounted by test/csi/migrate.rs.

use super::*;

fn migrated(text: &str, settings: &Settings) -> Migration {
    migrate(text, settings).unwrap()
}

fn beside() -> Settings {
    Settings { driver: "azblob.csi.dev".to_owned(), ..Settings::default() }
}

fn at<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

const FLEX: &str = r#"
apiVersion: v1
kind: PersistentVolume
metadata: {name: pv-flex, uid: u, resourceVersion: "7", annotations: {pv.kubernetes.io/bound-by-controller: "yes"}}
spec:
  capacity: {storage: 100Gi}
  accessModes: [ReadWriteMany]
  persistentVolumeReclaimPolicy: Retain
  claimRef: {namespace: apps, name: claim, uid: u2}
  flexVolume:
    driver: azure/blobfuse
    readOnly: true
    secretRef: {name: blobfusecreds}
    options:
      container: data
      tmppath: /tmp/blobfuse
      mountoptions: "-o gid=1000 -o allow_other --file-cache-timeout-in-seconds=120 --log-level LOG_DEBUG --bogus=1"
status: {phase: Bound}
"#;

#[test]
fn a_flex_volume_becomes_a_csi_volume_with_its_secret_and_the_options_that_still_mean_something() {
    let found = migrated(FLEX, &Settings::default());
    let [volume] = &found.objects[..] else { panic!("{found:?}") };
    assert_eq!(at(volume, "/spec/csi/driver"), BLOB_CSI);
    assert_eq!(at(volume, "/spec/csi/volumeHandle"), "##data#pv-flex");
    assert_eq!(at(volume, "/spec/csi/volumeAttributes/containerName"), "data");
    for secret in ["nodeStageSecretRef", "nodePublishSecretRef"] {
        assert_eq!(at(volume, &format!("/spec/csi/{secret}/name")), "blobfusecreds");
        assert_eq!(at(volume, &format!("/spec/csi/{secret}/namespace")), "apps", "that of the claim");
    }
    assert_eq!(volume.pointer("/spec/csi/readOnly"), Some(&true.into()));
    assert_eq!(volume["spec"]["mountOptions"], serde_json::json!(["-o gid=1000", "-o allow_other"]));
    assert!(volume.get("status").is_none() && volume.pointer("/spec/flexVolume").is_none());
    assert_eq!(volume["metadata"], serde_json::json!({"name": "pv-flex"}));
    assert_eq!(volume["spec"]["claimRef"], serde_json::json!({"namespace": "apps", "name": "claim"}));
    for said in
        ["tmppath /tmp/blobfuse", "file-cache-timeout-in-seconds", "log-level", "unknown mount option \"bogus\""]
    {
        assert!(
            found.warnings.iter().any(|line| line.starts_with("PersistentVolume pv-flex: ") && line.contains(said)),
            "{said}: {:?}",
            found.warnings
        );
    }
    assert!(found.failures.is_empty());
}

#[test]
fn a_secret_without_namespace_and_claim_is_taken_from_the_one_given_and_that_is_said() {
    let text = FLEX.replace("  claimRef: {namespace: apps, name: claim, uid: u2}\n", "");
    let settings = Settings { namespace: "team".to_owned(), suffix: "-csi".to_owned(), ..beside() };
    let found = migrated(&text, &settings);
    assert_eq!(at(&found.objects[0], "/spec/csi/nodeStageSecretRef/namespace"), "team");
    assert_eq!(at(&found.objects[0], "/metadata/name"), "pv-flex-csi");
    assert_eq!(at(&found.objects[0], "/spec/csi/volumeHandle"), "##data#pv-flex-csi");
    assert!(found.warnings.iter().any(|line| line.contains("--namespace")), "{:?}", found.warnings);
}

#[test]
fn templates_of_pods_are_translated_in_place_and_nothing_else_of_them_changes() {
    let text = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: apps}
spec:
  template:
    spec:
      containers: [{name: web, image: web, volumeMounts: [{name: data, mountPath: /data}]}]
      volumes:
        - {name: config, configMap: {name: web, defaultMode: 0644}}
        - name: data
          flexVolume:
            driver: azure/blobfuse
            secretRef: {name: blobfusecreds}
            options: {container: data, mountoptions: "--use-https=true -o uid=1000"}
        - {name: other, flexVolume: {driver: other/driver}}
"#;
    let found = migrated(text, &beside());
    let volumes = found.objects[0].pointer("/spec/template/spec/volumes").unwrap();
    assert_eq!(volumes[0]["configMap"]["defaultMode"], 0o644);
    let data = serde_json::json!({"name": "data", "csi": {
        "driver": "azblob.csi.dev", "nodePublishSecretRef": {"name": "blobfusecreds"},
        "volumeAttributes": {"containerName": "data", "mountOptions": "-o uid=1000"}}});
    assert_eq!(volumes[1], data);
    assert_eq!(volumes[2]["flexVolume"]["driver"], "other/driver");
    assert!(found.warnings.iter().any(|line| line.contains("volume data:") && line.contains("use-https")));
    let again = migrated(&found.yaml().unwrap(), &beside());
    assert_eq!((again.objects.len(), again.untouched), (0, 1), "what is translated is left alone");
}

#[test]
fn a_running_pod_loses_what_the_cluster_gave_it_and_a_made_one_is_left_to_its_maker() {
    let pod = |owner: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p{owner}}}, spec: {{nodeName: n1, \
         containers: [{{name: c, volumeMounts: [{{name: kube-api-access-x, mountPath: /t}}, {{name: d, mountPath: /d}}]}}], \
         volumes: [{{name: kube-api-access-x, projected: {{}}}}, \
         {{name: d, flexVolume: {{driver: azure/blobfuse, options: {{container: c1}}}}}}]}}}}"
        )
    };
    let owned = pod(", ownerReferences: [{kind: ReplicaSet, name: web-1, controller: true}]");
    let found = migrated(&format!("kind: List\napiVersion: v1\nitems: [{}, {owned}]", pod("")), &Settings::default());
    let [pod] = &found.objects[..] else { panic!("{found:?}") };
    assert!(pod.pointer("/spec/nodeName").is_none());
    assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 1);
    assert_eq!(pod["spec"]["containers"][0]["volumeMounts"], serde_json::json!([{"name": "d", "mountPath": "/d"}]));
    assert!(found.warnings.iter().any(|line| line.contains("ReplicaSet web-1 makes it")), "{:?}", found.warnings);
}

#[test]
fn volumes_and_classes_of_the_blob_csi_driver_get_the_new_name_and_are_judged() {
    let text = r##"
apiVersion: v1
kind: PersistentVolume
metadata: {name: pvc-1, annotations: {pv.kubernetes.io/provisioned-by: blob.csi.azure.com}}
spec:
  mountOptions: ["-o allow_other", "--file-cache-timeout-in-seconds=120", "--no-such-option=1"]
  csi:
    driver: blob.csi.azure.com
    volumeHandle: "rg#acct#pvc-1##default#"
    volumeAttributes: {containername: pvc-1, storage.kubernetes.io/csiProvisionerIdentity: "1-blob.csi.azure.com"}
    nodeStageSecretRef: {name: s, namespace: default}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: fast}
provisioner: blob.csi.azure.com
parameters: {protocol: fuse2, csi.storage.k8s.io/provisioner-secret-name: s}
mountOptions: ["-o allow_other"]
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: nfs}
provisioner: blob.csi.azure.com
parameters: {protocol: nfs}
---
{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: disk}, provisioner: disk.csi.azure.com}
"##;
    let found = migrated(text, &beside());
    let [volume, class] = &found.objects[..] else { panic!("{found:?}") };
    assert_eq!(at(volume, "/spec/csi/driver"), "azblob.csi.dev");
    assert_eq!(at(volume, "/spec/csi/nodePublishSecretRef/name"), "s");
    assert_eq!(volume["spec"]["csi"]["volumeAttributes"], serde_json::json!({"containername": "pvc-1"}));
    assert_eq!(at(volume, "/metadata/annotations/pv.kubernetes.io~1provisioned-by"), "azblob.csi.dev");
    assert_eq!(volume["spec"]["mountOptions"].as_array().unwrap().len(), 3, "they stay, for the way back");
    assert_eq!(at(class, "/provisioner"), "azblob.csi.dev");
    for said in ["file-cache-timeout-in-seconds", "will fail until it is taken out", "is kept"] {
        assert!(found.warnings.iter().any(|line| line.contains(said)), "{said}: {:?}", found.warnings);
    }
    let [failure] = &found.failures[..] else { panic!("{:?}", found.failures) };
    assert!(failure.starts_with("StorageClass nfs: ") && failure.contains("protocol"), "{failure}");
    assert_eq!(found.untouched, 1);
    let same = migrated(text, &Settings::default());
    assert_eq!(at(&same.objects[0], "/spec/csi/driver"), BLOB_CSI);
    assert!(same.warnings.iter().any(|line| line.contains("nodePublishSecretRef")), "{:?}", same.warnings);
}

#[test]
fn a_text_that_is_no_manifest_and_a_volume_without_container_are_told() {
    for (text, says) in [("a: [", "cannot be read as YAML"), ("just text", "no object"), ("a: 1", "document 1")] {
        let error = migrate(text, &Settings::default()).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
    assert!(migrate("", &Settings::default()).unwrap().objects.is_empty());
    let found = migrated(&FLEX.replace("      container: data\n", ""), &Settings::default());
    assert!(found.objects.is_empty() && found.failures[0].contains("options.container"), "{found:?}");
}

#[test]
fn options_are_split_with_their_values() {
    let text = "-o a=b,c -oallow_other --x=1 --log-level LOG_DEBUG --use-adls -o d";
    assert_eq!(
        options::split([text]),
        ["-o a=b,c", "-oallow_other", "--x=1", "--log-level LOG_DEBUG", "--use-adls", "-o d"]
    );
}
