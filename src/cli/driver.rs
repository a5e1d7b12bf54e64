//! What the two CSI roles have in common: flags, runtime, signals.

use std::{
    future::Future,
    path::{Path, PathBuf},
};

use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use super::Failure;
use crate::{
    credential::{Cloud, Trust},
    csi::request::Defaults,
    kube::{Api, SERVICE_ACCOUNT_DIRECTORY},
};

/// Flags of both roles.
#[derive(Debug, clap::Args)]
pub(super) struct DriverArgs {
    /// The socket to serve CSI on.
    #[arg(long, env = "CSI_ENDPOINT", default_value = "unix:///csi/csi.sock", value_name = "SOCKET")]
    pub(super) endpoint: String,
    /// Name of the driver, as StorageClasses and PersistentVolumes write it.
    #[arg(long, visible_alias = "drivername", default_value = "blob.csi.azure.com", value_name = "NAME")]
    driver_name: String,
    /// Cloud whose endpoints volumes use that name neither server, storageEndpointSuffix nor cloud.
    #[arg(long, default_value = "AzurePublicCloud", env = "AZURE_ENVIRONMENT", value_name = "NAME")]
    cloud: String,
    /// The cluster's cloud config: which identity lists keys and reads key vaults for volumes without a Secret [default: the
    /// Secret azure-cloud-provider where it is mounted at /etc/azblob-csi/cloud-config, or /etc/kubernetes/azure.json].
    #[arg(long, env = "AZURE_CREDENTIAL_FILE", value_name = "FILE")]
    cloud_config: Option<PathBuf>,
    /// Where the driver's service account is. With rights to read Secrets, those that a volume names or that are called after its
    /// account are found, and one that a mounted volume was staged with is read again when it is refused.
    #[arg(long, default_value = SERVICE_ACCOUNT_DIRECTORY, value_name = "DIR")]
    service_account_dir: PathBuf,
}

/// Where the cloud config is looked for. The first is the manifests' mount of the Secret.
const CLOUD_CONFIGS: [&str; 2] = ["/etc/azblob-csi/cloud-config/cloud-config", "/etc/kubernetes/azure.json"];

impl DriverArgs {
    /// What every volume inherits.
    ///
    /// # Errors
    /// A driver name that Kubernetes does not allow, or an unknown cloud.
    pub(super) fn defaults(&self, trust: Trust) -> Result<Defaults, Failure> {
        check_name(&self.driver_name)?;
        let cloud = Cloud::from_name(&self.cloud).map_err(|error| Failure::from_chain(&error))?;
        let cloud_config = match &self.cloud_config {
            Some(file) => vec![file.clone()],
            None => CLOUD_CONFIGS.map(PathBuf::from).to_vec(),
        };
        Ok(Defaults {
            cloud_config,
            api: api(&self.service_account_dir),
            ..Defaults::new(&self.driver_name, cloud, trust)
        })
    }
}

/// The API server of the cluster, where there is one that can be asked. Said once, since nothing else needs it.
fn api(directory: &Path) -> Option<Api> {
    match Api::in_cluster(|name| std::env::var(name).ok(), directory) {
        Ok(Some(api)) => Some(api),
        Ok(None) => {
            tracing::info!(
                "no access to the API server: Secrets are only those that are handed over, and no event is written"
            );
            None
        }
        Err(error) => {
            tracing::warn!("the API server cannot be asked: {error}");
            None
        }
    }
}

/// CSI: at most 63 characters, a domain name. It also becomes part of paths, so nothing else is let through.
fn check_name(name: &str) -> Result<(), Failure> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let right = name.len() <= 63 && name.chars().all(allowed) && ends(name.chars().next()) && ends(name.chars().last());
    if right {
        return Ok(());
    }
    Err(Failure::new(format!(
        "--driver-name {name:?} is not a domain name of at most 63 characters, such as blob.csi.azure.com"
    )))
}

pub(super) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start threads: {error}")))
}

/// Resolves at the first SIGTERM or SIGINT. Signals are caught from the call on.
///
/// # Errors
/// When the kernel does not let us handle signals.
pub(super) fn stop() -> Result<impl Future<Output = ()> + Send, Failure> {
    let listen = |kind| -> Result<Signal, Failure> {
        signal(kind).map_err(|error| Failure::new(format!("cannot handle signals: {error}")))
    };
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to end");
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_name_is_a_domain_name() {
        assert!(check_name("blob.csi.azure.com").is_ok());
        for bad in ["", "../x", "a/b", ".a", "a.", &"a".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
