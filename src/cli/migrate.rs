//! `azblob-csi migrate`: manifests of other drivers on standard input, in files or in the cluster; equivalent ones on standard output.

use std::{
    io::{Read as _, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use super::Failure;
use crate::migrate::{self, Migration, Settings};

const EXAMPLES: &str = "\
Examples:
  azblob-csi migrate pv.yaml deployment.yaml > migrated.yaml
  kubectl get pv -o yaml | azblob-csi migrate --driver-name azblob.csi.dev | kubectl apply -f -
  azblob-csi migrate --cluster --name-suffix=-csi > migrated.yaml

Objects are printed that mount Azure Blob with the FlexVolume driver azure/blobfuse or with blob.csi.azure.com; what changes is said
on standard error. Nothing is applied. docs/MIGRATION.md has both ways step by step.
";

/// What is asked of a cluster: everything that can name a volume.
const KINDS: &str = "persistentvolumes,storageclasses.storage.k8s.io,deployments.apps,statefulsets.apps,daemonsets.apps,\
    replicasets.apps,replicationcontrollers,jobs.batch,cronjobs.batch,pods,podtemplates";

/// Translate volumes of the FlexVolume driver and of the Azure Blob CSI driver into volumes of this driver.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Manifests, YAML or JSON. `-`, or none: standard input.
    #[arg(value_name = "FILE", conflicts_with = "cluster")]
    files: Vec<PathBuf>,
    /// Ask the cluster of kubectl's current context, by kubectl.
    #[arg(long)]
    cluster: bool,
    /// Name under which this driver is installed.
    #[arg(long, visible_alias = "drivername", default_value = migrate::BLOB_CSI, value_name = "NAME")]
    driver_name: String,
    /// Namespace of Secrets that a FlexVolume names without one, where its claim does not tell.
    #[arg(long, short, default_value = "default", value_name = "NAME")]
    namespace: String,
    /// Put behind the names of PersistentVolumes: the source of one that exists cannot be changed.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT", allow_hyphen_values = true)]
    name_suffix: String,
}

/// Prints the objects; on standard error what changes.
///
/// # Errors
/// [`Failure`] when the input cannot be read, or an object cannot be translated; the others are printed all the same.
pub fn run(args: Args) -> Result<(), Failure> {
    let text = if args.cluster { of_cluster()? } else { of_files(&args.files)? };
    let settings = Settings { driver: args.driver_name, namespace: args.namespace, suffix: args.name_suffix };
    let found = migrate::migrate(&text, &settings).map_err(|error| Failure::from_chain(&error))?;
    let yaml = found.yaml().map_err(|error| Failure::from_chain(&error))?;
    let written = std::io::stdout().write_all(yaml.as_bytes()).and_then(|()| std::io::stdout().flush());
    written.map_err(|error| Failure::new(format!("cannot print: {error}")))?;
    report(&found)
}

fn report(found: &Migration) -> Result<(), Failure> {
    for warning in &found.warnings {
        eprintln!("warning: {warning}");
    }
    for failure in &found.failures {
        eprintln!("error: {failure}");
    }
    eprintln!("{} translated, {} have nothing to migrate", found.objects.len(), found.untouched);
    match found.failures.len() {
        0 => Ok(()),
        failed => Err(Failure::new(format!("{failed} objects could not be translated; the reasons stand above"))),
    }
}

fn of_files(files: &[PathBuf]) -> Result<String, Failure> {
    let mut texts = Vec::new();
    let standard = [PathBuf::from("-")];
    for file in if files.is_empty() { &standard[..] } else { files } {
        let mut text = String::new();
        let read = match file.to_str() {
            Some("-") => std::io::stdin().read_to_string(&mut text).map(drop),
            _ => std::fs::read_to_string(file).map(|found| text = found),
        };
        read.map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))?;
        texts.push(text);
    }
    Ok(texts.join("\n---\n"))
}

fn of_cluster() -> Result<String, Failure> {
    let mut kubectl = Command::new("kubectl");
    kubectl.args(["get", KINDS, "--all-namespaces", "-o", "json"]).stderr(Stdio::inherit());
    let output = kubectl.output().map_err(|error| {
        Failure::new(format!(
            "cannot run kubectl: {error}; install it, or pipe `kubectl get pv -o yaml` into this command"
        ))
    })?;
    if !output.status.success() {
        return Err(Failure::new(format!("kubectl get failed ({}); it said why above", output.status)));
    }
    String::from_utf8(output.stdout).map_err(|error| Failure::new(format!("kubectl printed no text: {error}")))
}
