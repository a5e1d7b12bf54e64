//! What goes wrong: pods that end while they write, containers that vanish, mounts that fail.

use crate::scenario::Scenario;

#[test]
fn what_was_closed_is_there_when_a_pod_is_killed_while_it_writes() {
    let scenario = Scenario::begin("killed-writer");
    scenario.volume("data", &[]);
    scenario.pod("writer", "data");
    scenario.ready(&["writer"]);
    // Files of one line each, as fast as it goes; their number is noted elsewhere once close has returned.
    let script = "i=0; while :; do i=$((i + 1)); echo $i >/data/$i && echo $i >>/tmp/closed; done";
    scenario.sh("writer", &format!("nohup sh -c '{script}' >/dev/null 2>&1 & sleep 2"));
    let closed: usize = scenario.sh("writer", "wc -l </tmp/closed").trim().parse().unwrap();
    scenario.kubectl(&["delete", "pod", "writer", "--grace-period=0", "--force", "--timeout=120s"]);
    assert!(closed > 0);
    for number in 1..=closed {
        assert_eq!(scenario.blob(&number.to_string()), Some(format!("{number}\n")));
    }
    scenario.pod("reader", "data");
    scenario.ready(&["reader"]);
    assert_eq!(scenario.sh("reader", &format!("cat /data/{closed}")), closed.to_string());
}

#[test]
fn a_pod_ends_after_its_container_was_deleted() {
    let scenario = Scenario::begin("deleted-container");
    scenario.volume("data", &[]);
    scenario.pod("user", "data");
    scenario.ready(&["user"]);
    scenario.sh("user", "echo text >/data/file");
    scenario.cluster.emulator.delete_container(scenario.name);
    // Not by `echo`: a shell does not look at the result of close.
    let said =
        scenario.try_sh("user", "timeout 60 dd if=/dev/zero of=/data/other bs=1k count=1 conv=fsync").unwrap_err();
    assert!(said.contains("/data/other"), "{said}");
    scenario.delete_pod("user");
}

#[test]
fn a_mount_that_fails_says_in_the_pods_events_what_is_wrong_and_how_to_mend_it() {
    let scenario = Scenario::begin("mount-failure");
    scenario.volume("data", &[("attributes", "{containerName: no-such-container}")]);
    scenario.pod("user", "data");
    scenario.until("the event", || {
        let said = scenario.kubectl(&["describe", "pod", "user"]);
        let told = ["FailedMount", "Container no-such-container does not exist", "createContainer"];
        if told.iter().all(|word| said.contains(word)) { Ok(()) } else { Err(said) }
    });
    // Mended from outside, the pod starts by itself.
    scenario.cluster.emulator.create_container("no-such-container");
    scenario.ready(&["user"]);
    scenario.cluster.emulator.delete_container("no-such-container");
}
