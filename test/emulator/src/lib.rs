//! An in-memory Blob service, good enough to develop, demonstrate and benchmark against. It depends on nothing of the
//! driver, so that the driver is measured against something that does not share its mistakes.
//!
//! ```text
//! emulator, control, main       start it, turn its knobs, look inside
//!   server                      accept, pace, authorise, inject faults, read bodies, count
//!     auth (shared_key, sas, bearer, delegation)
//!                               who may do what
//!     operation, call, query    what is asked
//!     blob (block, append, page, read, properties), copy, list, container, lease, conditions
//!                               what the service does
//!     dfs (create, rename, delete, access, properties, list)
//!                               the same account through its Data Lake endpoint
//!     hierarchy, access         what a hierarchical namespace adds
//!       state, data             what it holds
//!     answer, error, xml, date  what it says
//!   settings, faults, counters, connection
//!                               the knobs and what they turn
//! identity                      the services that hand out tokens, keys and secrets, over TLS: see there
//! running                       the thread or task under a server
//! conformance                   requests and expected answers, for this emulator and for any other server
//! ```

mod access;
mod answer;
mod auth;
mod blob;
mod call;
mod conditions;
pub mod conformance;
mod connection;
mod container;
mod control;
mod copy;
mod counters;
mod data;
mod date;
mod dfs;
mod emulator;
mod error;
mod faults;
mod hierarchy;
mod identity;
mod lease;
mod list;
mod operation;
mod query;
mod running;
mod server;
mod settings;
mod state;
mod xml;

pub use counters::{CountersView, OperationCounters, RequestRecord};
pub use emulator::{Emulator, EmulatorError};
pub use faults::{FaultKind, FaultRule};
pub use identity::{
    Application, ClientCertificate, Cloud, Cluster, IdentityDescription, IdentityError, IdentityFault,
    IdentityFaultKind, IdentityRequest, IdentityService, IdentityServices, KubernetesApi, Leaf, Machine,
    ManagedIdentity, Role, Tenant, Vault, subject_of,
};
pub use operation::Operation;
pub use settings::{Settings, parse_rate};
pub use state::{DEVELOPMENT_ACCOUNT, DEVELOPMENT_KEY, PublicAccess};
