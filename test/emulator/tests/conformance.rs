//! Runs the one list of requests and expected answers against the emulator and against Azurite.

use std::{
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use blob_emulator::{
    DEVELOPMENT_ACCOUNT, DEVELOPMENT_KEY, Emulator, Settings,
    conformance::{Report, Target, cases, run},
};

fn judge(report: &Report, server: &str) {
    for (name, reason) in &report.known {
        println!("{server} differs: {name}: {reason}");
    }
    for (name, why) in &report.failed {
        println!("{server} FAILED: {name}\n    {why}");
    }
    println!(
        "{server}: {} held, {} known to differ, {} failed",
        report.held.len(),
        report.known.len(),
        report.failed.len()
    );
    assert!(report.failed.is_empty(), "{} cases failed on {server}; see above", report.failed.len());
}

#[test]
fn the_emulator_answers_every_case_as_expected() {
    let emulator = Emulator::start(Settings::default()).unwrap();
    let report = run(&Target {
        address: emulator.address(),
        account: emulator.account().to_owned(),
        key: emulator.key(),
        azurite: false,
    });
    judge(&report, "emulator");
    assert!(report.held.len() >= 80 && report.held.len() == cases().len());
    assert!(emulator.containers().is_empty(), "every case deletes its container");
}

/// Azurite as a child process, ended with the value.
struct Azurite {
    child: Child,
    address: SocketAddr,
}

impl Azurite {
    fn start() -> Self {
        let module =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../azurite/node_modules/azurite/dist/src/blob/main.js");
        assert!(module.exists(), "Azurite is not installed: run `npm ci --prefix test/azurite` (`make test` does it)");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.unwrap_or_else(|error| panic!("no free port: {error}")).port();
        let child = Command::new("node")
            .arg(module)
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
            .args(["--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry", "--silent"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("Node.js (`node`) must be installed to run Azurite: {error}"));
        let mut azurite = Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) };
        azurite.wait_until_it_listens();
        azurite
    }

    fn wait_until_it_listens(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(self.address).is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                let mut text = String::new();
                if let Some(mut stderr) = self.child.stderr.take() {
                    let _ = stderr.read_to_string(&mut text);
                }
                panic!("Azurite ended with {status}: {text}");
            }
            assert!(Instant::now() < deadline, "Azurite does not listen after 60 s");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn azurite_answers_as_expected_but_for_the_marked_cases() {
    let azurite = Azurite::start();
    let report = run(&Target {
        address: azurite.address,
        account: DEVELOPMENT_ACCOUNT.to_owned(),
        key: DEVELOPMENT_KEY.to_owned(),
        azurite: true,
    });
    judge(&report, "Azurite");
}
