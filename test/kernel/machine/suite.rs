//! Which tests run in the machine, and the verdict on them.

use std::{fmt, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::build::Programs;

/// Some tests of one test program.
pub(crate) struct Run {
    /// The name of its target in Cargo.toml.
    pub(crate) target: &'static str,
    /// Parts of names of the tests that run. One that no test has is a mistake, here and below.
    pub(crate) tests: &'static [&'static str],
    /// Parts of names of those that do not.
    pub(crate) skipped: &'static [&'static str],
}

/// The suite.
pub(crate) const RUNS: [Run; 3] = [
    Run { target: "kernel", tests: &["::"], skipped: &[] },
    Run {
        target: "azblob_csi",
        tests: &["fuse::"],
        skipped: &[
            // The kernel reads files by itself since Linux 6.9; only then is a copy looked through before that.
            "a_file_that_is_whole_on_disk_is_read_by_the_kernel_itself",
            "handles_of_one_file_are_all_of_one_kind",
            "a_damaged_copy_is_not_given_to_the_kernel",
        ],
    },
    Run {
        target: "mount",
        tests: &["data::", "ending::", "versions::", "overwrites::"],
        skipped: &[
            // These start programs that the machine has not: cp, dd, sh.
            "holes_are_found_by_lseek_and_sparse_copies_are_equal",
            "what_cannot_be_is_refused_with_the_errno_that_programs_know",
            "cp_of_a_gibibyte_moves_less_than_a_hundredth_of_it_through_the_client",
            "an_overwrite_whose_mount_is_killed_before_its_close_leaves_the_old_version",
        ],
    },
];

/// What the guest starts, one after the other: programs, each with its arguments.
#[derive(Serialize, Deserialize)]
pub(crate) struct Plan(pub(crate) Vec<Vec<String>>);

impl Plan {
    /// The suite; with `cases`, those of its tests alone whose names contain one of them.
    pub(crate) fn new(programs: &Programs, cases: &[String]) -> Result<Self> {
        let mut lines = Vec::new();
        for run in &RUNS {
            let found = programs.tests.iter().find(|(name, _)| name == run.target);
            let (_, path) = found.with_context(|| format!("cargo built no test {}", run.target))?;
            let mut names = run.names(path)?;
            names.retain(|name| cases.is_empty() || cases.iter().any(|case| name.contains(case)));
            if !names.is_empty() {
                let arguments = ["--test-threads=1".to_owned(), "--exact".to_owned()];
                lines.push([path.display().to_string()].into_iter().chain(arguments).chain(names).collect());
            }
        }
        ensure!(!lines.is_empty(), "no test of the suite has one of these in its name: {cases:?}");
        Ok(Self(lines))
    }
}

impl Run {
    /// The tests that run, as the program at `path` lists them: it is static, and starts here as well.
    fn names(&self, path: &Path) -> Result<Vec<String>> {
        let output = Command::new(path).args(["--list", "--format", "terse"]).output();
        let output = output.with_context(|| format!("cannot start {}", path.display()))?;
        let list = String::from_utf8(output.stdout).context("names of tests are not text")?;
        let all: Vec<&str> = list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
        for part in self.tests.iter().chain(self.skipped) {
            ensure!(all.iter().any(|name| name.contains(part)), "no test of {} has {part} in its name", self.target);
        }
        let has_one = |name: &str, parts: &[&str]| parts.iter().any(|part| name.contains(part));
        let wanted = all.into_iter().filter(|name| has_one(name, self.tests) && !has_one(name, self.skipped));
        Ok(wanted.map(str::to_owned).collect())
    }
}

/// How the suite ended. Its text is the machine's last line, like cargo's.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The release of the kernel.
    pub(crate) kernel: String,
    /// Tests.
    pub(crate) passed: u32,
    /// Tests, and programs that did not end as they should.
    pub(crate) failed: u32,
}

/// Before the release in a verdict, and behind it.
const KERNEL: &str = "Linux ";
const RESULT: &str = ": test result: ";

impl Verdict {
    /// Reads a verdict; `None` where the line is none.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (kernel, result) = line.strip_prefix(KERNEL)?.split_once(RESULT)?;
        let (passed, failed) = counts(result)?;
        Some(Self { kernel: kernel.to_owned(), passed, failed })
    }

    /// Whether something was tested and nothing failed.
    pub(crate) fn is_success(&self) -> bool {
        self.passed > 0 && self.failed == 0
    }

    /// Adds a test program that ended, from what it printed and whether it says to have succeeded.
    pub(crate) fn add(&mut self, printed: &str, success: bool) {
        let summary = printed.lines().filter_map(|line| line.strip_prefix("test result: ")).next_back();
        let (passed, failed) = summary.and_then(counts).unwrap_or((0, 1));
        let is_idle = passed + failed == 0;
        self.passed += passed;
        // A program that fails without a failed test has failed as well, and one that runs no test.
        self.failed += failed.max(u32::from(!success || is_idle));
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_success() { "ok" } else { "FAILED" };
        let Self { kernel, passed, failed } = self;
        write!(formatter, "{KERNEL}{kernel}{RESULT}{word}. {passed} passed; {failed} failed")
    }
}

/// Passed and failed, from "ok. 3 passed; 0 failed".
fn counts(summary: &str) -> Option<(u32, u32)> {
    let (_, counts) = summary.split_once(". ")?;
    let mut counts = counts.split("; ");
    let passed = counts.next()?.strip_suffix(" passed")?.parse().ok()?;
    let failed = counts.next()?.strip_suffix(" failed")?.parse().ok()?;
    Some((passed, failed))
}
