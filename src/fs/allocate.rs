//! fallocate(2). Nothing is reserved at a service without limits, so what remains of it is the file's size and its zeros:
//! both are changes of the top layer, cost no request and no memory, and are saved by the next commit.
//!
//! The kernel of the view that asks has written its dirty pages back before it asks, and drops those of the range behind
//! the answer (fs/fuse/file.c, fuse_file_fallocate); other views are told.

use std::{ops::Range, sync::Arc};

use super::{
    Caller, Error, FileSystem, HandleId, Invalidation, Result, commit::check_holes, inode::Inode, usage::Space,
    write::check_size,
};

/// What fallocate(2) is to do to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// The range exists afterwards: the file grows where it ends before.
    Grow,
    /// Space for the range, without growing the file (FALLOC_FL_KEEP_SIZE).
    Reserve,
    /// Zeros, inside the file (FALLOC_FL_PUNCH_HOLE; FALLOC_FL_ZERO_RANGE with FALLOC_FL_KEEP_SIZE).
    Zero,
    /// Zeros, and the file grows to the range's end (FALLOC_FL_ZERO_RANGE).
    ZeroAndGrow,
}

impl Allocation {
    /// From the `mode` of fallocate(2).
    ///
    /// # Errors
    /// EOPNOTSUPP for collapsing, inserting and unsharing: they would move or copy every byte behind them. Programs that
    /// ask for them fall back. EINVAL for a mix that fallocate(2) does not allow.
    pub fn from_mode(mode: i32) -> Result<Self> {
        let (keep, punch, zero) = (libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_PUNCH_HOLE, libc::FALLOC_FL_ZERO_RANGE);
        match mode {
            0 => Ok(Self::Grow),
            mode if mode == keep => Ok(Self::Reserve),
            mode if mode == zero => Ok(Self::ZeroAndGrow),
            mode if mode == punch | keep || mode == zero | keep => Ok(Self::Zero),
            mode if mode & !(keep | punch | zero) != 0 => {
                Err(Error::new(libc::EOPNOTSUPP, format!("fallocate with mode {mode:#x} is not supported")))
            }
            mode => Err(Error::new(libc::EINVAL, format!("fallocate knows no mode {mode:#x}"))),
        }
    }

    fn zeroes(self) -> bool {
        matches!(self, Self::Zero | Self::ZeroAndGrow)
    }

    fn grows(self) -> bool {
        matches!(self, Self::Grow | Self::ZeroAndGrow)
    }
}

impl FileSystem {
    /// fallocate(2): `range` of an open file.
    ///
    /// # Errors
    /// EBADF, EROFS, EINVAL for an empty range, EFBIG, EDQUOT where the volume is full; what a commit says where one was needed because bytes around the
    /// range are at the service only.
    pub async fn allocate(
        self: &Arc<Self>,
        caller: &Caller,
        handle: HandleId,
        range: Range<u64>,
        allocation: Allocation,
    ) -> Result<()> {
        self.check_writable(caller)?;
        let handle = self.handles.file(handle)?;
        if !handle.access.write {
            return Err(Error::new(libc::EBADF, "the file is not open for writing"));
        }
        if range.is_empty() {
            return Err(Error::new(libc::EINVAL, "an empty range cannot be allocated"));
        }
        check_size(range.end)?;
        let inode = &handle.inode;
        if allocation != Allocation::Reserve {
            check_holes(&inode.state.lock())?;
        }
        self.count_before_growing().await;
        while !self.note_refused(allocate_in_layer(&self.space, inode, &range, allocation))? {
            self.told(&handle, self.commit(inode).await)?;
        }
        self.views.invalidate(Some(&caller.view), &Invalidation::Data(inode.number));
        if handle.access.synchronous {
            self.commit_for(&handle).await?;
        }
        Ok(())
    }
}

/// `false` when the layer must be committed first.
///
/// # Errors
/// EDQUOT.
fn allocate_in_layer(space: &Space, inode: &Inode, range: &Range<u64>, allocation: Allocation) -> Result<bool> {
    let mut state = inode.state.lock();
    let size = state.size();
    let zeroed = range.start..range.end.min(size);
    let zeroes = allocation.zeroes() && !zeroed.is_empty();
    let grows = allocation.grows() && range.end > size;
    if !zeroes && !grows {
        return Ok(true);
    }
    let counted = if grows { space.reach(&state, range.end)? } else { 0 };
    let layer = state.overlay_mut();
    let refused = zeroes && layer.zero(&zeroed).is_err() || grows && layer.truncate(range.end).is_err();
    if refused {
        space.give_back(counted);
        return Ok(false);
    }
    state.touch();
    Ok(true)
}
