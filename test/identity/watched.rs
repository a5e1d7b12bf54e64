//! The Secret that a volume was staged with is read again at the API server when it is refused, and what is about to end, or goes
//! wrong, is said as an event.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use azblob_csi::csi::proto::v1::{NodePublishVolumeRequest, NodeStageVolumeRequest};
use blob_emulator::{FaultKind, FaultRule, KubernetesApi, Operation};
use harness::assert_no_secret;
use serde_json::{Value, json};

use crate::{
    Realm,
    node::{Node, capability},
    rotation::container_sas,
};

const HANDLE: &str = "group#account#data";
const DRIVER: &str = "blob.csi.azure.com";
/// What the driver does by itself is done within this time.
const DONE_WITHIN: Duration = Duration::from_secs(60);

/// A cluster with a few volumes; that of these tests is on the second page.
fn cluster() -> KubernetesApi {
    let api = KubernetesApi::start().unwrap();
    for (number, handle) in ["other1", "other2", "other3", HANDLE].into_iter().enumerate() {
        api.add_volume(json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": { "name": format!("pv{number}"), "uid": format!("uid-of-pv{number}") },
            "spec": {
                "csi": {
                    "driver": DRIVER, "volumeHandle": handle,
                    "nodeStageSecretRef": { "name": "account", "namespace": "apps" },
                },
                "claimRef": {
                    "kind": "PersistentVolumeClaim", "namespace": "apps", "name": format!("claim{number}"),
                    "uid": format!("uid-of-claim{number}"),
                },
            },
        }));
    }
    api
}

impl Realm {
    fn node<'a>(&'a self, api: &KubernetesApi) -> Node<'a> {
        let port = api.port().to_string();
        let environment = [("KUBERNETES_SERVICE_HOST", api.host()), ("KUBERNETES_SERVICE_PORT", port.as_str())];
        Node::start_with(self, &environment, &["--service-account-dir", api.service_account().to_str().unwrap()])
    }
}

impl Node<'_> {
    /// Stages and publishes the volume, with these secrets.
    fn serve(&mut self, secrets: &[(&str, &str)]) {
        self.serve_with(secrets, &[]);
    }

    /// The same with more attributes.
    fn serve_with(&mut self, secrets: &[(&str, &str)], more: &[(&str, &str)]) {
        let emulator = self.realm.world.emulator();
        let context: std::collections::BTreeMap<String, String> = [
            ("storageAccount", emulator.account().to_owned()),
            ("containerName", self.realm.world.container().to_owned()),
            ("server", emulator.endpoint()),
            ("mountOptions", "metadata-ttl=0".to_owned()),
        ]
        .into_iter()
        .chain(more.iter().map(|(name, value)| (*name, (*value).to_owned())))
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        let staging = self.directory.join("staging").display().to_string();
        let stage = NodeStageVolumeRequest {
            volume_id: HANDLE.to_owned(),
            staging_target_path: staging.clone(),
            volume_capability: Some(capability()),
            secrets: secrets.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            volume_context: context.clone(),
            ..NodeStageVolumeRequest::default()
        };
        self.runtime.block_on(self.client.node_stage_volume(stage)).unwrap();
        let target = self.target("pod");
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        self.publish(NodePublishVolumeRequest {
            volume_id: HANDLE.to_owned(),
            staging_target_path: staging,
            target_path: target.display().to_string(),
            volume_capability: Some(capability()),
            volume_context: context,
            ..NodePublishVolumeRequest::default()
        })
        .unwrap();
    }
}

fn write_synced(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(b"x")?;
    file.sync_all()
}

#[test]
fn the_secret_that_a_volume_was_staged_with_is_read_again_when_it_is_refused() {
    let (realm, api) = (Realm::new(), cluster());
    let emulator = realm.world.emulator();
    let account = ("azurestorageaccountname", emulator.account());
    let mut node = realm.node(&api);
    let first = emulator.key();
    api.put_secret("apps", "account", &[account, ("azurestorageaccountkey", &first)]);
    node.serve(&[account, ("azurestorageaccountkey", &first)]);
    write_synced(&node.target("pod").join("before")).unwrap();
    assert_eq!(api.requests(), [""; 0], "nothing is asked while the credential works");
    let mut keys = vec![first];
    for round in 0..3 {
        let key = emulator.rotate_key();
        api.put_secret("apps", "account", &[account, ("azurestorageaccountkey", &key)]);
        write_synced(&node.target("pod").join(format!("after{round}"))).unwrap();
        keys.push(key);
    }
    let volumes = api.requests().iter().filter(|asked| asked.ends_with("/persistentvolumes")).count();
    let secrets = api.requests().iter().filter(|asked| *asked == "GET /api/v1/namespaces/apps/secrets/account").count();
    assert_eq!((volumes, secrets), (2, 3), "{:?}", api.requests());
    let log = node.log();
    for key in &keys {
        assert_no_secret(&log, key);
    }
}

