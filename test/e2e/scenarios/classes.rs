//! Volumes that a StorageClass makes: for a Deployment, for a StatefulSet, growing.

use crate::{
    kubectl::{get, kubectl},
    scenario::Scenario,
};

#[test]
fn two_pods_of_a_deployment_write_and_read_a_claim_of_a_class() {
    let scenario = Scenario::begin("deployment");
    scenario.apply("class.yaml", &[("volume", "data")]);
    scenario.apply("deployment.yaml", &[]);
    // A pod is ready when it sees the file of the other as well.
    scenario.kubectl(&["rollout", "status", "deployment/web", "--timeout=170s"]);
    let read = scenario.kubectl(&["exec", "deployment/web", "--", "sh", "-c", "cat /data/*"]);
    assert_eq!(read.lines().filter(|line| line.starts_with("written by web-")).count(), 2, "{read}");
    let container = containers_of(&scenario);
    assert_eq!(container.len(), 1, "{container:?}");
    assert_eq!(scenario.cluster.emulator.names(&container[0]).len(), 2);
    // With the claim goes what was made for it.
    scenario.kubectl(&["delete", "deployment", "web", "--timeout=60s"]);
    scenario.kubectl(&["delete", "pvc", "data", "--timeout=60s"]);
    scenario.until("the container to be deleted", || match containers_of(&scenario) {
        left if left.is_empty() => Ok(()),
        left => Err(left.join(" ")),
    });
}

#[test]
fn each_pod_of_a_stateful_set_keeps_its_volume() {
    let scenario = Scenario::begin("stateful-set");
    scenario.apply("class.yaml", &[("volume", "unused")]);
    scenario.apply("stateful-set.yaml", &[]);
    scenario.kubectl(&["rollout", "status", "statefulset/store", "--timeout=170s"]);
    let names = ["store-0", "store-1"];
    assert_eq!(names.map(|pod| scenario.sh(pod, "cat /data/name")), names);
    scenario.delete_pod("store-1");
    scenario.kubectl(&["rollout", "status", "statefulset/store", "--timeout=170s"]);
    scenario.ready(&names);
    assert_eq!(scenario.sh("store-1", "cat /data/name"), "store-1");
}

#[test]
fn a_claim_that_grows_shows_in_df() {
    let scenario = Scenario::begin("expand");
    scenario.apply("class.yaml", &[("volume", "data")]);
    scenario.pod("reader", "data");
    scenario.ready(&["reader"]);
    let size = || scenario.sh("reader", "df -k /data | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2");
    assert_eq!(size(), (1 << 20).to_string());
    scenario.kubectl(&["patch", "pvc", "data", "-p", r#"{"spec":{"resources":{"requests":{"storage":"3Gi"}}}}"#]);
    scenario.until("df to show it", || match size() {
        shown if shown == (3 << 20).to_string() => Ok(()),
        shown => Err(shown),
    });
    scenario.kubectl(&["wait", "--for=jsonpath={.status.capacity.storage}=3Gi", "pvc/data", "--timeout=60s"]);
}

#[test]
fn a_class_with_a_parameter_that_nobody_knows_says_so_at_the_claim() {
    let scenario = Scenario::begin("unknown-parameter");
    let class = crate::kubectl::manifest(
        "class.yaml",
        &[("namespace", scenario.name), ("driver", crate::install::DRIVER), ("volume", "data")],
    );
    crate::kubectl::apply(&class.replace("protocol: fuse2", "protocol: fuse2\n  colour: green"));
    scenario.until("the event", || {
        let events = kubectl(&["-n", scenario.name, "describe", "pvc", "data"]);
        if events.contains("invalid parameter \"colour\" in storage class") { Ok(()) } else { Err(events) }
    });
    assert_eq!(get(&["-n", scenario.name, "pvc", "data"])["status"]["phase"], "Pending");
}

/// Containers that were made for claims of this scenario.
fn containers_of(scenario: &Scenario) -> Vec<String> {
    let prefix = format!("{}-", scenario.name);
    scenario.cluster.emulator.containers().into_iter().filter(|name| name.starts_with(&prefix)).collect()
}
