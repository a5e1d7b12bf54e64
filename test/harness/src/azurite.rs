//! Azurite, the other server that speaks the Blob protocol, as a child process on a port of its own. Ended with the value.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use blob_emulator::{DEVELOPMENT_ACCOUNT, DEVELOPMENT_KEY};
use tempfile::TempDir;

/// Node.js reads thousands of files before it listens; on a busy machine that takes a while.
const LISTENS_WITHIN: Duration = Duration::from_secs(60);

/// See the module's doc. It has one account, the well-known one of development, and forgets all at its end.
pub struct Azurite {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Azurite {
    /// Starts it and waits until it listens.
    #[must_use]
    pub fn start() -> Self {
        let module =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../azurite/node_modules/azurite/dist/src/blob/main.js");
        assert!(module.exists(), "Azurite is not installed: run `npm ci --prefix test/azurite` (`make test` does it)");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.unwrap_or_else(|error| panic!("no free port: {error}")).port();
        let directory = tempfile::tempdir().unwrap();
        // A file, not a pipe: a full pipe would stop it, and nobody reads while it runs.
        let complaints = File::create(directory.path().join("stderr")).unwrap();
        let child = Command::new("node")
            .arg(module)
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
            .args(["--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry", "--silent"])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(complaints)
            .spawn()
            .unwrap_or_else(|error| panic!("Node.js (`node`) must be installed to run Azurite: {error}"));
        let mut azurite = Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)), directory };
        azurite.wait_until_it_listens();
        azurite
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the Azure SDKs call a connection string.
    #[must_use]
    pub fn connection_string(&self) -> String {
        format!(
            "DefaultEndpointsProtocol=http;AccountName={DEVELOPMENT_ACCOUNT};AccountKey={DEVELOPMENT_KEY};\
             BlobEndpoint=http://{}/{DEVELOPMENT_ACCOUNT};",
            self.address
        )
    }

    fn wait_until_it_listens(&mut self) {
        let deadline = Instant::now() + LISTENS_WITHIN;
        while TcpStream::connect(self.address).is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                let text = fs::read_to_string(self.directory.path().join("stderr")).unwrap_or_default();
                panic!("Azurite ended with {status}: {text}");
            }
            assert!(Instant::now() < deadline, "Azurite does not listen after {LISTENS_WITHIN:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
