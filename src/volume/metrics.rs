//! What mounted volumes tell of themselves on the page of metrics. Reads counters, gauges and the table of what is mounted;
//! waits for nothing, and asks neither the service nor a mount.

use std::time::{SystemTime, UNIX_EPOCH};

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
    fs.write_figures(page, labels);
    if let Some(end) = credential_ends.and_then(|end| end.duration_since(UNIX_EPOCH).ok()) {
        page.sample(&table::CREDENTIAL_EXPIRY, labels, end.as_secs_f64());
    }
}
