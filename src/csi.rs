//! The gRPC services that the kubelet and the external provisioner call, and what their requests mean.
//!
//! A request is read here (`parameters`, `secrets`, `volume_id`) into a [`crate::volume::VolumeSpec`]; mounting itself is
//! in [`crate::volume`]. Nothing here touches a mount or talks to the service. Promises:
//!
//! - Every call may come again, any time: it joins the running one or finds its work done (`in_flight`).
//! - A failure is one sentence with its fix; codes are chosen in `status` alone.
//! - No secret in an answer or a log.

mod account;
pub mod capability;
pub mod container_name;
pub mod controller;
mod copy;
pub mod error;
pub mod identity;
pub mod in_flight;
pub mod kubelet;
pub mod labels;
mod lookup;
mod marks;
pub mod metrics;
mod named_secret;
pub mod node;
pub mod parameters;
mod place;
pub mod plugin;
pub mod pod_token;
pub mod proto;
pub mod registration;
pub mod request;
pub mod secrets;
pub mod server;
pub mod stage_secret;
mod startup_taint;
pub mod status;
pub mod volume_id;

pub use error::{Error, ErrorKind, Result};
