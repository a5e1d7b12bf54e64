//! Mounts that nobody serves any more: what an earlier process of this driver left behind, and what lost its server since.
//!
//! A FUSE mount whose process has ended answers ENOTCONN for ever; the kernel keeps it until somebody unmounts it. At the start
//! everything is dead that this driver has mounted, since no process but this one serves it: the caller has made sure of that.
//! Whose a mount is, the layout knows: from its path, or from the note that stands beside it. All mounts of one superblock
//! are one mount's binds, so those of other drivers, and of other instances of this one, are never taken for ours.
//!
//! Nothing is touched but by umount2(2) with MNT_DETACH, which asks nobody.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

use super::{Error, MountTable, OUR_TYPE, Registry, Result, bind};

/// What a mount point is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A view of ours, which is bound elsewhere.
    View,
    /// Where a volume is staged.
    Staging,
    /// A part of a volume, bound by others for one container of a pod; they bind it again when they find nothing there.
    Part,
    /// The volume of a pod.
    Pod,
}

impl Place {
    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Staging => "staging",
            Self::Part => "part",
            Self::Pod => "pod",
        }
    }
}

/// Where mounts of this driver are on a node.
pub trait Layout: fmt::Debug + Send + Sync {
    /// The directory of views that are not the one of a staging path.
    fn views(&self) -> PathBuf;

    /// What the mount point `path` is for; `None` for one that is none of the driver's business.
    fn place(&self, path: &Path) -> Option<Place>;

    /// Whether what is mounted at `path` was mounted by this driver. Reads no mount.
    fn is_ours(&self, path: &Path) -> bool;
}

/// A mount of an earlier process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Leftover {
    place: Place,
    path: PathBuf,
}

fn leftovers(table: &MountTable, layout: &dyn Layout, is_dead: impl Fn(&str) -> bool) -> BTreeSet<Leftover> {
    let ours = || table.below(Path::new("/")).filter(|mount| mount.fs_type == OUR_TYPE);
    let known: BTreeSet<&str> =
        ours().filter(|mount| layout.is_ours(&mount.mount_point)).map(|mount| mount.device.as_str()).collect();
    let dead = ours().filter(|mount| known.contains(mount.device.as_str()) && is_dead(&mount.device));
    dead.filter_map(|mount| {
        let path = mount.mount_point.clone();
        // What lies over it is somebody else's, and has to go first.
        let is_on_top = table.at(&path).is_some_and(|top| known.contains(top.device.as_str()));
        Some(Leftover { place: layout.place(&path).filter(|_| is_on_top)?, path })
    })
    .collect()
}

impl Registry {
    /// Detaches what an earlier process has left on superblocks that `is_dead` names. Volumes of pods stay as they are until they are published or unpublished:
    /// without its dead mount a pod's directory is one of the node's disk, and a container that is started anew in the pod
    /// would write there. With it, it does not start.
    ///
    /// # Errors
    /// `Mount` for a mount that the kernel keeps.
    pub(super) async fn sweep(&self, table: &MountTable, is_dead: impl Fn(&str) -> bool) -> Result<()> {
        let found = leftovers(table, &*self.layout, is_dead);
        let mut detached = 0;
        for Leftover { place, path } in &found {
            if *place == Place::Pod {
                tracing::info!(path = %path.display(), "a pod has a mount of an earlier process: it is replaced when it is published again");
                continue;
            }
            tracing::info!(path = %path.display(), "a mount of an earlier process is detached");
            self.detach(*place, path).await?;
            if *place == Place::View {
                bind::remove_directory(path).await.ok();
            }
            detached += 1;
        }
        if !found.is_empty() {
            let waiting = found.len() - detached;
            tracing::warn!(
                detached,
                waiting,
                "an earlier process of the node plugin ended under mounts: those of pods wait for their next publish or unpublish"
            );
        }
        Ok(())
    }

