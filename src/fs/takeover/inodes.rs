//! An inode's state as rows: one of its version, which changes seldom, and a short one of the rest, which changes at every
//! write.

use bytes::Bytes;
use prost::Message as _;

use super::{
    super::{
        attributes::Kind,
        commit::Attempt,
        inode::{Base, Carried, Fate, InodeNumber, Refusal, State},
        latch::ErrorLatch,
    },
    Changes, Scribe,
    rows::{AttemptRow, BaseRow, CarriedRow, FailureRow, InodeRow, MetadataRow},
    section,
};
use crate::sync::Arc;

/// What of an inode was written last, so that what did not change is not written again.
#[derive(Debug, Default)]
pub(in crate::fs) struct Written {
    /// The version. Held, so that another one cannot come to lie at its address.
    base: Option<Arc<Base>>,
    /// What else its row says.
    version: (bool, u64),
    /// The check sum of the row of the state.
    state: u64,
    /// Its layers.
    layers: [Option<u64>; 2],
}

impl Written {
    /// What another process has written, of which only the layers must be known.
    pub(super) fn of(layers: [Option<u64>; 2]) -> Self {
        Self { layers, ..Self::default() }
    }
}

impl Scribe {
    /// Writes down what has changed of a state. Called under its lock.
    pub(super) fn note_state(&self, number: InodeNumber, kind: Kind, state: &mut State, written: &mut Written) {
        let mut changes = Changes::default();
        let (layers, released) = self.note_layers(state, &mut changes);
        note_version(number, state, written, &mut changes);
        let row = row_of(kind, state, layers).encode_to_vec();
        let mut digest = crc64fast_nvme::Digest::new();
        digest.write(&row);
        let check = digest.sum64();
        if check != written.state {
            changes.put(section::INODE, number.0, row);
            written.state = check;
        }
        for gone in written.layers.into_iter().flatten().filter(|layer| !layers.contains(&Some(*layer))) {
            self.forget_layer(gone, &mut changes);
        }
        written.layers = layers;
        self.apply(&changes);
        // Only now may another file have the memory that no row names any more.
        drop(released);
    }
}

fn note_version(number: InodeNumber, state: &State, written: &mut Written, changes: &mut Changes) {
    let version = (state.orphan.is_some() || state.fate != Fate::Linked, state.appended);
    let same = match (&written.base, &state.base) {
        (Some(before), Some(now)) => Arc::ptr_eq(before, now) && written.version == version,
        (None, None) => true,
        _ => false,
    };
    if same {
        return;
    }
    match &state.base {
        Some(base) => {
            let source = base.content.source();
            let is_elsewhere = version.0.then(|| source.name.as_str().to_owned());
            let source_etag = (source.etag != base.properties.etag).then(|| source.etag.0.as_ref().to_owned());
            let row = BaseRow {
                source_name: is_elsewhere,
                source_etag,
                appended: state.appended,
                ..BaseRow::from(&base.properties)
            };
            changes.put(section::VERSION, number.0, row.encode_to_vec());
        }
        None => changes.remove(section::VERSION, number.0),
    }
    (written.base, written.version) = (state.base.clone(), version);
}

/// The number of a kind in rows.
pub(super) fn kind_number(kind: Kind) -> u32 {
    match kind {
        Kind::File => 0,
        Kind::Directory => 1,
        Kind::Symlink => 2,
        Kind::Fifo => 3,
        Kind::Socket => 4,
    }
}

/// The kind of a number.
pub(super) fn kind_of(number: u32) -> Option<Kind> {
    [Kind::File, Kind::Directory, Kind::Symlink, Kind::Fifo, Kind::Socket].into_iter().nth(number as usize)
}

