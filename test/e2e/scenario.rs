//! One scenario's part of the cluster: a namespace, a container of the same name, and a Secret `account` with its key. All of it is
//! gone at the end, with every mount; a scenario that fails shows what the cluster says of it first.

use std::{
    fs,
    sync::{RwLockReadGuard, RwLockWriteGuard},
    thread,
    time::{Duration, Instant},
};

use harness::Finished;

use crate::{
    cluster::{Cluster, cluster},
    install::{DRIVER, NAMESPACE, NODE_PLUGIN},
    kubectl::{PATIENCE, apply, kubectl, manifest, program, until},
};

/// Whether others run at the same time.
enum Pass {
    Shared(#[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

/// A running scenario.
pub struct Scenario {
    /// The cluster.
    pub cluster: &'static Cluster,
    /// Namespace and container.
    pub name: &'static str,
    _pass: Pass,
}

impl Scenario {
    /// Begins one that others may run beside.
    pub fn begin(name: &'static str) -> Self {
        let cluster = cluster();
        let pass = Pass::Shared(cluster.gate.read().unwrap_or_else(std::sync::PoisonError::into_inner));
        Self::prepare(cluster, name, pass)
    }

    /// Begins one that has the node for itself: it ends others' mounts, or measures.
    pub fn alone(name: &'static str) -> Self {
        let cluster = cluster();
        let pass = Pass::Alone(cluster.gate.write().unwrap_or_else(std::sync::PoisonError::into_inner));
        Self::prepare(cluster, name, pass)
    }

    fn prepare(cluster: &'static Cluster, name: &'static str, pass: Pass) -> Self {
        cluster.emulator.create_container(name);
        let scenario = Self { cluster, name, _pass: pass };
        kubectl(&["create", "namespace", name]);
        let (account, key) = (cluster.emulator.account(), cluster.emulator.key());
        scenario.secret("account", &[("azurestorageaccountname", account), ("azurestorageaccountkey", &key)]);
        // Pods are refused before their namespace has its service account.
        scenario.kubectl(&["wait", "--for=create", "serviceaccount/default", "--timeout=60s"]);
        scenario
    }

    /// Writes a Secret, over one of this name.
    pub fn secret(&self, name: &str, entries: &[(&str, &str)]) {
        let entries: serde_json::Map<_, _> =
            entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        let metadata = serde_json::json!({ "name": name, "namespace": self.name });
        let secret =
            serde_json::json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": entries });
        apply(&secret.to_string());
    }

    /// Applies a file of manifests/, with these values and those that every scenario has.
    #[track_caller]
    pub fn apply(&self, file: &str, values: &[(&str, &str)]) {
        let usual = [("namespace", self.name), ("driver", DRIVER)];
        apply(&manifest(file, &[values, &usual].concat()));
    }

    /// Makes a PersistentVolume by hand, and its claim, both of this name. Values: access, options, attributes, secret,
    /// read-only; what is not given is as usual.
    #[track_caller]
    pub fn volume(&self, name: &str, values: &[(&str, &str)]) {
        let attributes = format!("{{containerName: {}}}", self.name);
        let secret = format!("{{name: account, namespace: {}}}", self.name);
        let usual = [
            ("volume", name),
            ("access", "ReadWriteMany"),
            ("options", "[]"),
            ("attributes", &*attributes),
            ("read-only", "false"),
            ("secret", &*secret),
        ];
        self.apply("volume.yaml", &[values, &usual].concat());
    }

    /// Makes a pod with a claim at /data.
    #[track_caller]
    pub fn pod(&self, name: &str, volume: &str) {
        self.pod_with(name, volume, &[]);
    }

    /// The same with other values than the usual: read-only, service-account.
    #[track_caller]
    pub fn pod_with(&self, name: &str, volume: &str, values: &[(&str, &str)]) {
        let usual = [("pod", name), ("volume", volume), ("read-only", "false"), ("service-account", "default")];
        self.apply("pod.yaml", &[values, &usual].concat());
    }

    /// Runs kubectl in the namespace.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        kubectl(&[&["-n", self.name], arguments].concat())
    }

    /// The same for what may fail.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Finished {
        program("kubectl", &[&["-n", self.name], arguments].concat())
    }

