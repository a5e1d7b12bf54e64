//! What an inline volume may say. Anybody who may make a pod writes its attributes, and the driver acts on them with the rights of
//! the node: so only what is listed passes, and nothing may lead an identity's token, or the driver's hand, elsewhere.

use super::{Effect, Parameters, Row};
use crate::{
    credential::Cloud,
    csi::error::{Error, Result},
    volume::options::{self, MountOptions},
};

/// Mount options that set something and concern the volume alone. Those without effect are harmless, but for [`BLOCKED`].
pub(super) const OPTIONS: [&str; 29] = [
    "ro",
    "rw",
    "read-only",
    "allow_other",
    "uid",
    "gid",
    "umask",
    "file_mode",
    "dir_mode",
    "metadata-ttl",
    "consistency",
    "sibling-age",
    "append-age",
    "durability",
    "journal-age",
    "quota",
    "io-deadline",
    "commit-deadline",
    "escape_names",
    "create-container",
    "excl",
    "subdirectory",
    "attr_timeout",
    "entry_timeout",
    "negative_timeout",
    "attr-cache-timeout",
    "noexec",
    "noatime",
    "stats_file",
];

/// Without effect here, and refused all the same, as by the Azure Blob CSI driver: whoever writes one means a path or a secret
/// of the node.
const BLOCKED: [&str; 8] = [
    "tmp-path",
    "block-cache-path",
    "config-file",
    "log-file-path",
    "container-name",
    "passphrase",
    "secure-config",
    "preload",
];

/// Whether a known key may stand in an inline volume; one that would do nothing anyway is left out.
///
/// # Errors
/// `Invalid` for one that would do something.
pub(super) fn admits(row: &Row) -> Result<bool> {
    match row.effect {
        _ if row.places.inline => Ok(true),
        Effect::Used | Effect::IdentityOf(_) => {
            Err(Error::invalid(format!("{} is not allowed in an inline volume, which any pod may write", row.key)))
        }
        _ => Ok(false),
    }
}

/// Checks what the attributes of an inline volume say together.
///
/// # Errors
/// `Invalid` naming what is not allowed.
pub(super) fn check(parameters: &Parameters) -> Result<()> {
    if let Some(written) = parameters.get("mountoptions") {
        check_options(written)?;
    }
    if let Some(authority) = parameters.get("azurestorageaadendpoint")
        && Cloud::of_authority(authority).is_none()
    {
        return Err(Error::invalid(format!(
            "AzureStorageAADEndpoint {authority:?} is no authority of a known cloud, and an inline volume may name no other"
        )));
    }
    if let (Some(secret), Some(pod)) =
        (parameters.get("secretnamespace"), parameters.get("csi.storage.k8s.io/pod.namespace"))
        && secret != pod
    {
        return Err(Error::invalid(format!(
            "secretNamespace {secret:?} is not the pod's namespace {pod:?}: an inline volume may use Secrets of its pod's namespace alone"
        )));
    }
    Ok(())
}

fn check_options(written: &str) -> Result<()> {
    let refused = |name: &str| Error::invalid(format!("mount option {name} is not allowed in an inline volume"));
    // Some of them are unknown to the parser, and then it would say so only.
    let words =
        written.split([',', ' ', '=']).map(|word| word.trim_start_matches('-').to_ascii_lowercase().replace('_', "-"));
    if let Some(name) = words.into_iter().find_map(|word| BLOCKED.into_iter().find(|blocked| **blocked == word)) {
        return Err(refused(name));
    }
    let (parsed, _) = MountOptions::parse([written]).map_err(|error| Error::invalid(error.to_string()))?;
    let sets = |name: &&str| {
        options::TABLE.iter().any(|row| row.name == *name && matches!(row.effect, options::Effect::Sets(_)))
    };
    match parsed.given.iter().copied().filter(sets).find(|name| !OPTIONS.contains(name)) {
        Some(name) => Err(refused(name)),
        None => Ok(()),
    }
}

/// Whether `host` is one of the account's own endpoints in a known cloud: the only ones that the node's or the cluster's identity
/// shows its token to for an inline volume.
#[must_use]
pub fn is_own_host(account: &str, host: &str) -> bool {
    let host = host.trim().trim_end_matches('/');
    let host = match host.split_once("://") {
        Some(("https", host)) => host,
        Some(_) => return false,
        None => host,
    };
    let host = host.to_ascii_lowercase();
    let Some(rest) = host.strip_prefix(&account.to_ascii_lowercase()) else { return false };
    let rest = rest.strip_prefix("-secondary").unwrap_or(rest);
    let Some(rest) = rest.strip_prefix('.') else { return false };
    // Zones of DNS: `ACCOUNT.z1.blob.storage.azure.net` to `z99`.
    let zoned = rest.strip_suffix(".blob.storage.azure.net").or(rest.strip_suffix(".dfs.storage.azure.net"));
    if let Some(number) = zoned.and_then(|zone| zone.strip_prefix('z')) {
        return number.len() <= 2 && !number.starts_with('0') && number.parse::<u8>().is_ok();
    }
    let rest = rest.strip_prefix("privatelink.").unwrap_or(rest);
    let suffix = rest.strip_prefix("blob.").or(rest.strip_prefix("dfs."));
    suffix.is_some_and(is_suffix)
}

/// Whether a storageEndpointSuffix is that of a known cloud.
#[must_use]
pub fn is_suffix(suffix: &str) -> bool {
    Cloud::of_storage_host(suffix).is_some_and(|cloud| cloud.storage_suffix() == suffix)
}
