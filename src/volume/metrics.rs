//! What mounted volumes tell of themselves on the page of metrics. Reads counters, gauges and the table of what is mounted;
//! waits for nothing, and asks neither the service nor a mount.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;

use crate::{
    cache::Cache,
    fs::FileSystem,
    telemetry::metrics::{Labels, Page, table},
};

/// Adds what the process's volumes share: memory and disk.
pub fn write_shared(page: &mut Page, cache: &Cache) {
    let (none, gauges) = (Labels::default(), cache.gauges());
    page.count(&table::MEMORY_LIMIT, &none, gauges.budget.pool_bytes);
    for (class, bytes) in [
        ("demand", gauges.budget.demand_bytes),
        ("dirty", gauges.budget.dirty_bytes),
        ("prefetch", gauges.budget.prefetch_bytes),
    ] {
        page.count(&table::MEMORY_USED, &none.with("class", class), bytes);
    }
    page.count(&table::MEMORY_WAITING, &none, gauges.budget.waiting);
    if let Some(disk) = gauges.disk {
        page.count(&table::DISK_CACHE_USED, &none, disk.bytes);
    }
}

/// Adds one volume, which `labels` name, has `mounts` mounts that serve, and signs with a credential that ends then.
pub fn write_volume(
    page: &mut Page,
    labels: &Labels,
    fs: &FileSystem,
    mounts: usize,
    credential_ends: Option<SystemTime>,
) {
    page.count(&table::MOUNTS, labels, mounts as u64);
    let usage = fs.usage();
    page.count(&table::CAPACITY, labels, usage.capacity);
    if let Some(used) = usage.used {
        page.count(&table::USED, labels, used);
    }
    page.count(&table::QUOTA_REFUSALS, labels, fs.quota_refusals());
    write_operations(page, labels, fs);
    write_requests(page, labels, fs);
    let (inodes, handles) = fs.gauges();
    page.count(&table::DIRTY_BYTES, labels, fs.dirty_bytes());
    page.count(&table::SET_ASIDE, labels, fs.files_set_aside());
    page.count(&table::OPEN_FILES, labels, handles as u64);
    page.count(&table::INODES, labels, inodes as u64);
    if let Some(end) = credential_ends.and_then(|end| end.duration_since(UNIX_EPOCH).ok()) {
        page.sample(&table::CREDENTIAL_EXPIRY, labels, end.as_secs_f64());
    }
}

fn write_operations(page: &mut Page, labels: &Labels, fs: &FileSystem) {
    let (meter, totals) = (fs.meter(), fs.meter().totals());
    for (operation, seen) in meter.durations() {
        let labels = labels.with("operation", operation.name());
        page.count(&table::OPERATIONS, &labels, seen.count());
        page.distribution(&table::OPERATION_DURATION, &labels, &seen);
    }
    for (operation, errno, count) in meter.errors() {
        let labels = labels.with("operation", operation.name()).with("errno", format!("{:?}", Errno::from_raw(errno)));
        page.count(&table::OPERATION_ERRORS, &labels, count);
    }
    page.count(&table::READ_BYTES, labels, totals.hit_bytes + totals.missed_bytes);
    page.count(&table::WRITTEN_BYTES, labels, totals.written_bytes);
    page.count(&table::CACHE_HIT_BYTES, labels, totals.hit_bytes);
    page.count(&table::CACHE_MISS_BYTES, labels, totals.missed_bytes);
    page.count(&table::COMMIT_FAILURES, labels, totals.commit_failures);
    page.count(&table::CONFLICTS, labels, totals.conflicts);
}

fn write_requests(page: &mut Page, labels: &Labels, fs: &FileSystem) {
    let Some(traffic) = fs.traffic() else { return };
    for counts in traffic.requests() {
        let labels = labels.with("operation", counts.operation);
        for (end, count) in &counts.ends {
            page.count(&table::BACKEND_REQUESTS, &labels.with("status", end.label()), *count);
        }
        page.distribution(&table::BACKEND_DURATION, &labels, &counts.duration);
    }
    let totals = traffic.totals();
    page.count(&table::FETCHED_BYTES, labels, totals.fetched_bytes);
    page.count(&table::SENT_BYTES, labels, totals.sent_bytes);
    page.count(&table::BACKEND_RETRIES, labels, totals.retries);
    page.count(&table::BACKEND_THROTTLED, labels, totals.throttled);
}
