//! The sort of account that tests run on: flat, or in a second run of the same tests hierarchical.

use std::process::Command;

use blob_emulator::Settings;

/// Set in the environment of a run on hierarchical accounts.
const HIERARCHICAL: &str = "AZBLOB_TEST_HIERARCHICAL";

/// What an emulator starts with.
#[must_use]
pub fn account_settings() -> Settings {
    Settings { hierarchical: std::env::var_os(HIERARCHICAL).is_some(), ..Settings::default() }
}

/// Runs the tests of this binary whose names contain one of `filters`, and none of `skipped`, once more on hierarchical
/// accounts. Panics with their output when one fails.
pub fn run_hierarchical(filters: &[&str], skipped: &[&str]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(HIERARCHICAL, "1").args(filters);
    for name in skipped {
        command.args(["--skip", name]);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "on a hierarchical account:\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let passed = said.lines().filter(|line| line.ends_with("... ok")).count();
    assert!(passed > 0, "no test has one of these names: {filters:?}");
    println!("{passed} tests passed on a hierarchical account");
}
