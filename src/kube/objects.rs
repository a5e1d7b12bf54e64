//! The few fields of Kubernetes' objects that are read or written here. Everything else in them is passed over.

use std::collections::BTreeMap;

use super::quantity;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// `metadata` of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Metadata {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Tells it from one of the same name before it.
    #[serde(default)]
    pub uid: String,
}

/// A PersistentVolume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PersistentVolume {
    /// Name and uid.
    #[serde(default)]
    pub metadata: Metadata,
    /// What it is.
    #[serde(default)]
    pub spec: PersistentVolumeSpec,
}

/// `spec` of a PersistentVolume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PersistentVolumeSpec {
    /// Where it is of a CSI driver.
    pub csi: Option<CsiSource>,
    /// The claim that has it.
    pub claim_ref: Option<ClaimReference>,
    /// Quantities by resource.
    #[serde(default)]
    pub capacity: BTreeMap<String, String>,
}

impl PersistentVolume {
    /// Its size in bytes, where it says one.
    #[must_use]
    pub fn capacity(&self) -> Option<i64> {
        quantity::bytes(self.spec.capacity.get("storage")?)
    }
}

/// `spec.csi` of a PersistentVolume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CsiSource {
    /// Name of the driver.
    pub driver: String,
    /// The volume's id.
    pub volume_handle: String,
    /// What is handed to each call about it.
    #[serde(default)]
    pub volume_attributes: BTreeMap<String, String>,
    /// What is handed to NodeStageVolume.
    pub node_stage_secret_ref: Option<SecretReference>,
}

/// A Secret in some namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct SecretReference {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its namespace.
    #[serde(default)]
    pub namespace: String,
}

/// `spec.claimRef` of a PersistentVolume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ClaimReference {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its namespace.
    #[serde(default)]
    pub namespace: String,
    /// Tells it from one of the same name before it.
    #[serde(default)]
    pub uid: String,
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectReference {
    /// `PersistentVolumeClaim`, of v1.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its namespace, where it has one.
    pub namespace: Option<String>,
    /// `kubectl describe` shows events of this uid alone.
    pub uid: String,
}

#[derive(Deserialize)]
pub(super) struct SecretObject {
    /// Base64.
    #[serde(default)]
    pub(super) data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
pub(super) struct NodeObject {
    #[serde(default)]
    pub(super) spec: NodeSpec,
}

#[derive(Default, Deserialize)]
pub(super) struct NodeSpec {
    #[serde(default)]
    pub(super) taints: Vec<Value>,
}

#[derive(Deserialize)]
pub(super) struct List<T> {
    #[serde(default)]
    pub(super) metadata: ListMetadata,
    #[serde(default = "Vec::new")]
    pub(super) items: Vec<T>,
}

#[derive(Default, Deserialize)]
pub(super) struct ListMetadata {
    /// Where the next page begins.
    #[serde(default, rename = "continue")]
    pub(super) next: Option<String>,
}

/// What the server answers where it refuses.
#[derive(Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    pub(super) message: String,
}

/// An Opaque Secret, as v1 Secret.
pub(super) fn secret(namespace: &str, name: &str, entries: &[(&str, &str)]) -> Value {
    let data: BTreeMap<&str, String> = entries.iter().map(|(key, value)| (*key, STANDARD.encode(value))).collect();
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": { "name": name, "namespace": namespace }, "data": data,
    })
}

/// A JSON Patch (RFC 6902) of the list at `path`, refused where that is not `known`.
pub(super) fn replacement(path: &str, known: &[Value], wanted: &[Value]) -> Value {
    json!([
        { "op": "test", "path": path, "value": known },
        { "op": "replace", "path": path, "value": wanted },
    ])
}

/// A warning, as v1 Event.
pub(super) fn event(
    object: &ObjectReference,
    namespace: &str,
    reason: &str,
    message: &str,
    component: &str,
    node: &str,
) -> Value {
    // The format has only components that every time has, so this cannot fail.
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let now = now.format(&Rfc3339).unwrap_or_default();
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "generateName": format!("{}.", object.name), "namespace": namespace },
        "involvedObject": {
            "apiVersion": "v1", "kind": object.kind, "name": object.name, "namespace": object.namespace, "uid": object.uid,
        },
        "type": "Warning",
        "reason": reason,
        "message": message,
        "source": { "component": component, "host": node },
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1;

    use super::*;

    #[test]
    fn an_event_is_one_of_kubernetes() {
        let object = ObjectReference {
            kind: "PersistentVolumeClaim",
            name: "data".into(),
            namespace: Some("apps".into()),
            uid: "u1".into(),
        };
        let event: v1::Event = serde_json::from_value(event(&object, "apps", "R", "m", "c", "n1")).unwrap();
        assert_eq!(event.involved_object.uid.as_deref(), Some("u1"));
        assert_eq!((event.metadata.namespace.as_deref(), event.count), (Some("apps"), Some(1)));
        assert!(event.last_timestamp.is_some());
    }

    #[test]
    fn a_volume_of_kubernetes_is_read() {
        let volume: v1::PersistentVolume = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "pv1", "uid": "u1" },
            "spec": {
                "capacity": { "storage": "5Gi" },
                "csi": {
                    "driver": "d", "volumeHandle": "h", "volumeAttributes": { "a": "b" }, "nodeStageSecretRef": { "name": "s", "namespace": "n" },
                },
                "claimRef": { "kind": "PersistentVolumeClaim", "name": "c", "namespace": "a", "uid": "u2" },
            },
        }))
        .unwrap();
        let read: PersistentVolume = serde_json::from_value(serde_json::to_value(volume).unwrap()).unwrap();
        assert_eq!(read.capacity(), Some(5 << 30));
        let csi = read.spec.csi.unwrap();
        assert_eq!(csi.volume_attributes["a"], "b");
        assert_eq!((csi.driver.as_str(), csi.volume_handle.as_str()), ("d", "h"));
        assert_eq!(csi.node_stage_secret_ref.unwrap(), SecretReference { name: "s".into(), namespace: "n".into() });
        assert_eq!(read.spec.claim_ref.unwrap().uid, "u2");
        let bare: PersistentVolume = serde_json::from_str("{}").unwrap();
        assert!(bare.spec.csi.is_none());
    }
}
