//! The processes of the demo: a Blob service, the controller and the node plugin. All end with the value that holds them.

use std::{
    fs::File,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Everything must be up within this time.
const UP_WITHIN: Duration = Duration::from_secs(20);

/// The account and key that every Blob emulator knows: public, and good for nothing else.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Which Blob service.
#[derive(Clone, Copy)]
pub enum Service {
    /// Ours, in memory.
    Emulator,
    /// Microsoft's, on Node.
    Azurite,
}

impl Service {
    /// What DEMO says; the emulator without it.
    ///
    /// # Errors
    /// DEMO names neither.
    pub fn of_environment() -> Result<Self> {
        match std::env::var("DEMO").as_deref() {
            Err(_) | Ok("" | "emulator") => Ok(Self::Emulator),
            Ok("azurite") => Ok(Self::Azurite),
            Ok(other) => bail!("DEMO={other}: write emulator or azurite"),
        }
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Emulator => "the Blob emulator",
            Self::Azurite => "Azurite",
        }
    }

    fn command(self, port: u16) -> Command {
        match self {
            Self::Emulator => {
                let mut command = Command::new(binary("blob-emulator"));
                command.args(["--listen", &format!("127.0.0.1:{port}")]);
                command
            }
            Self::Azurite => {
                let mut command = Command::new("node");
                command.arg(project("test/azurite/node_modules/azurite/dist/src/blob/main.js"));
                command.args([
                    "--blobPort",
                    &port.to_string(),
                    "--inMemoryPersistence",
                    "--skipApiVersionCheck",
                    "--silent",
                ]);
                command
            }
        }
    }
}

/// See the module's doc.
pub struct Processes {
    /// In the order of their start; they end in the reverse one.
    children: Vec<(&'static str, Child)>,
    endpoint: String,
    root: PathBuf,
}

impl Processes {
    /// Starts all and waits until they listen. Their logs go to files in `root`.
    ///
    /// # Errors
    /// One does not start, with the end of its log.
    pub fn start(service: Service, root: &Path) -> Result<Self> {
        // Bound and dropped: a port that is free now.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let endpoint = format!("http://127.0.0.1:{port}/{ACCOUNT}");
        let mut all = Self { children: Vec::new(), endpoint, root: root.to_owned() };
        all.spawn("service", service.command(port))?;
        all.wait("service", || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        std::fs::create_dir(root.join("plugins_registry"))?;
        let socket = |name: &str| format!("unix://{}", root.join(name).display());
        let mut controller = Command::new(binary("azblob-csi"));
        controller.args(["controller", "--endpoint", &socket("controller.sock")]);
        all.spawn("controller", controller)?;
        let mut node = Command::new(binary("azblob-csi"));
        node.args(["node", "--endpoint", &socket("node.sock"), "--node-id", "demo", "--kubelet-dir"]).arg(root);
        all.spawn("node", node)?;
        for name in ["controller", "node"] {
            all.wait(name, || root.join(format!("{name}.sock")).exists())?;
        }
        Ok(all)
    }

    /// URL of the account.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Everything that a client must know.
    pub fn connection_string(&self) -> String {
        format!("DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={};", self.endpoint)
    }

    /// A shell command that lists a container with Microsoft's Python SDK.
    pub fn listing(&self, container: &str) -> String {
        let python = project("test/clients/.venv/bin/python");
        format!("{} {} {} {container}", python.display(), project("test/clients/list.py").display(), self.endpoint)
    }

    /// Ends all in order.
    ///
    /// # Errors
    /// One of ours does not end well on SIGTERM.
    pub fn stop(mut self) -> Result<()> {
        while let Some((name, mut child)) = self.children.pop() {
            kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
            let status = child.wait()?;
            ensure!(name == "service" || status.success(), "the {name} ended with {status}: {}", self.log(name));
        }
        Ok(())
    }

    fn spawn(&mut self, name: &'static str, mut command: Command) -> Result<()> {
        let log = File::create(self.root.join(format!("{name}.log")))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        self.children.push((name, child));
        Ok(())
    }

    fn wait(&mut self, name: &str, up: impl Fn() -> bool) -> Result<()> {
        let began = Instant::now();
        while !up() {
            let ended =
                self.children.iter_mut().any(|(_, child)| child.try_wait().is_ok_and(|status| status.is_some()));
            ensure!(!ended && began.elapsed() < UP_WITHIN, "the {name} does not come up: {}", self.log(name));
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The log of a process, short as the demo is.
    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.root.join(format!("{name}.log"))).unwrap_or_default()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // Only after a failure is anything left here: no mount may outlive its process.
        for name in ["pod", "staging"] {
            let _ = umount2(&self.root.join(name), MntFlags::MNT_DETACH);
        }
        for (_, child) in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A binary of the workspace, beside the directory that this example was built into.
fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().nth(2).unwrap_or(Path::new("target/debug")).join(name)
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
