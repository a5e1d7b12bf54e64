//! Writing: into the top layer, in memory, at the cost of one copy. Memory is bounded: a writer that finds none left
//! makes room by sending what it has (`stage`, `commit`); it is slowed, never failed.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    Caller, Error, FileSystem, HandleId, Invalidation, Result,
    commit::check_change,
    handle::FileHandle,
    inode::{Fate, Inode},
    overlay::{LayerId, Overlay, WRITTEN_BYTES_MAX, WriteRefused},
    spool::SpoolFile,
    takeover::RESENT,
    usage::Space,
};
use crate::cache::{Buffer, Class, Pool};

/// Largest file: 50,000 blocks of the largest block that we stage (see `stage`), and below the service's 190.7 TiB.
pub(super) const FILE_BYTES_MAX: u64 = 4 << 40;
const _: () = assert!(FILE_BYTES_MAX <= WRITTEN_BYTES_MAX, "every buffer has a row");
/// Memory that one spill gives up: enough that the next writes do not spill again, little enough to copy in the time of
/// a request (2 ms at 4 GiB/s).
const SPILL_BYTES: u64 = 8 << 20;
/// How long a writer waits for what is being sent, where there is a spool to give it memory at once: a stretch takes
/// 133 ms on a connection of 60 MiB/s.
const SENDING_WAIT: Duration = Duration::from_millis(500);
/// Of one file that was sent and is not committed, so much is kept on disk for the case that the commit is refused. More
/// would make the node's disk the limit of every large upload.
const KEPT_SENT_BYTES_MAX: u64 = 256 << 20;
/// How long a writer waits for memory that others hold before it looks again whether it can make room itself.
const MEMORY_LOOK: Duration = Duration::from_millis(50);

/// How one write is to be done. Not only the flags of open(2) say it: fcntl(2) changes them, and pwritev2(2) has its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteMode {
    /// At the end of the file, wherever that is when the bytes land (O_APPEND).
    pub append: bool,
    /// Returns only once it is on the service (O_SYNC, O_DSYNC, RWF_SYNC, RWF_DSYNC).
    pub synchronous: bool,
    /// Written by the kernel out of its page cache, where a mapping changed it: never grows the file, which was cut behind
    /// the kernel's back where the page reaches further.
    pub page: bool,
}

/// Where a write goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// To this offset.
    At(u64),
    /// To the end of the file, decided when the bytes land: two appends at once never overlap. With the view that asked, and
    /// the number of its request: one that is sent again must not land again.
    End(u64, u64),
    /// To this offset, as far as the file reaches when the bytes land.
    Inside(u64),
}

impl Place {
    fn of(caller: &Caller, mode: WriteMode, offset: u64) -> Self {
        match mode {
            WriteMode { append: true, .. } => Self::End(caller.view.id(), caller.request),
            WriteMode { page: true, .. } => Self::Inside(offset),
            _ => Self::At(offset),
        }
    }

    /// Where `length` bytes land in a file of `size` bytes.
    fn range(self, size: u64, length: usize) -> Range<u64> {
        let behind = |start: u64| start.saturating_add(length as u64);
        match self {
            Self::At(offset) => offset..behind(offset),
            Self::End(..) => size..behind(size),
            Self::Inside(offset) => offset.min(size)..behind(offset).min(size),
        }
    }
}

/// EFBIG for a file that would end at `end`.
pub(super) fn check_size(end: u64) -> Result<()> {
    match end <= FILE_BYTES_MAX {
        true => Ok(()),
        false => Err(Error::new(libc::EFBIG, format!("a file has at most {FILE_BYTES_MAX} bytes"))),
    }
}

