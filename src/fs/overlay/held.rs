//! The memory behind a layer's dirty bytes, and the ways out of it: to the spool, and into request bodies.

use std::{io, sync::Arc};

use super::BUFFER_BYTES;
use crate::{cache::Buffer, fs::spool::SpoolFile};

/// Where the bytes of one buffer are.
#[derive(Clone, Debug)]
pub(super) enum Held {
    /// In memory.
    Memory(Arc<Buffer>),
    /// In the layer's spool file; that many.
    Spool(u64),
}

impl Held {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Memory(buffer) => buffer.len() as u64,
            Self::Spool(length) => *length,
        }
    }

    pub(super) fn memory_mut(&mut self) -> Option<&mut Buffer> {
        match self {
            Self::Memory(buffer) => Arc::get_mut(buffer),
            Self::Spool(_) => None,
        }
    }
}

/// Buffers on their way to the spool.
#[derive(Debug)]
pub struct Spilling {
    /// By index, ascending.
    pub(super) buffers: Vec<(u64, Arc<Buffer>)>,
}

impl Spilling {
    /// Writes them. Waits for the disk: to be called without any lock but [`SpoolFile::turn`].
    ///
    /// # Errors
    /// What the node's disk says; nothing is lost then.
    pub fn keep(&self, spool: &SpoolFile) -> io::Result<()> {
        let pieces: Vec<(u64, &[u8])> =
            self.buffers.iter().map(|(index, buffer)| (index * BUFFER_BYTES, (**buffer).as_ref())).collect();
        spool.keep(&pieces)
    }
}

/// Lets a request body keep a dirty buffer alive.
pub(super) struct Shared(pub(super) Arc<Buffer>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().as_ref()
    }
}
