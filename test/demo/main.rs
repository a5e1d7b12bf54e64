//! `make demo`: a container becomes a volume, told step by step, in under a minute.
//!
//! It plays the parts of Kubernetes: the provisioner that calls the controller, the kubelet that calls the node, and a
//! pod that works in the directory it is given. Every call is a real CSI call over the driver's own sockets; the
//! service is the emulator, or Azurite with DEMO=azurite; another client is Microsoft's Python SDK. It fails with exit
//! code 1 when anything is not as it should be. Holds no file open below a mount: pods are other processes.

mod plugins;
mod pod;
mod service;
mod volume;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use plugins::Plugins;
use pod::Pod;
use service::Service;
use volume::Volume;

/// What the claim asks for, and what it is expanded to.
const CLAIM_BYTES: i64 = 10 << 30;
const EXPANDED_BYTES: i64 = 20 << 30;

/// A name that another client has made shows within metadata-ttl, which is a second here.
const FOREIGN_FILE: &str = "for _ in $(seq 50); do [ -e notes ] && break; sleep 0.1; done; \
                            sed 's|^|   notes/from-python.txt: |' notes/from-python.txt";

fn main() -> ExitCode {
    let began = Instant::now();
    let outcome = tokio::runtime::Runtime::new().context("cannot start threads").and_then(|runtime| {
        let outcome = runtime.block_on(demonstrate());
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => {
            println!(
                "\nDone in {:.1} s: every step was checked, and nothing is left behind.",
                began.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A line of the story, above what proves it.
fn say(text: &str) {
    println!("\n\x1b[1m== {text}\x1b[0m");
}

async fn demonstrate() -> Result<()> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = tempfile::tempdir().context("cannot make a directory")?;

    say("A Blob service, and the two halves of the driver on their sockets");
    let service = Service::start(project)?;
    println!("   {}", service.describe());
    let mut plugins = Plugins::start(directory.path()).await?;
    println!("   {}", plugins.introduce().await?);

    let outcome = tell(project, directory.path(), &service, &mut plugins).await;
    let ended = plugins.end();
    if outcome.is_err() {
        plugins.print_logs();
    }
    outcome?;
    ended
}

/// The life of one volume.
async fn tell(project: &Path, directory: &Path, service: &Service, plugins: &mut Plugins) -> Result<()> {
    say("A claim of 10 GiB: the provisioner calls CreateVolume, and a container is made");
    let mut volume = Volume::create(plugins, service, directory, CLAIM_BYTES).await?;
    println!("   container {}   handle {}", volume.container(), volume.handle());

    say("A pod is scheduled: the kubelet calls NodeStageVolume, then NodePublishVolume");
    volume.stage(plugins, service).await?;
    let target = volume.publish(plugins, "pod-1", false).await?;
    let pod = Pod::new(&target);
    print!("{}", pod.shell("df -h . | sed 's/^/   /'")?);

    say("The pod copies a source tree into its volume: this project's own");
    let local = take_source(project, directory)?;
    let began = Instant::now();
    pod.shell(&format!("cp -r {}/. project", local.display()))?;
    let files = pod.shell("find project -type f | wc -l")?;
    println!(
        "   cp -r of {} files took {:.1} s; each close returned when its blob was there",
        files.trim(),
        began.elapsed().as_secs_f64()
    );
    print!("{}", pod.shell("ls -l project | head -n 9 | sed 's/^/   /'")?);

    say("md5sum of every file, in the volume and outside");
    let sums = equal_sums(&pod, &local, "project")?;
    println!("   {sums} files, all equal");

    say("The same blobs as another Azure client sees them: Microsoft's Python SDK");
    print!("{}", service.look(project, volume.container(), directory)?);
    println!("   and what that client has just written, the pod reads:");
    print!("{}", pod.shell(FOREIGN_FILE)?);
    let downloaded = directory.join("downloaded/project");
    println!("   {} files as downloaded by it, all equal", equal_sums(&Pod::new(&downloaded), &local, ".")?);

    say("The claim grows to 20 GiB; the pod ends, and another one starts with the volume read-only");
    volume.expand(plugins, service, EXPANDED_BYTES).await?;
    volume.unpublish(plugins, "pod-1").await?;
    volume.unstage(plugins).await?;
    volume.stage(plugins, service).await?;
    let target = volume.publish(plugins, "pod-2", true).await?;
    let second = Pod::new(&target);
    let size = second.shell("df --output=size -B1 . | tail -n 1")?;
    ensure!(size.trim() == EXPANDED_BYTES.to_string(), "df says {} bytes, not {EXPANDED_BYTES}", size.trim());
    print!("{}", second.shell("df -h . | sed 's/^/   /'")?);
    println!("   {} files, all equal after the fresh mount", equal_sums(&second, &local, "project")?);
    println!("   {}", second.refused("touch new-file")?);

    say("The claim is deleted: unpublish, unstage, DeleteVolume");
    volume.unpublish(plugins, "pod-2").await?;
    volume.unstage(plugins).await?;
    let left = volume.mounts_left()?;
    ensure!(left.is_empty(), "mounts were left behind: {left:?}");
    let container = volume.container().to_owned();
    volume.delete(plugins, service).await?;
    let gone = service.is_gone(project, &container)?;
    ensure!(gone, "container {container} still exists after DeleteVolume");
    println!("   no mount is left, and container {container} is gone");
    Ok(())
}

/// The project's sources in a directory of their own, without what tools have put beside them.
fn take_source(project: &Path, directory: &Path) -> Result<PathBuf> {
    let local = directory.join("source");
    std::fs::create_dir(&local)?;
    Pod::new(project).shell(&format!(
        "tar --exclude=.git --exclude=./target --exclude=node_modules --exclude=.venv -cf - . | tar -C {} -xf -",
        local.display()
    ))?;
    Ok(local)
}

/// Compares the sums of all files below `inside` of a pod's directory with those of `local`; returns how many.
fn equal_sums(pod: &Pod, local: &Path, inside: &str) -> Result<usize> {
    const SUMS: &str = "find . -type f -print0 | sort -z | xargs -0 md5sum";
    let there = pod.shell(&format!("cd {inside} && {SUMS}"))?;
    let here = Pod::new(local).shell(SUMS)?;
    let differing = here.lines().find(|line| !there.lines().any(|other| other == *line));
    ensure!(there == here, "the copies differ, first at: {}", differing.unwrap_or("(a file too many)"));
    Ok(here.lines().count())
}
