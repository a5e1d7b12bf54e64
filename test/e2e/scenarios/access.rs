//! Who may do what with a volume: access modes, read-only, parts of it, users and groups.

use crate::scenario::Scenario;

#[test]
fn a_read_write_many_volume_is_shared_by_two_pods() {
    let scenario = Scenario::begin("rwx");
    scenario.volume("data", &[]);
    scenario.pod("one", "data");
    scenario.pod("two", "data");
    scenario.ready(&["one", "two"]);
    scenario.sh("one", "echo from one >/data/one");
    assert_eq!(scenario.sh("two", "cat /data/one && echo from two >/data/two"), "from one");
    assert_eq!(scenario.sh("one", "cat /data/two && rm /data/two"), "from two");
    assert!(scenario.try_sh("two", "cat /data/two").unwrap_err().contains("No such file"));
}

#[test]
fn a_read_only_many_volume_can_only_be_read() {
    let scenario = Scenario::begin("rox");
    scenario.cluster.emulator.put(scenario.name, "book", "text", &[]).unwrap();
    scenario.volume("data", &[("access", "ReadOnlyMany"), ("read-only", "true")]);
    scenario.pod("one", "data");
    scenario.pod("two", "data");
    scenario.ready(&["one", "two"]);
    for pod in ["one", "two"] {
        assert_eq!(scenario.sh(pod, "cat /data/book"), "text");
        assert!(scenario.try_sh(pod, "echo >/data/new").unwrap_err().contains("Read-only file system"));
    }
}

#[test]
fn a_pod_that_mounts_read_only_cannot_write_where_another_can() {
    let scenario = Scenario::begin("read-only");
    scenario.volume("data", &[]);
    scenario.pod("writer", "data");
    scenario.pod_with("reader", "data", &[("read-only", "true")]);
    scenario.ready(&["writer", "reader"]);
    scenario.sh("writer", "echo text >/data/book");
    assert_eq!(scenario.sh("reader", "cat /data/book"), "text");
    assert!(scenario.try_sh("reader", "rm /data/book").unwrap_err().contains("Read-only file system"));
}

#[test]
fn a_read_write_once_pod_volume_has_one_pod_at_a_time() {
    let scenario = Scenario::begin("rwop");
    scenario.volume("data", &[("access", "ReadWriteOncePod")]);
    scenario.pod("first", "data");
    scenario.ready(&["first"]);
    scenario.sh("first", "echo mine >/data/file");
    scenario.pod("second", "data");
    scenario.until("the second to be told to wait", || {
        let said = scenario.kubectl(&["describe", "pod", "second"]);
        if said.contains("ReadWriteOncePod") { Ok(()) } else { Err(said) }
    });
    scenario.delete_pod("first");
    scenario.ready(&["second"]);
    assert_eq!(scenario.sh("second", "cat /data/file"), "mine");
}

#[test]
fn sub_paths_show_directories_of_the_volume() {
    let scenario = Scenario::begin("sub-path");
    scenario.volume("data", &[]);
    scenario.apply("sub-path.yaml", &[("pod", "one")]);
    scenario.apply("sub-path.yaml", &[("pod", "two")]);
    scenario.ready(&["one", "two"]);
    scenario.sh("one", "echo shared >/fixed/file && echo of one >/own/file");
    assert_eq!(scenario.sh("two", "cat /fixed/file && echo of two >/own/file"), "shared");
    assert_eq!(scenario.blob("shared/fixed/file").as_deref(), Some("shared\n"));
    assert_eq!(scenario.blob("pods/one/file").as_deref(), Some("of one\n"));
    assert_eq!(scenario.blob("pods/two/file").as_deref(), Some("of two\n"));
}

#[test]
fn a_pod_that_is_not_root_writes_as_the_group_of_its_volumes() {
    let scenario = Scenario::begin("fs-group");
    scenario.cluster.emulator.put(scenario.name, "old", "text\n", &[]).unwrap();
    scenario.volume("data", &[("access", "ReadWriteOnce")]);
    scenario.apply("fs-group.yaml", &[]);
    scenario.ready(&["plain"]);
    let seen =
        scenario.sh("plain", "id -u && cat /data/old && echo >/data/new && stat -c %g /data /data/old /data/new");
    assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["1000", "text", "2000", "2000", "2000"], "{seen}");
}
