//! A document of a manifest, read by the API's own types. Knows nothing of what the manifests are for.

use std::{
    fs,
    path::{Path, PathBuf},
};

use k8s_openapi::{
    Resource,
    api::{
        apps::v1::{DaemonSet, Deployment},
        core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, ServiceAccount},
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
        storage::v1::{CSIDriver, StorageClass},
    },
};
use serde_json::Value;

/// Who reads a document of a kind, and what remains of it when written again.
type RoundTrip = fn(Value) -> Result<Value, serde_json::Error>;

fn kind<T>() -> (&'static str, &'static str, RoundTrip)
where
    T: Resource + serde::Serialize + serde::de::DeserializeOwned,
{
    (T::API_VERSION, T::KIND, |value| serde_json::to_value(serde_json::from_value::<T>(value)?))
}

/// Every kind that deploy/ may hold.
fn kinds() -> [(&'static str, &'static str, RoundTrip); 15] {
    [
        kind::<CSIDriver>(),
        kind::<StorageClass>(),
        kind::<DaemonSet>(),
        kind::<Deployment>(),
        kind::<ServiceAccount>(),
        kind::<ClusterRole>(),
        kind::<ClusterRoleBinding>(),
        kind::<Role>(),
        kind::<RoleBinding>(),
        kind::<Secret>(),
        kind::<PersistentVolume>(),
        kind::<PersistentVolumeClaim>(),
        kind::<Pod>(),
        kind::<PodDisruptionBudget>(),
        kind::<ConfigMap>(),
    ]
}

/// One document of a file.
pub struct Document {
    pub path: String,
    pub value: Value,
}

impl Document {
    pub fn field(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn name(&self) -> String {
        let part = |pointer| self.field(pointer);
        format!("{} {} {}/{}", self.path, part("/kind"), part("/metadata/namespace"), part("/metadata/name"))
    }

    /// What is wrong with it as an object of its kind. The types skip fields that they do not know, so one that is
    /// misspelt or misplaced is missing from what they write.
    pub fn problem(&self) -> Option<String> {
        let (version, name) = (self.field("/apiVersion"), self.field("/kind"));
        let Some((_, _, round_trip)) = kinds().into_iter().find(|(v, k, _)| (*v, *k) == (version, name)) else {
            return Some(format!("unknown kind {version} {name}"));
        };
        match round_trip(self.value.clone()) {
            Err(error) => Some(error.to_string()),
            Ok(again) => difference("", &self.value, &again),
        }
    }
}

/// The first place where `written` has something that `read` has not, or has otherwise.
fn difference(place: &str, written: &Value, read: &Value) -> Option<String> {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            let lost = written.iter().find_map(|(key, value)| match read.get(key) {
                Some(other) => difference(&format!("{place}.{key}"), value, other),
                None => Some(format!("unknown field {place}.{key}")),
            });
            lost.or_else(|| {
                read.keys().find(|key| !written.contains_key(*key)).map(|key| format!("{place}.{key} is missing"))
            })
        }
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            let mut pairs = written.iter().zip(read).enumerate();
            pairs.find_map(|(index, (written, read))| difference(&format!("{place}[{index}]"), written, read))
        }
        _ if written == read => None,
        _ => Some(format!("{place} is {written}, and read as {read}")),
    }
}

pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    let (directories, files): (Vec<_>, Vec<_>) = found.into_iter().partition(|path| path.is_dir());
    let yaml = files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "yaml"));
    yaml.chain(directories.iter().flat_map(|path| self::files(path))).collect()
}

pub fn parse(path: &str, text: &str) -> Vec<Document> {
    let values = serde_yaml_ng::Deserializer::from_str(text)
        .map(|document| serde::Deserialize::deserialize(document).unwrap_or_else(|error| panic!("{path}: {error}")));
    values.map(|value| Document { path: path.to_owned(), value }).collect()
}