/// One try to put `data` into the top layer, with where it lands: all of it, but with [`Place::Inside`].
///
/// # Errors
/// What forbids the write for good; the inner one is what the layer wants first.
fn land(
    space: &Space,
    inode: &Inode,
    place: Place,
    data: &[u8],
    buffers: &mut BTreeMap<u64, Buffer>,
) -> Result<(Range<u64>, std::result::Result<(), WriteRefused>)> {
    let mut state = inode.state.lock();
    if let Place::End(view, request) = place
        && request & RESENT != 0
        && state.last_append == Some((view, request & !RESENT))
    {
        let end = state.size();
        return Ok((end.saturating_sub(data.len() as u64)..end, Ok(())));
    }
    let range = place.range(state.size(), data.len());
    check_size(range.end)?;
    let landing = &data[..data.len().min((range.end - range.start) as usize)];
    if landing.is_empty() {
        return Ok((range, Ok(())));
    }
    check_change(&state, range.start, false)?;
    let counted = space.reach(&state, range.end)?;
    let outcome = state.overlay_mut().write(range.start, landing, buffers);
    match outcome {
        Ok(()) => {
            state.touch();
            if let Place::End(view, request) = place {
                state.last_append = Some((view, request & !RESENT));
            }
        }
        Err(_) => space.give_back(counted),
    }
    Ok((range, outcome))
}

impl FileSystem {
    /// The outcome of a call on `handle` that may have committed on its way: a failure that it returns is told by that.
    pub(super) fn told<T>(&self, handle: &FileHandle, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() {
            handle.heard.store(handle.inode.state.lock().errors.sequence(), Ordering::Relaxed);
            self.handles.note_heard(handle);
        }
        outcome
    }

    /// write(2): all of `data` at `offset` (at the end, for a handle in append mode).
    ///
    /// # Errors
    /// As [`Self::write_as`].
    pub async fn write(self: &Arc<Self>, caller: &Caller, handle: HandleId, offset: u64, data: &[u8]) -> Result<u32> {
        let access = self.handles.file(handle)?.access;
        let mode = WriteMode { append: access.append, synchronous: access.synchronous, page: false };
        self.write_as(caller, handle, offset, data, mode).await
    }

    /// write(2) in the mode of this one call. Readers see all of `data` or nothing of it; appends follow each other.
    ///
    /// # Errors
    /// EBADF, EROFS, EFBIG; EDQUOT where the volume is full; ESTALE when another client has replaced the version that is
    /// open; ENOSPC where there is no place for what cannot be committed; what a commit says where one was needed to make room.
    pub async fn write_as(
        self: &Arc<Self>,
        caller: &Caller,
        handle: HandleId,
        offset: u64,
        data: &[u8],
        mode: WriteMode,
    ) -> Result<u32> {
        if let Some(count) = self.try_write_as(caller, handle, offset, data, mode) {
            return Ok(count);
        }
        let count = u32::try_from(data.len());
        let count = count.map_err(|_| Error::new(libc::EINVAL, "a single write is at most 4 GiB"))?;
        self.check_writable(caller)?;
        let handle = self.handles.file(handle)?;
        let inode = &handle.inode;
        if data.is_empty() {
            return Ok(count);
        }
        self.count_before_growing().await;
        let landed = self.note_refused(self.write_layer(inode, Place::of(caller, mode, offset), data).await);
        let range = self.told(&handle, landed)?;
        self.note_written(caller, inode, offset, &range, mode);
        if mode.synchronous {
            self.commit_for(&handle).await?;
        }
        Ok(count)
    }

    /// As [`Self::write_as`] where nothing must be waited for: for the thread that brought the request, out of whose
    /// buffer the bytes go straight into the layer. `None`: nothing was written, and `write_as` does it or says why not.
    pub fn try_write_as(
        self: &Arc<Self>,
        caller: &Caller,
        handle: HandleId,
        offset: u64,
        data: &[u8],
        mode: WriteMode,
    ) -> Option<u32> {
        if mode.synchronous || data.is_empty() || self.space.must_be_counted() {
            return None;
        }
        let count = u32::try_from(data.len()).ok()?;
        self.check_writable(caller).ok()?;
        let handle = self.handles.file(handle).ok()?;
        let range = self.try_write_layer(&handle.inode, Place::of(caller, mode, offset), data)?;
        self.note_written(caller, &handle.inode, offset, &range, mode);
        Some(count)
    }

