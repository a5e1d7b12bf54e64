//! The Helm chart, rendered by helm: with no value, with every value, beside another driver, and with values that somebody has who
//! comes from the Azure Blob CSI driver. The plain manifest of deploy/ is the chart without values.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use super::document::{Document, parse};

/// Rendered as for this version of Kubernetes: helm has to be told one.
const KUBERNETES: &str = "1.34.0";
/// Lines that say who rendered, which nobody did who applies the plain manifest.
const OF_HELM: [&str; 3] = ["# Source: ", "app.kubernetes.io/managed-by: ", "helm.sh/chart: "];
/// Kinds of the Prometheus operator: custom resources, which have no types here.
const CUSTOM: [&str; 2] = ["PodMonitor", "PrometheusRule"];
/// A field of CSIDriver that is younger than the types here (Kubernetes 1.35).
const NEWER: &str = "serviceAccountTokenInSecrets";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn chart() -> PathBuf {
    root().join("deploy/charts/azblob-csi")
}

fn values(name: &str) -> PathBuf {
    root().join("test/manifests").join(name)
}

fn helm(verb: &str, rest: &[&str]) -> Output {
    let program = root().join("target/tools/bin/helm");
    let mut command = Command::new(&program);
    command.arg(verb).args(rest).args(["--namespace", "kube-system", "--kube-version", KUBERNETES]);
    command.output().unwrap_or_else(|error| panic!("{}: {error}; `make tools` installs it", program.display()))
}

/// The chart as text, or what helm says against the values.
fn rendered(rest: &[&str]) -> Result<String, String> {
    let chart = chart();
    let output = helm("template", &[&["azblob-csi", chart.to_str().unwrap()], rest].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn documents(rest: &[&str]) -> Vec<Document> {
    let text = rendered(rest).unwrap_or_else(|error| panic!("{rest:?}: {error}"));
    parse("chart", &text).into_iter().filter(|document| !document.value.is_null()).collect()
}

/// What is wrong with any of them.
fn problems(documents: &mut [Document]) -> Vec<String> {
    for document in documents.iter_mut() {
        if let Some(Value::Object(spec)) = document.value.get_mut("spec") {
            spec.remove(NEWER);
        }
    }
    let typed = documents.iter().filter(|it| !CUSTOM.contains(&it.field("/kind")));
    typed.filter_map(|it| it.problem().map(|problem| format!("{}: {problem}", it.name()))).collect()
}

fn names(documents: &[Document]) -> BTreeSet<String> {
    documents.iter().map(Document::name).collect()
}

#[test]
fn the_plain_manifest_is_the_chart_without_values() {
    let ours = |line: &&str| !OF_HELM.iter().any(|start| line.trim_start().starts_with(start));
    let text: Vec<String> = rendered(&[]).unwrap().lines().filter(ours).map(|line| format!("{line}\n")).collect();
    let wanted = format!("# Rendered from charts/azblob-csi by `make manifests`.\n{}", text.concat());
    let path = root().join("deploy/azblob-csi.yaml");
    if std::env::var_os("AZBLOB_UPDATE_DOCS").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    assert!(found == wanted, "{} is not what the chart renders: `make manifests`", path.display());
}

#[test]
fn the_chart_renders_valid_objects_without_values_and_with_all_of_them() {
    let all = values("all-values.yaml");
    let all = ["--values", all.to_str().unwrap(), "--set", "serviceAccount.create=true,rbac.create=true"];
    for rest in [&[][..], &all[..2], &all] {
        let mut documents = documents(rest);
        assert!(documents.len() >= 5, "{}", documents.len());
        assert_eq!(names(&documents).len(), documents.len(), "an object is there twice");
        let problems = problems(&mut documents);
        assert!(problems.is_empty(), "{}", problems.join("\n"));
        let chart = chart();
        let linted = helm("lint", &[&["--strict", chart.to_str().unwrap()], rest].concat());
        assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stdout));
    }
}

