//! PersistentVolumes written by hand, under every sort of credential.

use crate::{
    cluster::{ISSUER, TENANT},
    sas,
    scenario::Scenario,
};
use blob_emulator::{Role, subject_of};

/// Long after any run.
const EXPIRY: &str = "2090-01-01T00:00:00Z";

/// Writes through one pod, and reads what another client has written.
fn writes_and_reads(scenario: &Scenario, pod: &str) {
    scenario.cluster.emulator.put(scenario.name, "from-elsewhere", "hello pod", &[]).unwrap();
    scenario.ready(&[pod]);
    assert_eq!(scenario.sh(pod, "cat /data/from-elsewhere && echo hello service >/data/from-pod"), "hello pod");
    assert_eq!(scenario.blob("from-pod").as_deref(), Some("hello service\n"));
}

#[test]
fn a_volume_with_the_account_key() {
    let scenario = Scenario::begin("account-key");
    scenario.volume("data", &[]);
    scenario.pod("user", "data");
    writes_and_reads(&scenario, "user");
}

#[test]
fn a_volume_with_a_sas() {
    let scenario = Scenario::begin("sas");
    let emulator = &scenario.cluster.emulator;
    let token = sas::container(emulator.account(), &emulator.key(), scenario.name, "racwdl", EXPIRY);
    let entries = [("azurestorageaccountname", emulator.account()), ("azurestorageaccountsastoken", &token)];
    scenario.secret("sas", &entries);
    scenario.volume("data", &[("secret", "{name: sas, namespace: sas}")]);
    scenario.pod("user", "data");
    writes_and_reads(&scenario, "user");
}

#[test]
fn a_volume_with_a_connection_string() {
    let scenario = Scenario::begin("connection-string");
    scenario.secret("connection", &[("connectionstring", &scenario.cluster.emulator.connection_string())]);
    scenario.volume("data", &[("secret", "{name: connection, namespace: connection-string}")]);
    scenario.pod("user", "data");
    writes_and_reads(&scenario, "user");
}

#[test]
fn a_volume_with_the_token_of_its_pods_service_account() {
    let scenario = Scenario::begin("workload-identity");
    let identity = &scenario.cluster.identity;
    let application = identity.tenant(TENANT).application("e2e-client");
    let application = application.federated(ISSUER, &subject_of(scenario.name, "member"));
    identity.grant_on(application.client_id(), Role::BlobDataContributor, scenario.name);
    scenario.kubectl(&["create", "serviceaccount", "member"]);
    let account = scenario.cluster.emulator.account();
    let attributes = format!(
        "{{containerName: {}, storageAccount: {account}, clientID: e2e-client, tenantID: {TENANT}}}",
        scenario.name
    );
    scenario.volume("data", &[("attributes", &attributes), ("secret", "null")]);
    scenario.pod_with("user", "data", &[("service-account", "member")]);
    writes_and_reads(&scenario, "user");
    // The token counts, not the volume: a pod of another service account gets nothing.
    scenario.pod("stranger", "data");
    scenario.until("the stranger's event", || {
        let said = scenario.kubectl(&["describe", "pod", "stranger"]);
        if said.contains("AADSTS700213") { Ok(()) } else { Err(said) }
    });
}
