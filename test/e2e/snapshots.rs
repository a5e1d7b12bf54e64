//! Snapshots in the cluster: they are no part of Kubernetes, but definitions and a controller of external-snapshotter, which a
//! cluster's administrator installs once for all drivers. Must not know of any driver.

use std::path::PathBuf;

use crate::kubectl::{apply, kubectl, manifest};

/// Installs them, or finds them installed.
pub fn install() {
    let programs = PathBuf::from(std::env::var("E2E_DIR").unwrap()).join("bin");
    kubectl(&["apply", "-f", programs.join("crd").to_str().unwrap()]);
    for kind in ["volumesnapshots", "volumesnapshotclasses", "volumesnapshotcontents"] {
        let definition = format!("crd/{kind}.snapshot.storage.k8s.io");
        kubectl(&["wait", "--for=condition=Established", &definition, "--timeout=60s"]);
    }
    apply(&manifest("snapshot-controller.yaml", &[]));
    kubectl(&["-n", "kube-system", "rollout", "status", "deployment/snapshot-controller", "--timeout=170s"]);
}
