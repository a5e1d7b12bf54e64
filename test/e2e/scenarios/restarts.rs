//! The node plugin comes and goes under running pods: an upgrade, a crash, the keeper beside it. What they write and read meanwhile is
//! checked by themselves, call by call.

use std::{fs, path::PathBuf};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    install::{DRIVER, KEEPER, NODE_PLUGIN, RELEASE, install_with, replace_pods, restart_node_plugin, settled},
    kubectl::kubectl,
    scenario::Scenario,
};

/// Appends to one open file, and writes files and reads them again with their checksums. Every call that fails, and every sum that is
/// another, is a line of /tmp/errors.
const WRITER: &str = r#"
fail() { echo "$(date +%T) round $round: $*" >>/tmp/errors; }
round=0
exec 3>/data/log
mkdir /data/files
while [ ! -e /tmp/stop ]; do
    round=$((round + 1))
    echo "line $round" >&3 || fail append
    head -c 70000 /dev/urandom >/tmp/chunk
    sum=$(sha256sum </tmp/chunk)
    file=/data/files/$((round % 20))
    cp /tmp/chunk $file.new && mv $file.new $file || fail write
    [ "$(sha256sum <$file)" = "$sum" ] || fail sum
    [ "$(ls /data/files | wc -l)" -ge 1 ] || fail list
    echo $round >/tmp/round
done
exec 3>&- || fail close
echo over >/tmp/over
"#;

/// A pod that writes ([`WRITER`]) until it is told to stop.
struct Writer<'scenario> {
    scenario: &'scenario Scenario,
}

impl<'scenario> Writer<'scenario> {
    fn begin(scenario: &'scenario Scenario) -> Self {
        scenario.volume("data", &[]);
        scenario.pod("writer", "data");
        scenario.ready(&["writer"]);
        scenario.sh(
            "writer",
            &format!("cat >/tmp/writer <<'END'\n{WRITER}\nEND\nnohup sh /tmp/writer >/tmp/errors 2>&1 &"),
        );
        let writer = Self { scenario };
        writer.goes_on();
        writer
    }

    fn round(&self) -> u64 {
        self.scenario.sh("writer", "cat /tmp/round 2>/dev/null || true").parse().unwrap_or_default()
    }

    /// Waits until it has done a few rounds more.
    #[track_caller]
    fn goes_on(&self) {
        let from = self.round();
        self.scenario.until("the writer to go on", || match self.round() {
            now if now >= from + 5 => Ok(()),
            now => Err(format!("round {now}, {}", self.errors())),
        });
    }

    fn errors(&self) -> String {
        self.scenario.sh("writer", "cat /tmp/errors")
    }

    /// Ends it: no call failed, and the service has every line.
    #[track_caller]
    fn end(self) {
        let scenario = self.scenario;
        scenario.sh("writer", "touch /tmp/stop");
        scenario.until("the writer to end", || scenario.try_sh("writer", "cat /tmp/over").map(drop));
        assert_eq!(self.errors(), "");
        let rounds = self.round();
        println!("{}: {rounds} rounds without an error", scenario.name);
        let lines: String = (1..=rounds).map(|round| format!("line {round}\n")).collect();
        assert_eq!(scenario.blob("log"), Some(lines));
    }
}

/// A process of the driver, by its role, in whatever container.
fn process_of(role: &str) -> Option<Pid> {
    let command = format!("/azblob-csi\0{role}\0");
    let is_wanted =
        |path: PathBuf| fs::read_to_string(path.join("cmdline")).is_ok_and(|line| line.starts_with(&command));
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let found = processes.into_iter().find(|entry| is_wanted(entry.path()))?;
    found.file_name().to_str()?.parse().ok().map(Pid::from_raw)
}

/// Kills a process of the driver, and waits until the kubelet has started another.
#[track_caller]
fn crash(scenario: &Scenario, role: &str) {
    let process = process_of(role).unwrap();
    kill(process, Signal::SIGKILL).unwrap();
    scenario.until("the next process", || match process_of(role) {
        Some(next) if next != process => Ok(()),
        seen => Err(format!("{seen:?}")),
    });
    settled();
}

