//! Staging by a publish. The kubelet stages a volume once for all pods of a node and believes it staged from then on; when the
//! process that staged it has ended, no NodeStageVolume comes until the last pod has gone. So the first publish that finds no
//! live mount makes the request that the kubelet would make, and runs it as one: concurrent publishes join it.
//!
//! What a publish lacks is the Secret of nodeStageSecretRef. It is that of the publish (nodePublishSecretRef), or is read at the
//! API server; where the volume has one that cannot be had, it is mounted in nobody else's name instead.

use std::{path::Path, sync::Arc};

use super::{
    super::{
        capability::Access,
        error::{Error, ErrorKind, Result},
        parameters::Parameters,
        pod_token,
        proto::v1::{NodePublishVolumeRequest, NodeStageVolumeRequest},
        stage_secret::{Looked, StageSecret},
    },
    Node,
};
use crate::{
    finding::Finding,
    volume::{Outcome, VolumeSpec},
};

/// What the kubelet adds to a volume's attributes for the pod of a publish (podInfoOnMount, tokenRequests). A stage has none of it.
const ATTRIBUTES_OF_PODS: [&str; 6] = [
    "csi.storage.k8s.io/pod.name",
    "csi.storage.k8s.io/pod.namespace",
    "csi.storage.k8s.io/pod.uid",
    "csi.storage.k8s.io/serviceAccount.name",
    "csi.storage.k8s.io/ephemeral",
    pod_token::TOKENS,
];

/// The stage that came before `publish`, as the kubelet asks for it.
pub(super) fn stage_before(publish: &NodePublishVolumeRequest) -> NodeStageVolumeRequest {
    let (mut volume_context, mut secrets) = (publish.volume_context.clone(), publish.secrets.clone());
    volume_context.retain(|name, _| !ATTRIBUTES_OF_PODS.contains(&name.as_str()));
    secrets.remove(pod_token::TOKENS);
    NodeStageVolumeRequest {
        volume_id: publish.volume_id.clone(),
        publish_context: publish.publish_context.clone(),
        staging_target_path: publish.staging_target_path.clone(),
        volume_capability: publish.volume_capability.clone(),
        secrets,
        volume_context,
    }
}

impl Node {
    /// Stages the volume of a publish whose staging path holds nothing that could be bound. Otherwise asks nobody.
    pub(super) async fn stage_where_gone(&self, publish: &NodePublishVolumeRequest) -> Result<()> {
        let (staging, target) = (Path::new(&publish.staging_target_path), Path::new(&publish.target_path));
        if !self.registry.lacks_stage(&publish.volume_id, staging, target).await? {
            return Ok(());
        }
        let request = stage_before(publish);
        let (node, moved) = (self.clone(), request.clone());
        let operation = async move { Box::pin(node.stage_again(moved)).await };
        self.stages.run(&request.volume_id, &request, operation).await.map(drop)
    }

    async fn stage_again(&self, request: NodeStageVolumeRequest) -> Result<Outcome> {
        let access = Access::read(request.volume_capability.as_ref())?;
        let (volume, path) = (request.volume_id.clone(), request.staging_target_path.clone());
        let spec = match self.registry.spec(&volume) {
            // Only its mount is gone: who signs for it is known.
            Some(spec) => spec,
            None => self.spec_again(request, &access).await?,
        };
        let outcome = Box::pin(self.registry.stage(spec, access.group, Path::new(&path))).await?;
        if outcome == Outcome::Mounted {
            tracing::warn!(volume, path, "staged again: a publish found no live mount of this driver there");
        }
        Ok(outcome)
    }

    /// The volume of a stage that is known to nobody but the kubelet.
    async fn spec_again(&self, mut request: NodeStageVolumeRequest, access: &Access) -> Result<VolumeSpec> {
        let attributes = Parameters::of_volume(&request.volume_context)?;
        let mut missing = None;
        if request.secrets.is_empty() {
            missing = self.look_for_secret(&mut request, &attributes).await?;
        }
        let spec = self.spec_of_stage(&request, attributes, access).await;
        spec.map_err(|error| match (error.kind, missing) {
            (ErrorKind::NoCredential, Some(reason)) => stage_lost(&request, &reason),
            _ => error,
        })
    }

    /// Puts the Secret of nodeStageSecretRef into the request. Returns why there may be one that is not known.
    ///
    /// # Errors
    /// `NotReady` where there is one, and it cannot be read.
    async fn look_for_secret(
        &self,
        request: &mut NodeStageVolumeRequest,
        attributes: &Parameters,
    ) -> Result<Option<String>> {
        let Some(api) = self.api.clone() else {
            return Ok(Some("the driver has no access to the API server".to_owned()));
        };
        let (defaults, attributes) = (Arc::clone(&self.defaults), attributes.clone());
        match StageSecret::new(api, defaults, &self.node_id, &request.volume_id, attributes).look().await {
            Looked::Found(entries) => {
                request.secrets = entries;
                Ok(None)
            }
            Looked::Without => Ok(None),
            Looked::Unreadable(reason) => Err(stage_lost(request, &reason)),
            Looked::Unknown(reason) => Ok(Some(reason)),
        }
    }
}

fn stage_lost(request: &NodeStageVolumeRequest, reason: &str) -> Error {
    let facts = [("volume", request.volume_id.as_str()), ("path", &request.staging_target_path), ("reason", reason)];
    Error::new(ErrorKind::NotReady, Finding::StageLost.with(&facts).to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn publishes_of_different_pods_ask_for_one_stage() {
        let publish = |pod: &str| {
            let text = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
                entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
            };
            NodePublishVolumeRequest {
                volume_id: "v".to_owned(),
                staging_target_path: "/staging".to_owned(),
                target_path: format!("/{pod}"),
                volume_context: text(&[
                    ("containerName", "logs"),
                    ("csi.storage.k8s.io/pv/name", "pv1"),
                    ("csi.storage.k8s.io/pod.name", pod),
                    ("csi.storage.k8s.io/pod.uid", pod),
                    (pod_token::TOKENS, pod),
                ]),
                secrets: text(&[(pod_token::TOKENS, pod)]),
                ..NodePublishVolumeRequest::default()
            }
        };
        let (one, other) = (stage_before(&publish("a")), stage_before(&publish("b")));
        assert_eq!(one, other);
        assert_eq!(one.volume_context.keys().collect::<Vec<_>>(), ["containerName", "csi.storage.k8s.io/pv/name"]);
        assert!(one.secrets.is_empty());
    }
}
