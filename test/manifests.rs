//! The manifests in deploy/ as Kubernetes and the driver will read them: every document by the API's own types, every
//! reference followed, every flag given to our command line, every example turned into the volume that it would mount.
//!
//! Needs no cluster. What an API server adds (admission, defaults) is not tried here.

// Helpers of tests fail the test by panicking, like the tests themselves.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "manifests/chart.rs"]
mod chart;
#[path = "manifests/document.rs"]
mod document;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use azblob_csi::{
    cli::{controller, keeper, node},
    credential::{Cloud, Trust},
    csi::{
        capability::Access,
        parameters::Parameters,
        request::{Account, Defaults, MountRequest},
        server::socket_path,
    },
    volume::{VolumeSpec, options::MountOptions},
};
use clap::Parser as _;
use document::{Document, files, parse};
use k8s_openapi::{
    Resource,
    api::{
        apps::v1::{DaemonSet, Deployment},
        core::v1::{
            Container, PersistentVolume, PersistentVolumeClaim, Pod, PodSpec, Secret, SecretReference, ServiceAccount,
            VolumeMount,
        },
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding, RoleRef, Subject},
        storage::v1::{CSIDriver, StorageClass},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

/// What upstream's manifests, and the scripts that people have around them, call these things.
const DRIVER: &str = "blob.csi.azure.com";
const NAMESPACE: &str = "kube-system";
const KUBELET_DIRECTORY: &str = "/var/lib/kubelet";

fn documents() -> Vec<Document> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let read =
        |path: &PathBuf| parse(path.strip_prefix(&root).unwrap().to_str().unwrap(), &fs::read_to_string(path).unwrap());
    // The chart's templates are no documents yet.
    files(&root).iter().filter(|path| !path.starts_with(root.join("charts"))).flat_map(read).collect()
}

/// All objects of a kind.
fn all<T: Resource + serde::de::DeserializeOwned>() -> Vec<T> {
    let found: Vec<T> = documents()
        .into_iter()
        .filter(|document| (document.field("/apiVersion"), document.field("/kind")) == (T::API_VERSION, T::KIND))
        .map(|document| serde_json::from_value(document.value.clone()).unwrap())
        .collect();
    assert!(!found.is_empty(), "no {}", T::KIND);
    found
}

/// The object of a kind that is there once.
fn only<T: Resource + serde::de::DeserializeOwned>() -> T {
    let mut found = all::<T>();
    assert_eq!(found.len(), 1, "{}", T::KIND);
    found.remove(0)
}

fn daemon_set(name: &str) -> DaemonSet {
    let found = all::<DaemonSet>().into_iter().find(|it| it.metadata.name.as_deref() == Some(name));
    found.unwrap_or_else(|| panic!("no DaemonSet {name}"))
}

fn node_pod() -> PodSpec {
    daemon_set("csi-blob-node").spec.unwrap().template.spec.unwrap()
}

fn keeper_pod() -> PodSpec {
    daemon_set("csi-blob-keeper").spec.unwrap().template.spec.unwrap()
}

fn controller_pod() -> PodSpec {
    only::<Deployment>().spec.unwrap().template.spec.unwrap()
}

/// Our container in a pod.
fn ours(pod: &PodSpec) -> &Container {
    pod.containers.iter().find(|container| container.name == "blob").expect("a container named blob")
}

fn args(container: &Container) -> &[String] {
    container.args.as_deref().unwrap()
}

/// The value of `--name=value` in a container's arguments.
fn flag<'a>(container: &'a Container, name: &str) -> &'a str {
    let found = args(container).iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("{} has no {name}", container.name))
}

fn mounts(container: &Container) -> &[VolumeMount] {
    container.volume_mounts.as_deref().unwrap_or_default()
}

fn mount_at<'a>(container: &'a Container, path: &str) -> &'a VolumeMount {
    let found = mounts(container).iter().find(|mount| mount.mount_path == path);
    found.unwrap_or_else(|| panic!("{} mounts nothing at {path}", container.name))
}

