//! SEEK_DATA and SEEK_HOLE of lseek(2), answered from the layers: what a layer has as zeros is a hole, what a program
//! wrote is data. The service says nothing of holes in what is committed, so all of that is data.

use std::{ops::Range, sync::Arc};

use super::{
    Error, FileSystem, HandleId, Result,
    inode::State,
    overlay::{Overlay, Segment},
};

/// What lseek(2) looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The next byte that may be anything (SEEK_DATA).
    Data,
    /// The next zeros, or the end of the file (SEEK_HOLE).
    Hole,
}

impl Seek {
    /// From the `whence` of lseek(2).
    ///
    /// # Errors
    /// EINVAL for what the kernel answers by itself.
    pub fn from_whence(whence: i32) -> Result<Self> {
        match whence {
            libc::SEEK_DATA => Ok(Self::Data),
            libc::SEEK_HOLE => Ok(Self::Hole),
            _ => Err(Error::new(libc::EINVAL, format!("lseek with whence {whence} needs no file system"))),
        }
    }
}

impl FileSystem {
    /// lseek(2) with SEEK_DATA or SEEK_HOLE.
    ///
    /// # Errors
    /// ENXIO at and behind the end of the file, and where no data follows; EBADF.
    pub fn seek(self: &Arc<Self>, handle: HandleId, offset: u64, seek: Seek) -> Result<u64> {
        let handle = self.handles.file(handle)?;
        let state = handle.inode.state.lock();
        let size = state.size();
        if offset >= size {
            return Err(Error::new(libc::ENXIO, "at or behind the end of the file"));
        }
        let holes = holes_of(&state, offset..size);
        match seek {
            Seek::Hole => Ok(holes.first().map_or(size, |hole| hole.start)),
            Seek::Data => {
                let data =
                    holes.into_iter().fold(offset, |data, hole| if hole.start <= data { hole.end } else { data });
                if data < size { Ok(data) } else { Err(Error::new(libc::ENXIO, "no data follows")) }
            }
        }
    }
}

/// The holes in `range`, in order; neighbours may touch.
fn holes_of(state: &State, range: Range<u64>) -> Vec<Range<u64>> {
    let layers = [state.overlay.as_ref(), state.committing.as_deref()];
    let layers: Vec<&Overlay> = layers.into_iter().flatten().collect();
    let committed = state.base.as_ref().map_or(0, |base| base.properties.length);
    let mut holes = Vec::new();
    collect_holes(&layers, &range, committed, &mut holes);
    holes
}

fn collect_holes(layers: &[&Overlay], range: &Range<u64>, committed: u64, holes: &mut Vec<Range<u64>>) {
    let Some((layer, below)) = layers.split_first() else {
        let behind = range.start.max(committed)..range.end;
        holes.extend((!behind.is_empty()).then_some(behind));
        return;
    };
    for segment in layer.segments(range) {
        match segment {
            Segment::Zero(hole) => holes.push(hole),
            Segment::Below(part) => collect_holes(below, &part, committed, holes),
            Segment::Dirty(_) | Segment::Staged(_) => {}
        }
    }
}
