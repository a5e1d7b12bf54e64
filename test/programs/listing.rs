//! A tree as `find` sees it: kind, mode, owner, size, time to the nanosecond and target of everything below a directory.

use std::path::Path;

use harness::World;

use crate::script::script;

/// How many fields a line has.
pub const ALL_FIELDS: usize = 8;

/// One line for each entry below `root`, in the order of names: `name|kind|mode|uid|gid|size|mtime|target`.
#[track_caller]
pub fn listing(world: &World, root: &Path) -> Vec<String> {
    // The size of a directory is the file system's own affair.
    let format = "-type d -printf '%P|%y|%#m|%U|%G||%T@|\\n' -o -printf '%P|%y|%#m|%U|%G|%s|%T@|%l\\n'";
    let lines = script(world, root, &format!("find . -mindepth 1 {format} | sort"), &[]);
    lines.lines().map(str::to_owned).collect()
}

/// The entries of some kinds (`f`, `d`, `l`, `p`), with only the first `fields` fields.
pub fn part_of(listing: &[String], kinds: &str, fields: usize) -> Vec<String> {
    let kind = |line: &&String| line.split('|').nth(1).is_some_and(|kind| kinds.contains(kind));
    listing.iter().filter(kind).map(|line| line.split('|').take(fields).collect::<Vec<_>>().join("|")).collect()
}

/// Fails unless both are the same, naming the first differences only: listings are long.
#[track_caller]
pub fn assert_same_lines(actual: &[String], expected: &[String], what: &str) {
    let only = |one: &[String], other: &[String]| -> Vec<String> {
        one.iter().filter(|line| !other.contains(line)).take(5).cloned().collect()
    };
    let (more, less) = (only(actual, expected), only(expected, actual));
    assert!(more.is_empty() && less.is_empty(), "{what}: {more:#?} instead of {less:#?}");
    assert_eq!(actual.len(), expected.len(), "{what}: some lines are there twice");
}

/// A tree with everything that attributes are made of: modes with setuid, setgid and sticky bits, owners, times to the
/// nanosecond and before 1970, links into nothing, a named pipe, empty files and directories, sparse and larger files.
pub const ODD_TREE: &str = r#"
umask 022
mkdir -p src/deep/er "dir with spaces" empty sticky shared
for n in $(seq 300); do printf 'file %s\n' "$n" > "src/f$n"; touch -d "@$((1600000000 + n)).$((100000000 + n))" "src/f$n"; done
head -c 3000000 /dev/urandom > src/deep/large
truncate -s 20M sparse
printf middle | dd of=sparse bs=1 seek=9000000 conv=notrunc status=none
: > nothing
ln -s src/deep/large link
ln -s /does/not/exist dangling
mkfifo pipe
printf run > tool; chmod 4755 tool
printf secret > key; chmod 0600 key; chown 1000:33 key
chmod 1777 sticky; chmod 2750 shared; chown 33:1000 shared "dir with spaces"
printf old > old; touch -d '1969-12-31 23:59:58.25 UTC' old
printf x > 'ünï 100%25 *?'
touch -h -d '2001-02-03 04:05:06.123456789 UTC' link
touch -d '2011-02-03 04:05:06.987654321 UTC' empty src/deep src/deep/er sticky
"#;
