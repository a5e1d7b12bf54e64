//! The Secret that a PersistentVolume names for staging (nodeStageSecretRef). The kubelet hands it over once, and never again
//! while the volume is mounted; so it is read here when what it held is refused, and what is to be known about the volume is
//! said as an event of its claim. Both need rights at the API server; without them nothing of this is done.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::{
    parameters::Parameters,
    request::{Account, Defaults},
    volume_id::VolumeId,
};
use crate::{
    credential::{Credential, CredentialSource},
    finding::Diagnosis,
    kube::{Api, ObjectReference, PersistentVolume, SecretReference},
    telemetry::metrics::Labels,
    volume::Notices,
};

/// Attribute with the name of the PersistentVolume, which an external-provisioner with --extra-create-metadata adds.
const VOLUME_NAME: &str = "csi.storage.k8s.io/pv/name";

/// A staged volume at the API server.
#[derive(Debug)]
pub struct StageSecret {
    api: Api,
    defaults: Arc<Defaults>,
    node: String,
    volume_id: String,
    attributes: Parameters,
    /// Found once: handle and reference of a PersistentVolume never change.
    found: OnceCell<Found>,
}

#[derive(Clone, Debug)]
struct Found {
    secret: Option<SecretReference>,
    object: ObjectReference,
}

impl StageSecret {
    /// That of the volume `volume_id` with these attributes, staged on `node`. Asks nobody yet.
    #[must_use]
    pub fn new(api: Api, defaults: Arc<Defaults>, node: &str, volume_id: &str, attributes: Parameters) -> Self {
        let (node, volume_id) = (node.to_owned(), volume_id.to_owned());
        Self { api, defaults, node, volume_id, attributes, found: OnceCell::new() }
    }

    async fn find(&self) -> Result<Found, String> {
        let is_ours = |volume: &PersistentVolume| {
            let csi = volume.spec.csi.as_ref();
            csi.is_some_and(|csi| csi.driver == self.defaults.driver_name && csi.volume_handle == self.volume_id)
        };
        let named = match self.attributes.get(VOLUME_NAME) {
            Some(name) => self.api.persistent_volume(name).await.ok().filter(|volume| is_ours(volume)),
            None => None,
        };
        let volume = match named {
            Some(volume) => volume,
            None => {
                let found = self.api.find_persistent_volume(is_ours).await.map_err(|error| error.to_string())?;
                found.ok_or_else(|| format!("no PersistentVolume has volumeHandle {:?}", self.volume_id))?
            }
        };
        let object = match volume.spec.claim_ref {
            Some(claim) => ObjectReference {
                kind: "PersistentVolumeClaim",
                name: claim.name,
                namespace: Some(claim.namespace),
                uid: claim.uid,
            },
            None => ObjectReference {
                kind: "PersistentVolume",
                name: volume.metadata.name,
                namespace: None,
                uid: volume.metadata.uid,
            },
        };
        Ok(Found { secret: volume.spec.csi.and_then(|csi| csi.node_stage_secret_ref), object })
    }
}

/// What the API server says of the Secret of a volume.
#[derive(Debug)]
pub enum Looked {
    /// Its entries.
    Found(BTreeMap<String, String>),
    /// The volume is staged without one.
    Without,
    /// There is one, and it cannot be read, for this reason.
    Unreadable(String),
    /// Whether there is one is not known, for this reason.
    Unknown(String),
}

impl StageSecret {
    /// Reads the Secret as the kubelet does for a stage. Cancel-safe.
    pub async fn look(&self) -> Looked {
        let secret = match self.found.get_or_try_init(|| self.find()).await {
            Ok(Found { secret: Some(secret), .. }) => secret,
            Ok(Found { secret: None, .. }) => return Looked::Without,
            Err(error) => return Looked::Unknown(error),
        };
        match self.api.secret(&secret.namespace, &secret.name).await {
            Ok(entries) => Looked::Found(entries),
            Err(error) => Looked::Unreadable(error.to_string()),
        }
    }
}

#[async_trait]
impl CredentialSource for StageSecret {
    async fn read(&self) -> Result<Credential, String> {
        let entries = match self.look().await {
            Looked::Found(entries) => entries,
            Looked::Without => return Err("the PersistentVolume has no nodeStageSecretRef".to_owned()),
            Looked::Unreadable(reason) | Looked::Unknown(reason) => return Err(reason),
        };
        let id = VolumeId::parse(&self.volume_id).ok();
        let account = Account::find(&self.defaults, &self.attributes, id.as_ref(), &entries).await;
        account.map(|account| account.credential).map_err(|error| error.full_text())
    }

    fn describe(&self) -> String {
        format!("the nodeStageSecretRef of volume {:?}", self.volume_id)
    }
}

#[async_trait]
impl Notices for StageSecret {
    async fn warn(&self, known: &Diagnosis, users: &[Labels]) {
        let teller = Teller { api: &self.api, driver: &self.defaults.driver_name, node: &self.node };
        match self.found.get_or_try_init(|| self.find()).await {
            Ok(found) => teller.tell(&found.object, known).await,
            Err(error) => tracing::info!(volume = self.volume_id, "no event was written: {error}"),
        }
        for pod in users.iter().filter_map(pod_of) {
            teller.tell(&pod, known).await;
        }
    }
}

/// Tells pods of volumes that are theirs alone.
#[derive(Debug)]
pub struct PodNotices {
    api: Api,
    driver: String,
    node: String,
}

impl PodNotices {
    /// Says it in the name of `driver` on `node`.
    #[must_use]
    pub fn new(api: Api, driver: &str, node: &str) -> Self {
        Self { api, driver: driver.to_owned(), node: node.to_owned() }
    }
}

#[async_trait]
impl Notices for PodNotices {
    async fn warn(&self, known: &Diagnosis, users: &[Labels]) {
        let teller = Teller { api: &self.api, driver: &self.driver, node: &self.node };
        for pod in users.iter().filter_map(pod_of) {
            teller.tell(&pod, known).await;
        }
    }
}

/// The pod that the labels of a user name, where the kubelet told its uid.
fn pod_of(user: &Labels) -> Option<ObjectReference> {
    Some(ObjectReference {
        kind: "Pod",
        name: user.get("pod")?.to_owned(),
        namespace: Some(user.get("pod_namespace")?.to_owned()),
        uid: user.get("pod_uid")?.to_owned(),
    })
}

/// Who writes events.
struct Teller<'a> {
    api: &'a Api,
    driver: &'a str,
    node: &'a str,
}

impl Teller<'_> {
    async fn tell(&self, object: &ObjectReference, known: &Diagnosis) {
        let (reason, message) = (reason(known.finding.name()), known.to_string());
        if let Err(error) = self.api.warn(object, &reason, &message, self.driver, self.node).await {
            tracing::info!(object = object.name, "no event was written: {error}");
        }
    }
}

/// `sas-ends` as events have it: `SasEnds`.
fn reason(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    name.split('-').map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_written_as_kubernetes_does() {
        assert_eq!(reason("sas-ends"), "SasEnds");
    }
}
