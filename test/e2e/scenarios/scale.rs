//! Fifty volumes on one node: how long they take, and what they cost while nobody uses them. Times are printed; that an idle volume
//! makes no request is asserted.

use std::{
    fmt::Write as _,
    fs, thread,
    time::{Duration, Instant},
};

use crate::{
    kubectl::{apply, manifest},
    scenario::Scenario,
};

const VOLUMES: usize = 50;
const LATENCY: Duration = Duration::from_millis(10);
/// How long the idle node is looked at.
const IDLE: Duration = Duration::from_secs(60);

#[test]
fn fifty_idle_volumes_make_no_request() {
    let scenario = Scenario::alone("scale");
    let mut manifests = String::new();
    let secret = "{name: account, namespace: scale}";
    for number in 0..VOLUMES {
        let container = format!("scale-{number}");
        scenario.cluster.emulator.create_container(&container);
        let (name, attributes) = (format!("v{number}"), format!("{{containerName: {container}}}"));
        let values = [("volume", &*name), ("attributes", &attributes), ("secret", secret), ("access", "ReadWriteMany")];
        let usual =
            [("namespace", "scale"), ("driver", crate::install::DRIVER), ("options", "[]"), ("read-only", "false")];
        writeln!(manifests, "{}---", manifest("volume.yaml", &[&values[..], &usual].concat())).unwrap();
    }
    apply(&manifests);
    scenario.cluster.emulator.settings(|settings| settings.latency = LATENCY);
    scenario.until("the claims to be bound", || {
        let phases = scenario.kubectl(&["get", "pvc", "-o", "jsonpath={.items[*].status.phase}"]);
        if phases.split(' ').filter(|phase| *phase == "Bound").count() == VOLUMES { Ok(()) } else { Err(phases) }
    });
    apply(&pod());
    let began = Instant::now();
    scenario.ready(&["many"]);
    let took = began.elapsed();
    assert_eq!(scenario.sh("many", "for d in /data/*; do echo x >$d/file; done; cat /data/*/file | wc -l"), "50");
    scenario.cluster.emulator.reset_counters();
    let (before, began) = (processor_seconds(), Instant::now());
    thread::sleep(IDLE);
    let used = 100.0 * (processor_seconds() - before) / began.elapsed().as_secs_f64();
    let requests = scenario.cluster.emulator.counters().total();
    println!(
        "{VOLUMES} volumes, {LATENCY:?} latency: pod ready after {took:.1?}; idle: {used:.2} % of one CPU, {requests} requests in {IDLE:?}"
    );
    scenario.cluster.emulator.settings(|settings| settings.latency = Duration::ZERO);
    assert_eq!(requests, 0, "{:?}", scenario.cluster.emulator.counters());
}

/// A pod with all of the claims.
fn pod() -> String {
    let mounts: Vec<_> = (0..VOLUMES)
        .map(|number| serde_json::json!({ "name": format!("v{number}"), "mountPath": format!("/data/{number}") }))
        .collect();
    let volumes: Vec<_> = (0..VOLUMES)
        .map(|number| {
            let claim = format!("v{number}");
            serde_json::json!({ "name": claim, "persistentVolumeClaim": { "claimName": claim } })
        })
        .collect();
    let container = serde_json::json!({
        "name": "shell", "image": "localhost/tools:e2e", "command": ["sleep", "infinity"], "volumeMounts": mounts,
    });
    let spec = serde_json::json!({ "terminationGracePeriodSeconds": 1, "containers": [container], "volumes": volumes });
    let metadata = serde_json::json!({ "name": "many", "namespace": "scale" });
    serde_json::json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec }).to_string()
}

/// Processor time that the node plugin has used.
fn processor_seconds() -> f64 {
    /// USER_HZ, which is 100 on every architecture that Kubernetes runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = plugin_stat().expect("no node plugin runs");
    // utime and stime are the 14th and 15th field; the name of the program before them may hold spaces.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().unwrap()).sum();
    ticks / TICKS_PER_SECOND
}

/// /proc/PID/stat of the node plugin.
fn plugin_stat() -> Option<String> {
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let command = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        command.starts_with("/azblob-csi\0node\0").then(|| fs::read_to_string(entry.path().join("stat")).ok()).flatten()
    })
}
