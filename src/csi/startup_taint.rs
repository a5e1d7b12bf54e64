//! The taint that keeps pods from a node until its plugin can mount for them: `DRIVER/agent-not-ready`, the name that the CSI drivers
//! of Azure Disk and of AWS give to theirs. Whoever makes nodes puts it there (a node pool's taints, `--register-with-taints`);
//! the plugin takes it from its own node once the kubelet has registered the driver. Without it a pod that is scheduled to a
//! new node before that fails its first mounts ("driver name ... not found in the list of registered CSI drivers").

use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::kube::{Api, Error};

/// What comes behind the driver's name.
const KEY: &str = "agent-not-ready";
/// First pause before the API server is asked again; doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Longest of these pauses. A right that is missing is granted by people.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Removes the taint of `driver` from the node `node` once `registered` says that the kubelet has taken the driver. Tries until it
/// succeeds: nothing else depends on it.
pub async fn remove(api: Api, driver: String, node: String, mut registered: watch::Receiver<bool>) {
    if registered.wait_for(|registered| *registered).await.is_err() {
        return; // The plugin ends.
    }
    let key = format!("{driver}/{KEY}");
    let mut pause = PAUSE_FIRST;
    loop {
        match remove_once(&api, &node, &key).await {
            Ok(removed) => {
                tracing::info!(node, taint = key, removed, "the node takes pods");
                return;
            }
            // Somebody else has changed the node's taints between the two requests.
            Err(error @ Error::Refused { status: 409 | 422, .. }) => tracing::info!(node, "once more: {error}"),
            Err(error) => tracing::warn!(
                node,
                taint = key,
                "the taint stays for now: {error}; the node plugin needs the rights to get and patch nodes"
            ),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Whether the taint was there.
async fn remove_once(api: &Api, node: &str, key: &str) -> Result<bool, Error> {
    let taints = api.taints(node).await?;
    let others: Vec<Value> = taints.iter().filter(|taint| taint["key"] != key).cloned().collect();
    if others.len() == taints.len() {
        return Ok(false);
    }
    api.replace_taints(node, &taints, &others).await.map(|()| true)
}