    /// What follows a write that landed on `range`.
    fn note_written(
        self: &Arc<Self>,
        caller: &Caller,
        inode: &Arc<Inode>,
        offset: u64,
        range: &Range<u64>,
        mode: WriteMode,
    ) {
        self.meter.written_bytes.add(range.end - range.start);
        self.stage_behind(inode, range);
        // The kernel has put the bytes into its pages where it believed the end to be.
        let misled = mode.append && range.start != offset;
        self.views.invalidate((!misled).then_some(&*caller.view), &Invalidation::Data(inode.number));
        if mode.append && !mode.synchronous {
            self.save_by_age(inode);
        }
    }

    /// [`Self::write_layer`] with memory that is to be had at once; `None` where it would wait or fail.
    fn try_write_layer(&self, inode: &Inode, place: Place, data: &[u8]) -> Option<Range<u64>> {
        let mut buffers = BTreeMap::new();
        // Once to see which buffers are wanted, once with them; a third time only if somebody else wrote in between.
        for _ in 0..3 {
            let (range, outcome) = land(&self.space, inode, place, data, &mut buffers).ok()?;
            match outcome {
                Ok(()) => return Some(range),
                Err(WriteRefused::BuffersWanted) => {}
                Err(WriteRefused::NotResident | WriteRefused::Spool(_)) => return None,
            }
            let wanted = inode.state.lock().overlay_mut().buffers_wanted(&range);
            for (index, length) in wanted {
                let length = Pool::capacity(usize::try_from(length).ok()?);
                buffers.insert(index, self.pool().try_dirty_buffer(self.vault.as_ref(), &self.dirty_share, length)?);
            }
        }
        None
    }

    /// Puts `data` into the top layer; returns where it landed. All of it, but with [`Place::Inside`].
    pub(super) async fn write_layer(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        place: Place,
        data: &[u8],
    ) -> Result<Range<u64>> {
        let mut buffers = BTreeMap::new();
        loop {
            let (range, outcome) = land(&self.space, inode, place, data, &mut buffers)?;
            match outcome {
                Ok(()) => return Ok(range),
                Err(WriteRefused::NotResident) => self.commit(inode).await?,
                Err(WriteRefused::Spool(error)) => {
                    return Err(Error::new(libc::EIO, format!("cannot read the spool: {error}")));
                }
                Err(WriteRefused::BuffersWanted) => self.fetch_buffers(inode, &range, &mut buffers).await?,
            }
        }
    }

    /// Takes the buffers that a write needs out of the budget, making room where there is none.
    async fn fetch_buffers(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        range: &Range<u64>,
        buffers: &mut BTreeMap<u64, Buffer>,
    ) -> Result<()> {
        let wanted = inode.state.lock().overlay_mut().buffers_wanted(range);
        buffers.retain(|index, _| wanted.iter().any(|(wanted, _)| wanted == index));
        for (index, length) in wanted {
            let enough = buffers.get(&index).is_some_and(|buffer| buffer.len() as u64 >= length);
            if !enough {
                buffers.insert(index, self.dirty_buffer(inode, length).await?);
            }
        }
        Ok(())
    }

