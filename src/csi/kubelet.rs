//! Where the kubelet keeps volumes of a CSI driver, below its directory:
//!
//! | path | what it is |
//! |---|---|
//! | `plugins/DRIVER/` | the driver's own: its socket, and our views |
//! | `plugins/kubernetes.io/csi/DRIVER/HASH/globalmount` | a staging path (until Kubernetes 1.23 `plugins/kubernetes.io/csi/pv/PV/globalmount`) |
//! | `pods/UID/volumes/kubernetes.io~csi/NAME/mount` | a volume of a pod |
//! | `pods/UID/volume-subpaths/NAME/CONTAINER/N` | a directory of it (subPath), bound by the kubelet for a container |
//!
//! Beside a staging path and a pod's mount lies `vol_data.json`, in which the kubelet notes the driver (pkg/volume/csi). Mounts
//! themselves are never looked at.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::volume::{Layout, Place};

/// What the kubelet notes of a volume.
const NOTE: &str = "vol_data.json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    driver_name: String,
}

/// The kubelet's directory, as one driver sees it.
#[derive(Clone, Debug)]
pub struct Kubelet {
    directory: PathBuf,
    driver: String,
}

impl Kubelet {
    /// That of `driver` below `directory`.
    #[must_use]
    pub fn new(directory: &Path, driver: &str) -> Self {
        // mountinfo shows paths without links. A directory that is not there has no mounts.
        let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        Self { directory, driver: driver.to_owned() }
    }

    fn plugin_directory(&self) -> PathBuf {
        self.directory.join("plugins").join(&self.driver)
    }

    fn staging(&self) -> PathBuf {
        self.directory.join("plugins/kubernetes.io/csi")
    }
}

impl Layout for Kubelet {
    fn views(&self) -> PathBuf {
        self.plugin_directory().join("views")
    }

    fn place(&self, path: &Path) -> Option<Place> {
        if path.starts_with(self.views()) {
            return Some(Place::View);
        }
        if path.starts_with(self.staging()) {
            return Some(Place::Staging);
        }
        let below = path.strip_prefix(self.directory.join("pods")).ok()?;
        match below.components().nth(1) {
            Some(Component::Normal(name)) if name == "volumes" => Some(Place::Pod),
            Some(Component::Normal(name)) if name == "volume-subpaths" => Some(Place::Part),
            _ => None,
        }
    }

    fn is_ours(&self, path: &Path) -> bool {
        if path.starts_with(self.plugin_directory()) || path.starts_with(self.staging().join(&self.driver)) {
            return true;
        }
        if !path.starts_with(&self.directory) {
            return false;
        }
        let note = path.parent().and_then(|parent| std::fs::read(parent.join(NOTE)).ok());
        let note = note.and_then(|text| serde_json::from_slice::<Note>(&text).ok());
        note.is_some_and(|note| note.driver_name == self.driver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_kubelet_are_known() {
        let kubelet = Kubelet::new(Path::new("/no/kubelet"), "d");
        for (path, place) in [
            ("plugins/d/views/1", Some(Place::View)),
            ("plugins/kubernetes.io/csi/d/hash/globalmount", Some(Place::Staging)),
            ("plugins/kubernetes.io/csi/pv/pv1/globalmount", Some(Place::Staging)),
            ("pods/uid/volumes/kubernetes.io~csi/pv1/mount", Some(Place::Pod)),
            ("pods/uid/volume-subpaths/pv1/main/0", Some(Place::Part)),
            ("pods/uid/etc-hosts", None),
            ("elsewhere", None),
        ] {
            assert_eq!(kubelet.place(&Path::new("/no/kubelet").join(path)), place, "{path}");
        }
    }

    #[test]
    fn a_mount_is_ours_by_its_path_or_by_the_kubelets_note() {
        let directory = tempfile::tempdir().unwrap();
        let kubelet = Kubelet::new(directory.path(), "d");
        let root = directory.path().canonicalize().unwrap();
        let pod = root.join("pods/uid/volumes/kubernetes.io~csi/pv1");
        std::fs::create_dir_all(&pod).unwrap();
        let note = |driver: &str| {
            let text = format!(r#"{{"driverName":"{driver}","volumeHandle":"h","specVolID":"pv1"}}"#);
            std::fs::write(pod.join(NOTE), text).unwrap();
        };
        assert!(!kubelet.is_ours(&pod.join("mount")), "nobody says whose it is");
        note("d");
        assert!(kubelet.is_ours(&pod.join("mount")));
        note("d.beside");
        assert!(!kubelet.is_ours(&pod.join("mount")));
        assert!(kubelet.is_ours(&root.join("plugins/kubernetes.io/csi/d/hash/globalmount")));
        assert!(!kubelet.is_ours(&root.join("plugins/kubernetes.io/csi/d.beside/hash/globalmount")));
    }
}