    /// Takes the dead mount at `path` away, and the parts of it that containers had.
    ///
    /// # Errors
    /// `Mount` when the kernel keeps one.
    pub(super) async fn take_down(&self, table: &MountTable, path: &Path) -> Result<()> {
        tracing::warn!(path = %path.display(), "a dead mount is there: removing it");
        let place = self.layout.place(path).unwrap_or(Place::Pod);
        self.detach(place, path).await?;
        bind::unmount(path).await.map_err(|error| Error::system("unmount", path, error))?;
        // Of another driver's mount it is not known whether its other binds are dead.
        let ours = table.at(path).filter(|mount| mount.fs_type == OUR_TYPE);
        let Some(mount) = ours.filter(|mount| !self.serves(&mount.device)) else { return Ok(()) };
        let parts = table.of_device(&mount.device).map(|mount| &mount.mount_point);
        for part in parts.filter(|part| self.layout.place(part) == Some(Place::Part)) {
            self.detach(Place::Part, part).await?;
        }
        Ok(())
    }

    async fn detach(&self, place: Place, path: &Path) -> Result<()> {
        bind::detach(path).await.map_err(|error| Error::system("detach", path, error))?;
        *self.dead.lock().entry(place).or_default() += 1;
        Ok(())
    }

    /// Whether some session of this process serves the superblock `device`.
    fn serves(&self, device: &str) -> bool {
        let volumes = self.volumes.lock();
        let mut views = volumes.values().flat_map(|volume| volume.views());
        views.any(|view| view.session.is_serving() && view.session.is_on(device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Kubelet;

    impl Layout for Kubelet {
        fn views(&self) -> PathBuf {
            PathBuf::from("/k/ours/views")
        }

        fn place(&self, path: &Path) -> Option<Place> {
            let named = |name: &str| path.to_str().is_some_and(|path| path.contains(name));
            [("/views/", Place::View), ("/staged/", Place::Staging), ("/parts/", Place::Part), ("/pods/", Place::Pod)]
                .into_iter()
                .find_map(|(name, place)| named(name).then_some(place))
        }

        fn is_ours(&self, path: &Path) -> bool {
            path.starts_with("/k/ours") || path == Path::new("/k/pods/inline")
        }
    }

    fn found(table: &str) -> Vec<(Place, String)> {
        let table = MountTable::parse(table.as_bytes()).unwrap();
        let found = leftovers(&table, &Kubelet, |device| device != "0:99").into_iter();
        found.map(|leftover| (leftover.place, leftover.path.display().to_string())).collect()
    }

    #[test]
    fn binds_are_ours_by_their_superblock_and_other_drivers_mounts_are_not() {
        let table = "\
1 0 8:1 / / rw - ext4 /dev/sda rw
2 1 0:51 / /k/ours/staged/a rw - fuse.azblob-csi c rw
3 1 0:51 / /k/pods/a rw - fuse.azblob-csi c rw
4 1 0:51 /sub /k/pods/parts/a rw - fuse.azblob-csi c rw
5 1 0:52 / /k/ours/views/v rw - fuse.azblob-csi c rw
6 1 0:53 / /k/pods/inline rw - fuse.azblob-csi c rw
7 1 0:54 / /k/theirs/staged/a rw - fuse.azblob-csi c rw
8 1 0:54 / /k/pods/theirs rw - fuse.azblob-csi c rw
9 1 0:55 / /k/ours/staged/b rw - fuse.blobfuse2 b rw
10 1 0:52 / /elsewhere rw - fuse.azblob-csi c rw
11 1 0:99 / /k/ours/staged/gone-on-with rw - fuse.azblob-csi c rw
12 1 0:99 / /k/pods/gone-on-with rw - fuse.azblob-csi c rw
";
        let ours = [
            (Place::View, "/k/ours/views/v"),
            (Place::Staging, "/k/ours/staged/a"),
            (Place::Part, "/k/pods/parts/a"),
            (Place::Pod, "/k/pods/a"),
            (Place::Pod, "/k/pods/inline"),
        ];
        assert_eq!(found(table), ours.map(|(place, path)| (place, path.to_owned())));
    }

    #[test]
    fn what_lies_under_somebody_elses_mount_is_left_alone() {
        let table = "\
2 1 0:51 / /k/ours/staged/a rw - fuse.azblob-csi c rw
3 1 0:60 / /k/ours/staged/a rw - tmpfs t rw
";
        assert_eq!(found(table), []);
    }
}
