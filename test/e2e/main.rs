//! A real Kubernetes, the driver's own manifests, and what users do: `make e2e` starts the one, installs the other, and runs these
//! scenarios in it.
//!
//! ```text
//! scenarios   one file a subject, one test a behaviour; their objects are in manifests/
//!   scenario  a namespace, a container and a Secret of its own; nothing of them may be left at the end
//!   cluster   the one cluster of this process: the emulator, the installed driver
//!   snapshots what a cluster's administrator installs for snapshots
//!   kubectl   kubectl and helm as programs
//! ```
//!
//! Runs on the node (test/e2e/lab), as a process beside the kubelet. Knows the driver only as what is installed.

// A test fails by panicking, and so does what it stands on.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a step that fails here fails the test")]

mod cluster;
mod install;
mod kubectl;
mod sas;
mod scenario;
mod scenarios;
mod snapshots;
