//! Reading: layers of uncommitted bytes over cached pieces of the committed version.

use std::{ops::Range, sync::Arc};

use super::{
    Error, FileSystem, HandleId, Result,
    inode::{Base, Inode, State},
    overlay::{Overlay, Segment},
};
use crate::{
    blob::{self, ErrorKind},
    cache::{CachedBytes, Content, ReadStream},
    sync::Ordering,
};

/// A read that meets our own commit under way is tried again on the new version; more often than this, something keeps
/// replacing the version under it, and the program hears ESTALE.
const READ_TRIES_MAX: u32 = 8;

/// Bytes that were read.
#[derive(Debug)]
pub enum ReadData {
    /// Straight from the cache, without a copy.
    Cached(CachedBytes),
    /// Put together from several layers.
    Assembled(Vec<u8>),
}

impl ReadData {
    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Cached(bytes) => bytes.len(),
            Self::Assembled(bytes) => bytes.len(),
        }
    }

    /// Whether there is none: the end of the file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes as one slice, copied only where they lie in several blocks.
    pub fn with<R>(&self, use_bytes: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Self::Assembled(bytes) => use_bytes(bytes),
            Self::Cached(bytes) => match bytes.contiguous() {
                Some(bytes) => use_bytes(bytes),
                None => {
                    let mut copy = vec![0; bytes.len()];
                    bytes.copy_to(&mut copy);
                    use_bytes(&copy)
                }
            },
        }
    }
}

/// Bytes, and how many of them had to be waited for.
struct Found<T> {
    data: T,
    missed_bytes: u64,
}

impl<T> Found<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Found<U> {
        Found { data: change(self.data), missed_bytes: self.missed_bytes }
    }
}

/// What a range of a file is made of, through all layers.
enum Source {
    /// Only the committed version: the plain, common case.
    Base(Arc<Base>, Range<u64>),
    /// Bytes of the layers, already copied, with holes that the committed version fills.
    Layers { base: Option<Arc<Base>>, bytes: Vec<u8>, holes: Vec<Range<u64>>, start: u64 },
    /// Some of it was sent and is no longer in memory: only a commit makes it readable.
    OnlyStaged,
    /// The node's disk does not give back what it keeps.
    Lost(std::io::Error),
}

impl FileSystem {
    /// read(2): up to `size` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// EBADF; ESTALE when another client has replaced the version that is open; what the service says.
    pub async fn read(self: &Arc<Self>, handle: HandleId, offset: u64, size: u32) -> Result<ReadData> {
        let handle = match self.handles.file(handle) {
            Ok(handle) => handle,
            Err(error) => return self.read_figures(handle, offset, size).ok_or(error),
        };
        if !handle.access.read && !handle.access.write {
            return Err(Error::new(libc::EBADF, "the file is not open for reading"));
        }
        let range = offset..offset.saturating_add(u64::from(size));
        handle.inode.was_read.store(true, Ordering::Relaxed);
        let Found { data, missed_bytes } = self.find_range(&handle.inode, &range, &handle.stream).await?;
        self.meter.hit_bytes.add((data.len() as u64).saturating_sub(missed_bytes));
        self.meter.missed_bytes.add(missed_bytes);
        Ok(data)
    }

    /// As [`Self::read`], for the thread that brought the request: only what is in memory, without waiting and without a
    /// task. After `None`, ask [`Self::read`].
    #[must_use]
    pub fn read_now(self: &Arc<Self>, handle: HandleId, offset: u64, size: u32) -> Option<ReadData> {
        let handle = self.handles.file(handle).ok().filter(|handle| handle.access.read)?;
        let base = {
            let state = handle.inode.state.lock();
            let clean = state.overlay.is_none() && state.committing.is_none();
            state.base.clone().filter(|_| clean)?
        };
        let range = offset..offset.saturating_add(u64::from(size));
        let found = self.cache().try_read(&base.content, range.clone(), &handle.stream)?;
        handle.inode.was_read.store(true, Ordering::Relaxed);
        self.watch_end(&handle.inode, &base, range.end.min(base.content.length()));
        self.meter.hit_bytes.add(found.len() as u64);
        Some(ReadData::Cached(found))
    }

    /// What is at `range` of an inode, whatever layer it is in.
    pub(super) async fn read_range(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        range: &Range<u64>,
        stream: &ReadStream,
    ) -> Result<ReadData> {
        self.find_range(inode, range, stream).await.map(|found| found.data)
    }

    async fn find_range(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        range: &Range<u64>,
        stream: &ReadStream,
    ) -> Result<Found<ReadData>> {
        for _ in 0..READ_TRIES_MAX {
            let source = source_of(&inode.state.lock(), range);
            let (base, result) = match source {
                Source::OnlyStaged => {
                    self.commit(inode).await?;
                    continue;
                }
                Source::Lost(error) => {
                    return Err(Error::new(libc::EIO, format!("cannot read the spool: {error}")));
                }
                Source::Base(base, range) => {
                    let result = self.read_content(&base.content, range, stream).await;
                    (Some(base), result.map(|found| found.map(ReadData::Cached)))
                }
                Source::Layers { base, bytes, holes, start } => {
                    let result = self.fill_holes(base.as_deref(), bytes, &holes, start, stream).await;
                    (base, result.map(|found| found.map(ReadData::Assembled)))
                }
            };
            match result {
                Ok(found) => {
                    if let Some(base) = &base {
                        self.watch_end(inode, base, range.end);
                    }
                    return Ok(found);
                }
                Err(error) if is_replaced(&error) => self.follow(inode, base.as_ref(), error).await?,
                Err(error) => return Err(Error::from_store("cannot read", error)),
            }
        }
        Err(Error::new(libc::ESTALE, "the file was replaced again and again while it was read"))
    }

