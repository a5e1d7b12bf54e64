//! The driver's two roles as processes of their own, with their logs. Ended, and unmounted where they cannot be, with
//! the value. Knows their command lines and sockets, and nothing of volumes.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use azblob_csi::{
    csi::proto::{
        registration::{InfoRequest, registration_client::RegistrationClient},
        v1::{
            GetPluginInfoRequest, controller_client::ControllerClient, identity_client::IdentityClient,
            node_client::NodeClient,
        },
    },
    volume::mountinfo::MountTable,
};
use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tonic::transport::{Channel, Endpoint};

/// The name that StorageClasses use.
const DRIVER: &str = "blob.csi.azure.com";
/// A socket that is not there by then will not come.
const START_WITHIN: Duration = Duration::from_secs(20);
/// What the kubelet gives a pod by default.
const END_WITHIN: Duration = Duration::from_secs(30);
/// How often we look.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Lines of a log that are shown when the demo fails.
const LOG_LINES: usize = 30;

/// See the module's doc.
pub struct Plugins {
    directory: PathBuf,
    processes: Vec<Child>,
    /// The node's CSI socket.
    pub node: NodeClient<Channel>,
    /// The controller's CSI socket.
    pub controller: ControllerClient<Channel>,
}

impl Plugins {
    /// Starts both and waits for their sockets below `directory`, which stands for the node's file system.
    ///
    /// # Errors
    /// When one does not come up, with its log.
    pub async fn start(directory: &Path) -> Result<Self> {
        let kubelet = directory.join("kubelet");
        std::fs::create_dir_all(kubelet.join("plugins_registry"))?;
        let (node, controller) = (directory.join("node.sock"), directory.join("controller.sock"));
        let mut plugins = Self {
            directory: directory.to_owned(),
            processes: Vec::new(),
            node: NodeClient::new(channel(&node)?),
            controller: ControllerClient::new(channel(&controller)?),
        };
        let endpoint = |socket: &Path| format!("--endpoint=unix://{}", socket.display());
        plugins.spawn("controller", &[&endpoint(&controller)])?;
        let kubelet_flag = format!("--kubelet-dir={}", kubelet.display());
        plugins.spawn("node", &[&endpoint(&node), "--node-id=demo-node", &kubelet_flag])?;
        for socket in [controller, node, plugins.registration()] {
            if let Err(error) = plugins.wait_for(&socket).await {
                plugins.print_logs();
                return Err(error);
            }
        }
        Ok(plugins)
    }

    fn registration(&self) -> PathBuf {
        self.directory.join(format!("kubelet/plugins_registry/{DRIVER}-reg.sock"))
    }

    fn log(&self, role: &str) -> PathBuf {
        self.directory.join(format!("{role}.log"))
    }

    fn spawn(&mut self, role: &str, flags: &[&str]) -> Result<()> {
        let binary = binary()?;
        let log = File::create(self.log(role))?;
        let mut command = Command::new(&binary);
        command.arg(role).args(flags).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
        self.processes.push(child);
        println!("   azblob-csi {role} {}", flags.join(" "));
        Ok(())
    }

    async fn wait_for(&mut self, socket: &Path) -> Result<()> {
        let deadline = Instant::now() + START_WITHIN;
        while !socket.exists() {
            for child in &mut self.processes {
                if let Some(status) = child.try_wait()? {
                    bail!("a role of the driver ended with {status}");
                }
            }
            ensure!(Instant::now() < deadline, "{} did not appear within {START_WITHIN:?}", socket.display());
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Asks the driver who it is, as the kubelet does before it trusts a socket.
    ///
    /// # Errors
    /// When the registration and the driver itself do not agree.
    pub async fn introduce(&mut self) -> Result<String> {
        let mut registration = RegistrationClient::new(channel(&self.registration())?);
        let info = registration.get_info(InfoRequest::default()).await?.into_inner();
        let mut identity = IdentityClient::new(channel(Path::new(&self.directory.join("node.sock")))?);
        let plugin = identity.get_plugin_info(GetPluginInfoRequest::default()).await?.into_inner();
        ensure!(info.name == plugin.name, "registered as {}, but it says that it is {}", info.name, plugin.name);
        Ok(format!("registered with the kubelet as {} {} ({})", plugin.name, plugin.vendor_version, info.r#type))
    }

    /// Ends both as Kubernetes does, with SIGTERM.
    ///
    /// # Errors
    /// When one does not end in order.
    pub fn end(&mut self) -> Result<()> {
        for child in &self.processes {
            kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
        }
        let deadline = Instant::now() + END_WITHIN;
        for mut child in self.processes.drain(..) {
            loop {
                if let Some(status) = child.try_wait()? {
                    ensure!(status.success(), "a role of the driver ended with {status}");
                    break;
                }
                if Instant::now() > deadline {
                    child.kill()?;
                    child.wait()?;
                    bail!("a role of the driver did not end within {END_WITHIN:?}");
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }

    /// Shows the end of both logs: for a demo that failed.
    pub fn print_logs(&self) {
        for role in ["controller", "node"] {
            let text = std::fs::read_to_string(self.log(role)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES);
            eprintln!("--- log of {role}, last lines ---\n{}", lines[from..].join("\n"));
        }
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        for child in &mut self.processes {
            let _ = child.kill();
            let _ = child.wait();
        }
        // A demo that failed half-way must not leave mounts behind; deepest first.
        let Ok(table) = MountTable::read() else { return };
        let mut left: Vec<PathBuf> = table.below(&self.directory).map(|mount| mount.mount_point.clone()).collect();
        left.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        for path in left {
            let _ = umount2(&path, MntFlags::MNT_DETACH);
        }
    }
}

/// The driver, built into the directory above the examples'.
fn binary() -> Result<PathBuf> {
    let here = std::env::current_exe().context("cannot find this program's own file")?;
    let directory = here.parent().and_then(Path::parent).context("this program lies in no build directory")?;
    let binary = directory.join("azblob-csi");
    ensure!(binary.exists(), "{} is missing: run `make demo`, which builds it", binary.display());
    Ok(binary)
}

fn channel(socket: &Path) -> Result<Channel> {
    Ok(Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect_lazy())
}