#[test]
fn without_rights_at_the_api_server_a_refusal_stays_one_and_that_is_said_once() {
    let (realm, api) = (Realm::new(), cluster());
    let emulator = realm.world.emulator();
    let mut node = realm.node(&api);
    node.serve(&[("azurestorageaccountname", emulator.account()), ("azurestorageaccountkey", &emulator.key())]);
    api.forbid();
    let _ = emulator.rotate_key();
    let end = Instant::now() + DONE_WITHIN;
    // The source is asked again after a pause.
    while api.requests().len() < 3 {
        let refused = write_synced(&node.target("pod").join("new")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!(Instant::now() < end, "{:?}", api.requests());
        thread::sleep(Duration::from_millis(50));
    }
    let said = node.log().matches("the API server refuses to list PersistentVolumes").count();
    assert_eq!(said, 1);
}

#[test]
fn a_sas_that_ends_within_an_hour_is_an_event_of_its_claim() {
    let (realm, api) = (Realm::new(), cluster());
    let emulator = realm.world.emulator();
    let end = time::OffsetDateTime::now_utc().replace_nanosecond(0).unwrap() + time::Duration::minutes(30);
    let end = end.format(&time::format_description::well_known::Rfc3339).unwrap();
    let sas = container_sas(&realm.world, &emulator.key(), "racwdl", &end);
    let mut node = realm.node(&api);
    node.serve(&[("azurestorageaccountname", emulator.account()), ("azurestorageaccountsastoken", &sas)]);
    let deadline = Instant::now() + DONE_WITHIN;
    while api.events().is_empty() {
        assert!(Instant::now() < deadline, "no event was written: {:?}", api.requests());
        thread::sleep(Duration::from_millis(20));
    }
    let events = api.events();
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!(event["reason"], "SasEnds");
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["involvedObject"]["kind"], "PersistentVolumeClaim");
    assert_eq!(event["involvedObject"]["uid"], "uid-of-claim3");
    assert_eq!(event["source"]["component"], DRIVER);
    let message = event["message"].as_str().unwrap();
    assert!(message.contains(&end) && message.contains("an hour"), "{message}");
    for text in [event.to_string(), node.log()] {
        assert_no_secret(&text, &emulator.key());
    }
}

/// Waits until there are two events with this reason: one of the claim, and one of the pod.
#[track_caller]
fn wait_for_both(api: &KubernetesApi, reason: &str) -> [Value; 2] {
    let deadline = Instant::now() + DONE_WITHIN;
    loop {
        let found: Vec<Value> = api.events().into_iter().filter(|event| event["reason"] == reason).collect();
        match <[Value; 2]>::try_from(found) {
            Ok(both) => return both,
            Err(found) => assert!(found.len() < 2, "{reason} was said too often: {found:?}"),
        }
        assert!(Instant::now() < deadline, "no {reason}: {:?}", api.events());
        thread::sleep(Duration::from_millis(50));
    }
}

/// The node looks at its volumes every few seconds. All that went wrong before goes wrong again before each look, and is news no more.
#[test]
fn what_goes_wrong_is_one_event_of_claim_and_pod_however_often_it_happens() {
    let (realm, api) = (Realm::new(), cluster());
    let (emulator, container) = (realm.world.emulator(), realm.world.container());
    let size = [("hdi_isfolder", "true"), ("azblobcsicapacity", "100000")];
    emulator.put(container, "shop", "", &size).unwrap();
    let mut node = realm.node(&api);
    let pod = ["name", "namespace", "uid"].map(|what| format!("csi.storage.k8s.io/pod.{what}"));
    node.serve_with(
        &[("azurestorageaccountname", emulator.account()), ("azurestorageaccountkey", &emulator.key())],
        &[("subDir", "shop"), ("quota", "hard"), (&pod[0], "web-0"), (&pod[1], "apps"), (&pod[2], "uid-of-web-0")],
    );
    let volume = node.target("pod");
    let status =
        |status, code: Option<&str>| FaultKind::Status { status, code: code.map(str::to_owned), retry_after: None };
    emulator.fault(FaultRule::new(status(400, Some("InvalidInput"))).on(Operation::PutBlob).blob("*refused*"));

    let throttled = || {
        emulator.fault(FaultRule::new(status(503, None)).on(Operation::PutBlob).blob("*busy*").times(1));
        write_synced(&volume.join("busy")).unwrap();
    };
    let conflict = || {
        let path = volume.join("shared");
        write_synced(&path).unwrap();
        let mut file = File::options().write(true).open(&path).unwrap();
        file.write_all(b"ours").unwrap();
        emulator.put(container, "shop/shared", "another client's", &[]).unwrap();
        assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(libc::ESTALE));
    };
    let full = || {
        let error = fs::write(volume.join("large"), vec![1; 200_000]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EDQUOT));
        fs::remove_file(volume.join("large")).unwrap();
    };
    let not_saved = || assert_eq!(write_synced(&volume.join("refused")).unwrap_err().raw_os_error(), Some(libc::EIO));
    let news: [(&str, &str, &dyn Fn()); 4] = [
        ("Throttled", "at its limit", &throttled),
        ("Conflict", "1 commits were refused, since another client had changed the blob", &conflict),
        ("QuotaReached", "the volume of 100000 bytes is full", &full),
        ("NotSaved", "is kept on the node", &not_saved),
    ];
    for (at, (reason, note, _)) in news.iter().enumerate() {
        news[..=at].iter().for_each(|(.., happen)| happen());
        for event in wait_for_both(&api, reason) {
            assert!(event["message"].as_str().unwrap().contains(note), "{event}");
            assert_eq!((&event["type"], &event["source"]["host"]), (&json!("Warning"), &json!("n1")));
            assert_eq!(event["metadata"]["namespace"], "apps");
        }
    }
    let events = api.events();
    assert_eq!(events.len(), 2 * news.len(), "{events:?}");
    for (reason, ..) in news {
        let of = events.iter().filter(|event| event["reason"] == reason);
        let uids: Vec<_> =
            of.map(|event| (&event["involvedObject"]["kind"], &event["involvedObject"]["uid"])).collect();
        let claim = (&json!("PersistentVolumeClaim"), &json!("uid-of-claim3"));
        assert_eq!(uids, [claim, (&json!("Pod"), &json!("uid-of-web-0"))], "{reason}");
    }
}

