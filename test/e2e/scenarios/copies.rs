//! Volumes that begin as copies: of another claim, of a snapshot.

use crate::{kubectl::get, scenario::Scenario};

/// What the containers of snapshots begin with.
const SNAPSHOTS: &str = "snapshot-";

#[test]
fn a_claim_begins_as_a_clone_of_another_and_goes_its_own_way() {
    let scenario = Scenario::begin("clone");
    scenario.apply("class.yaml", &[("volume", "original")]);
    scenario.pod("writer", "original");
    scenario.ready(&["writer"]);
    scenario.sh("writer", "mkdir -p /data/a/b /data/empty && echo text >/data/a/b/file && seq 100000 >/data/numbers");
    let look = "cd /data && find . | sort && cat a/b/file && sha256sum numbers";
    let original = scenario.sh("writer", look);
    scenario.apply("copy.yaml", &[("volume", "clone"), ("source", "{kind: PersistentVolumeClaim, name: original}")]);
    scenario.pod("reader", "clone");
    scenario.ready(&["reader"]);
    assert_eq!(scenario.sh("reader", look), original);
    scenario.sh("reader", "echo changed >/data/a/b/file && rm /data/numbers");
    assert_eq!(scenario.sh("writer", look), original);
    // The clone outlives what it was made of.
    scenario.delete_pod("writer");
    scenario.kubectl(&["delete", "pvc", "original", "--timeout=60s"]);
    scenario.until("the container of the original to be deleted", || match containers(&scenario, "clone-") {
        left if left.len() == 1 => Ok(()),
        left => Err(left.join(" ")),
    });
    assert_eq!(scenario.sh("reader", "cat /data/a/b/file"), "changed");
}

#[test]
fn a_snapshot_is_restored_into_a_claim_and_goes_when_it_is_deleted() {
    let scenario = Scenario::begin("restore");
    scenario.apply("class.yaml", &[("volume", "data")]);
    scenario.pod("writer", "data");
    scenario.ready(&["writer"]);
    scenario.sh("writer", "mkdir /data/book && echo before >/data/book/page");
    scenario.apply("snapshot.yaml", &[("snapshot", "taken"), ("volume", "data")]);
    ready_to_use(&scenario, "taken");
    scenario.sh("writer", "echo after >/data/book/page && echo more >/data/new");
    let taken = get(&["-n", scenario.name, "volumesnapshot", "taken"]);
    assert_eq!(taken["status"]["restoreSize"], "1Gi", "{taken}");
    restored(&scenario, "first", "taken");
    // Whoever knows its handle alone gets the same.
    let content = taken["status"]["boundVolumeSnapshotContentName"].as_str().unwrap();
    let handle = get(&["volumesnapshotcontent", content])["status"]["snapshotHandle"].as_str().unwrap().to_owned();
    scenario.apply("snapshot-by-handle.yaml", &[("snapshot", "known"), ("handle", &handle)]);
    ready_to_use(&scenario, "known");
    restored(&scenario, "second", "known");
    assert_eq!(containers(&scenario, SNAPSHOTS).len(), 1, "one snapshot, made known twice");
    scenario.kubectl(&["delete", "volumesnapshot", "known", "taken", "--timeout=120s"]);
    scenario.until("the container of the snapshot to be deleted", || match containers(&scenario, SNAPSHOTS) {
        left if left.is_empty() => Ok(()),
        left => Err(left.join(" ")),
    });
    // What was restored from it stays, as does what it was taken of.
    assert_eq!(scenario.sh("first", "cat /data/book/page"), "before");
    assert_eq!(scenario.sh("writer", "cat /data/book/page"), "after");
}

/// Waits until a snapshot can be restored.
fn ready_to_use(scenario: &Scenario, snapshot: &str) {
    let object = format!("volumesnapshot/{snapshot}");
    scenario.until("the snapshot to be ready", || {
        let shown = scenario.kubectl(&["get", &object, "-o", "jsonpath={.status}"]);
        if shown.contains(r#""readyToUse":true"#) { Ok(()) } else { Err(shown) }
    });
}

/// Makes a claim from a snapshot and a pod of the same name, which sees what was there when the snapshot was taken.
fn restored(scenario: &Scenario, name: &str, snapshot: &str) {
    let source = format!("{{apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: {snapshot}}}");
    scenario.apply("copy.yaml", &[("volume", name), ("source", &source)]);
    scenario.pod(name, name);
    scenario.ready(&[name]);
    assert_eq!(scenario.sh(name, "cat /data/book/page && ls /data"), "before\nbook");
}

/// Containers whose names begin so.
fn containers(scenario: &Scenario, prefix: &str) -> Vec<String> {
    scenario.cluster.emulator.containers().into_iter().filter(|name| name.starts_with(prefix)).collect()
}
