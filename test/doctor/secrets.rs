//! Keys, SAS and connection strings that cannot be what they are called, or say themselves that they are of no use.

use azblob_csi::{credential::AccountKey, finding::Finding};
use tonic::Code;

use crate::clinic::{ACCOUNT, Case, Clinic};

const VERSION: &str = "2020-12-06";

/// A service SAS for the container (or a blob of it), signed by the rules of "Create a service SAS".
pub fn service_sas(clinic: &Clinic, permissions: &str, times: (&str, &str), more: (&str, &str)) -> String {
    let (start, expiry) = times;
    let (addresses, protocol) = more;
    let resource = format!("/blob/{ACCOUNT}/{}", clinic.world.container());
    let lines =
        [permissions, start, expiry, &resource, "", addresses, protocol, VERSION, "c", "", "", "", "", "", "", ""];
    let mut sas = format!("sv={VERSION}&sr=c&sp={permissions}&se={expiry}");
    for (name, value) in [("st", start), ("sip", addresses), ("spr", protocol)] {
        if !value.is_empty() {
            sas.push_str(&format!("&{name}={value}"));
        }
    }
    format!("{sas}&sig={}", signature(clinic, &lines.join("\n")))
}

/// The same without limits of time and place.
pub fn plain_sas(clinic: &Clinic, permissions: &str) -> String {
    service_sas(clinic, permissions, ("", "2099-01-01T00:00:00Z"), ("", ""))
}

/// An account SAS, signed by the rules of "Create an account SAS".
fn account_sas(clinic: &Clinic, services: &str, types: &str) -> String {
    let expiry = "2099-01-01T00:00:00Z";
    let text = [ACCOUNT, "rwdlac", services, types, "", expiry, "", "", VERSION, "", ""].join("\n");
    format!("sv={VERSION}&ss={services}&srt={types}&sp=rwdlac&se={expiry}&sig={}", signature(clinic, &text))
}

fn signature(clinic: &Clinic, text: &str) -> String {
    let key = AccountKey::parse("test", ACCOUNT, &clinic.world.emulator().key()).unwrap();
    url::form_urlencoded::byte_serialize(key.sign(text).as_bytes()).collect()
}

#[test]
fn each_mistake_in_a_secret_is_told_apart() {
    let clinic = Clinic::new();
    let key = |finding, says: &[&str], value: &str| Case::new(finding, says).with("AZURE_STORAGE_KEY", value);
    let sas = |finding, says: &[&str], value: &str| Case::new(finding, says).with("AZURE_STORAGE_SAS_TOKEN", value);
    let string =
        |finding, says: &[&str], value: &str| Case::new(finding, says).with("AZURE_STORAGE_CONNECTION_STRING", value);
    let old = service_sas(&clinic, "rl", ("", "2020-01-01T00:00:00Z"), ("", ""));
    let early = service_sas(&clinic, "rl", ("2098-01-01T00:00:00Z", "2099-01-01T00:00:00Z"), ("", ""));
    for case in [
        key(Finding::KeyNotBase64, &["base64", "Access keys"], "not a key!").stages(Code::InvalidArgument),
        key(Finding::KeyLength, &["6 bytes", "az storage account keys list"], "c2VjcmV0")
            .stages(Code::PermissionDenied),
        sas(Finding::SasUnsigned, &["sv=...&sp=..."], "sv=2021-01-01&sp=r").stages(Code::InvalidArgument),
        sas(Finding::SasExpired, &["2020-01-01", "make a new one"], &old).stages(Code::PermissionDenied),
        sas(Finding::SasNotYetValid, &["2098-01-01", "begins earlier"], &early).stages(Code::PermissionDenied),
        sas(Finding::SasOtherService, &["ss=q", "ss=b"], &account_sas(&clinic, "q", "sco"))
            .stages(Code::PermissionDenied),
        sas(Finding::SasResourceTypes, &["srt=s", "srt=co"], &account_sas(&clinic, "b", "s"))
            .stages(Code::PermissionDenied),
        sas(Finding::SasSingleBlob, &["sr=c"], "sv=2021-01-01&sr=b&sp=rl&se=2099-01-01&sig=AAAA")
            .stages(Code::PermissionDenied),
        sas(Finding::SasPermissions, &["sp=r)", "sp=rl"], &plain_sas(&clinic, "r")).stages(Code::PermissionDenied),
        string(Finding::ConnectionStringMalformed, &["semicolons"], "not a connection string")
            .stages(Code::InvalidArgument),
        string(Finding::ConnectionStringWithoutAccount, &["AccountName="], "EndpointSuffix=core.windows.net")
            .stages(Code::InvalidArgument),
        clinic
            .with_key(Case::new(Finding::AuthMode, &["kerberos", "workload_identity"]))
            .with("AZURE_STORAGE_AUTH_MODE", "kerberos"),
        Case::new(Finding::AuthMode, &["no such credential is set"]).with("AZURE_STORAGE_AUTH_MODE", "key"),
    ] {
        clinic.assert_found(&case);
    }
}

#[test]
fn a_key_needs_its_account() {
    let clinic = Clinic::new();
    let case = Case::new(Finding::KeyWithoutAccount, &["AZURE_STORAGE_ACCOUNT"]);
    let environment = [("AZURE_STORAGE_KEY", clinic.world.emulator().key())];
    clinic.found(&case, &clinic.examine(&["logs".to_owned()], &environment));
}

/// `echo key | base64`, and editors, add a newline: it is no mistake here.
#[test]
fn blanks_around_a_key_are_left_aside() {
    let clinic = Clinic::new();
    let environment = [("AZURE_STORAGE_KEY", format!(" {}\n", clinic.world.emulator().key()))];
    let examined = clinic.examine(&[clinic.world.url()], &environment);
    assert!(examined.healthy, "{:#}", examined.report);
}
