//! Every metric of the driver. Names that begin with `blob_csi_driver_` are those of the Azure Blob CSI driver, so that
//! dashboards that exist go on; what it has not (the data path) begins with `azblob_csi_`.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process or of the volume.
    Counter,
    /// As it is now.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

/// Which pages have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// Node plugin and controller.
    Driver,
    /// Node plugin, and `azblob-csi mount`.
    Mounts,
    /// All of them.
    All,
}

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name, with the unit.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What tells its series apart.
    pub labels: &'static [&'static str],
    /// Which pages have it.
    pub place: Where,
    /// What it says, in a sentence.
    pub help: &'static str,
}

/// What tells volumes apart. `pvc` and `namespace` where the claim is known, `pod` where the volume is one pod's alone.
const VOLUME: &[&str] = &["volume", "pvc", "namespace", "pod"];
const VOLUME_OPERATION: &[&str] = &["volume", "pvc", "namespace", "pod", "operation"];
const VOLUME_OPERATION_ERRNO: &[&str] = &["volume", "pvc", "namespace", "pod", "operation", "errno"];
const VOLUME_OPERATION_STATUS: &[&str] = &["volume", "pvc", "namespace", "pod", "operation", "status"];
const CALL: &[&str] = &["operation", "success"];
const CALL_LABELED: &[&str] = &["operation", "success", "protocol", "storage_account_type", "is_hns_enabled"];

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal $labels:expr, $place:ident, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: Family =
                Family { name: $name, kind: Kind::$kind, labels: $labels, place: Where::$place, help: $help };
        )*

        /// All of them, in the order in which pages and docs show them.
        pub static FAMILIES: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    CALL_DURATION = Histogram "blob_csi_driver_operation_duration_seconds" CALL, Driver,
        "Duration of CSI calls. A call that joins a running one counts by itself.";
    CALL_DURATION_LABELED = Histogram "blob_csi_driver_operation_duration_seconds_labeled" CALL_LABELED, Driver,
        "Duration of the CSI calls that make or mount volumes, by what the volume is asked to be.";
    CALLS = Counter "blob_csi_driver_operations_total" CALL, Driver, "CSI calls.";
    BUILD_INFO = Gauge "azblob_csi_build_info" &["version"], All, "The running version. Always 1.";
    VOLUMES = Gauge "azblob_csi_volumes" &[], Mounts, "Volumes that are mounted here.";
    PUBLISHED = Gauge "azblob_csi_volume_published_info" &["volume", "pvc", "namespace", "pod", "pod_namespace"], Mounts,
        "Always 1, one series a pod that has the volume. To be joined with the others by `volume`.";
    MOUNTS = Gauge "azblob_csi_mounts" VOLUME, Mounts,
        "FUSE mounts of the volume that serve: one, and one for each further view (fsGroup). 0 is an outage.";
    LEFT_UNSAVED = Counter "azblob_csi_unmounted_unsaved_files_total" &[], Mounts,
        "Files that went to lost+found when their volume was unmounted: the service refused them, or did not take them in time.";
    DEAD_MOUNTS = Counter "azblob_csi_dead_mounts_total" &["place"], Mounts,
        "Mounts without a server that were detached, by what they were for: staging, a pod, a part of a pod's volume (subPath), a view.";
    KEEPER_HELD = Gauge "azblob_csi_keeper_held" &[], Mounts,
        "1 while there is a keeper for what is mounted. 0: a restart of the process ends its mounts, so the node has to be drained first.";
    CAPACITY = Gauge "azblob_csi_capacity_bytes" VOLUME, Mounts, "Size of the volume, as df shows it.";
    USED = Gauge "azblob_csi_used_bytes" VOLUME, Mounts,
        "What of it is in use, as far as that was counted: nothing is counted before somebody writes or asks (df).";
    QUOTA_REFUSALS = Counter "azblob_csi_quota_refusals_total" VOLUME, Mounts,
        "Writes that were refused since the volume is full (quota=hard).";
    ABNORMAL = Gauge "azblob_csi_volume_abnormal" VOLUME, Mounts,
        "1 while requests to the service have been failing, as the volume's condition says; else 0.";
    OPERATIONS = Counter "azblob_csi_operations_total" VOLUME_OPERATION, Mounts,
        "Requests of the kernel. Reads that the kernel answers out of its page cache never get here.";
    OPERATION_ERRORS = Counter "azblob_csi_operation_errors_total" VOLUME_OPERATION_ERRNO, Mounts,
        "Requests that failed for another reason than what the program asked for (ENOENT, EEXIST and their like are answers).";
    OPERATION_DURATION = Histogram "azblob_csi_operation_duration_seconds" VOLUME_OPERATION, Mounts,
        "From the kernel's request to the reply.";
    READ_BYTES = Counter "azblob_csi_read_bytes_total" VOLUME, Mounts, "Bytes handed to readers.";
    WRITTEN_BYTES = Counter "azblob_csi_written_bytes_total" VOLUME, Mounts, "Bytes taken from writers.";
    CACHE_HIT_BYTES = Counter "azblob_csi_cache_hit_bytes_total" VOLUME, Mounts,
        "Of the bytes read, those that were in memory when they were asked for.";
    CACHE_MISS_BYTES = Counter "azblob_csi_cache_miss_bytes_total" VOLUME, Mounts,
        "Of the bytes read, those that a reader waited for: for the service, for the node's disk, or for what was on its way.";
    FETCHED_BYTES = Counter "azblob_csi_backend_fetched_bytes_total" VOLUME, Mounts,
        "Bytes of blobs that the service sent. Divided by the bytes read: read amplification.";
    SENT_BYTES = Counter "azblob_csi_backend_sent_bytes_total" VOLUME, Mounts,
        "Bytes that were sent to the service, tries that failed included.";
    BACKEND_REQUESTS = Counter "azblob_csi_backend_requests_total" VOLUME_OPERATION_STATUS, Mounts,
        "Requests to the service by its name of the operation and HTTP status (`none`: no answer, `timeout`: not in time).";
    BACKEND_DURATION = Histogram "azblob_csi_backend_request_duration_seconds" VOLUME_OPERATION, Mounts,
        "From a request to the head of its answer.";
    BACKEND_THROTTLED = Counter "azblob_csi_backend_throttled_total" VOLUME, Mounts,
        "Requests that the service refused because it is asked too much (429, 503).";
    BACKEND_RETRIES = Counter "azblob_csi_backend_retries_total" VOLUME, Mounts, "Requests that were made again.";
    DIRTY_BYTES = Gauge "azblob_csi_dirty_bytes" VOLUME, Mounts, "Memory that holds what the service does not have yet.";
    COMMIT_FAILURES = Counter "azblob_csi_commit_failures_total" VOLUME, Mounts,
        "Commits of a file that failed. Its data is kept, and the next fsync or close says so.";
    CONFLICTS = Counter "azblob_csi_conflicts_total" VOLUME, Mounts,
        "Commits that were refused because another client had changed the blob (ESTALE): nothing was overwritten.";
    SET_ASIDE = Counter "azblob_csi_files_set_aside_total" VOLUME, Mounts, "Files that could not be saved and are in lost+found.";
    OPEN_FILES = Gauge "azblob_csi_open_files" VOLUME, Mounts, "Open files and directories.";
    INODES = Gauge "azblob_csi_inodes" VOLUME, Mounts, "Files and directories that the kernel remembers.";
    CREDENTIAL_EXPIRY = Gauge "azblob_csi_credential_expiry_timestamp_seconds" VOLUME, Mounts,
        "When the credential in use ends (a SAS says so), in seconds since 1970.";
    MEMORY_LIMIT = Gauge "azblob_csi_memory_limit_bytes" &[], Mounts, "The memory budget of the process for data.";
    MEMORY_USED = Gauge "azblob_csi_memory_used_bytes" &["class"], Mounts,
        "What of the budget is in use: `demand` (cached), `dirty` (not saved yet), `prefetch` (fetched ahead).";
    MEMORY_WAITING = Gauge "azblob_csi_memory_waiting" &[], Mounts, "Reads and writes that wait for memory.";
    DISK_CACHE_USED = Gauge "azblob_csi_disk_cache_used_bytes" &[], Mounts, "Bytes in the cache on the node's disk.";
    PROCESS_MEMORY = Gauge "process_resident_memory_bytes" &[], All, "Memory of the process.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" &[], All, "Processor time of the process.";
    PROCESS_DESCRIPTORS = Gauge "process_open_fds" &[], All, "Open descriptors of the process.";
    PROCESS_START = Gauge "process_start_time_seconds" &[], All, "When the process started, in seconds since 1970.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus_and_stand_once() {
        for (at, family) in FAMILIES.iter().enumerate() {
            assert!(FAMILIES[..at].iter().all(|other| other.name != family.name), "{}", family.name);
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
            assert!(family.help.ends_with(['.', ')']) && !family.help.contains('\n'), "{}", family.name);
        }
    }
}
