//! Requests that must not be done twice. The kernel sends again what a dead process had read and not answered, and cannot
//! know whether it was done: a directory that was made then exists already, a file that was removed is not there.
//!
//! So who begins such a request writes down what it will be known by (the times of a new blob, to the nanosecond), and how it
//! ended; who is sent it again, with a mark in its number, finds that and goes on there. A row is left a while after its end:
//! its reply may not have gone out yet.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use prost::Message as _;

use super::{
    super::{
        Caller, Error, FileSystem, HandleId, InodeNumber, Result,
        attributes::{Attributes, Kind},
        inode::Inode,
    },
    Scribe, key_of,
    rows::BegunRow,
    section,
};
use crate::{
    blob::{BlobName, Metadata},
    sync::Mutex,
};

/// In a request's number: it was sent before, to a process that did not answer (FUSE_UNIQUE_RESEND of
/// include/uapi/linux/fuse.h, Linux 6.9).
pub const RESENT: u64 = 1 << 63;

/// How long the row of an ended request is left. Its reply follows its end at once; a second is a machine that stands still.
const ENDED_AGE: Duration = Duration::from_secs(1);

/// Rows of requests that have ended.
#[derive(Debug, Default)]
pub(super) struct Ended(Mutex<VecDeque<(Instant, u64)>>);

/// A request that was begun, here or by the process before.
#[derive(Debug, Default)]
pub struct Begun {
    key: Option<u64>,
    row: BegunRow,
    /// That the process before has begun it.
    repeated: bool,
}

impl Begun {
    /// Whether the process before has begun it, so that what is found may be its work.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        self.repeated
    }

    /// The attributes of what is made: those chosen before, or `fresh` ones.
    pub(in crate::fs) fn attributes(&self, fresh: impl FnOnce() -> Attributes) -> Attributes {
        self.row.attributes.as_ref().map_or_else(fresh, |row| row.attributes())
    }

    /// Whether a blob with this metadata is what the process before was making.
    pub(in crate::fs) fn has_made(&self, kind: Kind, found: &Metadata) -> bool {
        let Some(attributes) = self.row.attributes.as_ref().filter(|_| self.repeated) else { return false };
        let mut wanted = Metadata::new();
        attributes.attributes().write_to(kind, &mut wanted);
        wanted == *found
    }

    /// Whether an inode is what the process before was making.
    pub(in crate::fs) fn has_made_inode(&self, inode: &Inode) -> bool {
        let Some(attributes) = self.row.attributes.as_ref().filter(|_| self.repeated) else { return false };
        let state = inode.state.lock();
        let committed = state.base.as_ref().is_some_and(|base| self.has_made(inode.kind, &base.properties.metadata));
        let wanted = attributes.attributes();
        committed || (state.attributes.ctime == wanted.ctime && state.attributes.uid == wanted.uid)
    }

    /// What it ended with, where it did: then nothing is to be done but to say so.
    pub(in crate::fs) fn outcome(&self) -> Option<Result<(InodeNumber, HandleId)>> {
        let errno = self.row.outcome.filter(|_| self.repeated)?;
        Some(match errno {
            0 => Ok((InodeNumber(self.row.made), HandleId(self.row.handle))),
            errno => Err(Error::new(errno, "as the process before has found")),
        })
    }

    /// What the process before has written down of it, if it has begun it.
    pub(super) fn before(&self) -> Option<&BegunRow> {
        Some(&self.row).filter(|_| self.repeated)
    }
}

impl FileSystem {
    /// A request begins that must not be done twice.
    pub(in crate::fs) fn begin(&self, caller: &Caller) -> Begun {
        let Some(scribe) = &self.scribe else { return Begun::default() };
        let key = key_of(caller.view.id(), caller.request & !RESENT);
        let before = if caller.request & RESENT == 0 { None } else { self.left.begun(key) };
        scribe.forget_ended();
        match before {
            Some(row) => Begun { key: Some(key), row, repeated: true },
            None => Begun { key: Some(key), ..Begun::default() },
        }
    }

    /// Writes down what the request makes, before it does.
    pub(in crate::fs) fn note_making(&self, begun: &mut Begun, attributes: &Attributes) {
        begun.row.attributes = Some(attributes.into());
        self.note_begun(begun);
    }

    /// Writes down which file's name goes, before it does; and where its blob does, if it stays there while it is open.
    pub(in crate::fs) fn note_unlinking(&self, begun: &mut Begun, inode: InodeNumber, hidden: Option<&BlobName>) {
        (begun.row.inode, begun.row.to) = (inode.0, hidden.map(ToString::to_string).unwrap_or_default());
        self.note_begun(begun);
    }

    /// Writes down what is renamed, before it is.
    pub(in crate::fs) fn note_renaming(
        &self,
        begun: &mut Begun,
        (inode, from): (InodeNumber, &BlobName),
        (new_parent, new_name, to): (InodeNumber, &str, &BlobName),
    ) {
        let row = &mut begun.row;
        (row.inode, row.from, row.to) = (inode.0, from.to_string(), to.to_string());
        (row.new_parent, row.new_name) = (new_parent.0, new_name.to_owned());
        self.note_begun(begun);
    }

    /// Writes down that something goes or changes, before it does.
    pub(in crate::fs) fn note_begun(&self, begun: &Begun) {
        if let (Some(scribe), Some(key)) = (&self.scribe, begun.key) {
            scribe.note_begun(key, &begun.row);
        }
    }

    /// Writes down how it ended; the reply comes next.
    pub(in crate::fs) fn end<T>(&self, mut begun: Begun, outcome: &Result<T>, made: impl FnOnce(&T) -> (u64, u64)) {
        let (Some(scribe), Some(key)) = (&self.scribe, begun.key) else { return };
        match outcome {
            Ok(value) => {
                (begun.row.made, begun.row.handle) = made(value);
                begun.row.outcome = Some(0);
            }
            Err(error) => begun.row.outcome = Some(error.errno),
        }
        scribe.note_begun(key, &begun.row);
        scribe.ended.0.lock().push_back((Instant::now(), key));
    }
}

impl Ended {
    /// Rows of another process are left until `until`: their requests may be sent again.
    pub(super) fn remember(&self, keys: impl Iterator<Item = u64>, until: Instant) {
        self.0.lock().extend(keys.map(|key| (until, key)));
    }
}

impl Scribe {
    /// A request was begun, or has ended.
    pub(super) fn note_begun(&self, key: u64, row: &BegunRow) {
        self.ledger.put(section::BEGUN, key, &row.encode_to_vec());
    }

    /// Takes away rows of requests whose replies have gone out long ago.
    fn forget_ended(&self) {
        let mut ended = self.ended.0.lock();
        while let Some((_, key)) = ended.pop_front_if(|(at, _)| at.elapsed() >= ENDED_AGE) {
            self.ledger.remove(section::BEGUN, key);
        }
    }
}
