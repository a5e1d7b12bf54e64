//! What a container, or a volume's directory in a shared one, says about itself in its metadata: who made it, for which volume,
//! of which size, what became of its copy, and what a deletion may take away. Pure. Any replica of the controller, today or after
//! a reinstall, decides alike by it.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::{
    blob::Metadata,
    volume::spec::{CAPACITY, CREATED_BY, VOLUME_NAME, recorded_capacity},
};

/// What DeleteVolume does: `retain` keeps the data. It sees nothing but the handle, so the choice stands here.
const ON_DELETE: &str = "azblobcsiondelete";
/// Name of the snapshot for which the container was made.
const SNAPSHOT: &str = "azblobcsisnapshot";
/// Handle of the volume or snapshot that the content is a copy of.
const SOURCE: &str = "azblobcsisource";
/// When the copy began, in seconds since the epoch.
const BEGAN: &str = "azblobcsibegan";
/// How far the copy is: `STATE BLOBS BYTES`, STATE being `running` or `done`.
const COPY: &str = "azblobcsicopy";
/// Where the listing of the source goes on: all before it was copied.
const CURSOR: &str = "azblobcsicursor";

/// What no header can hold, and the escape itself.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// How far a copy is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CopyState {
    /// All is there.
    pub(super) is_done: bool,
    /// Blobs that were copied.
    pub(super) blobs: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Where the listing goes on.
    pub(super) cursor: Option<String>,
}

/// The marks. Entries of others are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks(pub(super) Metadata);

impl Marks {
    /// Of something that `driver` makes.
    pub(super) fn by(driver: &str) -> Self {
        Self([(CREATED_BY.to_owned(), driver.to_owned())].into())
    }

    fn with(mut self, name: &str, value: String) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|text| percent_decode_str(text).decode_utf8_lossy().into_owned())
    }

    /// Made for this volume.
    pub(super) fn volume(self, name: &str) -> Self {
        self.with(VOLUME_NAME, escaped(name))
    }

    /// Made for this snapshot.
    pub(super) fn snapshot(self, name: &str) -> Self {
        self.with(SNAPSHOT, escaped(name))
    }

    /// Of this size.
    pub(super) fn capacity(self, bytes: u64) -> Self {
        self.with(CAPACITY, bytes.to_string())
    }

    /// Never deleted.
    pub(super) fn kept(self) -> Self {
        self.with(ON_DELETE, "retain".to_owned())
    }

    /// A copy of `handle` that begins now.
    pub(super) fn copy_of(self, handle: &str, now_seconds: u64) -> Self {
        self.with(SOURCE, escaped(handle)).with(BEGAN, now_seconds.to_string()).copied(&CopyState::default())
    }

    /// As far as this.
    pub(super) fn copied(mut self, state: &CopyState) -> Self {
        self.0.remove(CURSOR);
        if let Some(cursor) = &state.cursor {
            self.0.insert(CURSOR.to_owned(), escaped(cursor));
        }
        let word = if state.is_done { "done" } else { "running" };
        self.with(COPY, format!("{word} {} {}", state.blobs, state.bytes))
    }

    /// Whether `driver` made it.
    pub(super) fn is_by(&self, driver: &str) -> bool {
        self.0.get(CREATED_BY).is_some_and(|owner| owner == driver)
    }

    /// Whether `driver` made it, and if it says for which volume, for this one. What another implementation of the same driver made
    /// does not say.
    pub(super) fn is_of(&self, driver: &str, volume: Option<&str>) -> bool {
        let other = match (self.text(VOLUME_NAME), volume) {
            (Some(recorded), Some(wanted)) => recorded != wanted,
            _ => false,
        };
        self.is_by(driver) && !other
    }

    /// Whether it says for which volume it was made.
    pub(super) fn names_volume(&self) -> bool {
        self.0.contains_key(VOLUME_NAME)
    }

    /// The snapshot for which it was made.
    pub(super) fn snapshot_name(&self) -> Option<String> {
        self.text(SNAPSHOT)
    }

    /// Its size in bytes.
    pub(super) fn recorded_capacity(&self) -> Option<u64> {
        recorded_capacity(&self.0)
    }

    /// Whether a deletion leaves it.
    pub(super) fn is_kept(&self) -> bool {
        self.0.get(ON_DELETE).is_some_and(|value| value == "retain")
    }

    /// What its content is a copy of.
    pub(super) fn source(&self) -> Option<String> {
        self.text(SOURCE)
    }

    /// When that began, in seconds since the epoch.
    pub(super) fn began(&self) -> Option<i64> {
        self.0.get(BEGAN)?.parse().ok()
    }

    /// How far the copy is, where it is one.
    pub(super) fn copy(&self) -> Option<CopyState> {
        let text = self.0.get(COPY)?;
        let mut words = text.split(' ');
        let is_done = words.next() == Some("done");
        let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
        Some(CopyState { is_done, blobs: number(), bytes: number(), cursor: self.text(CURSOR) })
    }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_our_mark_and_our_volume_is_ours() {
        let ours = Marks::by("d").volume("pvc-1");
        assert!(ours.is_of("d", Some("pvc-1")) && ours.is_of("d", None));
        assert!(!ours.is_of("d", Some("pvc-2")) && !ours.is_of("other", Some("pvc-1")));
        assert!(Marks::by("d").is_of("d", Some("pvc-1")), "made by another implementation");
        assert!(!Marks::default().is_of("d", None));
    }

    #[test]
    fn what_is_written_is_read_back_whatever_the_names_are() {
        let marks = Marks::by("d").snapshot("snäp 100%").capacity(7).copy_of("rg#a#c#pv/dir ü##", 12).kept();
        assert!(marks.0.values().all(|value| value.is_ascii()));
        assert_eq!(marks.snapshot_name().as_deref(), Some("snäp 100%"));
        assert_eq!(marks.source().as_deref(), Some("rg#a#c#pv/dir ü##"));
        assert_eq!((marks.recorded_capacity(), marks.began(), marks.is_kept()), (Some(7), Some(12), true));
        assert_eq!(marks.copy(), Some(CopyState::default()));
        let state = CopyState { is_done: false, blobs: 3, bytes: 9, cursor: Some("2!88!ü".to_owned()) };
        let marks = marks.copied(&state);
        assert_eq!(marks.copy(), Some(state));
        assert_eq!(marks.copied(&CopyState { is_done: true, ..CopyState::default() }).copy().unwrap().cursor, None);
        assert_eq!(Marks::by("d").copy(), None);
    }
}
