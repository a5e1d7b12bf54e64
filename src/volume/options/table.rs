//! The table: a row for every mount option that we or blobfuse know.
//!
//! Order: ours first, then mount(8)'s and libfuse's, then blobfuse's by theme. A row without effect says why in words
//! that an operator can act on; a row is refused where going on without its effect would be worse than failing.

use std::time::Duration;

use super::{
    MountOptions,
    value::{parse_duration, parse_flag, parse_id, parse_mode},
};
use crate::{
    credential::{AuthMode, Cloud},
    fs::{BLOCK_DIVISOR_MAX, Consistency, Durability},
};

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing, or `=true` and `=false`.
    Flag,
    /// A user or group number.
    Id,
    /// Permission bits in octal.
    Mode,
    /// A duration: `10s`, or plain seconds.
    Duration,
    /// A plain number.
    Number,
    /// Text.
    Text,
}

impl Takes {
    /// What is right, with an example.
    #[must_use]
    pub fn expected(self) -> &'static str {
        match self {
            Self::Flag => "true or false",
            Self::Id => "a number, such as 1000",
            Self::Mode => "permission bits in octal, such as 0755",
            Self::Duration => "seconds or a number with a unit, such as 10s",
            Self::Number => "a number",
            Self::Text => "text",
        }
    }

    /// How a synopsis shows the value.
    #[must_use]
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Flag => "",
            Self::Id => "=ID",
            Self::Mode => "=OCTAL",
            Self::Duration => "=DURATION",
            Self::Number => "=NUMBER",
            Self::Text => "=TEXT",
        }
    }
}

/// What an option does here. A setter answers a bad value with what it expected.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// It sets something.
    Sets(fn(&mut MountOptions, &str) -> Result<(), String>),
    /// It is accepted and logged as without effect, for this reason.
    None(&'static str),
    /// It fails the mount, for this reason.
    Refused(&'static str),
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its usual spelling. `_` and `-` are the same everywhere.
    pub name: &'static str,
    /// Its other names.
    pub also: &'static [&'static str],
    /// What it takes.
    pub takes: Takes,
    /// What holds without it, where it sets something.
    pub default: &'static str,
    /// What it does, for people; empty where the effect says it.
    pub doc: &'static str,
    /// What it does, for the parser.
    pub effect: Effect,
}

type Setter = fn(&mut MountOptions, &str) -> Result<(), String>;

const fn sets(name: &'static str, takes: Takes, default: &'static str, doc: &'static str, set: Setter) -> Row {
    Row { name, also: &[], takes, default, doc, effect: Effect::Sets(set) }
}

const fn none(name: &'static str, takes: Takes, reason: &'static str) -> Row {
    Row { name, also: &[], takes, default: "", doc: "", effect: Effect::None(reason) }
}

const fn refused(name: &'static str, takes: Takes, reason: &'static str) -> Row {
    Row { name, also: &[], takes, default: "", doc: "", effect: Effect::Refused(reason) }
}

const fn known_as(row: Row, also: &'static [&'static str]) -> Row {
    Row { also, ..row }
}

fn assign<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

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

/// An answer older than this would be no check any more, but a matter of `consistency` and `metadata-ttl`.
const SIBLING_AGE_MAX: Duration = Duration::from_secs(10);

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

const MEMORY: &str = "memory is one budget for the whole process: set --memory of the mount or the node plugin";
const DISK: &str = "the cache on the node's disk belongs to the whole process: --cache-dir and --cache-size of the mount or the node plugin";
const RETRY: &str = "requests are retried with backoff until io-deadline or commit-deadline";
const ALWAYS_EXACT: &str = "every open asks the service whether its copy is current, so no timeout is needed";
const PARALLEL: &str = "the number of requests in flight belongs to the process, not to one mount";
const LOGGING: &str = "logs go to stderr at the level of --log-level or AZBLOB_LOG";
const IN_PROCESS: &str = "there is no separate process or host install to prepare, check or wait for";
const MOUNT8: &str = "it steers mount(8) or fstab, not the file system";
const COMMIT: &str = "close and fsync always return after the commit, with its result";

