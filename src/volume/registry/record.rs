//! What the next process has to know of a volume to go on with it: where it is staged and published, and what it was asked for.
//!
//! Protocol buffers, since the process that reads may be older or newer than the one that wrote: fields that a reader does not know
//! are skipped, and what it misses has a value that says so. What changes the meaning of a field would be a new [`FORMAT`].
//! Nothing here is interpreted but by [`Registry`](super::Registry); what a volume was made of is bytes of the room above.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use prost::Message as _;

use crate::{fs::ViewSettings, telemetry::metrics::Labels};

/// The version of what is written. A reader of version N reads all up to N.
pub const FORMAT: u32 = 1;

/// Labels that a user of a volume may have: their names are the program's, so only values are read.
const USER_LABELS: [&str; 3] = ["pod", "pod_namespace", "pod_uid"];

/// A volume.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VolumeRecord {
    /// Its id in the registry.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its id in requests, which is another where each pod has the volume for itself.
    #[prost(string, tag = "2")]
    pub handle: String,
    /// What it was made of, as whoever made it wrote it. Holds what came with the request, secrets too.
    #[prost(bytes = "vec", tag = "3")]
    pub origin: Vec<u8>,
    /// Container and prefix that this came to: when it comes to others, nothing may be taken over.
    #[prost(string, tag = "4")]
    pub location: String,
    /// The size that it was given; 0 for none.
    #[prost(uint64, tag = "5")]
    pub capacity: u64,
    /// What is mounted of it.
    #[prost(message, repeated, tag = "6")]
    pub views: Vec<ViewRecord>,
    /// Which of the views is that of the staging path.
    #[prost(uint32, optional, tag = "7")]
    pub staged: Option<u32>,
    /// Pods that have it.
    #[prost(message, repeated, tag = "8")]
    pub targets: Vec<TargetRecord>,
}

/// A mount of a volume.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ViewRecord {
    /// Where: a path is bytes. Another may have come in its place since, while pods still have this one.
    #[prost(bytes = "vec", tag = "1")]
    pub mount_point: Vec<u8>,
    /// See [`ViewSettings`].
    #[prost(uint32, tag = "2")]
    pub uid: u32,
    /// See [`ViewSettings`].
    #[prost(uint32, tag = "3")]
    pub gid: u32,
    /// See [`ViewSettings`].
    #[prost(uint32, optional, tag = "4")]
    pub forced_gid: Option<u32>,
    /// See [`ViewSettings`].
    #[prost(uint32, tag = "5")]
    pub file_mode: u32,
    /// See [`ViewSettings`].
    #[prost(uint32, tag = "6")]
    pub dir_mode: u32,
    /// See [`ViewSettings`].
    #[prost(bool, tag = "7")]
    pub read_only: bool,
    /// What names it among the volume's views, for whoever has its descriptor.
    #[prost(uint64, tag = "8")]
    pub number: u64,
}

/// A path of a pod. Where it is its view's mount point it is mounted there, else bound.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TargetRecord {
    /// The path.
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    /// Which view.
    #[prost(uint32, tag = "2")]
    pub view: u32,
    /// Read-only for the pod.
    #[prost(bool, tag = "3")]
    pub read_only: bool,
    /// For this pod alone.
    #[prost(bool, tag = "4")]
    pub exclusive: bool,
    /// Who has it.
    #[prost(message, repeated, tag = "5")]
    pub user: Vec<LabelRecord>,
}

/// A label.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LabelRecord {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it says.
    #[prost(string, tag = "2")]
    pub value: String,
}

impl VolumeRecord {
    /// As bytes.
    #[must_use]
    pub fn written(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// The record in `bytes`.
    ///
    /// # Errors
    /// A sentence that says what is wrong: bytes that are none, or a record that contradicts itself.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let record = Self::decode(bytes).map_err(|error| error.to_string())?;
        if record.id.is_empty() || record.location.is_empty() {
            return Err("it names no volume".to_owned());
        }
        let mut views = record.targets.iter().map(|target| target.view).chain(record.staged);
        if views.any(|view| record.view(view).is_none()) {
            return Err(format!("volume {:?} is mounted through a view that it does not have", record.id));
        }
        let mount_points = record.views.iter().map(|view| view.mount_point.as_slice());
        let mut paths = record.targets.iter().map(|target| target.path.as_slice()).chain(mount_points);
        if !paths.all(|path| path.first() == Some(&b'/') && !path.contains(&0)) {
            return Err(format!("volume {:?} is mounted nowhere", record.id));
        }
        let mut numbers: Vec<u64> = record.views.iter().map(|view| view.number).collect();
        numbers.sort_unstable();
        if numbers.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(format!("volume {:?} has a view twice", record.id));
        }
        Ok(record)
    }

    /// The size that it was given.
    #[must_use]
    pub fn capacity(&self) -> Option<u64> {
        Some(self.capacity).filter(|capacity| *capacity > 0)
    }

    /// One of its views.
    #[must_use]
    pub fn view(&self, number: u32) -> Option<&ViewRecord> {
        self.views.get(usize::try_from(number).ok()?)
    }
}

impl ViewRecord {
    /// That of `settings` at `mount_point`, under `number`.
    #[must_use]
    pub fn new(number: u64, mount_point: &Path, settings: &ViewSettings) -> Self {
        let ViewSettings { uid, gid, forced_gid, file_mode, dir_mode, read_only } = settings.clone();
        Self { mount_point: path_bytes(mount_point), uid, gid, forced_gid, file_mode, dir_mode, read_only, number }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount_point(&self) -> PathBuf {
        path(&self.mount_point)
    }

    /// How it shows files.
    #[must_use]
    pub fn settings(&self) -> ViewSettings {
        let Self { uid, gid, forced_gid, file_mode, dir_mode, read_only, .. } = *self;
        ViewSettings { uid, gid, forced_gid, file_mode, dir_mode, read_only }
    }
}

impl TargetRecord {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        path(&self.path)
    }