    async fn read_content(
        &self,
        content: &Arc<Content>,
        range: Range<u64>,
        stream: &ReadStream,
    ) -> blob::Result<Found<CachedBytes>> {
        let waits = self.cache().peek(content, &range).is_none();
        let data = self.cache().read(content, range, stream).await?;
        let missed_bytes = if waits { data.len() as u64 } else { 0 };
        Ok(Found { data, missed_bytes })
    }

    async fn fill_holes(
        &self,
        base: Option<&Base>,
        mut bytes: Vec<u8>,
        holes: &[Range<u64>],
        start: u64,
        stream: &ReadStream,
    ) -> blob::Result<Found<Vec<u8>>> {
        let mut missed_bytes = 0;
        for hole in holes {
            let Some(base) = base else { break };
            let found = self.read_content(&base.content, hole.clone(), stream).await?;
            let target = &mut bytes[(hole.start - start) as usize..(hole.end - start) as usize];
            found.data.copy_to(&mut target[..found.data.len()]);
            missed_bytes += found.missed_bytes;
        }
        Ok(Found { data: bytes, missed_bytes })
    }

    /// The version under a read is gone from the service: fine when it was our own commit (the read is tried again) or
    /// the same bytes under a new ETag; ESTALE else.
    pub(super) async fn follow(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        base: Option<&Arc<Base>>,
        error: blob::Error,
    ) -> Result<()> {
        if has_moved_on(inode, base) {
            return Ok(());
        }
        // The service takes a commit before we have its answer: the version is then gone there, and still ours here. So the
        // one that may be under way ends first, and none begins while we look.
        let turn = crate::sync::tokio::time::timeout(self.store.limits().names, inode.commit.lock()).await;
        let _in_order = turn.map_err(|_| Error::timed_out("a commit of the file that is read does not end"))?;
        if !inode.state.lock().attempts.is_empty() {
            // A commit of ours without an answer may have made what is there now: the next one finds out.
            return self.commit_locked(inode).await;
        }
        if has_moved_on(inode, base) || self.adopt_same_bytes(inode).await? {
            return Ok(());
        }
        Err(Error::from_store("another client has replaced the open file", error).with_errno(libc::ESTALE))
    }
}

/// Whether an inode stands for another version than `base` by now.
fn has_moved_on(inode: &Inode, base: Option<&Arc<Base>>) -> bool {
    match (&inode.state.lock().base, base) {
        (Some(now), Some(then)) => !Arc::ptr_eq(now, then),
        (now, then) => now.is_some() != then.is_some(),
    }
}

fn is_replaced(error: &blob::Error) -> bool {
    matches!(error.kind, ErrorKind::Precondition | ErrorKind::NotFound)
}

/// Reads the layers under the lock, and says what the committed version must add.
fn source_of(state: &State, range: &Range<u64>) -> Source {
    let clean = state.overlay.is_none() && state.committing.is_none();
    let end = range.end.min(state.size());
    let range = range.start.min(end)..end;
    if let (true, Some(base)) = (clean, &state.base) {
        return Source::Base(Arc::clone(base), range);
    }
    let mut bytes = vec![0; (range.end - range.start) as usize];
    let mut holes = Vec::new();
    let layers = [state.overlay.as_ref(), state.committing.as_deref()];
    let layers: Vec<&Overlay> = layers.into_iter().flatten().collect();
    match copy_layers(&layers, &range, range.start, &mut bytes, &mut holes) {
        Ok(true) => {}
        Ok(false) => return Source::OnlyStaged,
        Err(error) => return Source::Lost(error),
    }
    let length = state.base.as_ref().map_or(0, |base| base.properties.length);
    let holes = holes.into_iter().map(|hole| hole.start..hole.end.min(length)).filter(|hole| !hole.is_empty());
    Source::Layers { base: state.base.clone(), bytes, holes: holes.collect(), start: range.start }
}

/// Copies what the layers know of `range` to `bytes`, which begins at `start`; what none of them knows becomes a hole.
/// `false` when a part is not in memory.
fn copy_layers(
    layers: &[&Overlay],
    range: &Range<u64>,
    start: u64,
    bytes: &mut [u8],
    holes: &mut Vec<Range<u64>>,
) -> std::io::Result<bool> {
    let Some((layer, below)) = layers.split_first() else {
        holes.push(range.clone());
        return Ok(true);
    };
    for segment in layer.segments(range) {
        match segment {
            Segment::Dirty(part) => {
                layer.copy_to(&part, &mut bytes[(part.start - start) as usize..(part.end - start) as usize])?;
            }
            Segment::Zero(_) => {}
            Segment::Below(part) if copy_layers(below, &part, start, bytes, holes)? => {}
            Segment::Below(_) | Segment::Staged(_) => return Ok(false),
        }
    }
    Ok(true)
}
