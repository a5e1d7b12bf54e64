//! Permissions one by one, and the rules for browsers.

use azblob_csi::finding::Finding;

use crate::{
    clinic::{Case, Clinic},
    secrets::plain_sas,
};

#[test]
fn each_permission_is_probed_by_itself() {
    for (permissions, write, finding, words) in [
        ("l", false, Finding::ReadDenied, "needs r in sp"),
        ("rl", true, Finding::WriteDenied, "-o ro"),
        ("rlcw", true, Finding::DeleteDenied, "the probe"),
    ] {
        let clinic = Clinic::new();
        let mut arguments = vec![clinic.world.url()];
        arguments.extend(write.then(|| "--write".to_owned()));
        let examined = clinic.examine(&arguments, &[("AZURE_STORAGE_SAS_TOKEN", plain_sas(&clinic, permissions))]);
        clinic.found(&Case::new(finding, &[words]), &examined);
    }
}

#[test]
fn a_probe_leaves_nothing_behind_and_is_only_written_when_asked_for() {
    let clinic = Clinic::new();
    let environment = [("AZURE_STORAGE_KEY", clinic.world.emulator().key())];
    let examined = clinic.examine(&[clinic.world.url()], &environment);
    assert!(examined.healthy && examined.check("write")["result"] == "skipped", "{:#}", examined.report);
    assert_eq!(clinic.world.emulator().counters().writes(), 0);
    let examined = clinic.examine(&["--write".to_owned(), clinic.world.url()], &environment);
    for check in ["read", "write", "delete"] {
        assert_eq!(examined.check(check)["result"], "ok", "{:#}", examined.report);
    }
    assert!(clinic.world.emulator().names(clinic.world.container()).is_empty());
}

#[test]
fn the_rules_for_an_origin_are_shown() {
    let clinic = Clinic::new();
    let arguments = ["--origin=https://app.example.com".to_owned(), clinic.world.url()];
    let key = [("AZURE_STORAGE_KEY", clinic.world.emulator().key())];
    let sas = [("AZURE_STORAGE_SAS_TOKEN", plain_sas(&clinic, "rl"))];
    for (environment, finding, words) in [
        (
            key,
            Finding::CorsMissing,
            "az storage cors add --services b --methods GET HEAD OPTIONS --origins https://app.example.com",
        ),
        (sas, Finding::CorsUnknown, "az storage cors list"),
    ] {
        let examined = clinic.examine(&arguments, &environment);
        assert!(examined.healthy, "advice: {:#}", examined.report);
        let advice = examined.check("cors");
        assert_eq!(advice["result"], "advice");
        assert_eq!(advice["finding"], finding.name());
        assert!(advice["fix"].as_str().unwrap().contains(words), "{advice}");
    }
}
