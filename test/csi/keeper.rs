//! A node plugin and its keeper: whether there is one is said, and found out when it comes and goes.

use std::time::{Duration, Instant};

use ::harness::Keeper;
use nix::sys::signal::Signal;

use crate::harness::Cluster;

const BINARY: &str = env!("CARGO_BIN_EXE_azblob-csi");
const WITHIN: Duration = Duration::from_secs(60);

/// Waits until the plugin's page says whether there is a keeper.
async fn until_held(cluster: &Cluster, held: bool) {
    let line = format!("\nazblob_csi_keeper_held {}\n", u8::from(held));
    let end = Instant::now() + WITHIN;
    while !cluster.page("/metrics").await.contains(&line) {
        assert!(Instant::now() < end, "{line:?} is not said: {}", cluster.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_plugin_without_a_keeper_works_and_says_what_its_restart_means() {
    let mut cluster = Cluster::start_apart(&[], &[]).await;
    until_held(&cluster, false).await;
    assert!(cluster.log().contains("there is no keeper (--keeper)") && cluster.log().contains("drain the node first"));
    let volume = cluster.staged("pvc-1").await;
    cluster.unstage(&volume).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_keeper_may_come_after_the_plugin_and_go_and_come_back() {
    let scratch = tempfile::tempdir().unwrap();
    let socket = scratch.path().join("keeper.sock");
    let mut cluster = Cluster::start_apart(&[], &["--keeper", socket.to_str().unwrap()]).await;
    until_held(&cluster, false).await;
    let log = cluster.log();
    assert!(log.contains("no keeper answers at") && log.contains("drain the node first"), "{log}");
    let volume = cluster.staged("pvc-1").await;
    let keeper = Keeper::start(BINARY, &socket, &[]);
    until_held(&cluster, true).await;
    keeper.end_with(Signal::SIGKILL);
    until_held(&cluster, false).await;
    cluster.publish(&volume, "pod").await;
    cluster.sh("echo works > pod/file").await;
    let _keeper = Keeper::start(BINARY, &socket, &[]);
    until_held(&cluster, true).await;
    cluster.unpublish(&volume, "pod").await;
    cluster.unstage(&volume).await.unwrap();
}
