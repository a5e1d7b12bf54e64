//! git with a repository of 2,000 files: everything that moves, packs, locks or maps files.

use std::path::Path;

use harness::World;

use crate::{
    script::{script, text},
    world,
};

/// 2,000 files in 50 directories, a branch that changes some, a link and an executable.
const REPOSITORY: &str = r#"
git init -q -b main
for d in $(seq 50); do
    mkdir -p "dir $d/sub"
    for f in $(seq 39); do printf 'file %s of %s\n%s\n' "$f" "$d" "$((d * f * 7919))" > "dir $d/f$f"; done
    seq "$d" "$((d + 2000))" > "dir $d/sub/numbers"
done
ln -s 'dir 1/f1' link
chmod +x 'dir 1/f1'
git add -A
git commit -q -m one
git checkout -q -b feature
for d in $(seq 20); do echo changed >> "dir $d/f2"; git mv "dir $d/f3" "dir $d/moved"; done
git commit -q -a -m two
git checkout -q main
git ls-files | wc -l
"#;

/// What a developer does in a day. `$1` is where the repository comes from.
const DAY: &str = r#"
git clone -q --no-hardlinks "$1" clone
cd clone
test -z "$(git status --porcelain)"
git checkout -q feature
git checkout -q main
git worktree add -q ../other feature
test "$(cd ../other && git rev-parse HEAD)" = "$(git rev-parse origin/feature)"
echo local >> 'dir 7/f1'
git stash -q
test -z "$(git status --porcelain)"
git stash pop -q
git commit -q -a -m three
git merge -q -m merged feature
git rebase -q --force-rebase HEAD~1 >/dev/null
git tag -a -m 'a tag' v1
git repack -a -d -f -q
git gc -q --prune=now
git fsck --strict --full --no-dangling --no-progress
(cd ../other && git commit -q --allow-empty -m empty && git status --porcelain)
git worktree remove ../other
test ! -e ../other
# A clone beside it asks for hard links first, and does without.
git clone -q . ../second
git -C ../second fsck --strict --no-dangling --no-progress
git init -q --bare -b main ../bare.git
git push -q --all ../bare.git
git push -q --tags ../bare.git
git -C ../bare.git fsck --strict --no-dangling --no-progress
git status --porcelain
"#;

/// Everything that identifies the state of a repository: its commits, its files, its health.
fn state(world: &World, root: &Path) -> String {
    let ask = r#"
        for repository in clone second bare.git; do
            git -C "$repository" fsck --strict --full --no-dangling --no-progress
            git -C "$repository" for-each-ref
            git -C "$repository" ls-tree -r HEAD
        done
        for repository in clone second; do git -C "$repository" status --porcelain --ignored; done
        git -C clone log --format='%H %s' --stat | tail -n 100
    "#;
    script(world, root, ask, &[])
}

#[test]
fn git_clones_merges_packs_and_finds_nothing_wrong_in_two_thousand_files() {
    let world = world();
    let source = world.directory("source");
    assert_eq!(script(&world, &source, REPOSITORY, &[]).trim(), "2001");
    let mount = world.mount(&[]);
    assert_eq!(script(&world, mount.root(), DAY, &[text(&source)]), "", "something is left in the worktree");
    let before = state(&world, mount.root());
    assert!(before.lines().count() > 6000, "only {} lines say what is there", before.lines().count());
    mount.unmount();
    let fresh = world.mount(&[]);
    assert!(state(&world, fresh.root()) == before, "a fresh mount shows another repository");
    script(&world, fresh.root(), "rm -r clone second bare.git", &[]);
    fresh.unmount();
    assert_eq!(world.emulator().names(world.container()), [""; 0], "rm -r left something");
}