/// Every option that is known. A name that is not here is an error.
pub const TABLE: &[Row] = &[
    // What we implement.
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
    // mount(8) and libfuse.
    none("default_permissions", Takes::Flag, "the kernel always checks permission bits"),
    none("nonempty", Takes::Flag, "mounting over a directory with contents is always possible"),
    none(
        "direct_io",
        Takes::Flag,
        "the page cache is kept only while the blob's ETag is unchanged, so cached pages are never stale at open",
    ),
    none("nosuid", Takes::Flag, "set-user-id bits never count on this file system"),
    none("nodev", Takes::Flag, "device nodes never count on this file system"),
    sets("noexec", Takes::Flag, "false", "Programs on the mount cannot be run.", |o, v| {
        assign(&mut o.no_exec, parse_flag(v))
    }),
    known_as(
        sets("noatime", Takes::Flag, "false", "The kernel does not touch access times.", |o, v| {
            assign(&mut o.no_atime, parse_flag(v))
        }),
        &["nodiratime"],
    ),
    known_as(
        none("defaults", Takes::Flag, MOUNT8),
        &["_netdev", "nofail", "noauto", "auto", "user", "users", "exec", "suid", "dev", "relatime", "async", "sync"],
    ),
    none("fsname", Takes::Text, "the source of the mount is always the container's URL"),
    none("max_read", Takes::Number, "request sizes are tuned after mounting"),
    none("big_writes", Takes::Flag, "large writes are always on"),
    none("auto_unmount", Takes::Flag, "the process unmounts when it ends in order"),
    known_as(none("max_threads", Takes::Number, PARALLEL), &["max-fuse-threads", "max_background"]),
    // blobfuse: names and directories.
    none("use-adls", Takes::Flag, "the kind of the account is asked of the service"),
    none("virtual-directory", Takes::Flag, "directories without a marker blob always show"),
    none("no-symlinks", Takes::Flag, "symbolic links cost no extra request"),
    refused(
        "filter",
        Takes::Text,
        "going on would show blobs that were to be hidden; use subdirectory, or leave it out",
    ),
    none("empty-dir-check", Takes::Flag, "the contents of the mount point do not matter"),
    known_as(
        none("cancel-list-on-mount-seconds", Takes::Number, "mounting lists one page only"),
        &["block-list-on-mount-sec"],
    ),
    none("hard-limit", Takes::Flag, DISK),
    // blobfuse: caches.
    known_as(none("tmp-path", Takes::Text, DISK), &["cache-path"]),
    known_as(none("cache-size-mb", Takes::Number, DISK), &["file-cache-max-size-mb"]),
    known_as(
        none("file-cache-timeout-in-seconds", Takes::Number, ALWAYS_EXACT),
        &["file-cache-timeout", "cache-poll-timeout-msec"],
    ),
    none("use-attr-cache", Takes::Flag, "attributes are always cached, for metadata-ttl"),
    none("attr-cache-max-size-mb", Takes::Number, MEMORY),
    known_as(
        none("kernel-list-cache-timeout", Takes::Number, "listings are cached for metadata-ttl"),
        &["list-cache-timeout", "kernel-list-cache-expiration-sec"],
    ),
    none("cache-on-list", Takes::Flag, "a listing always fills the attribute cache"),
    none("disable-kernel-cache", Takes::Flag, "the page cache is kept only while the blob's ETag is unchanged"),
    none("disable-writeback-cache", Takes::Flag, "the kernel's write-back cache is never used"),
    none("ignore-open-flags", Takes::Flag, "all open flags work as they are"),
    known_as(
        none("block-cache", Takes::Flag, "there is one cache of blocks for all files; it is always on"),
        &["streaming"],
    ),
    known_as(
        none("block-cache-block-size", Takes::Number, "block sizes follow what is read and written"),
        &["block-size-mb"],
    ),
    known_as(none("block-cache-pool-size", Takes::Number, MEMORY), &["pool-size", "max-blocks-per-file"]),
    known_as(
        none("block-cache-disk-size", Takes::Number, DISK),
        &[
            "block-cache-disk-timeout",
            "low-disk-threshold",
            "high-disk-threshold",
            "max-eviction",
            "required-free-space-mb",
        ],
    ),
    none("block-cache-path", Takes::Text, DISK),
    known_as(
        none(
            "block-cache-prefetch",
            Takes::Number,
            "read-ahead follows the measured speed of the link, up to --read-ahead",
        ),
        &[],
    ),
    none("block-cache-prefetch-on-open", Takes::Flag, "read-ahead starts with the first sequential reads"),
    known_as(none("block-cache-parallelism", Takes::Number, PARALLEL), &["max-concurrency", "workers"]),
    none("block-cache-strong-consistency", Takes::Flag, "every read is tied to the ETag of its version"),
    none("cleanup-on-start", Takes::Flag, DISK),
    none("preload", Takes::Flag, "blobs are read when they are asked for"),
    // blobfuse: requests.
    known_as(none("max-retry", Takes::Number, RETRY), &["max-retry-interval-in-seconds", "retry-delay-factor"]),
    known_as(
        none("cap-mbps-read", Takes::Number, "speed is not limited in this version; the service throttles by itself"),
        &["cap-iops"],
    ),
    none("use-https", Takes::Flag, "the scheme is that of the endpoint"),
    none("disable-compression", Takes::Flag, "bodies are never compressed on the way"),
    refused(
        "cpk-enabled",
        Takes::Flag,
        "blobs would be written under the account's key instead of yours; use a container with an encryption scope",
    ),
    none("set-content-type", Takes::Flag, "the content type of a blob is kept when it is rewritten"),
    none("telemetry", Takes::Text, "the user agent is always azblob-csi"),
    // blobfuse: writing.
    known_as(none("lazy-write", Takes::Flag, COMMIT), &["upload-modified-only", "sync-to-flush", "ignore-sync"]),
    known_as(
        none(
            "honour-acl",
            Takes::Flag,
            "access is decided by the service for the mount's identity and by the permission bits shown",
        ),
        &["preserve-acl"],
    ),
    // blobfuse: process.
    known_as(none("log-level", Takes::Text, LOGGING), &["log-type", "log-file-path"]),
    known_as(
        none("pre-mount-validate", Takes::Flag, IN_PROCESS),
        &["basic-remount-check", "foreground", "disable-version-check"],
    ),
    none("wait-for-mount", Takes::Text, IN_PROCESS),
];
