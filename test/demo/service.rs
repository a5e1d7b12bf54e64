//! The Blob service of the demo: the emulator in this process, or Azurite; and another client's view of it.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use blob_emulator::{DEVELOPMENT_ACCOUNT, DEVELOPMENT_KEY, Emulator, Settings};

/// Node.js on a busy machine takes its time.
const AZURITE_WITHIN: Duration = Duration::from_secs(60);

/// See the module's doc.
pub enum Service {
    /// In this process.
    Emulator(Box<Emulator>),
    /// A child, ended with the value.
    Azurite(Child, SocketAddr),
}

impl Service {
    /// Starts what DEMO asks for.
    ///
    /// # Errors
    /// When it does not come up, or DEMO is something else.
    pub fn start(project: &Path) -> Result<Self> {
        match std::env::var("DEMO").unwrap_or_default().as_str() {
            "" | "emulator" => Ok(Self::Emulator(Box::new(Emulator::start(Settings::default())?))),
            "azurite" => Self::start_azurite(project),
            other => bail!("DEMO={other} is unknown: emulator (the default) or azurite"),
        }
    }

    fn start_azurite(project: &Path) -> Result<Self> {
        let program = project.join("test/azurite/node_modules/azurite/dist/src/blob/main.js");
        ensure!(program.exists(), "Azurite is not installed: run `DEMO=azurite make demo`, which does it");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr())?;
        let child = Command::new("node")
            .arg(program)
            .args(["--blobHost", "127.0.0.1", "--blobPort", &address.port().to_string()])
            .args(["--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry", "--silent"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start Node.js (`node`), which Azurite needs")?;
        let mut service = Self::Azurite(child, address);
        let deadline = Instant::now() + AZURITE_WITHIN;
        while TcpStream::connect(address).is_err() {
            if let Self::Azurite(child, _) = &mut service
                && let Some(status) = child.try_wait()?
            {
                bail!("Azurite ended with {status}");
            }
            ensure!(Instant::now() < deadline, "Azurite does not listen after {AZURITE_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(service)
    }

    fn endpoint(&self) -> String {
        match self {
            Self::Emulator(emulator) => emulator.endpoint(),
            Self::Azurite(_, address) => format!("http://{address}/{DEVELOPMENT_ACCOUNT}"),
        }
    }

    /// What runs where.
    pub fn describe(&self) -> String {
        let what = match self {
            Self::Emulator(_) => "emulator",
            Self::Azurite(..) => "Azurite",
        };
        format!("{what} at {}", self.endpoint())
    }

    /// What the Secret of the claim holds.
    pub fn connection_string(&self) -> String {
        match self {
            Self::Emulator(emulator) => emulator.connection_string(),
            Self::Azurite(..) => format!(
                "DefaultEndpointsProtocol=http;AccountName={DEVELOPMENT_ACCOUNT};AccountKey={DEVELOPMENT_KEY};\
                 BlobEndpoint={};",
                self.endpoint()
            ),
        }
    }

    /// Lets the other client list the container, download it to `directory`/downloaded, and write a blob of its own.
    ///
    /// # Errors
    /// What it complained.
    pub fn look(&self, project: &Path, container: &str, directory: &Path) -> Result<String> {
        let to = directory.join("downloaded");
        self.python(project, &["look", container, &to.display().to_string()])
    }

    /// Whether that client finds the container no more.
    ///
    /// # Errors
    /// What it complained.
    pub fn is_gone(&self, project: &Path, container: &str) -> Result<bool> {
        Ok(self.python(project, &["exists", container])?.trim() == "no")
    }

    fn python(&self, project: &Path, args: &[&str]) -> Result<String> {
        let python = project.join("test/clients/.venv/bin/python");
        ensure!(python.exists(), "the Python SDK is not installed: run `make demo`, which does it");
        let output = Command::new("timeout")
            .args(["-k", "5", "60"])
            .arg(python)
            .arg(project.join("test/demo/another_client.py"))
            .args(args)
            .env("AZURE_STORAGE_CONNECTION_STRING", self.connection_string())
            .output()
            .context("cannot run Python")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the Python SDK: {}", complaint.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Self::Azurite(child, _) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
