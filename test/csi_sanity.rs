//! csi-sanity, the conformance suite of the Container Storage Interface, against the real binary: node and controller as
//! two processes, real mounts, and a Blob service behind them. What the suite skips, and why, is the table of
//! test/sanity/README.md: the test fails when the suite skips anything else. Needs root.

// Helpers of tests fail the test by panicking, like the tests themselves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "sanity/plugin.rs"]
mod plugin;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use blob_emulator::{DEVELOPMENT_KEY, Emulator, Settings};
use harness::{
    Azurite, assert_no_secret,
    mountinfo::{detach_below, mounts_below},
    run,
};
use plugin::Plugin;
use tempfile::TempDir;

/// Downloading and compiling the suite the first time; later it takes seconds.
const BUILD_WITHIN: Duration = Duration::from_secs(600);

/// The suite ends itself, with the calls that hang, after this time; in peace it takes seconds.
const SUITE_WITHIN: Duration = Duration::from_secs(90);

/// More than [`SUITE_WITHIN`]: what the suite does not end is killed.
const KILL_AFTER: Duration = Duration::from_secs(110);

/// Specs of the pinned suite that hold.
const PASSED: usize = 67;

/// Calls whose secrets the suite hands in, as it names them.
const CALLS: [&str; 10] = [
    "CreateVolume",
    "DeleteVolume",
    "ControllerValidateVolumeCapabilities",
    "ControllerExpandVolume",
    "CreateSnapshot",
    "DeleteSnapshot",
    "ListSnapshots",
    "GetSnapshot",
    "NodeStageVolume",
    "NodePublishVolume",
];

#[test]
fn csi_sanity_holds_on_the_emulator_and_leaves_no_container() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    sanity(&emulator.connection_string(), &emulator.key());
    assert_eq!(emulator.containers(), Vec::<String>::new(), "every volume of the suite is deleted");
}

#[test]
fn csi_sanity_holds_on_azurite() {
    let azurite = Azurite::start();
    sanity(&azurite.connection_string(), DEVELOPMENT_KEY);
}

/// The directory of one run. Mounts that a failed test leaves are taken away.
struct Place(TempDir);

impl Drop for Place {
    fn drop(&mut self) {
        detach_below(self.0.path());
    }
}

/// Runs the suite against both roles, with a service that `connection_string` leads to.
fn sanity(connection_string: &str, key: &str) {
    let suite = suite();
    // Before the plugins, so that it is dropped after them.
    let place = Place(tempfile::tempdir().unwrap());
    let directory = place.0.path();
    let kubelet = directory.join("kubelet");
    fs::create_dir_all(kubelet.join("plugins_registry")).unwrap();
    let kubelet = kubelet.to_str().unwrap();
    let node = Plugin::start("node", directory, &["--node-id", "node-1", "--kubelet-dir", kubelet]);
    let controller = Plugin::start("controller", directory, &[]);
    let (secrets, report) = (directory.join("secrets.yaml"), directory.join("report.json"));
    write_secrets(&secrets, connection_string);
    let mut command = Command::new(suite);
    command
        .arg(format!("-ginkgo.timeout={}s", SUITE_WITHIN.as_secs()))
        .arg(format!("-ginkgo.json-report={}", report.display()))
        .args(["-ginkgo.v", "-ginkgo.no-color"])
        .current_dir(directory)
        .env("SANITY_NODE", node.endpoint())
        .env("SANITY_CONTROLLER", controller.endpoint())
        .env("SANITY_DIRECTORY", directory)
        .env("SANITY_SECRETS", &secrets);
    let finished = run(&mut command, KILL_AFTER);
    let said = format!("{}\n{}", finished.stdout, finished.stderr);
    assert!(finished.status.success(), "{said}\nnode: {}\ncontroller: {}", node.log(), controller.log());
    assert_no_secret(&said, key);
    assert_eq!(mounts_below(directory), Vec::<String>::new(), "the suite unmounts all that it mounts");
    let (node, controller) = (node.terminate(), controller.terminate());
    assert!(node.contains("outcome=Mounted"), "the suite mounts volumes: {node}");
    for log in [node, controller] {
        assert!(!log.contains("panicked at"), "{log}");
        assert_no_secret(&log, key);
    }
    assert_eq!(mounts_below(directory), Vec::<String>::new(), "the node left mounts behind");
    judge(&fs::read(report).unwrap());
}

/// The suite as a program, built once.
fn suite() -> &'static Path {
    static SUITE: OnceLock<PathBuf> = OnceLock::new();
    SUITE.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sanity.test");
        let mut build = Command::new("go");
        build.args(["test", "-c", "-o"]).arg(&program).arg(".").current_dir(module());
        run(&mut build, BUILD_WITHIN).success();
        program
    })
}

/// The Go module that holds the suite.
fn module() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("test/sanity")
}

fn write_secrets(path: &Path, connection_string: &str) {
    let text: String =
        CALLS.iter().map(|call| format!("{call}Secret:\n  connectionstring: \"{connection_string}\"\n")).collect();
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
}

/// Holds the suite's own report against the table.
fn judge(report: &[u8]) {
    let report: serde_json::Value = serde_json::from_slice(report).unwrap();
    let specs = report[0]["SpecReports"].as_array().unwrap();
    let mut passed = 0;
    let mut skipped = BTreeMap::new();
    for spec in specs.iter().filter(|spec| spec["LeafNodeType"] == "It") {
        let reason = match spec["State"].as_str().unwrap() {
            "passed" => {
                passed += 1;
                continue;
            }
            "skipped" => spec["Failure"]["Message"].as_str().unwrap(),
            state => state,
        };
        *skipped.entry(reason.to_owned()).or_insert(0) += 1;
    }
    assert_eq!(
        skipped,
        explained(),
        "what the suite skipped (left) is not what test/sanity/README.md explains (right)"
    );
    assert_eq!(passed, PASSED, "specs that hold");
}

/// The table of the README: what the suite says, and how often. Each row has a reason.
fn explained() -> BTreeMap<String, usize> {
    let text = fs::read_to_string(module().join("README.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [says, count, why] = cells[..] else { panic!("a row of test/sanity/README.md has three cells: {row}") };
        assert!(why.len() > 20, "no reason is given: {row}");
        (says.trim_matches('`').to_owned(), count.parse().unwrap_or_else(|error| panic!("{error}: {row}")))
    })
    .collect()
}
