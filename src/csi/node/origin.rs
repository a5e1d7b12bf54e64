//! What a volume was made of, for the process after this one: the request itself, with the Secret or token that came with it. It is
//! kept in memory alone (a memory file that the keeper holds), and read with the flags and the rules of the process that reads it.

use std::collections::BTreeMap;

use prost::Message as _;
use tonic::async_trait;

use super::{
    super::{
        capability::Access,
        error::{Error, ErrorKind, Result},
        parameters::Parameters,
        proto::v1::{NodePublishVolumeRequest, NodeStageVolumeRequest},
        request::MountRequest,
    },
    Node,
    restage::stage_before,
};
use crate::{
    credential::Credential,
    volume::{self, Outcome, Refresh, VolumeSpec, registry::Makers, spec::Origin},
};

/// The request of a volume that is staged, or of one that is a pod's alone.
#[derive(Clone, PartialEq, prost::Message)]
struct OriginRecord {
    #[prost(oneof = "Asked", tags = "1, 2")]
    asked: Option<Asked>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Asked {
    #[prost(message, tag = "1")]
    Stage(NodeStageVolumeRequest),
    #[prost(message, tag = "2")]
    Publish(NodePublishVolumeRequest),
}

fn origin(volume_id: &str, asked: Asked) -> Origin {
    Origin::new(volume_id, OriginRecord { asked: Some(asked) }.encode_to_vec())
}

/// That of a volume that `request` stages.
pub(super) fn of_stage(request: &NodeStageVolumeRequest) -> Origin {
    origin(&request.volume_id, Asked::Stage(request.clone()))
}

/// That of a volume that `request` mounts for one pod.
pub(super) fn of_publish(request: &NodePublishVolumeRequest) -> Origin {
    origin(&request.volume_id, Asked::Publish(request.clone()))
}

fn asked(origin: &Origin) -> Result<Asked> {
    let unknown = || Error::invalid("what an earlier process wrote of a volume is of a version that is not known here");
    let record = OriginRecord::decode(origin.bytes()).map_err(|error| unknown().because(error))?;
    record.asked.ok_or_else(unknown)
}

/// The origin of a staged volume with the secrets that a publish brought.
fn renewed(origin: &Origin, secrets: &BTreeMap<String, String>) -> Option<Origin> {
    match asked(origin) {
        Ok(Asked::Stage(request)) => Some(of_stage(&NodeStageVolumeRequest { secrets: secrets.clone(), ..request })),
        _ => None,
    }
}

impl Node {
    /// Takes note of the secrets of a publish that a staged volume signs with from now on: the next process begins with them.
    pub(super) fn note_secrets(
        &self,
        publish: &NodePublishVolumeRequest,
        credential: Option<&Credential>,
        outcome: Outcome,
    ) {
        if matches!(outcome, Outcome::Foreign | Outcome::AlreadyServed(Refresh::Unchanged | Refresh::Refused)) {
            return;
        }
        let Some(credential) = credential else { return };
        let secrets = stage_before(publish).secrets;
        self.registry.renew_origin(&publish.volume_id, credential, |origin| renewed(origin, &secrets));
    }

    async fn spec_of(&self, origin: &Origin) -> Result<VolumeSpec> {
        match asked(origin)? {
            Asked::Stage(request) => {
                let attributes = Parameters::of_volume(&request.volume_context)?;
                let access = Access::read(request.volume_capability.as_ref())?;
                self.spec_of_stage(&request, attributes, &access).await
            }
            Asked::Publish(request) => {
                let attributes = Parameters::of_volume(&request.volume_context)?;
                let access = Access::read(request.volume_capability.as_ref())?;
                let mount = MountRequest {
                    volume_id: &request.volume_id,
                    attributes: &attributes,
                    secrets: &request.secrets,
                    access: &access,
                };
                let spec = self.own_spec(&request, &mount).await?;
                spec.ok_or_else(|| Error::invalid("what was one pod's volume is not, by the rules of this version"))
            }
        }
    }
}

#[async_trait]
impl Makers for Node {
    async fn make(&self, origin: &Origin) -> volume::Result<VolumeSpec> {
        self.spec_of(origin).await.map_err(|error| {
            let kind = match error.kind {
                ErrorKind::Unavailable => volume::ErrorKind::Unavailable,
                ErrorKind::Denied | ErrorKind::NoCredential => volume::ErrorKind::Denied,
                _ => volume::ErrorKind::Invalid,
            };
            volume::Error::new(kind, error.full_text())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn stage() -> NodeStageVolumeRequest {
        NodeStageVolumeRequest {
            volume_id: "v".to_owned(),
            staging_target_path: "/staging".to_owned(),
            secrets: entries(&[("accountkey", "very-secret")]),
            volume_context: entries(&[("containerName", "logs")]),
            ..NodeStageVolumeRequest::default()
        }
    }

    #[test]
    fn a_request_is_read_again_as_it_was_and_shows_no_secret() {
        let origin = of_stage(&stage());
        assert_eq!((origin.handle(), asked(&origin).unwrap()), ("v", Asked::Stage(stage())));
        assert!(!format!("{origin:?}").contains("very-secret"));
        let publish = NodePublishVolumeRequest { volume_id: "v".to_owned(), ..NodePublishVolumeRequest::default() };
        assert_eq!(asked(&of_publish(&publish)).unwrap(), Asked::Publish(publish));
    }

    #[test]
    fn newer_secrets_take_the_place_of_those_of_a_stage_and_of_nothing_else() {
        let newer = entries(&[("accountkey", "newer")]);
        let renewed = renewed(&of_stage(&stage()), &newer).unwrap();
        assert_eq!(
            asked(&renewed).unwrap(),
            Asked::Stage(NodeStageVolumeRequest { secrets: newer.clone(), ..stage() })
        );
        let publish = of_publish(&NodePublishVolumeRequest::default());
        assert_eq!(super::renewed(&publish, &newer), None);
    }

    #[test]
    fn what_is_no_request_of_ours_is_refused() {
        for bytes in [Vec::new(), vec![0xff; 9], vec![0x9a, 0x06, 0x00]] {
            assert!(asked(&Origin::new("v", bytes)).unwrap_err().message.contains("not known here"));
        }
    }
}
