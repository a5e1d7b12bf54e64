//! Dirty layers as rows: a head each, and a row for each buffer that has changed. The bytes are not in the ledger: they are
//! in the volume's vault, or in a file of the spool, and the rows say where.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::AsFd as _,
    sync::Arc,
};

use super::{
    super::{
        inode::State,
        overlay::{LayerId, Overlay},
        spool::SpoolFile,
    },
    Changes, Counter, Scribe, section,
};
use crate::{
    cache::Buffer,
    sync::{AtomicU64, Mutex, Ordering},
};

/// Layers that have rows.
#[derive(Debug, Default)]
pub(super) struct Layers {
    next: AtomicU64,
    written: Mutex<BTreeMap<u64, Written>>,
}

/// What is written down of one.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Keys of its rows beside the head.
    pub keys: BTreeSet<u64>,
    /// It has a file in the spool, which is held.
    pub is_spooled: bool,
}

impl Layers {
    /// Goes on with the layers of another process.
    pub(super) fn take_over(&self, next: u64, written: BTreeMap<u64, Written>) {
        self.next.fetch_max(next, Ordering::Relaxed);
        *self.written.lock() = written;
    }
}

impl Scribe {
    /// Adds to `changes` what has changed in the layers of a state; returns their numbers, and what may be dropped only once
    /// the changes are written: memory that rows have named until now.
    pub(super) fn note_layers(&self, state: &mut State, changes: &mut Changes) -> ([Option<u64>; 2], Vec<Arc<Buffer>>) {
        let mut released = Vec::new();
        // One that is sent has its rows from when it took writes.
        let committing = state.committing.as_ref().and_then(|layer| layer.id());
        let overlay = state.overlay.as_mut().map(|layer| self.note_layer(layer, changes, &mut released));
        ([overlay, committing.map(|id| id.0)], released)
    }

    fn note_layer(&self, layer: &mut Overlay, changes: &mut Changes, released: &mut Vec<Arc<Buffer>>) -> u64 {
        let id = layer.id().unwrap_or_else(|| {
            let id = LayerId(self.layers.next.fetch_add(1, Ordering::Relaxed));
            self.note_number(Counter::Layers, id.0);
            layer.keep(id);
            id
        });
        let rows = layer.take_rows();
        if rows.is_empty() {
            return id.0;
        }
        let mut layers = self.layers.written.lock();
        let written = layers.entry(id.0).or_default();
        for (key, row) in rows.put {
            changes.put(section::BUFFER, key, row);
            written.keys.insert(key);
        }
        for key in rows.removed {
            changes.remove(section::BUFFER, key);
            written.keys.remove(&key);
        }
        if let Some(head) = rows.head {
            changes.put(section::LAYER, id.0, head);
        }
        released.extend(rows.released);
        id.0
    }

    /// Adds to `changes` that a layer is on the service, or given up.
    pub(super) fn forget_layer(&self, id: u64, changes: &mut Changes) {
        changes.remove(section::LAYER, id);
        let written = self.layers.written.lock().remove(&id).unwrap_or_default();
        for key in written.keys {
            changes.remove(section::BUFFER, key);
        }
        if written.is_spooled {
            self.holder.let_go(&spool_key(id));
        }
    }

    /// Has a layer's spool file held, so that it is there for the next process, before anything is only there.
    ///
    /// # Errors
    /// Why it would not be.
    pub(in crate::fs) fn hold_spool(&self, layer: LayerId, spool: &SpoolFile) -> io::Result<()> {
        let mut layers = self.layers.written.lock();
        let written = layers.entry(layer.0).or_default();
        if !written.is_spooled {
            self.holder.hold(&spool_key(layer.0), spool.as_fd())?;
            written.is_spooled = true;
        }
        Ok(())
    }
}

/// What the holder knows a layer's spool file by.
pub(super) fn spool_key(layer: u64) -> String {
    format!("spool {layer}")
}
