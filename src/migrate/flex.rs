//! Volumes of the FlexVolume driver `azure/blobfuse`: its options become the container, mount options and Secrets of a CSI volume.

use serde_json::{Value, json};

use super::{Outcome, Settings, document, options};

/// The driver's name in manifests.
const DRIVER: &str = "azure/blobfuse";

/// What both forms have: a container, and options of blobfuse.
struct Flex {
    container: String,
    options: Vec<String>,
    read_only: bool,
    secret: Option<Value>,
}

/// Reads a `flexVolume` of blobfuse.
fn read(source: &Value, notes: &mut Vec<String>) -> Result<Flex, String> {
    let mut given = document::texts(source.get("options"));
    let container = given.remove("container").filter(|name| !name.trim().is_empty());
    let container = container.ok_or("options.container is missing: there is nothing to mount")?;
    let written = given.remove("mountoptions").unwrap_or_default();
    let options = options::effective(options::split([written.as_str()]), notes);
    if let Some(path) = given.remove("tmppath") {
        notes.push(format!("tmppath {path} has no effect: no file is staged on the node's disk; left out"));
    }
    if given.remove("driverpath").is_some() {
        notes.push("driverpath has no effect: the file system is part of the driver; left out".to_owned());
    }
    for key in given.keys().filter(|key| !key.starts_with("kubernetes.io/")) {
        notes.push(format!("option {key} is not one of the FlexVolume driver; left out"));
    }
    let secret = source.get("secretRef").filter(|reference| !reference.is_null()).cloned();
    if secret.is_none() {
        notes.push("secretRef is missing: the node's or the cluster's identity will have to sign in".to_owned());
    }
    let read_only = source.get("readOnly").and_then(Value::as_bool).unwrap_or(false);
    Ok(Flex { container: container.trim().to_owned(), options, read_only, secret })
}

fn is_blobfuse(source: &Value) -> bool {
    source.get("driver").and_then(Value::as_str) == Some(DRIVER)
}

/// A PersistentVolume.
pub(super) fn persistent_volume(volume: &mut Value, settings: &Settings, notes: &mut Vec<String>) -> Outcome {
    let Some(source) = volume.pointer("/spec/flexVolume").filter(|source| is_blobfuse(source)) else {
        return Outcome::Untouched;
    };
    let flex = match read(source, notes) {
        Ok(flex) => flex,
        Err(reason) => return Outcome::Failed(reason),
    };
    let text = |pointer: &str| volume.pointer(pointer).and_then(Value::as_str);
    let name = text("/metadata/name").unwrap_or_default().to_owned() + &settings.suffix;
    let secret = flex.secret.map(|secret| with_namespace(secret, text("/spec/claimRef/namespace"), settings, notes));
    let handle = format!("##{}#{name}", flex.container);
    let csi = document::object([
        ("driver", settings.driver.as_str().into()),
        ("volumeHandle", handle.into()),
        ("readOnly", if flex.read_only { true.into() } else { Value::Null }),
        ("volumeAttributes", json!({ "containerName": flex.container })),
        ("nodeStageSecretRef", secret.clone().unwrap_or_default()),
        // The same again: it is how a changed Secret reaches a volume that is mounted.
        ("nodePublishSecretRef", secret.unwrap_or_default()),
    ]);
    let Some(spec) = volume.get_mut("spec").and_then(Value::as_object_mut) else {
        return Outcome::Failed("it has no spec".to_owned());
    };
    spec.remove("flexVolume");
    spec.insert("csi".to_owned(), csi);
    let own = spec.get("mountOptions").and_then(Value::as_array).cloned().unwrap_or_default();
    let own = options::effective(options::split(own.iter().filter_map(Value::as_str)), notes);
    let all: Vec<Value> = flex.options.into_iter().chain(own).map(Value::from).collect();
    spec.remove("mountOptions");
    if !all.is_empty() {
        spec.insert("mountOptions".to_owned(), all.into());
    }
    Outcome::Translated
}

/// The FlexVolume driver looked for a Secret without namespace in that of the claim; a CSI volume has to say it.
fn with_namespace(mut secret: Value, claim: Option<&str>, settings: &Settings, notes: &mut Vec<String>) -> Value {
    let known = secret.get("namespace").and_then(Value::as_str).is_some_and(|namespace| !namespace.is_empty());
    if !known {
        let namespace = claim.unwrap_or(&settings.namespace);
        if claim.is_none() {
            notes.push(format!(
                "secretRef has no namespace, and no claim tells one: {namespace} is taken (--namespace changes that)"
            ));
        }
        secret["namespace"] = namespace.into();
    }
    secret
}

/// A volume of a pod: what stands in place of its `flexVolume`.
pub(super) fn inline(source: &Value, settings: &Settings, notes: &mut Vec<String>) -> Option<Result<Value, String>> {
    if !is_blobfuse(source) {
        return None;
    }
    Some(read(source, notes).map(|flex| {
        let options = flex.options.join(" ");
        document::object([
            ("driver", settings.driver.as_str().into()),
            ("readOnly", if flex.read_only { true.into() } else { Value::Null }),
            ("nodePublishSecretRef", flex.secret.unwrap_or_default()),
            (
                "volumeAttributes",
                document::object([
                    ("containerName", flex.container.into()),
                    ("mountOptions", if options.is_empty() { Value::Null } else { options.into() }),
                ]),
            ),
        ])
    }))
}