#[test]
fn what_ends_is_in_the_metrics_and_nothing_secret_is() {
    let realm = Realm::new();
    let emulator = realm.world.emulator();
    let mut node = Node::start_with(&realm, &[], &["--metrics-address", "127.0.0.1:0"]);
    let sas = container_sas(&realm.world, &emulator.key(), "rl", "2099-01-01T00:00:00Z");
    node.serve(&[("azurestorageaccountname", emulator.account()), ("azurestorageaccountsastoken", &sas)]);
    let log = node.log();
    let (_, rest) = log.split_once("serving metrics at /metrics address=").unwrap();
    let mut stream = std::net::TcpStream::connect(rest.lines().next().unwrap().trim()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n").unwrap();
    let page = io::read_to_string(stream).unwrap();
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("azblob_csi_volumes 1\n"), "{page}");
    let line = format!("azblob_csi_credential_expiry_timestamp_seconds{{volume=\"{HANDLE}\"}} 4070908800\n");
    assert!(page.contains(&line), "{page}");
    assert!(!page.contains("sig") && !page.contains(&emulator.key()), "{page}");
}

#[test]
fn a_secret_that_a_volume_names_or_that_is_called_after_its_account_is_read_by_the_driver() {
    let realm = Realm::new();
    let api = KubernetesApi::start().unwrap();
    let mut node = realm.node(&api);
    let emulator = realm.world.emulator();
    let (account, server) = (emulator.account(), emulator.endpoint());
    let own = [("storageAccount", account), ("containerName", realm.world.container()), ("server", &*server)];
    let with =
        |more: &[(&'static str, &'static str)]| own.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>();
    let secret = format!("azure-storage-account-{account}-secret");
    let put = |key: &str| {
        api.put_secret("apps", "named", &[("azurestorageaccountkey", key)]);
        api.put_secret("default", &secret, &[("azurestorageaccountname", account), ("azurestorageaccountkey", key)]);
    };
    let first = emulator.key();
    put(&first);
    let named = with(&[("secretName", "named"), ("secretNamespace", "apps")]);
    node.stage("named", &named, &[]).unwrap();
    node.stage("usual", &with(&[]), &[]).unwrap();

    let second = emulator.rotate_key();
    put(&second);
    for volume in ["named", "usual"] {
        std::fs::write(node.staging(volume).join(volume), "with the new key").unwrap();
    }

    let missing =
        node.stage("missing", &with(&[("secretName", "gone"), ("secretNamespace", "apps")]), &[]).unwrap_err();
    assert_eq!(missing.code(), tonic::Code::Unauthenticated, "{missing}");
    assert!(missing.message().contains("Secret apps/gone"), "{missing}");
    let inline = |namespace| {
        let pod = [("csi.storage.k8s.io/ephemeral", "true"), ("csi.storage.k8s.io/pod.namespace", namespace)];
        with(&[pod[0], pod[1], ("secretName", "named")])
    };
    let refused = node.stage("inline", &inline("other"), &[]).unwrap_err();
    assert!(refused.message().contains("Secret other/named"), "a pod gets Secrets of its namespace alone: {refused}");
    node.stage("inline", &inline("apps"), &[]).unwrap();
    for key in [first, second] {
        assert_no_secret(&node.log(), &key);
    }
}