/// Every path of a tree of values, down to what is no table.
fn paths(place: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            for (key, value) in entries {
                paths(&format!("{place}.{key}"), value, found);
            }
        }
        _ => {
            found.insert(place.to_owned());
        }
    }
}

#[test]
fn all_values_really_are_all_and_each_differs_from_its_default() {
    let read = |path: &Path| serde_yaml_ng::from_str::<Value>(&fs::read_to_string(path).unwrap()).unwrap();
    let (defaults, all) = (read(&chart().join("values.yaml")), read(&values("all-values.yaml")));
    let mut known = BTreeSet::new();
    paths("", &defaults, &mut known);
    let missing = known.iter().filter(|path| {
        let pointer = path.replace('.', "/");
        all.pointer(&pointer).is_none_or(|value| Some(value) == defaults.pointer(&pointer))
    });
    let missing: Vec<_> = missing.collect();
    assert!(missing.is_empty(), "not in all-values.yaml, or as by default: {missing:?}");
}

#[test]
fn two_drivers_side_by_side_share_no_object_port_or_path() {
    let beside = ["--set", "driver.name=azblob.csi.dev"];
    let (one, other) = (documents(&[]), documents(&beside));
    assert_eq!(one.len(), other.len());
    assert!(names(&one).is_disjoint(&names(&other)), "{:?}", names(&one).intersection(&names(&other)));
    let daemon = |documents: &[Document]| {
        let is_node = |it: &&Document| it.field("/spec/template/spec/containers/0/name") == "blob";
        let mut daemons = documents.iter().filter(|it| it.field("/kind") == "DaemonSet");
        daemons.find(is_node).map(|it| it.value.clone()).unwrap()
    };
    let (one, other) = (daemon(&one), daemon(&other));
    let pod = "/spec/template/spec/containers/0";
    for place in [format!("{pod}/ports/0/containerPort"), format!("{pod}/args/1"), "/spec/selector".to_owned()] {
        assert!(one.pointer(&place).is_some(), "{place}");
        assert_ne!(one.pointer(&place), other.pointer(&place), "{place}");
    }
    let spool = |daemon: &Value| {
        let volumes = daemon.pointer("/spec/template/spec/volumes").and_then(Value::as_array).unwrap().clone();
        volumes.into_iter().find(|volume| volume["name"] == "spool").unwrap()["hostPath"]["path"].clone()
    };
    assert_ne!(spool(&one), spool(&other));
    let keeper = |daemon: &Value| {
        let args = daemon.pointer(&format!("{pod}/args")).and_then(Value::as_array).unwrap().clone();
        args.into_iter().find(|arg| arg.as_str().unwrap().starts_with("--keeper=")).unwrap()
    };
    assert_ne!(keeper(&one), keeper(&other));
}

#[test]
fn without_a_keeper_there_is_no_pod_of_it_and_nobody_looks_for_one() {
    let (with, without) = (documents(&[]), documents(&["--set", "keeper.enabled=false"]));
    assert_eq!(with.len(), without.len() + 1);
    let is_named = |rest: &[&str]| documents(rest).iter().any(|document| document.value.to_string().contains("keeper"));
    assert!(is_named(&[]) && !is_named(&["--set", "keeper.enabled=false"]));
}

/// What helm says after an installation. `helm template` does not show that, so a copy of the chart has it as a document.
fn notes(rest: &[&str]) -> String {
    let copy = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-r").arg(chart()).arg(copy.path()).status().unwrap();
    assert!(copied.success());
    let chart = copy.path().join("azblob-csi");
    fs::write(chart.join("templates/shown.yaml"), "notes: {{ include \"azblob.notes\" . | quote }}\n").unwrap();
    let shown =
        helm("template", &[&["x", chart.to_str().unwrap(), "--show-only", "templates/shown.yaml"], rest].concat());
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    String::from_utf8(shown.stdout).unwrap()
}

