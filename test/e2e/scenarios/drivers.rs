//! The driver itself: beside another of another name, and gone without a trace.

use std::{collections::BTreeSet, fs};

use crate::{
    install::{self, DRIVER, RELEASE},
    kubectl::kubectl,
    scenario::{Scenario, mounts},
};

/// The name for clusters in which somebody else has the usual one.
const OTHER: &str = "azblob.csi.dev";

#[test]
fn two_drivers_serve_one_node_side_by_side() {
    let scenario = Scenario::alone("two-drivers");
    install::install(scenario.cluster, "other", OTHER);
    scenario.volume("usual", &[]);
    scenario.volume("other", &[("driver", OTHER)]);
    scenario.pod("of-usual", "usual");
    scenario.pod("of-other", "other");
    scenario.ready(&["of-usual", "of-other"]);
    scenario.sh("of-usual", "echo hello >/data/file");
    // Another driver's mount is another client's: what it has listed it may believe for `metadata-ttl`.
    scenario.until("the other driver's pod to see it", || match scenario.try_sh("of-other", "cat /data/file") {
        Ok(seen) if seen == "hello\n" => Ok(()),
        seen => Err(format!("{seen:?}")),
    });
    // One goes; what the other serves stays.
    scenario.delete_pod("of-other");
    install::uninstall("other");
    assert_eq!(scenario.sh("of-usual", "cat /data/file"), "hello");
}

#[test]
fn an_uninstalled_driver_leaves_nothing_behind() {
    let scenario = Scenario::alone("uninstall");
    scenario.volume("data", &[]);
    scenario.pod("user", "data");
    scenario.ready(&["user"]);
    scenario.delete_pod("user");
    install::uninstall(RELEASE);
    let (objects, files, left) = (objects(), files(), mounts());
    let registered = kubectl(&["get", "csinode", "node1", "-o", "jsonpath={.spec.drivers[*].name}"]);
    // Others want it back, also where this fails.
    install::install(scenario.cluster, RELEASE, DRIVER);
    assert_eq!(objects, BTreeSet::new());
    assert_eq!(files, Vec::<String>::new());
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(registered, "");
}

/// Objects of the cluster that are the driver's. What its sidecars keep for themselves between two elections, leases, is theirs.
fn objects() -> BTreeSet<String> {
    let kinds = "all,csidrivers,storageclasses,clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts,\
                 poddisruptionbudgets,configmaps";
    let all = kubectl(&["get", kinds, "--all-namespaces", "-o", "name"]);
    all.lines().filter(|name| name.contains("blob")).map(str::to_owned).collect()
}

/// Sockets of the driver below the kubelet's directory.
fn files() -> Vec<String> {
    let names = |directory: &str| -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().display().to_string()).filter(|path| path.contains(DRIVER)).collect()
    };
    let registry = names("/var/lib/kubelet/plugins_registry");
    let socket = format!("/var/lib/kubelet/plugins/{DRIVER}/csi.sock");
    [registry, fs::exists(&socket).unwrap().then_some(socket).into_iter().collect()].concat()
}
