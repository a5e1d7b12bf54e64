//! Volumes that stand in the pod itself.

use crate::scenario::Scenario;

#[test]
fn an_inline_volume_with_a_secret_lives_as_long_as_its_pod() {
    let scenario = Scenario::begin("inline");
    scenario.apply("inline.yaml", &[]);
    scenario.ready(&["inline"]);
    scenario.sh("inline", "echo kept >/data/note");
    assert_eq!(scenario.blob("note").as_deref(), Some("kept\n"));
    assert_eq!(scenario.mounts().len(), 1, "{:?}", scenario.mounts());
    scenario.delete_pod("inline");
    scenario.until("the mount to end with the pod", || match scenario.mounts() {
        left if left.is_empty() => Ok(()),
        left => Err(left.join("\n")),
    });
    assert_eq!(scenario.blob("note").as_deref(), Some("kept\n"), "the data stays");
}
