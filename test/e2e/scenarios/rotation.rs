//! Secrets that change under running pods.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::scenario::Scenario;

/// An account of this scenario alone: its key is nobody else's.
const ACCOUNT: &str = "rotated";

#[test]
fn a_new_key_in_the_secret_reaches_a_running_pod() {
    let scenario = Scenario::begin("rotation");
    let emulator = &scenario.cluster.emulator;
    let keys = ["first", "second"].map(|text| STANDARD.encode(text.repeat(10)));
    let tell = |key: &str| {
        scenario.secret("rotated", &[("azurestorageaccountname", ACCOUNT), ("azurestorageaccountkey", key)]);
    };
    emulator.set_key(ACCOUNT, &keys[0]).unwrap();
    tell(&keys[0]);
    let attributes = "{containerName: rotation, createContainer: \"true\"}";
    scenario.volume("data", &[("attributes", attributes), ("secret", "{name: rotated, namespace: rotation}")]);
    scenario.pod("user", "data");
    scenario.ready(&["user"]);
    let mounted = scenario.mounts();
    scenario.sh("user", "echo one >/data/file");
    // The account's key first, the Secret next: what a user does who was in a hurry.
    emulator.set_key(ACCOUNT, &keys[1]).unwrap();
    tell(&keys[1]);
    // An open asks the service. The kubelet hands the new Secret over with its next publish, a minute or two later.
    scenario.until("the pod to read again", || scenario.try_sh("user", "timeout 20 cat /data/file").map(drop));
    scenario.sh("user", "dd if=/data/file of=/data/new conv=fsync 2>/dev/null");
    assert_eq!(scenario.sh("user", "cat /data/new"), "one");
    assert_eq!(scenario.mounts(), mounted, "the volume was mounted anew");
    let restarts =
        scenario.kubectl(&["get", "pod", "user", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"]);
    assert_eq!(restarts, "0");
}
