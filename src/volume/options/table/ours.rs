//! What we implement.

use std::time::Duration;

use super::{MountOptions, Row, Takes, assign, known_as, refused, sets};
use crate::{
    credential::{AuthMode, Cloud},
    fs::{BLOCK_DIVISOR_MAX, Consistency, Durability, Quota},
    volume::options::value::{parse_duration, parse_flag, parse_id, parse_mode},
};

/// An answer older than this would be no check any more, but a matter of `consistency` and `metadata-ttl`.
const SIBLING_AGE_MAX: Duration = Duration::from_secs(10);

fn consistency(text: &str) -> Result<Consistency, String> {
    match text.to_ascii_lowercase().as_str() {
        "close-to-open" => Ok(Consistency::CloseToOpen),
        "exclusive" => Ok(Consistency::Exclusive),
        "immutable" => Ok(Consistency::Immutable),
        _ => Err("close-to-open, exclusive or immutable".to_owned()),
    }
}

fn durability(text: &str) -> Result<Durability, String> {
    match text.to_ascii_lowercase().as_str() {
        "close" => Ok(Durability::Close),
        "fsync" => Ok(Durability::Fsync),
        _ => Err("close or fsync".to_owned()),
    }
}

fn warm_up(text: &str) -> Result<Vec<String>, String> {
    let paths = text.split(':').map(|path| path.trim_matches('/').to_owned()).collect::<Vec<_>>();
    let plain = |path: &String| path.split('/').all(|part| part != ".." && part != ".");
    match text.split(':').all(|path| !path.is_empty()) && paths.iter().all(plain) {
        true => Ok(paths),
        false => Err("paths inside the volume with `:` in between, such as models:data/train, or / for all".to_owned()),
    }
}

fn parse_divisor(text: &str) -> Result<u64, String> {
    let divisor = text.parse().ok().filter(|divisor: &u64| divisor.is_power_of_two() && *divisor <= BLOCK_DIVISOR_MAX);
    divisor.ok_or_else(|| format!("a power of two up to {BLOCK_DIVISOR_MAX}"))
}

/// A deadline under a second would be met by no service.
fn deadline(text: &str) -> Result<Duration, String> {
    let asked = parse_duration(text)?;
    if asked < Duration::from_secs(1) { Err("a duration of at least 1s".to_owned()) } else { Ok(asked) }
}

/// The text, unless it is only white space.
fn text(text: &str) -> Result<Option<String>, String> {
    Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
}

fn auth(text: &str) -> Result<Option<AuthMode>, String> {
    let mode = AuthMode::find(text)
        .ok_or("key, sas, connection_string, workload_identity, msi, spn, azcli, default or anonymous");
    mode.map(Some).map_err(str::to_owned)
}

fn cloud(text: &str) -> Result<Option<Cloud>, String> {
    let expected = "AzurePublicCloud, AzureUSGovernment, AzureChinaCloud or AzureGermanCloud";
    Cloud::from_name(text).map(Some).map_err(|_| expected.to_owned())
}

fn sibling_age(text: &str) -> Result<Duration, String> {
    let asked = parse_duration(text)?;
    if asked > SIBLING_AGE_MAX { Err("a duration of at most 10s".to_owned()) } else { Ok(asked) }
}

/// libfuse and blobfuse have several timeouts where we have one: the shortest asked for keeps every one of them.
fn kernel_timeout(options: &mut MountOptions, text: &str) -> Result<(), String> {
    let asked = parse_duration(text)?;
    options.kernel_timeout = Some(options.kernel_timeout.map_or(asked, |other| other.min(asked)));
    Ok(())
}

fn quota(text: &str) -> Result<Quota, String> {
    match text.to_ascii_lowercase().as_str() {
        "off" => Ok(Quota::Off),
        "soft" => Ok(Quota::Soft),
        "hard" => Ok(Quota::Hard),
        _ => Err("off, soft or hard".to_owned()),
    }
}

