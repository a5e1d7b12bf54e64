//! The pod of a FlexVolume-era volume: mounted with blobfuse's options for a group, used by a web application that is not
//! root, while another client replaces what it serves.

use std::path::Path;

use harness::World;

use crate::{script::script, world};

/// blobfuse's options as manifests have them; those that mean nothing here are accepted.
const OPTIONS: [&str; 4] = [
    "-o",
    "allow_other,gid=1000,umask=007",
    "-o",
    "file-cache-timeout-in-seconds=120,use-https=true,tmp-path=/tmp/blobfuse",
];

/// A visitor's request, an upload, and the installation of an extension, by a user of the volume's group.
const APPLICATION: &str = r#"
cat www/index.html
sha256sum < www/large
mkdir -p www/uploads/2026
printf upload > www/uploads/2026/file.part
mv www/uploads/2026/file.part www/uploads/2026/file
chmod 640 www/uploads/2026/file
echo hit >> www/access.log
echo hit >> www/access.log
mkdir extension
for n in $(seq 30); do echo "code $n" > "extension/$n.php"; done
tar -czf extension.tgz extension
rm -r extension
tar -xzf extension.tgz
mv extension www/extension-1.0
rm extension.tgz
ls www www/extension-1.0 | wc -l
"#;

/// Runs `commands` as a user that is not root.
#[track_caller]
fn as_user(world: &World, root: &Path, user: u32, group: u32, commands: &str) -> String {
    let become_user = "setpriv --reuid \"$1\" --regid \"$2\" --clear-groups bash -euo pipefail -c \"$3\" 2>&1";
    script(world, root, become_user, &[&user.to_string(), &group.to_string(), commands])
}

#[test]
fn a_web_application_of_the_volumes_group_serves_and_writes_and_others_do_not() {
    let world = world();
    world.open_to_other_users();
    let put = |name: &str, bytes: &[u8]| {
        world.emulator().put(world.container(), name, bytes.to_vec(), &[]).unwrap();
    };
    put("www/index.html", b"first\n");
    put("www/large", &vec![7; 3 << 20]);
    let mount = world.mount(&OPTIONS);
    let said = as_user(&world, mount.root(), 33, 1000, APPLICATION);
    assert!(said.starts_with("first\n") && said.ends_with("\n38\n"), "{said}");
    put("www/index.html", b"second, and longer\n");
    assert_eq!(as_user(&world, mount.root(), 33, 1000, "cat www/index.html"), "second, and longer\n");
    let refused = as_user(&world, mount.root(), 33, 33, "cat www/index.html || ls www || echo x > new || true");
    assert_eq!(refused.matches("Permission denied").count(), 3, "{refused}");
    mount.unmount();
    let fresh = world.mount(&OPTIONS);
    let stat = "stat -c '%n %u:%g %a %s' www/index.html www/uploads/2026/file www/access.log www/extension-1.0/7.php";
    let expected = "www/index.html 0:1000 770 19\nwww/uploads/2026/file 33:1000 640 6\nwww/access.log 33:1000 644 8\n\
        www/extension-1.0/7.php 33:1000 644 7\n";
    assert_eq!(script(&world, fresh.root(), stat, &[]), expected);
    fresh.unmount();
}
