//! GNU tar: a tree goes into a volume and comes back as it was.

use harness::tree::assert_same;

use crate::{
    listing::{ODD_TREE, assert_same_lines, listing},
    script::{script, text},
    world,
};

#[test]
fn tar_keeps_modes_owners_times_links_and_holes_there_and_back() {
    let world = world();
    let source = world.directory("source");
    script(&world, &source, ODD_TREE, &[]);
    let archive = world.path("source.tar");
    script(&world, &source, "tar --format=posix -S -cf \"$1\" .", &[text(&archive)]);
    let mount = world.mount(&[]);
    let unpack = "mkdir copy; tar -C copy --same-owner -p -xf \"$1\"; tar -C copy -df \"$1\"";
    assert_eq!(script(&world, mount.root(), unpack, &[text(&archive)]), "", "tar sees differences");
    let expected = listing(&world, &source);
    assert!(expected.len() > 310, "{expected:?}");
    assert_same_lines(&listing(&world, &mount.path("copy")), &expected, "unpacked");
    mount.unmount();
    let fresh = world.mount(&[]);
    assert_same_lines(&listing(&world, &fresh.path("copy")), &expected, "through a fresh mount");
    assert_same(&source, &fresh.path("copy"));
    // And back: an archive in the volume, made of what is in the volume.
    let pack = "tar -C copy --format=posix -S -czf back.tar.gz .; mkdir \"$1\"; tar -C \"$1\" -p -xzf back.tar.gz";
    let back = world.path("back");
    script(&world, fresh.root(), pack, &[text(&back)]);
    assert_same_lines(&listing(&world, &back), &expected, "and back");
    assert_same(&source, &back);
    fresh.unmount();
}
