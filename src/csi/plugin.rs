//! The two roles of the driver as running processes: sockets, services, and an orderly end.
//!
//! At the end of the node role nothing is unmounted: pods still use the volumes. Mounts that a keeper holds are left to the next
//! process as they are; of others what is dirty is saved, and they end with the process.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;
use tonic::transport::{Server, server::Router};

use super::{
    controller::Controller,
    error::{Error, ErrorKind, Result},
    identity::Identity,
    kubelet::Kubelet,
    metrics::{Calls, Measured},
    node::Node,
    proto::{
        registration::registration_server::RegistrationServer,
        v1::{controller_server::ControllerServer, identity_server::IdentityServer, node_server::NodeServer},
    },
    registration::Registration,
    request::Defaults,
    server::{Socket, socket_path},
    startup_taint,
};
use crate::{
    blob::Connections,
    kube::Api,
    telemetry::{
        endpoint::{Endpoint, Subject},
        metrics::Page,
    },
    volume::{
        Patience, Registry, Shared,
        registry::{Estates, KeptEstates, Makers},
    },
};

/// For saving what is dirty when the process is told to end. The kubelet's default grace is 30 s, and the rest of it is
/// for calls in flight.
const FLUSH_DEADLINE: Duration = Duration::from_secs(20);

/// For calls in flight when the process is told to end. A mount that takes longer is asked for again.
const CALLS_DEADLINE: Duration = Duration::from_secs(8);

/// The same where a keeper holds what is mounted: pods notice the time until the next process serves.
const KEPT_CALLS_DEADLINE: Duration = Duration::from_secs(1);
/// For what programs have asked of mounts that are handed over. The two are to be over within two seconds.
const HAND_OVER_DEADLINE: Duration = Duration::from_millis(900);

/// Where plugins introduce themselves, below the kubelet's directory.
const REGISTRY_DIRECTORY: &str = "plugins_registry";

/// How the node role runs.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The CSI socket (`unix:///csi/csi.sock`).
    pub endpoint: String,
    /// Name of the node, as Kubernetes calls it.
    pub node_id: String,
    /// The kubelet's directory, at the same path as on the host.
    pub kubelet_directory: PathBuf,
    /// Path of the CSI socket as the kubelet sees it; by default `endpoint` where that lies in the kubelet's directory, else
    /// `<kubelet>/plugins/<driver>/csi.sock`.
    pub registration_path: Option<PathBuf>,
    /// What volumes inherit.
    pub defaults: Defaults,
    /// The API server, where the driver may ask it.
    pub api: Option<Api>,
    /// Volumes that the scheduler may put on the node at most; `None` for as many as it likes.
    pub max_volumes: Option<i64>,
    /// Takes the driver's taint from the node once the kubelet has registered the driver.
    pub removes_startup_taint: bool,
    /// How long unsaved data may hold up the end of a volume.
    pub patience: Patience,
    /// Where metrics and probes are served (`HOST:PORT`), if anywhere.
    pub metrics_address: Option<String>,
}

impl NodeOptions {
    /// The kubelet's directory, as this driver sees it.
    fn kubelet(&self) -> Kubelet {
        Kubelet::new(&self.kubelet_directory, &self.defaults.driver_name)
    }

    fn seen_by_kubelet(&self, socket: &Path) -> PathBuf {
        match &self.registration_path {
            Some(path) => path.clone(),
            None if socket.starts_with(&self.kubelet_directory) => socket.to_path_buf(),
            None => self.kubelet_directory.join("plugins").join(&self.defaults.driver_name).join("csi.sock"),
        }
    }
}

/// How a node plugin has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// What was dirty is saved, and mounts end with the process.
    Saved,
    /// Mounts are the next process's. This one must end at once: a reply that is dropped is an I/O error to some program.
    HandedOver,
}

/// Serves Node and Identity, and introduces the driver to the kubelet, until `stop` resolves.
///
/// # Errors
/// When a socket cannot be made.
pub async fn serve_node(options: NodeOptions, shared: Shared, stop: impl Future<Output = ()> + Send) -> Result<Ended> {
    let path = socket_path(&options.endpoint)?;
    // First: where another process of this driver listens, its mounts are not dead.
    let socket = Socket::bind(&path).await?;
    let registry = Registry::new(shared, Arc::new(options.kubelet()), options.patience).await?;
    registry.watch();
    let node = Node::new(options.defaults.clone(), options.node_id.clone(), Arc::clone(&registry))
        .with_api(options.api.clone())
        .with_max_volumes(options.max_volumes);
    // Calls are served meanwhile: one for a volume that is not settled yet waits for it.
    registry.inherit(&(Arc::new(node.clone()) as Arc<dyn Makers>), &(Arc::new(KeptEstates) as Arc<dyn Estates>));
    let calls = Calls::default();
    let (health, health_server) = tonic_health::server::health_reporter();
    health.set_serving::<NodeServer<Node>>().await;
    let router = Server::builder()
        .add_service(IdentityServer::new(Identity::new(&options.defaults.driver_name)))
        .add_service(Measured::new(NodeServer::new(node), &calls))
        .add_service(health_server);
    tracing::info!(socket = %path.display(), node = options.node_id, driver = options.defaults.driver_name, "serving the node");
    let introduced = introduce(&options, &path).await?;
    let (registration, registered) = introduced.map_or((None, None), |(server, taken)| (Some(server), Some(taken)));
    untaint(&options, registered.clone());
    let subject = NodeSubject { calls, registry: Arc::clone(&registry), registered };
    let telling = listen(options.metrics_address.as_deref()).await?.map(|endpoint| endpoint.serve(subject));
    let (told, stopped) = watch::channel(false);
    let served = serve_all(socket, router, registration, stopped);
    let calls_deadline = || if registry.is_kept() { KEPT_CALLS_DEADLINE } else { CALLS_DEADLINE };
    let ended = run_until(served, stop, told, calls_deadline).await;
    drop(telling);
    registry.flush_all(FLUSH_DEADLINE).await;
    let is_handed_over = registry.hand_over(HAND_OVER_DEADLINE).await;
    registry.abandon();
    ended.map(|()| if is_handed_over { Ended::HandedOver } else { Ended::Saved })
}