#[test]
fn a_values_file_of_the_azure_blob_csi_driver_works_and_the_notes_name_what_is_idle() {
    let theirs = values("upstream-values.yaml");
    let given = ["--values", theirs.to_str().unwrap()];
    assert_eq!(problems(&mut documents(&given)), Vec::<String>::new());
    let text = rendered(&given).unwrap();
    for kept in ["/k8s/csi/blob-csi:v1", "csi-blob-node-sa", "azure.workload.identity/client-id: c1", ":29635"] {
        assert!(text.contains(kept), "{kept}");
    }
    let notes = notes(&given);
    for idle in ["node.enableBlobfuseProxy", "image.livenessProbe", "linux.distro", "driver.userAgentSuffix"] {
        assert!(notes.contains(idle), "{idle} is not in {notes}");
    }
    assert!(!self::notes(&[]).contains("without a meaning"), "nothing is idle that nobody gave");
}

#[test]
fn a_value_that_nobody_knows_or_that_cannot_be_is_refused_by_name() {
    for (set, says) in [
        ("nodee.name=x", "nodee"),
        ("node.logLevl=debug", "logLevl"),
        ("node.logLevel=loud", "/node/logLevel"),
        ("driver.name=a/b", "/driver/name"),
        ("controller.replicas=-1", "/controller/replicas"),
        ("node.cache.free=101", "/node/cache/free"),
        ("linux.kubelet=var/lib/kubelet", "/linux/kubelet"),
        ("keeper.abandonAfter=soon", "/keeper/abandonAfter"),
        ("keeper.updateStrategy=RollingUpdate", "updateStrategy"),
    ] {
        let error = rendered(&["--set", set]).expect_err(set);
        assert!(error.contains(says), "{set}: {error}");
    }
}

#[test]
fn no_pod_sees_the_hosts_processes_or_writes_its_own_image() {
    for document in documents(&[]).iter().filter(|it| ["DaemonSet", "Deployment"].contains(&it.field("/kind"))) {
        let pod = document.value.pointer("/spec/template/spec").unwrap();
        assert!(pod.get("hostPID").is_none(), "{}", document.name());
        assert_eq!(pod.pointer("/securityContext/seccompProfile/type").unwrap(), "RuntimeDefault");
        for container in pod["containers"].as_array().unwrap() {
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{}", container["name"]);
            assert!(container.pointer("/resources/limits/memory").is_some(), "{}", container["name"]);
        }
        assert!(pod.get("initContainers").is_none(), "nothing is installed on the host");
    }
}

/// Names of metrics in a query.
fn metrics(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours =
        words.filter(|word| ["azblob_csi_", "blob_csi_driver_", "process_"].iter().any(|it| word.starts_with(it)));
    ours.map(|word| word.trim_end_matches("_bucket").to_owned()).collect()
}

/// Every value of the key `expr`, at whatever depth.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| queries(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let page = fs::read_to_string(root().join("docs/METRICS.md")).unwrap();
    let read = |name: &str| fs::read_to_string(chart().join("files").join(name)).unwrap();
    let alerts: Value = serde_yaml_ng::from_str(&read("alerts.yaml")).unwrap();
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let mut used = BTreeSet::new();
    for (value, least) in [(&alerts, 10), (&dashboard, 25)] {
        let mut found = Vec::new();
        queries(value, &mut found);
        assert!(found.len() >= least, "{}", found.len());
        for query in found {
            let names = metrics(&query);
            assert!(!names.is_empty(), "{query}");
            let pairs = [('(', ')'), ('{', '}'), ('[', ']')];
            let counts = |open: char, close: char| query.matches(open).count() == query.matches(close).count();
            assert!(pairs.iter().all(|(open, close)| counts(*open, *close)), "{query}");
            used.extend(names);
        }
    }
    let unknown: Vec<_> = used.iter().filter(|name| !page.contains(&format!("| `{name}` |"))).collect();
    assert!(unknown.is_empty(), "not in docs/METRICS.md: {unknown:?}");
}
