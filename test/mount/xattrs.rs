//! Extended attributes as programs use them.

use std::{fs, process::Command, time::Duration};

use harness::World;

use crate::world;

const LIMIT: Duration = Duration::from_secs(60);

fn run(world: &World, program: &str, args: &[&str]) -> String {
    world.run(Command::new(program).args(args), LIMIT).success()
}

#[test]
fn getfattr_setfattr_cp_and_rsync_keep_attributes_that_other_clients_see() {
    let world = world();
    let mount = world.mount(&[]);
    let path = |name: &str| mount.path(name).to_str().unwrap().to_owned();
    fs::write(path("a"), b"bytes").unwrap();
    fs::create_dir(path("d")).unwrap();
    run(&world, "setfattr", &["-n", "user.author", "-v", "Jane Doe", &path("a")]);
    run(&world, "setfattr", &["-n", "user.Any name", "-v", "0x00ff0a", &path("a")]);
    run(&world, "setfattr", &["-n", "user.on.directory", "-v", "yes", &path("d")]);
    assert_eq!(
        run(&world, "getfattr", &["--only-values", "-n", "user.Any name", "-e", "hex", &path("a")]),
        "\0\u{fffd}\n"
    );
    run(&world, "cp", &["-a", &path("a"), &path("d/copy")]);
    run(&world, "rsync", &["-aX", &format!("{}/", path("d")), &format!("{}/", path("e"))]);
    let again = run(&world, "rsync", &["-aXi", &format!("{}/", path("d")), &format!("{}/", path("e"))]);
    assert_eq!(again, "", "a second run has nothing to do");
    let metadata = world.emulator().metadata(world.container(), "e/copy").unwrap();
    assert_eq!(metadata.get("author").map(String::as_str), Some("Jane Doe"));
    let fresh = world.mount(&[]);
    let dump = |root: &std::path::Path, name: &str| {
        run(&world, "getfattr", &["-d", "-e", "hex", "--absolute-names", root.join(name).to_str().unwrap()])
            .replace(root.to_str().unwrap(), "")
    };
    assert_eq!(dump(fresh.root(), "e/copy").replace("e/copy", "a"), dump(mount.root(), "a"));
    assert!(dump(fresh.root(), "e").contains("user.on.directory=0x796573"), "{}", dump(fresh.root(), "e"));
    let url = run(&world, "getfattr", &["--only-values", "-n", "user.azblob.url", &path("d/copy")]);
    assert_eq!(url, format!("{}/d/copy", world.url()));
    fresh.unmount();
    mount.unmount();
}

#[test]
fn a_file_made_by_an_open_that_only_reads_is_there() {
    let world = world();
    let mount = world.mount(&[]);
    // As flock(1) opens its lock file.
    let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CREAT;
    drop(nix::fcntl::open(&mount.path("lock"), flags, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap());
    assert_eq!(world.emulator().get(world.container(), "lock").as_deref(), Some(&b""[..]));
    mount.unmount();
}