/// Serves Controller and Identity until `stop` resolves.
///
/// # Errors
/// When the socket cannot be made.
pub async fn serve_controller(
    endpoint: &str,
    defaults: Defaults,
    connections: Connections,
    metrics_address: Option<&str>,
    stop: impl Future<Output = ()> + Send,
) -> Result<()> {
    let path = socket_path(endpoint)?;
    let socket = Socket::bind(&path).await?;
    let calls = Calls::default();
    let _telling = listen(metrics_address).await?.map(|endpoint| endpoint.serve(calls.clone()));
    let (health, health_server) = tonic_health::server::health_reporter();
    health.set_serving::<ControllerServer<Controller>>().await;
    tracing::info!(socket = %path.display(), driver = defaults.driver_name, "serving the controller");
    let router = Server::builder()
        .add_service(IdentityServer::new(Identity::new(&defaults.driver_name)))
        .add_service(Measured::new(ControllerServer::new(Controller::new(defaults, connections)), &calls))
        .add_service(health_server);
    let (told, stopped) = watch::channel(false);
    run_until(serve_all(socket, router, None, stopped), stop, told, || CALLS_DEADLINE).await
}

/// The socket on which the kubelet asks who we are. None where there is no kubelet.
async fn introduce(options: &NodeOptions, socket: &Path) -> Result<Option<((Socket, Router), watch::Receiver<bool>)>> {
    let directory = options.kubelet_directory.join(REGISTRY_DIRECTORY);
    if !directory.is_dir() {
        tracing::info!(directory = %directory.display(), "no such directory: the driver is not registered with a kubelet");
        return Ok(None);
    }
    let name = &options.defaults.driver_name;
    let endpoint = options.seen_by_kubelet(socket);
    let registration = Registration::new(name, endpoint.to_string_lossy());
    let socket = Socket::bind(&directory.join(format!("{name}-reg.sock"))).await?;
    let registered = registration.registered();
    let router = Server::builder().add_service(RegistrationServer::new(registration));
    Ok(Some(((socket, router), registered)))
}

/// Has the driver's taint taken from the node, where that is asked for.
fn untaint(options: &NodeOptions, registered: Option<watch::Receiver<bool>>) {
    if !options.removes_startup_taint {
        return;
    }
    match (options.api.clone(), registered) {
        (Some(api), Some(registered)) => {
            let (driver, node) = (options.defaults.driver_name.clone(), options.node_id.clone());
            drop(tokio::spawn(startup_taint::remove(api, driver, node, registered)));
        }
        _ => tracing::warn!("the node keeps its taint: there is no kubelet here, or no access to the API server"),
    }
}

/// What a node plugin tells of itself.
struct NodeSubject {
    calls: Calls,
    registry: Arc<Registry>,
    /// Whether the kubelet has taken the driver; `None` without a kubelet.
    registered: Option<watch::Receiver<bool>>,
}

impl Subject for NodeSubject {
    fn write(&self, page: &mut Page) {
        self.calls.write(page);
        self.registry.write_metrics(page);
    }

    fn unready(&self) -> Option<String> {
        let waits = self.registered.as_ref().is_some_and(|registered| !*registered.borrow());
        waits.then(|| "the kubelet has not registered the driver yet".to_owned())
    }
}

impl Subject for Calls {
    fn write(&self, page: &mut Page) {
        Self::write(self, page);
    }
}

/// Listens at `address`, if there is one.
async fn listen(address: Option<&str>) -> Result<Option<Endpoint>> {
    let Some(address) = address else { return Ok(None) };
    let bound = Endpoint::bind(address).await.map_err(|error| {
        let text = format!("Cannot serve metrics on {address:?}: give another --metrics-address");
        Error::new(ErrorKind::Invalid, text).because(error)
    })?;
    Ok(Some(bound))
}

async fn serve_all(
    socket: Socket,
    router: Router,
    registration: Option<(Socket, Router)>,
    stopped: watch::Receiver<bool>,
) -> Result<()> {
    let main = socket.serve(router, when(stopped.clone()));
    match registration {
        Some((socket, router)) => {
            // Two servers in one future are more than a stack should hold.
            let registration = Box::pin(socket.serve_registration(router, when(stopped)));
            futures::future::try_join(main, registration).await.map(|((), ())| ())
        }
        None => main.await,
    }
}

/// Runs `served` until it ends by itself or `stop` resolves, then gives calls in flight some time.
async fn run_until(
    served: impl Future<Output = Result<()>>,
    stop: impl Future<Output = ()>,
    told: watch::Sender<bool>,
    calls_deadline: impl FnOnce() -> Duration,
) -> Result<()> {
    tokio::pin!(served);
    tokio::select! {
        ended = &mut served => {
            return ended.and(Err(Error::new(ErrorKind::Internal, "The gRPC server ended without being told to")));
        }
        () = stop => {}
    }
    told.send_replace(true);
    match tokio::time::timeout(calls_deadline(), served).await {
        Ok(ended) => ended,
        Err(_) => {
            tracing::warn!("calls in flight did not end in time; they will be asked for again");
            Ok(())
        }
    }
}

async fn when(mut stopped: watch::Receiver<bool>) {
    // The sender is held until the end; were it gone, stopping would be right too.
    stopped.wait_for(|stopped| *stopped).await.ok();
}
