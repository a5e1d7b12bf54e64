//! The key is looked up for the volume, and is not found. That happens to stages alone: a command line brings its credential along.

use azblob_csi::finding::Finding;
use blob_emulator::{Cloud, IdentityFault, IdentityFaultKind, IdentityService, Role};
use serde_json::json;
use tonic::Code;

use crate::{
    clinic::{ACCOUNT, Case, Clinic},
    identities::{CLIENT, TENANT, application},
};

/// The cloud config of a cluster whose identity is the application, with these keys in place of its own.
fn cloud_config(clinic: &Clinic, other: &serde_json::Value) -> String {
    let mut config = json!({
        "tenantId": TENANT, "subscriptionId": "s-1", "resourceGroup": "group",
        "aadClientId": CLIENT, "aadClientSecret": crate::identities::SECRET,
    });
    for (key, value) in other.as_object().unwrap() {
        config[key] = value.clone();
    }
    let file = clinic.world.path("azure.json");
    std::fs::write(&file, config.to_string()).unwrap();
    file.display().to_string()
}

#[test]
fn each_mistake_of_a_lookup_is_told_apart() {
    let clinic = Clinic::new();
    let object = application(&clinic);
    let config = cloud_config(&clinic, &json!({}));
    let case = |finding, says: &[&str], code| {
        clinic.over_tls(Case::new(finding, says)).with("AZURE_CREDENTIAL_FILE", config.clone()).looks_up().stages(code)
    };
    let vault = clinic.services.vault("acme");
    let url = vault.url(Cloud::Public);
    let in_vault = |case: Case, name: &str| case.attribute("keyVaultURL", &url).attribute("keyVaultSecretName", name);
    let (denied, invalid) = (Code::PermissionDenied, Code::InvalidArgument);

    // Nobody has a role yet.
    let assignment = "az role assignment create";
    clinic.assert_stage_finds(&case(
        Finding::KeysForbidden,
        &[CLIENT, ACCOUNT, assignment, "resourceGroups/group"],
        denied,
    ));
    let forbidden = case(Finding::VaultForbidden, &[CLIENT, "acme", "Key Vault Secrets User"], denied);
    clinic.assert_stage_finds(&in_vault(forbidden, "key"));

    clinic.services.grant(&object, Role::AccountKeyOperator);
    clinic.services.grant(&object, Role::KeyVaultSecretsUser);
    let elsewhere =
        case(Finding::AccountNotInGroup, &["nobodys", "other-group", "s-1", "az storage account show"], denied);
    clinic.assert_stage_finds(
        &elsewhere.attribute("storageAccount", "nobodys").attribute("resourceGroup", "other-group"),
    );
    let _ = vault.secret("text", "neither key nor SAS");
    let _ = vault.secret("off", "a2V5");
    vault.disable("off");
    clinic.assert_stage_finds(&in_vault(case(Finding::VaultSecretMissing, &["acme", "none", "set"], denied), "none"));
    clinic.assert_stage_finds(&in_vault(case(Finding::VaultSecretDisabled, &["off", "--enabled true"], denied), "off"));
    clinic.assert_stage_finds(&in_vault(case(Finding::VaultSecretUnfit, &["text", "sv="], denied), "text"));
    for bad in ["https://acme.example.com", "http://acme.vault.azure.net", "https://acme.vault.azure.net/secrets/key"] {
        let malformed = case(Finding::VaultUrlMalformed, &[bad, "https://VAULT.vault.azure.net"], invalid);
        clinic.assert_stage_finds(&malformed.attribute("keyVaultURL", bad).attribute("keyVaultSecretName", "key"));
    }

    let status = IdentityFaultKind::Status { status: 403, retry_after: None };
    clinic.services.fault(IdentityFault::new(IdentityService::KeyVault, status).times(1));
    // Without words it is the role that is looked at first.
    clinic.assert_stage_finds(&in_vault(case(Finding::VaultForbidden, &["acme"], denied), "key"));
    let status = IdentityFaultKind::Status { status: 500, retry_after: None };
    clinic.services.fault(IdentityFault::new(IdentityService::Arm, status));
    clinic.assert_stage_finds(&case(Finding::LookupRefused, &["the resource manager", "HTTP 500"], Code::Unavailable));
    clinic.services.clear_faults();

    let with = |finding, says: &[&str], config: String, code| {
        clinic.over_tls(Case::new(finding, says)).with("AZURE_CREDENTIAL_FILE", config).looks_up().stages(code)
    };
    let unplaced = cloud_config(&clinic, &json!({ "subscriptionId": null }));
    clinic.assert_stage_finds(&with(Finding::AccountUnplaced, &["subscription", "subscriptionID"], unplaced, invalid));
    let nobody = cloud_config(&clinic, &json!({ "aadClientSecret": null }));
    let nobody =
        with(Finding::ClusterIdentityMissing, &["secret key", "--cloud-config"], nobody, Code::Unauthenticated);
    clinic.assert_stage_finds(&in_vault(nobody, "key"));
    let broken = clinic.world.path("broken.json");
    std::fs::write(&broken, "{").unwrap();
    let broken = broken.display().to_string();
    clinic.assert_stage_finds(&with(Finding::CloudConfigUnfit, &["broken.json", "JSON"], broken, invalid));
}