    /// Waits until these pods are ready.
    #[track_caller]
    pub fn ready(&self, pods: &[&str]) {
        for pod in pods {
            self.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=150s"]);
        }
    }

    /// Runs a script in a pod; what it printed, without the last newline.
    #[track_caller]
    pub fn sh(&self, pod: &str, script: &str) -> String {
        self.kubectl(&["exec", pod, "--", "sh", "-c", script]).trim_end().to_owned()
    }

    /// The same for what may fail; standard output and error.
    pub fn try_sh(&self, pod: &str, script: &str) -> Result<String, String> {
        let finished = self.try_kubectl(&["exec", pod, "--", "sh", "-c", script]);
        if finished.status.success() { Ok(finished.stdout) } else { Err(finished.stdout + &finished.stderr) }
    }

    /// Ends a pod, and waits until it is gone.
    #[track_caller]
    pub fn delete_pod(&self, pod: &str) {
        self.kubectl(&["delete", "pod", pod, "--timeout=120s"]);
    }

    /// Text of a blob of the scenario's container, if it is there.
    pub fn blob(&self, name: &str) -> Option<String> {
        self.cluster.emulator.get(self.name, name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn until(&self, what: &str, look: impl FnMut() -> Result<(), String>) {
        until(what, PATIENCE, look);
    }

    /// The node's mounts whose source is a container of this scenario.
    pub fn mounts(&self) -> Vec<String> {
        let mark = format!("/{}", self.name);
        mounts().into_iter().filter(|line| line.contains(&mark)).collect()
    }

    /// What the cluster says of the scenario, for whoever reads its failure.
    fn show(&self) {
        let said = |arguments: &[&str]| {
            let finished = program("kubectl", arguments);
            finished.stdout + &finished.stderr
        };
        eprintln!("{}", said(&["-n", self.name, "get", "pods,pvc,events", "-o", "wide"]));
        eprintln!("{}", said(&["-n", NAMESPACE, "get", "pods"]));
        eprintln!("{}", said(&["-n", NAMESPACE, "logs", NODE_PLUGIN, "-c", "blob", "--tail=40"]));
    }

    /// Deletes what the scenario has made: users of claims first, claims next, and the Secret that their volumes are deleted with last.
    fn clean(&self) -> bool {
        let delete = |arguments: &[&str]| {
            let finished =
                program("kubectl", &[&["delete", "--timeout=150s", "--ignore-not-found"], arguments].concat());
            if !finished.status.success() {
                eprintln!("{}{}", finished.stdout, finished.stderr);
            }
            finished.status.success()
        };
        let label = format!("e2e={}", self.name);
        let workloads = delete(&["-n", self.name, "deployment,statefulset,pod", "--all"]);
        let snapshots = delete(&["-n", self.name, "volumesnapshot", "--all"]);
        let claims = delete(&["-n", self.name, "pvc", "--all"]);
        let ours = format!("jsonpath={{.items[?(@.spec.storageClassName=='{}')].metadata.name}}", self.name);
        let made = Instant::now() + PATIENCE;
        while !program("kubectl", &["get", "pv", "-o", &ours]).stdout.is_empty() && Instant::now() < made {
            thread::sleep(Duration::from_secs(1));
        }
        let namespace = delete(&["namespace", self.name]);
        let volumes = delete(&["volumesnapshotcontent,volumesnapshotclass,pv,storageclass", "-l", &label]);
        workloads && snapshots && claims && namespace && volumes
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show();
            self.clean();
            return;
        }
        assert!(self.clean(), "objects of {} could not be deleted", self.name);
        self.until("its mounts to be gone", || match self.mounts() {
            left if left.is_empty() => Ok(()),
            left => Err(left.join("\n")),
        });
    }
}

/// The node's FUSE mounts, as lines of mountinfo.
pub fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(" - fuse")).map(str::to_owned).collect()
}
