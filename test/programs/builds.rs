//! Builds inside a volume: what they make is run and mapped from there, and times tell them what is new.

use crate::{script::script, world};

/// A crate with a library, a program that uses it, and a build script, which is run from the target directory.
const CRATE: &str = r#"
mkdir -p crate/src
cd crate
cat > Cargo.toml <<'TOML'
[package]
name = "answer"
version = "0.1.0"
edition = "2021"
[workspace]
TOML
cat > build.rs <<'RUST'
fn main() {
    let out = std::env::var("OUT_DIR").unwrap();
    std::fs::write(format!("{out}/made.rs"), "pub const MADE: u32 = 40;").unwrap();
    println!("cargo:rerun-if-changed=build.rs");
}
RUST
cat > src/lib.rs <<'RUST'
include!(concat!(env!("OUT_DIR"), "/made.rs"));
pub fn answer() -> u32 { MADE + 2 }
#[test]
fn is_right() { assert_eq!(answer(), 42); }
RUST
echo 'fn main() { println!("{}", answer::answer()); }' > src/main.rs
"#;

#[test]
fn cargo_builds_tests_and_rebuilds_only_what_changed_with_its_target_directory_in_the_volume() {
    let world = world();
    let mount = world.mount(&[]);
    script(&world, mount.root(), CRATE, &[]);
    let build = |root: &std::path::Path| script(&world, &root.join("crate"), "cargo build --offline 2>&1", &[]);
    let run = |root: &std::path::Path| script(&world, &root.join("crate"), "target/debug/answer", &[]);
    assert!(build(mount.root()).contains("Compiling answer"));
    assert_eq!(run(mount.root()), "42\n");
    assert!(!build(mount.root()).contains("Compiling"), "it takes what it has just made for old");
    script(&world, &mount.path("crate"), "sed -i 's/MADE + 2/MADE + 3 - 1/' src/lib.rs", &[]);
    assert!(build(mount.root()).contains("Compiling answer"), "it does not see a change");
    script(&world, &mount.path("crate"), "cargo test --offline 2>&1", &[]);
    mount.unmount();
    let fresh = world.mount(&[]);
    assert_eq!(run(fresh.root()), "42\n");
    assert!(!build(fresh.root()).contains("Compiling"), "times did not survive the remount");
    script(&world, &fresh.path("crate"), "cargo clean --offline 2>&1 && test ! -e target", &[]);
    fresh.unmount();
}

/// A program of two objects, compiled in parallel, with an archive that `ar` changes in place.
const MAKEFILE: &str = r#"
mkdir c
cd c
printf 'int one(void) { return 1; }\n' > one.c
printf 'int two(void) { return 2; }\n' > two.c
printf '#include <stdio.h>\nint one(void); int two(void);\nint main(void) { printf("%%d\\n", one() + two()); }\n' > main.c
cat > Makefile <<'MAKE'
all: program
program: main.o libparts.a
	cc -o $@ $^
libparts.a: one.o two.o
	ar rcs $@ $^
%.o: %.c
	cc -c -o $@ $<
MAKE
make -s -j2
test "$(./program)" = 3
test "$(make)" = "make: Nothing to be done for 'all'."
printf 'int two(void) { return 40; }\n' > two.c
test "$(make -n | grep -c '^cc -c')" = 1
make -s
test "$(./program)" = 41
"#;

#[test]
fn make_and_cc_build_a_program_and_know_what_is_new() {
    let world = world();
    let mount = world.mount(&[]);
    script(&world, mount.root(), MAKEFILE, &[]);
    mount.unmount();
    let fresh = world.mount(&[]);
    let again = script(&world, &fresh.path("c"), "make; ./program", &[]);
    assert_eq!(again, "make: Nothing to be done for 'all'.\n41\n");
    fresh.unmount();
}
