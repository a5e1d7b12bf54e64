//! The one cluster of this process: the emulator that its volumes are on, fakes of Entra ID behind a proxy, and the installed
//! driver. Made by the first scenario that asks for it. Must not know what is tested.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{OnceLock, RwLock},
};

use blob_emulator::{Emulator, IdentityServices, Settings};

use crate::{install, kubectl::kubectl, snapshots};

/// The node's address, for pods as for processes of the node (test/e2e/node.sh).
const NODE_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 243, 0, 1));
/// Where the emulator listens, as the connection strings of scenarios say.
const EMULATOR_PORT: u16 = 10_000;
/// Tenant of the cluster's identities.
pub const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
/// Who issues the tokens of service accounts (test/e2e/node.sh).
pub const ISSUER: &str = "https://kubernetes.default.svc";

/// What scenarios share.
pub struct Cluster {
    /// The storage account.
    pub emulator: Emulator,
    /// Entra ID, and all of Azure's host names.
    pub identity: IdentityServices,
    /// Scenarios read; what ends mounts of others, or measures the node, writes.
    pub gate: RwLock<()>,
}

static CLUSTER: OnceLock<Cluster> = OnceLock::new();

/// The cluster, with the driver installed.
pub fn cluster() -> &'static Cluster {
    CLUSTER.get_or_init(|| {
        let emulator =
            Emulator::start_at(SocketAddr::from((NODE_ADDRESS, EMULATOR_PORT)), Settings::default()).unwrap();
        let identity = IdentityServices::start_at(NODE_ADDRESS, &emulator).unwrap();
        identity.trust_cluster(ISSUER, &kubectl(&["get", "--raw", "/openid/v1/jwks"])).unwrap();
        let cluster = Cluster { emulator, identity, gate: RwLock::new(()) };
        // First: the chart looks whether there are snapshots in the cluster.
        snapshots::install();
        install::install(&cluster, install::RELEASE, install::DRIVER);
        cluster
    })
}
