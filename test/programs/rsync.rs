//! rsync into a volume: what it has brought once it does not bring again.

use std::{fs, path::Path};

use blob_emulator::Operation;
use harness::{World, tree::assert_same};

use crate::{
    listing::{ODD_TREE, assert_same_lines, listing},
    script::{script, text},
    world,
};

/// Itemizes what it does, and takes nanoseconds for a difference.
const RSYNC: &str = "rsync -aHX --modify-window=-1 --itemize-changes --stats \"$1/\" copy/";

/// Extended attributes of a file, of a directory and of an empty file, if the local disk has them.
const XATTRS: &str = "setfattr -n user.origin -v 'a value, with ünï and = signs' src/f1 nothing 2>/dev/null || true
    setfattr -n user.binary -v 0x00ff10 shared src/deep/large 2>/dev/null || true";

/// All extended attributes below a directory, as a text.
fn xattrs(world: &World, root: &Path) -> String {
    script(world, root, "find . -print0 | sort -z | xargs -0 getfattr -h -d -e hex", &[])
}

/// Requests that change something.
fn changes(world: &World) -> u64 {
    let counters = world.emulator().counters();
    Operation::ALL.iter().filter(|operation| operation.writes()).map(|operation| counters.of(*operation)).sum()
}

#[test]
fn a_second_rsync_transfers_nothing_also_on_a_fresh_mount() {
    let world = world();
    let source = world.directory("source");
    script(&world, &source, ODD_TREE, &[]);
    script(&world, &source, XATTRS, &[]);
    let run = |root: &Path| script(&world, root, RSYNC, &[text(&source)]);
    let nothing = |said: String| {
        assert!(said.contains("Number of regular files transferred: 0\n"), "{said}");
        let items = said.lines().take_while(|line| !line.is_empty()).count();
        assert_eq!(items, 0, "something was changed again: {said}");
    };
    let same =
        |root: &Path| assert_same_lines(&listing(&world, &root.join("copy")), &listing(&world, &source), "copied");
    let mount = world.mount(&[]);
    assert!(run(mount.root()).contains("Number of regular files transferred: 307\n"));
    let before = changes(&world);
    nothing(run(mount.root()));
    mount.unmount();
    let fresh = world.mount(&[]);
    nothing(run(fresh.root()));
    assert_eq!(changes(&world), before, "a run that changes nothing wrote something");
    assert_same(&source, &fresh.path("copy"));
    same(fresh.root());
    assert_eq!(xattrs(&world, &fresh.path("copy")), xattrs(&world, &source));
    // A small change in a large file, in place and by a new file, and what is gone.
    fs::write(source.join("src/f1"), b"changed").unwrap();
    script(
        &world,
        &source,
        "printf X | dd of=src/deep/large bs=1 seek=1500000 conv=notrunc status=none; rm src/f2",
        &[],
    );
    let change = "rsync -aHX --modify-window=-1 --delete --inplace --no-whole-file \"$1/\" copy/
        printf Y | dd of=\"$1/src/deep/large\" bs=1 seek=5 conv=notrunc status=none
        touch \"$1/src/deep/large\"
        rsync -aHX --modify-window=-1 --delete --no-whole-file \"$1/\" copy/";
    script(&world, fresh.root(), change, &[text(&source)]);
    assert_same(&source, &fresh.path("copy"));
    same(fresh.root());
    fresh.unmount();
}
