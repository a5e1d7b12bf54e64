//! How a case is put to the doctor, to a mount and to a stage, and what all three must say. Knows no case.

use std::{
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use azblob_csi::{
    csi::proto::v1::{
        NodeStageVolumeRequest, VolumeCapability,
        node_client::NodeClient,
        volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode},
    },
    finding::Finding,
};
use blob_emulator::{Cloud, IdentityServices};
use harness::World;
use serde_json::Value;
use tonic::{Code, transport::Endpoint};

/// A key of the right form and length that opens nothing.
pub const WRONG_KEY: &str = "d3Jvbmcga2V5IG9mIHRoZSByaWdodCBmb3JtISB3cm9uZyBrZXkgb2YgdGhlIHJpZ2h0IGZvcm0hIHdyb25nIA==";

/// No examination of the tests takes longer: the slowest waits for a service that never answers.
const EXAMINED_WITHIN: Duration = Duration::from_secs(90);

/// No node plugin takes longer to start, or to refuse.
const STAGED_WITHIN: Duration = Duration::from_secs(60);

/// The account of the emulator.
pub const ACCOUNT: &str = "devstoreaccount1";

/// A service with one container, behind http and behind Azure's names.
pub struct Clinic {
    pub world: World,
    pub services: IdentityServices,
}