pub(super) const ROWS: &[Row] = &[
    sets("ro", Takes::Flag, "false", "Read-only: every change is refused with EROFS.", |o, v| {
        assign(&mut o.read_only, parse_flag(v))
    }),
    sets("rw", Takes::Flag, "true", "Read and write.", |o, v| assign(&mut o.read_only, parse_flag(v).map(|on| !on))),
    sets(
        "allow_other",
        Takes::Flag,
        "false",
        "Other users than the one that mounted may use the mount. Without any mode or umask, files and directories that do not carry their own mode then show 0777, as with blobfuse.",
        |o, v| assign(&mut o.allow_other, parse_flag(v)),
    ),
    sets("uid", Takes::Id, "0", "Owner of files whose blob does not name one.", |o, v| {
        assign(&mut o.uid, parse_id(v).map(Some))
    }),
    sets("gid", Takes::Id, "0", "Group of files whose blob does not name one.", |o, v| {
        assign(&mut o.gid, parse_id(v).map(Some))
    }),
    sets(
        "umask",
        Takes::Mode,
        "none",
        "Permission bits taken from 0777 for files and directories that do not carry their own mode, where file_mode or dir_mode is not given.",
        |o, v| assign(&mut o.umask, parse_mode(v).map(Some)),
    ),
    sets("file_mode", Takes::Mode, "0644", "Permission bits of files whose blob does not carry its own.", |o, v| {
        assign(&mut o.file_mode, parse_mode(v).map(Some))
    }),
    sets("dir_mode", Takes::Mode, "0755", "Permission bits of directories that do not carry their own.", |o, v| {
        assign(&mut o.dir_mode, parse_mode(v).map(Some))
    }),
    sets(
        "metadata-ttl",
        Takes::Duration,
        "10s",
        "How old a name or an attribute may be before the service is asked again. Opening an existing file always asks.",
        |o, v| assign(&mut o.metadata_ttl, parse_duration(v).map(Some)),
    ),
    sets(
        "consistency",
        Takes::Text,
        "close-to-open",
        "close-to-open: an open sees every close that returned before it. exclusive: nobody else writes, nothing expires. immutable: blobs never change; read-only.",
        |o, v| assign(&mut o.consistency, consistency(v).map(Some)),
    ),
    sets(
        "sibling-age",
        Takes::Duration,
        "1s",
        "Small files of a directory that is read through are fetched ahead; how old the answer may be that their open rests on, at most 10s. 0: none is fetched ahead, and every open asks for itself.",
        |o, v| assign(&mut o.sibling_age, sibling_age(v).map(Some)),
    ),
    sets(
        "append-age",
        Takes::Duration,
        "5s",
        "How old appended data (O_APPEND) gets before others see it without an fsync or close, so that a log can be followed; 0: only those.",
        |o, v| assign(&mut o.append_age, parse_duration(v).map(Some)),
    ),
    sets(
        "durability",
        Takes::Text,
        "close",
        "What close(2) waits for. close: the service. fsync: a journal in the spool directory; uploads follow in the background, fsync and unmounting wait for them, and a killed process's journal is sent at the next start.",
        |o, v| assign(&mut o.durability, durability(v).map(Some)),
    ),
    sets(
        "journal-age",
        Takes::Duration,
        "0s",
        "With durability=fsync: how old what was closed gets before the journal is forced to the disk. A killed process loses nothing in any case; a node that loses power loses at most what was closed for so long. 0: each close waits for the disk.",
        |o, v| assign(&mut o.journal_age, parse_duration(v).map(Some)),
    ),
    sets(
        "warmup",
        Takes::Text,
        "nothing",
        "Files and directories, with `:` in between, whose content is fetched into the cache once the volume is mounted; `/` is all of it. Goes on where it was after a restart with a cache directory, and takes no more than fits there (without one, half of the memory).",
        |o, v| assign(&mut o.warm_up, warm_up(v)),
    ),
    sets(
        "io-deadline",
        Takes::Duration,
        "60s",
        "How long a read, a listing or an operation on names may take, all tries together; then ETIMEDOUT. At least 1s.",
        |o, v| assign(&mut o.io_deadline, deadline(v).map(Some)),
    ),
    sets(
        "commit-deadline",
        Takes::Duration,
        "300s",
        "How long one request that sends data, a commit or a copy may take, all tries together; then ETIMEDOUT, and the data is kept. At least 1s.",
        |o, v| assign(&mut o.commit_deadline, deadline(v).map(Some)),
    ),
    sets(
        "escape_names",
        Takes::Flag,
        "false",
        "Shows blobs whose names no path can hold (`a//b`, `d/`) under reversible escapes instead of hiding them.",
        |o, v| assign(&mut o.escape_names, parse_flag(v)),
    ),
    known_as(
        sets("create-container", Takes::Flag, "false", "Makes the container when it is missing.", |o, v| {
            assign(&mut o.create_container, parse_flag(v))
        }),
        &["createContainer"],
    ),
    sets(
        "excl",
        Takes::Text,
        "lazy",
        "strict: O_EXCL asks the service at once even in directories that this mount made; lazy: there it is checked at the commit.",
        |o, v| {
            assign(
                &mut o.excl_strict,
                match v {
                    "strict" => Ok(true),
                    "lazy" => Ok(false),
                    _ => Err("strict or lazy".to_owned()),
                },
            )
        },
    ),
    sets(
        "test-block-divisor",
        Takes::Number,
        "1",
        "For tests of this program: divides the sizes of blocks, so that small files meet what large ones do. A power of two up to 4096.",
        |o, v| assign(&mut o.block_divisor, parse_divisor(v).map(Some)),
    ),
    known_as(
        sets("subdirectory", Takes::Text, "none", "Only what lies below this prefix of the container.", |o, v| {
            assign(&mut o.prefix, Ok(Some(v.trim_matches('/').to_owned())))
        }),
        &["prefix"],
    ),
    sets("container-name", Takes::Text, "none", "The container, where nothing else names it.", |o, v| {
        assign(&mut o.container, Ok(Some(v.to_owned())))
    }),
    known_as(
        sets(
            "auth",
            Takes::Text,
            "found by itself",
            "How to sign in: key, sas, connection_string, workload_identity, msi, spn, azcli, default or anonymous. Without it: a connection string, key or SAS that is set; then a service principal, workload identity or managed identity that is set; then anonymous. default asks all of these identities in turn, then the machine's own and the Azure CLI.",
            |o, v| assign(&mut o.auth, auth(v)),
        ),
        &["auth-type", "auth-mode"],
    ),
    known_as(
        sets(
            "client-id",
            Takes::Text,
            "AZURE_CLIENT_ID",
            "Client ID of the identity that signs in: an application, or a managed identity of this machine.",
            |o, v| assign(&mut o.identity.id.client_id, text(v)),
        ),
        &["clientid", "appid", "identity-client-id"],
    ),
    known_as(
        sets("object-id", Takes::Text, "none", "Object ID of the managed identity, in place of client-id.", |o, v| {
            assign(&mut o.identity.id.object_id, text(v))
        }),
        &["objid", "identity-object-id"],
    ),
    known_as(
        sets(
            "resource-id",
            Takes::Text,
            "none",
            "Azure resource ID of the managed identity (/subscriptions/...), in place of client-id.",
            |o, v| assign(&mut o.identity.id.resource_id, text(v)),
        ),
        &["resid", "identity-resource-id"],
    ),
    known_as(
        sets("tenant-id", Takes::Text, "AZURE_TENANT_ID", "Tenant of the identity that signs in.", |o, v| {
            assign(&mut o.identity.tenant_id, text(v))
        }),
        &["tenantid"],
    ),
    sets(
        "token-file",
        Takes::Text,
        "AZURE_FEDERATED_TOKEN_FILE",
        "File with the federated token of workload identity; read anew for every exchange.",
        |o, v| assign(&mut o.identity.token_file, text(v).map(|file| file.map(Into::into))),
    ),
    sets(
        "certificate-file",
        Takes::Text,
        "AZURE_CLIENT_CERTIFICATE_PATH",
        "PEM file with certificate and RSA key of a service principal, in place of its secret; read anew for every token.",
        |o, v| assign(&mut o.identity.certificate_file, text(v).map(|file| file.map(Into::into))),
    ),
    known_as(
        sets(
            "aad-endpoint",
            Takes::Text,
            "AZURE_AUTHORITY_HOST, or that of the cloud",
            "Host of Entra ID, such as https://login.microsoftonline.us.",
            |o, v| assign(&mut o.identity.authority, text(v)),
        ),
        &["aadendpoint", "authority-host"],
    ),
    sets(
        "msi-endpoint",
        Takes::Text,
        "http://169.254.169.254",
        "Where managed identities are asked for, if not at the machine's own identity service.",
        |o, v| assign(&mut o.identity.msi_endpoint, text(v)),
    ),
    known_as(
        sets(
            "token-audience",
            Takes::Text,
            "https://storage.azure.com",
            "Resource that tokens are made for: only custom clouds have another.",
            |o, v| assign(&mut o.identity.audience, text(v)),
        ),
        &["auth-resource"],
    ),
    sets(
        "cloud",
        Takes::Text,
        "found by endpoint, authority or AZURE_ENVIRONMENT",
        "AzurePublicCloud, AzureUSGovernment, AzureChinaCloud or AzureGermanCloud.",
        |o, v| assign(&mut o.cloud, cloud(v)),
    ),
    known_as(
        refused(
            "client-secret",
            Takes::Text,
            "everybody can read mount options; set AZURE_STORAGE_SPN_CLIENT_SECRET, or the Secret's azurestoragespnclientsecret",
        ),
        &["clientsecret"],
    ),
    known_as(
        sets("read-only", Takes::Flag, "false", "The same as ro.", |o, v| assign(&mut o.read_only, parse_flag(v))),
        &[],
    ),
    known_as(
        sets(
            "attr_timeout",
            Takes::Duration,
            "none",
            "Stands in for metadata-ttl where that is not given; of several timeouts the shortest counts.",
            kernel_timeout,
        ),
        &["attribute-expiration-sec"],
    ),
    known_as(
        sets("entry_timeout", Takes::Duration, "none", "As attr_timeout.", kernel_timeout),
        &["entry-expiration-sec"],
    ),
    known_as(
        sets("negative_timeout", Takes::Duration, "none", "As attr_timeout.", kernel_timeout),
        &["negative-entry-expiration-sec"],
    ),
    known_as(
        sets("attr-cache-timeout", Takes::Duration, "none", "As attr_timeout.", kernel_timeout),
        &["attr-cache-timeout-sec"],
    ),
    sets(
        "quota",
        Takes::Text,
        "soft",
        "Where the volume has a capacity. soft: what is in use is counted and shown by df. hard: writes beyond the capacity are refused with EDQUOT as well. off: nothing is counted, and all of the capacity shows as free.",
        |o, v| assign(&mut o.quota, quota(v).map(Some)),
    ),
    sets(
        "stats_file",
        Takes::Flag,
        "false",
        "A file `.azblob-stats` in the root tells the volume's figures; it is not listed, and can only be read. A blob of that name is not reached meanwhile.",
        |o, v| assign(&mut o.stats_file, parse_flag(v)),
    ),
];
