//! kubectl and its like as programs with deadlines, and the text of manifests. Must not know what is tested.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use harness::{Finished, run};
use serde_json::Value;

/// No single command takes longer, on a machine that compiles beside it.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);
/// What somebody waits for in a cluster comes within this, or not at all.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks at the cluster: each costs a process.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs a program to its end.
pub fn program(name: &str, arguments: &[&str]) -> Finished {
    run(Command::new(name).args(arguments), COMMAND_LIMIT)
}

/// Runs kubectl, which has to succeed.
#[track_caller]
pub fn kubectl(arguments: &[&str]) -> String {
    let finished = program("kubectl", arguments);
    assert!(finished.status.success(), "kubectl {}: {}{}", arguments.join(" "), finished.stdout, finished.stderr);
    finished.stdout
}

/// An object, or a list of objects, as the API server has it; `Null` if it is not there.
pub fn get(arguments: &[&str]) -> Value {
    let finished = program("kubectl", &[&["get", "-o", "json"], arguments].concat());
    serde_json::from_str(&finished.stdout).unwrap_or_default()
}

/// Hands a manifest to kubectl apply.
#[track_caller]
pub fn apply(text: &str) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let finished = program("kubectl", &["apply", "-f", file.path().to_str().unwrap()]);
    assert!(finished.status.success(), "{}{}\n{text}", finished.stdout, finished.stderr);
}

/// A file of manifests/ with values in place of its `{{names}}`.
pub fn manifest(file: &str, values: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("test/e2e/manifests").join(file);
    let mut text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    assert!(!text.contains("{{"), "{file} wants values that nobody gives: {text}");
    text
}

/// Waits until something is so. The last look is what the failure shows.
#[track_caller]
pub fn until(what: &str, limit: Duration, mut look: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + limit;
    loop {
        match look() {
            Ok(()) => return,
            Err(seen) => assert!(Instant::now() < end, "waited {limit:?} in vain for {what}; last: {seen}"),
        }
        thread::sleep(LOOK_EVERY);
    }
}
