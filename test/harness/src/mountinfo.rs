//! Which mounts there are, from the kernel's own list: stat(2) on a mount that hangs would hang the test.

use std::path::Path;

/// Mount points at or below `dir`, deepest first.
#[must_use]
pub fn mounts_below(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut points: Vec<String> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        // Spaces and the like are written as octal escapes; the directories of tests have none.
        .filter(|point| Path::new(point).starts_with(dir))
        .map(str::to_owned)
        .collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.len()));
    points
}

/// Takes every mount at or below `dir` out of the tree, without waiting for its users.
pub fn detach_below(dir: &Path) {
    for point in mounts_below(dir) {
        let _ = nix::mount::umount2(point.as_str(), nix::mount::MntFlags::MNT_DETACH);
    }
}
