//! The driver in the cluster: our chart, installed by helm as a user would, and taken out again.

use std::{io::Write as _, path::Path};

use crate::{
    cluster::Cluster,
    kubectl::{PATIENCE, apply, kubectl, manifest, program, until},
};

/// Name of the driver that scenarios use.
pub const DRIVER: &str = "blob.csi.azure.com";
/// Where it is installed.
pub const NAMESPACE: &str = "kube-system";
/// Its node plugin.
pub const NODE_PLUGIN: &str = "daemonset/csi-blob-node";
/// What holds its mounts.
pub const KEEPER: &str = "daemonset/csi-blob-keeper";
/// Its release.
pub const RELEASE: &str = "azblob-csi";

/// Installs the driver under a name, or brings its settings up to date, and waits until it serves.
pub fn install(cluster: &Cluster, release: &str, driver: &str) {
    install_with(cluster, release, driver, &[]);
}

/// The same with more arguments for helm.
pub fn install_with(cluster: &Cluster, release: &str, driver: &str, more: &[&str]) {
    authority(cluster);
    let mut values = tempfile::NamedTempFile::new().unwrap();
    let text = manifest("values.yaml", &[("driver", driver), ("proxy", &cluster.identity.proxy_url())]);
    values.write_all(text.as_bytes()).unwrap();
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/charts/azblob-csi");
    let (chart, values) = (chart.to_str().unwrap(), values.path().to_str().unwrap());
    let arguments = ["upgrade", "--install", release, chart, "--namespace", NAMESPACE, "--values", values, "--wait"];
    program("helm", &[&arguments[..], &["--timeout", "170s"], more].concat()).success();
    registered(driver);
}

/// Takes a release out again. In the foreground: a Deployment and a DaemonSet are then there until their pods are gone, so that
/// helm waits for these too.
pub fn uninstall(release: &str) {
    let patience = ["--wait", "--cascade", "foreground", "--timeout", "120s"];
    program("helm", &[&["uninstall", release, "--namespace", NAMESPACE][..], &patience].concat()).success();
}

/// The certificate authority of the emulator's endpoints, for the driver to trust.
fn authority(cluster: &Cluster) {
    let secret = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "e2e-authority", "namespace": NAMESPACE },
        "stringData": { "ca.pem": cluster.identity.ca_pem() },
    });
    apply(&secret.to_string());
}

/// Waits until the kubelet knows the driver.
fn registered(driver: &str) {
    until("the kubelet to register the driver", PATIENCE, || {
        let drivers = kubectl(&["get", "csinode", "node1", "-o", "jsonpath={.spec.drivers[*].name}"]);
        if drivers.split(' ').any(|name| name == driver) { Ok(()) } else { Err(drivers) }
    });
}

/// Starts the node plugin anew, as an upgrade does, and waits until it serves.
pub fn restart_node_plugin() {
    kubectl(&["-n", NAMESPACE, "rollout", "restart", NODE_PLUGIN]);
    kubectl(&["-n", NAMESPACE, "rollout", "status", NODE_PLUGIN, "--timeout=170s"]);
    registered(DRIVER);
}

/// Deletes the pods of these DaemonSets, all at once, and waits until others serve.
pub fn replace_pods(of: &[&str], how: &[&str]) {
    let names: Vec<&str> = of.iter().map(|name| name.trim_start_matches("daemonset/")).collect();
    let selector = format!("app in ({})", names.join(","));
    let named =
        || kubectl(&["-n", NAMESPACE, "get", "pods", "-l", &selector, "-o", "jsonpath={.items[*].metadata.name}"]);
    let before = named();
    let delete = ["-n", NAMESPACE, "delete", "pod", "-l", &selector, "--timeout=120s"];
    kubectl(&[&delete[..], how].concat());
    until("other pods", PATIENCE, || {
        let now = named();
        let are_new = now.split(' ').count() == of.len() && !now.split(' ').any(|pod| before.contains(pod));
        if are_new { Ok(()) } else { Err(now) }
    });
    settled();
}

/// Waits until the node's plugin and keeper are ready.
pub fn settled() {
    for set in [NODE_PLUGIN, KEEPER] {
        until("the driver's pods to be ready", PATIENCE, || {
            let status = "jsonpath={.status.numberReady} of {.status.desiredNumberScheduled}";
            let ready = kubectl(&["-n", NAMESPACE, "get", set, "-o", status]);
            if ready == "1 of 1" { Ok(()) } else { Err(format!("{set}: {ready}")) }
        });
    }
    registered(DRIVER);
}
