//! Backup programs with their repositories in a volume, which is what many volumes are for: many small writes, packs, locks,
//! renames, and every byte checked at the end, through a fresh mount.

use crate::{
    listing::ODD_TREE,
    script::{script, text},
    world,
};

/// A first backup, a second of what has changed, and the first one thrown away with all that only it needed.
const RESTIC: &str = r#"
export RESTIC_PASSWORD=test RESTIC_CACHE_DIR="$2"
restic -q -r restic init
restic -q -r restic backup "$1"
printf changed > "$1/src/f1"
restic -q -r restic backup "$1"
restic -q -r restic forget --keep-last 1 --prune
"#;

const RESTIC_CHECK: &str = r#"
export RESTIC_PASSWORD=test RESTIC_CACHE_DIR="$2"
restic -q -r restic check --read-data
restic -q -r restic restore latest --target "$3"
diff -r --no-dereference --exclude=pipe "$1" "$3/$1"
"#;

const BORG: &str = r#"
export BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes BORG_RELOCATED_REPO_ACCESS_IS_OK=yes BORG_BASE_DIR="$2"
borg init -e none borg
borg create borg::one "$1"
printf 'changed again' > "$1/src/f1"
borg create borg::two "$1"
borg delete borg::one
borg compact borg
"#;

const BORG_CHECK: &str = r#"
export BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes BORG_RELOCATED_REPO_ACCESS_IS_OK=yes BORG_BASE_DIR="$2"
borg check --verify-data borg
mkdir "$3"
(borg export-tar borg::two - | tar -C "$3" -xf -)
diff -r --no-dereference --exclude=pipe "$1" "$3/$1"
"#;

fn backs_up(program: &str, back_up: &str, check: &str) {
    let world = world();
    let source = world.directory("source");
    script(&world, &source, ODD_TREE, &[]);
    let (state, restored) = (world.directory("state"), world.path("restored"));
    let arguments = [text(&source), text(&state), text(&restored)];
    let mount = world.mount(&[]);
    script(&world, mount.root(), back_up, &arguments);
    mount.unmount();
    let fresh = world.mount(&[]);
    script(&world, fresh.root(), check, &arguments);
    script(&world, fresh.root(), "rm -r \"$1\"", &[program]);
    fresh.unmount();
}

#[test]
fn restic_backs_up_prunes_checks_and_restores() {
    backs_up("restic", RESTIC, RESTIC_CHECK);
}

#[test]
fn borg_backs_up_compacts_checks_and_restores() {
    backs_up("borg", BORG, BORG_CHECK);
}
