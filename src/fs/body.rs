//! Request bodies from the layers of a file: dirty buffers are shared, the spool and the old version are read.
//!
//! Memory for what must be read is reserved at once, before the first byte: commits that each held a part and waited for
//! the next would wait for each other.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use super::{
    Error, FileSystem, Result,
    inode::Base,
    overlay::{Overlay, Piece, Segment},
};
use crate::{
    blob::Body,
    cache::{BLOCK_BYTES, BUFFER_BYTES_MAX, Class, Filled, Pool, Reservation},
};

static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// One stretch of a body, before its bytes are there.
enum Part {
    Shared(Bytes),
    Spooled(Range<u64>),
    Base(Range<u64>),
    Zeros(u64),
}

impl Part {
    /// Memory that filling it takes.
    fn memory_bytes(&self) -> u64 {
        match self {
            Self::Shared(_) | Self::Zeros(_) => 0,
            Self::Spooled(range) | Self::Base(range) => buffer_bytes(range),
        }
    }
}

/// The capacity of the buffer for a stretch of at most 1 MiB.
fn buffer_bytes(range: &Range<u64>) -> u64 {
    Pool::capacity(length_of(range)) as u64
}

fn length_of(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX)
}

const _: () = assert!(BLOCK_BYTES as usize <= BUFFER_BYTES_MAX, "a block of the old version fits one buffer");

impl FileSystem {
    /// The bytes of `range` as `layer` has them over `base`. Holds memory for what it had to read until the body is
    /// dropped; `range` is at most a block (a few MiB).
    ///
    /// # Errors
    /// EIO where bytes are nowhere to be read; what the service says of the old version.
    pub(super) async fn body_of(&self, layer: &Overlay, base: Option<&Arc<Base>>, range: Range<u64>) -> Result<Body> {
        let parts = parts_of(layer, base.map_or(0, |base| base.properties.length), &range)?;
        let wanted = parts.iter().map(Part::memory_bytes).sum();
        let mut memory = self.pool().budget().reserve(Class::Demand, wanted).await;
        let mut body = Body::new();
        for part in parts {
            match part {
                Part::Shared(bytes) => body.push(bytes),
                Part::Zeros(length) => push_zeros(&mut body, length),
                Part::Spooled(range) => {
                    let fill = |target: &mut [u8]| layer.copy_to(&range, target).map_err(|error| unreadable(&error));
                    body.push(self.filled(&mut memory, &range, fill)?);
                }
                Part::Base(range) => body.push(self.base_bytes(base, &mut memory, &range).await?),
            }
        }
        Ok(body)
    }

    async fn base_bytes(
        &self,
        base: Option<&Arc<Base>>,
        memory: &mut Reservation,
        range: &Range<u64>,
    ) -> Result<Bytes> {
        let Some(base) = base else { return Ok(Bytes::new()) };
        let found = self.cache().read(&base.content, range.clone(), &self.cache().stream()).await;
        let found = found.map_err(|error| Error::from_store("cannot read what a commit keeps", error))?;
        if found.len() != length_of(range) {
            return Err(Error::new(libc::EIO, "the committed version is shorter than it was"));
        }
        self.filled(memory, range, |target| {
            found.copy_to(target);
            Ok(())
        })
    }

    /// A buffer out of `memory`, filled for `range`.
    fn filled(
        &self,
        memory: &mut Reservation,
        range: &Range<u64>,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Bytes> {
        let length = length_of(range);
        let mut buffer = self.pool().take(memory.split(buffer_bytes(range)), Pool::capacity(length), Filled::Whole);
        fill(&mut buffer.as_mut()[..length])?;
        Ok(Bytes::from_owner(buffer).slice(..length))
    }
}

fn unreadable(error: &std::io::Error) -> Error {
    Error::new(libc::EIO, format!("cannot read the spool: {error}"))
}

fn parts_of(layer: &Overlay, base_length: u64, range: &Range<u64>) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for segment in layer.segments(range) {
        match segment {
            Segment::Dirty(part) => parts.extend(layer.pieces(&part).into_iter().map(|piece| match piece {
                Piece::Shared(bytes) => Part::Shared(bytes),
                Piece::Spooled(range) => Part::Spooled(range),
            })),
            Segment::Zero(part) => parts.push(Part::Zeros(part.end - part.start)),
            Segment::Below(part) => {
                let kept = part.start..part.end.min(base_length).max(part.start);
                let starts = (kept.start..kept.end).step_by(BLOCK_BYTES as usize);
                parts.extend(starts.map(|start| Part::Base(start..kept.end.min(start + BLOCK_BYTES))));
                parts.push(Part::Zeros(part.end - kept.end));
            }
            Segment::Staged(part) => {
                let lost = format!("bytes {}..{} were sent and are not in memory", part.start, part.end);
                return Err(Error::new(libc::EIO, lost));
            }
        }
    }
    Ok(parts)
}

fn push_zeros(body: &mut Body, mut length: u64) {
    while length > 0 {
        let part = length.min(ZEROS.len() as u64);
        body.push(Bytes::from_static(&ZEROS[..part as usize]));
        length -= part;
    }
}
