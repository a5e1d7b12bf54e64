//! azblob-csi: Azure Blob containers as volumes, for Kubernetes and for mount(8).
//!
//! The map of the house. Dependencies point downwards only (a test in `test/tidy` holds the line):
//!
//! | room | what it is for |
//! |---|---|
//! | `cli` | one file a role: controller, node, mount; flags, environment, exit codes |
//! | `migrate` | volumes of the drivers before this one, as volumes of this one: manifests in, manifests out |
//! | `csi` | the gRPC services that the kubelet and the external provisioner call |
//! | `kube` | what is asked of the API server: PersistentVolumes, Secrets, events |
//! | `volume` | what to mount, what is mounted where, bind mounts and unmounting |
//! | `doctor` | checks in order, from the URL to the permissions; turns a failure into a finding |
//! | [`fuse`] | the thin adapter from the kernel's requests to `fs`; sessions and kernel tuning |
//! | [`fs`] | the file system itself: inodes, directories, reads, writes, commits. No FUSE type |
//! | [`cache`] | memory budget, buffer pool, block cache. Knows nothing of files |
//! | [`blob`] | the Blob service: every operation that the file system needs, nothing else |
//! | [`credential`] | who we are: account key, SAS, connection string; clouds and endpoints |
//! | [`keeper`] | the process that holds descriptors for others, so that mounts outlive whoever serves them |
//! | [`ledger`] | a memory file of keys and values that outlives its writer |
//! | [`mapping`] | a range of memory that the kernel maps for us: everybody's |
//! | [`telemetry`] | logs, counters, and the endpoint for metrics and probes: everybody's |
//! | [`finding`] | every known reason why a volume does not mount, with its fix: one table |
//!
//! Start with `fs.rs` to understand the product, with `docs/ARCHITECTURE.md` to understand the choices.

pub mod blob;
pub mod cache;
#[cfg(not(feature = "shuttle"))]
pub mod cli;
pub mod credential;
#[cfg(not(feature = "shuttle"))]
pub mod csi;
#[cfg(not(feature = "shuttle"))]
pub mod doctor;
pub mod finding;
pub mod fs;
#[cfg(not(feature = "shuttle"))]
pub mod fuse;
#[cfg(not(feature = "shuttle"))]
pub mod keeper;
#[cfg(not(feature = "shuttle"))]
pub mod kube;
pub mod ledger;
pub mod mapping;
#[cfg(not(feature = "shuttle"))]
pub mod migrate;
pub mod sync;
pub mod telemetry;
#[cfg(not(feature = "shuttle"))]
pub mod volume;
