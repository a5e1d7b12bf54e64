//! What a volume is called in Kubernetes, as labels of its metrics. All of it comes from attributes that the provisioner
//! (--extra-create-metadata) and the kubelet (podInfoOnMount) add; what they do not say is left out.

use super::parameters::Parameters;
use crate::telemetry::metrics::Labels;

/// The claim of a volume that was provisioned.
#[must_use]
pub fn of_claim(attributes: &Parameters) -> Labels {
    read(attributes, &[("pvc", "csi.storage.k8s.io/pvc/name"), ("namespace", "csi.storage.k8s.io/pvc/namespace")])
}

/// The pod that a volume is published for.
#[must_use]
pub fn of_pod(attributes: &Parameters) -> Labels {
    read(
        attributes,
        &[
            ("pod", "csi.storage.k8s.io/pod.name"),
            ("pod_namespace", "csi.storage.k8s.io/pod.namespace"),
            // No metric has it: it tells whom events are about.
            ("pod_uid", "csi.storage.k8s.io/pod.uid"),
        ],
    )
}

/// A volume that is one pod's alone: the pod tells it from the other pods' volumes.
#[must_use]
pub fn with_pod(volume: &Labels, pod: &Labels) -> Labels {
    let namespace = volume.get("namespace").or(pod.get("pod_namespace")).unwrap_or_default().to_owned();
    volume.with("namespace", namespace).with("pod", pod.get("pod").unwrap_or_default())
}

fn read(attributes: &Parameters, names: &[(&'static str, &str)]) -> Labels {
    names.iter().fold(Labels::default(), |mut labels, (label, attribute)| {
        labels.set(label, attributes.get(attribute).unwrap_or_default());
        labels
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inline_volume_is_named_by_its_pod_and_a_claim_by_itself() {
        let attributes = [
            ("csi.storage.k8s.io/pod.name".to_owned(), "web-0".to_owned()),
            ("csi.storage.k8s.io/pod.namespace".to_owned(), "shop".to_owned()),
        ];
        let attributes = Parameters::of_volume(&attributes.into()).unwrap();
        let volume = with_pod(&of_claim(&attributes), &of_pod(&attributes));
        assert_eq!(volume.to_string(), "{namespace=\"shop\",pod=\"web-0\"}");
    }
}
