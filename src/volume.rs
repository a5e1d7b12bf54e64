//! Volumes of this node: what to mount, what is mounted where, and how it is taken down again.
//!
//! | file | what it is for |
//! |---|---|
//! | [`spec`] | what a volume is, before anything is touched |
//! | [`core`] | credential, store and file system of a volume, once a node |
//! | [`registry`] | what is staged and published where |
//! | [`options`] | mount options, in every form that people write them |
//! | [`keeping`] | whether a keeper lets mounts outlive the process |
//! | [`patience`] | how long unsaved data may hold up the end of a volume |
//! | [`mountinfo`] | the kernel's table of mounts, read without touching one |
//! | [`bind`] | bind mounts and unmounting, bounded in time |
//! | [`metrics`] | what the volumes tell of themselves |
//! | [`estate`] | what a volume leaves with the keeper, and what the next process finds there |
//! | [`error`] | what went wrong, in a sentence with the fix |
//!
//! No gRPC type and no Kubernetes name may appear here.

pub mod bind;
pub mod core;
pub mod error;
pub mod estate;
pub mod keeping;
pub mod metrics;
pub mod mountinfo;
pub mod options;
pub mod patience;
pub mod registry;
pub mod spec;

pub use core::{Refresh, Shared};
pub use error::{Error, ErrorKind, Result};
pub use estate::Estate;
pub use keeping::Keeping;
pub use patience::Patience;
pub use registry::{Condition, Layout, Outcome, Place, PublishOptions, Registry, id_of_pod};
pub use spec::{Notices, VolumeSpec};
