//! Manifests as documents: reading them in whatever form kubectl prints, taking away what the API server adds, writing them.

use serde_json::{Map, Value};

/// What the API server writes into an object, and nobody may apply again.
const OF_SERVER: [&str; 8] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
];
/// How annotations begin that controllers and kubectl keep for themselves.
const OF_CONTROLLERS: [&str; 4] = [
    "kubectl.kubernetes.io/",
    "pv.kubernetes.io/bound-by-controller",
    "deployment.kubernetes.io/",
    "volume.kubernetes.io/",
];
/// Fields with permission bits. YAML 1.1, which Kubernetes reads, takes `0644` for octal; YAML 1.2 takes it for text.
const OCTAL: [&str; 2] = ["defaultMode", "mode"];

/// A text that is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no YAML.
    #[error("document {0} cannot be read as YAML")]
    Yaml(usize, #[source] serde_yaml_ng::Error),
    /// It is YAML, and no object of Kubernetes.
    #[error("document {0} is no object of Kubernetes: it has no apiVersion and kind")]
    NoObject(usize),
    /// It cannot be written.
    #[error("an object cannot be written as YAML")]
    Unwritable(#[source] serde_yaml_ng::Error),
}

/// Every object of the text; those in a `List` one by one.
pub(super) fn read(text: &str) -> Result<Vec<Value>, Error> {
    let mut objects = Vec::new();
    for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let number = index + 1;
        let mut value: Value = serde::Deserialize::deserialize(document).map_err(|error| Error::Yaml(number, error))?;
        if value.is_null() {
            continue;
        }
        modes(&mut value);
        let kind = value.get("kind").and_then(Value::as_str).filter(|_| value.get("apiVersion").is_some());
        let is_list = kind.ok_or(Error::NoObject(number))?.ends_with("List");
        match value.get_mut("items") {
            Some(Value::Array(items)) if is_list => objects.append(items),
            _ => objects.push(value),
        }
    }
    Ok(objects)
}

/// Permission bits as the number that Kubernetes would read.
fn modes(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let octal = value.as_str().filter(|text| text.starts_with('0') && OCTAL.contains(&key.as_str()));
                match octal.and_then(|text| u32::from_str_radix(text, 8).ok()) {
                    Some(bits) => *value = bits.into(),
                    None => modes(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(modes),
        _ => {}
    }
}

pub(super) fn write(objects: &[Value]) -> Result<String, Error> {
    let documents: Result<Vec<String>, _> = objects.iter().map(serde_yaml_ng::to_string).collect();
    Ok(documents.map_err(Error::Unwritable)?.join("---\n"))
}

/// Kind, namespace and name.
pub(super) fn name(object: &Value) -> String {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, namespace, name) = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
    match namespace {
        "" => format!("{kind} {name}"),
        namespace => format!("{kind} {namespace}/{name}"),
    }
}

/// Takes away what the API server and controllers wrote.
pub(super) fn strip(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    fields.remove("status");
    if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
        metadata.retain(|key, _| !OF_SERVER.contains(&key.as_str()));
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
            annotations.retain(|key, _| !OF_CONTROLLERS.iter().any(|start| key.starts_with(start)));
        }
        metadata
            .retain(|key, value| key != "annotations" || value.as_object().is_none_or(|entries| !entries.is_empty()));
    }
    // A claim is bound again by its name; the one of that name may be another object by then.
    if let Some(Value::Object(claim)) = object.pointer_mut("/spec/claimRef") {
        claim.retain(|key, _| ["apiVersion", "kind", "namespace", "name"].contains(&key.as_str()));
    }
}

/// The text entries of a table, such as options and attributes.
pub(super) fn texts(value: Option<&Value>) -> std::collections::BTreeMap<String, String> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.map(|(key, value)| (key.clone(), text(value))).collect()
}

/// A scalar as text: `true` for a text that somebody forgot to quote.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// An object of these fields, without those that are null.
pub(super) fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let given = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(given.map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>())
}
