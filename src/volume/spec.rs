//! What to mount: plain data, complete before anything is touched.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::{
    blob::{Location, Metadata},
    credential::{Credential, CredentialSource},
    finding::Diagnosis,
    fs, fuse,
    telemetry::metrics::Labels,
};

/// Metadata name of a container that this driver made: who. Deleting one asks for it (`createdBy` of the Azure Blob CSI
/// driver; names of metadata have no case).
pub const CREATED_BY: &str = "createdby";

/// Metadata name of the size that was asked for, in bytes: a container has none of its own, and `df`, volume statistics
/// and repeated CreateVolume calls need one.
pub const CAPACITY: &str = "azblobcsicapacity";

/// Metadata name of the volume for which the container was made.
pub const VOLUME_NAME: &str = "azblobcsivolume";

/// Reads the size out of a container's metadata.
#[must_use]
pub fn recorded_capacity(metadata: &Metadata) -> Option<u64> {
    metadata.get(CAPACITY)?.parse().ok()
}

/// Whoever tells people what they should look at before it becomes a failure.
#[async_trait]
pub trait Notices: fmt::Debug + Send + Sync {
    /// Says it, as far as that can be done, of the volume and of those `users` that have it.
    async fn warn(&self, known: &Diagnosis, users: &[Labels]);
}

/// What a volume was made of, for whoever makes it again in another process. Holds what came with a request, secrets too.
#[derive(Clone, PartialEq, Eq)]
pub struct Origin {
    handle: String,
    bytes: Arc<[u8]>,
}

impl Origin {
    /// That of the volume which requests call `handle`. The bytes are their writer's.
    #[must_use]
    pub fn new(handle: &str, bytes: Vec<u8>) -> Self {
        Self { handle: handle.to_owned(), bytes: bytes.into() }
    }

    /// What requests call the volume.
    #[must_use]
    pub fn handle(&self) -> &str {
        &self.handle
    }

    /// What it was made of.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// A volume, as a request describes it.
#[derive(Clone, Debug)]
pub struct VolumeSpec {
    /// The volumeHandle. Volumes of one id share one core on a node.
    pub id: String,
    /// What it was made of, where another process may go on with it.
    pub origin: Option<Origin>,
    /// Who may share what was read, in the cache: the volume, and whose identity reads it where that is not the volume's.
    pub scope: String,
    /// What it is called elsewhere, for metrics.
    pub labels: Labels,
    /// Container and prefix.
    pub location: Location,
    /// What to sign with, until a later request brings another.
    pub credential: Credential,
    /// Where that can be read again, if somebody knows.
    pub source: Option<Arc<dyn CredentialSource>>,
    /// Who is told that it ends.
    pub notices: Option<Arc<dyn Notices>>,
    /// Makes a missing container on first use, under this owner's name.
    pub create_container: Option<String>,
    /// How the file system behaves. `prefix` and `scope` are filled in when it is opened.
    pub settings: fs::Settings,
    /// How blobs look that carry no owner and modes, before any pod's group.
    pub view: fs::ViewSettings,
    /// Options of mount(2). `source` is filled in when it is mounted.
    pub session: fuse::SessionOptions,
    /// The mount options name a group: a pod's fsGroup then changes nothing.
    pub fixed_group: bool,
}

impl VolumeSpec {
    /// The view of a pod whose fsGroup is `group`.
    #[must_use]
    pub fn view_for(&self, group: Option<u32>) -> fs::ViewSettings {
        fs::ViewSettings { forced_gid: group.filter(|_| !self.fixed_group), ..self.view.clone() }
    }
}