fn row_of(kind: Kind, state: &State, [overlay, committing]: [Option<u64>; 2]) -> InodeRow {
    let (sequence, heard, last) = state.errors.parts();
    // What the journal has is sent by who reads the journal; the layer then is an attempt that may have been made.
    let owed = state.owed.as_ref().filter(|_| state.committing.is_some()).map(|owed| {
        let metadata = super::super::commit::metadata_of(kind, state.base.as_deref(), &owed.carried);
        AttemptRow { metadata, carried: Some((&owed.carried).into()), ..AttemptRow::default() }
    });
    InodeRow {
        kind: kind_number(kind),
        carried: Some((&state.carried_now()).into()),
        // Of a directory that only the journal has, the journal has these too.
        attributes_dirty: state.attributes_dirty && !(state.owed.is_some() && state.base.is_none()),
        base: state.base.is_some(),
        fate: match state.fate {
            Fate::Linked => 0,
            Fate::Replaced => 1,
            Fate::Unlinked => 2,
        },
        orphan: state.orphan.as_ref().map(|orphan| orphan.as_str().to_owned()),
        overlay,
        committing,
        id_length: state.id_length.and_then(|length| u32::try_from(length).ok()),
        failure_sequence: sequence,
        failure_heard: heard,
        failure: last.map(|error| FailureRow {
            errno: error.errno,
            message: error.to_chain(),
            may_pass: error.may_pass(),
            blob: String::new(),
        }),
        refusal: state.refusal.as_ref().map(|refusal| FailureRow {
            errno: refusal.errno,
            message: refusal.sentence.clone(),
            may_pass: refusal.may_pass,
            blob: refusal.blob.as_str().to_owned(),
        }),
        attempts: state.attempts.iter().map(Attempt::row).chain(owed).collect(),
        last_append: state.last_append.map_or_else(Vec::new, |(view, request)| vec![view, request]),
        appending: state.appending,
        followed: state.watched.is_some(),
        setting: state.setting.iter().map(|metadata| MetadataRow { metadata: metadata.clone() }).collect(),
    }
}

/// What a row says of a state, but its version and its layers.
pub(super) fn read_state(row: &InodeRow, state: &mut State) {
    let Carried { attributes, metadata_changes } = row.carried.as_ref().map(CarriedRow::carried).unwrap_or_default();
    (state.attributes, state.metadata_changes) = (attributes, metadata_changes);
    state.attributes_dirty = row.attributes_dirty;
    state.fate = match row.fate {
        0 => Fate::Linked,
        1 => Fate::Replaced,
        _ => Fate::Unlinked,
    };
    state.orphan = row.orphan.as_deref().and_then(|name| crate::blob::BlobName::new(name).ok());
    state.id_length = row.id_length.map(|length| length as usize);
    let failed = |row: &FailureRow| super::super::Error::told_before(row.errno, row.message.clone(), row.may_pass);
    state.errors = ErrorLatch::of_parts(row.failure_sequence, row.failure_heard, row.failure.as_ref().map(failed));
    state.refusal = row.refusal.as_ref().and_then(|row| {
        let blob = crate::blob::BlobName::new(row.blob.as_str()).ok()?;
        Some(Refusal { blob, errno: row.errno, sentence: row.message.clone(), may_pass: row.may_pass })
    });
    state.last_append = match row.last_append.as_slice() {
        [view, request] => Some((*view, *request)),
        _ => None,
    };
    state.appending = row.appending;
    state.setting = row.setting.iter().map(|row| row.metadata.clone()).collect();
    // Nobody knows what else an earlier process has tried.
    state.checked = None;
}

/// The check sum that stands for a list of blocks.
pub(in crate::fs) fn digest_of(blocks: &[crate::blob::CommittedBlock]) -> Bytes {
    use sha2::{Digest as _, Sha256};
    let mut digest = Sha256::new();
    for block in blocks {
        digest.update(block.length.to_le_bytes());
        digest.update((block.id.0.len() as u64).to_le_bytes());
        digest.update(&block.id.0);
    }
    Bytes::copy_from_slice(&digest.finalize())
}
