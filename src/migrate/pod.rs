//! Volumes that pods name themselves, in a Pod or in the template of what makes pods.

use serde_json::Value;

use super::{Outcome, Settings, blob_csi, flex};

/// Where a pod's spec is, by kind.
const SPECS: [(&str, &str); 9] = [
    ("Pod", "/spec"),
    ("PodTemplate", "/template/spec"),
    ("Deployment", "/spec/template/spec"),
    ("StatefulSet", "/spec/template/spec"),
    ("DaemonSet", "/spec/template/spec"),
    ("ReplicaSet", "/spec/template/spec"),
    ("ReplicationController", "/spec/template/spec"),
    ("Job", "/spec/template/spec"),
    ("CronJob", "/spec/jobTemplate/spec/template/spec"),
];
/// How the volume begins that the API server gives each pod for its service account's token.
const TOKEN_VOLUME: &str = "kube-api-access-";

/// Translates the volumes of whatever has pods.
pub(super) fn translate(object: &mut Value, settings: &Settings, notes: &mut Vec<String>) -> Outcome {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some((_, place)) = SPECS.iter().find(|(name, _)| *name == kind) else { return Outcome::Untouched };
    let owned = owner(object);
    let Some(spec) = object.pointer_mut(place) else { return Outcome::Untouched };
    let Some(Value::Array(volumes)) = spec.get_mut("volumes") else { return Outcome::Untouched };
    let mut own_notes = Vec::new();
    let mut changed = false;
    for volume in volumes {
        let name = volume.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut found = Vec::new();
        let translated = match (volume.get("flexVolume"), volume.get("csi")) {
            (Some(source), _) => flex::inline(source, settings, &mut found),
            (None, Some(source)) => blob_csi::inline(source, settings, &mut found),
            (None, None) => None,
        };
        own_notes.extend(found.into_iter().map(|note| format!("volume {name}: {note}")));
        match translated {
            None => continue,
            Some(Err(reason)) => return Outcome::Failed(format!("volume {name}: {reason}")),
            Some(Ok(source)) => replace(volume, source),
        }
        changed = true;
    }
    if !changed {
        return Outcome::Untouched;
    }
    if let Some(owner) = owned {
        // Made anew from its template, which is translated where it is.
        notes.push(format!("not printed: {owner} makes it"));
        return Outcome::Untouched;
    }
    notes.append(&mut own_notes);
    if kind == "Pod" {
        forget_node(spec);
    }
    Outcome::Translated
}

fn replace(volume: &mut Value, source: Value) {
    if let Some(fields) = volume.as_object_mut() {
        fields.remove("flexVolume");
        fields.insert("csi".to_owned(), source);
    }
}

/// Who makes objects like this one.
fn owner(object: &Value) -> Option<String> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))?;
    let text = |key: &str| owner.get(key).and_then(Value::as_str).unwrap_or_default();
    Some(format!("{} {}", text("kind"), text("name")))
}

/// What the scheduler and the API server added to a pod that runs.
fn forget_node(spec: &mut Value) {
    let Some(fields) = spec.as_object_mut() else { return };
    fields.remove("nodeName");
    let is_token =
        |entry: &Value| entry.get("name").and_then(Value::as_str).is_some_and(|name| name.starts_with(TOKEN_VOLUME));
    for key in ["containers", "initContainers"] {
        for container in fields.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(Value::Array(mounts)) = container.get_mut("volumeMounts") {
                mounts.retain(|mount| !is_token(mount));
            }
        }
    }
    if let Some(Value::Array(volumes)) = fields.get_mut("volumes") {
        volumes.retain(|volume| !is_token(volume));
    }
}
