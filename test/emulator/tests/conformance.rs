//! Runs the one list of requests and expected answers against the emulator and against Azurite.

use blob_emulator::{
    DEVELOPMENT_ACCOUNT, DEVELOPMENT_KEY, Emulator, Settings,
    conformance::{Report, Target, cases, hierarchical_cases, run},
};
use harness::Azurite;

fn judge(report: &Report, server: &str) {
    for (name, reason) in &report.known {
        println!("{server} differs: {name}: {reason}");
    }
    for (name, why) in &report.failed {
        println!("{server} FAILED: {name}\n    {why}");
    }
    println!(
        "{server}: {} held, {} known to differ, {} failed",
        report.held.len(),
        report.known.len(),
        report.failed.len()
    );
    assert!(report.failed.is_empty(), "{} cases failed on {server}; see above", report.failed.len());
}

#[test]
fn the_emulator_answers_every_case_as_expected() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    let report = run(&Target {
        address: emulator.address(),
        account: emulator.account().to_owned(),
        key: emulator.key(),
        azurite: false,
        hierarchical: false,
    });
    judge(&report, "emulator");
    assert!(report.held.len() >= 80 && report.held.len() == cases().len());
    assert!(emulator.containers().is_empty(), "every case deletes its container");
}

#[test]
fn the_emulator_answers_every_case_of_a_hierarchical_account_as_expected() {
    let emulator = Emulator::start(Settings { hierarchical: true, ..Settings::default() }).unwrap();
    let report = run(&Target {
        address: emulator.address(),
        account: emulator.account().to_owned(),
        key: emulator.key(),
        azurite: false,
        hierarchical: true,
    });
    judge(&report, "hierarchical emulator");
    assert!(report.held.len() >= 35 && report.held.len() == hierarchical_cases().len());
}

#[test]
fn azurite_answers_as_expected_but_for_the_marked_cases() {
    let azurite = Azurite::start();
    let report = run(&Target {
        address: azurite.address(),
        account: DEVELOPMENT_ACCOUNT.to_owned(),
        key: DEVELOPMENT_KEY.to_owned(),
        azurite: true,
        hierarchical: false,
    });
    judge(&report, "Azurite");
}