/// Path and type of the host's directory or file behind a mount.
fn host_path(pod: &PodSpec, mount: &VolumeMount) -> (String, String) {
    let volume = pod.volumes.iter().flatten().find(|volume| volume.name == mount.name).unwrap();
    let host = volume.host_path.as_ref().unwrap();
    (host.path.clone(), host.type_.clone().unwrap_or_default())
}

#[test]
fn every_document_is_an_object_of_its_kind_without_unknown_fields() {
    let documents = documents();
    assert!(documents.len() > 30, "only {} documents", documents.len());
    let broken: Vec<String> = documents
        .iter()
        .filter_map(|document| document.problem().map(|problem| format!("{}: {problem}", document.name())))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_check_of_documents_catches_what_is_wrong() {
    let problem = |text: &str| parse("a.yaml", text).remove(0).problem();
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n";
    assert_eq!(problem(account), None);
    for (wrong, says) in [
        (format!("{account}automount: true\n"), "unknown field .automount"),
        (account.replace("name: a", "nmae: a"), "unknown field .metadata.nmae"),
        (account.replace("name: a", "name: 1"), "invalid type"),
        (account.replace("v1", "v2"), "unknown kind"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {}\nspec: {}\n".to_owned(), ".spec.containers is missing"),
        ("apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a, ports: [{port: 1}]}]}\n".to_owned(), "ports[0]"),
    ] {
        let found = problem(&wrong).unwrap_or_default();
        assert!(found.contains(says), "{wrong}: {found:?}");
    }
}

#[test]
fn every_object_is_there_once_and_applied_examples_do_not_collide() {
    let mut seen = BTreeSet::new();
    for document in documents() {
        let name = document.name();
        let (_, identity) = name.split_once(' ').unwrap();
        assert!(seen.insert(identity.to_owned()), "{name} is there twice");
        let cluster_wide = ["CSIDriver", "StorageClass", "PersistentVolume", "ClusterRole", "ClusterRoleBinding"];
        let namespaced = !cluster_wide.contains(&document.field("/kind"));
        assert_eq!(namespaced, !document.field("/metadata/namespace").is_empty(), "{name}");
    }
}

#[test]
fn objects_have_the_names_that_scripts_rely_on() {
    assert_eq!(all::<DaemonSet>().len(), 2, "the node plugin and its keeper");
    let daemon = |name| {
        let DaemonSet { metadata, spec, .. } = daemon_set(name);
        let spec = spec.unwrap();
        (name, metadata, spec.selector, spec.template)
    };
    let Deployment { metadata, spec, .. } = only::<Deployment>();
    let spec = spec.unwrap();
    let controller = ("csi-blob-controller", metadata, spec.selector, spec.template);
    for (name, metadata, selector, template) in [daemon("csi-blob-node"), controller, daemon("csi-blob-keeper")] {
        assert_eq!(metadata.name.as_deref(), Some(name));
        assert_eq!(metadata.namespace.as_deref(), Some(NAMESPACE));
        let labels = template.metadata.as_ref().unwrap().labels.as_ref().unwrap();
        assert_eq!(labels.get("app").map(String::as_str), Some(name));
        let selected = selector.match_labels.as_ref().unwrap();
        assert!(selected.iter().all(|(key, value)| labels.get(key) == Some(value)), "{name} selects its own pods");
        let pod = template.spec.as_ref().unwrap();
        let account = (name != "csi-blob-keeper").then(|| format!("{name}-sa"));
        assert_eq!(pod.service_account_name, account, "the keeper asks nobody");
        let images: Vec<_> = pod.containers.iter().map(|container| &container.image).collect();
        assert!(images.contains(&&ours(&node_pod()).image), "one image serves all roles");
    }
}

/// (kind, namespace, name) of whoever a binding gives rights to.
fn identity(subject: &Subject) -> (String, String, String) {
    (subject.kind.clone(), subject.namespace.clone().unwrap_or_default(), subject.name.clone())
}

#[test]
fn bindings_join_roles_and_accounts_that_exist_and_the_node_reads_no_secret() {
    let name = |name: &Option<String>| name.clone().unwrap();
    let accounts: BTreeSet<_> =
        all::<ServiceAccount>().iter().map(|it| (name(&it.metadata.namespace), name(&it.metadata.name))).collect();
    for pod in [node_pod(), controller_pod()] {
        assert!(accounts.contains(&(NAMESPACE.to_owned(), pod.service_account_name.unwrap())));
    }
    let cluster_roles: BTreeSet<_> = all::<ClusterRole>().iter().map(|it| name(&it.metadata.name)).collect();
    let roles: BTreeSet<_> = all::<Role>().iter().map(|it| name(&it.metadata.name)).collect();
    let of_cluster = all::<ClusterRoleBinding>().into_iter().map(|it| (it.role_ref, it.subjects.unwrap()));
    let of_namespace = all::<RoleBinding>().into_iter().map(|it| (it.role_ref, it.subjects.unwrap()));
    let bindings: Vec<(RoleRef, Vec<Subject>)> = of_cluster.chain(of_namespace).collect();
    let bound: BTreeSet<String> = bindings.iter().map(|(role, _)| role.name.clone()).collect();
    assert_eq!(bound, &cluster_roles | &roles, "each role is bound, and only roles that exist");
    for (role, subjects) in bindings {
        let known = if role.kind == "Role" { &roles } else { &cluster_roles };
        assert!(known.contains(&role.name), "{role:?}");
        for subject in subjects {
            let (kind, namespace, name) = identity(&subject);
            assert_eq!(kind, "ServiceAccount");
            assert!(accounts.contains(&(namespace, name.clone())), "{name}");
            assert_eq!(name == "csi-blob-node-sa", role.name == "csi-blob-node-role", "{name}: {}", role.name);
        }
    }
    let node = all::<ClusterRole>().into_iter().find(|it| name(&it.metadata.name) == "csi-blob-node-role").unwrap();
    let rights: BTreeSet<_> =
        node.rules.unwrap().into_iter().map(|rule| (rule.resources.unwrap(), rule.verbs)).collect();
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let allowed = [("persistentvolumes", &["get", "list"][..]), ("events", &["create"])];
    assert_eq!(rights, allowed.map(|(resource, verbs)| (owned(&[resource]), owned(verbs))).into());
}

#[test]
fn only_one_controller_works_at_a_time_and_its_lease_may_be_written() {
    let deployment = only::<Deployment>().spec.unwrap();
    assert!(deployment.replicas.unwrap() > 1);
    let leases = only::<Role>();
    assert_eq!(leases.metadata.namespace.as_deref(), Some(NAMESPACE));
    let rules = leases.rules.unwrap();
    let verbs = &rules.iter().find(|rule| rule.resources == Some(vec!["leases".to_owned()])).unwrap().verbs;
    assert!(["get", "create", "update"].iter().all(|verb| verbs.iter().any(|known| known == verb)));
    for sidecar in controller_pod().containers.iter().filter(|container| container.name != "blob") {
        assert!(args(sidecar).iter().any(|arg| arg == "--leader-election"), "{}", sidecar.name);
        assert_eq!(flag(sidecar, "--leader-election-namespace"), NAMESPACE, "{}", sidecar.name);
    }
}

#[test]
fn the_driver_has_one_name() {
    assert_eq!(only::<CSIDriver>().metadata.name.as_deref(), Some(DRIVER));
    for pod in [node_pod(), controller_pod()] {
        assert_eq!(flag(ours(&pod), "--driver-name"), DRIVER);
    }
    assert_eq!(only::<StorageClass>().provisioner, DRIVER);
    for volume in all::<PersistentVolume>() {
        assert_eq!(volume.spec.unwrap().csi.unwrap().driver, DRIVER);
    }
    let inline: Vec<_> = all::<Pod>().into_iter().flat_map(|pod| pod.spec.unwrap().volumes.unwrap()).collect();
    let drivers: Vec<_> = inline.into_iter().filter_map(|volume| volume.csi).map(|csi| csi.driver).collect();
    assert_eq!(drivers, [DRIVER]);
}

#[test]
fn the_kubelet_calls_the_driver_as_it_is_built() {
    let driver = only::<CSIDriver>().spec;
    assert_eq!(driver.attach_required, Some(false), "there is no ControllerPublishVolume");
    assert_eq!(driver.requires_republish, Some(true), "a rotated Secret reaches running pods by it");
    let tokens: Vec<_> = driver.token_requests.unwrap().into_iter().map(|request| request.audience).collect();
    assert_eq!(tokens, ["api://AzureADTokenExchange"], "pods sign in to Entra ID with it");
    assert_eq!(driver.pod_info_on_mount, Some(true));
    assert_eq!(driver.volume_lifecycle_modes.unwrap(), ["Persistent", "Ephemeral"]);
    assert_eq!(driver.fs_group_policy.as_deref(), Some("ReadWriteOnceWithFSType"));
}

/// The command line of the roles, as the binary has it.
#[derive(Debug, clap::Parser)]
enum CommandLine {
    Node(node::Args),
    Controller(controller::Args),
    Keeper(keeper::Args),
}

/// The arguments with `$(NAME)` replaced, as the kubelet does.
fn expanded(container: &Container) -> Vec<String> {
    let value = |name: &str| container.env.iter().flatten().find(|variable| variable.name == name);
    let expand = |arg: &String| match arg.split_once("$(") {
        None => arg.clone(),
        Some((before, rest)) => {
            let (name, after) = rest.split_once(')').unwrap();
            let variable = value(name).unwrap_or_else(|| panic!("{arg}: {name} is not in env"));
            format!("{before}{}{after}", variable.value.as_deref().unwrap_or("from-the-field"))
        }
    };
    args(container).iter().map(expand).collect()
}

fn command_line(container: &Container) -> Result<CommandLine, clap::Error> {
    let program = std::iter::once("azblob-csi".to_owned());
    CommandLine::try_parse_from(program.chain(expanded(container)))
}

#[test]
fn our_command_line_takes_the_arguments_of_the_manifests() {
    let (node, controller) = (node_pod(), controller_pod());
    let shown = match command_line(ours(&node)).unwrap() {
        CommandLine::Node(args) => format!("{args:?}"),
        other => panic!("not the node: {other:?}"),
    };
    // What the flags became, not only that they were let through.
    for held in ["from-the-field", KUBELET_DIRECTORY, DRIVER, "/spool", "keeper.sock"] {
        assert!(shown.contains(held), "{held} in {shown}");
    }
    assert!(matches!(command_line(ours(&controller)).unwrap(), CommandLine::Controller(_)));
    assert!(matches!(command_line(&keeper_pod().containers[0]).unwrap(), CommandLine::Keeper(_)));
    for wrong in ["--no-such-flag=1", "--read-ahead=fast"] {
        let mut container = ours(&node).clone();
        container.args.as_mut().unwrap().push(wrong.to_owned());
        assert!(command_line(&container).is_err(), "{wrong}");
    }
}

#[test]
fn sidecars_and_controller_meet_at_one_socket() {
    let pod = controller_pod();
    let socket = socket_path(flag(ours(&pod), "--endpoint")).unwrap();
    let directory = socket.parent().unwrap().to_str().unwrap();
    let volume = &mount_at(ours(&pod), directory).name;
    assert_eq!(pod.containers.len(), 3);
    for container in &pod.containers {
        assert_eq!(&mount_at(container, directory).name, volume, "{}", container.name);
        if container.name != "blob" {
            assert_eq!(Path::new(flag(container, "--csi-address")), socket, "{}", container.name);
        }
        let user = container.security_context.as_ref().and_then(|context| context.run_as_user);
        assert_eq!(user, None, "{}: the socket is for the pod's one user only", container.name);
    }
    let provisioner = pod.containers.iter().find(|container| container.name == "csi-provisioner").unwrap();
    assert_eq!(flag(provisioner, "--extra-create-metadata"), "true", "containerName may have placeholders");
}

#[test]
fn the_node_finds_the_kubelet_where_it_is_and_the_kubelet_the_node() {
    let pod = node_pod();
    let blob = ours(&pod);
    assert_eq!(pod.containers.len(), 1, "the driver registers itself and needs no probe");
    assert_eq!(flag(blob, "--kubelet-dir"), KUBELET_DIRECTORY);
    let kubelet = mount_at(blob, KUBELET_DIRECTORY);
    assert_eq!(kubelet.mount_propagation.as_deref(), Some("Bidirectional"), "pods must see what is mounted here");
    assert_eq!(host_path(&pod, kubelet).0, KUBELET_DIRECTORY, "paths in calls mean the same to both");
    let socket = socket_path(flag(blob, "--endpoint")).unwrap();
    assert_eq!(socket, Path::new(KUBELET_DIRECTORY).join("plugins").join(DRIVER).join("csi.sock"));
    let below = mounts(blob).iter().filter(|mount| mount.mount_path.starts_with(&format!("{KUBELET_DIRECTORY}/")));
    assert_eq!(below.count(), 0, "a mount below a Bidirectional one shows up on the host");
    let spool = mount_at(blob, "/spool");
    assert_eq!(flag(blob, "--spool-dir"), spool.mount_path);
    assert_eq!(host_path(&pod, spool).0, "/var/lib/azblob-csi", "lost+found must outlive the pod");
}

#[test]
fn the_node_may_mount_and_is_replaced_one_at_a_time() {
    let pod = node_pod();
    let blob = ours(&pod);
    assert_eq!(blob.security_context.as_ref().unwrap().privileged, Some(true));
    let fuse = host_path(&pod, mount_at(blob, "/dev/fuse"));
    assert_eq!(fuse, ("/dev/fuse".to_owned(), "CharDevice".to_owned()));
    assert!(blob.liveness_probe.is_none(), "a timeout must not end the mounts of a node");
    assert!(pod.termination_grace_period_seconds.unwrap() >= 30, "calls in flight and unsaved data get 28 s");
    let update = daemon_set("csi-blob-node").spec.unwrap().update_strategy.unwrap();
    assert_eq!(update.rolling_update.unwrap().max_unavailable, Some(IntOrString::Int(1)));
    let everywhere = pod.tolerations.unwrap();
    assert!(everywhere.iter().any(|it| it.key.is_none() && it.operator.as_deref() == Some("Exists")));
}

#[test]
fn the_keeper_is_left_alone_has_no_right_and_is_where_the_node_plugin_is() {
    let DaemonSet { spec, .. } = daemon_set("csi-blob-keeper");
    assert_eq!(spec.unwrap().update_strategy.unwrap().type_.as_deref(), Some("OnDelete"), "an upgrade leaves it");
    let (pod, node) = (keeper_pod(), node_pod());
    assert_eq!(pod.automount_service_account_token, Some(false));
    assert_eq!(pod.security_context.as_ref().unwrap().run_as_user, Some(0), "it serves its own user, and root is one");
    assert_eq!(pod.containers.len(), 1);
    let container = &pod.containers[0];
    let context = container.security_context.as_ref().unwrap();
    assert_eq!((context.privileged, context.allow_privilege_escalation), (None, Some(false)));
    let capabilities = context.capabilities.as_ref().unwrap();
    assert_eq!((capabilities.drop.as_deref(), &capabilities.add), (Some(&["ALL".to_owned()][..]), &None));
    assert_eq!(container.resources.as_ref().unwrap().limits.as_ref().unwrap()["memory"].0, "32Mi");
    let place = |pod: &PodSpec| (pod.node_selector.clone(), pod.affinity.clone(), pod.tolerations.clone());
    assert_eq!(place(&pod), place(&node));
    assert_eq!(pod.priority_class_name, node.priority_class_name);
}

#[test]
fn keeper_and_node_plugin_meet_at_one_socket_on_the_host() {
    let (keeper, node) = (keeper_pod(), node_pod());
    let socket = Path::new(flag(ours(&node), "--keeper"));
    assert_eq!(Path::new(flag(&keeper.containers[0], "--socket")), socket);
    assert!(socket.as_os_str().len() < 108, "the kernel takes no longer path of a socket");
    let directory = socket.parent().unwrap().to_str().unwrap();
    let theirs = host_path(&keeper, mount_at(&keeper.containers[0], directory));
    assert_eq!(theirs, (directory.to_owned(), "DirectoryOrCreate".to_owned()), "the keeper may be there first");
    assert_eq!(mounts(&keeper.containers[0]).len(), 1, "it sees nothing else of the node");
    assert!(socket.starts_with(host_path(&node, mount_at(ours(&node), KUBELET_DIRECTORY)).0));
}

#[test]
fn pods_mount_the_volumes_that_they_have_and_claims_that_exist() {
    let claims: BTreeSet<_> =
        all::<PersistentVolumeClaim>().into_iter().map(|claim| claim.metadata.name.unwrap()).collect();
    let examples = all::<Pod>().into_iter().map(|pod| pod.spec.unwrap());
    for pod in examples.chain([node_pod(), controller_pod(), keeper_pod()]) {
        let volumes = pod.volumes.unwrap();
        let given: BTreeSet<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
        let used: BTreeSet<&str> = pod.containers.iter().flat_map(mounts).map(|mount| mount.name.as_str()).collect();
        assert_eq!(given, used);
        for claim in volumes.iter().filter_map(|volume| volume.persistent_volume_claim.as_ref()) {
            assert!(claims.contains(&claim.claim_name), "{}", claim.claim_name);
        }
    }
}

fn defaults() -> Defaults {
    Defaults::new(DRIVER, Cloud::from_name("AzurePublicCloud").unwrap(), Trust::default())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// The entries of a Secret of the examples.
fn secret(namespace: &str, name: &str) -> BTreeMap<String, String> {
    let wanted = (Some(namespace), Some(name));
    let found = all::<Secret>()
        .into_iter()
        .find(|secret| (secret.metadata.namespace.as_deref(), secret.metadata.name.as_deref()) == wanted);
    found.unwrap_or_else(|| panic!("no Secret {namespace}/{name}")).string_data.unwrap()
}

fn referenced(reference: Option<&SecretReference>) -> BTreeMap<String, String> {
    let reference = reference.expect("a Secret");
    secret(reference.namespace.as_deref().unwrap(), reference.name.as_deref().unwrap())
}

/// What the driver would mount. Attributes that it does not know are ignored there, but are a mistake in an example; so
/// they are read as strictly as a StorageClass is.
fn mounted(
    id: &str,
    attributes: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, String>,
    access: &Access,
) -> VolumeSpec {
    Parameters::of_storage_class(attributes).unwrap_or_else(|error| panic!("{id}: {error}"));
    let attributes = &Parameters::of_volume(attributes).unwrap();
    let request = MountRequest { volume_id: id, attributes, secrets, access };
    block_on(request.spec(&defaults())).unwrap_or_else(|error| panic!("{id}: {error}"))
}

fn access(read_only: bool, mount_flags: Vec<String>) -> Access {
    Access { read_only, exclusive: false, group: None, mount_flags }
}

#[test]
fn the_static_examples_mount_the_container_that_they_name() {
    let claims = all::<PersistentVolumeClaim>();
    let mut handles = BTreeSet::new();
    for volume in all::<PersistentVolume>() {
        let (name, spec) = (volume.metadata.name.unwrap(), volume.spec.unwrap());
        let csi = spec.csi.unwrap();
        let claimed = spec.claim_ref.unwrap();
        let claim = claims.iter().find(|claim| claim.metadata.name == claimed.name).expect("the claim of a volume");
        let wanted = claim.spec.as_ref().unwrap();
        assert_eq!(wanted.volume_name.as_deref(), Some(name.as_str()));
        assert_eq!((&wanted.access_modes, &wanted.storage_class_name), (&spec.access_modes, &spec.storage_class_name));
        assert!(handles.insert(csi.volume_handle.clone()), "{} is there twice", csi.volume_handle);
        assert_eq!(csi.node_publish_secret_ref, csi.node_stage_secret_ref, "{name}");
        let secrets = referenced(csi.node_stage_secret_ref.as_ref());
        let read_only = csi.read_only == Some(true);
        assert_eq!(read_only, spec.access_modes.unwrap() == ["ReadOnlyMany"], "{name}");
        let access = access(read_only, spec.mount_options.unwrap_or_default());
        let spec = mounted(&csi.volume_handle, &csi.volume_attributes.unwrap(), &secrets, &access);
        assert_eq!((spec.location.account(), spec.location.container()), ("contoso", "data"), "{name}");
        assert_eq!(spec.view.read_only, read_only, "{name}");
    }
    assert_eq!(handles.len(), 4);
}

#[test]
fn the_inline_example_mounts_its_container_read_only() {
    let pods = all::<Pod>();
    let inline = pods.iter().find_map(|pod| {
        let volume = pod.spec.as_ref()?.volumes.iter().flatten().find_map(|volume| volume.csi.as_ref())?;
        Some((pod.metadata.namespace.as_deref()?, volume))
    });
    let (namespace, volume) = inline.expect("a pod with an inline volume");
    let secrets = secret(namespace, &volume.node_publish_secret_ref.as_ref().unwrap().name);
    assert_eq!(volume.read_only, Some(true));
    let spec = mounted("csi-inline", volume.volume_attributes.as_ref().unwrap(), &secrets, &access(true, vec![]));
    assert_eq!((spec.location.account(), spec.location.container()), ("contoso", "data"));
}

#[test]
fn the_storage_class_has_all_it_needs_to_make_grow_mount_and_refresh() {
    let class = only::<StorageClass>();
    let (own, mut parameters): (BTreeMap<_, _>, BTreeMap<_, _>) = class
        .parameters
        .unwrap()
        .into_iter()
        .partition(|(key, _)| key.starts_with("csi.storage.k8s.io/") && key.contains("-secret-"));
    let of = |purpose: &str| {
        let part = |part: &str| own.get(&format!("csi.storage.k8s.io/{purpose}-secret-{part}")).unwrap().as_str();
        secret(part("namespace"), part("name"))
    };
    // With --extra-create-metadata.
    parameters.insert("csi.storage.k8s.io/pvc/name".to_owned(), "blob-dynamic".to_owned());
    let parameters = Parameters::of_storage_class(&parameters).unwrap();
    for purpose in ["provisioner", "controller-expand", "node-stage", "node-publish"] {
        block_on(Account::find(&defaults(), &parameters, None, &of(purpose))).unwrap().location("pvc-1").unwrap();
    }
    assert_eq!(own.len(), 8, "each purpose has a name and a namespace: {:?}", own.keys());
    MountOptions::parse(class.mount_options.unwrap_or_default()).unwrap();
    assert_eq!(class.allow_volume_expansion, Some(true), "the controller can, and the resizer runs");
    let name = class.metadata.name;
    let claims = all::<PersistentVolumeClaim>();
    let dynamic = claims.iter().filter(|claim| claim.spec.as_ref().unwrap().storage_class_name == name);
    assert_eq!(dynamic.count(), 1, "an example uses the class");
}

#[test]
fn examples_hold_placeholders_for_secrets() {
    let keys = ["azurestorageaccountkey", "accountkey"];
    let entries: Vec<_> = all::<Secret>().into_iter().flat_map(|secret| secret.string_data.unwrap()).collect();
    let found: BTreeSet<_> = entries.iter().filter(|(name, _)| keys.contains(&name.as_str())).collect();
    assert_eq!(found.len(), 2, "both spellings");
    // Base64 of a sentence that asks to be replaced, so that it has the form of a key.
    assert!(found.iter().all(|(_, key)| key == "cmVwbGFjZSB0aGlzIGJ5IHRoZSBrZXkgb2YgdGhlIGFjY291bnQ="));
}