    async fn dirty_buffer(self: &Arc<Self>, inode: &Arc<Inode>, length: u64) -> Result<Buffer> {
        let length = Pool::capacity(usize::try_from(length).unwrap_or(usize::MAX));
        let ends = Instant::now() + self.store.limits().commits;
        loop {
            if let Some(buffer) = self.pool().try_dirty_buffer(self.vault.as_ref(), &self.dirty_share, length) {
                return Ok(buffer);
            }
            if self.make_room(inode).await? {
                continue;
            }
            let wait = self.pool().dirty_buffer(self.vault.as_ref(), &self.dirty_share, length);
            if let Ok(buffer) = crate::sync::tokio::time::timeout(MEMORY_LOOK, wait).await {
                return Ok(buffer);
            }
            if self.is_stuck(inode) {
                return Err(Error::new(
                    libc::ENOSPC,
                    "a file without a name is larger than memory, and the spool takes no more of it",
                ));
            }
            if Instant::now() >= ends {
                let sentence = "no memory became free until the deadline: what was written before could not be sent";
                return Err(Error::timed_out(sentence));
            }
            self.relieve_others(inode);
        }
    }

    /// Whether nothing frees memory for a file that make_room() got nothing from: it has no name to be saved under, holds
    /// much of the memory, and no other file of the volume holds anything that could be saved instead.
    fn is_stuck(&self, inode: &Arc<Inode>) -> bool {
        let can_be_saved = |other: &Arc<Inode>| {
            let state = other.state.lock();
            state.fate == Fate::Linked && (state.overlay.is_some() || state.committing.is_some())
        };
        let much = self.pool().budget().limit_bytes(Class::Dirty) / 4;
        let is_full = {
            let state = inode.state.lock();
            let held = state.overlay.as_ref().map_or(0, Overlay::resident_bytes);
            state.fate == Fate::Unlinked && held >= much
        };
        is_full && !self.table.all().iter().any(can_be_saved)
    }