    /// Who has it, as far as this version knows such labels.
    #[must_use]
    pub fn user(&self) -> Labels {
        let value = |name: &str| self.user.iter().find(|label| label.name == name).map(|label| label.value.as_str());
        USER_LABELS.into_iter().fold(Labels::default(), |mut labels, name| {
            labels.set(name, value(name).unwrap_or_default());
            labels
        })
    }
}

/// `labels` as they are written.
#[must_use]
pub fn labels(labels: &Labels) -> Vec<LabelRecord> {
    labels.names().map(|(name, value)| LabelRecord { name: name.to_owned(), value: value.to_owned() }).collect()
}

/// `path` as it is written.
#[must_use]
pub fn path_bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> VolumeRecord {
        let settings = ViewSettings { forced_gid: Some(0), ..ViewSettings::default() };
        let user = Labels::default().with("pod", "web-0").with("pod_uid", "1").with("pod_namespace", "shop");
        let target = |path: &str, view| TargetRecord {
            path: path.as_bytes().to_vec(),
            view,
            read_only: true,
            exclusive: view == 0,
            user: labels(&user),
        };
        VolumeRecord {
            id: "v at /pods/1".to_owned(),
            handle: "v".to_owned(),
            origin: vec![0, 1, 255],
            location: "https://acme.blob.core.windows.net/logs".to_owned(),
            capacity: 5 << 30,
            views: vec![
                ViewRecord::new(1, Path::new("/staging"), &ViewSettings::default()),
                ViewRecord::new(7, Path::new("/views/1"), &settings),
            ],
            staged: Some(0),
            targets: vec![target("/pods/1", 0), target("/pods/2", 1)],
        }
    }

    /// What a later version may write: the same with fields that nobody here knows, in the record and in a part of it.
    #[derive(Clone, PartialEq, prost::Message)]
    struct LaterRecord {
        #[prost(string, tag = "1")]
        id: String,
        #[prost(string, tag = "4")]
        location: String,
        #[prost(message, repeated, tag = "6")]
        views: Vec<LaterView>,
        #[prost(uint32, optional, tag = "7")]
        staged: Option<u32>,
        #[prost(string, tag = "100")]
        news: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct LaterView {
        #[prost(bytes = "vec", tag = "1")]
        mount_point: Vec<u8>,
        #[prost(uint32, optional, tag = "4")]
        forced_gid: Option<u32>,
        #[prost(message, optional, tag = "50")]
        more: Option<LabelRecord>,
    }

    #[test]
    fn what_is_written_is_read_again_with_what_it_stands_for() {
        let record = record();
        let read = VolumeRecord::read(&record.written()).unwrap();
        assert_eq!(read, record);
        // A group 0 is not no group.
        let settings: Vec<_> = read.views.iter().map(|view| view.settings().forced_gid).collect();
        assert_eq!(settings, [None, Some(0)]);
        assert_eq!(read.views[0].settings(), ViewSettings::default());
        let user = read.targets[1].user();
        assert_eq!(
            (user.get("pod"), user.get("pod_namespace"), user.get("pod_uid")),
            (Some("web-0"), Some("shop"), Some("1"))
        );
    }

    #[test]
    fn what_a_later_version_adds_is_skipped() {
        let later = LaterRecord {
            id: "v".to_owned(),
            location: "l".to_owned(),
            views: vec![LaterView {
                mount_point: b"/staging".to_vec(),
                forced_gid: Some(7),
                more: Some(LabelRecord { name: "a".to_owned(), value: "b".to_owned() }),
            }],
            staged: Some(0),
            news: "unheard of".to_owned(),
        };
        let read = VolumeRecord::read(&later.encode_to_vec()).unwrap();
        assert_eq!((read.id.as_str(), read.staged), ("v", Some(0)));
        assert_eq!((read.views[0].mount_point(), read.views[0].forced_gid), (PathBuf::from("/staging"), Some(7)));
        assert_eq!(read.handle, "", "what an earlier version did not write is empty");
    }

    #[test]
    fn a_record_that_contradicts_itself_is_refused() {
        let refused = |change: fn(&mut VolumeRecord)| {
            let mut record = record();
            change(&mut record);
            VolumeRecord::read(&record.written()).unwrap_err()
        };
        assert!(refused(|record| record.id.clear()).contains("no volume"));
        assert!(refused(|record| record.staged = Some(2)).contains("does not have"));
        assert!(refused(|record| record.targets[0].view = 9).contains("does not have"));
        assert!(refused(|record| record.targets[0].path = b"pods".to_vec()).contains("nowhere"));
        assert!(refused(|record| record.views[1].number = 1).contains("twice"));
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_a_record_or_refused(bytes: Vec<u8>, cut: usize, flip: (usize, u8)) {
            let _ = VolumeRecord::read(&bytes);
            let mut whole = record().written();
            let at = flip.0 % whole.len();
            whole[at] ^= flip.1;
            whole.truncate(cut % (whole.len() + 1));
            if let Ok(record) = VolumeRecord::read(&whole) {
                assert!(record.targets.iter().all(|target| record.view(target.view).is_some()));
            }
        }
    }
}