#[test]
fn a_pod_notices_nothing_of_a_rollout_nor_of_an_upgrade() {
    let scenario = Scenario::alone("rollout");
    let writer = Writer::begin(&scenario);
    let mounted = scenario.mounts();
    for _ in 0..2 {
        restart_node_plugin();
        writer.goes_on();
    }
    // What an upgrade is for kubelet and plugin: another command line. The image is the same.
    let args = "node.extraArgs={--ca-file=/etc/azblob-csi/cloud-config/ca.pem,--memory=96MiB}";
    install_with(scenario.cluster, RELEASE, DRIVER, &["--set", args]);
    settled();
    writer.goes_on();
    install_with(scenario.cluster, RELEASE, DRIVER, &[]);
    settled();
    writer.goes_on();
    assert_eq!(scenario.mounts(), mounted, "they are the same mounts");
    // A pod that comes now has the volume from the fourth plugin after the one that staged it.
    scenario.pod("reader", "data");
    scenario.ready(&["reader"]);
    scenario.sh("reader", "head -n 1 /data/log | grep -x 'line 1'");
    writer.end();
}

#[test]
fn a_pod_notices_nothing_of_a_plugin_whose_pod_is_deleted_or_that_crashes() {
    let scenario = Scenario::alone("plugin-crash");
    let writer = Writer::begin(&scenario);
    let mounted = scenario.mounts();
    replace_pods(&[NODE_PLUGIN], &[]);
    writer.goes_on();
    replace_pods(&[NODE_PLUGIN], &["--grace-period=0", "--force"]);
    writer.goes_on();
    crash(&scenario, "node");
    writer.goes_on();
    assert_eq!(scenario.mounts(), mounted, "they are the same mounts");
    writer.end();
}

#[test]
fn a_pod_notices_nothing_of_a_new_keeper_nor_of_the_plugin_after_it() {
    let scenario = Scenario::alone("new-keeper");
    let writer = Writer::begin(&scenario);
    replace_pods(&[KEEPER], &[]);
    writer.goes_on();
    restart_node_plugin();
    writer.goes_on();
    crash(&scenario, "keeper");
    writer.goes_on();
    crash(&scenario, "node");
    writer.goes_on();
    writer.end();
}

#[test]
fn the_plugin_can_be_started_anew_between_pods() {
    let scenario = Scenario::alone("plugin-restart");
    scenario.volume("data", &[]);
    scenario.pod("before", "data");
    scenario.ready(&["before"]);
    scenario.sh("before", "echo kept >/data/file");
    scenario.delete_pod("before");
    restart_node_plugin();
    scenario.pod("after", "data");
    scenario.ready(&["after"]);
    assert_eq!(scenario.sh("after", "cat /data/file && echo new >>/data/file && cat /data/file"), "kept\nkept\nnew");
}

#[test]
fn a_volume_heals_whose_plugin_and_keeper_are_gone_at_once() {
    let scenario = Scenario::alone("both-gone");
    scenario.volume("data", &[]);
    scenario.pod("old", "data");
    scenario.ready(&["old"]);
    scenario.sh("old", "echo kept >/data/file");
    replace_pods(&[NODE_PLUGIN, KEEPER], &["--grace-period=0", "--force"]);
    // What the documentation says of a running pod.
    let said = scenario.try_sh("old", "timeout 20 cat /data/file").unwrap_err();
    assert!(said.contains("Transport endpoint is not connected"), "{said}");
    // The staging mount of the old plugin is dead; the new pod's publish has to notice.
    scenario.pod("new", "data");
    scenario.ready(&["new"]);
    assert_eq!(scenario.sh("new", "cat /data/file"), "kept");
    scenario.delete_pod("old");
    assert_eq!(scenario.sh("new", "cat /data/file"), "kept");
    // And outlives the next plugin.
    restart_node_plugin();
    assert_eq!(scenario.sh("new", "cat /data/file"), "kept");
}

#[test]
fn a_pod_ends_whose_volume_could_not_be_mounted_again() {
    let scenario = Scenario::alone("plugin-ends");
    scenario.volume("data", &[]);
    scenario.pod("user", "data");
    scenario.ready(&["user"]);
    scenario.cluster.emulator.delete_container(scenario.name);
    replace_pods(&[NODE_PLUGIN, KEEPER], &["--grace-period=0", "--force"]);
    // The kubelet publishes again by itself. After a refusal that it takes for final it forgets a target that is not mounted, and
    // could not unmount it any more.
    scenario.until("the refused publish", || {
        let said = kubectl(&["-n", scenario.name, "describe", "pod", "user"]);
        if said.contains("Container plugin-ends does not exist") { Ok(()) } else { Err(said) }
    });
    scenario.delete_pod("user");
}
