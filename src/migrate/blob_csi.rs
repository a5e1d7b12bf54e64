//! Volumes and classes of the Azure Blob CSI driver: they work as they are under its name, and under another with that name in them.
//! What would be refused, or means nothing here, is said beforehand.

use serde_json::Value;

use super::{BLOB_CSI, Outcome, Settings, document, options};
use crate::csi::parameters::{Effect, Parameters, TABLE};

/// Who made a volume, and is asked to delete it.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Which process of the provisioner made it: of no use to another.
const PROVISIONER: &str = "storage.kubernetes.io/csiProvisionerIdentity";

fn is_blob_csi(name: Option<&Value>) -> bool {
    name.and_then(Value::as_str) == Some(BLOB_CSI)
}

/// What of the attributes or parameters means nothing here.
fn judge(given: &std::collections::BTreeMap<String, String>, notes: &mut Vec<String>) {
    for (key, value) in given.iter().filter(|(_, value)| !value.trim().is_empty()) {
        let row = TABLE.iter().find(|row| {
            row.key.eq_ignore_ascii_case(key) || row.also.iter().any(|also| also.eq_ignore_ascii_case(key))
        });
        if let Some(Effect::None(reason) | Effect::Refused(reason)) = row.map(|row| row.effect) {
            notes.push(format!("{key}={value} has no effect: {reason}"));
        }
    }
}

fn listed(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    options::split(items.filter_map(Value::as_str))
}

/// A PersistentVolume.
pub(super) fn persistent_volume(volume: &mut Value, settings: &Settings, notes: &mut Vec<String>) -> Outcome {
    let Some(csi) = volume.pointer("/spec/csi").filter(|csi| is_blob_csi(csi.get("driver"))) else {
        return Outcome::Untouched;
    };
    let attributes = document::texts(csi.get("volumeAttributes"));
    if let Err(error) = Parameters::of_volume(&attributes) {
        return Outcome::Failed(error.message);
    }
    judge(&attributes, notes);
    options::judge(&listed(volume.pointer("/spec/mountOptions")), notes);
    let staged = csi.get("nodeStageSecretRef").filter(|secret| !secret.is_null()).cloned();
    let published = csi.get("nodePublishSecretRef").is_some_and(|secret| !secret.is_null());
    if settings.driver == BLOB_CSI {
        if staged.is_some() && !published {
            notes.push(
                "without nodePublishSecretRef a changed Secret reaches a mounted volume only where the nodes may read it".to_owned(),
            );
        }
        return Outcome::Translated;
    }
    if let Some(csi) = volume.pointer_mut("/spec/csi").and_then(Value::as_object_mut) {
        csi.insert("driver".to_owned(), settings.driver.as_str().into());
        if let Some(secret) = staged.filter(|_| !published) {
            csi.insert("nodePublishSecretRef".to_owned(), secret);
        }
        if let Some(Value::Object(attributes)) = csi.get_mut("volumeAttributes") {
            attributes.remove(PROVISIONER);
        }
    }
    if let Some(Value::Object(annotations)) = volume.pointer_mut("/metadata/annotations")
        && is_blob_csi(annotations.get(PROVISIONED_BY))
    {
        annotations.insert(PROVISIONED_BY.to_owned(), settings.driver.as_str().into());
        notes.push(format!(
            "its container is deleted only where {} made it: it carries the name of {BLOB_CSI}, and is kept",
            settings.driver
        ));
    }
    Outcome::Translated
}

/// A StorageClass.
pub(super) fn storage_class(class: &mut Value, settings: &Settings, notes: &mut Vec<String>) -> Outcome {
    if !is_blob_csi(class.get("provisioner")) {
        return Outcome::Untouched;
    }
    let mut parameters = document::texts(class.get("parameters"));
    // The provisioner keeps those for itself.
    parameters.retain(|key, _| !(key.starts_with("csi.storage.k8s.io/") && key.contains("-secret-")));
    if let Err(error) = Parameters::of_storage_class(&parameters) {
        return Outcome::Failed(error.message);
    }
    judge(&parameters, notes);
    options::judge(&listed(class.get("mountOptions")), notes);
    class["provisioner"] = settings.driver.as_str().into();
    Outcome::Translated
}

/// A volume of a pod: what stands in place of its `csi`.
pub(super) fn inline(source: &Value, settings: &Settings, notes: &mut Vec<String>) -> Option<Result<Value, String>> {
    if !is_blob_csi(source.get("driver")) {
        return None;
    }
    let mut attributes = document::texts(source.get("volumeAttributes"));
    judge(&attributes, notes);
    // What the kubelet adds tells the driver that any pod may have written this.
    attributes.insert("csi.storage.k8s.io/ephemeral".to_owned(), "true".to_owned());
    if let Err(error) = Parameters::of_volume(&attributes) {
        return Some(Err(error.message));
    }
    let mut translated = source.clone();
    translated["driver"] = settings.driver.as_str().into();
    Some(Ok(translated))
}
