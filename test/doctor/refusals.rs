//! The service answers, and refuses.

use std::time::Duration;

use azblob_csi::finding::Finding;
use blob_emulator::{FaultKind, FaultRule, Operation, Role};
use tonic::Code;

use crate::{
    clinic::{Case, Clinic, WRONG_KEY},
    identities::{PRINCIPAL, application},
    secrets::{plain_sas, service_sas},
};

/// Every listing is refused with this code; the doctor's unsigned question is not.
fn refuse(clinic: &Clinic, status: u16, code: &str) {
    let kind = FaultKind::Status { status, code: Some(code.to_owned()), retry_after: None };
    clinic.world.emulator().fault(FaultRule::new(kind).on(Operation::ListBlobs));
}

/// What is done to the service, and the case.
type Prepared = fn(&Clinic) -> Case;

const BY_KEY: [Prepared; 12] = [
    |_| {
        Case::new(Finding::KeyRefused, &["devstoreaccount1", "copy the current one", "az storage account keys list"])
            .with("AZURE_STORAGE_KEY", WRONG_KEY)
            .stages(Code::PermissionDenied)
    },
    |clinic| {
        let before = clinic.world.emulator().key();
        clinic.world.emulator().set_keys([WRONG_KEY.to_owned(), WRONG_KEY.to_owned()]);
        Case::new(Finding::KeyRefused, &["rotated"]).with("AZURE_STORAGE_KEY", before).stages(Code::PermissionDenied)
    },
    |clinic| {
        clinic.world.emulator().settings(|settings| settings.firewall = true);
        clinic
            .with_key(Case::new(
                Finding::Firewall,
                &["unsigned requests", "Networking", "network-rule add --account-name devstoreaccount1"],
            ))
            .stages(Code::PermissionDenied)
    },
    |clinic| {
        clinic.world.emulator().settings(|settings| settings.shared_key_access = false);
        let line = "az storage account update --name devstoreaccount1 --allow-shared-key-access true";
        clinic.with_key(Case::new(Finding::SharedKeyDisabled, &[line])).stages(Code::PermissionDenied)
    },
    |clinic| {
        refuse(clinic, 403, "AccountIsDisabled");
        clinic.with_key(Case::new(Finding::AccountDisabled, &["subscription"])).stages(Code::PermissionDenied)
    },
    |clinic| {
        let line = "az storage container create --name missing --account-name devstoreaccount1";
        let case = Case::new(Finding::ContainerMissing, &[line, "--create-container"]).container("missing");
        clinic.with_key(case).stages(Code::NotFound)
    },
    |clinic| {
        refuse(clinic, 409, "ContainerBeingDeleted");
        clinic.with_key(Case::new(Finding::ContainerBeingDeleted, &["try again later"])).stages(Code::NotFound)
    },
    |clinic| {
        refuse(clinic, 503, "ServerBusy");
        clinic.with_key(Case::new(Finding::Throttled, &["tried again"])).stages(Code::Unavailable)
    },
    |clinic| {
        refuse(clinic, 400, "AccountRequiresHttps");
        clinic.with_key(Case::new(Finding::HttpsRequired, &["https endpoint"])).stages(Code::InvalidArgument)
    },
    |clinic| {
        refuse(clinic, 400, "InvalidHeaderValue");
        clinic.with_key(Case::new(Finding::ServiceTooOld, &["--skipApiVersionCheck"])).stages(Code::InvalidArgument)
    },
    |clinic| {
        clinic.world.emulator().settings(|settings| settings.clock_ahead = Duration::from_secs(3600));
        clinic.with_key(Case::new(Finding::ClockSkew, &["NTP"])).stages(Code::PermissionDenied)
    },
    |clinic| {
        clinic.world.emulator().settings(|settings| settings.public_access = false);
        Case::new(Finding::NotPublic, &["no credential was given"]).stages(Code::PermissionDenied)
    },
];