/// A mistake: what is given to the commands, and what they must find.
pub struct Case {
    finding: Finding,
    says: Vec<String>,
    endpoint: Option<String>,
    container: String,
    flags: Vec<String>,
    options: Vec<String>,
    environment: Vec<(&'static str, String)>,
    code: Option<Code>,
    /// Attributes of the volume of a stage.
    attributes: Vec<(&'static str, String)>,
    /// A stage looks its credential up.
    looks_up: bool,
    /// A mount says it in other words, since it only knows how its request ended.
    only_doctor: bool,
}

impl Case {
    /// A case that must be found as `finding`, with these words in its sentence or fix.
    pub fn new(finding: Finding, says: &[&str]) -> Self {
        Self {
            finding,
            says: says.iter().map(|words| (*words).to_owned()).collect(),
            endpoint: None,
            container: "data".to_owned(),
            flags: Vec::new(),
            options: Vec::new(),
            environment: Vec::new(),
            code: None,
            attributes: Vec::new(),
            looks_up: false,
            only_doctor: false,
        }
    }

    /// Variables of the environment; the keys, SAS and connection strings of them are a stage's secrets.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value.into()));
        self
    }

    pub fn with_all(mut self, more: &[(&'static str, &str)]) -> Self {
        for (name, value) in more {
            self = self.with(name, *value);
        }
        self
    }

    /// Another service than the emulator over http: `https://HOST`, `http://HOST:PORT/ACCOUNT`.
    pub fn at(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }

    pub fn container(mut self, name: &str) -> Self {
        name.clone_into(&mut self.container);
        self
    }

    /// Mount options; `auth=` is a stage's AzureStorageAuthType.
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// A flag of mount and doctor. Stages do not take it.
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// It can happen to a stage too, which then ends with this code.
    pub fn stages(mut self, code: Code) -> Self {
        self.code = Some(code);
        self
    }

    /// An attribute of a stage's volume, in place of one that it has.
    pub fn attribute(mut self, name: &'static str, value: &str) -> Self {
        self.attributes.push((name, value.to_owned()));
        self
    }

    /// The stage brings no credential along, and is to find one by itself.
    pub fn looks_up(mut self) -> Self {
        self.looks_up = true;
        self
    }

    /// Only the doctor sees it as exactly as this.
    pub fn only_doctor(mut self) -> Self {
        self.only_doctor = true;
        self
    }

    /// The variables.
    pub fn environment(&self) -> &[(&'static str, String)] {
        &self.environment
    }

    fn arguments(&self, url: &str) -> Vec<String> {
        let mut arguments = self.flags.clone();
        for option in &self.options {
            arguments.extend(["-o".to_owned(), option.clone()]);
        }
        arguments.push(url.to_owned());
        arguments
    }
}

/// What the doctor printed.
pub struct Examined {
    pub report: Value,
    pub healthy: bool,
}

impl Examined {
    /// The checks with this result.
    pub fn with_result<'a>(&'a self, result: &'a str) -> impl Iterator<Item = &'a Value> {
        self.report["checks"].as_array().unwrap().iter().filter(move |check| check["result"] == result)
    }

    pub fn check(&self, name: &str) -> &Value {
        let checks = self.report["checks"].as_array().unwrap();
        checks.iter().find(|check| check["check"] == name).unwrap_or_else(|| panic!("no check {name}: {checks:?}"))
    }
}

impl Clinic {
    pub fn new() -> Self {
        let world = World::new(env!("CARGO_BIN_EXE_azblob-csi"));
        let services = IdentityServices::start(world.emulator()).unwrap();
        Self { world, services }
    }

    /// The emulator over http.
    pub fn http(&self) -> String {
        self.world.emulator().endpoint()
    }

    /// The emulator over TLS, under Azure's name.
    pub fn https(&self) -> String {
        format!("https://{}", Cloud::Public.blob_host(ACCOUNT))
    }

    /// The way to Azure's names, for a case that goes there.
    pub fn over_tls(&self, case: Case) -> Case {
        case.at(self.https())
            .with("https_proxy", self.services.proxy_url())
            .with("SSL_CERT_FILE", self.services.ca_file().display().to_string())
    }

    /// With the account's own key.
    pub fn with_key(&self, case: Case) -> Case {
        case.with("AZURE_STORAGE_KEY", self.world.emulator().key())
    }

    /// Puts a case to a stage alone.
    #[track_caller]
    pub fn assert_stage_finds(&self, case: &Case) {
        let endpoint = case.endpoint.clone().unwrap_or_else(|| self.http());
        let (found, said) = self.stage(case, &endpoint);
        // The longest words of its cause between two facts; then those of the case.
        let cause = case.finding.row().cause.split(['{', '}']).step_by(2).max_by_key(|words| words.len()).unwrap();
        assert!(said.contains(cause), "{}: the stage does not say {cause:?}: {said}", case.finding.name());
        for words in &case.says {
            assert!(said.contains(words), "{words:?} is missing in: {said}");
        }
        assert_eq!(Some(found), case.code, "{said}");
        self.world.assert_no_secret(&said);
        assert!(!said.contains(crate::identities::SECRET), "a secret stands in: {said}");
    }

    /// Runs the doctor in its JSON form.
    #[track_caller]
    pub fn examine(&self, arguments: &[String], environment: &[(&str, String)]) -> Examined {
        let mut all = vec!["doctor", "--json"];
        all.extend(arguments.iter().map(String::as_str));
        let mut command = self.world.command_as(&all, environment);
        self.examined(&mut command)
    }

    #[track_caller]
    pub fn examined(&self, command: &mut Command) -> Examined {
        let finished = self.world.run(command, EXAMINED_WITHIN);
        assert!(!finished.stderr.contains("panicked"), "{finished:?}");
        for text in [&finished.stdout, &finished.stderr] {
            self.world.assert_no_secret(text);
            assert!(!text.contains("eyJ") && !text.contains(WRONG_KEY), "a secret stands in: {text}");
        }
        let report: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:?}"));
        let healthy = report["healthy"].as_bool().unwrap();
        assert_eq!(finished.status.code(), Some(i32::from(!healthy)), "{finished:?}");
        Examined { report, healthy }
    }

    /// Puts a case to the doctor, to a mount, and, where it can happen there, to a stage.
    #[track_caller]
    pub fn assert_found(&self, case: &Case) {
        let endpoint = case.endpoint.clone().unwrap_or_else(|| self.http());
        let arguments = case.arguments(&format!("{endpoint}/{}", case.container));
        let fix = self.found(case, &self.examine(&arguments, &case.environment));
        if case.only_doctor {
            return;
        }
        let mount_point = self.world.directory("point");
        let mut all = vec!["mount"];
        all.extend(arguments.iter().map(String::as_str));
        all.push(mount_point.to_str().unwrap());
        let said = self.world.fails(&mut self.world.command_as(&all, &case.environment));
        assert!(said.contains(&fix), "{}: the mount does not say {fix:?}: {said}", case.finding.name());
        if let Some(code) = case.code {
            let (found, said) = self.stage(case, &endpoint);
            assert!(said.contains(&fix), "{}: the stage does not say {fix:?}: {said}", case.finding.name());
            assert_eq!(found, code, "{said}");
            self.world.assert_no_secret(&said);
        }
    }

    /// The finding must be there, and no other; returns its fix.
    #[track_caller]
    pub fn found(&self, case: &Case, examined: &Examined) -> String {
        let found: Vec<&Value> = examined.with_result("found").collect();
        let names: Vec<&str> = found.iter().filter_map(|check| check["finding"].as_str()).collect();
        assert_eq!(names, [case.finding.name()], "{:#}", examined.report);
        let (text, fix) = (found[0]["text"].as_str().unwrap(), found[0]["fix"].as_str().unwrap());
        for words in &case.says {
            assert!(text.contains(words) || fix.contains(words), "{words:?} is missing in: {text}: {fix}");
        }
        fix.to_owned()
    }

    /// What a node plugin of its own answers to a stage: code and text.
    #[track_caller]
    fn stage(&self, case: &Case, endpoint: &str) -> (Code, String) {
        let directory = self.world.path("node");
        // What the one before left: it was killed.
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(directory.join("plugins_registry")).unwrap();
        let socket = directory.join("csi.sock");
        let endpoint_of_node = format!("unix://{}", socket.display());
        let kubelet = directory.display().to_string();
        let arguments = ["node", "--endpoint", &endpoint_of_node, "--node-id", "n1", "--kubelet-dir", &kubelet];
        let environment: Vec<(&str, String)> =
            case.environment.iter().filter(|(name, _)| secret_of(name).is_none()).cloned().collect();
        let _node = Node::start(self.world.command_as(&arguments, &environment), &socket);
        let request = self.stage_request(case, endpoint, &directory.join("staging"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let status = runtime.block_on(async {
            let channel = Endpoint::from_shared(endpoint_of_node.clone()).unwrap().connect_lazy();
            let mut node = NodeClient::new(channel);
            tokio::time::timeout(STAGED_WITHIN, node.node_stage_volume(request)).await.unwrap().unwrap_err()
        });
        (status.code(), status.message().to_owned())
    }

    fn stage_request(&self, case: &Case, endpoint: &str, staging: &Path) -> NodeStageVolumeRequest {
        std::fs::create_dir_all(staging).unwrap();
        let mut context: std::collections::BTreeMap<String, String> = [
            ("storageAccount".to_owned(), ACCOUNT.to_owned()),
            ("containerName".to_owned(), case.container.clone()),
            ("server".to_owned(), endpoint.to_owned()),
        ]
        .into();
        for option in case.options.iter().flat_map(|list| list.split(',')) {
            let (name, value) = option.split_once('=').unwrap();
            let name = match name {
                "auth" => "AzureStorageAuthType",
                "client-id" => "AzureStorageIdentityClientID",
                "object-id" => "AzureStorageIdentityObjectID",
                other => panic!("{other} is no attribute"),
            };
            context.insert(name.to_owned(), value.to_owned());
        }
        let no_secret = !case.environment.iter().any(|(name, _)| secret_of(name).is_some());
        if no_secret && case.options.is_empty() && !case.looks_up {
            context.insert("AzureStorageAuthType".to_owned(), "anonymous".to_owned());
        }
        for (name, value) in &case.attributes {
            context.insert((*name).to_owned(), value.clone());
        }
        let secrets =
            case.environment.iter().filter_map(|(name, value)| Some((secret_of(name)?.to_owned(), value.clone())));
        NodeStageVolumeRequest {
            volume_id: "volume".to_owned(),
            staging_target_path: staging.display().to_string(),
            volume_capability: Some(VolumeCapability {
                access_mode: Some(AccessMode { mode: Mode::MultiNodeMultiWriter.into() }),
                access_type: Some(AccessType::Mount(MountVolume::default())),
            }),
            secrets: secrets.collect(),
            volume_context: context,
            ..NodeStageVolumeRequest::default()
        }
    }
}

/// The key of a Secret that says what a variable says.
fn secret_of(variable: &str) -> Option<&'static str> {
    match variable {
        "AZURE_STORAGE_KEY" => Some("accountkey"),
        "AZURE_STORAGE_SAS_TOKEN" => Some("azurestorageaccountsastoken"),
        "AZURE_STORAGE_CONNECTION_STRING" => Some("connectionstring"),
        _ => None,
    }
}

/// A node plugin, killed at the end: nothing of these tests is mounted by it.
struct Node(Child);

impl Node {
    #[track_caller]
    fn start(mut command: Command, socket: &Path) -> Self {
        let mut node = Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let end = Instant::now() + STAGED_WITHIN;
        // The file is there a moment before somebody listens.
        while UnixStream::connect(socket).is_err() {
            assert!(node.0.try_wait().unwrap().is_none(), "the node plugin has ended");
            assert!(Instant::now() < end, "the node plugin does not serve");
            std::thread::sleep(Duration::from_millis(10));
        }
        node
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
