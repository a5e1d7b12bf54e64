//! Each mistake has a finding of its own, with its fix: by `azblob-csi doctor`, in the sentence of a mount that fails, and in
//! the gRPC error of a stage that fails.
//!
//! | file | mistakes |
//! |---|---|
//! | `clinic` | how a case is put to all three |
//! | `names`, `secrets` | what is wrong before any request |
//! | `ways` | the service is not reached |
//! | `refusals`, `probes` | the service refuses |
//! | `identities` | there is no token, or not the right one |
//! | `machine` | this machine lacks something |

// Helpers of tests fail the test by panicking, like the tests themselves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "doctor/clinic.rs"]
mod clinic;
#[path = "doctor/identities.rs"]
mod identities;
#[path = "doctor/lookups.rs"]
mod lookups;
#[path = "doctor/machine.rs"]
mod machine;
#[path = "doctor/names.rs"]
mod names;
#[path = "doctor/probes.rs"]
mod probes;
#[path = "doctor/refusals.rs"]
mod refusals;
#[path = "doctor/secrets.rs"]
mod secrets;
#[path = "doctor/ways.rs"]
mod ways;

use std::path::Path;

use azblob_csi::finding::TABLE;

/// The test code of the project: test files, and what stands behind `#[cfg(test)]`.
fn test_code() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = String::new();
    let mut directories = ["src", "test/doctor", "test/csi"].map(|room| root.join(room)).to_vec();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let whole = path.starts_with(root.join("test")) || path.ends_with("tests.rs");
            let tests = text.split_once("#[cfg(test)]").map(|(_, tests)| tests);
            all.push_str(if whole { &text } else { tests.unwrap_or_default() });
        }
    }
    all
}

#[test]
fn every_finding_names_a_test_that_provokes_it() {
    let code = test_code();
    for row in TABLE {
        let function = row.test.rsplit("::").next().unwrap();
        assert!(code.contains(&format!("fn {function}(")), "{}: there is no test {}", row.finding.name(), row.test);
        // Tables of cases name what they provoke; the others provoke one thing.
        let name = format!("Finding::{:?}", row.finding);
        let of_one = row.test.starts_with("secret") || row.test.contains("without_ca_certificates");
        assert!(of_one || code.contains(&name), "{name} is provoked by no test");
    }
}
