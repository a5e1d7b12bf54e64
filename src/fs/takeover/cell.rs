//! An inode's state behind its lock, which writes down what has changed before it opens again. So no reply can be sent that
//! rests on something the next process would not know, whoever made the change.

use std::ops::{Deref, DerefMut};

use super::{
    super::{
        attributes::Kind,
        inode::{InodeNumber, State},
    },
    Scribe,
    inodes::Written,
};
use crate::sync::{Arc, Mutex, MutexGuard};

/// See the module's doc. A std-like mutex on purpose: sections are short and nothing awaits inside. Lock order: the table's
/// lock is never taken while this one is held.
#[derive(Debug)]
pub struct StateCell {
    inner: Mutex<Inner>,
    number: InodeNumber,
    kind: Kind,
    scribe: Option<Arc<Scribe>>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    written: Written,
}

impl StateCell {
    /// The state of the inode `number`, to be written down by `scribe`.
    pub(in crate::fs) fn new(number: InodeNumber, kind: Kind, state: State, scribe: Option<&Arc<Scribe>>) -> Self {
        let inner = Mutex::new(Inner { state, written: Written::default() });
        Self { inner, number, kind, scribe: scribe.cloned() }
    }

    /// The state of an inode that another process has written down.
    pub(in crate::fs) fn taken_over(
        number: InodeNumber,
        kind: Kind,
        state: State,
        layers: [Option<u64>; 2],
        scribe: &Arc<Scribe>,
    ) -> Self {
        let written = Written::of(layers);
        Self { inner: Mutex::new(Inner { state, written }), number, kind, scribe: Some(Arc::clone(scribe)) }
    }

    /// Waits for the lock.
    pub fn lock(&self) -> StateGuard<'_> {
        StateGuard { cell: self, inner: self.inner.lock(), is_changed: false }
    }
}

/// The right to look at a state, and to change it.
#[derive(Debug)]
pub struct StateGuard<'cell> {
    cell: &'cell StateCell,
    inner: MutexGuard<'cell, Inner>,
    is_changed: bool,
}

impl Deref for StateGuard<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.inner.state
    }
}

impl DerefMut for StateGuard<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.is_changed = true;
        &mut self.inner.state
    }
}

impl Drop for StateGuard<'_> {
    fn drop(&mut self) {
        if !self.is_changed {
            return;
        }
        if let Some(scribe) = &self.cell.scribe {
            let Inner { state, written } = &mut *self.inner;
            scribe.note_state(self.cell.number, self.cell.kind, state, written);
        }
        self.inner.state.retired.clear();
    }
}
