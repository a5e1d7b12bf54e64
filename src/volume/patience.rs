//! How long data that the service does not take may hold up the end of a volume. Programs were told by close(2) and fsync(2)
//! what was not saved, so nothing acknowledged is at stake; but a service that is away for minutes comes back, and then the
//! data is where it belongs without anybody's help.

use std::time::Duration;

/// Within one call. The kubelet waits two minutes for an answer (csiTimeout in its pkg/volume/csi); the other half is for a mount
/// that is busy (20 s until it is detached, 20 s until its users are cut off) and for lost+found.
const FLUSH: Duration = Duration::from_secs(60);

/// Over the calls that the kubelet repeats. A guess: longer than a failover of an account within its region, shorter than people
/// wait for a node to drain.
const UNSAVED: Duration = Duration::from_secs(600);

/// The limits of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For saving what is dirty, within one call. Afterwards the pod goes, and the data stays with the volume.
    pub flush: Duration,
    /// From the first unstage that could not save everything, or from when it last got on, until lost+found has the rest.
    pub unsaved: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { flush: FLUSH, unsaved: UNSAVED }
    }
}