const BY_OTHERS: [Prepared; 6] = [
    |_| Case::new(Finding::NotPublic, &["reference a Secret"]).stages(Code::PermissionDenied),
    |clinic| {
        let sas = plain_sas(clinic, "rl").replace("sp=rl", "sp=rwl");
        Case::new(Finding::SasRefused, &["permissions rwl", "copy it whole"])
            .with("AZURE_STORAGE_SAS_TOKEN", sas)
            .stages(Code::PermissionDenied)
    },
    |clinic| {
        let sas = service_sas(clinic, "rl", ("", "2099-01-01T00:00:00Z"), ("10.9.8.7", ""));
        Case::new(Finding::SasAddress, &["sip"]).with("AZURE_STORAGE_SAS_TOKEN", sas).stages(Code::PermissionDenied)
    },
    |clinic| {
        let sas = service_sas(clinic, "rl", ("", "2099-01-01T00:00:00Z"), ("", "https"));
        Case::new(Finding::SasProtocol, &["spr"]).with("AZURE_STORAGE_SAS_TOKEN", sas).stages(Code::PermissionDenied)
    },
    |clinic| {
        let _ = application(clinic);
        let says = [
            "--assignee 22222222-2222-2222-2222-222222222222",
            "storageAccounts/devstoreaccount1/blobServices/default/containers/data",
            "Storage Blob Data Contributor",
        ];
        let case = Case::new(Finding::RoleMissing, &says).with_all(&PRINCIPAL).option("auth=spn");
        clinic.over_tls(case).stages(Code::PermissionDenied)
    },
    |clinic| {
        let principal = application(clinic);
        clinic.services.grant(&principal, Role::BlobDataContributor);
        clinic.services.storage_tenant("99999999-9999-9999-9999-999999999999");
        let case = Case::new(Finding::TokenOtherTenant, &["tenant and cloud", "trusts tenant 99999999-"])
            .with_all(&PRINCIPAL)
            .option("auth=spn");
        clinic.over_tls(case).stages(Code::PermissionDenied)
    },
];

#[test]
fn each_refusal_of_the_service_is_told_apart() {
    for prepare in BY_KEY.iter().chain(&BY_OTHERS) {
        let clinic = Clinic::new();
        let case = prepare(&clinic);
        clinic.assert_found(&case);
    }
}

#[test]
fn a_container_that_the_mount_makes_is_no_mistake() {
    let clinic = Clinic::new();
    let arguments = ["--create-container".to_owned(), format!("{}/missing", clinic.http())];
    let examined = clinic.examine(&arguments, &[("AZURE_STORAGE_KEY", clinic.world.emulator().key())]);
    assert!(examined.healthy, "{:#}", examined.report);
    assert_eq!(clinic.world.emulator().containers(), [clinic.world.container()], "the doctor makes nothing");
}

#[test]
fn a_healthy_volume_is_said_to_be_one_with_what_was_seen() {
    let clinic = Clinic::new();
    let principal = application(&clinic);
    clinic.services.grant(&principal, Role::BlobDataReader);
    let case = clinic.over_tls(Case::new(Finding::Denied, &[]).with_all(&PRINCIPAL));
    let examined = clinic.examine(&[format!("{}/data", clinic.https())], case.environment());
    assert!(examined.healthy, "{:#}", examined.report);
    for check in ["dns", "tcp", "tls", "http", "clock", "account", "firewall", "role", "container", "list", "read"] {
        assert_eq!(examined.check(check)["result"], "ok", "{check}: {:#}", examined.report);
    }
    for check in ["shared-key", "key", "public-access", "managed-identity", "write", "cors", "cache-directory"] {
        assert_eq!(examined.check(check)["result"], "skipped", "{check}: {:#}", examined.report);
    }
    // For people the same, in lines.
    let url = format!("{}/data", clinic.https());
    let mut command = clinic.world.command_as(&["doctor", &url], case.environment());
    let text = clinic.world.run(&mut command, Duration::from_secs(60)).success();
    assert!(text.contains("nothing keeps this from being mounted"), "{text}");
}
