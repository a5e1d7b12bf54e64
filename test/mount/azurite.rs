//! The same volume on a service that we did not write: Azurite, Microsoft's own emulator. It has no Put Block From URL, so
//! what a rewrite keeps of a block goes through us.

use std::{
    fs::{self, OpenOptions},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use harness::tree::{noise, tree};

use crate::world;

/// Node.js starts within a fraction of it.
const LISTENS_WITHIN: Duration = Duration::from_secs(60);

const MIB: usize = 1 << 20;

/// Azurite as a child process, ended with the value.
struct Azurite {
    child: Child,
    address: SocketAddr,
}

impl Azurite {
    fn start() -> Self {
        let module =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("test/azurite/node_modules/azurite/dist/src/blob/main.js");
        assert!(module.exists(), "Azurite is not installed: run `npm ci --prefix test/azurite` (`make test` does it)");
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("node")
            .arg(module)
            .args(["--blobHost", "127.0.0.1", "--blobPort", &address.port().to_string()])
            .args(["--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry", "--silent"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut azurite = Self { child, address };
        let deadline = Instant::now() + LISTENS_WITHIN;
        while TcpStream::connect(address).is_err() {
            let ended = azurite.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "Azurite does not listen: {ended:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        azurite
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Files as programs make and change them, the same on every directory.
fn work_in(root: &Path) {
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/small ünï"), b"small").unwrap();
    fs::write(root.join("a/empty"), b"").unwrap();
    fs::write(root.join("a/large"), noise(21 * MIB + 5, 3)).unwrap();
    let large = OpenOptions::new().read(true).write(true).open(root.join("a/large")).unwrap();
    large.write_all_at(b"in the middle", 9 * MIB as u64 - 5).unwrap();
    large.sync_all().unwrap();
    large.set_len(13 * MIB as u64 + 1).unwrap();
    large.write_all_at(b"behind the end", 15 * MIB as u64).unwrap();
    drop(large);
    std::os::unix::fs::symlink("a/large", root.join("link")).unwrap();
    fs::set_permissions(root.join("a/empty"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::write(root.join("gone"), b"x").unwrap();
    fs::remove_file(root.join("gone")).unwrap();
    fs::rename(root.join("a"), root.join("renamed")).unwrap();
    fs::write(root.join("replaced"), b"old").unwrap();
    fs::write(root.join("new"), b"new").unwrap();
    fs::rename(root.join("new"), root.join("replaced")).unwrap();
}

#[test]
fn a_volume_on_azurite_holds_what_a_local_disk_holds() {
    let (world, azurite) = (world(), Azurite::start());
    // Azurite's account and key are the ones that every Blob emulator has, so the world's credential fits.
    let url = format!("http://{}/{}/volume", azurite.address, world.emulator().account());
    let local = world.directory("local");
    work_in(&local);
    let mount = world.mount_url(&url, &["--create-container"]);
    work_in(mount.root());
    assert!(tree(mount.root()) == tree(&local), "the mount shows another tree");
    mount.unmount();
    let fresh = world.mount_url(&url, &[]);
    assert!(tree(fresh.root()) == tree(&local), "a fresh mount shows another tree");
    let mode = fs::metadata(fresh.path("renamed/empty")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    fs::remove_dir_all(fresh.path("renamed")).unwrap();
    assert_eq!(tree(fresh.root()).len(), 2);
    fresh.unmount();
}
