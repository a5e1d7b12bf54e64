//! What mount(8), libfuse and blobfuse know.

use super::{Row, Takes, assign, known_as, none, refused, sets};
use crate::volume::options::value::parse_flag;

const MEMORY: &str = "memory is one budget for the whole process: set --memory of the mount or the node plugin";
const DISK: &str = "the cache on the node's disk belongs to the whole process: --cache-dir and --cache-size of the mount or the node plugin";
const RETRY: &str = "requests are retried with backoff until io-deadline or commit-deadline";
const ALWAYS_EXACT: &str = "every open asks the service whether its copy is current, so no timeout is needed";
const PARALLEL: &str = "the number of requests in flight belongs to the process, not to one mount";
const LOGGING: &str = "logs go to stderr at the level of --log-level or AZBLOB_LOG";
const IN_PROCESS: &str = "there is no separate process or host install to prepare, check or wait for";
const MOUNT8: &str = "it steers mount(8) or fstab, not the file system";
const COMMIT: &str = "close and fsync always return after the commit, with its result";

pub(super) const ROWS: &[Row] = &[
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
