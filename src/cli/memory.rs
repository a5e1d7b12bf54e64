//! How much memory a process may use where nobody said: most of its cgroup's limit, never of the machine's RAM.

use std::{fs, path::Path};

use crate::cache::MEMORY_BYTES_DEFAULT;

/// Part of the cgroup limit that the budget takes: the rest is the program itself, its stacks and the kernel's share
/// of the cgroup (DESIGN 10.15).
const LIMIT_PERCENT: u64 = 70;

/// cgroup v1 writes "no limit" as the largest multiple of the page size: anything near it is no limit.
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// The budget of this process, in bytes.
pub(super) fn default_budget() -> u64 {
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match smallest_limit(Path::new("/sys/fs/cgroup"), &cgroups) {
        Some(limit) => limit / 100 * LIMIT_PERCENT,
        None => MEMORY_BYTES_DEFAULT,
    }
}

/// The smallest memory limit of the cgroups in `cgroups` (the text of /proc/self/cgroup) and their parents.
fn smallest_limit(root: &Path, cgroups: &str) -> Option<u64> {
    cgroups.lines().filter_map(|line| limit_of_line(root, line)).min()
}

/// A line is `hierarchy:controllers:path`; v2 has no controllers.
fn limit_of_line(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let (base, file) = match controllers {
        "" => (root.to_owned(), "memory.max"),
        list if list.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
        _ => return None,
    };
    // A limit holds for everything below it. In a container the path may be the host's and lead nowhere here: then the
    // root of what we see is our own cgroup.
    let own = Path::new(path.trim_start_matches('/'));
    own.ancestors().filter_map(|cgroup| read_limit(&base.join(cgroup).join(file))).min()
}

fn read_limit(path: &Path) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.trim().parse().ok().filter(|limit| *limit < NO_LIMIT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_smallest_limit_on_the_way_to_the_root_holds() {
        let root = tree(&[("a/b/memory.max", "max\n"), ("a/memory.max", "1000\n"), ("memory.max", "9000\n")]);
        assert_eq!(smallest_limit(root.path(), "0::/a/b\n"), Some(1000));
    }

    #[test]
    fn version_1_is_read_and_its_no_limit_is_none() {
        let root = tree(&[
            ("memory/pod/memory.limit_in_bytes", "4096\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        let cgroups = "12:cpu,cpuacct:/pod\n4:memory:/pod\n0::/\n";
        assert_eq!(smallest_limit(root.path(), cgroups), Some(4096));
        assert_eq!(smallest_limit(root.path(), "4:memory:/\n"), None);
    }

    #[test]
    fn in_a_container_the_visible_root_is_our_own_cgroup() {
        let root = tree(&[("memory.max", "2000\n")]);
        assert_eq!(smallest_limit(root.path(), "0::/kubepods/pod1/c1\n"), Some(2000));
    }
}
