//! A full node, whose plugin is killed: all of its volumes are gone on with together.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use ::harness::Keeper;

use crate::harness::{Cluster, DRIVER};

const BINARY: &str = env!("CARGO_BIN_EXE_azblob-csi");
/// What a node has at most, as the Azure disks of a large one.
const VOLUMES: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_volumes_are_gone_on_with_at_once() {
    let scratch = tempfile::tempdir().unwrap();
    let socket = scratch.path().join("keeper.sock");
    let keeper = Keeper::start(BINARY, &socket, &[]);
    let arguments = ["--keeper", socket.to_str().unwrap()];
    let mut cluster = Cluster::start_apart(&[], &arguments).await;
    let mut volumes = Vec::new();
    for number in 0..VOLUMES {
        cluster.staging = format!("plugins/kubernetes.io/csi/{DRIVER}/{number:04}/globalmount");
        let volume = cluster.staged(&format!("pvc-{number}")).await;
        let target = cluster.target(&format!("pod-{number}"));
        cluster.publish(&volume, &target).await;
        volumes.push((volume, cluster.staging.clone(), target));
    }
    let all = "pods/*/volumes/kubernetes.io~csi/pv1/mount";
    cluster.sh(&format!("for pod in {all}; do echo kept >$pod/file; done")).await;
    let (before, resident) = (cluster.mounts(), cluster.resident_kib(DRIVER));
    cluster.kill(DRIVER);

    let began = Instant::now();
    // Somebody waits in each of them.
    let script = format!("for pod in {all}; do cat $pod/file & done; wait");
    let mut readers = Command::new("timeout");
    readers.args(["-k", "5", "60", "sh", "-c", &script]).current_dir(cluster.path("")).stdout(Stdio::piped());
    let readers = readers.spawn().unwrap();
    cluster.node = cluster.spawn(DRIVER, &[], &arguments).await;
    let read = tokio::task::spawn_blocking(move || readers.wait_with_output().unwrap()).await.unwrap();
    let took = began.elapsed();
    std::fs::copy(cluster.path("node.log"), "/tmp/node.log").unwrap();
    assert_eq!(String::from_utf8(read.stdout).unwrap(), "kept\n".repeat(VOLUMES), "{}", cluster.log());
    assert_eq!(cluster.mounts(), before);
    println!(
        "{VOLUMES} volumes were read {took:.2?} after the next plugin was started; resident: the plugin {} KiB, the one before {resident} \
         KiB, the keeper {} KiB",
        cluster.resident_kib(DRIVER),
        keeper.rss_bytes() >> 10
    );
    // Threads have buffers of 16 MiB, which must not be resident for nothing.
    assert!(resident < 200 << 10, "{resident} KiB");
    for (volume, staging, target) in volumes {
        cluster.unpublish(&volume, &target).await;
        cluster.staging = staging;
        cluster.unstage(&volume).await.unwrap();
    }
    assert!(cluster.mounts().is_empty());
}