    /// Gives up memory of this file. What was sent goes first (to the spool, or away), what is on its way is waited for, what
    /// is left goes to the spool, and without one it is committed. `false` when nothing could go.
    async fn make_room(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<bool> {
        let staged = inode.staged.notified();
        crate::sync::tokio::pin!(staged);
        staged.as_mut().enable();
        if self.give_up_sent(inode) > 0 {
            return Ok(true);
        }
        let (on_the_way, resident) = {
            let state = inode.state.lock();
            (!state.staging.is_empty(), state.overlay.as_ref().map_or(0, Overlay::resident_bytes))
        };
        if on_the_way || self.stage_complete(inode) {
            let patience = match self.resources.spool {
                Some(_) => SENDING_WAIT,
                None => self.store.limits().commits,
            };
            if crate::sync::tokio::time::timeout(patience, staged).await.is_ok() {
                return Ok(true);
            }
        }
        let full = match self.spill(inode, false) {
            Ok(Some(freed)) => return Ok(freed > 0),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if resident == 0 || inode.state.lock().fate == Fate::Unlinked {
            return Ok(false);
        }
        match (self.commit(inode).await, full) {
            (Err(error), Some(full)) if error.may_pass() => {
                let message = format!("the spool takes no more ({full}): {}", error.message);
                Err(Error { errno: libc::ENOSPC, message, ..error })
            }
            (outcome, _) => outcome.map(|()| true),
        }
    }

    /// Gives up memory of what was sent already. It goes to the spool, since the service discards it when the commit is
    /// refused; of a large file that nobody reads, what is beyond [`KEPT_SENT_BYTES_MAX`] is not kept.
    fn give_up_sent(&self, inode: &Inode) -> u64 {
        let is_read = {
            let mut state = inode.state.lock();
            let is_read = state.readers > 0;
            let Some(overlay) = state.overlay.as_mut() else { return 0 };
            if self.resources.spool.is_none() || (!is_read && overlay.spooled_bytes() >= KEPT_SENT_BYTES_MAX) {
                return overlay.drop_staged();
            }
            is_read
        };
        match self.spill(inode, true) {
            Ok(Some(freed)) => freed,
            // The disk takes no more.
            _ if !is_read => inode.state.lock().overlay.as_mut().map_or(0, Overlay::drop_staged),
            _ => 0,
        }
    }

    /// Moves some of the file's dirty memory to the spool, of what was sent or of all; waits for the disk without holding
    /// the file's state. Returns the bytes of memory given up; `None` without a spool.
    ///
    /// # Errors
    /// What the node's disk says.
    fn spill(&self, inode: &Inode, only_sent: bool) -> std::io::Result<Option<u64>> {
        let Some(directory) = &self.resources.spool else { return Ok(None) };
        let kept = || {
            let spool = match inode.state.lock().overlay.as_mut() {
                Some(overlay) => overlay.spool(|| SpoolFile::create(directory))?,
                None => return Ok(None),
            };
            if let (Some(scribe), Some(layer)) = (&self.scribe, self.layer_of(inode)) {
                scribe.hold_spool(layer, &spool)?;
            }
            let _turn = spool.turn();
            let chosen = inode.state.lock().overlay.as_ref().map(|overlay| overlay.spillable(SPILL_BYTES, only_sent));
            let Some(chosen) = chosen else { return Ok(None) };
            chosen.keep(&spool)?;
            Ok(inode.state.lock().overlay.as_mut().map(|overlay| overlay.spilled(chosen, &spool)))
        };
        kept().inspect_err(|error| {
            tracing::warn!("the spool in {} takes no more: {error}", directory.display());
        })
    }

    fn layer_of(&self, inode: &Inode) -> Option<LayerId> {
        inode.state.lock().overlay.as_ref().and_then(Overlay::id)
    }

    /// Takes memory from the file that holds the most, when it is not this one: its writer may be asleep. What cannot be
    /// given up is committed in the background.
    fn relieve_others(self: &Arc<Self>, inode: &Arc<Inode>) {
        let held = |other: &Arc<Inode>| {
            let state = other.state.lock();
            let linked = state.fate == Fate::Linked;
            state.overlay.as_ref().filter(|_| linked).map_or(0, Overlay::resident_bytes)
        };
        let others = self.table.all().into_iter().filter(|other| other.number != inode.number);
        let Some((bytes, other)) = others.map(|other| (held(&other), other)).max_by_key(|(bytes, _)| *bytes) else {
            return;
        };
        let spilled = || self.spill(&other, false).is_ok_and(|freed| freed.is_some_and(|freed| freed > 0));
        if bytes == 0 || self.give_up_sent(&other) > 0 || spilled() {
            return;
        }
        if other.commit.try_lock().is_err() {
            return; // It is being committed: that frees its memory.
        }
        let file_system = Arc::clone(self);
        self.resources.runtime.spawn(async move {
            if let Err(error) = file_system.commit_unheard(&other).await {
                tracing::warn!(inode = other.number.0, "cannot make room: {}", error.to_chain());
            }
        });
    }

    /// Cuts or grows a file; what comes into being reads as zeros.
    pub(super) async fn truncate(
        self: &Arc<Self>,
        caller: &Caller,
        inode: &Arc<Inode>,
        size: u64,
        open: bool,
    ) -> Result<()> {
        if inode.directory.is_some() {
            return Err(Error::new(libc::EISDIR, "a directory has no size to set"));
        }
        check_size(size)?;
        self.count_before_growing().await;
        if !open && self.must_revalidate(inode) {
            self.revalidate(inode).await?;
        }
        loop {
            let outcome = {
                let mut state = inode.state.lock();
                if state.size() == size && !state.is_dirty() && state.base.is_some() {
                    state.touch();
                    state.attributes_dirty = true;
                    return Ok(());
                }
                check_change(&state, size, true)?;
                let (before, counted) = (state.size(), self.note_refused(self.space.reach(&state, size))?);
                let outcome = state.overlay_mut().truncate(size);
                if outcome.is_ok() {
                    state.touch();
                    self.space.give_back(if state.fate == Fate::Linked { before.saturating_sub(size) } else { 0 });
                } else {
                    self.space.give_back(counted);
                }
                outcome
            };
            if outcome.is_ok() {
                self.views.invalidate(Some(&caller.view), &Invalidation::Data(inode.number));
                return Ok(());
            }
            self.commit(inode).await?;
        }
    }
}
